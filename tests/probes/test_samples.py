"""Sample-size curves: nested subsets of groups, the same fits as one by one, intervals by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from thoughtlens.probes.dataset import Dataset
from thoughtlens.probes.kinds import KINDS
from thoughtlens.probes.metrics import resamples
from thoughtlens.probes.samples import COLUMNS, sample_sizes, subsets

SITE = "resid_post.4"


def labelled(groups: int = 48, per_group: int = 3, d: int = 24, signal: float = 1.5, share: float = 0.5, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    member = np.repeat(rng.permutation(groups), per_group)
    y = member < share * groups
    x = rng.normal(size=(len(member), 1, d)) + 0.5 * rng.normal(size=(groups, 1, d))[member]
    x[:, 0, 0] += signal * y
    index = pd.DataFrame({"model": "reasoning", "condition": "unsteered", "span": "thought"}, index=range(len(member)))
    return Dataset(torch.from_numpy(x).float(), torch.from_numpy(y), np.array([f"g{i}" for i in member]), index)


@pytest.mark.parametrize("share", [0.5, 0.15])
def test_subsets_are_nested_whole_and_keep_the_mix_of_labels(share):
    data = labelled(share=share)
    sizes = [8, 16, 48]
    masks = subsets(data, sizes, repeats=5, seed=3)
    assert masks.shape == (3, 5, 144)
    for size, repeats in zip(sizes, masks, strict=True):
        for rows in repeats:
            assert len(set(data.groups[rows])) == size and not set(data.groups[rows]) & set(data.groups[~rows])
            positive = len(set(data.groups[rows & data.y]))
            assert abs(positive - share * size) <= 1
    assert (masks[0] <= masks[1]).all() and masks[2].all()
    assert len({tuple(rows.tolist()) for rows in masks[0]}) == 5


def test_groups_with_both_labels_take_their_turn():
    data = labelled()
    mixed = Dataset(data.x, torch.arange(144) % 2 == 0, data.groups, data.index)
    assert subsets(mixed, [6], repeats=2, seed=0).sum(-1).tolist() == [[18, 18]]


@pytest.mark.parametrize(("kind", "near"), [("mean_difference", 1e-9), ("lda", 1e-9), ("logistic", 3e-3)])  # logistic fits stop near
def test_equals_fits_on_the_subsets_alone_and_an_interval_by_hand(kind, near):
    train, test = labelled(), labelled(seed=1)
    setting = KINDS[kind].settings[0]
    table = sample_sizes(train, test, SITE, kind=kind, setting=setting, sizes=[10, 30], repeats=3, resampled=40, seed=2)
    assert list(table.columns) == list(COLUMNS)
    for (_, row), repeats in zip(table.iterrows(), subsets(train, [10, 30], repeats=3, seed=2), strict=True):
        reached, drawn = [], []
        for used in repeats:
            weight, bias = KINDS[kind].fit(train.x[used].transpose(0, 1), train.y[used][None], [setting])
            scores = (test.x[:, 0].double() @ weight[0, 0, 0] + bias[0, 0, 0]).numpy()
            reached.append(roc_auc_score(test.y, scores))
            drawn += [roc_auc_score(test.y, scores, sample_weight=times) for times in resamples(test.groups, 40, 2)]
        assert row["auroc"] == pytest.approx(np.mean(reached), abs=near)
        assert [row["low"], row["high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), abs=near)
        assert row["rows"] == 3 * row["groups"] and row["probe"] == kind and row["layer"] == 4 and row["n_test"] == 144


def test_more_goals_read_better_and_all_of_them_as_the_whole_fit():
    train, test = labelled(groups=128), labelled(groups=128, seed=1)
    table = sample_sizes(train, test, SITE, resampled=200)
    assert table["groups"].tolist() == [8, 16, 32, 64, 128]
    assert table["auroc"].is_monotonic_increasing and (table["low"] <= table["auroc"]).all() and (table["auroc"] <= table["high"]).all()
    middle = KINDS["logistic"].settings[2]
    assert (table["c"] == middle).all()
    weight, bias = KINDS["logistic"].fit(train.x.transpose(0, 1), train.y[None], [middle])
    whole = roc_auc_score(test.y, test.x[:, 0].double() @ weight[0, 0, 0] + bias[0, 0, 0])
    assert table["auroc"].iloc[-1] == pytest.approx(whole, abs=1e-3)


def test_a_perfect_probe_still_has_an_interval():
    table = sample_sizes(labelled(signal=50.0), labelled(signal=50.0, seed=1), SITE, kind="mean_difference", resampled=20)
    assert table["auroc"].iloc[-1] == 1 and table["low"].iloc[-1] == pytest.approx(0.025 ** (1 / 24))


def test_what_cannot_be_asked():
    data = labelled(share=1 / 48)
    with pytest.raises(ValueError, match="one label only"):
        sample_sizes(data, labelled(seed=1), SITE, sizes=[2])
    for size in (0, 49):
        with pytest.raises(ValueError, match="pass sizes from 1 to 48"):
            sample_sizes(data, labelled(seed=1), SITE, sizes=[size])
    two = Dataset(data.x.expand(-1, 2, -1), data.y, data.groups, data.index)
    with pytest.raises(ValueError, match="one site"):
        sample_sizes(two, two, SITE)
