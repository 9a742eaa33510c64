"""Transfer: scikit-learn's AUROC of the source's probe on the target's rows, groups held apart, other bases refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from thoughtlens.hooks import Store
from thoughtlens.probes.fit import fit_probes
from thoughtlens.probes.metrics import resamples
from thoughtlens.probes.transfer import COLUMNS, transfer
from torch import Tensor

Build = Callable[..., Store]
SITES = {"resid_post.1": 1.0, "resid_post.4": 2.0}
WRAPPED = ("plain", "prefix", "typographic")
QUIET = {"shuffles": 0, "directions": 0, "resampled": 0, "progress": False}


def tuned(store: Store) -> Store:
    """The store of another checkpoint."""
    return Store(store.path, {**store.meta, "fingerprint": "beef"}, store.shards, store.jobs)


def noisy(x: Tensor, index: pd.DataFrame) -> None:
    x += 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def wrapped(x: Tensor, index: pd.DataFrame) -> pd.DataFrame:
    """Each goal in three attacks; the direction of harm differs between plain and the others."""
    attack = np.array(WRAPPED)[np.arange(len(index)) % 3]
    harmful = torch.tensor(index["harmful"].to_numpy(dtype=bool))
    x[torch.from_numpy(attack == "plain") & harmful, :, 0] += 4
    return index.assign(attack=attack)


@pytest.fixture
def models(build: Build) -> dict[str, Store]:
    return {"base": build(signal=SITES, model="base"), "safe": tuned(build(signal=SITES, model="safe", spoil=noisy))}


def test_every_cell_is_the_sources_probe_on_the_targets_test_rows(models: dict[str, Store]) -> None:
    table = transfer(models, resampled=50)
    assert list(table.columns) == list(COLUMNS) and len(table) == 2 * 2 * 2
    fitted = {name: fit_probes(store, kinds=["logistic"], **QUIET) for name, store in models.items()}
    for row in table.itertuples():
        probe = fitted[row.source].probes[row.site, "last_prompt", "logistic"]
        x, index = models[row.target].rows({"split": "test"}, sites=[row.site])
        scores = x[:, 0].numpy() @ probe.weight.numpy() + probe.bias
        assert row.auroc == pytest.approx(roc_auc_score(index["harmful"].to_numpy(dtype=bool), scores), abs=1e-6)
        assert row.low <= row.auroc <= row.high and row.c == probe.setting and row.model == row.target
        assert (row.n_train, row.n_test, row.groups, row.n_positive) == (138, 66, 22, 33)


def test_the_diagonal_is_the_sweep(build: Build) -> None:
    store = build(signal=SITES, spans=("last_prompt", "thought"))
    table = transfer(store, along="span", site="resid_post.4", resampled=200)
    own = table[table.source == table.target].set_index("span")
    swept = fit_probes(store, kinds=["logistic"], sites=["resid_post.4"], shuffles=0, directions=0, resampled=200, progress=False).table
    swept = swept[(swept["split"] == "test") & (swept["probe"] == "logistic")].set_index("span")
    for column in ("auroc", "low", "high", "tpr_at_1fpr", "n_train", "n_test", "c"):
        assert own[column].to_dict() == pytest.approx(swept[column].to_dict(), abs=1e-9), column
    assert (own[["loss", "loss_low", "loss_high"]] == 0).all(axis=None)


def test_the_loss_has_the_interval_of_a_difference(models: dict[str, Store]) -> None:
    site, n = "resid_post.4", 300
    table = transfer(models, site=site, resampled=n).set_index(["source", "target"])
    x, index = models["safe"].rows({"split": "test"}, sites=[site])
    y, weights = index["harmful"].to_numpy(dtype=bool), resamples(index["group"].to_numpy(), n).numpy()
    scores = {}
    for name, store in models.items():
        probe = fit_probes(store, kinds=["logistic"], sites=[site], **QUIET).probes[site, "last_prompt", "logistic"]
        scores[name] = probe.readout(x[:, 0]).numpy()
    lost = [roc_auc_score(y, scores["safe"], sample_weight=w) - roc_auc_score(y, scores["base"], sample_weight=w) for w in weights]
    row = table.loc["base", "safe"]
    assert row[["loss_low", "loss_high"]].tolist() == pytest.approx(np.percentile(lost, [2.5, 97.5]).tolist(), abs=1e-6)
    assert row.loss == pytest.approx(table.loc["safe", "safe"].auroc - row.auroc)


def test_a_difference_that_no_resample_shows_is_not_sure(build: Build) -> None:
    stores = {"base": build(signal={"resid_post.1": 40}), "safe": tuned(build(signal={"resid_post.1": 40}, spoil=noisy))}
    row = transfer(stores, resampled=50).query("source == 'base' and target == 'safe'").iloc[0]
    assert row.auroc == 1 and row.loss == 0 and row.loss_high == pytest.approx(1 - row.low) and row.loss_low == -row.loss_high < 0


def test_along_a_column_each_value_has_its_own_rows(build: Build) -> None:
    store = build(signal={"resid_post.1": 0.5}, spoil=wrapped)
    table = transfer(store, along="attack", resampled=20).set_index(["source", "target"])
    assert table.index.tolist() == [(source, target) for target in WRAPPED for source in WRAPPED]
    assert (table.n_train == 46).all() and (table.n_test == 22).all()
    assert table.loc["plain", "plain"].auroc > 0.95 > 0.8 > table.loc["plain", "prefix"].auroc


def test_rows_without_a_value_belong_to_every_value(build: Build) -> None:
    def of_harmful(x: Tensor, index: pd.DataFrame) -> pd.DataFrame:
        index = wrapped(x, index)
        return index.assign(category=index["attack"].where(index["harmful"].astype(bool), None))

    table = transfer(build(signal={"resid_post.1": 1}, spoil=of_harmful), along="category", resampled=20)
    assert set(table.source) == set(WRAPPED) and (table.n_test == 11 + 33).all() and (table.n_positive == 11).all()


def test_a_value_that_lacks_a_label_is_left_out_and_said(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    def of_one_side(x: Tensor, index: pd.DataFrame) -> pd.DataFrame:
        index = wrapped(x, index)
        lone = (index["split"] == "dev") & ~index["harmful"].astype(bool) & (index["attack"] == "prefix")
        return index.assign(attack=index["attack"].where(~lone, "plain"))

    store = build(signal={"resid_post.1": 1}, spoil=of_one_side)
    with caplog.at_level(logging.WARNING):
        table = transfer(store, along="attack", resampled=20)
    assert set(table.source) == {"plain", "typographic"} and "attack 'prefix' has not both values of 'harmful'" in caplog.text
    with pytest.raises(ValueError, match="none of .* rows has harmful == False"):
        transfer(store, along="attack", values=["plain", "prefix"], resampled=20)


def test_groups_of_a_source_are_in_no_targets_test(build: Build) -> None:
    def leaking(x: Tensor, index: pd.DataFrame) -> pd.DataFrame:
        index = wrapped(x, index)
        moved = (index["attack"] == "plain") & index["group"].isin(["g0", "g1"])  # goals of the training side
        return index.assign(split=index["split"].where(~moved, "test"))

    with pytest.raises(ValueError, match="group 'g0' lies in train and dev of 'prefix' and in test of 'plain'"):
        transfer(build(signal={"resid_post.1": 1}, spoil=leaking), along="attack", resampled=20)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_a_rotated_model_is_refused_and_aligned_gives_back_the_auroc(build: Build, seed: int) -> None:
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(seed)))[0]

    def rotated(x: Tensor, index: pd.DataFrame) -> None:
        x[:] = 2 + x @ turn.T

    stores = {"base": build(signal=SITES, model="base"), "turned": tuned(build(signal=SITES, model="turned", spoil=rotated))}
    with pytest.raises(ValueError, match="do not keep their hidden states in one basis.*pass align='procrustes'"):
        transfer(stores, resampled=5)
    table = transfer(stores, align="procrustes", resampled=5)
    cells = table.set_index(["source", "target", "site"])
    for site in SITES:
        assert cells.loc[("base", "turned", site)].auroc == pytest.approx(cells.loc[("base", "base", site)].auroc, abs=2e-3)
    assert table.aligned.tolist() == ["procrustes" if a != b else "" for a, b in zip(table.source, table.target, strict=True)]


def test_folds_stand_in_for_a_split(models: dict[str, Store]) -> None:
    table = transfer(models, split="folds", site="resid_post.4", resampled=20)
    assert len(table) == 4 and table.n_test.iloc[0] == 54 and table.auroc.min() > 0.6


def test_labels_that_came_later(build: Build) -> None:
    store = build(signal={"resid_post.1": 2}, spoil=wrapped)
    flipped = {prompt: {"spared": not harmful} for prompt, harmful in zip(store.index["prompt_id"], store.index["harmful"], strict=True)}
    table = transfer(store, along="attack", label="spared", labels=flipped, kind="mean_difference", resampled=20)
    assert (table.label == "spared").all() and (table.probe == "mean_difference").all() and table.c.isna().all()
    same = transfer(store, along="attack", kind="mean_difference", resampled=20)
    assert table.auroc.to_list() == pytest.approx(same.auroc.to_list())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"along": "model"}, "has two ends or more, and only 'reasoning' is there"),
        ({"along": "mood"}, "there is no column 'mood' to transfer along"),
        ({"along": "span", "align": "procrustes"}, "along='span' stays within one"),
        ({"along": "model", "split": "leave-attack-out"}, "holds something out, and a transfer does that itself; take given or folds"),
    ],
)
def test_what_is_no_transfer_says_so(build: Build, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transfer(build(signal={"resid_post.1": 1}), **asked)
