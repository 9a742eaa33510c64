"""A planted decision is recognised wherever it stands, by nothing but the hidden state; figures are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from thoughtlens.probes.boundaries import Boundaries
from thoughtlens.probes.effect import PATCHED
from thoughtlens.probes.recognising import best_f1, measured, recognise

SITES = ("resid_post.0", "resid_post.1", "resid_post.2")


def world(*, groups: int = 24, signal: float = 4.0, at: int = 1, seed: int = 0, silent: int = 0):
    """Thoughts of 4 to 9 steps, decided at a step of any number; from site `at` on a direction tells. `silent` groups are decided nowhere."""
    rng = np.random.default_rng(seed)
    direction, rows, states, told = rng.normal(size=16), [], [], []
    direction /= np.linalg.norm(direction)
    for split in ("train", "dev", "test"):
        for number in range(2 * groups):
            steps = int(rng.integers(4, 10))
            decided = int(rng.integers(steps))
            for step in range(-1, steps):
                here = step == decided
                h = rng.normal(size=(3, 16))
                h[at:] += signal * direction * here
                states.append(h)
                about = {"prompt_id": f"{split}{number}", "group": f"{split}g{number // 2}", "split": split, "harmful": number % 2 == 0}
                place = {"position": 3 * step + 2, "step": step, "anchor": f"step_end[{step}]" if step >= 0 else "last_prompt"}
                rows.append({**about, "condition": "unsteered", **place, "token": int(rng.integers(5))})
                closed = 0.5 if here and number // 2 >= silent else 0.01
                for site, share in zip(SITES, (0.1, 1.0, 0.6), strict=True):
                    told.append(
                        {**about, **place, "source": PATCHED, "site": site, "closed": closed * share, "before": 0.6, "a_writes": "no"}
                    )
    x = torch.tensor(np.array(states), dtype=torch.float32)
    return Boundaries(x * 0, x, pd.DataFrame(rows).astype({"harmful": "boolean"}), SITES), pd.DataFrame(told)


def test_a_decision_is_recognised_wherever_it_stands():
    read, effects = world()
    found = recognise(read, effects, resampled=200)
    assert found.anchor.site == "resid_post.1"  # the earliest that tells
    told = found.boundaries
    assert (told["closed"] == told.groupby(["prompt_id", "step"])["closed"].transform("max")).all() and told["decision"].sum() == 144
    table = found.readout.set_index(["site", "split"])
    for side in ("dev", "test"):
        here, row = told[told["split"] == side], table.loc[("resid_post.1", side)]
        assert row["auroc"] == pytest.approx(roc_auc_score(here["decision"], here["score"])) and row["auroc"] > 0.97
        assert row["low"] <= row["auroc"] <= row["high"]
        assert row["precision"] == pytest.approx(precision_score(here["decision"], here["found"]))
        assert row["recall"] == pytest.approx(recall_score(here["decision"], here["found"])) and row["recall"] > 0.8
        assert abs(row["number_auroc"] - 0.5) < 0.15 and abs(row["token_auroc"] - 0.5) < 0.15 and abs(row["control_auroc"] - 0.5) < 0.2
        assert row["n"] == len(here) and row["n_decisions"] == 48 and row["groups"] == 24
        assert table.loc[("resid_post.0", side), "auroc"] < 0.7
    scores = read.b[torch.from_numpy((read.rows["step"] >= 0).to_numpy().copy()), 1] @ found.anchor.weight + found.anchor.bias
    np.testing.assert_allclose(scores.numpy(), told["score"], atol=1e-3)
    assert (told["found"] == (told["score"] > found.anchor.threshold)).all()


def test_where_nothing_is_planted_nothing_is_read():
    read, effects = world(signal=0.0)
    table = recognise(read, effects, resampled=50).readout
    assert table.loc[table["split"] == "test", "auroc"].between(0.35, 0.65).all()


def test_the_number_of_the_step_is_a_baseline_that_can_win():
    read, effects = world(signal=0.0)
    first = effects["step"] == 2
    table = recognise(read, effects.assign(closed=np.where(first, 0.5, 0.0)), resampled=50).readout
    assert (table["number_auroc"] == 1).all() and (table["auroc"] < 0.7).all()


def test_a_thought_in_which_the_models_part_nowhere_is_left_out_and_read_all_the_same():
    read, effects = world(silent=8)
    found = recognise(read, effects, resampled=50)
    told = found.boundaries
    quiet = told["group"].str.extract(r"g(\d+)")[0].astype(int) < 8
    assert not told.loc[quiet, ["decision", "counted"]].to_numpy().any() and told.loc[~quiet, "counted"].all()
    assert told.loc[quiet, "found"].groupby(told["prompt_id"]).any().mean() > 0.8
    assert (found.readout["n"] == told[~quiet].groupby("split")["step"].size()[found.readout["split"]].to_numpy()).all()


def test_test_rows_do_not_decide():
    read, effects = world()
    shuffled = effects.assign(
        closed=effects["closed"].where(effects["split"] != "test", effects["closed"].sample(frac=1, random_state=0).to_numpy())
    )
    one, other = recognise(read, effects, resampled=20).anchor, recognise(read, shuffled, resampled=20).anchor
    assert torch.equal(one.weight, other.weight) and (one.threshold, one.site) == (other.threshold, other.site)


def test_how_much_counts_is_asked_and_nothing_that_counts_is_refused():
    read, effects = world()
    assert measured(read, effects, 0.4)["decision"].sum() == measured(read, effects, 0.5)["decision"].sum() == 144
    with pytest.raises(ValueError, match=r"on train patching one token closes 0.6 nats at 0 boundaries.*lower counts="):
        recognise(read, effects, counts=0.6)
    with pytest.raises(ValueError, match="boundaries were not patched"):
        recognise(read, effects[effects["prompt_id"] != "dev3"])


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=25).filter(lambda rows: any(y for _, y in rows)))
def test_the_threshold_has_the_best_f1_of_all(rows):
    scores, y = torch.tensor([float(score) for score, _ in rows]), torch.tensor([label for _, label in rows])
    threshold = best_f1(scores, y)
    reached = f1_score(y, scores > threshold)
    assert reached == pytest.approx(max(f1_score(y, scores > cut, zero_division=0.0) for cut in np.arange(-0.5, 7)))
