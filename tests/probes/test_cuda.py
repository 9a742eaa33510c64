"""Probes fitted on a GPU are those fitted on the CPU. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from thoughtlens.probes.kinds import KINDS
from torch.testing import assert_close

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.mark.parametrize("kind", ["logistic", "mean_difference", "whitened", "lda", "ridge"])
def test_weights_are_the_same_to_rounding(kind: str) -> None:
    chance = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 200, 24, generator=chance), torch.rand(2, 200, generator=chance) < 0.5
    x[:, :, 0] += 2 * y[0].float()
    rows = torch.rand(2, 200, generator=chance) < 0.8
    (weight, bias), (mine, offset) = (
        KINDS[kind].fit(x.to(place), y.to(place), KINDS[kind].settings, rows=rows.to(place)) for place in ("cpu", "cuda")
    )
    assert mine.is_cuda
    tolerance = 1e-3 if kind == "logistic" else 1e-6
    scale = float(weight.abs().max())
    assert_close(mine.cpu(), weight, atol=tolerance * scale, rtol=tolerance)
    assert_close(offset.cpu(), bias, atol=tolerance * max(scale, 1.0), rtol=tolerance)
