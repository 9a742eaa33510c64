"""Both rates of an arm at its place with both intervals; dev rows never shown; words only as strong as the controls allow."""

from __future__ import annotations

import pandas as pd
import pytest
from fake_run import METRICS, RESTORED
from thoughtlens.viz.figures.restored import read_restoration, read_tradeoff
from thoughtlens.viz.figures.tradeoff import arms, main_arm, restoration_bars, tradeoff
from thoughtlens.viz.tables import TableProblem


def shown(restoration: pd.DataFrame, condition: str, metric: str) -> pd.Series:
    rows = restoration[(restoration.condition == condition) & (restoration.metric == metric) & (restoration.split == "test")]
    assert len(rows) == 1
    return rows.iloc[0]


def set_rate(restoration: pd.DataFrame, condition: str, metric: str, like: str) -> pd.DataFrame:
    """The table with one rate of a condition replaced by that of another."""
    changed = restoration.copy()
    rate = ["value", "low", "high", "numerator", "n"]
    at = (changed.condition == condition) & (changed.metric == metric) & (changed.split == "test")
    changed.loc[at, rate] = shown(restoration, like, metric)[rate].to_numpy(dtype=float)
    return changed


def test_every_marker_is_its_condition_with_both_intervals(tables):
    drawn = tradeoff(tables["restoration"])
    found = {}
    for trace in drawn.data:
        for x, y, right, left, up, down, told in zip(
            *(
                trace.x,
                trace.y,
                trace.error_x.array,
                trace.error_x.arrayminus,
                trace.error_y.array,
                trace.error_y.arrayminus,
                trace.customdata,
            ),
            strict=True,
        ):
            found[told[0]] = [x, x - left, x + right, y, y - down, y + up, told[3], told[6]]
    assert set(found) == set(RESTORED)
    for condition, numbers in found.items():
        over, attack = (shown(tables["restoration"], condition, metric) for metric in ("over_refusal", "attack_success"))
        expected = [*over[["value", "low", "high"]], *attack[["value", "low", "high"]], over["n"], attack["n"]]
        assert numbers == pytest.approx(expected)
    assert sum(len(trace.x) for trace in drawn.data) == len(RESTORED)


def test_random_draws_are_one_faint_cloud_under_the_rest(tables):
    drawn = tradeoff(tables["restoration"])
    assert drawn.data[0].name == "random directions (8)" and len(drawn.data[0].x) == 8 and drawn.data[0].opacity < 1
    assert [trace.name for trace in drawn.data[1:]] == ["unsteered", "safe", "steered", "shuffled"]
    assert any("ideal corner" in note.text for note in drawn.layout.annotations)


def test_every_outcome_of_every_condition_is_a_dot(tables):
    drawn = restoration_bars(tables["restoration"])
    assert list(drawn.layout.yaxis.ticktext) == ["attack success", "refusal of harmful", "over-refusal", "helpful", "truncated"]
    assert len(drawn.data) == len(RESTORED)
    order = ["unsteered", "safe", "steered", "shuffled", *(f"random[{draw}]" for draw in range(8))]
    for condition, trace in zip(order, drawn.data, strict=True):
        expected = [shown(tables["restoration"], condition, metric) for metric in METRICS]
        assert list(trace.x) == [row["value"] for row in expected]
        assert [x + above for x, above in zip(trace.x, trace.error_x.array, strict=True)] == pytest.approx(
            [row["high"] for row in expected]
        )
        assert [x - below for x, below in zip(trace.x, trace.error_x.arrayminus, strict=True)] == pytest.approx(
            [row["low"] for row in expected]
        )
    assert sum(trace.showlegend for trace in drawn.data) == 5


def test_settings_that_vary_name_the_arms_and_the_first_regenerated_is_spoken_of(tables):
    restoration = tables["restoration"]
    fixed = restoration[restoration.condition == "steered"].assign(thought_mode="fixed", value=0.0, numerator=0.0)
    table = arms(pd.concat([fixed, restoration], ignore_index=True))
    steered = list(dict.fromkeys(table[table.condition == "steered"]["arm"]))
    assert steered == ["steered · thought mode fixed", "steered · thought mode regenerated"]
    assert main_arm(table) == "steered · thought mode regenerated"


def test_attacks_are_added_where_there_is_no_all(tables):
    restoration = tables["restoration"]
    split = pd.concat([restoration.assign(attack=attack) for attack in ("plain", "typographic")], ignore_index=True)
    table = arms(split).set_index(["arm", "metric"])
    assert (
        table.loc[("steered", "helpful"), "n"] == 324
        and table.loc[("steered", "helpful"), "value"] == shown(restoration, "steered", "helpful")["value"]
    )


def test_words_claim_no_more_than_the_controls_allow(tables):
    restoration = tables["restoration"]
    assert "from 83% [76–88] to 5% [3–9], n = 162 each: −78 points" in read_tradeoff(restoration)
    assert "the direction matters, not the push" in read_tradeoff(restoration) and "a cost beyond chance" in read_tradeoff(restoration)
    assert "no effect is shown" in read_tradeoff(set_rate(restoration, "steered", "attack_success", like="unsteered"))
    assert "not shown to belong to this direction" in read_tradeoff(set_rate(restoration, "random[3]", "attack_success", like="steered"))
    assert "not clearly above the steered model" in read_tradeoff(set_rate(restoration, "shuffled", "attack_success", like="steered"))
    assert "made matters worse" in read_tradeoff(
        set_rate(set_rate(restoration, "steered", "attack_success", like="random[3]"), "unsteered", "attack_success", like="safe")
    )
    no_random = restoration[~restoration.condition.str.startswith("random")]
    assert "it is open whether any push of this size would do the same" in read_tradeoff(no_random)
    assert "no effect of steering to report" in read_tradeoff(restoration[restoration.condition != "steered"])


def test_outputs_that_never_end_are_called_out(tables):
    restoration = tables["restoration"]
    assert "gibberish" not in read_restoration(restoration)
    endless = restoration.copy()
    at = (endless.condition == "steered") & (endless.metric == "truncated")
    endless.loc[at, ["value", "low", "high", "numerator"]] = (0.9, 0.84, 0.94, 146.0)
    assert "a low attack success may be gibberish" in read_restoration(endless)


def test_a_table_without_the_two_rates_says_so(tables):
    with pytest.raises(TableProblem, match="no trade to draw"):
        tradeoff(tables["restoration"].query("metric != 'over_refusal'"))


def test_further_settings_keep_the_colour_and_change_the_symbol(tables):
    restoration = tables["restoration"]
    steered = restoration[restoration.condition == "steered"]
    more = pd.concat([restoration, *(steered.assign(strength=strength) for strength in (0.2, 0.9))], ignore_index=True)
    stars = [trace for trace in tradeoff(more).data if trace.name.startswith("steered")]
    assert [trace.name for trace in stars] == [f"steered · strength {strength}" for strength in (0.45, 0.2, 0.9)]
    assert len({trace.marker.symbol for trace in stars}) == 3 and len({trace.marker.color for trace in stars}) == 1
