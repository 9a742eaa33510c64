"""Decision points from two models and transcripts, end to end on tiny models; and whether runs agree, with scipy's figures."""

from __future__ import annotations

import pandas as pd
import pytest
import thoughtlens as tl
from scipy.stats import kendalltau
from thoughtlens.probes.deciding import stability
from thoughtlens.probes.decision import OF_EFFECT, agreement, decision_points
from tiny import tiny_lens, tiny_prompts, tiny_transcripts


@pytest.fixture(scope="module")
def found():
    safe, writer = tiny_lens(seed=1), tiny_lens()
    transcripts = tiny_transcripts(writer, tiny_prompts(54, images=(0,)))
    return transcripts, tl.decision_points(
        {"safe": safe, "reasoning": writer}, transcripts, ahead=2, draws=1, counts=0.02, resampled=50, progress=False
    )


def test_three_measures_rank_the_same_anchors_and_the_anchor_is_of_the_writer(found):
    transcripts, told = found
    assert set(told.table["anchor"]) == {"last_prompt", "step_end[0]", "step_end[1]"} and set(told.table["split"]) == {"dev", "test"}
    assert set(OF_EFFECT) <= set(told.table.columns) and told.table["random_effect"].notna().all()
    ranks = told.table[told.table["decides"]].set_index("anchor")
    total = ranks["rank_gap"] + ranks["rank_margin"] + ranks["rank_effect"]
    assert ranks["rank"].rank().sort_values().index[0] in total.index[total == total.min()]
    assert told.spans() == [ranks["rank"].idxmin()] and len(told.agreement) == 10
    writer = tiny_lens()
    places = told.anchor.find(writer, transcripts, progress=False)
    marked = told.boundaries[told.boundaries["found"]]
    assert places == {t.id: tuple(marked.loc[marked["prompt_id"] == t.id, "position"]) for t in transcripts}
    assert told.anchor.made_for["fingerprint"] == writer.fingerprint and str(told.gate()).startswith("(steps and probe(resid_post.")


def test_the_same_call_gives_the_same_tables(found):
    transcripts, told = found
    again = tl.decision_points((tiny_lens(seed=1), tiny_lens()), transcripts, ahead=2, draws=1, counts=0.02, resampled=50, progress=False)
    assert again.table.equals(told.table) and again.sweep.equals(told.sweep) and again.anchor.threshold == told.anchor.threshold


def test_a_side_or_a_model_that_is_missing_is_named(found):
    transcripts, _ = found
    pair = (tiny_lens(seed=1), tiny_lens())
    with pytest.raises(ValueError, match="the split 'test' has no harmful prompt"):
        tl.decision_points(pair, [t for t in transcripts if t.prompt.split != "test" or not t.prompt.harmful])
    with pytest.raises(ValueError, match="'safe' is not among base, reasoning"):
        tl.decision_points({"base": pair[0], "reasoning": pair[1]}, transcripts)


def ranking(**ranks: list[float]) -> pd.DataFrame:
    first = next(iter(ranks.values()))
    table = pd.DataFrame({"anchor": [f"step_end[{i}]" for i in range(len(first))], "decides": True, "split": "dev", **ranks})
    return pd.concat([table, table.assign(decides=False, split="test")])


def test_stability_counts_firsts_and_is_scipys_tau():
    one = ranking(rank_gap=[1, 2, 3, 4], rank_margin=[1, 2, 3, 4], rank_effect=[1, 2, 3, 4], rank=[1, 2, 3, 4])
    two = ranking(rank_gap=[2, 1, 3, 4], rank_margin=[1, 2, 4, 3], rank_effect=[4, 3, 2, 1], rank=[1, 2, 4, 3])
    three = ranking(rank_gap=[1, 2, 3], rank_margin=[1, 3, 2], rank_effect=[1, 2, 3], rank=[1, 3, 2])
    told = stability({"a": one, "b": two, "c": three}).set_index("ranking")
    assert list(told.index) == ["gap", "margin", "effect", "all"] and (told["runs"] == 3).all() and (told["pairs"] == 3).all()
    assert told["first"].tolist() == ["step_end[0]"] * 4 and told["times"].tolist() == [2, 3, 2, 3]
    taus = [
        kendalltau([1, 2, 3, 4], [2, 1, 3, 4]).statistic,
        kendalltau([1, 2, 3], [1, 2, 3]).statistic,
        kendalltau([2, 1, 3], [1, 2, 3]).statistic,
    ]
    assert told.loc["gap", "tau"] == pytest.approx(sum(taus) / 3) and told.loc["gap", "tau_low"] == pytest.approx(min(taus))
    assert told.loc["effect", "tau_low"] == -1 and told.loc["effect", "firsts"] == "a: step_end[0]; b: step_end[3]; c: step_end[0]"
    with pytest.raises(ValueError, match="there is 1. Pass several"):
        stability({"a": one})


def test_an_effect_ranks_beside_the_others(found):
    """Planted tables: the effect is counted from its own column, and a missing one leaves the anchor unranked."""
    rows = []
    for split in ("dev", "test"):
        for number in range(40):
            for step in range(3):
                about = {"prompt_id": f"{split}{number}", "group": f"{split}{number // 2}", "split": split, "harmful": number % 2 == 0}
                noise = 0.01 * ((7 * number + 3 * step) % 5)
                more = (0.0, 0.4, 0.1)[step] * (number % 2 == 0)
                rows.append(
                    {
                        **about,
                        "position": 4 * step,
                        "step": step,
                        "token": "t",
                        "boundary": True,
                        "js": 0.1 + noise + more,
                        "score": noise + more,
                    }
                )
    table = pd.DataFrame(rows).astype({"harmful": "boolean"})
    apart = table.drop(columns="score").assign(model_a="safe", model_b="reasoning", condition="unsteered")
    closed = table.assign(
        closed=table["step"].map({0: 0.05, 1: 0.3, 2: 0.2}) * table["harmful"].astype(float),
        before=0.5,
        source="harmful - benign",
        site="resid_post.1",
        strength=1.0,
        anchor=[f"step_end[{step}]" for step in table["step"]],
    )
    told = decision_points(apart, table[["prompt_id", "position", "token", "score"]], closed, resampled=40)
    dev = told[told["decides"]].set_index("anchor")
    assert dev["effect"].to_dict() == pytest.approx({"step_end[1]": 0.3, "step_end[2]": 0.2, "step_end[0]": 0.05})
    assert dev["rank_effect"].to_dict() == {"step_end[1]": 1, "step_end[2]": 2, "step_end[0]": 3} and (dev["n_effect"] == 40).all()
    assert {"gap on dev", "margin on dev", "effect on dev", "all on dev"} == {one for one in agreement(told)["one"] if "dev" in one}
    fewer = decision_points(apart, table[["prompt_id", "position", "token", "score"]], closed[closed["step"] > 0], resampled=40)
    assert fewer.loc[fewer["anchor"] == "step_end[0]", ["rank_effect", "rank"]].isna().all(axis=None)
