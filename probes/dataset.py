"""Labelled matrices out of an activation store.

One span of a store becomes x [rows, sites, d], a label per row and a group per row. What cannot be used is named: a row with nan or
inf, an empty group, a label that is not true or false, a span pooled in two ways. Rows *without* a label (None) are left out and counted
in a log line, since a store also holds prompts the question is not about.

Shapes: `n` rows, `s` sites, `d` d_model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ..hooks.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Dataset:
    """One span of a store, labelled.

    x       [n, s, d] hidden states, float32
    y       [n] the label
    groups  [n] the group of each row, as text
    index   the store's index of these rows
    """

    x: Float[Tensor, "n s d"]
    y: Bool[Tensor, " n"]
    groups: Shaped[np.ndarray, " n"]
    index: pd.DataFrame

    def __len__(self) -> int:
        return len(self.y)


def matrix(store: Store, *, span: str, label: str, where: Mapping[str, Any] | None = None, group: str = "group") -> Dataset:
    """The rows of `span` that match `where` and carry a `label`.

    `label` and `group` are index columns; `where` maps index columns to a value or a list of values.
    Raises ValueError naming what is missing: a column, any row, a group, one of the two labels, a finite hidden state.
    """
    x, y, index = labelled_rows(store, span=span, label=label, where=where)
    return Dataset(x, y, group_names(index, group), index)


def labelled_rows(
    store: Store, *, span: str, label: str, where: Mapping[str, Any] | None = None
) -> tuple[Float[Tensor, "n s d"], Bool[Tensor, " n"], pd.DataFrame]:
    """Hidden states, label and index of the rows of one span that carry the label."""
    x, index = select_rows(store, span=span, where=where)
    values = _column(index, label)
    known = values.notna().to_numpy(dtype=bool)
    if not known.all():
        logger.info("%d of %d rows of span %r have no %r and were left out", (~known).sum(), len(known), span, label)
        x, index = x[torch.tensor(known)], index[known].reset_index(drop=True)
    y = torch.tensor(_truth(index[label], label))
    for value in (True, False):
        if not bool((y == value).any()):
            raise ValueError(
                f"{_asked(span, where)}: none of {len(y)} rows has {label} == {value}, and both are needed. Widen `where`, or label more"
            )
    return x, y, index


def select_rows(store: Store, *, span: str, where: Mapping[str, Any] | None = None) -> tuple[Float[Tensor, "n s d"], pd.DataFrame]:
    """Hidden states and index of one span, labelled or not. ValueError: there are none, they were pooled in two ways, one is not finite."""
    if "span" in (where or {}):
        raise ValueError("`where` names a span; pass it as span=… instead")
    if span not in set(store.index["span"]):
        raise ValueError(f"span {span!r} is not in the store; it holds {', '.join(sorted(set(store.index['span'])))}")
    x, index = store.rows({**(where or {}), "span": span})
    if len(pools := sorted(set(index["pool"]))) > 1:
        raise ValueError(f"span {span!r} was pooled in several ways ({', '.join(pools)}); choose one with where={{'pool': {pools[0]!r}}}")
    bad = (~x.isfinite()).any(-1)
    if bool(bad.any()):
        row, site = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"the hidden state of prompt {index['prompt_id'][row]!r} at {store.sites[site]}, span {span!r}, holds nan or inf "
            f"({int(bad.any(1).sum())} of {len(bad)} rows do); capture again in float32 or bfloat16, or leave the row out"
        )
    return x, index


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


def _truth(values: pd.Series[Any], label: str) -> Bool[np.ndarray, " n"]:
    odd = sorted({repr(v) for v in values.unique() if v not in (True, False)})
    if odd:
        raise ValueError(f"label {label!r} holds {', '.join(odd[:3])}; a label is true or false. Make one with capture(…, labels=…)")
    return np.asarray(values, dtype=bool)


def _column(index: pd.DataFrame, name: str) -> pd.Series[Any]:
    if name not in index.columns:
        there = ", ".join(map(str, index.columns))
        raise ValueError(f"no column {name!r} in the store's index; it has {there}. Add it with capture(…, labels=…)")
    return index[name]


def _asked(span: str, where: Mapping[str, Any] | None) -> str:
    return ", ".join([f"span {span!r}", *(f"{column} == {value!r}" for column, value in (where or {}).items())])
