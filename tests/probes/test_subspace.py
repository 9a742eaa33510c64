"""Subspaces: the directions that were put in, their transport against scipy, and what cannot be measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm, subspace_angles
from thoughtlens.hooks.operators import OPERATORS, changed
from thoughtlens.probes import subspace_from_stores, vector_from_stores
from thoughtlens.probes.subspace import optimal_transport

SITES = {"resid_post.0": 1.0, "resid_post.1": 4.0}


def pair(build):
    """The source differs from the target along the first two coordinates, by amounts of its own in every row."""

    def shifted(hidden, index):
        chance = torch.Generator().manual_seed(1)
        hidden[..., 0] += 3 + torch.randn(hidden.shape[:2], generator=chance)
        hidden[..., 1] += 2 * torch.randn(hidden.shape[:2], generator=chance)

    return build(signal=SITES, model="safe", spoil=shifted), build(signal=SITES, model="reasoning")


def test_the_directions_are_those_along_which_the_models_differ(build):
    source, target = pair(build)
    vector = subspace_from_stores(source=source, target=target, k=2, span="last_prompt")
    plain = vector_from_stores(source=source, target=target, span="last_prompt")
    planted = torch.eye(12)[:2]
    for site in SITES:
        basis = vector.values[site]
        torch.testing.assert_close(basis @ basis.T, torch.eye(2), atol=1e-5, rtol=0)
        assert float(subspace_angles(basis.T.numpy(), planted.T.numpy()).max()) < 1e-3
        assert torch.equal(vector.means[site], plain.means[site])
        unit = plain.values[site] / plain.values[site].norm()
        assert float((basis @ unit).norm()) == pytest.approx(1.0, abs=1e-3)
    assert vector.header["k"] == 2 and vector.source == "safe-reasoning, 2 directions"


@pytest.mark.parametrize("contrast", ["safe-reasoning", "harmful-benign"])
def test_transport_carries_the_one_class_onto_the_other(build, contrast):
    source, target = pair(build)
    vector = subspace_from_stores(source=source, target=target, k=2, contrast=contrast, span="last_prompt")
    hidden, index = source.rows()
    harmful = torch.tensor(index["harmful"].to_numpy(dtype=bool))
    start, end = (hidden[~harmful], hidden[harmful]) if contrast == "harmful-benign" else (target.rows()[0], hidden)
    for i, site in enumerate(SITES):
        moved = changed(start[:, i], OPERATORS["transport"](vector, site)) @ vector.values[site].T
        there = end[:, i] @ vector.values[site].T
        torch.testing.assert_close(moved.mean(0), there.mean(0), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(torch.cov(moved.T), torch.cov(there.T), atol=0.4, rtol=0.15)  # covariances are shrunk


def test_optimal_transport_is_scipys():
    chance = np.random.default_rng(3)
    start, end = chance.normal(size=(4000, 3)) @ chance.normal(size=(3, 3)), chance.normal(size=(4000, 3)) @ chance.normal(size=(3, 3))
    ours = optimal_transport(torch.tensor(start), torch.tensor(end))
    first, second = np.cov(start.T), np.cov(end.T)
    root = sqrtm(first).real
    theirs = np.linalg.inv(root) @ sqrtm(root @ second @ root).real @ np.linalg.inv(root)
    torch.testing.assert_close(ours, torch.tensor(theirs), atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(ours, ours.T)
    assert float(torch.linalg.eigvalsh(ours).min()) > 0
    np.testing.assert_allclose(ours.numpy() @ first @ ours.numpy(), second, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize(
    ("k", "says"), [(0, "at least 1 direction, not 0"), (300, "need at least 302 rows of each class"), (5, "fewer than 5 directions")]
)
def test_what_cannot_be_measured_is_said(build, k, says):
    source, target = pair(build)
    with pytest.raises(ValueError, match=says):
        subspace_from_stores(source=source, target=target, k=k, span="last_prompt")
