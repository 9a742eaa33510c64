"""Operators: the formula on paper, bits kept where strength is 0, nothing edited in place."""

from __future__ import annotations

import pytest
import torch
from thoughtlens.hooks.operators import OPERATORS, ablate, add
from torch.testing import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_is_h_plus_alpha_v(dtype: torch.dtype) -> None:
    h, v = torch.randn(3, 5, 7, dtype=dtype), torch.randn(7)
    strength = torch.tensor([[0.5], [0.0], [-2.0]]).expand(3, 5)
    by_hand = torch.stack([h[0].double() + 0.5 * v, h[1].double(), h[2].double() - 2.0 * v])
    assert_close(add(h, v, strength).double(), by_hand, atol=1e-6 if dtype != torch.bfloat16 else 3e-2, rtol=1e-2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ablate_leaves_nothing_along_the_direction(dtype: torch.dtype) -> None:
    h, direction = torch.randn(3, 5, 7, dtype=dtype), 9 * torch.randn(7)
    unit = direction.double() / direction.double().norm()
    left = ablate(h, direction).double() @ unit
    assert_close(left, torch.zeros(3, 5, dtype=torch.float64), atol=1e-5 if dtype != torch.bfloat16 else 3e-2, rtol=0)
    assert_close(ablate(h, direction, 0.25).double() @ unit, 0.75 * (h.double() @ unit), atol=3e-2, rtol=2e-2)


@pytest.mark.parametrize("name", sorted(OPERATORS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_strength_zero_returns_the_same_bits(name: str, dtype: torch.dtype) -> None:
    h = torch.tensor([[-0.0, 0.0, 1.0, float("inf"), float("nan")]], dtype=dtype)
    for vector in (torch.ones(5), torch.tensor([1.0, float("inf"), float("nan"), 0.0, 2.0])):
        for strength in (0.0, torch.zeros(1)):
            same = OPERATORS[name](h, vector, strength)
            assert same.dtype == dtype
            assert torch.equal(same.view(torch.uint8), h.view(torch.uint8))


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_no_operator_edits_the_callers_tensor(name: str) -> None:
    h = torch.randn(2, 4, 6)
    before = h.clone()
    assert not torch.equal(OPERATORS[name](h, torch.randn(6), 1.0), before)
    assert torch.equal(h, before)


def test_bfloat16_is_rounded_once() -> None:
    h, v = torch.full((1, 1), 256.0, dtype=torch.bfloat16), torch.tensor([1.0])
    assert add(h, v, 2.0).item() == 258.0  # 256 + 2·1 in one go; twice 256 + 1 would stay 256
