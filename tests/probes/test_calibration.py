"""Platt's probabilities, against scikit-learn and a tight scipy fit, and on data whose probabilities are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.calibration import _SigmoidCalibration
from thoughtlens.probes.calibration import calibrated, platt, probability
from thoughtlens.probes.metrics import calibration_error

CASES = {
    "overlapping": lambda rng, y: rng.normal(size=len(y)) + y,
    "apart": lambda rng, y: rng.normal(size=len(y)) + 20 * y,
    "upside down": lambda rng, y: rng.normal(size=len(y)) - 2 * y,
    "tied": lambda rng, y: np.round(rng.normal(size=len(y)) + y),
    "off centre": lambda rng, y: 5 + 0.1 * (rng.normal(size=len(y)) + y),
    "one far out": lambda rng, y: np.concatenate([[-25.0], (rng.normal(size=len(y)) + y)[1:]]),
}


def drawn(case: str, n: int = 80, share: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    y = rng.random(n) < share
    return torch.from_numpy(CASES[case](rng, y)), torch.from_numpy(y)


def loss(slope: float, offset: float, scores: np.ndarray, y: np.ndarray) -> float:
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    margin = slope * scores + offset
    return float((np.logaddexp(0, margin) - target * margin).sum())


@pytest.mark.parametrize("case", CASES)
def test_equals_scikit_learn(case):
    scores, y = drawn(case)
    slope, offset = platt(scores[None], y)
    theirs = _SigmoidCalibration().fit(scores.numpy(), y.numpy())
    ours = probability(scores[None], slope, offset)[0].numpy()
    assert np.abs(ours - theirs.predict(scores.numpy())).max() < 2e-4
    assert loss(float(slope), float(offset), scores.numpy(), y.numpy()) <= loss(-theirs.a_, -theirs.b_, scores.numpy(), y.numpy()) + 1e-9


@pytest.mark.parametrize("case", CASES)
def test_is_the_minimum(case):
    scores, y = drawn(case, seed=1)
    slope, offset = (float(part) for part in platt(scores[None], y))
    start, tight = np.array([slope, offset]), {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000}
    found = minimize(lambda v: loss(*v, scores.numpy(), y.numpy()), start * 1.1 + 0.1, method="Nelder-Mead", options=tight)
    assert found.x == pytest.approx(start, rel=1e-4, abs=1e-4) and loss(slope, offset, scores.numpy(), y.numpy()) <= found.fun + 1e-10


@pytest.mark.parametrize("share", [0.02, 0.1, 0.9])
@pytest.mark.parametrize("noise", [1e-3, 1.0])
def test_whole_newton_steps_would_miss_a_rare_class_that_lies_apart(share, noise):
    rng = np.random.default_rng(0)
    y = rng.random(1500) < share
    scores = y + noise * rng.normal(size=1500)
    slope, offset = platt(torch.from_numpy(scores)[None], torch.from_numpy(y))
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    gap = probability(torch.from_numpy(scores)[None], slope, offset)[0].numpy() - target
    assert abs(gap.mean()) < 1e-9 and abs((gap * scores).mean()) < 1e-9  # the gradient of a convex loss


def test_many_scores_at_once_equal_one_by_one():
    y = drawn("tied")[1]
    scores = torch.stack([drawn(case)[0] for case in CASES])
    slope, offset = platt(scores, y)
    for i in range(len(CASES)):
        alone = platt(scores[i : i + 1], y)
        torch.testing.assert_close((slope[i : i + 1], offset[i : i + 1]), alone)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.sampled_from(sorted(CASES)))
def test_the_unit_of_a_score_does_not_matter(unit, zero, case):
    scores, y = drawn(case)
    moved = scores * unit + zero * unit
    plain, other = (probability(s[None], *platt(s[None], y)) for s in (scores, moved))
    torch.testing.assert_close(plain, other, atol=1e-6, rtol=0)


def test_a_constant_score_tells_the_share_of_positives():
    y = drawn("tied")[1]
    for value in (0.0, 0.1, -1e6):
        scores = torch.full((1, len(y)), value, dtype=torch.float64)
        slope, offset = platt(scores, y)
        assert slope.item() == 0
        smoothed = torch.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2)).mean()
        assert probability(scores, slope, offset)[0, 0].item() == pytest.approx(smoothed.item(), abs=1e-6)


def test_one_class_stays_finite():
    scores, _ = drawn("tied")
    for value in (True, False):
        slope, offset = platt(scores[None], torch.full((80,), value))
        assert slope.isfinite() and offset.isfinite()


def test_probabilities_of_new_rows_are_right():
    rng = np.random.default_rng(2)
    logit = rng.normal(size=20_000)
    y = torch.from_numpy(rng.random(20_000) < 1 / (1 + np.exp(-2 * logit + 1)))
    scores = torch.from_numpy(logit * 7 + 3)[None]
    slope, offset = platt(scores[:, :10_000], y[:10_000])
    assert (slope.item(), offset.item()) == (pytest.approx(2 / 7, rel=0.05), pytest.approx(-1 - 6 / 7, rel=0.08))
    after = calibration_error(probability(scores, slope, offset)[0, 10_000:], y[10_000:])
    assert after.item() < 0.02 < calibration_error(torch.sigmoid(scores[0, 10_000:]), y[10_000:]).item()


def test_a_score_that_reads_backwards_gets_the_share_of_positives_and_others_what_platt_gives() -> None:
    torch.manual_seed(0)
    y = torch.arange(60) % 3 == 0
    scores = torch.stack([torch.randn(60) + 2.0 * y, torch.randn(60) - 2.0 * y])
    slope, offset = calibrated(scores, y)
    wanted, shift = platt(scores, y)
    torch.testing.assert_close(torch.stack([slope[0], offset[0]]), torch.stack([wanted[0], shift[0]]))
    assert wanted[1] < 0 and slope[1] == 0
    told = probability(scores, slope, offset)[1]
    assert bool((told == told[0]).all()) and abs(float(told[0]) - 1 / 3) < 0.03
