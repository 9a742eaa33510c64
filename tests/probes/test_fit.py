"""The sweep: the layer scikit-learn would choose, test data that choose nothing, controls at chance."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thoughtlens.probes import fit_probes, matrix
from thoughtlens.probes.fit import COLUMNS
from thoughtlens.probes.kinds import KINDS

SIGNAL = {"resid_post.0": 0.0, "resid_post.1": 1.0, "resid_post.2": 2.0, "resid_post.3": 1.2}


def cell(sweep, **wanted):
    rows = sweep.table
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    (row,) = rows.to_dict("records")
    return row


def test_agrees_with_a_scikit_learn_loop(build):
    store = build(signal=SIGNAL, spans=("last_prompt", "thought"), cluster=0.8)
    sweep = fit_probes(store, kinds=("logistic",), resampled=10)
    dev_area = {}
    for span in ("last_prompt", "thought"):
        train, dev, test = (matrix(store, span=span, label="harmful", where={"split": side}) for side in ("train", "dev", "test"))
        for i, site in enumerate(store.sites):
            areas = []
            for c in KINDS["logistic"].settings:
                model = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-10, max_iter=10_000, solver="newton-cholesky"))
                model.fit(train.x[:, i].double().numpy(), train.y.numpy())
                areas.append([roc_auc_score(side.y, model.decision_function(side.x[:, i].double().numpy())) for side in (dev, test)])
            chosen = int(np.argmax([area[0] for area in areas]))
            ours = {side: cell(sweep, site=site, span=span, split=side) for side in ("dev", "test")}
            assert ours["dev"]["c"] == KINDS["logistic"].settings[chosen]
            assert ours["dev"]["auroc"] == pytest.approx(areas[chosen][0], abs=5e-4)
            assert ours["test"]["auroc"] == pytest.approx(areas[chosen][1], abs=5e-4)
            dev_area[site, span] = areas[chosen][0]
    best = max(dev_area, key=lambda place: dev_area[place])
    assert (sweep.best.site, sweep.best.span) == best


def test_finds_the_layer_with_the_signal_and_nothing_where_there_is_none(build):
    sweep = fit_probes(build(signal=SIGNAL, groups=160, cluster=0.3))
    for kind in ("logistic", "mean_difference"):
        assert sweep.pick(probe=kind).site == "resid_post.2"
        told, empty = (cell(sweep, probe=kind, split="test", site=site) for site in ("resid_post.2", "resid_post.0"))
        assert told["auroc"] > 0.85 and told["low"] < told["auroc"] < told["high"] and told["low"] > told["control_high"]
        assert empty["low"] < 0.5 < empty["high"] and empty["auroc"] < empty["control_high"] + 0.1
        for site in SIGNAL:
            row = cell(sweep, probe=kind, split="test", site=site)
            assert row["control_auroc"] == pytest.approx(0.5, abs=0.1) and row["control_auroc"] < row["control_high"]
            assert row["text_auroc"] != row["text_auroc"]


def test_the_table_has_the_columns_of_the_design_and_a_row_per_cell_and_side(build):
    store = build(signal=SIGNAL, spans=("last_prompt", "thought"))
    sweep = fit_probes(store, shuffles=3, resampled=20)
    assert tuple(sweep.table.columns) == COLUMNS
    assert len(sweep.table) == 4 * 2 * 2 * 2 and len(sweep.probes) == 4 * 2 * 2
    assert not sweep.table.duplicated(["site", "span", "probe", "split"]).any()
    row = cell(sweep, site="resid_post.3", span="thought", probe="logistic", split="dev")
    sizes = store.index[store.index["span"] == "thought"]["split"].value_counts()
    assert (row["model"], row["condition"], row["layer"], row["pool"], row["label"]) == ("reasoning", "unsteered", 3, "mean", "harmful")
    assert (row["n_train"], row["n_test"]) == (sizes["train"], sizes["dev"])
    assert not sweep.table.drop(columns=["text_auroc", "c"]).isna().any().any()


def test_a_probe_reads_hidden_states_as_the_model_has_them(build):
    store = build(signal=SIGNAL)
    sweep = fit_probes(store, shuffles=0, resampled=5)
    data = matrix(store, span="last_prompt", label="harmful", where={"split": "test"})
    for (site, span, kind), probe in sweep.probes.items():
        scores = probe.readout(data.x[:, store.sites.index(site)])
        told = cell(sweep, site=site, span=span, probe=kind, split="test")
        assert roc_auc_score(data.y, scores) == pytest.approx(told["auroc"], abs=1e-9)
        torch.testing.assert_close(scores[~data.y].sort().values, probe.scores["test_negative"])
        assert probe.header["c"] in KINDS["logistic"].settings or kind == "mean_difference"


@pytest.mark.parametrize("options", [{}, {"folds": 3, "balanced": True}, {"split": "leave-category-out"}])
def test_test_data_choose_nothing(build, options):
    def wrecked(hidden, index):
        rows = torch.tensor((index["split"] == "test").to_numpy())
        hidden[rows] = torch.randn(int(rows.sum()), *hidden.shape[1:]) * 50
        index.loc[index["split"] == "test", "harmful"] = ~index.loc[index["split"] == "test", "harmful"]

    few = {"kinds": tuple(KINDS), "shuffles": 3, "directions": 3, "resampled": 20, **options}
    clean, other = (fit_probes(build(signal=SIGNAL, spoil=spoil), **few) for spoil in (None, wrecked))
    dev = [sweep.table[sweep.table["split"] == "dev"].reset_index(drop=True) for sweep in (clean, other)]
    assert dev[0].equals(dev[1])
    for holdout in clean.table["holdout"].unique():
        one, two = (sweep.pick(holdout=holdout) for sweep in (clean, other))
        assert one.site == two.site and one.threshold(0.05) == two.threshold(0.05)
    for name, probe in clean.probes.items():
        assert torch.equal(probe.weight, other.probes[name].weight)
        assert (probe.bias, probe.setting, probe.calibration) == (
            other.probes[name].bias,
            other.probes[name].setting,
            other.probes[name].calibration,
        )
    assert not clean.table["auroc"].equals(other.table["auroc"])


def test_same_seed_same_numbers(build):
    store = build(signal=SIGNAL)
    one, two, other = (fit_probes(store, shuffles=3, resampled=20, seed=seed).table for seed in (1, 1, 2))
    assert one.equals(two) and not one.equals(other)


def test_words_are_told_beside_the_probe(build):
    store = build(signal=SIGNAL, spans=("last_prompt", "thought"))
    harmful = store.index.drop_duplicates("prompt_id").set_index("prompt_id")["harmful"]
    texts = {"thought": {prompt: "i must refuse" if flag else "here is how" for prompt, flag in harmful.items()}}
    sweep = fit_probes(store, texts=texts, shuffles=2, resampled=10)
    thought = sweep.table[sweep.table["span"] == "thought"]
    assert (thought["text_auroc"] == 1.0).all()
    assert sweep.table[sweep.table["span"] == "last_prompt"]["text_auroc"].isna().all()
    del texts["thought"]["p5"]
    with pytest.raises(ValueError, match=r"texts\['thought'\] lacks 1 prompts of the store, the first is 'p5'"):
        fit_probes(store, texts=texts)
    with pytest.raises(ValueError, match="span 'answer', which is not in the store; it holds last_prompt, thought"):
        fit_probes(store, texts={"answer": {}})


def test_a_group_on_two_sides_is_an_error(build):
    def leaking(hidden, index):
        index.loc[index["group"] == "g6", "split"] = ["train", "test", "test"]

    with pytest.raises(ValueError, match="group 'g6' lies in train and in test"):
        fit_probes(build(signal=SIGNAL, spoil=leaking))


def test_a_side_with_one_class_is_an_error(build):
    def only_harmful(hidden, index):
        index.loc[index["split"] == "dev", "harmful"] = True

    with pytest.raises(ValueError, match=r"span 'last_prompt', split == 'dev': none of \d+ rows has harmful == False"):
        fit_probes(build(signal=SIGNAL, spoil=only_harmful))


def test_picking_says_what_there_is(build):
    sweep = fit_probes(build(signal=SIGNAL, spans=("last_prompt", "thought")), shuffles=0, resampled=5)
    assert sweep.pick(span="thought", probe="mean_difference").kind == "mean_difference"
    assert sweep.pick(layer=1).site == "resid_post.1"
    with pytest.raises(ValueError, match="no probe has span == 'answer'; left are 'last_prompt', 'thought'"):
        sweep.pick(span="answer")
    with pytest.raises(ValueError, match="no column 'kind'"):
        sweep.pick(kind="logistic")
    with pytest.raises(ValueError, match="unknown kind of probe 'svm'; known are logistic, mean_difference, whitened, lda, ridge"):
        fit_probes(build(signal=SIGNAL), kinds=("svm",))


def test_equals_are_decided_for_the_lower_layer(build):
    sweep = fit_probes(build(signal={"resid_post.2": 30.0, "resid_post.1": 30.0}), shuffles=0, resampled=5)
    assert set(sweep.table["auroc"]) == {1.0}
    assert sweep.best.site == "resid_post.1"


def test_train_on_one_condition_and_test_on_another(build, caplog):
    def two_conditions(hidden, index):
        index.loc[index["split"] == "test", "condition"] = "steered"

    with caplog.at_level(logging.WARNING):
        store = build(signal=SIGNAL, spoil=two_conditions)
        sweep = fit_probes(store, test={"split": "test", "condition": "steered"}, shuffles=0, resampled=5)
    assert cell(sweep, site="resid_post.2", probe="logistic", split="dev")["condition"] == "unsteered"
    assert cell(sweep, site="resid_post.2", probe="logistic", split="test")["condition"] == "steered"
