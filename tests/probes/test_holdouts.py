"""Holding out: groups stay whole, what is left out is not seen, several models are one data set."""

from __future__ import annotations

import logging

import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut
from thoughtlens.probes import Probe, fit_probes, matrix
from thoughtlens.probes.splits import IMAGE_BORNE, WORDED, check_whole, holdouts

SIGNAL = {"resid_post.0": 0.5, "resid_post.1": 2.0}
FEW = {"shuffles": 1, "directions": 1, "resampled": 0, "progress": False}


def rows_of(store, way):
    return {side: matrix(store, span="last_prompt", label="harmful", where=where, sites=()).index for side, where in way.sides.items()}


def whole(sides):
    check_whole({side: index["group"].to_numpy() for side, index in sides.items()})
    return sides


@pytest.mark.parametrize("column", ["category", "attack"])
def test_what_is_left_out_is_what_leave_one_group_out_leaves(build, column):
    store = build(signal=SIGNAL)
    index = store.index
    ways = holdouts(index, f"leave-{column}-out")
    theirs = list(LeaveOneGroupOut().split(index, groups=index[column]))
    assert len(ways) == len(theirs) == 3
    for way, (seen, unseen) in zip(ways, theirs, strict=True):
        sides = whole(rows_of(store, way))
        split = index["split"].to_numpy()
        for side, part in (("train", seen), ("dev", seen), ("test", unseen)):
            assert sides[side]["prompt_id"].tolist() == index["prompt_id"].iloc[part][split[part] == side].tolist()
        assert way.name == f"without {sides['test'][column].iloc[0]}"


@pytest.mark.parametrize("nothing", ["", None])
def test_rows_that_belong_to_no_category_stay_on_every_side(build, nothing):
    def only_harm_has_one(hidden, index):
        return index.assign(category=index["category"].where(index["harmful"].astype(bool), nothing))

    store = build(signal=SIGNAL, spoil=only_harm_has_one)
    for way in holdouts(store.index, "leave-category-out"):
        sides = whole(rows_of(store, way))
        left_out = way.name.removeprefix("without ")
        for side, index in sides.items():
            harmful = index["harmful"].astype(bool)
            assert (~harmful).sum() == (~store.index["harmful"].astype(bool) & (store.index["split"] == side)).sum()
            assert set(index["category"][harmful] == left_out) == {side == "test"}


def test_a_value_that_leaves_one_label_only_is_said_and_left_out(build, caplog):
    def harmless_weather(hidden, index):
        return index.assign(category=index["category"].mask(index["harmful"].astype(bool), "fraud"))

    store = build(signal=SIGNAL, spoil=harmless_weather)
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="no category leaves both labels of 'harmful' on every side"):
        holdouts(store.index, "leave-category-out")
    assert "leaving category 'weather' out leaves one label of 'harmful' only on test" in caplog.text

    def weather_is_harmless(hidden, index):
        return index.assign(category=index["category"].mask(index["harmful"].astype(bool) & (index["category"] == "weather"), "fraud"))

    store = build(signal=SIGNAL, spoil=weather_is_harmless)
    assert [way.name for way in holdouts(store.index, "leave-category-out")] == ["without fraud", "without privacy"]


def test_text_and_pictures(build):
    store = build(signal=SIGNAL)
    for split, born in (("text-to-image", True), ("image-to-text", False)):
        (way,) = holdouts(store.index, split)
        sides = whole(rows_of(store, way))
        assert set(sides["test"]["attack"] == "typographic") == {born}
        assert set(sides["train"]["attack"] == "typographic") == set(sides["dev"]["attack"] == "typographic") == {not born}
        assert way.name == split
    spoken = build(signal=SIGNAL, spoil=lambda hidden, index: index.assign(attack="plain"))
    with pytest.raises(ValueError, match=r"text-to-image needs attacks whose request is in a picture \(.*typographic.*\); there are plain"):
        holdouts(spoken.index, "text-to-image")


@pytest.mark.parametrize("split", ["text-to-image", "image-to-text"])
def test_an_attack_is_known_in_any_case_and_refused_where_no_table_has_it(build, split):
    store = build(signal=SIGNAL, spoil=lambda hidden, index: index.assign(attack=index["attack"].replace("roleplay", "SD_TYPO")))
    (way,) = holdouts(store.index, split)
    words, pictures = (way.train, way.test) if split == "text-to-image" else (way.test, way.train)
    assert (words["attack"], pictures["attack"]) == (["plain"], ["SD_TYPO", "typographic"])
    odd = build(signal=SIGNAL, spoil=lambda hidden, index: index.assign(attack=index["attack"].replace("roleplay", "Origami")))
    with pytest.raises(ValueError, match=r"whether the request of attack 'Origami' stands in words .* pictures=\{'Origami': True\}"):
        fit_probes(odd, split=split, **FEW)
    for said in (True, False):
        table = fit_probes(odd, split=split, pictures={"origami": said}, **FEW).table
        assert set(table["n_test"][table["split"] == "test"]) == {22 + 22 * (said == (split == "text-to-image"))}


def test_no_attack_is_in_both_tables():
    assert not IMAGE_BORNE & WORDED and all(name == name.casefold() for name in IMAGE_BORNE | WORDED)


@pytest.mark.parametrize("nothing", ["", None])
@pytest.mark.parametrize("split", ["text-to-image", "image-to-text"])
def test_rows_without_an_attack_stay_on_every_side(build, split, nothing):
    def only_harm_is_wrapped(hidden, index):
        return index.assign(attack=index["attack"].where(index["harmful"].astype(bool), nothing))

    store = build(signal=SIGNAL, spoil=only_harm_is_wrapped)
    (way,) = holdouts(store.index, split)
    for side, index in whole(rows_of(store, way)).items():
        assert (~index["harmful"].astype(bool)).sum() == (~store.index["harmful"].astype(bool) & (store.index["split"] == side)).sum()


def test_groups_are_dealt_where_rows_have_no_sides(build):
    store = build(signal=SIGNAL, spans=("last_prompt", "thought"), spoil=lambda hidden, index: index.assign(split=""))
    (way,) = holdouts(store.index, "folds", seed=5)
    sides = whole(rows_of(store, way))
    assert sum(map(len, sides.values())) == (store.index["span"] == "last_prompt").sum()
    assert {side: round(len(index) / 270, 1) for side, index in sides.items()} == {"train": 0.6, "dev": 0.2, "test": 0.2}
    for index in sides.values():
        assert index["harmful"].mean() == pytest.approx(0.5, abs=0.06)
    sweep = fit_probes(store, split="folds", **FEW)
    assert set(sweep.table["holdout"]) == {"folds"} and sweep.best.header["split"] == "folds"


def test_one_argument_fits_all_the_ways(build):
    store = build(signal=SIGNAL, spans=("last_prompt", "thought"))
    sweep = fit_probes(store, split="leave-category-out", **FEW)
    names = ["without fraud", "without privacy", "without weather"]
    assert list(sweep.table["holdout"].unique()) == names
    assert not sweep.table.duplicated(["holdout", "site", "span", "probe", "split"]).any()
    probe = sweep.probes["resid_post.1", "thought", "logistic", "without privacy"]
    assert probe.header["holdout"] == "without privacy" and probe.header["sides"]["test"] == {"split": "test", "category": ["privacy"]}
    assert sweep.pick(holdout="without weather").header["holdout"] == "without weather"
    for choose in (lambda: sweep.best, lambda: sweep.pick(span="thought")):
        with pytest.raises(ValueError, match=r"cells of 3 holdouts are left .* Choose one: pick\(holdout='without fraud'\)"):
            choose()
    seen = {"split": "train", "category": ["fraud", "weather"]}
    alone = fit_probes(
        store, train=seen, valid={**seen, "split": "dev"}, test={"split": "test", "category": "privacy"}, spans=["thought"], **FEW
    )
    same = sweep.table.query("holdout == 'without privacy' and span == 'thought'")
    pd.testing.assert_frame_equal(
        same.drop(columns="holdout").reset_index(drop=True), alone.table.drop(columns="holdout"), check_exact=False, rtol=1e-12
    )


def tuned(build, name, **options):
    """The checkpoint `name`: what the others read on the same tokens, and a little of its own."""

    def own(hidden, index):
        hidden += 0.3 * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(len(name)))

    return build(signal=SIGNAL, model=name, fingerprint=name, spoil=own, **options)


def test_fitted_on_one_model_and_tested_on_the_others(build):
    names = ("base", "reasoning", "safe")
    stores = [tuned(build, name) for name in names]
    sweep = fit_probes(stores, split="base-to-reasoning-to-safe", kinds=("logistic",), **FEW)
    alone = fit_probes(stores[0], kinds=("logistic",), **FEW)
    for store, name in zip(stores[1:], ("reasoning", "safe"), strict=True):
        rows = sweep.table[sweep.table["holdout"] == f"base-to-{name}"]
        data = matrix(store, span="last_prompt", label="harmful", where={"split": "test"})
        for i, site in enumerate(store.sites):
            probe = alone.probes[site, "last_prompt", "logistic"]
            told = rows[(rows["site"] == site) & (rows["split"] == "test")].iloc[0]
            assert told["auroc"] == pytest.approx(roc_auc_score(data.y, probe.readout(data.x[:, i])), abs=1e-9)
            assert (told["model"], told["n_test"], told["n_train"]) == (name, len(data), probe.header["n_train"])
        assert set(rows[rows["split"] == "dev"]["model"]) == {"base"}
    probe = sweep.probes["resid_post.1", "last_prompt", "logistic", "base-to-safe"]
    assert (probe.model, probe.header["fingerprint"]) == ("base", "base")
    with pytest.raises(ValueError, match="no store holds the model 'tuned'; there are base, reasoning, safe"):
        fit_probes(stores, split="base-to-tuned", **FEW)


@pytest.mark.parametrize("split", ["given", "folds", "base-to-safe", "leave-category-out"])
def test_models_of_other_bases_are_not_put_together(build, split):
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0]

    def rotated(hidden, index):
        hidden[:, 1] = hidden[:, 1] @ turn

    base = tuned(build, "base")
    few = {**FEW, "split": split, "kinds": ("mean_difference",)}
    assert len(fit_probes([base, tuned(build, "safe")], **few).table)
    other = build(signal=SIGNAL, model="safe", fingerprint="safe", spoil=rotated)
    with pytest.raises(ValueError, match=r"one basis at resid_post\.1 .* transfer\(along='model', align='procrustes'\)"):
        fit_probes([base, other], **few)
    assert len(fit_probes([base, other], sites=["resid_post.0"], **few).table)
    elsewhere = build(signal=SIGNAL, model="safe", fingerprint="safe", spoil=lambda hidden, index: index.assign(ids_sha="other"))
    with pytest.raises(ValueError, match="'base' and 'safe' were not read on the same tokens"):
        fit_probes([base, elsewhere], **few)


def test_a_store_that_no_side_reads_needs_no_basis(build):
    stores = [tuned(build, "base"), build(signal=SIGNAL, model="safe", fingerprint="safe", seed=7)]
    alone = {side: {"split": split, "model": "base"} for side, split in (("train", "train"), ("valid", "dev"), ("test", "test"))}
    assert fit_probes(stores, **alone, **FEW).best.model == "base"


def test_several_stores_are_one_data_set(build, write):
    stores = [build(signal=SIGNAL, model=model, seed=seed) for seed, model in enumerate(("base", "safe"))]
    data = matrix(stores, span="last_prompt", label="harmful", where={"split": "dev"})
    assert data.index["model"].tolist() == ["base"] * (len(data) // 2) + ["safe"] * (len(data) // 2)
    one = matrix(stores, span="last_prompt", label="harmful", where={"split": "dev", "model": "safe"})
    assert (one.x == data.x[len(data) // 2 :]).all()
    assert fit_probes(stores, **FEW).best.model == "base+safe"
    with pytest.raises(ValueError, match="two stores hold the same vector: prompt 'p0' of 'base' at 'last_prompt'"):
        matrix([stores[0], stores[0]], span="last_prompt", label="harmful")
    other = build(signal={"resid_post.7": 1.0})
    with pytest.raises(ValueError, match=r"do not go together: .* has resid_post\.0, resid_post\.1 at width 12; .* has resid_post\.7"):
        fit_probes([stores[0], other], **FEW)


def test_a_split_that_is_not_known_shows_those_that_are(build):
    index = build(signal=SIGNAL).index
    with pytest.raises(ValueError, match="unknown split 'random'; known are given, folds, leave-<column>-out, text-to-image"):
        holdouts(index, "random")
    with pytest.raises(ValueError, match="no column 'topic' in the index"):
        holdouts(index, "leave-topic-out")
    with pytest.raises(ValueError, match="leaving one condition out needs at least two; there is unsteered"):
        holdouts(index, "leave-condition-out")


def test_a_probe_of_any_way_survives_its_file(build, tmp_path):
    store = build(signal=SIGNAL, spoil=lambda hidden, index: index.assign(category=index["category"].replace("weather", None)))
    for i, split in enumerate(("folds", "leave-category-out", "leave-attack-out", "text-to-image")):
        sweep = fit_probes(store, split=split, **FEW)
        best = sweep.pick(holdout=sweep.table["holdout"].iloc[0])
        best.save(tmp_path / f"{i}.safetensors")
        loaded = Probe.load(tmp_path / f"{i}.safetensors")
        assert loaded.header == best.header and loaded.metrics == best.metrics and loaded.calibration == best.calibration
        assert loaded.setting == best.setting and loaded.header["split"] == split
