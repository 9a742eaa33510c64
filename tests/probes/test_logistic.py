"""The batched solver against scikit-learn's LogisticRegression on standardised features."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from thoughtlens.probes import descent, logistic

CS = (0.001, 0.1, 1.0)
CASES = (
    *("plain", "fewer rows than features", "constant and duplicated columns", "separable", "one in twenty", "far from the origin"),
    "a feature that rules the rest",
)


def oracle(x: np.ndarray, y: np.ndarray, c: float, weights: str | None = None) -> tuple[np.ndarray, float]:
    """Coefficients and intercept of a tightly converged scikit-learn fit, folded back by hand."""
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=1000, class_weight=weights).fit(scaler.transform(x), y)
    weight = model.coef_[0] / scaler.scale_
    return weight, float(model.intercept_[0] - weight @ scaler.mean_)


def objective(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, c: float) -> float:
    scores = x.double() @ weight + bias
    loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, y.double(), reduction="sum")
    return float(loss + (weight * x.double().std(0, correction=0)).square().sum() / 2 / c)


def data(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    n, d = (40, 90) if case == "fewer rows than features" else (200, 20)
    x = torch.randn(2, n, d) @ torch.randn(d, d)
    y = x[0, :, 0] + torch.randn(n) * 2 > 0
    match case:
        case "constant and duplicated columns":
            x[..., 3], x[..., 5], x[..., 7] = 4.2, x[..., 6], -2 * x[..., 6]
        case "separable":
            x[..., 0] += 40 * (y.float() - 0.5)
        case "one in twenty":
            y = torch.arange(n) % 20 == 0
        case "far from the origin":
            x = x * torch.logspace(-3, 3, d) + 300
        case "a feature that rules the rest":
            x = x + 1000 * torch.randn(2, n, 1)
    return x, torch.stack([y, y[torch.randperm(n)]])


@pytest.mark.parametrize("case", CASES)
def test_equals_scikit_learn(case):
    x, y = data(case)
    weight, bias = logistic.fit(x, y, CS, tolerance=1e-12)
    for site in range(2):
        features = x[site].double().numpy()
        for i, c in enumerate(CS):
            for labelling in range(2):
                theirs, intercept = oracle(features, y[labelling].numpy(), c)
                ours = weight[site, i, labelling].numpy()
                spread = features.std(0)
                np.testing.assert_allclose(ours * spread, theirs * spread, atol=2e-5)
                decision, expected = features @ ours + bias[site, i, labelling].item(), features @ theirs + intercept
                np.testing.assert_allclose(decision, expected, atol=2e-4)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, descent.TOLERANCE])
@pytest.mark.parametrize("case", CASES)
def test_tolerance_bounds_how_far_an_objective_is_above_its_minimum(case, tolerance):
    x, y = data(case)
    (weight, bias), (best, offset) = (logistic.fit(x, y, CS, tolerance=t) for t in (tolerance, 1e-12))
    for site in range(2):
        for i, c in enumerate(CS):
            for labelling, truth in enumerate(y):
                at = (site, i, labelling)
                least = objective(x[site], truth, best[at], offset[at], c)
                assert objective(x[site], truth, weight[at], bias[at], c) <= least * (1 + tolerance) + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_tolerance_bounds_the_bias_too(seed):
    torch.manual_seed(seed)
    x = torch.randn(1, 200, 1) ** 3  # the first steps go far, and the bias of one is not that of the next
    y = x[..., 0] + torch.randn(1, 200) > 1.5
    (weight, bias), (best, offset) = (logistic.fit(x, y, [1.0], tolerance=t) for t in (0.1, 1e-12))
    least = objective(x[0], y[0], best[0, 0, 0], offset[0, 0, 0], 1.0)
    assert objective(x[0], y[0], weight[0, 0, 0], bias[0, 0, 0], 1.0) <= least * 1.1


def test_scores_rank_unseen_rows_as_scikit_learn_does():
    torch.manual_seed(1)
    x = torch.randn(1, 900, 48) @ (torch.randn(48, 48) * torch.logspace(0, -1.5, 48))
    y = x[0, :, :6].sum(1) / 2 + torch.randn(900) > 0
    shuffled = y[torch.randperm(900)]
    weight, bias = logistic.fit(x[:, :400], torch.stack([y, shuffled])[:, :400], CS)
    for i, c in enumerate(CS):
        for labelling, labels in enumerate((y, shuffled)):
            theirs, intercept = oracle(x[0, :400].double().numpy(), labels[:400].numpy(), c)
            scores = x[0, 400:].double() @ weight[0, i, labelling] + bias[0, i, labelling]
            expected = x[0, 400:].double().numpy() @ theirs + intercept
            assert abs(roc_auc_score(y[400:], scores) - roc_auc_score(y[400:], expected)) <= 5e-4


@pytest.mark.parametrize("balanced", [False, True])
def test_rows_are_as_if_the_others_were_not_there(balanced):
    x, y = data("far from the origin")
    x[..., 4] = torch.where(torch.arange(200) >= 80, 7.1, x[..., 4])  # constant within the first two fits, not within the third
    rows = torch.stack([torch.arange(200) >= 80, torch.arange(200) >= 140, torch.arange(200) % 3 > 0])
    labels = y[[0, 1, 0]]
    x[:, ~rows.any(0)] = torch.nan
    weight, bias = logistic.fit(x, labels, CS, rows=rows, balanced=balanced, tolerance=1e-12)
    for f, mask in enumerate(rows):
        alone, offset = logistic.fit(x[:, mask], labels[f : f + 1, mask], CS, balanced=balanced, tolerance=1e-12)
        spread = x[:, mask].double().std(1)[:, None]
        torch.testing.assert_close(weight[:, :, f] * spread, alone[:, :, 0] * spread, rtol=1e-4, atol=2e-5)
        expected = torch.einsum("snd,scd->scn", x[:, mask].double(), alone[:, :, 0]) + offset
        torch.testing.assert_close(
            torch.einsum("snd,scd->scn", x[:, mask].double(), weight[:, :, f]) + bias[:, :, f, None], expected, rtol=1e-4, atol=2e-4
        )
    assert (weight[:, :, :2, 4] == 0).all() and (weight[:, :, 2, 4] != 0).all()


def test_a_feature_constant_up_to_rounding_has_no_weight():
    torch.manual_seed(2)
    x, y = torch.randn(1, 97, 4).double(), torch.rand(97) < 0.5
    x[0, 10:, 1] = 7.1
    x[..., 2] = 1e8 + 1e-8 * x[..., 2]
    rows = (torch.rand(20, 97) < 0.7) & (torch.arange(97) >= 10)
    weight, _ = logistic.fit(x, y.expand(20, -1), CS, rows=rows)
    assert (weight[..., 1:3] == 0).all() and (weight[..., [0, 3]] != 0).all()


@pytest.mark.parametrize("case", ["one row", "a quarter of the rows, shifted", "other rows, in other units"])
def test_rows_that_a_fit_must_not_see_may_be_extreme(case, caplog):
    x, y = data("plain")
    unseen = torch.arange(200) < (1 if case == "one row" else 50)
    match case:
        case "one row":
            x[:, 0, 5], x[:, 0, 6] = 1e6, -3e7
        case "a quarter of the rows, shifted":
            x[:, unseen, :3] += 1e6
        case "other rows, in other units":
            x[:, unseen] *= 1e5
    rows = torch.stack([~unseen, torch.ones_like(unseen), ~unseen & (torch.arange(200) % 5 > 0)])
    labels = y[[0, 0, 1]]
    with caplog.at_level(logging.WARNING):
        weight, bias = logistic.fit(x, labels, CS, rows=rows)
    assert not caplog.records
    for f, mask in enumerate(rows):
        for i, c in enumerate(CS):
            seen = x[0, mask].double()
            theirs, intercept = oracle(seen.numpy(), labels[f, mask].numpy(), c)
            least = objective(seen, labels[f, mask], torch.from_numpy(theirs), torch.tensor(intercept), c)
            assert objective(seen, labels[f, mask], weight[0, i, f], bias[0, i, f], c) <= least * (1 + 1e-6)


@pytest.mark.parametrize("extreme", [1e3, 1e6, 1e9])
def test_spread_is_scikit_learns_whatever_the_first_row_is(extreme):
    torch.manual_seed(4)
    x = torch.randn(5000, 4).double() * torch.tensor([0.1, 1e-3, 1.0, 1.0]) + torch.tensor([0.0, 5.0, -300.0, 0.0])
    x[0], x[1:, 3] = extreme, 7.1
    masks = torch.stack([torch.arange(5000) > 0, torch.arange(5000) > 2500, torch.ones(5000, dtype=torch.bool)])
    mean, spread = descent._moments(x, masks)
    for mask, centre, scale in zip(masks, mean, spread, strict=True):
        scaler = StandardScaler().fit(x[mask])
        np.testing.assert_allclose(centre, scaler.mean_, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(torch.where(scale > 0, scale, 1.0), scaler.scale_, rtol=1e-7)
    assert (spread[:2, 3] == 0).all() and (spread[:2, :3] > 0).all()


def test_one_enormous_row_elsewhere_does_not_keep_a_fit_from_converging(caplog):
    x, y = data("plain")
    x[:, 0, :5] = 1e6
    with caplog.at_level(logging.WARNING):
        logistic.fit(x, y, CS, rows=(torch.arange(200) > 0).expand(2, -1) & (torch.arange(200) % 5 > torch.tensor([[0], [1]])))
        logistic.fit(x, y[[0, 0]], CS, rows=torch.stack([torch.arange(200) > 0, torch.arange(200) < 150]))
    assert not caplog.records


def test_balanced_is_class_weight_balanced():
    x, y = data("one in twenty")
    rows = torch.stack([torch.arange(200) < 150, torch.arange(200) >= 70])
    weight, bias = logistic.fit(x, y, CS, rows=rows, balanced=True, tolerance=1e-12)
    for f, mask in enumerate(rows):
        features = x[0, mask].double().numpy()
        for i, c in enumerate(CS):
            theirs, intercept = oracle(features, y[f, mask].numpy(), c, "balanced")
            np.testing.assert_allclose(
                features @ weight[0, i, f].numpy() + bias[0, i, f].item(), features @ theirs + intercept, rtol=1e-4, atol=2e-4
            )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(6, 40), d=st.integers(1, 30), rank=st.integers(1, 30), spoilt=st.booleans())
def test_any_rank_ends_where_the_gradient_is_zero(seed, n, d, rank, spoilt):
    torch.manual_seed(seed)
    x = (torch.randn(1, n, rank) @ torch.randn(rank, d)).double()
    if spoilt:
        x[..., 0], x[..., -1] = 3.5, x[..., d // 2]
    y = torch.rand(3, n) < 0.5
    y[:, 0], y[:, 1] = True, False
    weight, bias = logistic.fit(x, y, (0.01, 1.0), tolerance=1e-12)
    spread, mean = x[0].std(0, correction=0), x[0].mean(0)
    varies = spread > 1e-9
    residual = torch.sigmoid(torch.einsum("nd,cfd->cfn", x[0], weight[0]) + bias[0][..., None]) - y.double()
    z = torch.where(varies, (x[0] - mean) / spread, 0.0)
    gradient = residual @ z + torch.where(varies, weight[0] * spread, 0.0) / torch.tensor([0.01, 1.0]).double()[:, None, None]
    assert gradient.abs().max() < 1e-3 and residual.sum(-1).abs().max() < 1e-3
    assert (weight[..., ~varies] == 0).all()


@settings(max_examples=8, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_rows_and_of_fits_changes_nothing(random):
    x, y = data("plain")
    y, rows = torch.cat([y, ~y]), torch.rand(4, 200, generator=torch.Generator().manual_seed(1)) < 0.8
    by_row, by_fit = random.sample(range(200), 200), random.sample(range(4), 4)
    weight, bias = logistic.fit(x, y, CS, rows=rows, tolerance=1e-10)
    again, offset = logistic.fit(x[:, by_row], y[by_fit][:, by_row], CS, rows=rows[by_fit][:, by_row], tolerance=1e-10)
    torch.testing.assert_close(again, weight[:, :, by_fit], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(offset, bias[:, :, by_fit], rtol=1e-4, atol=1e-5)


def test_one_fit_does_not_depend_on_its_company():
    x, y = data("plain")
    together, _ = logistic.fit(x, y, CS, tolerance=1e-12)
    alone, _ = logistic.fit(x[1:], y[1:], CS[1:2], tolerance=1e-12)
    torch.testing.assert_close(together[1, 1, 1], alone[0, 0, 0], rtol=1e-5, atol=1e-6)


def test_fits_that_do_not_go_side_by_side_are_the_same(monkeypatch):
    x, y = data("plain")
    together = logistic.fit(x, y, CS, tolerance=1e-12)
    monkeypatch.setattr(descent, "SCORES", 400)  # two fits at a time
    monkeypatch.setattr(descent, "ROWS", 64)
    for ours, theirs in zip(logistic.fit(x, y, CS, tolerance=1e-12), together, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_features_without_variance_leave_the_base_rate():
    y = torch.arange(50)[None] % 5 == 0
    weight, bias = logistic.fit(torch.full((1, 50, 6), 7.25), y, CS)
    assert torch.equal(weight, torch.zeros_like(weight))
    torch.testing.assert_close(bias, torch.full_like(bias, float(np.log(0.25))))


def test_a_fit_of_one_class_is_named():
    x, y = data("plain")
    rows = torch.ones_like(y)
    rows[1] = y[1]
    with pytest.raises(ValueError, match="fit 1 of 2 has .* and 0 negative rows"):
        logistic.fit(x, y, CS, rows=rows)


def test_fits_that_did_not_converge_are_counted(caplog, monkeypatch):
    monkeypatch.setattr(descent, "ITERATIONS", {torch.float32: 1, torch.float64: 1})
    x, y = data("separable")
    with caplog.at_level(logging.WARNING):
        logistic.fit(x, y, CS)
    assert "of 12 fits did not converge" in caplog.text
