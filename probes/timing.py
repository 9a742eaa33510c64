"""When a thought gives itself away: curves of the readout, the earliest sure moment, the cliff at the end.

All read the `trajectory` table (trajectory.py). The moments of a thought are its tokens and, where the table has it, the marker that closes
it: the state the answer is begun from. A prompt counts once at each point, with the mean of its readouts there:

    start      moments since the thought began: 0, 1, 2, …         end        moments until it is over: …, −1, 0
    step       all tokens of a sentence of the thought             fraction   share of the thought gone by, in twentieths
    boundary   the last token of a sentence

A truncated thought has no end and is left out where the end counts (end, fraction, cliff).

    curves           mean readout over prompts, harmful and benign apart
    detectability    true positive rate at 1% false positives at each point; `earliest` is the first point at which it reaches a bar
    cliff            plateau − end: the mean readout over the moments thought@0.5 … thought@0.9, less that of the last moment

The cliff is that of Yin et al. 2025, "Refusal falls off a cliff: how safety alignment fails in reasoning?" (arXiv 2510.06036): a probe of
refusal stays high through the thought and drops at the last tokens before the answer. Here benign prompts stand beside the harmful ones,
since a readout that drops for every prompt alike tells nothing about harm.

Intervals are 95% percentile intervals over draws of whole groups; a draw has the same groups on both sides and at all points (metrics.py).
Shapes: values [p, a], nan where a prompt has no such point; weights [b, p], the first row the prompts as they are, the others draws
(`p` prompts, `a` points, `b` draws and one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Shaped

from .metrics import auroc, resamples, tpr_at_fpr

READING = ("model", "condition", "split")  # rows that are told together
COLUMNS = (*READING, "prompt_id", "group", "harmful", "position", "kind", "step", "boundary", "score")
SIDES: Mapping[str, bool] = MappingProxyType({"harmful": True, "benign": False})
PLATEAU = (0.5, 0.9)
TAILS = (0.025, 0.975)
NEVER = float("inf")

Place = Callable[[pd.DataFrame], Any]
Weights = Float[np.ndarray, "b p"]

# the point of a moment, missing where it has none: `rank` counts a prompt's moments from 0, `last` is the rank of its end, if it has one
ALIGNMENTS: Mapping[str, Place] = MappingProxyType(
    {
        "start": lambda moments: moments["rank"],
        "end": lambda moments: moments["rank"] - moments["last"],
        "fraction": lambda moments: (moments["rank"] / moments["last"] * 20).round() / 20,
        "step": lambda moments: moments["step"].where(moments["kind"] == "thought"),
        "boundary": lambda moments: moments["step"].where(moments["boundary"]),
    }
)


def curves(table: pd.DataFrame, by: str = "start", *, fewest: int = 5, resampled: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean readout, a row per reading, side and point.

    Columns model, condition, split, side (harmful | benign), by, at, mean, low, high, n (prompts), groups. Points that fewer than `fewest`
    prompts of a side reach are left out.
    """
    rows = []
    for reading in _readings(table, _place(by), resampled, seed):
        for side, mine in reading.sides.items():
            means = averages(reading.values[mine], reading.weights[:, mine])
            for i, at in enumerate(reading.at):
                there = mine & ~np.isnan(reading.values[:, i])
                if there.sum() >= fewest:
                    value, low, high = interval(means[:, i])
                    told = {"mean": value, "low": low, "high": high, "n": int(there.sum()), "groups": reading.count(there)}
                    rows.append({**reading.name, "side": side, "by": by, "at": at, **told})
    return pd.DataFrame(rows)


def detectability(
    table: pd.DataFrame, by: str = "start", *, fpr: float = 0.01, fewest: int = 20, resampled: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How well the readout tells harmful from benign prompts, a row per reading and point.

    Columns model, condition, split, by, at, fpr, tpr, low, high (of tpr), auroc, n_positive, n_negative, allowed, groups. `allowed` is how
    many negatives may read above the threshold: none where there are fewer than 1 / fpr of them. Points that fewer than `fewest` prompts
    of either side reach are left out.
    """
    rows = []
    for reading in _readings(table, _place(by), resampled, seed):
        rows += [{**reading.name, "by": by, **told} for told, _ in _points(reading, fpr, fewest)]
    return pd.DataFrame(rows)


def earliest(
    table: pd.DataFrame,
    bar: float = 0.5,
    fpr: float = 0.01,
    by: str = "start",
    *,
    fewest: int = 20,
    resampled: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The first point at which the true positive rate at `fpr` reaches `bar`, a row per reading.

    Columns as detectability() tells of that point, with bar, at_low and at_high: the interval of the point itself, each draw having a first
    point of its own. Where no point reaches the bar, `at` is inf and the rest tells of the point that comes nearest.
    """
    rows = []
    for reading in _readings(table, _place(by), resampled, seed):
        told, draws = zip(*_points(reading, fpr, fewest), strict=True)
        points = np.array([one["at"] for one in told])
        reached = np.stack(draws, 1) >= bar  # [b, a]
        first = np.where(reached.any(1), points[reached.argmax(1)], NEVER)
        low, high = np.quantile(first[1:], TAILS, method="inverted_cdf") if len(first) > 1 else (np.nan, np.nan)
        shown = told[int(reached[0].argmax())] if reached[0].any() else max(told, key=lambda one: one["tpr"])
        rows.append({**reading.name, "by": by, "bar": bar, **shown, "at": first[0], "at_low": low, "at_high": high})
    return pd.DataFrame(rows)


def cliff(table: pd.DataFrame, *, plateau: tuple[float, float] = PLATEAU, resampled: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The drop of the readout at the end of the thought, a row per reading and side: harmful, benign, and difference.

    Columns model, condition, split, side, plateau, end, drop, low, high (of drop), scale, n, groups, left_out. The difference is what
    harmful prompts drop beyond benign ones. `scale` is the standard deviation of the plateau among prompts of one side, a yardstick for
    drops of different probes; left_out counts prompts without an end or with too short a thought for a plateau.
    """

    def place(moments: pd.DataFrame) -> Any:
        gone = moments["rank"] / moments["last"]
        return gone.where(gone == 1).fillna(gone.between(*plateau).map({True: 0.0, False: np.nan}))

    rows = []
    for reading in _readings(table, place, resampled, seed):
        if len(reading.at) < 2:
            raise ValueError(f"no thought of {reading.name} has both a plateau and an end; widen plateau=, or leave these rows out")
        drop = reading.values @ [1, -1]
        values, whole = np.column_stack([reading.values, drop]), ~np.isnan(drop)
        inside = {side: mine & whole for side, mine in reading.sides.items()}
        if bare := [side for side, mine in inside.items() if not mine.any()]:
            raise ValueError(f"no {bare[0]} prompt of {reading.name} has a thought with a plateau and an end; a cliff needs both sides")
        draws = {side: averages(values[mine], reading.weights[:, mine]) for side, mine in inside.items()}
        draws["difference"], inside["difference"] = draws["harmful"] - draws["benign"], whole
        scale = float(np.sqrt(np.mean([values[inside[side], 0].var() for side in SIDES])))
        for side, drawn in draws.items():
            end, (fallen, low, high) = drawn[0], interval(drawn[:, 2])
            asked = reading.sides.get(side, np.ones_like(whole))
            rows.append(
                {
                    **{**reading.name, "side": side, "plateau": end[0], "end": end[1], "drop": fallen, "low": low, "high": high},
                    **{"scale": scale, "n": int(inside[side].sum()), "groups": reading.count(inside[side])},
                    "left_out": int((asked & ~inside[side]).sum()),
                }
            )
    return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False)
class _Reading:
    """The prompts of one model, condition and split, aligned."""

    name: Mapping[str, str]
    at: Sequence[float]
    values: Float[np.ndarray, "p a"]
    harmful: Bool[np.ndarray, " p"]
    groups: Shaped[np.ndarray, " p"]
    weights: Weights

    @property
    def sides(self) -> dict[str, Bool[np.ndarray, " p"]]:
        return {side: self.harmful == harmful for side, harmful in SIDES.items()}

    def count(self, prompts: Bool[np.ndarray, " p"]) -> int:
        return len(np.unique(self.groups[prompts]))


def _place(by: str) -> Place:
    if by not in ALIGNMENTS:
        raise ValueError(f"a trajectory is not aligned by {by!r}; known are {', '.join(ALIGNMENTS)}")
    return ALIGNMENTS[by]


def name_of(key: Iterable[Any]) -> dict[str, str]:
    return dict(zip(READING, map(str, key), strict=True))


def thoughts(table: pd.DataFrame) -> pd.DataFrame:
    """The labelled moments of each thought in order, with their rank and the rank of the end."""
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise ValueError(f"the trajectory table has no column {missing[0]!r}; it has {', '.join(map(str, table.columns))}. Follow again")
    prompts = [*READING, "prompt_id"]
    labelled = table[table["harmful"].notna()]
    over = labelled["kind"].isin(("answer", "marker")).groupby([labelled[name] for name in prompts], sort=False).transform("any")
    moments = labelled.assign(over=over)[labelled["kind"].isin(("thought", "marker"))].sort_values([*prompts, "position"], kind="stable")
    if moments.empty:
        raise ValueError("the trajectory table has no labelled token inside a thought; capture the span 'thought' with pool='every'")
    counted = moments.groupby(prompts, sort=False)["position"]
    rank, last = counted.cumcount(), counted.transform("size") - 1
    return moments.assign(harmful=moments["harmful"].astype(bool), rank=rank, last=last.where(moments["over"]))


def _readings(table: pd.DataFrame, place: Place, resampled: int, seed: int) -> Iterator[_Reading]:
    moments = thoughts(table)
    moments = moments.assign(at=place(moments).astype(float))
    if moments["at"].isna().all():
        raise ValueError("no thought in the trajectory table has an end; capture the spans 'thought_last' or 'answer' too")
    for key, rows in moments.groupby(list(READING), sort=False):
        wide = rows.pivot_table(index="prompt_id", columns="at", values="score", aggfunc="mean")
        prompts = rows.groupby("prompt_id").first()
        groups = prompts["group"].to_numpy(str)
        values = wide.reindex(prompts.index).to_numpy(float)
        at = wide.columns.to_numpy(float).tolist()
        yield _Reading(name_of(key), at, values, prompts["harmful"].to_numpy(bool), groups, draws_of(groups, resampled, seed))


def _points(reading: _Reading, fpr: float, fewest: int) -> list[tuple[dict[str, Any], Float[np.ndarray, " b"]]]:
    """What is told of each point in order, and the true positive rate at it in every draw."""
    found = []
    for i, at in enumerate(reading.at):
        there = ~np.isnan(reading.values[:, i])
        n = {side: int((mine & there).sum()) for side, mine in reading.sides.items()}
        if min(n.values()) < fewest:
            continue
        scores, y = torch.from_numpy(reading.values[there, i]), torch.from_numpy(reading.harmful[there])
        draws = tpr_at_fpr(scores, y, torch.from_numpy(reading.weights[:, there]), fpr=fpr).numpy()
        tpr, low, high = interval(draws, reading.count(there & reading.harmful))
        told = {"at": at, "fpr": fpr, "tpr": tpr, "low": low, "high": high, "auroc": float(auroc(scores, y))}
        counts = {"n_positive": n["harmful"], "n_negative": n["benign"], "allowed": int(fpr * n["benign"] + 1e-9)}
        found.append(({**told, **counts, "groups": reading.count(there)}, draws))
    if not found:
        raise ValueError(f"no point is reached by {fewest} harmful and {fewest} benign prompts of {reading.name}; pass a smaller fewest=")
    return found


def draws_of(groups: Shaped[np.ndarray, " p"], resampled: int, seed: int) -> Weights:
    return np.vstack([np.ones((1, len(groups))), resamples(groups, resampled, seed).double().numpy()])


def averages(values: Shaped[np.ndarray, "p a"], weights: Weights) -> Float[np.ndarray, "b a"]:
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return (weights @ np.where(there, values, 0.0)) / (weights @ there)


def interval(draws: Float[np.ndarray, " b"], groups: int | None = None) -> tuple[float, float, float]:
    """The value, which comes first, and the interval of the draws. `groups` marks a rate: one of 0 or 1 gets the exact binomial bound."""
    drawn = draws[1:][~np.isnan(draws[1:])]
    low, high = np.quantile(drawn, TAILS, method="inverted_cdf") if len(drawn) else (np.nan, np.nan)
    if groups and low == high and low in (0, 1):
        exact = TAILS[0] ** (1 / groups)
        low, high = (exact, 1.0) if low else (0.0, 1 - exact)
    return float(draws[0]), float(low), float(high)
