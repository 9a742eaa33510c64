"""The batched solver against scikit-learn's LogisticRegression on standardised features."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from thoughtlens.probes import logistic

CS = (0.001, 0.1, 1.0)


def oracle(x: np.ndarray, y: np.ndarray, c: float) -> tuple[np.ndarray, float]:
    """Coefficients and intercept of a tightly converged scikit-learn fit, folded back by hand."""
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(scaler.transform(x), y)
    weight = model.coef_[0] / scaler.scale_
    return weight, float(model.intercept_[0] - weight @ scaler.mean_)


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
    return x, torch.stack([y, y[torch.randperm(n)]])


@pytest.mark.parametrize(
    "case", ["plain", "fewer rows than features", "constant and duplicated columns", "separable", "one in twenty", "far from the origin"]
)
def test_equals_scikit_learn(case):
    x, y = data(case)
    weight, bias = logistic.fit(x, y, CS)
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


def test_every_fit_ends_at_a_zero_gradient(caplog):
    torch.manual_seed(0)
    x = torch.randn(2, 150, 64) @ (torch.randn(64, 64) * torch.logspace(0, -3, 64))
    y = torch.cat([(x[0, :, :1] > 0).T, torch.rand(12, 150) < 0.5])
    cs = (1e-4, 1e-2, 1.0, 100.0)
    with caplog.at_level(logging.WARNING):
        weight, bias = logistic.fit(x, y, cs)
    assert not caplog.records
    for site in range(2):
        h = x[site].double()
        z = (h - h.mean(0)) / h.std(0, correction=0)
        residual = torch.sigmoid(torch.einsum("nd,cfd->cfn", h, weight[site]) + bias[site][..., None]) - y.double()
        penalty = torch.tensor(cs, dtype=torch.float64)[:, None, None]
        gradient = residual @ z + weight[site] * h.std(0, correction=0) / penalty
        assert gradient.abs().max() < 1e-8 * 150 * 64 and residual.sum(-1).abs().max() < 1e-8 * 150 * 64


def test_one_fit_does_not_depend_on_its_company():
    x, y = data("plain")
    together, _ = logistic.fit(x, y, CS)
    alone, _ = logistic.fit(x[1:], y[1:], CS[1:2])
    torch.testing.assert_close(together[1, 1, 1], alone[0, 0, 0], rtol=1e-6, atol=1e-7)


def test_features_without_variance_leave_the_base_rate():
    y = torch.arange(50)[None] % 5 == 0
    weight, bias = logistic.fit(torch.full((1, 50, 6), 7.25), y, CS)
    assert torch.equal(weight, torch.zeros_like(weight))
    torch.testing.assert_close(bias, torch.full_like(bias, float(np.log(0.25))))


def test_a_fit_that_did_not_converge_is_reported(caplog, monkeypatch):
    monkeypatch.setattr(logistic, "ROUNDS", (2,))
    x, y = data("separable")
    with caplog.at_level(logging.WARNING):
        logistic.fit(x, y, CS)
    assert "did not converge" in caplog.text
