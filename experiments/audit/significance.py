"""Two models, or two conditions, on the same prompts: how far apart, how sure, and whether by chance.

A pair is one prompt answered twice, before and after. Of n pairs a hit on both sides, b before alone, c after alone, d on neither:

    difference   (c − b) / n       Wilson's interval of either side, joined with their correlation φ: method 10 of Newcombe 1998 (paired)
    ratio        (a + c) / (a + b) of the pairs with any hit; Wilson's intervals of either side at the z of Bonett and Price 2006
    test         two-sided binomial test of b among b + c at one half                                                 McNemar 1947
    mean         of the change of a rating: Student's interval, from one total a group

The intervals of a difference and a ratio hold where nothing or everything hits. Where prompts share a goal they are no independent pairs:
given the groups, an interval is the wider, at each end, of these and 2,000 bootstrap draws over whole groups (Field and Welsh 2007).
McNemar's test does not know of groups. Comparisons that are made together are corrected by Holm 1979.

Shapes: before, after [n], a value a prompt; groups [n], what the prompts share (any labels); `g` groups, `b` draws, `m` measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import binomtest, norm, t

Z = float(norm.ppf(0.975))
DRAWS = 2000
FEW = 128
RATING = 5.0  # the highest
TAILS = (0.025, 0.975)
Values = Float[np.ndarray, " n"]
Groups = Shaped[np.ndarray, " n"] | Sequence[str] | None


class Interval(NamedTuple):
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


class Pairs(NamedTuple):
    """How many prompts hit on both sides, before alone, after alone, on neither."""

    both: int
    before: int
    after: int
    neither: int


def wilson(k: float, n: float, z: float = Z) -> Interval:
    """The share k / n with its interval (Wilson 1927); nan for n = 0."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    centre, half = k + z * z / 2, z * math.sqrt(k * (n - k) / n + z * z / 4)
    low, high = (centre - half) / (n + z * z), (centre + half) / (n + z * z)
    return Interval(k / n, 0.0 if k == 0 else low, 1.0 if k == n else high)


def pairs(before: Values, after: Values) -> Pairs:
    """Counts of two rows of 0 and 1."""
    one, other = np.asarray(before) > 0, np.asarray(after) > 0
    return Pairs(int((one & other).sum()), int((one & ~other).sum()), int((~one & other).sum()), int((~one & ~other).sum()))


@lru_cache(maxsize=4096)
def mcnemar(before: int, after: int) -> float:
    """Exact two-sided p of pairs that hit before alone and after alone; 1 where there are none."""
    return float(binomtest(before, before + after).pvalue) if before + after else 1.0


def paired_difference(before: Values, after: Values, groups: Groups = None, *, seed: int = 0) -> Interval:
    """Share after − share before of the same prompts, 0 or 1 each; nan without prompts."""
    return paired_shares(before, after, groups, seed=seed)[0]


def paired_ratio(before: Values, after: Values, groups: Groups = None, *, seed: int = 0) -> Interval:
    """Share after / share before. Without a hit before it is inf, its low bound finite; without any hit nan, from 0 to inf."""
    return paired_shares(before, after, groups, seed=seed)[1]


def paired_shares(before: Values, after: Values, groups: Groups = None, *, seed: int = 0) -> tuple[Interval, Interval]:
    """Difference and ratio, from the same draws."""
    counts, (was, now, n) = pairs(before, after), _drawn(before, after, groups, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _wider(newcombe(counts), (now - was) / n), _wider(bonett_price(counts), now / was)


def paired_mean(before: Values, after: Values, groups: Groups = None, *, seed: int = 0) -> Interval:
    """Mean of after − before, for ratings from 0 to 5; nan without prompts."""
    change = np.asarray(after, float) - np.asarray(before, float)
    if not len(change):
        return Interval(math.nan, math.nan, math.nan)
    groups = np.arange(len(change)) if groups is None else groups
    total, size = by_group(np.stack([change, np.ones(len(change))], 1), groups).T
    value, g = float(change.mean()), len(total)
    if not np.ptp(change) or g < 2:
        return unvaried(value, g, (-RATING, RATING))
    half = float(t.ppf(TAILS[1], g - 1) * np.sqrt(g / (g - 1) * ((total - value * size) ** 2).sum()) / size.sum())
    was, now, n = _drawn(before, after, groups, seed)
    return _wider(Interval(value, max(-RATING, value - half), min(RATING, value + half)), (now - was) / n)


def unvaried(value: float, groups: int, span: tuple[float, float]) -> Interval:
    """A mean of which no group differs, or of a single group: at a chance of .025 for each end, a share 1 − .025^(1/g) of groups that were
    not seen lies at the end of what is possible (the exact binomial bound, as in probes/metrics.py)."""
    unseen = 1 - TAILS[0] ** (1 / groups)
    return Interval(value, value + unseen * (span[0] - value), value + unseen * (span[1] - value))


def newcombe(counts: Pairs) -> Interval:
    """The difference after − before of paired shares."""
    a, b, c, d = counts
    n = sum(counts)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    after, before = wilson(a + c, n), wilson(a + b, n)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    excess = a * d - b * c
    phi = (max(excess - n / 2, 0) if excess > 0 else excess) / math.sqrt(margins) if margins else 0.0
    value = (c - b) / n
    low = value - _joined(after.value - after.low, before.high - before.value, phi)
    return Interval(value, max(-1.0, low), min(1.0, value + _joined(after.high - after.value, before.value - before.low, phi)))


def bonett_price(counts: Pairs) -> Interval:
    """The ratio after / before of paired shares."""
    a, b, c, _ = counts
    n, after, before = a + b + c, a + c, a + b
    if n == 0:
        return Interval(math.nan, 0.0, math.inf)
    spread = [math.sqrt((1 - (k + 1) / (n + 2)) / (k + 1)) for k in (after, before)]
    z = Z * math.sqrt((b + c + 2) / ((after + 1) * (before + 1))) / sum(spread)
    top, bottom = wilson(after, n, z), wilson(before, n, z)
    return Interval(after / before if before else math.inf, top.low / bottom.high, top.high / bottom.low if before else math.inf)


def holm(p: Sequence[float] | Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """p of comparisons made together, corrected (step-down). nan is no comparison, and stays nan."""
    told = np.asarray(p, float)
    order = np.argsort(told)[: int((~np.isnan(told)).sum())]
    corrected = np.full(len(told), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(told[order] * np.arange(len(order), 0, -1)), 1)
    return corrected


def excess_of(one: Interval, other: Interval, drawn: Float[np.ndarray, " b"]) -> Interval:
    """One value − another of other prompts, from their intervals (Zou and Donner 2008) and from draws; the wider at each end."""
    value = one.value - other.value
    low, high = math.hypot(one.value - one.low, other.high - other.value), math.hypot(one.high - one.value, other.value - other.low)
    return _wider(Interval(value, value - low, value + high), drawn)


def averaged(parts: Sequence[Interval], drawn: Float[np.ndarray, "b k"]) -> Interval:
    """The mean of independent values, from their intervals (Zou and Donner 2008) and from draws of each; the wider at each end."""
    told = np.array(parts)
    value, k = float(told[:, 0].mean()), len(parts)
    down, up = (float(np.sqrt(((told[:, 0] - told[:, end]) ** 2).sum()) / k) for end in (1, 2))
    return _wider(Interval(value, value - down, value + up), drawn.mean(1))


def by_group(values: Float[np.ndarray, "n m"], groups: Shaped[np.ndarray, " n"] | Sequence[str]) -> Float[np.ndarray, "g m"]:
    """Totals of whole groups, in the order of their names."""
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    return np.stack([np.bincount(member, column, len(names)) for column in values.T], 1)


def resampled(totals: Float[np.ndarray, "g m"], seed: int = 0) -> Float[np.ndarray, "b m"]:
    """Totals of `DRAWS` draws of as many groups with replacement. The same seed draws the same groups."""
    return (_counts(len(totals), seed) @ totals.astype(np.float32)).astype(float)


def _counts(groups: int, seed: int) -> Float[np.ndarray, "b g"]:
    """How often each group is drawn; whole numbers, which float32 holds exactly."""
    return _few(groups, seed) if groups <= FEW else _many(groups, seed)


def _draw(groups: int, seed: int) -> Float[np.ndarray, "b g"]:
    drawn = np.random.default_rng(seed).integers(0, groups, (DRAWS, groups))
    flat = (drawn + groups * np.arange(DRAWS)[:, None]).ravel()
    return np.bincount(flat, minlength=DRAWS * groups).reshape(DRAWS, groups).astype(np.float32)


_few, _many = lru_cache(maxsize=256)(_draw), lru_cache(maxsize=8)(_draw)  # a category is asked for often; 1,200 groups take 10 MB


def _drawn(before: Values, after: Values, groups: Groups, seed: int) -> Float[np.ndarray, "3 b"]:
    """Totals before and after and the number of prompts, draw by draw; no draw where no groups are given."""
    if groups is None or not len(before):
        return np.empty((3, 0))
    return resampled(by_group(np.stack([before, after, np.ones(len(before))], 1).astype(float), groups), seed).T


def _wider(interval: Interval, drawn: Float[np.ndarray, " b"]) -> Interval:
    """The interval, widened to the middle 95% of what was drawn; a draw without anything to divide tells nothing."""
    if not len(drawn := drawn[~np.isnan(drawn)]):
        return interval
    low, high = middle(drawn)
    return Interval(interval.value, min(interval.low, low), max(interval.high, high))


def middle(drawn: Float[np.ndarray, " b"]) -> tuple[float, float]:
    """The percentiles of TAILS, as np.quantile has them, at a tenth of its time; the nearer of two draws where one is infinite."""
    places = [tail * (len(drawn) - 1) for tail in TAILS]
    beside = sorted({end for place in places for end in (math.floor(place), math.ceil(place))})
    ordered = np.partition(drawn, beside)
    ends = []
    for place in places:
        one, other = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
        share = place - math.floor(place)
        ends.append(one + share * (other - one) if math.isfinite(one) and math.isfinite(other) else (one, other)[round(share)])
    return ends[0], ends[1]


def _joined(one: float, other: float, phi: float) -> float:
    """Two half-widths of correlated shares as that of their difference."""
    return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))
