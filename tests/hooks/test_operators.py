"""Operators: the formula on paper, what each promises, bits kept where strength is 0, nothing edited in place."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm, sqrtm
from thoughtlens.hooks.operators import OPERATORS, UNITS, LowRank, apply, changed, stacked
from thoughtlens.hooks.vector import Vector
from torch import Tensor
from torch.testing import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float64]
WIDTH, SITE = 7, "resid_post.1"
LOOSE = {torch.float32: 2e-5, torch.bfloat16: 6e-2, torch.float64: 2e-5}


def vector(seed: int = 0, k: int = 0) -> Vector:
    """A random vector with class means, or k orthonormal directions with a transport."""
    chance = torch.Generator().manual_seed(seed)
    means = torch.randn(2, WIDTH, generator=chance)
    if not k:
        return Vector({SITE: means[1] - means[0]}, "last_prompt", means={SITE: means})
    basis = torch.linalg.qr(torch.randn(WIDTH, k, generator=chance)).Q.T
    factor = torch.randn(k, k, generator=chance)
    return Vector({SITE: basis}, "last_prompt", means={SITE: means}, transport={SITE: factor @ factor.T + torch.eye(k)})


def by_hand(name: str, v: Vector, h: np.ndarray, alpha: float) -> np.ndarray:
    """Each operator once more in numpy, float64, from its formula."""
    value, (start, end) = v.values[SITE].double().numpy(), v.means[SITE].double().numpy()
    unit = value / np.linalg.norm(value) if value.ndim == 1 else value
    match name:
        case "add":
            return h + alpha * value
        case "add local":
            return h + alpha * np.linalg.norm(h, axis=-1, keepdims=True) * unit
        case "ablate":
            return h - alpha * np.outer(h @ unit, unit).reshape(h.shape)
        case "affine":
            return h + alpha * np.outer(end @ unit - h @ unit, unit).reshape(h.shape)
        case "rotate":  # the exponential of the generator of the rotation in the plane of the means
            one = start / np.linalg.norm(start)
            other = end - (end @ one) * one
            other /= np.linalg.norm(other)
            angle = math.acos(start @ end / np.linalg.norm(start) / np.linalg.norm(end))
            return h @ expm(alpha * angle * (np.outer(other, one) - np.outer(one, other))).T
        case "subspace":
            return h - alpha * h @ unit.T @ unit
        case _:
            a = v.transport[SITE].double().numpy()
            return h + alpha * ((h - start) @ unit.T @ a.T + (end - h) @ unit.T) @ unit


MAKE: dict[str, Callable[[Vector, str], LowRank]] = {**OPERATORS, "add local": UNITS["local"]["add"]}


def made(name: str, seed: int = 0) -> Vector:
    return vector(seed, 3 if name in ("subspace", "transport") else 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MAKE)
@given(seed=st.integers(0, 1000), alpha=st.floats(-2, 2).filter(lambda a: a != 0))
def test_every_operator_is_its_formula(name: str, dtype: torch.dtype, seed: int, alpha: float) -> None:
    v, h = made(name, seed), torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)
    ours = changed(h, MAKE[name](v, SITE), alpha)
    theirs = torch.from_numpy(by_hand(name, v, h.double().numpy(), float(np.float32(alpha))))
    assert ours.dtype == dtype
    assert_close(ours.double(), theirs, atol=10 * LOOSE[dtype] if dtype != torch.bfloat16 else 0.2, rtol=LOOSE[dtype])


@pytest.mark.parametrize("name", ["affine", "rotate", "transport"])
def test_strength_one_carries_the_one_class_mean_to_the_other(name: str) -> None:
    v = made(name)
    start, end = v.means[SITE]
    arrived = changed(start[None], MAKE[name](v, SITE))[0]
    directions = v.basis(SITE)
    if name == "rotate":
        assert_close(torch.cosine_similarity(arrived, end, dim=0), torch.tensor(1.0))
        assert_close(arrived.norm(), start.norm())
    else:
        assert_close(directions @ arrived, directions @ end, atol=1e-5, rtol=1e-5)


def test_add_moves_by_the_measured_difference() -> None:
    v = vector()
    assert_close(changed(v.means[SITE][:1], MAKE["add"](v, SITE))[0], v.means[SITE][1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_ablate_leaves_nothing_along_the_direction(dtype: torch.dtype) -> None:
    h, v = torch.randn(3, 5, WIDTH, dtype=dtype), vector()
    unit = v.basis(SITE)[0].double()
    left = changed(h, MAKE["ablate"](v, SITE)).double() @ unit
    assert_close(left, torch.zeros(3, 5, dtype=torch.float64), atol=LOOSE[dtype], rtol=0)
    weakened = changed(h, MAKE["ablate"](v, SITE), 0.25).double() @ unit
    assert_close(weakened, 0.75 * (h.double() @ unit), atol=LOOSE[dtype], rtol=LOOSE[dtype])


def test_rotate_keeps_every_length_and_what_is_outside_the_plane() -> None:
    v, h = vector(), torch.randn(50, WIDTH)
    turned = changed(h, MAKE["rotate"](v, SITE), 1.7)
    assert_close(turned.norm(dim=-1), h.norm(dim=-1))
    outside = torch.linalg.qr(v.means[SITE].T, mode="complete").Q[:, 2:]
    assert_close(turned @ outside, h @ outside, atol=1e-5, rtol=1e-5)
    back = changed(turned, MAKE["rotate"](v, SITE), -1.7)
    assert_close(back, h, atol=1e-5, rtol=1e-5)


def test_transport_carries_a_gaussian_onto_the_other() -> None:
    chance = np.random.default_rng(0)
    first, second = (a @ a.T + np.eye(3) for a in chance.normal(size=(2, 3, 3)))
    root = sqrtm(first).real
    a = np.linalg.inv(root) @ sqrtm(root @ second @ root).real @ np.linalg.inv(root)
    basis = torch.linalg.qr(torch.randn(WIDTH, 3)).Q.T
    means = torch.randn(2, WIDTH)
    v = Vector({SITE: basis}, "last_prompt", means={SITE: means}, transport={SITE: torch.tensor(a).float()})
    h = means[0] + torch.tensor(chance.multivariate_normal(np.zeros(3), first, size=40_000)).float() @ basis
    z = (changed(h, MAKE["transport"](v, SITE)) @ basis.T).double()
    assert_close(z.mean(0).float(), basis @ means[1], atol=5e-2, rtol=5e-2)
    assert_close(torch.cov(z.T), torch.tensor(second), atol=0.3, rtol=0.05)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_strength_zero_returns_the_same_bits(name: str, dtype: torch.dtype) -> None:
    h = torch.tensor([[-0.0, 0.0, 1.0, float("inf"), float("nan"), 3.0, -1.0]], dtype=dtype)
    for strength in (0.0, torch.zeros(1)):
        same = changed(h, MAKE[name](made(name), SITE), strength)
        assert same.dtype == dtype
        assert torch.equal(same.view(torch.uint8), h.view(torch.uint8))


@pytest.mark.parametrize("name", MAKE)
def test_no_operator_edits_the_callers_tensor(name: str) -> None:
    h = torch.randn(2, 4, WIDTH)
    before = h.clone()
    assert not torch.equal(changed(h, MAKE[name](made(name), SITE), 1.0), before)
    assert torch.equal(h, before)


@given(seed=st.integers(0, 1000), names=st.lists(st.sampled_from(sorted(MAKE)), min_size=1, max_size=4))
def test_changes_side_by_side_add_up_and_rows_without_one_keep_their_bits(seed: int, names: list[str]) -> None:
    chance = torch.Generator().manual_seed(seed)
    h = torch.randn(4, 3, WIDTH, generator=chance)
    changes = [MAKE[name](made(name, seed + n), SITE) for n, name in enumerate(names)]
    amounts = torch.randn(4, 3, len(names), generator=chance) * (torch.rand(4, 3, len(names), generator=chance) < 0.5)
    together = apply(h, stacked(changes, range(len(names)), len(names)).to(h.device, h.dtype), amounts)
    apart = h + sum(changed(h, change, amounts[..., n]) - h for n, change in enumerate(changes))
    assert_close(together, apart, atol=1e-4, rtol=1e-4)
    off = (amounts == 0).all(-1)
    assert torch.equal(together[off], h[off])


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_what_an_exporter_is_told_is_what_is_done(name: str) -> None:
    h, change = torch.randn(6, WIDTH), MAKE[name](made(name), SITE)
    matrix, offset = change.at(0.7)
    basis = change.basis.float()
    assert_close(h + ((h @ basis.T) @ matrix.float().T + offset.float()) @ basis, changed(h, change, 0.7), atol=1e-5, rtol=1e-5)


def test_a_strength_that_counts_in_lengths_is_no_fixed_map() -> None:
    with pytest.raises(ValueError, match='unit "local"'):
        MAKE["add local"](vector(), SITE).at(1.0)


def test_means_that_point_the_same_way_span_no_plane() -> None:
    v = Vector({SITE: torch.ones(WIDTH)}, "last_prompt", means={SITE: torch.stack([torch.ones(WIDTH), 2 * torch.ones(WIDTH)])})
    with pytest.raises(ValueError, match="no plane to turn in. Use add"):
        MAKE["rotate"](v, SITE)


def test_bfloat16_is_rounded_once() -> None:
    h, v = torch.full((1, 1), 256.0, dtype=torch.bfloat16), Vector({SITE: torch.tensor([1.0])}, "last_prompt")
    assert changed(h, MAKE["add"](v, SITE), 2.0).item() == 258.0  # 256 + 2·1 in one go; twice 256 + 1 would stay 256


@pytest.mark.parametrize("name", ["add", "ablate", "rotate"])
def test_autocast_leaves_the_arithmetic_alone(name: str) -> None:
    h, change = torch.randn(4, WIDTH), MAKE[name](vector(), SITE)
    alone: Tensor = changed(h, change)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(changed(h, change), alone)
