"""Measures and their intervals, against scikit-learn, by hand, and by how often they cover."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, roc_auc_score, roc_curve
from thoughtlens.probes import metrics
from thoughtlens.probes.metrics import (
    MEASURES,
    accuracy,
    auprc,
    auroc,
    brier,
    calibration_error,
    group_bootstrap,
    intervals,
    measure,
    resamples,
    tpr_at_fpr,
)

RANKED = (auroc, auprc, tpr_at_fpr)
TRUSTED = (accuracy, brier, calibration_error)


def scored(n: int = 120, decimals: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.3
    return torch.from_numpy(np.round(rng.normal(size=(4, n)) + y, decimals)), torch.from_numpy(y)


def weighted(n: int = 120) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 4, size=(6, n)).astype(float))


def ece_by_hand(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> float:
    total = 0.0
    for k in range(10):
        rows = (p > k / 10) & (p <= (k + 1) / 10) | ((k == 0) & (p == 0))
        if weights[rows].sum() > 0:
            gap = np.average(p[rows], weights=weights[rows]) - np.average(y[rows], weights=weights[rows])
            total += weights[rows].sum() / weights.sum() * abs(gap)
    return total


def tpr_by_scikit_learn(y: np.ndarray, scores: np.ndarray, weights: np.ndarray, fpr: float) -> float:
    alarms, caught, _ = roc_curve(y, scores, sample_weight=weights, drop_intermediate=False)
    return caught[alarms <= fpr + 1e-12].max()


ORACLES = {
    "auroc": lambda y, s, p, w: roc_auc_score(y, s, sample_weight=w),
    "auprc": lambda y, s, p, w: average_precision_score(y, s, sample_weight=w),
    "tpr_at_1fpr": lambda y, s, p, w: tpr_by_scikit_learn(y, s, w, 0.01),
    "tpr_at_5fpr": lambda y, s, p, w: tpr_by_scikit_learn(y, s, w, 0.05),
    "accuracy": lambda y, s, p, w: accuracy_score(y, p > 0.5, sample_weight=w),
    "brier": lambda y, s, p, w: brier_score_loss(y, p, sample_weight=w),
    "ece": lambda y, s, p, w: ece_by_hand(y, p, w),
}
OURS = {
    "auroc": lambda y, s, p, w: auroc(s, y, w),
    "auprc": lambda y, s, p, w: auprc(s, y, w),
    "tpr_at_1fpr": lambda y, s, p, w: tpr_at_fpr(s, y, w),
    "tpr_at_5fpr": lambda y, s, p, w: tpr_at_fpr(s, y, w, fpr=0.05),
    "accuracy": lambda y, s, p, w: accuracy(p, y, w),
    "brier": lambda y, s, p, w: brier(p, y, w),
    "ece": lambda y, s, p, w: calibration_error(p, y, w),
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_every_measure_equals_scikit_learn_with_ties_and_weights(name, decimals):
    scores, y = scored(decimals=decimals)
    p, weights = torch.sigmoid(scores), weighted()
    plain, several = OURS[name](y, scores, p, None), OURS[name](y, scores, p, weights)
    assert plain.shape == (4,) and several.shape == (6, 4)
    for i in range(4):
        theirs = [ORACLES[name](y.numpy(), scores[i].numpy(), p[i].numpy(), w) for w in (np.ones(120), *weights.numpy())]
        assert [plain[i].item(), *several[:, i].tolist()] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.1, 0.5])
def test_tpr_at_any_rate_equals_scikit_learn(fpr):
    scores, y = scored()
    for i, ours in enumerate(tpr_at_fpr(scores, y, fpr=fpr)):
        assert ours.item() == pytest.approx(tpr_by_scikit_learn(y.numpy(), scores[i].numpy(), np.ones(120), fpr), abs=1e-12)


def test_the_calibration_error_has_the_bins_of_scikit_learns_curve():
    rng = np.random.default_rng(3)
    p = np.round(rng.random(5000), 2)  # many on an edge
    y = rng.random(5000) < p**2
    share, mean = calibration_curve(y, p, n_bins=10)
    inside = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], p), minlength=10) / 5000
    assert calibration_error(torch.from_numpy(p), torch.from_numpy(y)).item() == pytest.approx(np.abs(share - mean) @ inside, abs=1e-12)


@pytest.mark.parametrize("statistic", [*RANKED, *TRUSTED])
def test_a_weight_is_a_repetition(statistic):
    scores, y = scored()
    told = torch.sigmoid(scores) if statistic in TRUSTED else scores
    times = torch.from_numpy(np.random.default_rng(2).integers(0, 3, size=120))
    repeated = statistic(told.repeat_interleave(times, dim=1), y.repeat_interleave(times))
    torch.testing.assert_close(statistic(told, y, times.double()), repeated)


@pytest.mark.parametrize("statistic", RANKED)
@pytest.mark.parametrize("value", [True, False])
def test_one_class_has_no_value(statistic, value):
    scores, y = scored()
    assert statistic(scores, torch.full((120,), value)).isnan().all()
    weights = torch.stack([torch.ones(120), (y == value).float()])
    assert statistic(scores, y, weights).isnan().tolist() == [[False] * 4, [True] * 4]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30))
def test_rank_measures_see_only_the_order_of_scores(rows):
    scores, y, weights = (torch.tensor(column) for column in zip(*rows, strict=True))
    scores, weights = scores.double(), weights.double()
    for statistic in RANKED:
        found = statistic(scores, y, weights)
        torch.testing.assert_close(statistic(scores.mul(0.1).exp(), y, weights), found, equal_nan=True)
        assert found.isnan() or 0 <= found <= 1
    torch.testing.assert_close(auroc(-scores, y, weights), 1 - auroc(scores, y, weights), equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_the_calibration_error_lies_between_overall_and_single_gaps(rows):
    p, y = (torch.tensor(column) for column in zip(*rows, strict=True))
    p = p.double()
    error = calibration_error(p, y).item()
    assert abs((p.mean() - y.double().mean()).item()) - 1e-12 <= error <= (p - y.double()).abs().mean().item() + 1e-12


def test_the_bootstrap_draws_whole_groups():
    scores, y = scored(decimals=8)
    groups = np.repeat([f"g{i}" for i in range(30)], 4)
    weights = resamples(groups, n=200, seed=5)
    assert (weights.reshape(200, 30, 4).std(-1) == 0).all()
    assert (weights.reshape(200, 30, 4)[..., 0].sum(-1) == 30).all()
    by_hand = [roc_auc_score(y, scores[0], sample_weight=w) for w in weights]
    low, high = group_bootstrap(auroc, scores[0], y, groups, n=200, seed=5)
    assert [low, high] == pytest.approx(np.quantile(by_hand, [0.025, 0.975]).tolist(), abs=1e-9)


def test_all_measures_at_once_equal_a_loop_over_resamples_and_scikit_learn():
    scores, y = scored(decimals=1)
    p, groups = torch.sigmoid(scores - 1), np.repeat([f"g{i}" for i in range(30)], 4)
    told = measure(scores, p, y, groups, resampled=60, seed=5)
    assert tuple(told) == MEASURES
    for i in range(4):
        for name, (value, low, high) in told.items():
            row = (y.numpy(), scores[i].numpy(), p[i].numpy())
            assert value[i].item() == pytest.approx(ORACLES[name](*row, np.ones(120)), abs=1e-12)
            drawn = []
            for times in resamples(groups, n=60, seed=5).numpy().astype(int):
                again = np.repeat(np.arange(120), times)  # rows repeated as often as their group was drawn
                drawn.append(ORACLES[name](*(part[again] for part in row), np.ones(len(again))))
            least, most = np.quantile(drawn, [0.025, 0.975])
            least = max(0.0, 2 * value[i].item() - most) if name == "ece" else least
            assert [low[i].item(), high[i].item()] == pytest.approx([least, most], abs=1e-9)


def test_measures_without_resamples_have_values_and_no_bounds():
    scores, y = scored()
    told = measure(scores, torch.sigmoid(scores), y, np.arange(120).astype(str), resampled=0)
    for value, low, high in told.values():
        assert not value.isnan().any() and low.isnan().all() and high.isnan().all()


def test_resamples_that_miss_a_class_are_left_out():
    scores, y = scored()
    y = torch.arange(120) < 8  # two groups of four hold all positives: both are missing from an eighth of the draws
    groups = np.repeat([f"g{i}" for i in range(30)], 4)
    low, high = group_bootstrap(auroc, scores[0], y, groups, n=100)
    assert 0 <= low <= high <= 1


@pytest.mark.parametrize("kept", [0, 1])
def test_one_group_of_a_class_tells_no_interval(kept):
    scores, y = scored()
    groups = np.where(y.numpy() == bool(kept), "alone", [f"g{i}" for i in range(120)])
    for these in (groups, np.full(120, "all")):
        told = measure(scores, torch.sigmoid(scores), y, these, resampled=50)
        for value, low, high in told.values():
            assert not value.isnan().any() and low.isnan().all() and high.isnan().all()
        assert np.isnan(group_bootstrap(auroc, scores[0], y, these, n=50)).all()


@pytest.mark.parametrize("statistic", [*RANKED, *TRUSTED])
def test_a_score_that_is_nan_leaves_no_number(statistic):
    scores, y = scored()
    scores = torch.sigmoid(scores)
    whole, by_weight = statistic(scores, y), statistic(scores, y, weighted())
    spoilt = scores.clone()
    spoilt[1, 7] = torch.nan
    found, weighed = statistic(spoilt, y), statistic(spoilt, y, weighted())
    assert found[1].isnan() and weighed[:, 1].isnan().all()
    keep = [0, 2, 3]
    assert torch.equal(found[keep], whole[keep]) and torch.equal(weighed[:, keep], by_weight[:, keep])


def test_a_perfect_score_still_has_an_interval():
    y = torch.arange(60) % 2 == 0
    groups = np.array([f"g{i // 6}{bool(flag)}" for i, flag in enumerate(y)])
    exact = 0.025 ** (1 / 10)
    low, high = group_bootstrap(auroc, y.double(), y, groups)
    assert (low, high) == (pytest.approx(exact), 1.0)
    low, high = group_bootstrap(auroc, -y.double(), y, groups)
    assert (low, high) == (0.0, pytest.approx(1 - exact))
    told = measure(y.double()[None], y.double()[None], y, groups)
    for name in ("auroc", "auprc", "tpr_at_1fpr", "tpr_at_5fpr", "accuracy"):
        assert [float(part) for part in told[name]] == pytest.approx([1.0, exact, 1.0])
    for name in ("brier", "ece"):
        assert [float(part) for part in told[name]] == pytest.approx([0.0, 0.0, 1 - exact])


def test_many_scores_at_once_equal_one_by_one_and_in_parts(monkeypatch):
    scores, y = scored()
    p, groups = torch.sigmoid(scores), np.repeat(np.arange(40).astype(str), 3)
    low, high = intervals(auroc, scores, y, resamples(groups, 100, 7), groups)
    told = measure(scores, p, y, groups, resampled=100, seed=7)
    torch.testing.assert_close(told["auroc"][1:], (low, high))
    monkeypatch.setattr(metrics, "CHUNK", 700)
    for i in range(4):
        assert (float(low[i]), float(high[i])) == group_bootstrap(auroc, scores[i], y, groups, n=100, seed=7)
        alone = measure(scores[i : i + 1], p[i : i + 1], y, groups, resampled=100, seed=7)
        for name in MEASURES:
            torch.testing.assert_close(torch.stack(alone[name])[:, 0], torch.stack(told[name])[:, i])


ROUNDS = 200


def plausible(hits: int, rate: float = 0.95, rounds: int = ROUNDS) -> bool:
    """Whether so many hits in so many rounds go with the rate: two-sided binomial, one false alarm in a thousand."""
    return binomtest(hits, rounds, rate).pvalue > 0.001


def clustered(rng: np.random.Generator, area: float, groups: int = 80, per_group: int = 4) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Scores of unit variance, half of it shared in a group, with a known area under the curve."""
    y = np.arange(groups) % 2 == 0
    shift = norm.ppf(area) * np.sqrt(2)
    scores = np.repeat(rng.normal(size=groups) * np.sqrt(0.5) + y * shift, per_group) + rng.normal(size=groups * per_group) * np.sqrt(0.5)
    return torch.from_numpy(scores), torch.from_numpy(np.repeat(y, per_group)), np.repeat(np.arange(groups).astype(str), per_group)


def covered(area: float, whole: bool) -> int:
    rng = np.random.default_rng(11)
    hits = 0
    for seed in range(ROUNDS):
        scores, y, groups = clustered(rng, area)
        low, high = group_bootstrap(auroc, scores, y, groups if whole else np.arange(len(y)), n=300, seed=seed)
        hits += low <= area <= high
    return hits


@pytest.mark.parametrize("area", [0.5, 0.8, 0.95])
def test_the_interval_covers_the_known_area_at_its_rate(area):
    assert plausible(covered(area, whole=True))


def test_drawing_rows_instead_of_groups_would_be_overconfident():
    assert covered(0.8, whole=False) < 0.85 * ROUNDS


def doubted(rng: np.random.Generator, groups: int, per_group: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Probabilities of a logit shared in part by a group, told half as sure again as they should be."""
    logit = np.repeat(rng.normal(size=groups) * 1.2, per_group) + rng.normal(size=groups * per_group) * 0.8
    y = rng.random(groups * per_group) < 1 / (1 + np.exp(-logit))
    return torch.from_numpy(1 / (1 + np.exp(-1.5 * logit))), torch.from_numpy(y), np.repeat(np.arange(groups), per_group)


def test_the_intervals_of_all_measures_cover_the_truth_at_their_rate():
    rng = np.random.default_rng(1)
    p, y, _ = doubted(rng, 400_000, 1)
    truth = {name: float(OURS[name](y, p, p, None)) for name in MEASURES}
    assert truth["ece"] > 0.05
    hits = dict.fromkeys(MEASURES, 0)
    for seed in range(ROUNDS):
        p, y, groups = doubted(rng, 80, 5)
        for name, (_, low, high) in measure(p[None], p[None], y, groups, resampled=200, seed=seed).items():
            hits[name] += float(low) <= truth[name] <= float(high)
    assert all(plausible(count) for count in hits.values()), hits


def test_nothing_warns_on_constant_scores():
    _, y = scored()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = measure(torch.zeros(1, 120), torch.full((1, 120), 0.5), y, np.arange(120), resampled=50)
    assert float(told["auroc"][0]) == 0.5 and float(told["tpr_at_1fpr"][0]) == 0
    assert float(told["auprc"][0]) == pytest.approx(y.double().mean().item())
