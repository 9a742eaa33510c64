"""The run folders that are shown, checked at once and opened when first asked for.

What reads and draws (pandas, duckdb, the figures) is imported then and not before, so that the server can answer at once: a browser takes
as long to get ready as Python does, and both can do it at the same time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .kept import Asked

if TYPE_CHECKING:
    from .columns import Column

LOG = logging.getLogger(__name__)
LOOK = 2.0  # seconds


@dataclass(frozen=True)
class Folder:
    """A folder by the name it is shown under, and what is wrong with it."""

    name: str
    path: Path
    problem: str = ""


class Runs:
    """Threads may share it.

    prepare  brings a run up to date, quickly where it is: before it is opened, and every few seconds while it is looked at
    asked    the addresses that the page asks for

    FileNotFoundError where none of them is a run folder; one that is none beside others is told in its column.
    """

    def __init__(self, paths: Sequence[Path], prepare: Callable[[Path], None] = lambda run: None) -> None:
        self.folders, self._prepare = _folders(paths), prepare
        self.asked = Asked[str]()
        self._opening, self._looked, self._columns = threading.Lock(), 0.0, list["Column"]()

    @property
    def names(self) -> list[str]:
        return [folder.name for folder in self.folders]

    def columns(self) -> Sequence[Column]:
        """The runs as they are now: what was written to them since is brought in every few seconds."""
        with self._opening:
            if not self._columns:
                from .columns import open_columns

                self._bring_up_to_date()
                self._columns = open_columns(self.folders)
            elif time.monotonic() - self._looked > LOOK:
                try:
                    self._bring_up_to_date()
                except Exception:  # half a line, perhaps, of who is writing it; the run is shown as it was
                    LOG.exception("reading again what %s is made from", ", ".join(self.names))
            return self._columns

    def _bring_up_to_date(self) -> None:
        self._looked = time.monotonic()
        for folder in self.folders:
            if not folder.problem:
                self._prepare(folder.path)


def _folders(paths: Sequence[Path]) -> list[Folder]:
    if not paths:
        raise ValueError("no run folder to show; pass at least one: `thoughtlens view runs/demo`")
    found = [Folder(name, path, _problem(path)) for path, name in zip(map(Path, paths), _names(paths), strict=True)]
    if all(folder.problem for folder in found):
        raise FileNotFoundError("; ".join(folder.problem for folder in found))
    return found


def _problem(run: Path) -> str:
    if not run.exists():
        return f"There is no folder {run}. `thoughtlens demo` makes a run folder."
    if not (run / "tables").is_dir():
        return f"{run} is no run folder: it has no tables/. `thoughtlens demo --out {run}` makes one."
    return ""


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of every path; with the part before it where two are the same."""
    whole = [Path(path).resolve() for path in paths]
    last = [path.name for path in whole]
    return [name if last.count(name) == 1 else "/".join(path.parts[-2:]) for name, path in zip(last, whole, strict=True)]
