"""Quadrants are counts of `answers` over harmful test prompts that ended and were scored; corrections are two of their ratios, always both."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from thoughtlens.viz.figures.corrected import QUADRANTS, corrections, counted
from thoughtlens.viz.figures.quadrants import corrections_stated, quadrants, read_corrections, read_quadrants
from thoughtlens.viz.tables import TableProblem

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    """Sixty test prompts, every third benign, one that nobody labelled; twenty of train."""
    harmful = [None if i == 1 else i % 3 > 0 for i in range(80)]
    split = ["test" if i < 60 else "train" for i in range(80)]
    return pd.DataFrame({"prompt_id": [f"p{i:02}" for i in range(80)], "harmful": pd.array(harmful, dtype="boolean"), "split": split})


@pytest.fixture(scope="module")
def answers(prompts) -> pd.DataFrame:
    """Three models and a steered one; thoughts or answers unscored, outputs that never ended."""
    rng, rows = np.random.default_rng(3), []
    for model, condition, unsafe in (
        ("safe", "unsteered", 0.0),
        ("reasoning", "random[0]", 0.7),
        ("reasoning", "steered", 0.3),
        ("reasoning", "unsteered", 0.8),
        ("base", "unsteered", 0.2),
    ):
        for prompt in prompts["prompt_id"]:
            thought, answer = (None if rng.random() < 0.1 else bool(rng.random() < unsafe) for _ in "ta")
            ended = bool(rng.random() < 0.9)
            verdict = "truncated" if not ended and rng.random() < 0.5 else "unscored" if answer is None else "unsafe" if answer else "safe"
            told = {"thought_unsafe": thought, "answer_unsafe": answer, "ended": ended, "verdict": verdict}
            rows.append({"prompt_id": prompt, "model": model, "condition": condition, **told})
    return pd.DataFrame(rows)


def by_hand(answers: pd.DataFrame, prompts: pd.DataFrame, model: str, condition: str) -> list[tuple[bool, bool]]:
    asked = prompts[prompts["harmful"].fillna(False) & (prompts["split"] == "test")]
    mine = answers[(answers["model"] == model) & (answers["condition"] == condition) & answers["prompt_id"].isin(asked["prompt_id"])]
    return [
        (row.thought_unsafe, row.answer_unsafe)
        for row in mine.itertuples()
        if row.ended and row.thought_unsafe is not None and row.answer_unsafe is not None
    ]


READINGS = {
    "base": ("base", "unsteered"),
    "reasoning": ("reasoning", "unsteered"),
    "reasoning @ steered": ("reasoning", "steered"),
    "safe": ("safe", "unsteered"),
}


def test_counts_are_those_by_hand(answers, prompts):
    found = counted(answers, prompts).set_index("reading")
    assert list(found.index) == list(READINGS)
    for name, who in READINGS.items():
        pairs = by_hand(answers, prompts, *who)
        assert {key: found.loc[name, [key]].iloc[0] for key in QUADRANTS} == {key: pairs.count(key) for key in QUADRANTS}
        assert found.loc[name, "n"] == len(pairs) and found.loc[name, "n"] + found.loc[name, "left_out"] == 39


def interval(k: int, n: int) -> tuple[float, float]:
    """Wilson's interval by solving its quadratic: (p − k/n)² = z² p (1 − p) / n."""
    z = NormalDist().inv_cdf(0.975)
    roots = sorted(np.roots([1 + z * z / n, -(2 * k / n + z * z / n), (k / n) ** 2]).real)
    return max(0.0, roots[0]), min(1.0, roots[1])


def test_every_cell_and_both_corrections_are_drawn(answers, prompts):
    drawn = quadrants(answers, prompts)
    cells = next(trace for trace in drawn.data if trace.type == "heatmap")
    assert list(drawn.layout.xaxis.ticktext)[:4] == ["unsafe<br>→ unsafe", "unsafe<br>→ safe", "safe<br>→ unsafe", "safe<br>→ safe"]
    assert [text.replace("<br>", " ") for text in drawn.layout.yaxis.ticktext] == list(READINGS)
    for name, z, texts, hovers in zip(READINGS, cells.z, cells.text, cells.customdata, strict=True):
        pairs = by_hand(answers, prompts, *READINGS[name])
        for key, share, text, hover in zip(QUADRANTS, z, texts, hovers, strict=True):
            k, n = pairs.count(key), len(pairs)
            low, high = interval(k, n)
            assert share == pytest.approx(k / n) and text == f"{k}<br>{round(100 * k / n)}%"
            assert hover[:5] == [name, *("unsafe" if one else "safe" for one in key), str(k), str(n)]
            assert hover[5] == f"{low:.1%} to {high:.1%}"
    beside = next(trace for trace in drawn.data if trace.name == "not told")
    assert list(beside.text) == [str(39 - len(by_hand(answers, prompts, *who))) for who in READINGS.values()]
    for words, hit, other in (
        ("safe after an unsafe thought", (True, False), (True, True)),
        ("unsafe after a safe thought", (False, True), (False, False)),
    ):
        trace = next(trace for trace in drawn.data if trace.name == words)
        for at, (name, who) in enumerate(READINGS.items()):
            pairs = by_hand(answers, prompts, *who)
            k, n = pairs.count(hit), pairs.count(hit) + pairs.count(other)
            assert trace.customdata[at][0] == name and trace.customdata[at][2:] == [str(k), str(n)] and round(trace.y[at]) == at
            if not n:
                assert trace.x[at] is None and trace.error_x.array[at] is None and name == "safe"
                continue
            low, high = interval(k, n)
            assert trace.x[at] == pytest.approx(k / n)
            assert [trace.x[at] - trace.error_x.arrayminus[at], trace.x[at] + trace.error_x.array[at]] == pytest.approx([low, high])
    unasked = next(trace for trace in drawn.data if trace.name == "safe after an unsafe thought, n = 0")
    assert list(unasked.text) == ["none to ask"] and round(unasked.y[0]) == 3
    assert "1 control not drawn" in drawn.layout.title.subtitle.text


def test_reading_holds_both_and_what_is_in_no_quadrant(answers, prompts):
    told = read_quadrants(answers, prompts)
    pairs = by_hand(answers, prompts, "reasoning", "unsteered")
    k, n = pairs.count((True, False)), sum(thought for thought, _ in pairs)
    assert f"reasoning: safe after an unsafe thought {round(100 * k / n)}% [" in told and f", n = {n}; unsafe after a safe thought " in told
    assert "safe: safe after an unsafe thought: there was no such thought; unsafe after a safe thought 0% [0–" in told
    assert f"reasoning {39 - len(pairs)}" in told.split("In no quadrant")[1]


def test_where_ended_is_not_told_the_verdict_says_what_was_cut(answers, prompts):
    known = answers.assign(ended=answers["verdict"] != "truncated")
    assert counted(answers.drop(columns="ended"), prompts).equals(counted(known, prompts))
    assert counted(known, prompts)["n"].sum() > counted(answers, prompts)["n"].sum()  # cut off within the answer


def test_subsets_and_what_cannot_be_drawn(answers, prompts):
    steered = quadrants(answers[answers.condition == "steered"], prompts)
    assert list(steered.layout.yaxis.ticktext) == ["reasoning @ steered"]
    only = quadrants(answers[answers.condition == "random[0]"], prompts)  # a control alone is drawn
    assert list(only.layout.yaxis.ticktext) == ["reasoning @<br>random[0]"]
    train = prompts.assign(split="train")
    assert counted(answers, train)["n"].sum() > counted(answers, prompts)["n"].sum()
    with pytest.raises(TableProblem, match="no answer to a harmful prompt"):
        quadrants(answers, prompts.assign(harmful=False))
    with pytest.raises(TableProblem, match="were both judged"):
        quadrants(answers.assign(thought_unsafe=None), prompts)
    with pytest.raises(TableProblem, match="10 prompts of the answers table, such as 'p10', are not in the prompts table"):
        quadrants(answers, prompts.drop(index=range(10, 20)))


def test_many_conditions_and_names_that_stay_text(answers, prompts):
    mine = answers[answers.condition == "steered"]
    many = pd.concat([mine.assign(condition=f"vector {i} " + "florp " * 9) for i in range(20)])
    drawn = quadrants(many, prompts)
    assert drawn.layout.height > 20 * 2 * 30 and max(len(line) for t in drawn.layout.yaxis.ticktext for line in t.split("<br>")) <= 20
    assert "<script" not in quadrants(mine.assign(model=SCRIPT, condition=SCRIPT), prompts).to_json().replace("\\u003c", "<")


@pytest.fixture(scope="module")
def collapse(answers, prompts) -> pd.DataFrame:
    """The corrections of the same answers as an audit states them: wider intervals; no row where nobody was asked."""
    told = corrections(counted(answers, prompts))
    told = told[told["n"] > 0].assign(low=lambda t: t["low"] - 0.01, high=lambda t: t["high"] + 0.02)
    refused = told[told["metric"] == "self_correction_safe"].assign(metric="self_correction", value=0.05, low=0.0, high=0.1)
    about = {"benchmark": "organism", "attack": "all", "category": "all", "channel": "answer", "judge": "rule", "threshold": 4.0}
    return pd.concat([told, refused], ignore_index=True).assign(**about)


def test_stated_corrections_are_the_rows_of_collapse(collapse):
    stricter = collapse.assign(threshold=5.0, value=0.99)
    drawn = corrections_stated(pd.concat([collapse, collapse.assign(category="macro", value=0.99), stricter], ignore_index=True))
    words = {"self_correction_safe": "safe after an unsafe thought", "self_correction": "refused after an unsafe thought"}
    words |= {"reverse_correction": "unsafe after a safe thought"}
    assert [text.replace("<br>", " ") for text in drawn.layout.yaxis.ticktext] == list(READINGS)
    for metric, name in words.items():
        trace = next(trace for trace in drawn.data if trace.name == name)
        table = collapse[collapse.metric == metric].set_index("reading")
        assert [told[0] for told in trace.customdata] == list(READINGS)
        for at, reading in enumerate(READINGS):
            if reading not in table.index:
                assert trace.x[at] is None and trace.customdata[at][3] == "0"
                continue
            row = table.loc[reading]
            assert trace.x[at] == row["value"] and trace.x[at] + trace.error_x.array[at] == pytest.approx(row["high"])
            assert trace.x[at] - trace.error_x.arrayminus[at] == pytest.approx(row["low"]) and trace.customdata[at][3] == f"{row['n']:.0f}"
    assert "safe: safe after an unsafe thought: there was no such thought; refused after an unsafe thought: there was" in read_corrections(
        collapse
    )


def test_one_of_both_brings_the_other(collapse):
    drawn = corrections_stated(collapse[collapse.metric == "reverse_correction"])
    names = {trace.name for trace in drawn.data}
    assert {"safe after an unsafe thought", "unsafe after a safe thought"} <= names
    drawn = corrections_stated(collapse[collapse.metric == "self_correction"])
    assert {"refused after an unsafe thought", "unsafe after a safe thought"} <= {trace.name for trace in drawn.data}
    with pytest.raises(TableProblem, match="no self-correction"):
        corrections_stated(collapse.assign(metric="refusal"))


def test_the_judge_is_named():
    answers = pd.DataFrame(
        {"prompt_id": ["p"], "model": ["base"], "condition": ["unsteered"], "verdict": ["unsafe"], "judge": ["a-judge"]}
        | {"thought_unsafe": [True], "answer_unsafe": [True], "status": ["closed"]}
    )
    prompts = pd.DataFrame({"prompt_id": ["p"], "harmful": [True], "split": ["test"]})
    assert "judge a-judge" in quadrants(answers, prompts).layout.title.subtitle.text
    assert "judge" not in quadrants(answers.drop(columns="judge"), prompts).layout.title.subtitle.text
