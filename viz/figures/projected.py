"""Maps of prompts in words: how far the first axis alone parts harmful from benign, model by model.

    P(a harmful prompt lies further along x than a benign one) = the AUROC of x, ties counting half

with the middle 95% of bootstrap resamples of goals (Efron 1979), since prompts of one goal are no independent draws.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import theme
from ..tables import TableProblem, where
from .projection import Method, joined
from .readings import readings, with_reading

RESAMPLES = 400


def read_projection(
    projection: pd.DataFrame,
    answers: pd.DataFrame,
    prompts: pd.DataFrame,
    *,
    span: str | None = None,
    layer: int | None = None,
    method: Method = "pca",
) -> str:
    """The map in words: how far x alone parts harmful from benign in each model."""
    there = joined(projection, answers, prompts, span=span, method=method)
    return read_points(where(there, layer=int(there["layer"].max()) if layer is None else layer))


def read_points(points: pd.DataFrame) -> str:
    """As read_projection, of the rows that point_map draws."""
    if points.empty:
        raise TableProblem("No points are left to read. Loosen the filters, or choose another span or layer.")
    table = points if "reading" in points else with_reading(points)
    first = table.iloc[0]
    axis = "the harmful direction" if first["method"] == "lda" else "the first principal component"
    found = {name: parted(table[table["reading"] == name]) for name in readings(table)}
    told = [f"{one} in the {name} model ({one.harmful} harmful, {one.benign} benign)" for name, one in found.items() if one]
    begin = f"At {first['span']}, layer {first['layer']}: along {axis} a harmful prompt lies beyond a benign one with probability "
    if not told:
        return f"At {first['span']}, layer {first['layer']} no model has both harmful and benign prompts, so nothing is told apart."
    held = ""
    if first["method"] == "pca":
        held = f" The two components hold {theme.percent(first['share_x'])} and {theme.percent(first['share_y'])} of the training variance."
    return begin + "; ".join(told) + f" (intervals over goals).{held}"


class Parted(NamedTuple):
    """How well x orders harmful above benign prompts, and how many there were."""

    auroc: float
    low: float
    high: float
    harmful: int
    benign: int

    def __str__(self) -> str:
        return theme.aurocs(self.auroc, self.low, self.high)


def parted(points: pd.DataFrame) -> Parted | None:
    """Of one reading at one place; None where the labels are of one kind."""
    known = points[points["harmful"].notna() & points["x"].notna()]
    harmful = known["harmful"].to_numpy(bool)
    if not 0 < harmful.sum() < len(known):
        return None
    column = next(one for one in ("group", "goal", "prompt_id") if one in known)
    goals = known[column].astype(object).where(known[column].fillna("") != "", known["prompt_id"]).astype(str)
    x, (_, member) = known["x"].to_numpy(float), np.unique(goals.to_numpy(), return_inverse=True)
    size = int(member.max()) + 1
    drawn = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    resampled = ranked(x, harmful, drawn[:, member])
    low, high = np.nanquantile(resampled, (0.025, 0.975)) if np.isfinite(resampled).any() else (math.nan, math.nan)
    return Parted(float(ranked(x, harmful, np.ones((1, len(x))))[0]), float(low), float(high), int(harmful.sum()), int((~harmful).sum()))


def ranked(x: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC of x under each row of weights [resample, point]; nan where a side has no weight."""
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.diff(x[order], prepend=np.nan) != 0)  # of every value
    ranked = weights.T[order].astype(float)
    above, below = (np.add.reduceat(np.where(side[order, None], ranked, 0.0), starts) for side in (positive, ~positive))
    pairs = above.sum(0) * below.sum(0)
    right = (above * (below.cumsum(0) - below / 2)).sum(0)
    return np.divide(right, pairs, out=np.full(len(weights), math.nan), where=pairs > 0)
