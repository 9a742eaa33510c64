"""Geometry: scipy's cosines and angles, products without the noise of their sample, intervals that cover, bases that are held apart."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.stats import binom
from thoughtlens.hooks import Store
from thoughtlens.probes.directions import Directions, read_directions
from thoughtlens.probes.geometry import ANGLES, COLUMNS, angles, chance, cosines, geometry
from thoughtlens.probes.mean_difference import mean_difference
from torch import Tensor

Build = Callable[..., Store]
MODULE = sys.modules[geometry.__module__]  # the package exports the function under the same name
SITES = {"resid_post.1": 2.0, "resid_post.4": 3.0}
READ = {"label": "harmful", "group": "group", "span": None, "site": None, "where": {"split": "train"}, "labels": None, "align": None}


def noisy(size: float, seed: int = 0) -> Callable[[Tensor, object], None]:
    def spoil(x: Tensor, index: object) -> None:
        x += size * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))

    return spoil


def tuned(store: Store) -> Store:
    """The store of another checkpoint."""
    return Store(store.path, {**store.meta, "fingerprint": "beef"}, store.shards, store.jobs)


def drawn(rng: np.random.Generator, true: np.ndarray, groups: int, shared: float, per_group: int = 2) -> Directions:
    """Directions of groups of `per_group` rows, whose true differences of means are `true` [k, d]; the models share part of the noise."""
    k, d = true.shape
    y = np.arange(groups) % 2 == 0
    common, own = rng.normal(size=(groups, 1, d)), rng.normal(size=(groups, k, d))
    x = (y[:, None, None] - 0.5) * true + shared * common + np.sqrt(1 - shared**2) * own
    x = x[None] + 0.3 * rng.normal(size=(per_group, groups, k, d))
    sums = torch.from_numpy(x.sum(0))
    positive, negative = sums * torch.from_numpy(y)[:, None, None], sums * torch.from_numpy(~y)[:, None, None]
    counts = torch.from_numpy(np.stack([y, ~y]) * float(per_group))[..., None].expand(-1, -1, k)
    return Directions(tuple("ab"[:k]), ("resid_post.1",) * k, positive, negative, counts, torch.zeros(0, k, d))


def twins(rng: np.random.Generator, true: np.ndarray, groups: int, shared: float) -> Directions:
    """The same where each group has a positive and a negative row that have most of their noise in common."""
    k, d = true.shape
    common, own = rng.normal(size=(1, groups, 1, d)), rng.normal(size=(2, groups, k, d))
    positive, negative = torch.from_numpy(np.stack([true / 2, -true / 2])[:, None] + shared * common + np.sqrt(1 - shared**2) * own)
    return Directions(tuple("ab"[:k]), ("resid_post.1",) * k, positive, negative, torch.ones(2, groups, k).double(), torch.zeros(0, k, d))


@given(st.integers(2, 9), st.integers(0, 99))
def test_cosines_are_scipys(d: int, seed: int) -> None:
    one, other, third = torch.randn(3, d, generator=torch.Generator().manual_seed(seed))
    table = cosines({"one": one, "other": other, "third": third})
    assert table[["a", "b"]].values.tolist() == [["one", "other"], ["one", "third"], ["other", "third"]]
    assert table.cosine[0] == pytest.approx(1 - cosine(one.double(), other.double()))
    assert np.cos(np.radians(table.angle)).to_numpy() == pytest.approx(table.cosine.to_numpy())


def test_chance_is_that_of_random_directions() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4000, 64))
    found = np.abs((x[0] * x[1]).sum(-1) / np.linalg.norm(x[0], axis=-1) / np.linalg.norm(x[1], axis=-1)).mean()
    assert chance(64) == pytest.approx(found, rel=0.04)


def test_what_has_no_cosine_is_refused() -> None:
    with pytest.raises(ValueError, match="directions of different widths cannot be compared: a 3, b 4"):
        cosines({"a": torch.ones(3), "b": torch.ones(4)})
    with pytest.raises(ValueError, match="'b' is zero or holds nan or inf"):
        cosines({"a": torch.ones(3), "b": torch.zeros(3)})


def test_directions_are_mean_differences_and_every_draw_a_refit(build: Build) -> None:
    store = build(signal=SITES)
    ((span, found),) = read_directions(store, **READ, shuffles=3, seed=0)
    x, index = store.rows({"split": "train"})
    y = torch.tensor(index["harmful"].to_numpy(dtype=bool))
    assert span == "last_prompt" and found.sites == tuple(SITES) and found.models == ("reasoning",) * 2
    torch.testing.assert_close(found.all_rows(), mean_difference(x.transpose(0, 1), y))
    names = sorted(set(index["group"]))
    times = np.random.default_rng(0).integers(0, 3, len(names))
    rows = np.repeat(np.arange(len(index)), times[np.searchsorted(names, index["group"])])
    refit = mean_difference(x[rows].transpose(0, 1), y[torch.tensor(rows)])
    torch.testing.assert_close(found.drawn(torch.from_numpy(times[None]).double())[0], refit)
    assert found.rows() == [len(index)] * 2 and found.groups() == [len(names)] * 2


@pytest.mark.parametrize("draw", [drawn, twins], ids=["a group has one label", "a group has both"])
def test_products_are_right_on_average_once_their_noise_is_off(draw: Callable[..., Directions]) -> None:
    rng = np.random.default_rng(0)
    true = np.stack([np.eye(20)[0] * 2, np.eye(20)[0] + np.eye(20)[1]])
    left = []
    for _ in range(400):
        found = draw(rng, true, groups=24, shared=0.8)
        whole = found.all_rows()
        left.append((whole @ whole.T - found.noise()).numpy())
    error = np.std(left, axis=0) / np.sqrt(len(left))
    assert (np.abs(np.mean(left, axis=0) - true @ true.T) < 4 * error).all() and (error < 0.2).all()


@pytest.mark.parametrize(("angle", "shared"), [(0.6, 0.0), (0.6, 0.9), (0.95, 0.9)])
def test_intervals_cover_the_true_cosine(monkeypatch: pytest.MonkeyPatch, angle: float, shared: float) -> None:
    """80 groups in 40 dimensions, where the raw cosine is off by .1 and more. At least nine in ten: judged with a binomial bound."""
    rng = np.random.default_rng(1)
    true = 3 * np.stack([np.eye(40)[0], angle * np.eye(40)[0] + np.sqrt(1 - angle**2) * np.eye(40)[1]])
    rows = []
    for _ in range(100):
        found = drawn(rng, true, groups=80, shared=shared)
        monkeypatch.setattr(MODULE, "read_directions", lambda *_, found=found, **__: [("thought", found)])
        rows.append(geometry({}, resampled=200).iloc[0])
    table = pd.DataFrame(rows)
    covered = ((table.low <= angle) & (angle <= table.high)).sum()
    assert covered >= binom.ppf(1e-3, len(table), 0.93)
    assert abs(table.cosine.mean() - angle) < 0.02 < abs(table.raw.mean() - angle) + 0.02 * (angle > 0.9)
    assert (table.high - table.low).median() < 0.5


def test_the_table(build: Build) -> None:
    stores = {"base": build(signal=SITES, model="base"), "safe": tuned(build(signal=SITES, model="safe", spoil=noisy(0.2)))}
    table = geometry(stores, resampled=100)
    assert list(table.columns) == list(COLUMNS) and len(table) == 6
    same = table[(table.a != table.b) & (table.site_a == table.site_b)]
    assert len(same) == 2 and (same.cosine > 0.95).all() and (same.low <= same.cosine).all() and (same.cosine <= same.high).all()
    one, other = (mean_difference(*read(stores[name], "resid_post.4")) for name in ("base", "safe"))
    raw = same.set_index("site_a").raw["resid_post.4"]
    assert raw == pytest.approx(1 - cosine(one[0], other[0]), abs=1e-6)
    assert (same.shuffled > 0.8).all(), "both read the same prompts, so directions without meaning are alike too"
    layers = table[(table.a == "base") & (table.b == "base")].iloc[0]
    assert (layers.layer, layers.layer_b) == (1, 4) and layers.n == 138 and layers.groups == 46 and abs(layers.cosine) < 0.6
    assert geometry(stores, resampled=0).low.isna().all()


def read(store: Store, site: str) -> tuple[Tensor, Tensor]:
    x, index = store.rows({"split": "train"}, sites=[site])
    return x[:, 0][None], torch.tensor(index["harmful"].to_numpy(dtype=bool))


def test_a_direction_that_is_only_noise_has_no_cosine(build: Build) -> None:
    table = geometry(build(signal={"resid_post.1": 0, "resid_post.4": 3}, cluster=0, seed=3), resampled=50)
    ours = table.iloc[0]
    assert np.isnan(ours.cosine) or (ours.low < 0 < ours.high)


def test_other_bases_are_refused_and_rotated_on_request(build: Build) -> None:
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0]

    def rotated(x: Tensor, index: object) -> None:
        x[:] = x @ turn.T

    stores = {"base": build(signal=SITES), "other": tuned(build(signal=SITES, model="other", spoil=rotated))}
    for look in (geometry, angles):
        with pytest.raises(ValueError, match="pass align='procrustes'"):
            look(stores)
    table = geometry(stores, align="procrustes", resampled=20)
    same = table[(table.a != table.b) & (table.site_a == table.site_b)]
    assert (same.raw > 0.9999).all() and (table.aligned == "procrustes").all()
    assert (angles(stores, align="procrustes", halvings=3).query("a != b").angle < 1).all()


def test_principal_angles(build: Build) -> None:
    stores = {"base": build(signal=SITES, model="base"), "safe": tuned(build(signal=SITES, model="safe", spoil=noisy(0.5)))}
    table = angles(stores, halvings=20)
    assert list(table.columns) == list(ANGLES) and len(table) == 3 * len(SITES)
    bases = []
    for store in stores.values():
        w = torch.cat([mean_difference(*read(store, site)) for site in SITES])
        bases.append(torch.linalg.qr(w.T)[0])
    expected = torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1).arccos().rad2deg()
    assert table.query("a != b").angle.to_numpy() == pytest.approx(expected.numpy(), abs=1e-3)
    assert table.query("a == b").angle.to_numpy() == pytest.approx(0, abs=1e-3)
    assert ((table.low <= table.halves) & (table.halves <= table.high)).all() and (table.chance > 30).all()
    assert (table.query("a == b").halves > 0).all()
