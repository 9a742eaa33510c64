"""The runs beside each other: each a column, or the reason why it has none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import source as rows

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """A run by its name, with its source, or what is wrong with its folder."""

    name: str
    source: rows.Source | None
    problem: str = ""


def open_columns(runs: Sequence[Path]) -> list[Column]:
    """A column for every folder. FileNotFoundError where none of them is a run folder."""
    if not runs:
        raise ValueError("no run folder to show; pass at least one: `thoughtlens view runs/demo`")
    columns = [_column(Path(run), name) for run, name in zip(runs, _names(runs), strict=True)]
    if all(column.source is None for column in columns):
        raise FileNotFoundError("; ".join(column.problem for column in columns))
    return columns


def _column(run: Path, name: str) -> Column:
    if not run.exists():
        return Column(name, None, f"There is no folder {run}. `thoughtlens demo` makes a run folder.")
    if not (run / "tables").is_dir():
        return Column(name, None, f"{run} is no run folder: it has no tables/. `thoughtlens demo --out {run}` makes one.")
    return Column(name, rows.Source.open(run))


def _names(runs: Sequence[Path]) -> list[str]:
    """The last part of every path; with the part before it where two are the same."""
    paths = [Path(run).resolve() for run in runs]
    last = [path.name for path in paths]
    return [name if last.count(name) == 1 else "/".join(path.parts[-2:]) for name, path in zip(last, paths, strict=True)]


def facets_of(column: Column) -> dict[str, list[str]]:
    """What there is to choose from in a run; nothing where it cannot be read, as each figure says why itself."""
    if column.source is None:
        return {}
    try:
        return rows.facets(column.source)
    except Exception:
        LOG.exception("reading what there is to choose from in %s", column.name)
        return {}
