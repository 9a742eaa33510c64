"""What a benchmark is: where it is published, which of its columns make a prompt, and how many prompts there should be.

A benchmark is data, and `load` turns its published files into prompts. The same rows come as a GitHub tree, as the parquet files of its hub
form, as what `datasets` has saved or holds in memory, or as a single file; a table lists all the places where its rows may lie.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ...hooks.records import Prompt
from .pictures import Missing, picture
from .reading import Row, files_of, numbered, read_rows

Cell = str | bool | None | Callable[[Row], Any]
Root = str | Path | Iterable[Mapping[str, Any]]
Measures = Literal["harm", "over-refusal", "capability"]


class BenchmarkProblem(ValueError):
    """What was given is not the benchmark that was asked for, or not all of it; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class Table:
    """Rows of one published file, or of several alike, and the prompts they make.

    files     where the rows may lie below the root (at any depth): the first pattern that matches a file with these columns is read, with
              all files that it matches, in order of their names
    columns   field of Prompt -> template filled from the row ("{category_id}-{task_id}"), a constant, or a function of the row
    images    for each picture that is shown: where it lies below the root (a template), or a function of the row that gives a path,
              several paths of which one is there, bytes, or what `datasets` makes of a picture
    needs     columns that functions use; those of templates are known
    rows      the rows that a row stands for, where it is several prompts or none

    Beside its own columns a row has `_file` (below the root), `_stem` and `_folder` of that file, `_number` (from 1), and `_key`, its name
    in a JSON object of objects or of lists.
    """

    files: tuple[str, ...]
    columns: Mapping[str, Cell]
    images: tuple[Cell, ...] = ()
    needs: tuple[str, ...] = ()
    rows: Callable[[Row], Iterable[Row]] = lambda row: (row,)

    @property
    def wanted(self) -> frozenset[str]:
        """The published columns without which no prompt can be made."""
        templates = [cell for cell in (*self.columns.values(), *self.images) if isinstance(cell, str)]
        named = {name for cell in templates for _, name, _, _ in string.Formatter().parse(cell) if name}
        return frozenset(name for name in named | set(self.needs) if not name.startswith("_"))


@dataclass(frozen=True)
class Variant:
    """Some of a benchmark's prompts, or all of them in one dress.

    tables    their prompts, one table after the other
    prompts   how many are published; None where that is not told
    """

    tables: tuple[Table, ...]
    prompts: int | None
    about: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A published set of prompts.

    variants   by name; the first is meant where none is named
    hazards    published category -> code of taxonomy.HAZARDS, "" where none fits
    apart      categories whose official rule scores something other than harm; they are reported apart
    """

    name: str
    title: str
    paper: str
    home: str
    licence: str
    variants: Mapping[str, Variant]
    measures: Measures = "harm"
    hazards: Mapping[str, str] = field(default_factory=dict)
    apart: frozenset[str] = frozenset()

    def variant(self, name: str | None) -> str:
        """The variant of that name, or the first. ValueError names those there are."""
        if name is None:
            return next(iter(self.variants))
        if name not in self.variants:
            raise ValueError(f"{self.name} has no variant {name!r}; it has {', '.join(self.variants)}")
        return name


@dataclass(frozen=True)
class Found:
    """What lies at a root of one variant: prompts that are whole, and the pictures that are not there by the id of their prompt."""

    prompts: list[Prompt]
    missing: dict[str, str]


def load(
    benchmark: Benchmark, root: Root, variant: str | None = None, *, keep: Callable[[list[Prompt]], list[Prompt]] | None = None
) -> Found:
    """The prompts of a variant, in published order; those that lack a picture are left out and told.

    keep   which of all prompts, still without pictures, are wanted; only their pictures are looked for
    BenchmarkProblem: no such files, columns that lack, a row that makes no prompt, an id that occurs twice.
    """
    variant = benchmark.variant(variant)
    tables = benchmark.variants[variant].tables
    made = dict[str, tuple[Prompt, Table, Row]]()
    for table in tables:
        for whole in rows_of(benchmark, table, root):
            for row in table.rows(whole):
                prompt = _prompt(benchmark, variant, table, row)
                if prompt.id in made:
                    raise BenchmarkProblem(
                        f"{_place(benchmark, row)}: the id {prompt.id!r} occurs twice. Take the file as it was published."
                    )
                made[prompt.id] = (prompt, table, row)
    wanted = [prompt for prompt, _, _ in made.values()]
    prompts, missing = list[Prompt](), dict[str, str]()
    for prompt in wanted if keep is None else keep(wanted):
        _, table, row = made[prompt.id]
        try:
            images = tuple(picture(_filled(cell, row), root, row) for cell in table.images)
        except Missing as lacking:
            missing[prompt.id] = str(lacking)
        else:
            prompts.append(replace(prompt, images=images))
    return Found(prompts, missing)


def rows_of(benchmark: Benchmark, table: Table, root: Root) -> list[Row]:
    """The rows of a table at a root. BenchmarkProblem where there are none, or none with its columns."""
    if not isinstance(root, str | Path):
        rows = [dict(row) for row in root]
        return _checked(benchmark, table, numbered(rows, ""), "the rows given")
    root = Path(root).expanduser()
    if not root.exists():
        raise BenchmarkProblem(f"{benchmark.name}: there is nothing at {root}. Give the folder of {benchmark.home}, or one of its files.")
    without: BenchmarkProblem | None = None
    for pattern in table.files:
        if files := files_of(root, pattern):
            try:
                rows = [row for file in files for row in read_rows(file, root)]
                return _checked(benchmark, table, rows, ", ".join(file.name for file in files[:3]))
            except BenchmarkProblem as problem:
                without = without or problem
    raise without or BenchmarkProblem(
        f"{benchmark.name}: {root} holds none of {', '.join(table.files)}. "
        f"Give the folder of {benchmark.home}, its hub form, or one of its files."
    )


def _checked(benchmark: Benchmark, table: Table, rows: list[Row], where: str) -> list[Row]:
    lacking = sorted(name for name in table.wanted if rows and name not in rows[0])
    if lacking or not rows:
        what = f"lack the column {', '.join(lacking)}; they have {', '.join(k for k in rows[0] if k[0] != '_')}" if rows else "are empty"
        raise BenchmarkProblem(f"{benchmark.name}: {where} {what}. Take the files as they were published.")
    return rows


def _prompt(benchmark: Benchmark, variant: str, table: Table, row: Row) -> Prompt:
    several = len(benchmark.variants) > 1
    try:
        fields = {name: _filled(cell, row) for name, cell in table.columns.items()}
        category = fields.get("category", "")
        apart = {"apart": True} if category in benchmark.apart else {}
        fields["id"] = "/".join([benchmark.name, *([variant] if several else []), str(fields["id"])])
        fields["meta"] = {**fields.get("meta", {}), **apart}
        fields.setdefault("hazard", benchmark.hazards.get(category, ""))
        fields.setdefault("group", fields["id"])
        return Prompt(**{**fields, "benchmark": benchmark.name, "source": _hash(row)})
    except (KeyError, TypeError, ValueError) as problem:
        raise BenchmarkProblem(
            f"{_place(benchmark, row)}: no prompt can be made of it ({problem}). Take the file as it was published."
        ) from problem


def _filled(cell: Cell, row: Row) -> Any:
    if callable(cell):
        return cell(row)
    return cell.format_map(row) if isinstance(cell, str) else cell


def _place(benchmark: Benchmark, row: Row) -> str:
    return f"{benchmark.name}, {row['_file'] or 'the rows given'}, row {row['_number']}"


def _hash(row: Row) -> str:
    told = {
        name: value for name, value in row.items() if name[0] != "_" and isinstance(value, str | int | float | bool | list | type(None))
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
