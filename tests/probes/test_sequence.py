"""Sequence probes: scores as numpy makes them, weights as scikit-learn has them, prompts that all weigh the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thoughtlens.hooks.store import Store
from thoughtlens.probes.kinds import KINDS
from thoughtlens.probes.probe import Probe
from thoughtlens.probes.sequence import fit_sequence
from thoughtlens.probes.tokens import Reader, over_tokens, spaced, token_prompts

D = 8
SIDES = ("train", "train", "dev", "test")
Carries = Callable[[np.random.Generator, int], np.ndarray]


def everywhere(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.ones(n)


def somewhere(rng: np.random.Generator, n: int) -> np.ndarray:
    return 4.0 * (np.arange(n) == rng.integers(n - 1))


def at_the_end(rng: np.random.Generator, n: int) -> np.ndarray:
    return 4.0 * (np.arange(n) == n - 1)


def token_store(
    write: Callable[..., Store],
    carries: Carries,
    *,
    groups: int = 160,
    per_group: int = 2,
    lengths: tuple[int, int] = (3, 30),
    signal: float = 1.0,
    seed: int = 0,
    spoil: Callable[[torch.Tensor, pd.DataFrame], None] | None = None,
) -> Store:
    """Thoughts token by token; `carries` says how strongly each token of a harmful one carries the signal, along feature 0 of site b."""
    rng = np.random.default_rng(seed)
    hidden, rows = [], []
    for group in range(groups):
        for one in range(per_group):
            n, harmful = int(rng.integers(lengths[0], lengths[1] + 1)), group % 2 == 0
            x = rng.normal(size=(n, 2, D)) * np.linspace(0.5, 3, D) + 2
            x[:, 1, 0] += signal * harmful * carries(rng, n)
            hidden.append(x)
            for at in range(n):
                rows.append(
                    {
                        **{"prompt_id": f"p{group}-{one}", "model": "reasoning", "condition": "unsteered", "group": f"g{group}"},
                        **{"split": SIDES[group // 2 % 4], "harmful": harmful, "attack": ("plain", "prefix")[one % 2]},
                        **{"category": "abcd"[group // 8 % 4], "span": "thought", "pool": "every", "start": 5 + at, "stop": 6 + at},
                    }
                )
    states, index = torch.from_numpy(np.concatenate(hidden)).float(), pd.DataFrame(rows)
    if spoil:
        spoil(states, index)
    order = np.random.default_rng(seed).permutation(len(index))  # a store need not hold a thought's tokens in order
    return write(states[order], index.iloc[order].reset_index(drop=True), ["resid_post.0", "resid_post.1"])


def thoughts_of(store: Store, split: str, site: int = 1) -> tuple[list[np.ndarray], np.ndarray]:
    x, index = store.rows({"split": split})
    found, y = [], []
    for _, rows in index.sort_values("start").groupby("prompt_id", sort=False):
        found.append(x[torch.tensor(rows.index), site].numpy())
        y.append(bool(rows.harmful.iloc[0]))
    return found, np.array(y)


POOLS = {"mean": np.mean, "max": np.max, "last": lambda scores: scores[-1]}
FEW = {"shuffles": 2, "directions": 2, "resampled": 20, "progress": False}


@pytest.mark.parametrize(("carries", "over"), [(everywhere, "mean"), (somewhere, "max"), (at_the_end, "last")])
def test_the_way_of_making_one_score_is_chosen_on_dev(write, carries: Carries, over: str) -> None:
    store = token_store(write, carries, signal={"mean": 0.6, "max": 2.0, "last": 0.8}[over])
    sweep = fit_sequence(store, sites=["resid_post.1"], **FEW)
    assert set(sweep.table["over"]) == {over}
    assert sweep.table["auroc"].min() > 0.8


@pytest.mark.parametrize("side", ["dev", "test"])
def test_scores_are_the_probe_s_readouts_of_every_token_put_together(write, side: str) -> None:
    store = token_store(write, somewhere, signal=1.5)
    sweep = fit_sequence(store, sites=["resid_post.1"], **FEW)
    row = sweep.table.query("split == @side").iloc[0]
    thoughts, y = thoughts_of(store, side)
    probe = sweep.probes["resid_post.1", "thought", "sequence"]
    scores = np.array([POOLS[row["over"]](probe.readout(torch.from_numpy(x)).numpy()) for x in thoughts])
    assert row["auroc"] == pytest.approx(roc_auc_score(y, scores), abs=1e-6)
    for name, value in (("negative", False), ("positive", True)):
        np.testing.assert_allclose(probe.scores[f"{side}_{name}"], np.sort(scores[y == value]), rtol=1e-4, atol=1e-4)
    assert (row["n_train"], row["n_test"], row["n_positive"]) == (160, 80, 40)


def test_the_direction_is_scikit_learn_s_on_the_sampled_tokens(write) -> None:
    store = token_store(write, everywhere)
    sweep = fit_sequence(store, tokens=5, sites=["resid_post.1"], **FEW)
    probe = sweep.best
    prompts = token_prompts(store, span="thought", label="harmful", where={"split": "train"})
    x = Reader([store], "resid_post.1", "thought", "cpu", 2**30).sample(prompts, 5, 0).double().numpy()
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=sweep.table["c"].iloc[0], tol=1e-10, max_iter=10_000))
    theirs.fit(x, prompts.data.y.repeat_interleave(5).numpy())
    scale, model = theirs[0], theirs[1]
    np.testing.assert_allclose(probe.weight, model.coef_[0] / scale.scale_, rtol=1e-3, atol=1e-4)
    assert probe.bias == pytest.approx(model.intercept_[0] - (model.coef_[0] / scale.scale_) @ scale.mean_, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_probe_can_be_the_direction(write, kind: str) -> None:
    sweep = fit_sequence(token_store(write, everywhere), kind=kind, sites=["resid_post.1"], **FEW)
    assert sweep.table["auroc"].min() > 0.9 and sweep.best.kind == "sequence" and sweep.best.header["fitted"] == kind
    assert sweep.table["c"].iloc[0] in KINDS[kind].settings or np.isnan(sweep.table["c"].iloc[0])


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=8), tokens=st.integers(1, 20), seed=st.integers(0, 1000))
def test_every_prompt_gives_as_many_tokens_and_none_of_its_own_much_more_often_than_another(
    counts: list[int], tokens: int, seed: int
) -> None:
    starts = torch.from_numpy(np.random.default_rng(seed).random(len(counts)))
    for n, at in zip(counts, spaced(torch.tensor(counts), tokens, starts), strict=True):
        times = torch.bincount(at, minlength=n)
        assert len(at) == tokens and len(times) == n and times.max() - times.min() <= 1 and (at.diff() >= 0).all()


def test_every_token_has_the_same_chance_of_being_taken() -> None:
    starts = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:-1]
    for n, tokens in ((7, 3), (3, 7), (5, 5), (40, 1)):
        taken = torch.bincount(spaced(torch.full((10_000,), n), tokens, starts).flatten(), minlength=n)
        torch.testing.assert_close(taken / 10_000, torch.full((n,), tokens / n), atol=2e-3, rtol=0)


def test_a_thought_ten_times_as_long_counts_no_more(write) -> None:
    def drawn_out(states: torch.Tensor, index: pd.DataFrame) -> None:
        index["start"] *= 10

    store = token_store(write, everywhere, groups=32, spoil=drawn_out)
    x, index = store.rows()
    index = index.drop(columns=["shard", "offset", "shard_sha"])
    long = index["prompt_id"].isin(["p0-0", "p1-1", "p8-0"])
    longer = [index[long].assign(start=index["start"][long] + i) for i in range(1, 10)]
    more = write(
        torch.cat([x, *[x[torch.tensor(long.to_numpy())]] * 9]), pd.concat([index, *longer], ignore_index=True)[list(index)], store.sites
    )
    for one in ("resid_post.0", "resid_post.1"):
        few, many = (
            Reader([some], one, "thought", "cpu", 2**30).sample(
                token_prompts(some, span="thought", label="harmful", where={"split": "train"}), 16, 0
            )
            for some in (store, more)
        )
        assert torch.equal(few.sort(0).values, many.sort(0).values)


def test_bounded_memory_changes_nothing(write) -> None:
    store = token_store(write, somewhere, groups=24)
    whole, bit = (fit_sequence(store, memory=memory, **FEW) for memory in (2**30, 1))
    pd.testing.assert_frame_equal(whole.table, bit.table)
    for cell, probe in whole.probes.items():
        assert torch.equal(probe.weight, bit.probes[cell].weight)


@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_scores_are_means_maxima_and_last_readouts(counts: list[int], seed: int) -> None:
    readouts = torch.from_numpy(np.random.default_rng(seed).normal(size=(sum(counts), 2, 3)))
    parts = np.split(readouts.numpy(), np.cumsum(counts)[:-1])
    for over, pool in {"mean": lambda part: part.mean(0), "max": lambda part: part.max(0), "last": lambda part: part[-1]}.items():
        np.testing.assert_allclose(over_tokens(readouts, torch.tensor(counts), over), np.stack([pool(part) for part in parts]))


def test_test_labels_choose_nothing(write) -> None:
    def lie(states: torch.Tensor, index: pd.DataFrame) -> None:
        test = index["split"] == "test"
        index.loc[test, "harmful"] = ~index.loc[test, "harmful"]

    honest, turned = (fit_sequence(token_store(write, somewhere, signal=1.5, spoil=spoil), **FEW) for spoil in (None, lie))
    for cell, probe in honest.probes.items():
        assert torch.equal(probe.weight, turned.probes[cell].weight)
    for name in ("over", "c", "threshold"):
        assert honest.table[name].equals(turned.table[name])
    assert honest.best.site == turned.best.site
    assert (turned.table.query("split == 'test' and site == 'resid_post.1'")["auroc"] < 0.3).all()


def test_controls_stay_at_chance_where_there_is_nothing_to_read(write) -> None:
    store = token_store(write, everywhere, groups=240)
    table = fit_sequence(store, shuffles=20, directions=20, resampled=50, progress=False).table.set_index(["site", "split"])
    nothing, signal = (table.loc[f"resid_post.{i}"].loc["test"] for i in (0, 1))
    assert abs(nothing["control_auroc"] - 0.5) < 0.08 and 0.5 < nothing["control_high"] < 0.75
    assert signal["auroc"] > 0.95 > nothing["random_high"] > nothing["random_auroc"] > 0.3
    assert signal["control_p"] == pytest.approx(1 / 21) and abs(nothing["auroc"] - 0.5) < 0.2
    assert signal["task_accuracy"] < 0.7 and signal["selectivity"] > 0.2


def test_labels_and_words_come_from_outside_too(write) -> None:
    store = token_store(write, everywhere)
    names = store.index.drop_duplicates("prompt_id").set_index("prompt_id")["harmful"]
    labels = {prompt: {"refused": not harmful} for prompt, harmful in names.items()}
    texts = {prompt: "bad thing" if harmful else "good thing" for prompt, harmful in names.items()}
    other = fit_sequence(store, label="refused", labels=labels, texts={"thought": texts}, sites=["resid_post.1"], **FEW)
    assert set(other.table["label"]) == {"refused"} and (other.table["text_auroc"] == 1).all()
    same = fit_sequence(store, sites=["resid_post.1"], **FEW)
    torch.testing.assert_close(other.best.weight, -same.best.weight, atol=1e-4, rtol=1e-3)
    half = {prompt: {"refused": row["refused"] if prompt.endswith("-0") else None} for prompt, row in labels.items()}
    assert set(fit_sequence(store, label="refused", labels=half, sites=["resid_post.1"], **FEW).table["n_train"]) == {80}


def test_what_is_wrong_with_a_store_is_said(write) -> None:
    def spoiled(column: str, value: object, rows: slice | None = None) -> Callable[[torch.Tensor, pd.DataFrame], None]:
        def spoil(states: torch.Tensor, index: pd.DataFrame) -> None:
            index.loc[slice(None) if rows is None else rows, column] = value

        return spoil

    def nan(states: torch.Tensor, index: pd.DataFrame) -> None:
        states[7, 1, 3] = float("nan")

    def asked(spoil: Callable[[torch.Tensor, pd.DataFrame], None] | None = None, **how: object) -> None:
        fit_sequence(token_store(write, everywhere, groups=32, spoil=spoil), **{**FEW, **how})

    with pytest.raises(ValueError, match="was pooled .mean.. Capture it with pool='every'"):
        asked(spoiled("pool", "mean"))
    with pytest.raises(ValueError, match="the hidden state of prompt 'p0-0' at resid_post.1, span 'thought', holds nan or inf"):
        asked(nan)
    with pytest.raises(ValueError, match="several rows here, of reasoning unsteered"):
        asked(spoiled("start", 5))
    with pytest.raises(ValueError, match="span 'answer' is not in the store; it holds thought"):
        asked(span="answer")
    with pytest.raises(ValueError, match="none of .* rows has harmful == False"):
        asked(spoiled("harmful", True), train={"split": "dev"})
    with pytest.raises(ValueError, match="no column 'refused' in the store's index; it has .* or add it with labels="):
        asked(label="refused")
    with pytest.raises(ValueError, match="label 'category' holds 'a'"):
        asked(label="category")
    with pytest.raises(ValueError, match="group 'g[0-9]+' lies in dev and in test"):
        asked(valid={"split": ["dev", "test"]})
    with pytest.raises(ValueError, match="unknown kind of probe 'sequence'; known are logistic"):
        asked(kind="sequence")
    with pytest.raises(ValueError, match=r"texts\['thought'\] lacks"):
        asked(texts={"thought": {}})
    with pytest.raises(ValueError, match="texts were given for the span 'p1'; this probe reads 'thought'"):
        asked(texts={"p1": "words"})


def test_a_probe_over_the_largest_readout_is_a_gate_and_one_over_the_mean_is_none(write, tmp_path) -> None:
    store = token_store(write, somewhere, signal=2.0)
    probe = fit_sequence(store, sites=["resid_post.1"], **FEW).best
    probe.save(tmp_path / "probe.safetensors")
    gate = Probe.load(tmp_path / "probe.safetensors").gate(fpr=0.05)
    thoughts, y = thoughts_of(store, "dev")
    opens = np.array([bool((torch.from_numpy(x) @ gate.weight + gate.bias > gate.threshold).any()) for x in thoughts])
    assert opens[~y].mean() <= 0.05 < opens[y].mean() and gate.span == "thought" and gate.latched
    mean = fit_sequence(token_store(write, everywhere), sites=["resid_post.1"], **FEW).best
    with pytest.raises(ValueError, match="reads the mean over 'thought'"):
        mean.gate()


def test_the_artifact_says_how_it_was_made_and_what_it_reaches(write) -> None:
    sweep = fit_sequence(token_store(write, somewhere, signal=2.0), **FEW)
    probe, row = sweep.best, sweep.table.query("split == 'test'").set_index("site")
    assert probe.metrics["auroc"]["value"] == row.loc[probe.site, "auroc"] and probe.metrics["sizes"]["groups"] == 40
    assert probe.header["selection"] == {
        **{name: "dev" for name in ("setting", "over", "cell", "threshold", "calibration")},
        **{"cells": 2, "test": "read once, after every choice"},
    }
    assert (probe.header["fitted"], probe.header["tokens"], probe.over, probe.setting) == ("logistic", 16, "max", row.loc[probe.site, "c"])


def test_what_is_held_out_is_one_word_here_too(write) -> None:
    sweep = fit_sequence(token_store(write, everywhere), split="leave-attack-out", sites=["resid_post.1"], **FEW)
    assert set(sweep.table["holdout"]) == {"without plain", "without prefix"} and sweep.table["auroc"].min() > 0.9
    assert sweep.pick(holdout="without plain").header["sides"]["train"]["attack"] == ["prefix"]
