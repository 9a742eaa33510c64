"""Where refusals collapsed: rates by model, condition, benchmark, attack and category, the reasoning tax, and conditions compared in pairs.

    tax_difference    attack success of a model − that of the reference, on the same prompts
    tax_ratio         the one divided by the other; numerator and n are the hits of both, so that a ratio over three hits shows it
    tax_rating        mean harm rating of a model's answers − that of the reference's

Intervals of what is paired stand on goals as well as on prompts (significance.py). A pair of which one side is unscored is dropped. `macro`
is the mean of the categories: its interval joins theirs (Zou and Donner 2008), or comes from draws of goals within each, if wider.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from ...hooks.records import Prompt
from .joined import By, Verdicts, comparisons, homes, in_common, joined, reference_of
from .measures import MEANS, Measure, Values
from .score import Row, asking, groups_of, mean_rating, rows_of
from .significance import (
    Interval,
    averaged,
    by_group,
    holm,
    mcnemar,
    newcombe,
    paired_difference,
    paired_mean,
    paired_shares,
    pairs,
    resampled,
    wilson,
)
from .slices import MACRO, Mask, Slice, slices
from .verdicts import THRESHOLD

COLUMNS = (
    *("model", "condition", "benchmark", "attack", "category", "channel", "metric", "value", "low", "high", "numerator", "n"),
    *("judge", "threshold"),
)
PAIRED = (
    *("model", "condition", "against_model", "against_condition", "benchmark", "attack", "category", "channel", "metric"),
    *("value", "low", "high", "before", "after", "n", "n_unpaired", "p_mcnemar", "p_holm", "judge", "threshold"),
)
Groups = Shaped[np.ndarray, " n"]


def collapse(
    verdicts: Verdicts,
    prompts: Sequence[Prompt],
    *,
    judge: str,
    benchmark: str = "",
    threshold: float = THRESHOLD,
    thresholds: Collection[float] = (),
    tells: Collection[str] | None = None,
    reference: str | By | None = None,
    grouped: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """The `collapse` table: every rate of every slice (slices.py), and the tax from the reference to every other model.

    verdicts     by model, or by model and condition; on all prompts or on some, joined by id
    benchmark    the name of prompts that tell none
    thresholds   further ones, of attack success and its tax
    tells        what the judge tells; None: what its verdicts hold
    reference    a model; None: base, else the first. Models are compared unsteered, or in the first condition they have
    grouped      intervals of rates over goals as well
    """
    found = joined(verdicts, prompts, threshold=threshold, thresholds=thresholds, tells=tells)
    against, groups = reference_of(found, reference), groups_of(prompts)
    rows: list[Row] = []
    for part in slices(prompts, benchmark):
        shared = {**part.columns, "judge": judge}
        for (model, condition), of_one in found.items():
            rows += _rates(of_one, part, groups, grouped, seed, {"model": model, "condition": condition, **shared})
        for model, condition in homes(found):
            if model != against[0]:
                both = in_common(found[against], found[model, condition])
                rows += _taxes(both, part, groups, seed, {"model": model, "condition": condition, **shared})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def paired(
    verdicts: Verdicts,
    prompts: Sequence[Prompt],
    *,
    judge: str,
    benchmark: str = "",
    threshold: float = THRESHOLD,
    thresholds: Collection[float] = (),
    tells: Collection[str] | None = None,
    reference: str | By | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The `paired` table: every other model against the reference, and every other condition of a model against its unsteered one.

    value                how much more often (harm_rating: by how much more) than there, on the same prompts
    before, after        prompts that hit there alone, here alone; of ratings: that were higher there, higher here
    n, n_unpaired        prompts that both are told of; that only one is told of: not answered or not scored by the other
    p_mcnemar, p_holm    exact test, prompts taken as independent; corrected over the categories (attacks, hazards) told beside it
    """
    found = joined(verdicts, prompts, threshold=threshold, thresholds=thresholds, tells=tells)
    everybody, groups = comparisons(found, reference_of(found, reference)), groups_of(prompts)
    rows: list[Row] = []
    beside: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for part in (one for one in slices(prompts, benchmark) if one.kind != MACRO):
        for against, who in everybody:
            names = dict(zip(PAIRED[:4], (*who, *against), strict=True))
            for one, other in in_common(found[against], found[who]):
                was, now = one.values[part.where], other.values[part.where]
                if (~np.isnan(was) | ~np.isnan(now)).any():
                    beside[part.benchmark, part.kind, who, other.metric, other.channel, str(other.threshold)].append(len(rows))
                    about = {"channel": other.channel, "metric": other.metric, "judge": judge, "threshold": other.threshold}
                    rows.append({**names, **part.columns, **about, **_compared(was, now, other.metric, groups[part.where], seed)})
    table = pd.DataFrame(rows, columns=list(PAIRED))
    corrected = np.full(len(table), np.nan)
    for places in beside.values():
        corrected[places] = holm(table["p_mcnemar"].to_numpy(float)[places])
    return table.assign(p_holm=corrected)


def _compared(was: Values, now: Values, metric: str, groups: Groups, seed: int) -> Row:
    there = ~np.isnan(was) & ~np.isnan(now)
    unpaired = int((~np.isnan(was) ^ ~np.isnan(now)).sum())
    was, now = was[there], now[there]
    told = (paired_mean if metric in MEANS else paired_difference)(was, now, groups[there], seed=seed)
    fell, rose = int((was > now).sum()), int((now > was).sum())
    p = math.nan if metric in MEANS or not there.any() else mcnemar(fell, rose)
    return {**told._asdict(), "before": fell, "after": rose, "n": int(there.sum()), "n_unpaired": unpaired, "p_mcnemar": p}


def _rates(found: Sequence[Measure], part: Slice, groups: Groups, grouped: bool, seed: int, columns: Row) -> list[Row]:
    cut = asking([one._replace(values=np.where(part.where, one.values, np.nan)) for one in found])
    if part.kind != MACRO:
        return rows_of(cut, groups, grouped=grouped, **columns)
    rows: list[Row] = []
    for metric, channel, threshold, values in cut:
        inside = _inside(part, ~np.isnan(values))
        own = [
            mean_rating(values[mask], groups[mask]) if metric in MEANS else wilson(values[mask].sum(), int(mask.sum())) for mask in inside
        ]
        about = {"channel": channel, "metric": metric, "threshold": threshold}
        rows += _macro(own, values, inside, groups, seed, {**columns, **about})
    return rows


def _taxes(both: Sequence[tuple[Measure, Measure]], part: Slice, groups: Groups, seed: int, columns: Row) -> list[Row]:
    rows: list[Row] = []
    for one, other in both:
        there = part.where & ~np.isnan(one.values) & ~np.isnan(other.values)
        if other.metric not in ("attack_success", *MEANS) or not there.any():
            continue
        rating, was, now = other.metric in MEANS, one.values, other.values
        about = {**columns, "channel": other.channel, "threshold": other.threshold, "metric": "tax_rating" if rating else "tax_difference"}
        if part.kind == MACRO:
            inside = _inside(part, there)
            own = [paired_mean(was[m], now[m], groups[m]) if rating else newcombe(pairs(was[m], now[m])) for m in inside]
            rows += _macro(own, now - was, inside, groups, seed, about)
            continue
        was, now, whose = was[there], now[there], groups[there]
        change = {"numerator": float(now.sum() - was.sum()), "n": len(now)}
        if rating:
            rows.append({**about, **paired_mean(was, now, whose, seed=seed)._asdict(), **change})
            continue
        difference, ratio = paired_shares(was, now, whose, seed=seed)
        rows.append({**about, **difference._asdict(), **change})
        rows.append({**about, "metric": "tax_ratio", **ratio._asdict(), "numerator": float(now.sum()), "n": int(was.sum())})
    return rows


def _macro(own: Sequence[Interval], values: Values, inside: Sequence[Mask], groups: Groups, seed: int, columns: Row) -> list[Row]:
    """The mean of categories, where there are two at least. numerator: none; n: the prompts of all."""
    if len(inside) < 2:
        return []
    drawn = np.stack([_draws(values[mask], groups[mask], seed + i) for i, mask in enumerate(inside)], 1)  # other goals, other draws
    return [{**columns, **averaged(own, drawn)._asdict(), "numerator": math.nan, "n": sum(int(mask.sum()) for mask in inside)}]


def _draws(values: Values, groups: Groups, seed: int) -> Float[np.ndarray, " b"]:
    total, n = resampled(by_group(np.stack([values, np.ones(len(values))], 1), groups), seed).T
    return total / n


def _inside(part: Slice, there: Mask) -> list[Mask]:
    """The prompts of each category that are there."""
    return [mask for one in part.parts.values() if (mask := one & there).any()]
