"""Mean difference against numpy, and its bias at the midpoint."""

from __future__ import annotations

import numpy as np
import torch
from thoughtlens.probes.mean_difference import fit, mean_difference


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
