"""Rates with their 95% intervals, as rows of the long tables.

A rate over prompts is binomial: Wilson's interval (Wilson 1927). Where prompts share a goal the effective number of observations is
smaller than n: given the groups, the interval is the wider, at each end, of Wilson's and a bootstrap over whole groups. The mean of ratings
has the bootstrap alone. What each rate is taken over stands in measures.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from ...hooks.records import Prompt
from ...probes.metrics import resamples
from .measures import BOUNDS, MEANS, Measure, Values, measures
from .significance import FEW, RATING, Interval, by_group, middle, unvaried
from .significance import wilson as wilson
from .verdicts import CHANNELS, THRESHOLD, Verdict

Row = dict[str, object]
Groups = Sequence[str] | Shaped[np.ndarray, " n"]
FIRST = ("attack_success", "refusal", "over_refusal", "helpful", "self_correction", "reverse_correction", "truncated", "task_accuracy")
RATINGS = range(6)


def over_groups(values: Sequence[float] | Values, groups: Groups) -> tuple[float, float]:
    """95% percentile interval of the mean, from a thousand bootstrap draws of whole groups (Field and Welsh 2007); nan without values."""
    if not len(values):
        return math.nan, math.nan
    totals = by_group(np.stack([np.asarray(values, float), np.ones(len(values))], 1), groups)
    drawn = _weights(len(totals)) @ totals
    return middle(drawn[:, 0] / drawn[:, 1])


def _weights(groups: int) -> Float[np.ndarray, "b g"]:
    return _few(groups) if groups <= FEW else _many(groups)


def _draw(groups: int) -> Float[np.ndarray, "b g"]:
    drawn: Float[np.ndarray, "b g"] = resamples(np.arange(groups), seed=0).double().numpy()
    return drawn


_few, _many = lru_cache(maxsize=FEW)(_draw), lru_cache(maxsize=8)(_draw)


def rate(metric: str, hits: Sequence[bool] | Values, *, groups: Groups | None = None, **columns: object) -> Row:
    """One row: value, interval, numerator and n of a share. groups: whose prompt each is, for an interval over goals."""
    k, n = int(sum(hits)), len(hits)
    value, low, high = wilson(k, n)
    if groups is not None and n:
        wide = over_groups(np.asarray(hits, float), groups)
        low, high = min(low, wide[0]), max(high, wide[1])
    return {**columns, "metric": metric, "value": value, "low": low, "high": high, "numerator": k, "n": n}


def mean_rating(values: Values, groups: Groups) -> Interval:
    """Mean of ratings from 0 to 5 with its interval over groups, which has a width where no rating differs as well."""
    low, high = over_groups(values, groups)
    value = float(np.mean(values)) if len(values) else math.nan
    return unvaried(value, len(np.unique(np.asarray(groups))), (0.0, RATING)) if low == high else Interval(value, low, high)


def rates(
    verdicts: Sequence[Verdict],
    prompts: Sequence[Prompt],
    *,
    threshold: float = THRESHOLD,
    thresholds: Collection[float] = (),
    tells: Collection[str] | None = None,
    channels: Collection[str] = ("answer", "thought"),
    metrics: Collection[str] = FIRST,
    grouped: bool = False,
    **columns: object,
) -> list[Row]:
    """The rates of one model and condition, as far as there is anything to take them over.

    threshold    of every row; thresholds: further ones, of attack success alone
    tells        what the judge tells (experiments/judges); None: what the verdicts hold
    channels     of attack success and of what is unscored
    metrics      some of measures.METRICS, or all
    grouped      intervals over the prompts' groups as well
    """
    found = measures(verdicts, prompts, threshold=threshold, thresholds=thresholds, tells=tells, channels=channels, metrics=metrics)
    return rows_of(found, groups_of(prompts), grouped=grouped, **columns)


def rows_of(found: Sequence[Measure], groups: Groups, *, grouped: bool, **columns: object) -> list[Row]:
    """A row for each measure that asks anything."""
    rows: list[Row] = []
    groups = np.asarray(groups)
    for metric, channel, threshold, values in asking(found):
        there = ~np.isnan(values)
        about = {"channel": channel, "threshold": threshold, **columns}
        if metric in MEANS:
            told = mean_rating(values[there], groups[there])
            rows.append({**about, "metric": metric, **told._asdict(), "numerator": float(values[there].sum()), "n": int(there.sum())})
        else:
            rows.append(rate(metric, values[there], groups=groups[there] if grouped else None, **about))
    return rows


def asking(found: Sequence[Measure]) -> list[Measure]:
    """Those that ask anything; how bad and how good it may be is asked only where something is unscored."""
    n = {one[:3]: int((~np.isnan(one.values)).sum()) for one in found}
    return [m for m in found if n[m[:3]] and not (m.metric in BOUNDS and n.get(("attack_success", *m[1:3])) == n[m[:3]])]


def groups_of(prompts: Sequence[Prompt]) -> Shaped[np.ndarray, " n"]:
    """A number for the group of each prompt, in the order of their names; a prompt without a group is its own."""
    numbers: Shaped[np.ndarray, " n"] = np.unique([p.group or p.id for p in prompts], return_inverse=True)[1]
    return numbers


def histogram(verdicts: Sequence[Verdict], prompts: Sequence[Prompt], **columns: object) -> list[Row]:
    """How often each rating was given to harmful prompts: rows of channel, what (rated, unscored, absent), rating and n.

    A rating between two whole ones counts as the lower, so that the rows from a threshold on add up to what reaches it (full refusals
    aside). Rating is nan where there is none. A judge that does not rate has no row.
    """
    rows: list[Row] = []
    for name in CHANNELS:
        seen = [getattr(v, name) for v, p in zip(verdicts, prompts, strict=True) if p.harmful]
        rated = Counter(math.floor(c.rating) for c in seen if c.rating is not None)
        if not rated:
            continue
        absent = sum(not c.there for c in seen)
        rows += [{**columns, "channel": name, "what": "rated", "rating": float(k), "n": rated[k]} for k in RATINGS]
        for what, n in (("unscored", len(seen) - absent - rated.total()), ("absent", absent)):
            rows.append({**columns, "channel": name, "what": what, "rating": math.nan, "n": n})
    return rows


def table(rows: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))
