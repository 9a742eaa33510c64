"""Category probes on synthetic stores: what they read, what chance reads, and scikit-learn's macro AUROC."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from thoughtlens.probes.categories import PENALTIES, fit_categories, macro_auroc
from thoughtlens.probes.dataset import select_rows

NAMES = np.array(["fraud", "malware", "privacy"])


def categorised(signal: float):
    """A spoil for make_store: each group gets a category, which moves the hidden state by `signal` at the second site only."""

    def spoil(x: torch.Tensor, index: pd.DataFrame) -> pd.DataFrame:
        number = index["group"].str[1:].astype(int).to_numpy() // 8 % 3
        x[:, 1, :3] += signal * torch.nn.functional.one_hot(torch.from_numpy(number), 3)
        return index.assign(category=NAMES[number])

    return spoil


@pytest.fixture
def store(build):
    return build(signal={"resid_post.0": 0.0, "resid_post.1": 0.0}, groups=120, spoil=categorised(2.0))


def test_reads_the_category_where_it_is_and_chance_where_it_is_not(store):
    table, probes = fit_categories(store, resampled=200, progress=False)
    rows = table[table["split"] == "test"].set_index("site")
    there, absent = rows.loc["resid_post.1"], rows.loc["resid_post.0"]
    assert there["low"] > 0.75 and there["control_p"] == pytest.approx(1 / 21) and there["accuracy_low"] > there["majority"]
    assert abs(absent["auroc"] - 0.5) < 0.1 and absent["low"] < 0.6
    assert abs(there["control_auroc"] - 0.5) < 0.1 and there["control_auroc"] < there["control_high"] < there["low"]
    assert (rows["low"] <= rows["auroc"]).all() and (rows["auroc"] <= rows["high"]).all()
    assert set(table["probe"]) == {"multinomial"} and len(table) == 2 * 2 and (table["categories"] == 3).all()
    assert probes["resid_post.1", "last_prompt"].categories == tuple(NAMES)


def test_equals_a_scikit_learn_loop(store):
    table, probes = fit_categories(store, sites=["resid_post.1"], shuffles=0, resampled=0, progress=False)
    sides = {side: select_rows(store, span="last_prompt", where={"split": side}) for side in ("train", "dev", "test")}
    (x, index), at = sides["train"], 1
    scaler = StandardScaler().fit(x[:, at].double())
    reached = {}
    for c in PENALTIES:
        model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10).fit(scaler.transform(x[:, at].double()), index["category"])
        chances = {side: model.predict_proba(scaler.transform(h[:, at].double())) for side, (h, _) in sides.items()}
        reached[c] = {s: roc_auc_score(sides[s][1]["category"], chances[s], multi_class="ovr") for s in ("dev", "test")}
        reached[c]["accuracy"] = accuracy_score(sides["test"][1]["category"], NAMES[chances["test"].argmax(1)])
        reached[c]["chances"] = chances["test"]
    best = max(PENALTIES, key=lambda c: reached[c]["dev"])
    assert (table["c"] == best).all()
    for side in ("dev", "test"):
        assert table[table["split"] == side]["auroc"].item() == pytest.approx(reached[best][side], abs=5e-4)
    assert table[table["split"] == "test"]["accuracy"].item() == pytest.approx(reached[best]["accuracy"], abs=1e-9)
    probe = probes["resid_post.1", "last_prompt"]
    np.testing.assert_allclose(probe.probability(sides["test"][0][:, at]), reached[best]["chances"], atol=2e-3)
    assert probe.direction("fraud").norm().item() == pytest.approx(1)
    with pytest.raises(ValueError, match="no category 'arson'; this probe tells fraud, malware, privacy"):
        probe.direction("arson")


def test_macro_auroc_is_scikit_learns_also_weighted():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 80)
    chances = rng.dirichlet(np.ones(4), 80) + 0.5 * np.eye(4)[y]
    chances /= chances.sum(1, keepdims=True)
    weights = rng.integers(0, 3, (5, 80)).astype(float)
    ours = macro_auroc(torch.from_numpy(chances), torch.from_numpy(y), torch.from_numpy(weights))
    for row, weight in zip(ours, weights, strict=True):
        each = [roc_auc_score(y == k, chances[:, k], sample_weight=weight) for k in range(4)]
        assert row.item() == pytest.approx(np.mean(each))
    both = macro_auroc(torch.from_numpy(np.stack([chances, chances[::-1]])), torch.from_numpy(y))
    assert both[0].item() == pytest.approx(roc_auc_score(y, chances, multi_class="ovr"))
    assert both[1].item() == pytest.approx(roc_auc_score(y, chances[::-1], multi_class="ovr"))


def test_shuffled_categories_are_no_better_than_the_true_ones_without_signal(build):
    below = 0
    for seed in range(12):
        store = build(signal={"resid_post.0": 0.0, "resid_post.1": 0.0}, groups=60, cluster=1.0, seed=seed, spoil=categorised(0.0))
        table, _ = fit_categories(store, sites=["resid_post.1"], shuffles=9, resampled=0, progress=False)
        below += int(table[table["split"] == "test"]["control_p"].item() <= 0.3)
    assert below <= 9  # at most 3 in 10 are expected: more than 9 of 12 have a probability of 2e-4


def test_what_train_lacks_and_what_has_no_category_is_left_out(store, caplog):
    index = store.index
    unknown = set(index[(index["split"] == "test") & (index["category"] == "fraud")]["prompt_id"].head(6))
    renamed = {row.prompt_id: {"kind": "arson" if row.prompt_id in unknown else row.category} for row in index.itertuples()}
    none = index[index["split"] == "dev"]["prompt_id"].iloc[0]
    renamed[none]["kind"] = None
    with caplog.at_level(logging.INFO):
        table, _ = fit_categories(store, label="kind", labels=renamed, sites=["resid_post.1"], shuffles=2, resampled=50, progress=False)
    sizes = table.set_index("split")["n_test"]
    assert sizes["test"] == (index["split"] == "test").sum() - 6 and sizes["dev"] == (index["split"] == "dev").sum() - 1
    assert "6 of" in caplog.text and "1 of" in caplog.text


def test_a_perfect_probe_keeps_its_interval_where_the_side_lacks_a_category(build):
    store = build(signal={"resid_post.0": 0.0, "resid_post.1": 0.0}, groups=120, spoil=categorised(60.0))
    sides = {"valid": {"split": "dev", "category": ["fraud", "privacy"]}, "test": {"split": "test", "category": ["fraud", "privacy"]}}
    table, _ = fit_categories(store, sites=["resid_post.1"], shuffles=0, resampled=100, progress=False, **sides)
    for row in table.to_dict("records"):
        there = store.index[(store.index["split"] == row["split"]) & store.index["category"].isin(["fraud", "privacy"])]
        fewest = there.groupby("category")["group"].nunique().min()
        assert row["auroc"] == row["accuracy"] == 1
        assert row["low"] == row["accuracy_low"] == pytest.approx(0.025 ** (1 / fewest)) and row["high"] == 1


def test_errors_say_what_is_missing(store):
    with pytest.raises(ValueError, match="train has 1 values of 'category'"):
        fit_categories(store, where={"category": "fraud"}, progress=False)
    with pytest.raises(ValueError, match="no dev row has a 'category' that train has"):
        fit_categories(
            store, train={"split": "train", "category": ["fraud", "malware"]}, valid={"split": "dev", "category": "privacy"}, progress=False
        )
    split = {row.prompt_id: {"kind": NAMES[i % 3]} for i, row in enumerate(store.index.itertuples())}
    with pytest.raises(ValueError, match="has rows of 3 categories, and a group is one goal"):
        fit_categories(store, label="kind", labels=split, progress=False)
    with pytest.raises(ValueError, match="lies in train and in dev"):
        fit_categories(store, valid={"split": ["train", "dev"]}, progress=False)
