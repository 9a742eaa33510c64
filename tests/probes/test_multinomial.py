"""The softmax fit against scikit-learn's LogisticRegression with many classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from thoughtlens.probes import logistic, multinomial

CS = (0.001, 0.1, 1.0)


def data(n: int = 180, d: int = 12, k: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    y = torch.arange(n) % k
    x = torch.randn(2, n, d) @ torch.randn(d, d) + 3 * torch.nn.functional.one_hot(y, d) + 50
    return x, y


@pytest.mark.parametrize(("n", "d", "k"), [(180, 12, 4), (40, 90, 3), (300, 20, 10)])
def test_equals_scikit_learn(n, d, k):
    x, y = data(n, d, k)
    x[..., 2], x[..., 5] = 4.2, x[..., 6]
    weight, bias = multinomial.fit(x, y, CS, tolerance=1e-12)
    assert weight.shape == (2, 3, 1, k, d) and bias.shape == (2, 3, 1, k)
    torch.testing.assert_close(bias.sum(-1), torch.zeros_like(bias[..., 0]), rtol=0, atol=1e-3)
    for i, c in enumerate(CS):
        scaler = StandardScaler().fit(x[1].double())
        z = scaler.transform(x[1].double())
        model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(z, y)
        np.testing.assert_allclose(weight[1, i, 0].numpy() * scaler.scale_, model.coef_, atol=2e-5)
        ours = torch.softmax(x[1].double() @ weight[1, i, 0].T + bias[1, i, 0], 1)
        np.testing.assert_allclose(ours, model.predict_proba(z), atol=2e-5)


def test_rows_and_labellings_are_as_if_alone():
    x, y = data()
    rows = torch.stack([torch.arange(180) < 120, torch.arange(180) % 3 > 0])
    labels = torch.stack([y, y[torch.randperm(180)]])
    weight, bias = multinomial.fit(x, labels, CS, rows=rows, tolerance=1e-12)
    for f, mask in enumerate(rows):
        alone, offset = multinomial.fit(x[:, mask], labels[f, mask], CS, tolerance=1e-12)
        torch.testing.assert_close(weight[:, :, f], alone[:, :, 0], rtol=1e-4, atol=2e-5)
        seen = x[:, mask].double()
        ours, theirs = (
            torch.einsum("snd,sckd->scnk", seen, w) + b[:, :, None]
            for w, b in ((weight[:, :, f], bias[:, :, f]), (alone[:, :, 0], offset[:, :, 0]))
        )
        torch.testing.assert_close(ours.softmax(-1), theirs.softmax(-1), rtol=0, atol=2e-5)


def test_two_classes_are_the_logistic_fit_at_half_the_penalty():
    x, y = data(k=2)
    weight, bias = multinomial.fit(x, y, CS, tolerance=1e-12)
    single, offset = logistic.fit(x, y[None] == 1, [c * 2 for c in CS], tolerance=1e-12)
    torch.testing.assert_close(weight[:, :, 0, 1] - weight[:, :, 0, 0], single[:, :, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias[:, :, 0, 1] - bias[:, :, 0, 0], offset[:, :, 0], rtol=1e-4, atol=1e-3)


def test_a_missing_class_is_named():
    x, y = data()
    rows = torch.stack([torch.ones(180, dtype=torch.bool), y != 2])
    with pytest.raises(ValueError, match="fit 1 of 2 has no row of class 2"):
        multinomial.fit(x, y, CS, rows=rows)
