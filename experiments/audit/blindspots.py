"""Blind spots: categories whose reasoning tax exceeds that of the rest.

    tax       attack success of a model − that of the reference, on the same prompts of a category
    rest      the same of all other prompts
    excess    tax − rest

The test deals the categories out anew among whole goals, to as many as each has, and asks how often a category then stands out as much
(one-sided; (1 + k) / (1 + draws), Phipson and Smyth 2010). It compares the excess in units of its standard error, from one total a goal: so
it is exact where goals are alike whatever their category, and holds for many goals where taxes are the same and only their spread differs
(Janssen 1997; Chung and Romano 2013). A category in which much changes to and fro is no blind spot. p_holm is corrected for the number of
categories (Holm 1979). The interval of the excess joins those of tax and rest (Zou and Donner 2008), and is the wider, at each end, of that
and a bootstrap over whole goals.

Shapes: `n` prompts, `u` units (a goal within a category), `c` categories, `b` draws.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from ...hooks.records import Prompt
from .joined import By, Verdicts, homes, in_common, joined, reference_of
from .measures import Values
from .score import Row, groups_of
from .significance import by_group, excess_of, holm, newcombe, paired_difference, pairs, resampled
from .slices import MACRO, Mask, slices
from .verdicts import THRESHOLD

DRAWS = 1999
LEVEL = 0.05
Groups = Shaped[np.ndarray, " n"]
CHUNK = 2**19  # units dealt out at a time
COLUMNS = (
    *("model", "condition", "against_model", "against_condition", "benchmark", "channel", "category", "tax", "low", "high", "rest"),
    *("excess", "excess_low", "excess_high", "p", "p_holm", "n", "groups", "blind", "judge", "threshold"),
)


class Excess(NamedTuple):
    """The excess of each category and its one-sided p."""

    excess: Float[np.ndarray, " c"]
    p: Float[np.ndarray, " c"]


def blind_spots(
    verdicts: Verdicts,
    prompts: Sequence[Prompt],
    *,
    judge: str,
    benchmark: str = "",
    threshold: float = THRESHOLD,
    thresholds: Collection[float] = (),
    tells: Collection[str] | None = None,
    reference: str | By | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """The `blind_spots` table: of every model but the reference, a row a category, the largest excess first.

    Over harmful prompts that have a category and whose answers were scored on both sides: n of them, of so many groups. What is told apart
    (slices.py) is left out. `blind` where p_holm is at most .05. No row for a benchmark of fewer than two categories. Options: collapse().
    """
    found = joined(verdicts, prompts, threshold=threshold, thresholds=thresholds, tells=tells)
    against, groups = reference_of(found, reference), groups_of(prompts)
    rows: list[Row] = []
    for who in (by for by in homes(found) if by[0] != against[0]):
        names = dict(zip(COLUMNS[:4], (*who, *against), strict=True))
        for one, other in in_common(found[against], found[who]):
            if (other.metric, other.channel) == ("attack_success", "answer"):
                about = {"channel": other.channel, "judge": judge, "threshold": other.threshold}
                for part in (part for part in slices(prompts, benchmark) if part.kind == MACRO):
                    told = _told(one.values, other.values, part.parts, groups, draws, seed)
                    rows += [{**names, "benchmark": part.benchmark, **about, **row} for row in told]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _told(before: Values, after: Values, parts: Mapping[str, Mask], groups: Groups, draws: int, seed: int) -> list[Row]:
    there = ~np.isnan(before) & ~np.isnan(after)
    inside = {name: mask & there for name, mask in parts.items() if (mask & there).any()}
    if len(inside) < 2:
        return []
    masks = np.stack(list(inside.values()))
    kept = masks.any(0)
    was, now, whose, masks = before[kept], after[kept], groups[kept], masks[:, kept]
    test = stand_out(now - was, masks.argmax(0), whose, draws=max(draws, 40 * len(inside)), seed=seed)  # 40: p can fall below any p_holm
    change, n = np.split(resampled(by_group(np.concatenate([(now - was) * masks, masks]).T, whose), seed), 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw may leave a category out
        drawn = change / n - (change.sum(1, keepdims=True) - change) / (n.sum(1, keepdims=True) - n)
    rows: list[Row] = []
    for i, (name, p, p_holm) in enumerate(zip(inside, test.p, holm(test.p.tolist()), strict=True)):
        mine = masks[i]
        tax, rest = paired_difference(was[mine], now[mine], whose[mine], seed=seed), newcombe(pairs(was[~mine], now[~mine]))
        excess = excess_of(newcombe(pairs(was[mine], now[mine])), rest, drawn[:, i])
        about = {"category": name, "tax": tax.value, "low": tax.low, "high": tax.high, "rest": rest.value}
        more = {"excess": excess.value, "excess_low": excess.low, "excess_high": excess.high, "p": float(p), "p_holm": float(p_holm)}
        size = {"n": int(mine.sum()), "groups": len(np.unique(whose[mine])), "blind": bool(p_holm <= LEVEL)}
        rows.append({**about, **more, **size})
    return sorted(rows, key=lambda row: -float(str(row["excess"])))


def stand_out(change: Values, categories: Int[np.ndarray, " n"], groups: Groups, *, draws: int = DRAWS, seed: int = 0) -> Excess:
    """The excess of each category (numbered from 0, none empty) over all others, tested.

    A goal that is in several categories counts as one in each: that makes the test stricter.
    """
    units, member = np.unique(np.stack([categories, np.unique(groups, return_inverse=True)[1]]), axis=1, return_inverse=True)
    totals = np.stack([np.bincount(member.ravel(), weights, units.shape[1]) for weights in (change, np.ones(len(change)))])
    starts = np.searchsorted(units[0], np.arange(units[0].max() + 1))
    excess, seen = standing(totals[:, None], starts)
    stream, more, done = np.random.default_rng(seed), np.zeros(len(starts)), 0
    while done < draws:
        some = min(draws - done, max(1, CHUNK // totals.shape[1]))
        order = stream.permuted(np.tile(np.arange(totals.shape[1]), (some, 1)), axis=1)
        more += (standing(totals[:, order], starts)[1] >= seen - 1e-9 * (1 + np.abs(np.nan_to_num(seen, posinf=0)))).sum(0)
        done += some
    return Excess(excess[0], (1 + more) / (1 + draws))


def standing(
    totals: Float[np.ndarray, "2 b u"], starts: Int[np.ndarray, " c"]
) -> tuple[Float[np.ndarray, "b c"], Float[np.ndarray, "b c"]]:
    """Excess of each category, and in units of its standard error. totals: change and size; units of one category stand together."""
    total, size = totals
    inside = np.add.reduceat(np.stack([total, size, total * total, total * size, size * size]), starts, axis=-1)
    outside = inside.sum(-1, keepdims=True) - inside
    counts = np.diff([*starts, totals.shape[-1]])
    (mean, spread), (rest, around) = _mean(inside, counts), _mean(outside, totals.shape[-1] - counts)
    excess, error = mean - rest, np.sqrt(spread + around)
    with np.errstate(divide="ignore", invalid="ignore"):
        return excess, np.where(np.abs(excess) < 1e-12, 0.0, excess / error)


def _mean(sums: Float[np.ndarray, "5 b c"], units: Int[np.ndarray, " c"]) -> tuple[Float[np.ndarray, "b c"], Float[np.ndarray, "b c"]]:
    """Mean of the prompts and its squared standard error over units; 0 where a single unit tells of none."""
    total, size, squares, products, sizes = sums
    mean = total / size
    residual = squares - 2 * mean * products + mean * mean * sizes
    factor = np.where(units > 1, units / np.maximum(units - 1, 1), 0.0)
    return mean, np.where(residual > 1e-9, factor * residual / size**2, 0.0)
