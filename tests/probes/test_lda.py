"""Shrunken discriminants against scikit-learn's LinearDiscriminantAnalysis on standardised features."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from labelled import CASES, agree, data
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thoughtlens.probes import closed, lda
from thoughtlens.probes.closed import Spread
from thoughtlens.probes.moments import Moments

torch.set_num_threads(1)
SHRINKAGES = (0.01, 0.3, 1.0)


def theirs(x: torch.Tensor, y: torch.Tensor, shrinkage: float, rows: torch.Tensor, read: torch.Tensor) -> np.ndarray:
    """Decision values on `read` of a fit on `rows`."""
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage))
    return model.fit(x[rows].double().numpy(), y[rows].numpy()).decision_function(read.double().numpy())


@pytest.mark.parametrize("case", CASES)
def test_equals_scikit_learn(case: str) -> None:
    x, y = data(case)
    weight, bias = lda.fit(x, y, SHRINKAGES)
    assert weight.shape == (2, 3, 2, x.shape[-1]) and bias.shape == (2, 3, 2) and weight.dtype == torch.float64
    held_out = x.flip(0) + torch.randn_like(x) * x.std((0, 1))
    for site in range(2):
        for i, shrinkage in enumerate(SHRINKAGES):
            for fit in range(2):
                read = torch.cat([x[site], held_out[site]]) if case != "collinear" else x[site]
                expected = theirs(x[site], y[fit], shrinkage, torch.ones_like(y[0]), read)
                agree(weight[site, i, fit], bias[site, i, fit], read, expected)


@pytest.mark.parametrize("case", ["plain", "fewer rows than features", "constant and duplicated columns", "far from the origin"])
def test_a_fit_with_rows_is_the_fit_of_these_rows(case: str) -> None:
    x, y = data(case)
    fold = torch.arange(y.shape[1]) % 3
    rows = torch.stack([*(fold != i for i in range(3)), fold < 3, torch.rand(y.shape[1]) < 0.5]).repeat(2, 1)
    labels = y.repeat_interleave(5, 0)
    weight, bias = lda.fit(x, labels, SHRINKAGES, rows=rows)
    for fit in range(10):
        for i, shrinkage in enumerate(SHRINKAGES):
            agree(weight[1, i, fit], bias[1, i, fit], x[1], theirs(x[1], labels[fit], shrinkage, rows[fit], x[1]))


@pytest.mark.parametrize("case", CASES)
def test_moments_merged_from_chunks_give_the_same(case: str) -> None:
    x, y = data(case)
    moments = Moments.total(Moments.of(x[:, at], y[:, at]) for at in torch.randperm(y.shape[1]).split(17))
    for one, two in zip(lda.solve(moments, SHRINKAGES), lda.fit(x, y, SHRINKAGES), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6 * float(two.abs().max()))


def test_one_factorisation_serves_all_labellings_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data("plain")
    many = torch.stack([y[0, torch.randperm(200)] for _ in range(25)])
    fold = torch.arange(200) % 5
    rows = torch.stack([fold != i for i in range(5)]).repeat_interleave(5, 0)
    calls, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (calls.append(matrix.shape), eigh(matrix))[1])
    lda.fit(x, many, (0.01, 0.1, 0.3, 0.7), rows=rows)
    assert calls == [(20, 20)] * 2 * 5


@pytest.mark.parametrize("case", ["plain", "constant and duplicated columns", "far from the origin", "apart"])
def test_a_labelling_alone_has_the_weights_it_has_among_many(case: str) -> None:
    x, y = data(case)
    many = torch.stack([y[0], *(y[0, torch.randperm(200)] for _ in range(9))])
    for alone, among in zip(lda.fit(x, many[:1], SHRINKAGES), lda.fit(x, many, SHRINKAGES), strict=True):
        torch.testing.assert_close(alone[:, :, 0], among[:, :, 0], rtol=1e-8, atol=1e-8 * float(among.abs().max()))


def test_scatters_are_held_for_one_mask_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(1, 600, 101), torch.rand(1, 600) < 0.5
    third = torch.arange(600) % 3
    rows = torch.stack([torch.isin(third, torch.tensor(some)) for some in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2])])
    held: list[float] = []

    def count(spread: Spread, settings: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
        found = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in gc.get_objects() if type(one) is torch.Tensor}
        held.append(sum(size for size in found.values() if size % (8 * 101 * 101) == 0) / (8 * 101 * 101))
        return lda.readout(spread, settings)

    closed.fit(count, x, y.expand(7, -1), SHRINKAGES, rows=rows)
    assert len(held) == 7 and max(held) == 3 + 1


@pytest.mark.parametrize("d", [6, 70])
def test_features_that_tell_nothing_leave_the_prior(d: int) -> None:
    y = torch.arange(50)[None] % 5 == 0
    weight, bias = lda.fit(torch.full((1, 50, d), 7.25), y, SHRINKAGES)
    assert torch.equal(weight, torch.zeros_like(weight))
    torch.testing.assert_close(bias, torch.full_like(bias, float(np.log(0.25))))


def test_features_that_are_the_label_give_a_finite_answer() -> None:
    y = torch.arange(50)[None] % 5 == 0
    weight, bias = lda.fit(y.T.double().expand(-1, 6)[None], y, SHRINKAGES)
    assert bool(weight.isfinite().all() and bias.isfinite().all())


@pytest.mark.parametrize("shrinkage", [0.0, -0.1, 1.5, float("nan")])
def test_a_shrinkage_out_of_range_is_refused(shrinkage: float) -> None:
    x, y = data("plain")
    with pytest.raises(ValueError, match=r"lies in \(0, 1\], not .*'whitened'"):
        lda.fit(x, y, (shrinkage,))


def test_one_class_only_names_the_fit() -> None:
    x, y = data("plain")
    with pytest.raises(ValueError, match="fit 1 of 2 has 0 positive and 200 negative rows, and both classes are needed"):
        lda.fit(x, torch.stack([y[0], torch.zeros_like(y[0])]), SHRINKAGES)
    with pytest.raises(ValueError, match="fit 0 of 2 has .* 0 negative rows"):
        lda.fit(x, y, SHRINKAGES, rows=y)
    with pytest.raises(ValueError, match="fit 0 of 1 has 200 positive and 0 negative"):
        lda.solve(Moments.of(x, torch.ones_like(y[:1])), SHRINKAGES)
