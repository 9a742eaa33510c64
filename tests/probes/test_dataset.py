"""Rows out of a store: complete, labelled, finite, or an error that names the row."""

from __future__ import annotations

import logging

import pandas as pd
import pytest
import torch
from thoughtlens.probes.dataset import matrix

SITES = {"resid_post.0": 0.0, "resid_post.1": 2.0}


def test_rows_of_one_span_and_split(build):
    store = build(signal=SITES, spans=("last_prompt", "thought"))
    data = matrix(store, span="thought", label="harmful", where={"split": ["train", "dev"]})
    assert set(data.index["span"]) == {"thought"} and set(data.index["split"]) == {"train", "dev"}
    hidden, index = store.rows({"span": "thought", "split": ["train", "dev"]})
    assert torch.equal(data.x, hidden)
    assert data.y.tolist() == index["harmful"].tolist() == data.index["harmful"].tolist()
    assert data.groups.tolist() == index["group"].tolist()


def test_unlabelled_rows_are_left_out_and_counted(build, caplog):
    def unlabelled(hidden, index):
        index.loc[:4, "harmful"] = pd.NA

    store = build(signal=SITES, spoil=unlabelled)
    with caplog.at_level(logging.INFO):
        data = matrix(store, span="last_prompt", label="harmful")
    assert len(data) == len(store.index) - 5 and "p4" not in set(data.index["prompt_id"])
    assert "5 of 270 rows" in caplog.text


def test_a_label_may_come_as_numbers_with_gaps(build):
    store = build(signal=SITES, spoil=lambda hidden, index: index.assign(refused=[1.0, 0.0, None] * 90))
    data = matrix(store, span="last_prompt", label="refused")
    assert data.y.tolist() == [True, False] * 90


def test_labels_join_by_prompt_and_say_which_rows_count(build):
    store = build(signal=SITES)
    prompts = store.index["prompt_id"].tolist()
    labels = {p: {"complied": i % 3 == 0, "harmful": i % 2 == 0} for i, p in enumerate(prompts) if i % 5}
    data = matrix(store, span="last_prompt", label="harmful", labels=labels)
    assert data.index["prompt_id"].tolist() == [p for i, p in enumerate(prompts) if i % 5]
    assert data.y.tolist() == [i % 2 == 0 for i in range(len(prompts)) if i % 5]
    some = matrix(store, span="last_prompt", label="harmful", labels=labels, where={"complied": True, "split": ["dev", "train"]})
    assert some.index["complied"].all() and set(some.index["split"]) == {"dev", "train"}
    rows = {p: x for p, x in zip(prompts, store.rows()[0], strict=True)}
    assert all(torch.equal(x, rows[p]) for x, p in zip(some.x, some.index["prompt_id"], strict=True))
    with pytest.raises(ValueError, match="no row has complied == 'yes'; there are "):
        matrix(store, span="last_prompt", label="harmful", labels=labels, where={"complied": "yes"})


def test_sites_may_be_chosen_or_none_be_read(build):
    store = build(signal=SITES)
    one = matrix(store, span="last_prompt", label="harmful", sites=["resid_post.1"])
    assert one.sites == ("resid_post.1",) and torch.equal(one.x, store.rows(sites=["resid_post.1"])[0])
    none = matrix(store, span="last_prompt", label="harmful", sites=())
    assert none.x.shape == (len(store.index), 0, 12) and torch.equal(none.y, one.y)
    assert matrix(store, span="last_prompt", label="harmful").sites == tuple(SITES)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_hidden_state_that_is_not_finite_names_prompt_and_site(build, value):
    def spoilt(hidden, index):
        hidden[7, 1, 3] = value

    store = build(signal=SITES, spoil=spoilt)
    with pytest.raises(ValueError, match=r"prompt 'p7' at resid_post\.1, span 'last_prompt', holds nan or inf \(1 of 270 rows do\)"):
        matrix(store, span="last_prompt", label="harmful")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda index: index.assign(harmful=True), "none of 270 rows has harmful == False"),
        (lambda index: index.assign(harmful=["fraud", "weather"] * 135), "'fraud', 'weather'; a label is true or false"),
        (lambda index: index.assign(group=["g0", ""] * 135), "135 of 270 rows have no 'group', the first is prompt 'p1'"),
        (lambda index: index.assign(pool=["max", "mean"] * 135), r"pooled in several ways \(max, mean\)"),
        (lambda index: index.drop(columns="harmful"), "no column 'harmful'"),
    ],
)
def test_what_cannot_be_used_is_said(build, spoil, message):
    store = build(signal=SITES, spoil=lambda hidden, index: spoil(index))
    with pytest.raises(ValueError, match=message):
        matrix(store, span="last_prompt", label="harmful")


def test_an_unknown_span_or_split_shows_what_there_is(build):
    store = build(signal=SITES)
    with pytest.raises(ValueError, match="'thought' is not in the store; it holds last_prompt"):
        matrix(store, span="thought", label="harmful")
    with pytest.raises(ValueError, match="split: train, dev, test"):
        matrix(store, span="last_prompt", label="harmful", where={"split": "valid"})
    with pytest.raises(ValueError, match="pass it as span="):
        matrix(store, span="last_prompt", label="harmful", where={"span": "thought"})
