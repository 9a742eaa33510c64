"""AUROC, TPR at a false positive rate and their intervals, against scikit-learn, by hand, and by how often they cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve
from thoughtlens.probes import metrics
from thoughtlens.probes.metrics import auroc, group_bootstrap, intervals, resamples, tpr_at_fpr


def scored(n: int = 120, decimals: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.3
    return torch.from_numpy(np.round(rng.normal(size=(4, n)) + y, decimals)), torch.from_numpy(y)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_auroc_equals_scikit_learn_with_ties_and_weights(decimals):
    scores, y = scored(decimals=decimals)
    weights = torch.from_numpy(np.random.default_rng(1).integers(0, 4, size=(6, 120)).astype(float))
    plain, weighted = auroc(scores, y), auroc(scores, y, weights)
    assert weighted.shape == (6, 4)
    for i in range(4):
        assert plain[i].item() == pytest.approx(roc_auc_score(y, scores[i]), abs=1e-12)
        for w in range(6):
            assert weighted[w, i].item() == pytest.approx(roc_auc_score(y, scores[i], sample_weight=weights[w]), abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.1, 0.5])
def test_tpr_at_fpr_equals_scikit_learn(decimals, fpr):
    scores, y = scored(decimals=decimals)
    for i, ours in enumerate(tpr_at_fpr(scores, y, fpr=fpr)):
        alarms, caught, _ = roc_curve(y, scores[i], drop_intermediate=False)
        assert ours.item() == pytest.approx(caught[alarms <= fpr].max(), abs=1e-12)


@pytest.mark.parametrize("statistic", [auroc, tpr_at_fpr])
def test_a_weight_is_a_repetition(statistic):
    scores, y = scored()
    times = torch.from_numpy(np.random.default_rng(2).integers(0, 3, size=120))
    repeated = statistic(scores.repeat_interleave(times, dim=1), y.repeat_interleave(times))
    torch.testing.assert_close(statistic(scores, y, times.double()), repeated)


@pytest.mark.parametrize("statistic", [auroc, tpr_at_fpr])
def test_one_class_has_no_value(statistic):
    scores, _ = scored()
    assert statistic(scores, torch.ones(120, dtype=torch.bool)).isnan().all()


def test_the_bootstrap_draws_whole_groups():
    scores, y = scored(decimals=8)
    groups = np.repeat([f"g{i}" for i in range(30)], 4)
    weights = resamples(groups, n=200, seed=5)
    assert (weights.reshape(200, 30, 4).std(-1) == 0).all()
    assert (weights.reshape(200, 30, 4)[..., 0].sum(-1) == 30).all()
    by_hand = [roc_auc_score(y, scores[0], sample_weight=w) for w in weights]
    low, high = group_bootstrap(auroc, scores[0], y, groups, n=200, seed=5)
    assert [low, high] == pytest.approx(np.quantile(by_hand, [0.025, 0.975]).tolist(), abs=1e-9)


def clustered(rng: np.random.Generator, area: float, groups: int = 40, per_group: int = 4) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Scores of unit variance, half of it shared in a group, with a known area under the curve."""
    y = np.arange(groups) % 2 == 0
    shift = norm.ppf(area) * np.sqrt(2)
    scores = np.repeat(rng.normal(size=groups) * np.sqrt(0.5) + y * shift, per_group) + rng.normal(size=groups * per_group) * np.sqrt(0.5)
    return torch.from_numpy(scores), torch.from_numpy(np.repeat(y, per_group)), np.repeat(np.arange(groups).astype(str), per_group)


def covered(area: float, whole: bool, rounds: int = 200) -> float:
    rng = np.random.default_rng(11)
    hits = 0
    for seed in range(rounds):
        scores, y, groups = clustered(rng, area)
        low, high = group_bootstrap(auroc, scores, y, groups if whole else np.arange(len(y)), n=300, seed=seed)
        hits += low <= area <= high
    return hits / rounds


@pytest.mark.parametrize("area", [0.5, 0.8, 0.95])
def test_the_interval_covers_the_known_area(area):
    assert 0.89 <= covered(area, whole=True) <= 0.99


def test_drawing_rows_instead_of_groups_would_be_overconfident():
    assert covered(0.8, whole=False) < 0.85


def test_a_perfect_score_still_has_an_interval():
    y = torch.arange(60) % 2 == 0
    groups = np.array([f"g{i // 6}{bool(flag)}" for i, flag in enumerate(y)])
    low, high = group_bootstrap(auroc, y.double(), y, groups)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    low, high = group_bootstrap(auroc, -y.double(), y, groups)
    assert (low, high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))


def test_many_scores_at_once_equal_one_by_one_and_in_parts(monkeypatch):
    scores, y = scored()
    groups = np.repeat(np.arange(40).astype(str), 3)
    low, high = intervals(auroc, scores, y, resamples(groups, 100, 7), groups)
    monkeypatch.setattr(metrics, "CHUNK", 700)
    for i in range(4):
        assert (float(low[i]), float(high[i])) == group_bootstrap(auroc, scores[i], y, groups, n=100, seed=7)
