"""What a benchmark is: where it is published, which of its columns make a prompt, and how many prompts there should be.

A benchmark is data, and `load` turns its published files into prompts: a table (tables.py) lists all the places where its rows may lie.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

from ...hooks.records import Prompt
from .pictures import Missing, pictures
from .reading import Row
from .tables import Beside, Cell, NotThere, Root, Table, filled, rows_of

__all__ = ["Benchmark", "BenchmarkProblem", "Beside", "Cell", "Found", "Root", "Table", "Variant", "load"]

Measures = Literal["harm", "over-refusal", "capability"]


class BenchmarkProblem(ValueError):
    """What was given is not the benchmark that was asked for, or not all of it; the text says what is wrong and what to do."""


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
    root = list(root) if isinstance(root, Iterator) else root
    made = dict[str, tuple[Prompt, Table, Row]]()
    for asked in benchmark.variants[variant].tables:
        try:
            table, rows = rows_of(asked, root)
        except NotThere as problem:
            advice = f"Give the folder of {benchmark.home} as it is published, its hub form, or one of its files."
            raise BenchmarkProblem(f"{benchmark.name}: {problem}. {advice}") from None
        for row in chain.from_iterable(_parts(benchmark, table, row) for row in rows):
            prompt = _prompt(benchmark, variant, table, row)
            if prompt.id in made:
                raise BenchmarkProblem(f"{_place(benchmark, row)}: the id {prompt.id!r} occurs twice. Take the file as it was published.")
            made[prompt.id] = (prompt, table, row)
    wanted = [prompt for prompt, _, _ in made.values()]
    prompts, missing = list[Prompt](), dict[str, str]()
    for prompt in wanted if keep is None else keep(wanted):
        _, table, row = made[prompt.id]
        try:
            images = tuple(picture for cell in table.images for picture in pictures(filled(cell, row), root, row))
        except Missing as lacking:
            missing[prompt.id] = str(lacking)
        except (KeyError, TypeError, ValueError) as problem:
            raise BenchmarkProblem(f"{_place(benchmark, row)}: {_why(problem)}. Take the file as it was published.") from problem
        else:
            prompts.append(replace(prompt, images=images))
    return Found(prompts, missing)


def _parts(benchmark: Benchmark, table: Table, row: Row) -> Iterable[Row]:
    try:
        return list(table.rows(row))
    except (KeyError, TypeError, ValueError) as problem:
        raise BenchmarkProblem(f"{_place(benchmark, row)}: {_why(problem)}. Take the file as it was published.") from problem


def _prompt(benchmark: Benchmark, variant: str, table: Table, row: Row) -> Prompt:
    several = len(benchmark.variants) > 1
    try:
        fields = {name: filled(cell, row) for name, cell in table.columns.items()}
        category = fields.get("category", "")
        for name in ("id", "goal"):
            if not str(fields.get(name, "-")).strip():
                raise ValueError(f"its {name} is empty")
        apart = {"apart": True} if category in benchmark.apart else {}
        fields["id"] = "/".join([benchmark.name, *([variant] if several else []), str(fields["id"])])
        fields["meta"] = {**fields.get("meta", {}), **apart}
        fields.setdefault("hazard", benchmark.hazards.get(category, ""))
        fields.setdefault("group", fields["id"])
        return Prompt(**{**fields, "benchmark": benchmark.name, "source": _hash(row)})
    except (KeyError, TypeError, ValueError) as problem:
        raise BenchmarkProblem(
            f"{_place(benchmark, row)}: no prompt can be made of it: {_why(problem)}. Take the file as it was published."
        ) from problem


def _why(problem: Exception) -> str:
    return f"it has no {problem.args[0]!r}" if isinstance(problem, KeyError) else str(problem).rstrip(".")


def _place(benchmark: Benchmark, row: Row) -> str:
    return f"{benchmark.name}, {row['_file'] or 'the rows given'}, row {row['_number']}"


_TOLD = (str, int, float, bool, list, type(None))


def _hash(row: Row) -> str:
    told = {name: value for name, value in row.items() if not name.startswith("_") and isinstance(value, _TOLD)}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
