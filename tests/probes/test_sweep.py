"""What a sweep tells beside the AUROC: settings chosen by folds, thresholds, calibration, controls, baselines, subsets, in bounded memory."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom
from sklearn.calibration import _SigmoidCalibration
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thoughtlens.hooks.store import Store
from thoughtlens.probes import fit_probes, matrix
from thoughtlens.probes.choose import Labellings, choose, labellings
from thoughtlens.probes.controls import control_task, prompt_types
from thoughtlens.probes.fit import DEALS
from thoughtlens.probes.kinds import KINDS
from thoughtlens.probes.metrics import MEASURES
from thoughtlens.probes.sweep import ranked

SIGNAL = {"resid_post.0": 0.0, "resid_post.1": 1.0, "resid_post.2": 2.0}
FEW = {"shuffles": 2, "directions": 3, "resampled": 10, "progress": False}
SIDES = ("train", "dev", "test")


def sides_of(store, span="last_prompt", **options):
    return {side: matrix(store, span=span, label="harmful", where={"split": side}, **options) for side in SIDES}


def cell(sweep, **wanted):
    rows = sweep.table
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    (row,) = rows.to_dict("records")
    return row


def logistic(**options):
    return make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=10_000, solver="newton-cholesky", **options))


def test_folds_choose_what_a_grid_search_over_the_same_folds_would(build):
    store = build(signal=SIGNAL, cluster=0.8)
    sweep = fit_probes(store, kinds=("logistic",), folds=4, seed=3, **FEW)
    sides = sides_of(store)
    y, groups = sides["train"].y.numpy(), sides["train"].groups
    for i, site in enumerate(store.sites):
        x = {side: data.x[:, i].double().numpy() for side, data in sides.items()}
        search = GridSearchCV(
            logistic(),
            {"logisticregression__C": KINDS["logistic"].settings},
            scoring="roc_auc",
            cv=StratifiedGroupKFold(4, shuffle=True, random_state=3),
        ).fit(x["train"], y, groups=groups)
        row = cell(sweep, site=site, split="test")
        assert row["c"] == search.best_params_["logisticregression__C"]
        assert row["auroc"] == pytest.approx(roc_auc_score(sides["test"].y, search.decision_function(x["test"])), abs=5e-4)
    assert sweep.best.header["selection"]["setting"] == "4 group folds within train"


def test_the_weights_are_scikit_learn_s_in_the_model_s_own_space_balanced_too(build):
    def rare(hidden, index):
        gone = index["harmful"].to_numpy(dtype=bool) & (np.arange(len(index)) % 3 > 0)
        return index.assign(harmful=index["harmful"].where(~gone, None))

    store = build(signal=SIGNAL, spoil=rare)
    train = sides_of(store)["train"]
    x, y = train.x[:, 2].double().numpy(), train.y.numpy()
    assert y.mean() < 0.3
    for balanced in (False, True):
        probe = fit_probes(store, kinds=("logistic",), balanced=balanced, **FEW).probes["resid_post.2", "last_prompt", "logistic"]
        scale, model = logistic(C=probe.setting, class_weight="balanced" if balanced else None).fit(x, y)
        expected = model.coef_[0] / scale.scale_
        np.testing.assert_allclose(probe.weight, expected, rtol=2e-3, atol=2e-4)
        assert probe.bias == pytest.approx(model.intercept_[0] - expected @ scale.mean_, abs=5e-3)
        torch.testing.assert_close(probe.direction.norm(), torch.tensor(1.0))


@pytest.mark.parametrize("folds", [None, 3])
def test_every_labelling_chooses_its_setting_by_its_own_labels(folds):
    torch.manual_seed(1)
    n, d = 90, 30
    train, dev = torch.randn(1, n, d), torch.randn(1, n, d)
    y = torch.rand(12, n) < 0.5
    labels = Labellings(train=y, dev=y.flip(0), task={"train": y[-2:], "dev": y[:2].flip(0)})
    dealt = None if folds is None else torch.arange(n) % folds
    fits = choose("logistic", train, dev, labels, folds=dealt)
    x, settings = train[0].double().numpy(), KINDS["logistic"].settings
    found = []
    for i, (ours, theirs) in enumerate(zip(labels.train.numpy(), labels.dev.numpy(), strict=True)):
        reached = []
        for c in settings:
            if folds is None:
                scores = [(theirs, logistic(C=c).fit(x, ours).decision_function(dev[0].double().numpy()))]
            else:
                held = [(dealt == fold).numpy() for fold in range(folds)]
                scores = [(ours[rows], logistic(C=c).fit(x[~rows], ours[~rows]).decision_function(x[rows])) for rows in held]
            told = [((s > 0) == t).mean() if i >= 10 else roc_auc_score(t, s) for t, s in scores]
            reached.append(np.mean(told))
        found.append(settings[int(np.argmax(np.round(reached, 12)))])
    assert fits.setting[0].tolist() == found
    assert len(set(found)) > 1


def test_dev_labels_are_shuffled_too_group_by_group(build):
    sides = sides_of(build(signal=SIGNAL))
    labels = labellings(sides, 30, 0, deals=3)
    assert labels.train.shape == (34, len(sides["train"])) and labels.dev.shape == (34, len(sides["dev"]))
    assert labels.shuffled == slice(1, 31) and torch.equal(labels.train[31:], labels.task["train"])
    assert len(torch.unique(labels.task["train"], dim=0)) == 3
    assert torch.equal(labels.dev[0], sides["dev"].y)
    shuffled = labels.dev[1:31]
    assert (shuffled.sum(1) == sides["dev"].y.sum()).all()
    assert 0.3 < float((shuffled == sides["dev"].y).double().mean()) < 0.7
    for group in np.unique(sides["dev"].groups):
        rows = torch.from_numpy(sides["dev"].groups == group)
        assert (shuffled[:, rows].sum(1) % 3 == 0).all()


def test_threshold_calibration_and_measures_are_what_others_compute(build):
    store = build(signal=SIGNAL, groups=160)
    sweep = fit_probes(store, kinds=("logistic",), **FEW)
    sides = sides_of(store)
    for site, probe in ((probe.site, probe) for probe in sweep.probes.values()):
        read = {side: probe.readout(sides[side].x[:, store.sites.index(site)]).numpy() for side in ("dev", "test")}
        y = {side: sides[side].y.numpy() for side in ("dev", "test")}
        calibrated = _SigmoidCalibration().fit(read["dev"].astype(float), y["dev"])
        assert calibrated.a_ < 0  # all three rank dev the right way round
        for side in ("dev", "test"):
            row, chance = cell(sweep, site=site, split=side), calibrated.predict(read[side].astype(float))
            assert row["threshold"] == probe.threshold(0.01)
            assert row["fpr_reached"] == pytest.approx((read[side][~y[side]] > row["threshold"]).mean())
            assert row["tpr_reached"] == pytest.approx((read[side][y[side]] > row["threshold"]).mean())
            assert row["brier"] == pytest.approx(brier_score_loss(y[side], chance), abs=1e-4)
            assert row["accuracy"] == pytest.approx(((chance > 0.5) == y[side]).mean(), abs=1.5 / len(chance))
            assert row["auprc"] == pytest.approx(average_precision_score(y[side], read[side]), abs=1e-9)
            assert (row["n_test"], row["n_positive"], row["groups"]) == (len(chance), y[side].sum(), len(set(sides[side].groups)))
        assert cell(sweep, site=site, split="dev")["fpr_reached"] <= 0.01


def test_the_probe_carries_its_test_metrics_its_calibration_and_how_it_was_chosen(build):
    store = build(signal=SIGNAL)
    sweep = fit_probes(store, **FEW)
    data = sides_of(store)["test"]
    for (site, _, kind), probe in sweep.probes.items():
        row = cell(sweep, site=site, probe=kind, split="test")
        for name in MEASURES:
            low, high = ("low", "high") if name == "auroc" else (f"{name}_low", f"{name}_high")
            assert probe.metrics[name] == {"value": row[name], "low": row[low], "high": row[high]}
        assert probe.metrics["sizes"] == {"positives": 33, "negatives": 33, "groups": 22}
        chance = probe.probability(data.x[:, store.sites.index(site)]).double()
        assert float((chance - data.y.double()).square().mean()) == pytest.approx(row["brier"], abs=1e-6)
        assert probe.header["test_prompts_sha256"] == hashlib.sha256("\n".join(sorted(data.index["prompt_id"])).encode()).hexdigest()
        selection = probe.header["selection"]
        assert (selection["setting"], selection["cell"], selection["threshold"], selection["calibration"]) == ("dev",) * 4
        assert selection["cells"] == 6 and selection["test"] == "read once, after every choice"


KINDS_ALL = tuple(KINDS)


def test_sites_streamed_one_by_one_give_the_same_bits(build, monkeypatch):
    store = build(signal=SIGNAL, spans=("last_prompt", "thought"))
    read = []
    plain = Store.numpy

    def counted(self, where=None, *, sites=None):
        read.append(len(sites))
        return plain(self, where, sites=sites)

    monkeypatch.setattr(Store, "numpy", counted)
    together = fit_probes(store, kinds=KINDS_ALL, folds=3, **FEW)
    assert max(read) == 3
    read.clear()
    alone = fit_probes(store, kinds=KINDS_ALL, folds=3, memory=1, **FEW)
    assert max(read) == 1
    key = ["span", "site", "probe", "split"]
    pd.testing.assert_frame_equal(
        together.table.sort_values(key, ignore_index=True), alone.table.sort_values(key, ignore_index=True), check_exact=True
    )
    for name, probe in together.probes.items():
        assert torch.equal(probe.weight, alone.probes[name].weight) and probe.calibration == alone.probes[name].calibration


@pytest.mark.parametrize("memory", [1, 2**31])
def test_a_hidden_state_that_is_not_finite_is_named_wherever_its_site_is_read(build, memory):
    def spoilt(hidden, index):
        hidden[7, 2, 3] = float("nan")

    with pytest.raises(ValueError, match=r"prompt 'p7' at resid_post\.2, span 'last_prompt', holds nan or inf"):
        fit_probes(build(signal=SIGNAL, spoil=spoilt), memory=memory, **FEW)


def test_sites_and_spans_may_be_chosen(build):
    store = build(signal=SIGNAL, spans=("last_prompt", "thought"))
    few = fit_probes(store, sites=["resid_post.2", "resid_post.1"], spans=["thought"], **FEW)
    assert list(few.table["site"].unique()) == ["resid_post.2", "resid_post.1"] and set(few.table["span"]) == {"thought"}
    whole = fit_probes(store, **FEW)
    assert torch.equal(few.probes["resid_post.1", "thought", "logistic"].weight, whole.probes["resid_post.1", "thought", "logistic"].weight)
    with pytest.raises(ValueError, match=r"site 'mlp_out\.1' is not in the store; it holds resid_post\.0"):
        fit_probes(store, sites=["mlp_out.1"], **FEW)


def test_harm_that_is_read_although_the_model_complied(build):
    store = build(signal=SIGNAL)
    prompts = store.index["prompt_id"].tolist()
    gave = {prompt: (None, False, True)[i % 3] for i, prompt in enumerate(prompts)}
    sweep = fit_probes(store, labels={prompt: {"complied": said} for prompt, said in gave.items()}, complied="complied", **FEW)
    test = sides_of(store)["test"]
    keep = ~test.y.numpy() | np.array([gave[prompt] is True for prompt in test.index["prompt_id"]])
    for (site, _, kind), probe in sweep.probes.items():
        row = cell(sweep, site=site, probe=kind, split="test", subset="complied")
        scores = probe.readout(test.x[:, store.sites.index(site)]).numpy()
        assert row["auroc"] == pytest.approx(roc_auc_score(test.y.numpy()[keep], scores[keep]), abs=1e-9)
        assert (row["n_test"], row["n_positive"]) == (keep.sum(), 11)
        assert row["threshold"] == cell(sweep, site=site, probe=kind, split="test", subset="all")["threshold"]
    assert set(ranked(sweep.table)["subset"]) == {"all"}
    with pytest.raises(ValueError, match="no column 'gave_in' says what the model complied with; pass it in labels="):
        fit_probes(store, complied="gave_in", **FEW)


def test_without_a_positive_that_was_complied_with_there_is_no_such_row(build):
    store = build(signal=SIGNAL)
    labels = {prompt: {"complied": False} for prompt in store.index["prompt_id"]}
    assert set(fit_probes(store, labels=labels, complied="complied", **FEW).table["subset"]) == {"all"}


def test_labels_that_come_later_are_as_good_as_labels_in_the_store(build):
    store = build(signal=SIGNAL)
    index = store.index
    verdicts = {
        p: {"refused": None if i % 7 == 0 else bool(h)} for i, (p, h) in enumerate(zip(index.prompt_id, index.harmful, strict=True))
    }
    inside = build(signal=SIGNAL, spoil=lambda hidden, frame: frame.assign(refused=[verdicts[p]["refused"] for p in frame["prompt_id"]]))
    later, before = fit_probes(store, label="refused", labels=verdicts, **FEW), fit_probes(inside, label="refused", **FEW)
    pd.testing.assert_frame_equal(later.table, before.table)
    assert later.table["n_train"].iloc[0] < (index["split"] == "train").sum()


def test_baselines_are_rows_of_the_same_table(build):
    store = build(signal=SIGNAL, spans=("last_prompt", "thought"))
    rows = store.index.drop_duplicates("prompt_id")
    rng = np.random.default_rng(0)
    texts = {
        p: " ".join(rng.choice(["lock", "door", "key"], 4)) + (" now" if h else "")
        for p, h in zip(rows.prompt_id, rows.harmful, strict=True)
    }
    length = {p: int(rng.integers(5, 50)) + 6 * bool(h) for p, h in zip(rows.prompt_id, rows.harmful, strict=True)}
    both = {p: [n, len(p)] for p, n in length.items()}
    sweep = fit_probes(store, baselines={"tfidf_prompt": texts, "length": length, "lengths": both}, texts={"thought": texts}, **FEW)
    plain = sweep.table[sweep.table["site"] == ""]
    assert plain.groupby(["span", "split"])["probe"].agg(list).to_dict() == {
        ("last_prompt", side): ["tfidf_prompt", "length", "lengths"] for side in ("dev", "test")
    } | {("thought", side): ["words", "tfidf_prompt", "length", "lengths"] for side in ("dev", "test")}
    assert set(plain["layer"]) == {-1} and plain["c"].isna().all() and plain["control_auroc"].isna().all()
    assert not plain[[*MEASURES, "low", "high", "threshold", "fpr_reached"]].isna().any().any()
    sides = sides_of(store)
    told = cell(sweep, probe="length", span="thought", split="test")
    counts = [length[p] for p in sides["test"].index["prompt_id"]]
    assert told["auroc"] == pytest.approx(roc_auc_score(sides["test"].y, counts), abs=1e-9)
    vectors = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2))
    given = {side: [texts[p] for p in data.index["prompt_id"]] for side, data in sides.items()}
    x = vectors.fit_transform(given["train"])
    areas = []
    for c in (0.1, 1.0, 10.0, 100.0):
        model = LogisticRegression(C=c, max_iter=1000).fit(x, sides["train"].y.numpy())
        areas.append([roc_auc_score(sides[side].y, model.decision_function(vectors.transform(given[side]))) for side in ("dev", "test")])
    assert cell(sweep, probe="tfidf_prompt", span="last_prompt", split="test")["auroc"] == pytest.approx(max(areas, key=lambda a: a[0])[1])
    assert (ranked(sweep.table)["site"] != "").all() and sweep.best.site == "resid_post.2"
    with pytest.raises(ValueError, match=r"baselines\['length'\] lacks 1 prompts of the store, the first is 'p8'"):
        fit_probes(store, baselines={"length": {p: n for p, n in length.items() if p != "p8"}}, **FEW)
    with pytest.raises(ValueError, match="a baseline cannot be called 'ridge'"):
        fit_probes(store, baselines={"ridge": length}, **FEW)


def test_the_control_task_is_fitted_chosen_and_calibrated_like_the_true_one(build):
    store = build(signal=SIGNAL, groups=160)
    sweep = fit_probes(store, kinds=("logistic",), **FEW)
    sides = sides_of(store)
    types = {side: prompt_types(data.index) for side, data in sides.items()}
    deals = [{side: y.numpy() for side, y in control_task(types, [0, deal]).items()} for deal in range(DEALS)]
    for i, site in enumerate(store.sites):
        x = {side: data.x[:, i].double().numpy() for side, data in sides.items()}
        known = []
        for task in deals:
            models = [logistic(C=c).fit(x["train"], task["train"]) for c in KINDS["logistic"].settings]
            best = max(models, key=lambda model: model.score(x["dev"], task["dev"]))
            calibrated = _SigmoidCalibration().fit(best.decision_function(x["dev"]), task["dev"])
            chance = calibrated.predict(best.decision_function(x["test"]))
            chance = chance if calibrated.a_ < 0 else np.full_like(chance, task["dev"].mean())  # its slope is -a_
            known.append(((chance > 0.5) == task["test"]).mean())
        row, off = cell(sweep, site=site, split="test"), 1.5 / len(deals[0]["test"])
        assert row["task_accuracy"] == pytest.approx(np.mean(known), abs=off)
        assert row["selectivity"] == pytest.approx(row["accuracy"] - row["task_accuracy"])
        assert row["selectivity_low"] == pytest.approx(row["accuracy"] - max(known), abs=off)
        assert row["selectivity_high"] == pytest.approx(row["accuracy"] - min(known), abs=off)
        assert row["selectivity_low"] < row["selectivity_high"]


def test_a_score_that_reads_the_wrong_way_round_is_not_turned_around(build):
    def turned(hidden, index):
        rows = torch.tensor((index["split"] != "train").to_numpy())
        hidden[rows, 2] = 6.0 - hidden[rows, 2]

    sweep = fit_probes(build(signal=SIGNAL, spoil=turned), kinds=("mean_difference",), **FEW)
    probe, row = sweep.probes["resid_post.2", "last_prompt", "mean_difference"], cell(sweep, site="resid_post.2", split="test")
    assert row["auroc"] < 0.3 and row["accuracy"] == 0.5 and row["brier"] == pytest.approx(0.25)
    assert probe.calibration[0] == 0 and probe.probability(torch.randn(3, 12)).tolist() == pytest.approx([0.5] * 3)


def test_a_class_out_of_one_group_has_no_interval_and_that_is_said_once(build, caplog):
    def rare(hidden, index):
        gone = index["harmful"].astype(bool) & (index["split"] == "test") & (index["group"] != "g6")
        return index.assign(harmful=index["harmful"].where(~gone, None))

    with caplog.at_level(logging.WARNING):
        sweep = fit_probes(build(signal=SIGNAL, spoil=rare), **FEW)
    test, dev = (sweep.table[sweep.table["split"] == side] for side in ("test", "dev"))
    bounds = [name for name in sweep.table if name.endswith(("low", "high")) and not name.startswith(("control", "random", "selectivity"))]
    assert len(bounds) == 14 and test[bounds].isna().all().all() and not dev[bounds].isna().any().any()
    assert not test["auroc"].isna().any()
    assert caplog.text.count("a class of the test rows (all) comes from 1 group: no interval") == 1


def test_what_is_given_by_prompt_id_is_refused_where_several_models_wrote(build):
    def written(hidden, index):
        return index.assign(written_by=np.where(index["split"] == "test", "safe", "base"))

    store = build(signal=SIGNAL, spoil=written)
    prompts = store.index["prompt_id"]
    assert len(fit_probes(store, **FEW).table)
    given = (
        {"labels": {p: {"refused": True} for p in prompts}},
        {"baselines": {"length": dict.fromkeys(prompts, 3)}},
        {"texts": {"last_prompt": dict.fromkeys(prompts, "a word")}},
    )
    for by_prompt in given:
        with pytest.raises(ValueError, match=r"these rows were written by several models \(base, safe\)"):
            fit_probes(store, **by_prompt, **FEW)


@pytest.mark.parametrize("kind", KINDS)
def test_scatters_of_every_fold_count_as_memory(build, monkeypatch, kind):
    read = []
    plain = Store.numpy
    monkeypatch.setattr(Store, "numpy", lambda self, where=None, *, sites=None: read.append(len(sites)) or plain(self, where, sites=sites))
    store = build(signal=dict.fromkeys(SIGNAL, 1.0), groups=64, per_group=12, d=200)
    fit_probes(store, kinds=(kind,), folds=5, shuffles=0, directions=0, resampled=0, progress=False, memory=18 * 2**20)
    assert max(read) == (1 if kind in ("whitened", "lda", "ridge") else 2)


def test_a_space_that_holds_the_types_is_not_selective(build):
    def typed(hidden, index):
        for i, name in enumerate(prompt_types(index)):
            hidden[i, 1, hash_of(name)] += 12

    row = cell(fit_probes(build(signal=SIGNAL, spoil=typed), kinds=("logistic",), **FEW), site="resid_post.1", split="test")
    assert row["task_accuracy"] > 0.9 and row["selectivity"] < 0


def hash_of(name: str) -> int:
    return ["fraud", "privacy", "weather"].index(name.split("|")[1]) * 3 + ["plain", "roleplay", "typographic"].index(name.split("|")[0])


def test_prompts_without_types_that_recur_have_no_control_task(build):
    told = fit_probes(build(signal=SIGNAL, spoil=lambda hidden, index: index.assign(category="", attack="plain")), **FEW).table
    assert told[["task_accuracy", "selectivity"]].isna().all().all()
    other = fit_probes(build(signal=SIGNAL, spoil=lambda hidden, index: index.assign(category=index["split"])), **FEW).table
    assert not other["task_accuracy"].isna().any()


def test_without_a_signal_the_permutation_p_is_small_as_rarely_as_it_says(build):
    store = build(signal={f"resid_post.{i}": 0.0 for i in range(200)}, groups=40, per_group=2, d=6, cluster=1.0)
    table = fit_probes(store, kinds=("mean_difference",), shuffles=19, directions=0, resampled=0, progress=False).table
    small = int((table[table["split"] == "test"]["control_p"] <= 0.1).sum())
    assert binom.ppf(0.001, 200, 0.1) <= small <= binom.ppf(0.999, 200, 0.1)


def test_random_directions_and_no_controls_at_all(build):
    store = build(signal={"resid_post.0": 0.0, "resid_post.1": 8.0}, d=3)
    table = fit_probes(store, shuffles=0, directions=40, resampled=0, progress=False).table
    near = table[table["site"] == "resid_post.1"]
    assert (near["random_auroc"] > 0.8).all() and (near["random_auroc"] <= near["random_high"]).all()
    assert (table[table["site"] == "resid_post.0"]["random_auroc"] < 0.7).all()
    assert table[["control_auroc", "control_high", "control_p", "low", "high", "ece_low"]].isna().all().all()
