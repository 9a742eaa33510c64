"""Drift: how far apart two models are at the same tokens, per site and span.

    cosine            mean over rows of  a · b / (‖a‖ ‖b‖)          1 where the models agree in direction
    norm_ratio        mean over rows of  ‖b‖ / ‖a‖                  how much longer the states of b are
    difference_norm   ‖ mean over rows of (b − a) ‖                 length of what all rows have in common: a steering vector's

a and b are hidden states of the same tokens in two models of a trio (capture_trio). A length is never below zero and grows with noise: that
the interval of difference_norm stays away from zero proves no drift.

Intervals are percentile bootstraps over groups: whole groups are drawn with replacement (Field and Welsh 2007), since rows of one goal are
not independent. All in float64. Every metric needs only sums over each group, so no draw touches a hidden state.

Shapes: a, b [n, d]; g groups, r draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..hooks.sites import parse_site
from ..hooks.store import Store
from ..hooks.trio import aligned
from .dataset import group_names

METRICS = ("cosine", "norm_ratio", "difference_norm")


def drift(
    stores: Mapping[str, Store],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    where: Mapping[str, Any] | None = None,
    group: str = "group",
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """A long table of how two models differ: a, b, site, layer, span, n (rows), groups, metric, value, low, high.

    stores   name -> store of the same rows, from capture_trio
    pairs    which to compare, (a, b); default every two, in the order given
    where    only rows with these index columns
    group    index column whose groups are drawn whole
    Raises ValueError for stores that do not hold the same rows, an unknown name, a hidden state of length zero.
    """
    pairs = list(combinations(stores, 2)) if pairs is None else list(pairs)
    if not pairs or (unknown := [name for pair in pairs for name in pair if name not in stores]):
        asked = f"there is no store {unknown[0]!r}" if pairs else "there are no two stores to compare"
        raise ValueError(f"{asked}; they are {', '.join(stores) or 'none'}. Pass stores={{name: store}} and pairs=[(a, b)].")
    if not 0 < confidence < 1 or draws < 1:
        raise ValueError(f"confidence={confidence} lies between 0 and 1, and draws={draws} is at least 1.")
    used = {name: stores[name] for name in dict.fromkeys(name for pair in pairs for name in pair)}
    first, rows = used[pairs[0][0]], list[dict[str, Any]]()
    spans = first.arrow(where)["span"].unique().to_pylist()
    if not spans:
        raise ValueError(f"{first.path} has no rows with {dict(where or {})}; widen `where`")
    for span in spans:
        found, index = aligned(used, {**(where or {}), "span": span}, sites=first.sites)
        names, member = np.unique(group_names(index, group), return_inverse=True)
        weights = torch.from_numpy(_draws(len(names), draws, seed))
        for place, site in enumerate(first.sites):
            states = {name: vectors[:, place] for name, vectors in found.items()}
            about = {"site": site, "layer": parse_site(site)[1], "span": span, "n": len(index), "groups": len(names)}
            _check_lengths(states, index, site)
            for a, b in pairs:
                sums = _sums(states[a].double(), states[b].double(), torch.from_numpy(member), len(names))
                values, drawn = _metrics(*sums, torch.ones(1, len(names), dtype=torch.float64)), _metrics(*sums, weights)
                for metric in METRICS:
                    tail = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
                    low, high = drawn[metric].quantile(tail).tolist()
                    rows.append({"a": a, "b": b, **about, "metric": metric, "value": float(values[metric]), "low": low, "high": high})
    return pd.DataFrame(rows)


def _draws(groups: int, draws: int, seed: int) -> Float[np.ndarray, "r g"]:
    """How often each group counts in each draw."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64)


def _sums(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], member: Int64[Tensor, " n"], groups: int
) -> tuple[Float[Tensor, "g 3"], Float[Tensor, "g d"]]:
    """Per group the number of rows, the sums of their cosines and of their length ratios; and the sum of their differences."""
    long, other = a.norm(dim=1), b.norm(dim=1)
    scalars = torch.stack([torch.ones_like(long), (a * b).sum(1) / (long * other), other / long], dim=1)
    return scalars.new_zeros(groups, 3).index_add_(0, member, scalars), a.new_zeros(groups, a.shape[1]).index_add_(0, member, b - a)


def _metrics(
    scalars: Float[Tensor, "g 3"], differences: Float[Tensor, "g d"], weights: Float[Tensor, "r g"]
) -> dict[str, Float[Tensor, " r"]]:
    """The metrics when each group counts as often as its weight says."""
    count, cosine, ratio = (weights @ scalars).unbind(1)
    return {
        "cosine": cosine / count,
        "norm_ratio": ratio / count,
        "difference_norm": (weights @ differences).norm(dim=1) / count,
    }


def _check_lengths(states: Mapping[str, Float[Tensor, "n d"]], index: pd.DataFrame, site: str) -> None:
    for name, found in states.items():
        length = found.double().norm(dim=1)
        if bool((odd := ~length.isfinite() | (length == 0)).any()):
            raise ValueError(
                f"the hidden state of prompt {index['prompt_id'][int(odd.nonzero()[0])]!r} at {site} in {name!r} is zero, nan or inf, and "
                "has no direction. Leave the row out with where=, or capture again in float32."
            )
