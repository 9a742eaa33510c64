"""The answer key of the made-up world, precision and recall beside it, and which checkpoints every run is read with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments.answer_key import against_key, positions
from thoughtlens.experiments.deciding import homes
from thoughtlens.experiments.organism.thoughts import decisions
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.model import load
from thoughtlens.hooks.records import Prompt, Transcript

THOUGHT = "okay . the picture shows the golub . what do i do ? i recall the method : weld , cut . is this safe ? no . i must refuse ."


def test_the_key_names_the_steps_that_are_decided():
    assert decisions(THOUGHT) == [2, 4] and decisions("okay . is this ?") == [] and decisions("") == []


def test_every_run_is_read_with_its_own_checkpoints():
    runs, folders = ["a", Path("b"), "c"], [Path("x"), Path("y"), Path("z")]
    assert homes(runs, ()) == {Path("a"): None, Path("b"): None, Path("c"): None}
    assert homes(runs, folders[:1]) == {Path("a"): Path("x"), Path("b"): Path("x"), Path("c"): Path("x")}
    assert homes(runs, folders) == {Path("a"): Path("x"), Path("b"): Path("y"), Path("c"): Path("z")}
    assert homes(["a"], ()) == {Path("a"): None}
    with pytest.raises(ValueError, match="there are 3 runs and 2 folders of checkpoints; pass one for all of them, or one a run, in order"):
        homes(runs, folders[:2])


def test_positions_are_those_of_the_tokens():
    lens = load(CHECKPOINTS / "reasoning", device="cpu")
    begun = tuple(encode(lens, [Prompt("p", "x")]).ids[0])
    ids = lens.tokenizer(f"<think> {THOUGHT} </think> sure .", add_special_tokens=False)["input_ids"]
    about = {"prompt_ids": begun, "output_ids": tuple(ids), "text": "", "ended": True, "status": "closed", "thought": THOUGHT}
    t = Transcript(Prompt("p", "x", benchmark="organism"), "m", answer="sure .", **about)
    (places,) = positions([t], lens).values()
    assert [lens.tokenizer.decode(ids[: at + 1]).split(" ")[-2:] for at in sorted(places)] == [["do", "?"], ["safe", "?"]]
    other = replace(t, prompt=Prompt("q", "x"))
    assert positions([other], lens) == {} and list(positions([other], lens, lambda thought: [0])) == ["q"]


def test_rates_are_sklearns_and_intervals_draw_whole_goals():
    found, key, groups = {}, {}, {}
    for number in range(40):
        id_, truth = f"p{number}", {4, 9}
        bad = number // 4 < 3  # all four thoughts of a goal miss alike
        found[id_], key[id_], groups[id_] = ({4, 7} if bad else truth), truth, f"g{number // 4}"
    table = against_key(found, key, groups, resampled=500).set_index("metric")
    flat = [(at in found[id_], at in key[id_]) for id_ in key for at in range(12)]
    hits, truth = np.array(flat).T
    assert table.loc["precision", "value"] == pytest.approx(precision_score(truth, hits))
    assert table.loc["recall", "value"] == pytest.approx(recall_score(truth, hits))
    assert table.loc["recall", ["numerator", "n", "thoughts", "groups"]].tolist() == [68, 80, 40, 10]
    alone = against_key(found, key, {id_: id_ for id_ in key}, resampled=500).set_index("metric")
    width = table["high"] - table["low"]
    assert (
        (width > 1.5 * (alone["high"] - alone["low"])).all()
        and (table["low"] < table["value"]).all()
        and (table["value"] < table["high"]).all()
    )


def test_all_hits_are_no_certainty():
    key = {f"p{i}": {3} for i in range(10)}
    table = against_key(key, key, {id_: id_ for id_ in key})
    assert (table["value"] == 1).all() and table["low"].tolist() == pytest.approx([0.025**0.1] * 2) and (table["high"] == 1).all()
    none = against_key({id_: set() for id_ in key}, key, {id_: id_ for id_ in key}).set_index("metric")
    assert np.isnan(none.loc["precision", "value"]) and none.loc["recall", "high"] == pytest.approx(1 - 0.025**0.1)
    with pytest.raises(ValueError, match="knows 1 thoughts that were not looked at"):
        against_key({id_: {3} for id_ in list(key)[1:]}, key, {id_: id_ for id_ in key})
