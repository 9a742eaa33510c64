"""The runs beside each other: each a column, or the reason why it has none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from . import source as rows
from .runs import Folder

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """A run by its name, with its source, or what is wrong with its folder."""

    name: str
    source: rows.Source | None
    problem: str = ""


def open_columns(folders: Sequence[Folder]) -> list[Column]:
    return [Column(one.name, None if one.problem else rows.Source.open(one.path), one.problem) for one in folders]


def facets_of(column: Column) -> rows.Facets:
    """What there is to choose from in a run; nothing where it cannot be read, as each figure says why itself."""
    if column.source is None:
        return {}
    try:
        return rows.facets(column.source)
    except Exception:
        LOG.exception("reading what there is to choose from in %s", column.name)
        return rows.FACETS.put(rows.facets_key(column.source), {})  # not again until a table changes
