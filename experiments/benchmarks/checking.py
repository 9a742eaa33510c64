"""What lies on disk of the published benchmarks, compared with what was published; and the list of benchmarks there are.

A folder and the folders directly in it are searched. A file belongs to a benchmark where its place and its columns are those of the loader;
the rows are then read and every picture is looked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table as Drawn
from rich.text import Text

from ...hooks.records import Prompt
from . import PUBLISHED
from .benchmark import Benchmark, BenchmarkProblem, load
from .reading import files_of, read_rows
from .tables import Table

MADE = {  # of the benchmarks that are not published: title, prompts, measures
    "organism": ("the made-up world of the shipped trio", "made at every call", "harm, over-refusal, capability"),
    "jsonl": ("your own prompts", "those of the file", "what they are labelled with"),
}
DATA = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow")
WILD = frozenset("*?[")
NUMBERS = ("prompts", "published", "pictures missing")


@dataclass(frozen=True)
class Disk:
    """A root and the folders directly in it: data files below each, and columns of those that were looked into (None: unreadable)."""

    root: Path
    inside: Mapping[Path, Sequence[PurePosixPath]]
    columns: dict[Path, frozenset[str] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """One variant of a benchmark as it lies in a folder.

    where      the folder that prompts(root=…) takes
    prompts    how many its files make, those that lack a picture among them
    published  how many there should be; None where that is not told
    missing    the pictures that are not there, each once, below `where`
    lacking    how many prompts lack a picture
    unmapped   its categories without a row in the benchmark's `hazards`
    problem    why it cannot be read, where it cannot
    """

    benchmark: str
    variant: str
    licence: str
    where: Path
    prompts: int = 0
    published: int | None = None
    missing: tuple[str, ...] = ()
    lacking: int = 0
    unmapped: tuple[str, ...] = ()
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """Whether there are as many prompts as were published."""
        return not self.problem and self.published in (None, self.prompts)

    @property
    def whole(self) -> bool:
        return self.agrees and not self.missing


def check(root: str | Path, names: Sequence[str] | None = None, *, known: Mapping[str, Benchmark] = PUBLISHED) -> list[Checked]:
    """Every variant of every benchmark of which files lie at a root, or in a folder directly in it.

    names   benchmarks to look for; None: all
    ValueError for an unknown name, a benchmark that was named and is not there, and a root without any; FileNotFoundError without a root.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"there is nothing at {root}; give a folder that holds benchmarks, or one benchmark's folder or file")
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"unknown benchmark {unknown[0]!r}; known are {', '.join(known)}")
    disk = Disk(root, {place: data_files(place) for place in (root, *folders_in(root))})
    wanted = [benchmark for benchmark in known.values() if names is None or benchmark.name in names]
    found = [
        _best(benchmark, variant, places)
        for benchmark in wanted
        for variant in benchmark.variants
        for places in _places(benchmark.variants[variant].tables, disk)
    ]
    if lacking := [one.name for one in wanted if one.name not in {checked.benchmark for checked in found}]:
        if names is not None or not found:
            homes = "\n".join(f"{name}: {known[name].home}" for name in lacking)
            raise BenchmarkProblem(f"{root} and the folders in it hold no file of {', '.join(lacking)} as published:\n{homes}")
    return found


def said(checked: Sequence[Checked]) -> RenderableType:
    """A table, what cannot be read, categories that no hazard is known for, and every missing picture in one message."""
    table = _drawn("benchmark", "variant", "found in", "prompts", "published", "pictures missing", "licence")
    for one in checked:
        published = "unknown" if one.published is None else f"{one.published:,}"
        verdict = "cannot be read" if one.problem else f"{one.prompts:,}" + ("" if one.agrees else ", not as published")
        table.add_row(*map(Text, (one.benchmark, one.variant, str(one.where), verdict, published, f"{len(one.missing):,}", one.licence)))
    parts: list[RenderableType] = [table]
    parts += [Text(f"{one.benchmark}, {one.variant} cannot be read: {one.problem}\n") for one in checked if one.problem]
    for (name, unmapped), variants in _unmapped(checked).items():
        parts.append(Text(f"{name} ({', '.join(variants)}): no hazard is known for the categories {', '.join(unmapped)}\n"))
    if missing := list(dict.fromkeys(one.where / picture for one in checked for picture in one.missing)):
        lacking = sum(one.lacking for one in checked)
        head = f"{len(missing):,} pictures are missing, {lacking:,} prompts lack theirs:"
        parts.append(Text("\n".join([head, *map(str, missing)])))
    return Group(*parts)


def listed(known: Mapping[str, Benchmark] = PUBLISHED) -> RenderableType:
    """All benchmarks: variants with how many prompts they have, what they measure, licence, and where they come from."""
    table = _drawn("name", "title", "variants", "measures", "licence", "home", "paper")
    for name, (title, prompts, measures) in MADE.items():
        table.add_row(name, title, prompts, measures, "", "", "")
    for name, benchmark in known.items():
        counts = [f"{variant} {'?' if v.prompts is None else f'{v.prompts:,}'}" for variant, v in benchmark.variants.items()]
        cells = (name, benchmark.title, "\n".join(counts), benchmark.measures, benchmark.licence, benchmark.home, benchmark.paper)
        table.add_row(*map(Text, cells))
    return table


def _best(benchmark: Benchmark, variant: str, places: Sequence[Path]) -> Checked:
    """As the variant is read from the place at which it lacks the least; the first of those that are alike."""
    found: list[Checked] = []
    for place in places:
        found.append(_checked(benchmark, variant, place))
        if found[-1].whole:
            return found[-1]
    return min(found, key=lambda one: (bool(one.problem), one.lacking))


def _checked(benchmark: Benchmark, variant: str, place: Path) -> Checked:
    one, everyone = (
        Checked(benchmark.name, variant, benchmark.licence, place, published=benchmark.variants[variant].prompts),
        list[Prompt](),
    )

    def noted(prompts: list[Prompt]) -> list[Prompt]:
        everyone.extend(prompts)
        return prompts

    try:
        missing = load(benchmark, place, variant, keep=noted).missing
    except (ValueError, OSError) as problem:
        return replace(one, problem=str(problem))
    categories = dict.fromkeys(p.category for p in everyone) if benchmark.hazards else ()
    unmapped = tuple(category for category in categories if category not in benchmark.hazards)
    pictures = tuple(dict.fromkeys(missing.values()))
    return replace(one, prompts=len(everyone), missing=pictures, lacking=len(missing), unmapped=unmapped)


def _places(tables: Sequence[Table], disk: Disk) -> list[list[Path]]:
    """Where these tables lie, each set of files once: the root or a folder in it, as the files lie there just as published; else both.

    Folders that hold only some of the tables count where no place holds all of them.
    """
    fitting = {place: [_fitting(table, place, disk) for table in tables] for place in disk.inside}
    held = {place: frozenset[Path]().union(*files) for place, files in fitting.items()}
    rank = all if any(all(files) for files in fitting.values()) else any
    root, chosen = disk.root, [place for place, files in fitting.items() if rank(files)]
    folders = [place for place in chosen if place != root]
    if root in chosen and not all(any(file.is_relative_to(folder) for folder in folders) for file in held[root]):
        return [[root], *([folder] for folder in folders)]
    found = []
    for folder in folders:
        places = [root, folder] if held[folder] == held[root] else [folder]
        direct = [place for place in places if _direct(place, tables, held[place])]
        found.append(direct[:1] or places[::-1])
    return found


def _direct(place: Path, tables: Sequence[Table], files: frozenset[Path]) -> bool:
    """Whether one of the files lies just where a table says, not deeper."""
    return any(files.intersection(place.glob(pattern)) for table in tables for _, pattern in _forms(table))


def _fitting(table: Table, place: Path, disk: Disk) -> frozenset[Path]:
    """The files that would be read as this table: those of the first pattern with files that have its columns."""
    for form, pattern in _forms(table):
        if place.is_file() or "**" in pattern or any(file.match(pattern) for file in disk.inside[place]):
            files = files_of(place, pattern)
            if files and _has(files[0], form.wanted, surely=not WILD & set(pattern.rsplit("/", 1)[-1]), disk=disk):
                return frozenset(files)
    return frozenset()


def _forms(table: Table) -> list[tuple[Table, str]]:
    """Where a table, or another form of it, may lie, in the order in which it is looked for."""
    return [(form, pattern) for form in (table, *table.instead) for pattern in form.files]


def _has(file: Path, wanted: frozenset[str], *, surely: bool, disk: Disk) -> bool:
    """Whether a file has these columns. surely: its name is a benchmark's own, so one that cannot be read is told of."""
    if file not in disk.columns:
        disk.columns[file] = columns_of(file)
    columns = disk.columns[file]
    return surely if columns is None else wanted <= columns


def columns_of(file: Path) -> frozenset[str] | None:
    """The columns of a data file, or of its first record; None for one that cannot be read."""
    try:
        match file.suffix.lower():
            case ".parquet":
                return frozenset(pyarrow.parquet.read_schema(file).names)
            case ".arrow":
                with pyarrow.memory_map(str(file)) as source:
                    return frozenset(pyarrow.ipc.open_stream(source).schema.names)
            case _:
                return frozenset(next(iter(read_rows(file, file.parent)), ()))
    except (ValueError, OSError, pyarrow.ArrowException):
        return None


def folders_in(root: Path) -> list[Path]:
    return sorted(place for place in root.iterdir() if place.is_dir()) if root.is_dir() else []


def data_files(place: Path) -> list[PurePosixPath]:
    """The files of data below a folder; pictures are no data."""
    found = (Path(folder, name) for folder, _, names in os.walk(place) for name in names)
    return [PurePosixPath(file.relative_to(place)) for file in found if file.suffix.lower() in DATA]


def _unmapped(checked: Sequence[Checked]) -> dict[tuple[str, tuple[str, ...]], list[str]]:
    """Variants by benchmark and the categories that no hazard is known for."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for one in checked:
        if one.unmapped:
            found.setdefault((one.benchmark, one.unmapped), []).append(one.variant)
    return found


def _drawn(*columns: str) -> Drawn:
    table = Drawn(box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right" if column in NUMBERS else "left", overflow="fold")
    return table
