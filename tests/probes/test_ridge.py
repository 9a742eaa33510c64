"""Ridge against scikit-learn's RidgeClassifier and Ridge on standardised features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from labelled import CASES, agree, data
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thoughtlens.probes import ridge
from thoughtlens.probes.moments import Moments

torch.set_num_threads(1)
ALPHAS = (0.1, 10.0, 1000.0)


def theirs(x: torch.Tensor, y: torch.Tensor, alpha: float, rows: torch.Tensor, balanced: bool) -> np.ndarray:
    """Decision values on all of x of a fit on `rows`."""
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=alpha, solver="svd", class_weight="balanced" if balanced else None))
    return model.fit(x[rows].double().numpy(), y[rows].numpy()).decision_function(x.double().numpy())


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_equals_scikit_learn(case: str, balanced: bool) -> None:
    x, y = data(case)
    fold = torch.arange(y.shape[1]) % 4
    rows = torch.stack([*(fold != i for i in range(4)), fold < 4, torch.rand(y.shape[1]) < 0.5]).repeat(2, 1)
    labels = y.repeat_interleave(6, 0)
    weight, bias = ridge.fit(x, labels, ALPHAS, rows=rows, balanced=balanced)
    assert weight.shape == (2, 3, 12, x.shape[-1]) and bias.shape == (2, 3, 12) and weight.dtype == torch.float64
    for site in range(2):
        for i, alpha in enumerate(ALPHAS):
            for fit in range(12):
                agree(weight[site, i, fit], bias[site, i, fit], x[site], theirs(x[site], labels[fit], alpha, rows[fit], balanced))


def test_balanced_fits_of_the_same_labels_do_not_share_a_scatter_of_unweighted_rows() -> None:
    x, y = data("one in twenty")
    weight, bias = ridge.fit(x, y[[0, 0, 0]], ALPHAS, balanced=True)
    for fit in range(3):
        agree(weight[0, 1, fit], bias[0, 1, fit], x[0], theirs(x[0], y[0], 10.0, torch.ones_like(y[0]), True))


def test_is_least_squares_on_plus_and_minus_one() -> None:
    x, y = data("plain")
    weight, bias = ridge.fit(x, y, ALPHAS)
    model = make_pipeline(StandardScaler(), Ridge(alpha=10.0, solver="svd")).fit(x[0].double().numpy(), np.where(y[0], 1.0, -1.0))
    agree(weight[0, 1, 0], bias[0, 1, 0], x[0], model.predict(x[0].double().numpy()))


@pytest.mark.parametrize("case", ["plain", "fewer rows than features", "collinear"])
def test_without_a_penalty_it_is_the_least_squares_of_smallest_norm(case: str) -> None:
    x, y = data(case)
    weight, bias = ridge.fit(x, y, (0.0,))
    z = StandardScaler().fit(x[0].double().numpy())
    solution = np.linalg.lstsq(
        z.transform(x[0].double().numpy()), np.where(y[0], 1.0, -1.0) - np.where(y[0], 1.0, -1.0).mean(), rcond=1e-6
    )[0]
    np.testing.assert_allclose(weight[0, 0, 0].numpy() * z.scale_, solution, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_moments_merged_from_chunks_give_the_same(case: str) -> None:
    x, y = data(case)
    moments = Moments.total(Moments.of(x[:, at], y[:, at]) for at in torch.randperm(y.shape[1]).split(17))
    for one, two in zip(ridge.solve(moments, ALPHAS), ridge.fit(x, y, ALPHAS), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6 * float(two.abs().max()))


@pytest.mark.parametrize("d", [6, 70])
def test_features_that_tell_nothing_leave_the_base_rate(d: int) -> None:
    y = torch.arange(50)[None] % 5 == 0
    weight, bias = ridge.fit(torch.full((1, 50, d), 7.25), y, (0.0, 1.0))
    assert torch.equal(weight, torch.zeros_like(weight))
    torch.testing.assert_close(bias, torch.full_like(bias, -0.6))


def test_one_factor_serves_all_labellings(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data("plain")
    many = torch.stack([y[0, torch.randperm(200)] for _ in range(25)])
    calls, cholesky = [], torch.linalg.cholesky
    monkeypatch.setattr(torch.linalg, "cholesky", lambda matrix: (calls.append(matrix.shape), cholesky(matrix))[1])
    ridge.fit(x, many, ALPHAS)
    assert calls == [(20, 20)] * 2 * 3


def test_what_cannot_be_fitted_is_refused() -> None:
    x, y = data("plain")
    with pytest.raises(ValueError, match="at least 0, not -1"):
        ridge.fit(x, y, (-1.0,))
    with pytest.raises(ValueError, match="fit 1 of 2 has 200 positive and 0 negative rows"):
        ridge.fit(x, torch.stack([y[0], torch.ones_like(y[0])]), ALPHAS, balanced=True)
