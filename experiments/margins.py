"""Is tuning mostly a shift along the refusal direction? Margins and ranks on the same tokens, before and after.

    w = mean h(harmful) − mean h(benign)                in the base model, on training prompts; c the middle between the two means
    margin(h) = (h − c) · w / ‖w‖²                      so that the base reads about ½ and −½: one unit is what its classes are apart
    shift_harmful, shift_benign                         mean margin of a class in the tuned model less that in the base
    shift        (shift_harmful + shift_benign) / 2     what both classes have in common: a change of bias
    gap_change   shift_harmful − shift_benign           what the classes come closer together, or further apart
    share_along  (Δ · w)² / ‖w‖² ‖Δ‖²                   of the mean change Δ of the whole hidden state; a random direction has 1/d
    dprime       (mean harmful − mean benign) / √((sd²_harmful + sd²_benign) / 2)
    rank_*       Spearman correlation of margins in the base and in the tuned model: over all prompts, and within each class

Δ is the mean of the two class means of h(tuned) − h(base). A pure shift along w has gap_change 0, dprime and AUROC as in the base, ranks
of 1 and share_along 1. Everything is told on test prompts; 95% intervals are percentiles over draws of whole groups (1,000; ranks 200).

Shapes: x [n, d], y [n], weights [b, n] (`b` draws, how often a row counts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ..hooks.sites import parse_site
from ..hooks.store import Store
from ..hooks.trio import aligned
from ..probes.dataset import group_names, matrix, truth
from ..probes.mean_difference import mean_difference
from ..probes.metrics import auroc, resamples

DRAWS, RANKED = 1000, 200
OF_MODEL = ("mean_harmful", "sd_harmful", "mean_benign", "sd_benign", "dprime", "auroc")
OF_CHANGE = ("shift_harmful", "shift_benign", "shift", "gap_change", "share_along")
RANKS = ("rank_all", "rank_harmful", "rank_benign")
TOLD = {"split": "test"}


@dataclass(frozen=True, eq=False)
class Axis:
    """The direction w and the middle c of one site."""

    direction: Tensor
    middle: Tensor

    def margin(self, x: Tensor) -> Tensor:
        return (x - self.middle) @ self.direction / self.direction.square().sum()


def margins(stores: Mapping[str, Store], spans: Sequence[str], *, base: str = "base", seed: int = 0) -> pd.DataFrame:
    """A row per span, site, model and metric: value, low, high, n (rows), groups. `stores` hold the same tokens read in each model."""
    rows: list[dict[str, Any]] = []
    for span in spans:
        fitted = matrix(stores[base], span=span, label="harmful", where={"split": "train"})
        found, index = aligned(stores, {**TOLD, "span": span, "harmful": [True, False]}, sites=stores[base].sites)
        y, groups = torch.tensor(truth(index["harmful"], "harmful")), group_names(index, "group")
        weights = resamples(groups, DRAWS, seed)
        about = {"span": span, "n": len(index), "n_harmful": int(y.sum()), "groups": len(np.unique(groups))}
        for place, site in enumerate(stores[base].sites):
            axis = axis_of(fitted.x[:, place], fitted.y)
            states = {name: x[:, place].double() for name, x in found.items()}
            for model, x in states.items():
                before = None if model == base else states[base]
                told = compared(axis, x, before, y, weights)
                rows += [
                    {**about, "site": site, "layer": parse_site(site)[1], "model": model, "metric": metric, **numbers}
                    for metric, numbers in told.items()
                ]
    return pd.DataFrame(rows)


def axis_of(x: Tensor, y: Tensor) -> Axis:
    x = x.double()
    return Axis(mean_difference(x[None], y)[0].double(), (x[y].mean(0) + x[~y].mean(0)) / 2)


def compared(axis: Axis, x: Tensor, before: Tensor | None, y: Tensor, weights: Tensor) -> dict[str, dict[str, float]]:
    """metric -> value, low, high; of the change too where there are hidden states of the base to compare with, at the same tokens."""
    once = torch.ones(1, len(y), dtype=torch.float64)
    value, drawn = of_model(axis, x, y, once), of_model(axis, x, y, weights.double())
    if before is not None:
        value |= of_change(axis, x - before, y, once)
        drawn |= of_change(axis, x - before, y, weights.double())
        pair = (axis.margin(before).numpy(), axis.margin(x).numpy())
        value |= ranks(*pair, y.numpy(), np.ones((1, len(y)), int))
        drawn |= ranks(*pair, y.numpy(), weights[:RANKED].numpy().astype(int))
    bounds = {metric: np.nanquantile(np.asarray(drawn[metric]), [0.025, 0.975]) for metric in value}
    return {
        metric: {"value": float(number[0]), "low": float(bounds[metric][0]), "high": float(bounds[metric][1])}
        for metric, number in value.items()
    }


def of_model(axis: Axis, x: Tensor, y: Tensor, weights: Tensor) -> dict[str, Tensor]:
    margin = axis.margin(x)
    (harmful, sd_harmful), (benign, sd_benign) = _moments(margin, weights * y), _moments(margin, weights * ~y)
    dprime = (harmful - benign) / ((sd_harmful.square() + sd_benign.square()) / 2).sqrt()
    return dict(zip(OF_MODEL, (harmful, sd_harmful, benign, sd_benign, dprime, auroc(margin, y, weights)), strict=True))


def of_change(axis: Axis, change: Tensor, y: Tensor, weights: Tensor) -> dict[str, Tensor]:
    unit = axis.direction / axis.direction.norm()
    means = [(kept / kept.sum(1, keepdim=True)) @ change for kept in (weights * y, weights * ~y)]
    harmful, benign = (mean @ unit / axis.direction.norm() for mean in means)
    both = (means[0] + means[1]) / 2
    share = (both @ unit).square() / both.square().sum(1)
    return dict(zip(OF_CHANGE, (harmful, benign, (harmful + benign) / 2, harmful - benign, share), strict=True))


def ranks(before: np.ndarray, after: np.ndarray, y: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Spearman's correlation in each draw, over the rows as often as they were drawn."""
    found = {}
    for name, kept in zip(RANKS, (np.ones_like(y), y, ~y), strict=True):
        drawn = [np.repeat(np.flatnonzero(kept), count[kept]) for count in counts]
        found[name] = np.array([_spearman(before[rows], after[rows]) for rows in drawn])
    return found


def _moments(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    total = weights.sum(1)
    mean = weights @ values / total
    return mean, ((weights @ values.square()) / total - mean.square()).clamp_min(0).sqrt()


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """nan where either has no order: a single value."""
    return float(spearmanr(one, other).statistic) if np.ptp(one) and np.ptp(other) else float("nan")
