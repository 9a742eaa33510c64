"""What a run says: the report in one file, single figures, and the app in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

Runs = Annotated[tuple[Path, ...], tyro.conf.Positional]


def report(
    run: Annotated[Path, tyro.conf.Positional],
    *,
    png: tuple[str, ...] = (),
    pdf: tuple[str, ...] = (),
    svg: tuple[str, ...] = (),
    mode: Literal["light", "dark"] = "light",
    width: int = 1000,
) -> None:
    """Write report.html of a run folder again; with --png, --pdf or --svg, figures as files of their own instead.

    Example: thoughtlens report runs/demo
    Example: thoughtlens report runs/demo --pdf tax_by_category auroc_by_layer_and_span
    Example: thoughtlens report runs/demo --png all --mode dark

    Args:
        run: Run folder.
        png: Names of figures, or all, to write as RUN/figures/NAME.png. Needs the extra "images" and Chrome or Chromium.
        pdf: The same as PDF.
        svg: The same as SVG.
        mode: Light or dark paper of those files.
        width: Their width in pixels.
    """
    from ..telling import tell

    _of_run(run)
    asked = {"png": png, "pdf": pdf, "svg": svg}
    if not any(asked.values()):
        print(tell(run))
        return
    from ...viz.images import images

    if not 200 <= width <= 4000:
        raise ValueError(f"--width is {width}; figures are 200 to 4000 pixels wide")
    _indexed(run)
    for form, names in asked.items():
        for file in images(run, names, form=form, mode=mode, width=width) if names else ():
            print(file)


def view(
    runs: Runs,
    *,
    host: str = "127.0.0.1",
    port: int = 8050,
    browser: bool = True,
    allow_remote: bool = False,
) -> None:
    """Open runs in the browser, side by side: where refusals collapse, which layers read it, thoughts token by token, what steering bought.

    Example: thoughtlens view runs/demo
    Example: thoughtlens view runs/demo runs/audit --port 8051 --no-browser

    Args:
        runs: Run folders, one or several.
        host: Address to listen on; only this machine can reach the app unless --allow-remote is given.
        port: Port to listen on.
        browser: Open the page.
        allow_remote: Let other machines see prompts and model output: there is no password.
    """
    for run in runs:
        _of_run(run)
    try:
        from ...viz.app import Runs, serve

        serve(Runs(runs, prepare=_indexed), host=host, port=port, open_browser=browser, allow_remote=allow_remote)
    except ImportError as error:
        raise ImportError(f"the app needs {error.name}: pip install 'thoughtlens[app]'") from error


def _indexed(run: Path) -> None:
    """Bring the tables of prompts and answers up to date, where verdict files were not all there was."""
    from ..indexing import index

    if (run / "prompts.jsonl").is_file():
        index(run)


def _of_run(run: Path) -> None:
    if not (run / "tables").is_dir():
        raise FileNotFoundError(f"{run} is no run folder: it has no tables/. `thoughtlens demo --out {run}` makes one")
