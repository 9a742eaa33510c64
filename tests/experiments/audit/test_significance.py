"""Pairs: tests against statsmodels, intervals against published examples, inverted tests and simulated truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import bootstrap, norm, ttest_rel
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from thoughtlens.experiments.audit.significance import (
    Interval,
    Pairs,
    averaged,
    bonett_price,
    excess_of,
    holm,
    mcnemar,
    middle,
    newcombe,
    paired_difference,
    paired_mean,
    paired_ratio,
    pairs,
    resampled,
    unvaried,
    wilson,
)

Sides = tuple[np.ndarray, np.ndarray]
COUNTS = st.integers(0, 40)


def sides(counts: Pairs) -> Sides:
    """Rows of 0 and 1 with these counts."""
    cells = np.repeat(np.array([[1, 1], [1, 0], [0, 1], [0, 0]]), counts, axis=0)
    return cells[:, 0].astype(float), cells[:, 1].astype(float)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_statsmodels(before: int, after: int) -> None:
    theirs = statsmodels_mcnemar([[7, before], [after, 5]], exact=True).pvalue
    assert mcnemar(before, after) == pytest.approx(min(theirs, 1.0), abs=1e-12)


@pytest.mark.parametrize(
    "p", [[], [math.nan], [0.04], [0.01, 0.04, 0.03, 0.005], [0.2, math.nan, 0.001, 0.001, 0.9, 0.02], [0.6, 0.7, 1.0]]
)
def test_holm_is_statsmodels_and_leaves_alone_what_is_no_comparison(p: list[float]) -> None:
    there = [i for i, value in enumerate(p) if not math.isnan(value)]
    ours = holm(p)
    assert np.isnan(np.delete(ours, there)).all()
    if there:
        assert ours[there] == pytest.approx(multipletests([p[i] for i in there], method="holm")[1], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1))
def test_wilson_is_statsmodels(n: int, share: float) -> None:
    k = round(share * n)
    assert wilson(k, n)[1:] == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "difference", "ratio"),
    [  # two studies worked out in Fagerland, Lydersen and Laake 2014; an example of Newcombe 1998
        (Pairs(1, 7, 1, 12), (-0.2857, -0.5069, -0.0256), None),
        (Pairs(59, 16, 6, 80), (-0.0621, -0.1186, -0.0046), (0.8667, 0.7579, 0.9910)),
        (Pairs(36, 2, 12, 0), (0.2, 0.0569, 0.3404), None),
    ],
)
def test_published_examples(counts: Pairs, difference: tuple[float, ...], ratio: tuple[float, ...] | None) -> None:
    before, after = sides(counts)
    assert pairs(before, after) == counts
    assert paired_difference(before, after) == pytest.approx(difference, abs=6e-5)
    if ratio is not None:
        assert paired_ratio(before, after) == pytest.approx(ratio, abs=6e-5)


def tango(counts: Pairs) -> tuple[float, float]:
    """Another interval of the difference: the values that Tango's score test (1998) does not reject."""
    _, b, c, _ = counts
    n = sum(counts)

    def score(delta: float) -> float:
        linear = -b - c + (2 * n - c + b) * delta
        q = (math.sqrt(max(linear**2 - 8 * n * (-b * delta * (1 - delta)), 0)) - linear) / (4 * n)
        return (c - b - n * delta) / math.sqrt(max(n * (2 * q + delta * (1 - delta)), 1e-12))

    z, value = float(norm.ppf(0.975)), (c - b) / n
    ends = [(-1 + 1e-9, value, z), (value, 1 - 1e-9, -z)]
    return tuple(  # type: ignore[return-value]
        brentq(lambda d, at=at: score(d) - at, low, high) if (score(low) - at) * (score(high) - at) < 0 else (low, high)[at < 0]
        for low, high, at in ends
    )


@pytest.mark.parametrize(
    "counts", [Pairs(20, 5, 15, 60), Pairs(3, 1, 40, 156), Pairs(70, 12, 3, 15), Pairs(30, 30, 30, 30), Pairs(0, 2, 9, 89)]
)
def test_the_difference_is_near_an_inverted_score_test(counts: Pairs) -> None:
    assert tango(Pairs(59, 16, 6, 80)) == pytest.approx((-0.1240, -0.0054), abs=6e-5)  # as published
    assert newcombe(counts)[1:] == pytest.approx(tango(counts), abs=0.02)


@settings(max_examples=100, deadline=None)
@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_exchanging_sides_turns_the_interval_around(a: int, b: int, c: int, d: int) -> None:
    if not a + b + c + d:
        return
    one, other = newcombe(Pairs(a, b, c, d)), newcombe(Pairs(a, c, b, d))
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-9)
    assert -1 <= one.low <= one.value <= one.high <= 1 and one.low < one.high
    ratio, inverse = bonett_price(Pairs(a, b, c, d)), bonett_price(Pairs(a, c, b, d))
    if a + b and a + c:
        assert (1 / inverse.high, 1 / inverse.low if inverse.low else math.inf) == pytest.approx((ratio.low, ratio.high), rel=1e-9)
        assert ratio.low <= ratio.value <= ratio.high


def test_without_any_hit_before_a_ratio_is_infinite_over_a_finite_bound() -> None:
    value, low, high = paired_ratio(*sides(Pairs(0, 0, 12, 88)))
    assert value == high == math.inf and 2 < low < 12
    assert paired_ratio(*sides(Pairs(0, 3, 0, 97)))[:2] == (0, 0)
    nothing = paired_ratio(*sides(Pairs(0, 0, 0, 9)))
    assert math.isnan(nothing.value) and nothing[1:] == (0, math.inf)
    few, many = paired_ratio(*sides(Pairs(3, 0, 27, 70))), paired_ratio(*sides(Pairs(30, 0, 270, 700)))
    assert few.value == many.value == 10 and few.high / few.low > 7 and many.high / many.low < 2.5


def test_an_interval_has_a_width_where_everything_changes_and_where_nothing_does() -> None:
    everything, nothing = newcombe(Pairs(0, 0, 4, 0)), newcombe(Pairs(0, 0, 0, 50))
    assert everything.value == everything.high == 1 and everything.low < 0.5
    assert nothing.value == 0 and nothing.high == -nothing.low == pytest.approx(proportion_confint(0, 50, method="wilson")[1])
    assert all(math.isnan(number) for number in newcombe(Pairs(0, 0, 0, 0)))


@pytest.mark.parametrize("statistic", [paired_difference, paired_ratio, paired_mean])
def test_groups_only_widen_and_the_order_of_prompts_is_nothing(statistic: Callable[..., Interval]) -> None:
    stream = np.random.default_rng(0)
    before, after, groups = (stream.random(60) < 0.3).astype(float), (stream.random(60) < 0.6).astype(float), np.repeat(np.arange(12), 5)
    alone, grouped = statistic(before, after), statistic(before, after, groups)
    if statistic is not paired_mean:  # whose interval is made of groups alone
        assert alone.low >= grouped.low and grouped.high >= alone.high
    order = stream.permutation(60)
    assert statistic(before[order], after[order], groups[order]) == pytest.approx(grouped, abs=1e-9)
    assert statistic(before, after, [f"goal {g}" for g in groups + 10]) == pytest.approx(grouped, abs=1e-9)


def test_the_mean_of_a_change_is_students_and_scipys_bootstrap() -> None:
    stream = np.random.default_rng(1)
    before, after = stream.integers(0, 6, 40).astype(float), stream.integers(1, 6, 40).astype(float)
    value, low, high = paired_mean(before, after)
    student = ttest_rel(after, before).confidence_interval()
    drawn = bootstrap((after - before,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert value == pytest.approx((after - before).mean())
    assert low == pytest.approx(min(student.low, drawn.low), abs=0.05) and high == pytest.approx(max(student.high, drawn.high), abs=0.05)
    few = ttest_rel(after[:6], before[:6]).confidence_interval()
    assert paired_mean(before[:6], after[:6])[1:] == pytest.approx((max(few.low, -5), min(few.high, 5)))  # wider than any draw of six
    one = paired_mean([1.0, 2.0], [3.0, 3.0], ["g", "g"])
    assert one.value == 1.5 and one.low < -4 and one.high > 4
    assert all(math.isnan(number) for number in paired_mean([], []))


def test_where_no_group_differs_the_bound_is_the_exact_one() -> None:
    exact = proportion_confint(0, 12, method="beta")[1]
    assert unvaried(0.0, 12, (0.0, 1.0)) == pytest.approx((0, 0, exact))
    assert paired_mean(np.zeros(12), np.full(12, 5.0)) == pytest.approx((5, 5 - 10 * exact, 5))


def test_percentiles_are_numpys_and_survive_what_is_infinite() -> None:
    drawn = np.random.default_rng(2).normal(size=777)
    assert middle(drawn) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-12)
    assert middle(np.array([1.0])) == (1, 1)
    low, high = middle(np.where(drawn > 1.5, np.inf, drawn))
    assert low == pytest.approx(np.quantile(drawn, 0.025)) and high == math.inf


def test_means_and_differences_of_what_is_independent() -> None:
    one, other = Interval(0.5, 0.3, 0.6), Interval(0.2, 0.1, 0.4)
    nothing = np.empty((0, 2))
    assert averaged([one, other], nothing) == pytest.approx((0.35, 0.35 - math.hypot(0.2, 0.1) / 2, 0.35 + math.hypot(0.1, 0.2) / 2))
    assert excess_of(one, other, nothing[:, 0]) == pytest.approx((0.3, 0.3 - math.hypot(0.2, 0.2), 0.3 + math.hypot(0.1, 0.1)))


def test_draws_take_as_many_whole_groups_as_there_are() -> None:
    drawn = resampled(np.stack([np.ones(7), np.arange(7.0)], 1))
    assert (drawn[:, 0] == 7).all() and drawn[:, 1].mean() == pytest.approx(21, abs=0.5) and (resampled(np.ones((7, 1)), 1) == 7).all()
    assert (drawn == resampled(np.stack([np.ones(7), np.arange(7.0)], 1))).all() and drawn[:, 1].std() == pytest.approx(
        math.sqrt(7 * 4), rel=0.1
    )


# simulated truth


def world(stream: np.random.Generator, goals: int, size: int, before: float, after: float, alike: float) -> Sides:
    """Answers to `size` prompts of each goal: as alike within a goal as told, and correlated between the sides."""

    def side(shared: np.ndarray, noise: np.ndarray, share: float) -> np.ndarray:
        mine = np.sqrt(0.5) * (shared + stream.standard_normal(goals))
        own = np.sqrt(0.5) * (noise + stream.standard_normal(goals * size))
        latent = math.sqrt(alike) * np.repeat(mine, size) + math.sqrt(1 - alike) * own
        return (latent < ndtri(share)).astype(float)

    shared, noise = stream.standard_normal(goals), stream.standard_normal(goals * size)
    return side(shared, noise, before), side(shared, noise, after)


def covered(statistic: Callable[..., Interval], truth: float, drawn: list[Sides], groups: np.ndarray | None) -> float:
    return float(np.mean([(told := statistic(*one, groups)).low <= truth <= told.high for one in drawn]))


@pytest.mark.parametrize(("n", "before", "after"), [(40, 0.05, 0.4), (150, 0.3, 0.5), (150, 0.03, 0.1), (150, 0.9, 0.97)])
def test_intervals_of_independent_prompts_cover_the_truth(n: int, before: float, after: float) -> None:
    stream = np.random.default_rng(n)
    drawn = [world(stream, n, 1, before, after, 0.5) for _ in range(400)]
    assert 0.93 <= covered(paired_difference, after - before, drawn, None)
    assert 0.92 <= covered(paired_ratio, after / before, drawn, None) <= 0.99
    kept = [one for one in drawn if np.ptp(one[1] - one[0])][:200]
    assert 0.9 <= covered(paired_mean, after - before, kept, None)


@pytest.mark.parametrize(("goals", "before", "after"), [(20, 0.05, 0.5), (60, 0.3, 0.5)])
def test_intervals_over_goals_cover_the_truth_where_those_over_prompts_do_not(goals: int, before: float, after: float) -> None:
    stream, groups = np.random.default_rng(goals), np.repeat(np.arange(goals), 5)
    drawn = [world(stream, goals, 5, before, after, 0.7) for _ in range(300)]
    assert 0.9 <= covered(paired_difference, after - before, drawn, groups) <= 0.985
    assert 0.9 <= covered(paired_ratio, after / before, drawn, groups)
    assert 0.9 <= covered(paired_mean, after - before, drawn, groups) <= 0.985
    assert covered(paired_difference, after - before, drawn, None) < 0.87
