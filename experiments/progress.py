"""Progress bars for long work, one a task with a word beside it (`total` None: unknown beforehand); and what prints results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

WIDTH = 180  # of tables that are printed where there is no terminal
Advance = Callable[[str, int], None]
Track = Callable[[str, int | None], AbstractContextManager[Advance]]


@contextmanager
def track(shown: bool = True) -> Iterator[Track]:
    """Yield a function (title, total) -> context manager whose value (note, by) advances the bar and shows a note."""
    columns = (
        TextColumn("{task.description}", table_column=Column(min_width=24, no_wrap=True)),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:

        @contextmanager
        def task(title: str, total: int | None) -> Iterator[Advance]:
            number = progress.add_task(title, total=total, note="")
            yield lambda note, by: progress.update(number, advance=by, note=note)

        yield task


def printer() -> Console:
    """Prints tables and sentences on stdout, as wide as the terminal; wide enough to be read where it goes into a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
