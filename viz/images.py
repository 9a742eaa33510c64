"""Single figures as image files, drawn by kaleido in the Chrome or Chromium that is installed. Nothing is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from . import theme
from .sections import drawings
from .tables import TableProblem, read_table

FORMATS = ("png", "pdf", "svg")
SHARPER = {"png": 2}  # pixels of a picture per pixel of the page; the others are drawn in lines
EVERY = "all"


def images(
    run: Path,
    names: Sequence[str] = (EVERY,),
    *,
    form: str = "png",
    into: Path | None = None,
    mode: theme.Mode = "light",
    width: int = 1000,
    told: Callable[[str], None] = print,
) -> list[Path]:
    """Write figures of a run, by the names of their functions, as `figures/<name>.<form>` in the run folder or `into`; returns the files.

    "all" is every figure whose tables are there; what is left out then is `told`. A figure asked for by its name whose table is missing
    raises TableProblem. ValueError for an unknown name or form, ImportError without kaleido, OSError without a browser.
    """
    known = drawings()
    every = tuple(names) == (EVERY,)
    if unknown := [name for name in names if name not in known and not every]:
        raise ValueError(f"no figure is called {unknown[0]!r}; there are {', '.join(known)}, or {EVERY!r}")
    if form not in FORMATS:
        raise ValueError(f"figures are written as {', '.join(FORMATS)}, not as {form!r}")
    made = {}
    for name in known if every else names:
        try:
            made[name] = known[name].make(*(read_table(run, table) for table in known[name].tables))
        except TableProblem as problem:
            if not every:
                raise
            told(f"{name} is left out: {problem}")
    folder = into or Path(run) / "figures"
    files = {name: folder / f"{name}.{form}" for name in made}
    if files:
        folder.mkdir(parents=True, exist_ok=True)
        _write([(theme.dress(made[name], mode).update_layout(width=width), file) for name, file in files.items()], form)
    return list(files.values())


def _write(figures: Sequence[tuple[object, Path]], form: str) -> None:
    try:
        import kaleido
        from kaleido.errors import ChromeNotFoundError
    except ImportError as error:
        raise ImportError("figures become image files with kaleido: pip install 'thoughtlens[images]'") from error
    asked = [{"fig": figure, "path": path, "opts": {"format": form, "scale": SHARPER.get(form, 1)}} for figure, path in figures]
    try:
        kaleido.write_fig_from_object_sync(asked, kopts={"mathjax": False}, cancel_on_error=True)
    except ChromeNotFoundError as error:
        raise OSError(
            "figures become image files in a browser, and none was found: install Chrome or Chromium, or set BROWSER_PATH"
        ) from error
