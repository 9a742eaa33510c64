"""Tables of a benchmark: where rows may lie, which of their columns make a prompt, and what other files say of them.

The same rows come as a GitHub tree, as the Parquet files of their hub form, as what `datasets` has saved or holds in memory, or as a
single file.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from .reading import Row, files_near, files_of, numbered, read_rows

Cell = str | bool | None | Callable[[Row], Any]
Root = str | Path | Iterable[Mapping[str, Any]]


class NotThere(ValueError):
    """What lies at a root is not what was asked for; the text says what is wrong, and whoever asked adds what to do."""


@dataclass(frozen=True)
class Beside:
    """Another published file, whose rows complete those of a table; the one that a row finds is its `_beside`, empty where there is none.

    files   as in Table
    keys    the names under which one of its rows is found
    key     the name that a row of the table asks for
    """

    files: tuple[str, ...]
    keys: Callable[[Row], Iterable[str]]
    key: Cell


@dataclass(frozen=True)
class Table:
    """Rows of one published file, or of several alike, and the prompts they make.

    files     where the rows may lie below the root (at any depth): the first pattern that matches a file with these columns is read, with
              all files that it matches, in order of their names
    columns   field of Prompt -> template filled from the row ("{category_id}-{task_id}"), a constant, or a function of the row
    images    for each picture that is shown: where it lies below the root (a template; with a star, all pictures it names), or a function
              of the row that gives a path, several paths of which one is there, bytes, or what `datasets` makes of a picture
    needs     columns that functions use; those of templates are known
    rows      the rows that a row stands for, where it is several prompts or none
    beside    a file whose rows complete these
    instead   other forms in which the same rows are published, with other columns: the hub's

    Beside its own columns a row has `_file` (below the root), `_stem` and `_folder` of that file, `_number` (from 1), and `_key`, its name
    in a JSON object of objects or of lists.
    """

    files: tuple[str, ...]
    columns: Mapping[str, Cell]
    images: tuple[Cell, ...] = ()
    needs: tuple[str, ...] = ()
    rows: Callable[[Row], Iterable[Row]] = lambda row: (row,)
    beside: Beside | None = None
    instead: tuple[Table, ...] = ()

    @property
    def wanted(self) -> frozenset[str]:
        """The published columns without which no prompt can be made."""
        cells = [*self.columns.values(), *self.images, self.beside and self.beside.key]
        named = {name for cell in cells if isinstance(cell, str) for name in _named(cell)}
        return frozenset(name for name in named | set(self.needs) if not name.startswith("_"))


def rows_of(table: Table, root: Root) -> tuple[Table, Iterator[Row]]:
    """The form of a table that lies at a root, and its rows there. NotThere where there are none, or none with its columns."""
    problems = dict[int, NotThere]()
    forms = (table, *table.instead)
    for number, form in enumerate(forms):
        for where, rows in _places(form, root):
            try:
                return form, _completed(form, root, _checked(form, rows, where))
            except NotThere as problem:
                problems.setdefault(number, problem)
    if problems:
        raise NotThere("; read in another shape, ".join(dict.fromkeys(map(str, problems.values()))))
    raise NotThere(f"{root} holds none of {', '.join(pattern for form in forms for pattern in form.files)}")


def _places(table: Table, root: Root) -> Iterator[tuple[str, Iterator[Row]]]:
    """Wherever the rows of a table may lie at a root: the first names of its files, and what is in them."""
    if not isinstance(root, str | Path):
        yield "the rows given", numbered(map(dict, root), "")
        return
    root = Path(root).expanduser()
    if not root.exists():
        raise NotThere(f"there is nothing at {root}")
    for pattern in table.files:
        if files := files_of(root, pattern):
            yield ", ".join(file.name for file in files[:3]), chain.from_iterable(read_rows(file, root) for file in files)


def _checked(table: Table, rows: Iterator[Row], where: str) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        raise NotThere(f"{where} holds no rows")
    if lacking := sorted(name for name in table.wanted if name not in first):
        there = ", ".join(name for name in first if not name.startswith("_"))
        raise NotThere(f"{where} lacks the column {', '.join(lacking)}; there are {there}")
    return chain([first], rows)


def _completed(table: Table, root: Root, rows: Iterator[Row]) -> Iterator[Row]:
    """Rows with what the file beside theirs says of them."""
    if (beside := table.beside) is None:
        return rows
    if not isinstance(root, str | Path):
        raise NotThere(f"rows alone do not do, {beside.files[0]} is needed too")
    for pattern in beside.files:
        if files := files_near(Path(root).expanduser(), pattern):
            others = {key: other for file, home in files for other in read_rows(file, home) for key in beside.keys(other)}
            return ({**row, "_beside": others.get(str(filled(beside.key, row)), {})} for row in rows)
    raise NotThere(f"{root} lacks {beside.files[0]}")


def filled(cell: Cell, row: Row) -> Any:
    """What a cell gives for a row. ValueError where a template names a column that is empty."""
    if callable(cell):
        return cell(row)
    if not isinstance(cell, str):
        return cell
    if empty := [name for name in _named(cell) if row.get(name, "") is None]:
        raise ValueError(f"its {empty[0]} is empty")
    return cell.format_map(row)


@cache
def _named(template: str) -> tuple[str, ...]:
    return tuple(name for _, name, _, _ in string.Formatter().parse(template) if name)
