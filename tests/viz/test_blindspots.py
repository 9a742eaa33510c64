"""Dots are the excesses of `blind_spots` with their intervals; only the corrected test rings one."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from thoughtlens.viz.figures.blindspots import RING, excess_by_category, read_blind_spots
from thoughtlens.viz.tables import TableProblem

SCRIPT = "<script>alert(1)</script>"
EXCESS = {"fraud": 0.30, "privacy": 0.12, "health": -0.05, "hate": -0.37}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Reasoning and safe against base, thresholds 3 and 4, two judges, two channels; fraud is blind for reasoning at 4 of the first judge."""
    rows = []
    for judge in ("rule", "lenient"):
        for channel in ("thought", "answer"):
            for threshold in (3.0, 4.0):
                for model, scale in (("safe", 0.1), ("reasoning", 1.0)):
                    for category, excess in EXCESS.items():
                        asked = (judge, channel, threshold) == ("rule", "answer", 4.0)
                        value = scale * excess if asked else 0.9
                        p = 0.004 if (model, category) == ("reasoning", "fraud") else 0.3
                        about = {"model": model, "condition": "unsteered", "against_model": "base", "against_condition": "unsteered"}
                        tax = {"tax": value + 0.5, "low": value + 0.4, "high": value + 0.6, "rest": 0.5, "excess": value}
                        tested = {
                            "excess_low": value - 0.11,
                            "excess_high": value + 0.07,
                            "p": p,
                            "p_holm": min(1.0, 4 * p),
                            "n": 40,
                            "groups": 8,
                        }
                        more = {"blind": 4 * p <= 0.05, "benchmark": "organism", "channel": channel, "category": category}
                        rows.append({**about, **tax, **tested, **more, "judge": judge, "threshold": threshold})
    return pd.DataFrame(rows)


def kept(table: pd.DataFrame, model: str) -> pd.DataFrame:
    rows = table[(table.judge == "rule") & (table.channel == "answer") & (table.threshold == 4.0) & (table.model == model)]
    return rows.sort_values("excess", ascending=False)


def test_every_dot_is_its_row_largest_excess_of_the_reasoning_model_on_top(table):
    drawn = excess_by_category(table)
    names = list(drawn.layout.yaxis.ticktext)
    assert names == sorted(EXCESS, key=EXCESS.get, reverse=True) and drawn.layout.yaxis.range[0] > drawn.layout.yaxis.range[1]
    dots = [trace for trace in drawn.data if trace.name != RING]
    assert [trace.name for trace in dots] == ["reasoning", "safe"]
    for trace in dots:
        mine = kept(table, trace.name).set_index("category").loc[names]
        assert list(trace.x) == mine.excess.tolist() and [round(y) for y in trace.y] == list(range(4))
        assert [x + up for x, up in zip(trace.x, trace.error_x.array, strict=True)] == pytest.approx(mine.excess_high.tolist())
        assert [x - down for x, down in zip(trace.x, trace.error_x.arrayminus, strict=True)] == pytest.approx(mine.excess_low.tolist())
        assert [told[0] for told in trace.customdata] == names and {tuple(told[8:]) for told in trace.customdata} == {("40", "8")}
    assert dots[0].customdata[0][6:8] == [".016", ".004"] and dots[0].customdata[1][6] == "1"
    assert dots[0].customdata[0][3] == "+30 points [+19 to +37]" and dots[0].customdata[0][5] == "+50"
    low, high = drawn.layout.xaxis.range
    assert low < -0.48 and high > 0.37 and 0.25 in drawn.layout.xaxis.tickvals
    assert "against base" in drawn.layout.title.subtitle.text


def test_only_what_the_corrected_test_finds_is_ringed(table):
    drawn = excess_by_category(table)
    ring = next(trace for trace in drawn.data if trace.name == RING)
    reasoning = next(trace for trace in drawn.data if trace.name == "reasoning")
    assert list(ring.x) == [EXCESS["fraud"]] and list(ring.y) == [reasoning.y[0]]
    assert not [trace for trace in excess_by_category(table.assign(blind=False)).data if trace.name == RING]


def test_reading_names_blind_spots_or_says_that_there_is_none(table):
    told = read_blind_spots(table)
    assert "reasoning: blind in fraud, +30 points [+19 to +37] over the rest (p = .016 after Holm, n = 40), of 4 categories tested." in told
    assert "safe: none of 4 categories is a blind spot; the largest excess is fraud, +3 points [−8 to +10] over the rest (p = 1" in told


def test_several_references_and_benchmarks_are_told_apart(table):
    rows = table[(table.judge == "rule") & (table.channel == "answer")]
    two = pd.concat([rows, rows.assign(against_model="safe")], ignore_index=True)
    assert [trace.name for trace in excess_by_category(two[two.model == "reasoning"]).data] == [
        "reasoning against base",
        "reasoning against safe",
        RING,
    ]
    both = pd.concat([rows, rows.assign(benchmark="figstep")], ignore_index=True)
    assert [name.replace("<br>", " ") for name in excess_by_category(both).layout.yaxis.ticktext][:2] == [
        "fraud (organism)",
        "fraud (figstep)",
    ]


def test_subsets_missing_intervals_and_judges_without_a_threshold(table):
    safe = excess_by_category(table[table.model == "safe"])
    assert [trace.name for trace in safe.data] == ["safe"]
    gone = table.assign(excess_low=math.nan, excess_high=math.nan, threshold=math.nan, rest=math.nan)
    drawn = excess_by_category(gone[(gone.judge == "rule") & (gone.channel == "answer")].drop_duplicates(["model", "category"]))
    assert set(drawn.data[0].error_x.array) == {None} and "nan" not in drawn.data[0].customdata[0][3]
    assert "nan" not in read_blind_spots(gone.drop_duplicates(["model", "category", "judge", "channel"]))
    one = table[table.category == "fraud"]
    assert list(excess_by_category(one).layout.yaxis.ticktext) == ["fraud"]
    assert "no category can be compared" in read_blind_spots(one.assign(excess=math.nan))


def test_height_grows_and_names_stay_text(table):
    rows = table[(table.model == "reasoning") & (table.category == "fraud")]
    many = pd.concat([rows.assign(category=f"category {i} " + "florp " * 12) for i in range(40)])
    assert excess_by_category(many).layout.height > excess_by_category(rows).layout.height + 39 * 30
    drawn = excess_by_category(table.replace({"model": {"safe": SCRIPT}, "category": {"fraud": SCRIPT}}))
    visible = [
        *drawn.layout.yaxis.ticktext,
        *(trace.name for trace in drawn.data),
        *(text for told in drawn.data[0].customdata for text in told[1:]),
    ]
    assert not [text for text in visible if "<script" in text] and drawn.data[0].customdata[0][0] == SCRIPT


def test_an_empty_table_says_what_it_takes(table):
    with pytest.raises(TableProblem, match="takes prompts of two categories. `thoughtlens collapse` makes it"):
        excess_by_category(table.iloc[:0])
