"""Labelled matrices out of activation stores.

One span of a store becomes x [rows, sites, d], a label per row and a group per row. What cannot be used is named: a row with nan or
inf, an empty group, a label that is not true or false, a span pooled in two ways. Rows *without* a label (None) are left out and counted
in a log line, since a store also holds prompts the question is not about.

Several stores are read as one: they hold the same sites, and the index column `model` tells their rows apart. Labels that were not known
when the hidden states were taken, such as verdicts, join the index by prompt id. A verdict is on one text, and several models may have
answered one prompt: rows that more than one of them wrote (index column `written_by`) cannot be told apart that way and are refused.

Shapes: `n` rows, `s` sites, `d` d_model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ..hooks.store import Store

logger = logging.getLogger(__name__)

Where = Mapping[str, Any]
Stores = Store | Sequence[Store]
Labels = Mapping[str, Mapping[str, Any]]
VECTOR = ["model", "condition", "prompt_id", "span", "pool", "start", "stop"]  # what tells one vector from another


@dataclass(frozen=True, eq=False)
class Dataset:
    """One span, labelled.

    x       [n, s, d] hidden states, float32
    y       [n] the label
    groups  [n] the group of each row, as text
    index   the index of these rows
    sites   [s] their names
    """

    x: Float[Tensor, "n s d"]
    y: Bool[Tensor, " n"]
    groups: Shaped[np.ndarray, " n"]
    index: pd.DataFrame
    sites: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)


def matrix(
    store: Stores,
    *,
    span: str,
    label: str,
    where: Where | None = None,
    group: str = "group",
    sites: Sequence[str] | None = None,
    labels: Labels | None = None,
) -> Dataset:
    """The rows of `span` that match `where` and carry a `label`.

    `label` and `group` are index columns; `where` maps index columns to a value or a list of values; `labels` adds columns, prompt id ->
    column -> value, for rows that one model wrote. `sites` are by default all; with () no hidden state is read, only labels.
    Raises ValueError naming what is missing: a column, any row, a group, one of the two labels, a finite hidden state.
    """
    x, y, index = labelled_rows(store, span=span, label=label, where=where, sites=sites, labels=labels)
    return Dataset(x, y, group_names(index, group), index, tuple(as_stores(store)[0].sites if sites is None else sites))


def labelled_rows(
    store: Stores,
    *,
    span: str,
    label: str,
    where: Where | None = None,
    sites: Sequence[str] | None = None,
    labels: Labels | None = None,
) -> tuple[Float[Tensor, "n s d"], Bool[Tensor, " n"], pd.DataFrame]:
    """Hidden states, label and index of the rows of one span that carry the label."""
    x, index = select_rows(store, span=span, where=where, sites=sites, labels=labels)
    values = _column(index, label)
    known = values.notna().to_numpy(dtype=bool)
    if not known.all():
        logger.info("%d of %d rows of span %r have no %r and were left out", (~known).sum(), len(known), span, label)
        x, index = x[torch.tensor(known)], index[known].reset_index(drop=True)
    y = torch.tensor(truth(index[label], label))
    for value in (True, False):
        if not bool((y == value).any()):
            raise ValueError(
                f"{_asked(span, where)}: none of {len(y)} rows has {label} == {value}, and both are needed. Widen `where`, or label more"
            )
    return x, y, index


def select_rows(
    store: Stores,
    *,
    span: str,
    where: Where | None = None,
    sites: Sequence[str] | None = None,
    labels: Labels | None = None,
) -> tuple[Float[Tensor, "n s d"], pd.DataFrame]:
    """Hidden states and index of one span, labelled or not. ValueError: there are none, they were pooled in two ways, one is not finite."""
    stores, where = as_stores(store), where or {}
    if "span" in where:
        raise ValueError("`where` names a span; pass it as span=… instead")
    if span not in (known := spans_of(stores)):
        raise ValueError(f"span {span!r} is not in the store; it holds {', '.join(sorted(known))}")
    names = [name for name in sites or () if name not in stores[0].sites]
    if names:
        raise ValueError(f"site {names[0]!r} is not in the store; it holds {', '.join(stores[0].sites)}")
    added = {name for columns in (labels or {}).values() for name in columns}
    inside = {**{column: value for column, value in where.items() if column not in added}, "span": span}
    found = [one for one in stores if one.arrow(inside).num_rows] or stores[:1]
    vectors, frames = zip(*(one.rows(inside, sites=sites) for one in found), strict=True)
    x, index = torch.cat(vectors), pd.concat(frames, ignore_index=True)
    if len(found) > 1 and (twice := index.duplicated(VECTOR)).any():
        row = index[twice].iloc[0]
        raise ValueError(f"two stores hold the same vector: prompt {row.prompt_id!r} of {row.model!r} at {span!r}. Pass each store once")
    if labels:
        check_writer(index, "labels")
    index = joined(index, labels)
    for column in added & set(where):
        kept = index[column].isin(values_of(where[column])).to_numpy(dtype=bool)
        if not kept.any():
            raise ValueError(f"{_asked(span, where)}: no row has {column} == {where[column]!r}; there are {_there(index[column])}")
        x, index = x[torch.tensor(kept)], index[kept].reset_index(drop=True)
    if len(pools := sorted(set(index["pool"]))) > 1:
        raise ValueError(f"span {span!r} was pooled in several ways ({', '.join(pools)}); choose one with where={{'pool': {pools[0]!r}}}")
    bad = (~x.isfinite()).any(-1)
    if bool(bad.any()):
        row, site = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"the hidden state of prompt {index['prompt_id'][row]!r} at {(stores[0].sites if sites is None else sites)[site]}, "
            f"span {span!r}, holds nan or inf ({int(bad.any(1).sum())} of {len(bad)} rows do); "
            "capture again in float32 or bfloat16, or leave the row out"
        )
    return x, index


def as_stores(store: Stores) -> tuple[Store, ...]:
    """One store or several as a tuple. ValueError: none, or other sites or width."""
    stores = (store,) if isinstance(store, Store) else tuple(store)
    if not stores:
        raise ValueError("no store was given; pass one, or several of the same sites")
    for other in stores[1:]:
        if (other.sites, other.width) != (stores[0].sites, stores[0].width):
            one, two = (f"{s.path} has {', '.join(s.sites)} at width {s.width}" for s in (stores[0], other))
            raise ValueError(f"the stores do not go together: {one}; {two}. Capture them with one Select, from models of one width")
    return stores


def spans_of(store: Stores) -> list[str]:
    """The spans of a store or several, in the order they were captured."""
    return list(dict.fromkeys(span for one in as_stores(store) for span in one.index["span"].unique()))


def joined(index: pd.DataFrame, labels: Labels | None) -> pd.DataFrame:
    """The index with the columns of `labels`, by prompt id; None where a prompt has no entry."""
    for column in sorted({name for columns in (labels or {}).values() for name in columns}):
        given = {prompt: columns.get(column) for prompt, columns in (labels or {}).items()}
        index = index.assign(**{column: pd.Series([given.get(prompt) for prompt in index["prompt_id"]], index=index.index, dtype=object)})
    return index


def check_writer(index: pd.DataFrame, what: str) -> None:
    """ValueError where what is given by prompt id meets rows that several models wrote: a prompt has then more than one text."""
    writers = sorted(index["written_by"].dropna().unique()) if "written_by" in index else []
    if len(writers) > 1:
        raise ValueError(
            f"{what} are given by prompt id, but these rows were written by several models ({', '.join(writers)}), each with an answer of "
            f"its own. Ask for the rows of one of them ({{'written_by': {writers[0]!r}}}), or pass the stores of one"
        )


def values_of(value: Any) -> list[Any]:
    """What a `where` asks for, as a list."""
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]


def group_names(index: pd.DataFrame, group: str) -> Shaped[np.ndarray, " n"]:
    """The group of each row as text. Raises ValueError where one is missing or empty."""
    values = _column(index, group)
    missing = (values.isna() | (values.astype(str) == "")).to_numpy(dtype=bool)
    if missing.any():
        row = index["prompt_id"][missing.argmax()]
        raise ValueError(
            f"{missing.sum()} of {len(index)} rows have no {group!r}, the first is prompt {row!r}; they would count as one goal. "
            "Give each prompt its group, or pass group='prompt_id' where every prompt is its own goal"
        )
    return np.asarray(values.astype(str), dtype=str)


def truth(values: pd.Series[Any], label: str) -> Bool[np.ndarray, " n"]:
    """A column of true and false as an array. ValueError: it holds anything else."""
    odd = sorted({repr(v) for v in values.unique() if v not in (True, False)})
    if odd:
        raise ValueError(f"label {label!r} holds {', '.join(odd[:3])}; a label is true or false. Make one with capture(…, labels=…)")
    return np.asarray(values, dtype=bool)


def _column(index: pd.DataFrame, name: str) -> pd.Series[Any]:
    if name not in index.columns:
        there = ", ".join(map(str, index.columns))
        raise ValueError(
            f"no column {name!r} in the store's index; it has {there}. Name another, or add it with labels={{prompt id: {{{name!r}: …}}}}"
        )
    return index[name]


def _there(values: pd.Series[Any]) -> str:
    return ", ".join(map(repr, values.unique()[:12]))


def _asked(span: str, where: Where | None) -> str:
    return ", ".join([f"span {span!r}", *(f"{column} == {value!r}" for column, value in (where or {}).items())])
