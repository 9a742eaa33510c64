"""Bases: scipy's Procrustes, the same answer however a model is rotated, and no rotation that was only fitted to few rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import orthogonal_procrustes
from thoughtlens.hooks import Store
from thoughtlens.probes.basis import Alignment, align, bases, procrustes, shares
from thoughtlens.probes.probe import Probe
from torch import Tensor

Build = Callable[..., Store]
SITE = "resid_post.1"
TRAIN = {"split": "train", "span": "last_prompt"}


def rotation(d: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]


def hidden(n: int, d: int, seed: int = 0) -> Tensor:
    """Hidden states with a spectrum, and a mean far from zero."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, generator=generator) * torch.arange(1, d + 1) ** -0.5 + 4


def groups(n: int) -> np.ndarray:
    return np.array([f"g{i // 3}" for i in range(n)])


@given(st.integers(2, 8), st.integers(10, 40), st.integers(0, 99))
def test_the_rotation_is_scipys(d: int, n: int, seed: int) -> None:
    a, b = hidden(n, d, seed), hidden(n, d, seed + 1)
    torch.testing.assert_close(procrustes(a, b), torch.from_numpy(orthogonal_procrustes(b.numpy(), a.numpy())[0]), atol=1e-7, rtol=0)


@given(arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=st.integers(-3, 3)))
def test_a_rotation_always_keeps_lengths(a: np.ndarray) -> None:
    """Fewer rows than dimensions, rows twice, columns of zeros."""
    turned = procrustes(torch.from_numpy(a), torch.from_numpy(a[::-1].copy()))
    torch.testing.assert_close(turned @ turned.T, torch.eye(a.shape[1], dtype=torch.float64), atol=1e-7, rtol=0)


def test_what_no_row_tells_stays_as_it_is() -> None:
    a = hidden(5, 12)
    torch.testing.assert_close(procrustes(a, a), torch.eye(12, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("n", [20, 300])
def test_rows_held_out_decide(n: int) -> None:
    """24 dimensions: from 20 rows any rotation fits its own rows, and must not pass for a basis of the same kind."""
    a = hidden(n, 24)
    noisy = a + 0.1 * torch.randn(n, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert shares(a, noisy, groups(n)).one_basis
    assert not shares(a, noisy @ rotation(24, 1), groups(n)).one_basis
    assert not shares(a, hidden(n, 24, seed=9), groups(n)).one_basis
    whole = shares(a, a @ rotation(24, 1), groups(n))
    assert whole.identity < 0.3 and (whole.procrustes > 0.999 if n == 300 else whole.procrustes > whole.identity)


def test_no_shares_from_hardly_a_group_or_states_that_do_not_differ() -> None:
    with pytest.raises(ValueError, match="cannot be compared on 2 groups"):
        shares(hidden(6, 4), hidden(6, 4), groups(6))
    with pytest.raises(ValueError, match="all hidden states of a model are equal"):
        shares(hidden(30, 4), torch.ones(30, 4), groups(30))


@given(st.integers(0, 99))
def test_an_aligned_probe_reads_what_it_read(seed: int) -> None:
    a, turn = hidden(60, 8, seed), rotation(8, seed)
    b = (a - 1) @ turn.T + 3
    probe = Probe(
        torch.randn(8, generator=torch.Generator().manual_seed(seed)), 0.5, SITE, "last_prompt", "mean", "logistic", "harmful", "base",
        {f"{side}_{value}": torch.zeros(1) for side in ("dev", "test") for value in ("negative", "positive")},
    )  # fmt: skip
    found = align(a, b, groups(60))
    turned = found.probe(probe, "tuned")
    torch.testing.assert_close(turned.readout(b), probe.readout(a), atol=1e-5, rtol=1e-5)
    assert turned.model == "tuned" and turned.header["aligned"]["method"] == "procrustes" and turned.header["aligned"]["n"] == 60
    torch.testing.assert_close(found.direction(b[0] - b[1]), a[0] - a[1], atol=1e-8, rtol=0)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_a_rotated_store_is_refused_and_aligned_on_request(build: Build, seed: int) -> None:
    turn = rotation(12, seed).float()

    def rotated(x: Tensor, index: object) -> None:
        x[:] = x @ turn.T

    one, other = build(signal={SITE: 2}, model="base"), tuned(build(signal={SITE: 2}, model="tuned", spoil=rotated))
    with pytest.raises(ValueError, match="'base' and 'tuned' do not keep their hidden states in one basis at resid_post.1"):
        bases((one, other), ("base", "tuned"), sites=[SITE], where=TRAIN)
    found = bases((one, other), ("base", "tuned"), sites=[SITE], where=TRAIN, how="procrustes")[SITE]
    assert isinstance(found, Alignment)
    torch.testing.assert_close(found.rotation, turn.double(), atol=1e-5, rtol=0)


def test_one_basis_needs_no_alignment_and_one_checkpoint_no_look(build: Build) -> None:
    one = build(signal={SITE: 2})
    assert bases((one, build(signal={SITE: 2}, seed=1)), ("a", "b"), sites=[SITE], where=TRAIN) == {SITE: None}  # the same fingerprint

    def noisy(x: Tensor, index: object) -> None:
        x += 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    assert bases((one, tuned(build(signal={SITE: 2}, spoil=noisy))), ("a", "b"), sites=[SITE], where=TRAIN) == {SITE: None}


def test_what_cannot_be_compared_says_so(build: Build) -> None:
    one = build(signal={SITE: 2})
    with pytest.raises(ValueError, match="'a' is 12 wide and 'b' 10: no direction of one is a direction of the other"):
        bases((one, tuned(build(signal={SITE: 2}, d=10))), ("a", "b"), sites=[SITE], where=TRAIN)
    with pytest.raises(ValueError, match="no rotation brings 'b' into the basis of 'a'"):
        bases((one, tuned(build(signal={SITE: 0}, seed=3, cluster=0))), ("a", "b"), sites=[SITE], where=TRAIN, how="procrustes")
    with pytest.raises(ValueError, match="unknown alignment 'cca'; known are procrustes"):
        bases((one, one), ("a", "b"), sites=[SITE], where=TRAIN, how="cca")
    elsewhere = tuned(build(signal={SITE: 2}, spoil=lambda x, index: index.assign(ids_sha="other")))
    with pytest.raises(ValueError, match="were not read on the same tokens"):
        bases((one, elsewhere), ("a", "b"), sites=[SITE], where=TRAIN)


def tuned(store: Store) -> Store:
    """The store of another checkpoint."""
    return Store(store.path, {**store.meta, "fingerprint": "beef"}, store.shards, store.jobs)
