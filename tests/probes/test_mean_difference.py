"""Mean difference against numpy, whitened against scipy's pseudo-inverse, and their biases at the midpoint."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import data
from thoughtlens.probes.mean_difference import fit, mean_difference, solve, solve_whitened, whitened
from thoughtlens.probes.moments import Moments

NONE = (float("nan"),)


def test_equals_numpy_for_every_labelling():
    torch.manual_seed(0)
    x, y = torch.randn(3, 40, 7), torch.rand(4, 40) < 0.4
    weight, bias = fit(x, y, (float("nan"),))
    assert weight.shape == (3, 1, 4, 7) and bias.shape == (3, 1, 4)
    for site in range(3):
        for labelling in range(4):
            above = x[site, y[labelling]].double().numpy().mean(0)
            below = x[site, ~y[labelling]].double().numpy().mean(0)
            np.testing.assert_allclose(weight[site, 0, labelling], above - below, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(mean_difference(x, y[labelling])[site], above - below, rtol=1e-12, atol=1e-14)


def test_the_readout_of_the_two_means_is_equally_far_from_zero():
    torch.manual_seed(1)
    x, y = torch.randn(1, 60, 5) + 4, torch.rand(1, 60) < 0.3
    weight, bias = fit(x, y, (float("nan"),))
    above, below = x[0, y[0]].double().mean(0), x[0, ~y[0]].double().mean(0)
    high, low = (weight[0, 0, 0] @ above + bias[0, 0, 0]).item(), (weight[0, 0, 0] @ below + bias[0, 0, 0]).item()
    assert high > 0 and abs(high + low) < 1e-12


def test_accumulates_in_float64_whatever_comes_in():
    x = torch.full((1, 4096, 1), 300.0, dtype=torch.bfloat16)
    y = torch.arange(4096) % 2 == 0
    x[:, y] = 302.0
    assert mean_difference(x, y).item() == 2.0


def test_a_fit_with_rows_is_the_fit_of_these_rows():
    x, y = data("plain")
    rows = torch.stack([torch.arange(200) < 60, torch.arange(200) % 3 > 0])
    weight, bias = fit(x, y, NONE, rows=rows)
    for i, here in enumerate(rows):
        alone, level = fit(x[:, here], y[i : i + 1, here], NONE)
        torch.testing.assert_close(weight[:, :, i], alone[:, :, 0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(bias[:, :, i], level[:, :, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "case", ["plain", "fewer rows than features", "constant and duplicated columns", "collinear", "one in twenty", "apart"]
)
def test_whitened_is_the_pseudo_inverse_of_the_pooled_covariance_times_the_difference(case):
    x, y = data(case)
    fold = torch.arange(y.shape[1]) % 3
    rows = torch.stack([fold != 0, fold != 1, fold != 2, fold < 3]).repeat(2, 1)
    labels = y.repeat_interleave(4, 0)
    weight, bias = whitened(x, labels, NONE, rows=rows)
    assert weight.shape == (2, 1, 8, x.shape[-1]) and bias.shape == (2, 1, 8)
    for site in range(2):
        for i in range(8):
            h, here = x[site, rows[i]].double().numpy(), labels[i, rows[i]].numpy()
            above, below = h[here].mean(0), h[~here].mean(0)
            apart = h - np.where(here[:, None], above, below)
            expected = scipy.linalg.pinvh(apart.T @ apart / len(h), rtol=1e-11) @ (above - below)
            ours = weight[site, 0, i].numpy()
            assert np.abs(ours - expected).max() < 1e-6 * np.abs(expected).max()
            assert abs(ours @ (above + below) / 2 + bias[site, 0, i].item()) < 1e-9 * np.abs(ours @ above)


@settings(max_examples=40, deadline=None)
@given(exponents=st.lists(st.integers(-26, 26), min_size=20, max_size=20), constant=st.booleans())
def test_whitened_in_other_units_is_the_same_readout(exponents, constant):
    x, y = data("plain")
    x = x.double()
    x[..., 3] = torch.where(torch.tensor(constant), 4.25, x[..., 3])
    units = 2.0 ** torch.tensor(exponents, dtype=torch.float64)
    (weight, bias), (other, level) = whitened(x, y, NONE), whitened(x * units, y, NONE)
    torch.testing.assert_close(other * units, weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(level, bias, rtol=1e-12, atol=1e-12)


def test_whitened_with_features_eight_orders_of_magnitude_apart_equals_scipy():
    rng = np.random.default_rng(0)
    y, units = rng.random(2000) < 0.5, 10.0 ** np.linspace(-4, 4, 24)
    z = rng.normal(size=(2000, 24)) @ rng.normal(size=(24, 24)) + y[:, None] * 0.2
    weight, _ = whitened(torch.tensor(z * units)[None], torch.tensor(y)[None], NONE)
    above, below = z[y].mean(0), z[~y].mean(0)
    apart = z - np.where(y[:, None], above, below)
    np.testing.assert_allclose(weight[0, 0, 0].numpy() * units, scipy.linalg.solve(apart.T @ apart / 2000, above - below), rtol=1e-8)


def test_a_labelling_that_a_feature_gives_away_does_not_change_the_others():
    x, y = data("plain")
    x = x.double()
    x[..., 4] = y[0] * 3.0
    weight, _ = whitened(x, y, NONE)
    for labelling in range(2):
        h, here = x[0].numpy(), y[labelling].numpy()
        above, below = h[here].mean(0), h[~here].mean(0)
        apart = h - np.where(here[:, None], above, below)
        expected = scipy.linalg.pinvh(apart.T @ apart / len(h), rtol=1e-11) @ (above - below)
        np.testing.assert_allclose(weight[0, 0, labelling], expected, rtol=1e-6, atol=1e-9)
    x = x * torch.logspace(-4, 4, 20, dtype=torch.float64)
    torch.testing.assert_close(whitened(x, y, NONE)[0][:, :, 1], whitened(x, y[1:], NONE)[0][:, :, 0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", ["plain", "fewer rows than features", "collinear"])
def test_moments_merged_from_chunks_give_the_same(case):
    x, y = data(case)
    moments = Moments.total(Moments.of(x[:, at], y[:, at]) for at in torch.randperm(y.shape[1]).split(17))
    for from_moments, from_rows in ((solve, fit), (solve_whitened, whitened)):
        for one, two in zip(from_moments(moments, NONE), from_rows(x, y, NONE), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6 * float(two.abs().max()))


@pytest.mark.parametrize("kind", [fit, whitened])
def test_one_class_only_names_the_fit(kind):
    x, y = data("plain")
    with pytest.raises(ValueError, match="fit 1 of 2 has 200 positive and 0 negative rows, and both classes are needed"):
        kind(x, torch.stack([y[0], torch.ones_like(y[0])]), NONE)
    with pytest.raises(ValueError, match="fit 0 of 2 has .* 0 negative rows"):
        kind(x, y, NONE, rows=y)
