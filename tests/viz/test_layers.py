"""The heatmap is the test split of one probe, the controls stand beside it, and a span the words give away is marked."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from fake_run import LAYERS, SPANS, WORDS
from thoughtlens.viz import auroc_by_layer_and_span, best_layer_by_span
from thoughtlens.viz.figures.best_layer import read_detection
from thoughtlens.viz.figures.layers import read_layers
from thoughtlens.viz.figures.readable import best_layers, in_time, verdict


def rows(detection: pd.DataFrame, model: str, split: str = "test") -> pd.DataFrame:
    return detection[(detection.model == model) & (detection.split == split) & (detection.probe == "logistic")]


def test_every_cell_is_its_row_and_gaps_stay_gaps(tables):
    drawn = auroc_by_layer_and_span(tables["detection"])
    heat = [trace for trace in drawn.data if trace.type == "heatmap" and len(trace.y) == LAYERS]
    assert [trace.name for trace in heat] == ["base", "reasoning", "safe"]
    columns = list(drawn.layout.xaxis.ticktext)
    assert sorted(columns) == sorted(SPANS) and columns[0] == "last_prompt" and columns[-1] == "thought_last"
    for trace in heat:
        table = rows(tables["detection"], trace.name).set_index(["layer", "span"])
        for layer, line, hovers in zip(trace.y, trace.z, trace.customdata, strict=True):
            for column, value, hover in zip(columns, line, hovers, strict=True):
                if (layer, column) in table.index:
                    assert value == table.loc[(layer, column), "auroc"]
                    assert hover[4:6] == [f"{table.loc[(layer, column), 'n_test']}", f"{table.loc[(layer, column), 'n_train']}"]
                else:
                    assert value is None and trace.name == "base"


def test_words_stand_above_on_the_same_colours_and_hatch_what_they_give_away(tables):
    drawn = auroc_by_layer_and_span(tables["detection"])
    columns = list(drawn.layout.xaxis.ticktext)
    strip = next(trace for trace in drawn.data if trace.type == "heatmap" and trace.name == "reasoning" and len(trace.y) == 2)
    assert list(strip.z[1]) == [WORDS[column] for column in columns]
    assert {trace.coloraxis for trace in drawn.data if trace.type == "heatmap"} == {"coloraxis"}
    hatched = next(trace for trace in drawn.data if trace.type == "bar" and trace.name == "reasoning")
    assert [columns[index] for index in hatched.x] == ["thought", "thought_last"]
    assert all(width == LAYERS for width in hatched.y) and set(hatched.base) == {-0.5}


def test_the_menu_shows_one_model_at_a_time(tables):
    drawn = auroc_by_layer_and_span(tables["detection"])
    buttons = drawn.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["base", "reasoning", "safe"]
    assert [trace.visible for trace in drawn.data] == list(buttons[1].args[0]["visible"])
    for button in buttons:
        assert {trace.name for trace, seen in zip(drawn.data, button.args[0]["visible"], strict=True) if seen} == {button.label}


def test_the_best_layer_is_picked_on_dev_and_shown_on_test(tables):
    best = best_layers(tables["detection"])
    for _, row in best.iterrows():
        dev = rows(tables["detection"], row["model"], "dev")
        dev = dev[dev.span == row["span"]]
        test = rows(tables["detection"], row["model"])
        assert row["layer"] == dev.loc[dev.auroc.idxmax(), "layer"] and row["picked"] == "dev"
        assert row["auroc"] == test[(test.span == row["span"]) & (test.layer == row["layer"])]["auroc"].item()


def test_best_layers_are_drawn_with_interval_and_both_controls(tables):
    drawn = best_layer_by_span(tables["detection"])
    best = best_layers(tables["detection"])
    spans = list(drawn.layout.yaxis.ticktext)
    assert spans == sorted(SPANS, key=in_time)
    for index, model in enumerate(("base", "reasoning", "safe")):
        shuffled, words, probe = drawn.data[3 * index : 3 * index + 3]
        mine = best[best.model == model].set_index("span").loc[[spans[y] for y in probe.y]]
        assert list(probe.x) == mine["auroc"].tolist() and list(words.x) == mine["text_auroc"].tolist()
        assert list(shuffled.x) == mine["control_auroc"].tolist()
        assert [x + above for x, above in zip(probe.x, probe.error_x.array, strict=True)] == pytest.approx(mine["high"].tolist())
        assert [x - below for x, below in zip(probe.x, probe.error_x.arrayminus, strict=True)] == pytest.approx(mine["low"].tolist())
        assert [x + above for x, above in zip(shuffled.x, shuffled.error_x.array, strict=True)] == pytest.approx(
            mine["control_high"].tolist()
        )


@pytest.mark.parametrize(
    ("auroc", "low", "control", "text", "expected"),
    [
        (0.997, 0.99, 0.56, 0.47, "state"),
        (0.99, 0.98, 0.56, 0.94, "words"),
        (0.99, 0.98, 0.56, 0.69, "state"),
        (0.55, 0.49, 0.56, 0.50, "chance"),
        (0.99, 0.98, 0.56, math.nan, "open"),
    ],
)
def test_verdicts(auroc, low, control, text, expected):
    row = pd.Series({"auroc": auroc, "low": low, "control_high": control, "control_auroc": 0.5, "text_auroc": text})
    assert verdict(row) == expected


def test_spans_stand_in_the_order_they_happen():
    mixed = [
        "answer_first",
        "thought[-8:]",
        "thought_last",
        "thought",
        "step_end[1]",
        "step_end[0]",
        "thought_first",
        "last_prompt",
        "prompt",
    ]
    told = [
        "prompt",
        "last_prompt",
        "thought_first",
        "step_end[0]",
        "step_end[1]",
        "thought",
        "thought[-8:]",
        "thought_last",
        "answer_first",
    ]
    assert sorted(mixed, key=in_time) == told
    assert in_time("thought · max")[0] == in_time("thought")[0]


def test_readings_hold_numbers_and_name_what_is_not_shown(tables):
    detection = tables["detection"]
    told = read_detection(detection)
    assert "read beyond the words best at step_end[0]" in told and "n = 324" in told and "words up to there reach .47" in told
    assert "clears the shuffled labels from layer 1" in read_layers(detection) and "Words alone already tell at thought" in read_layers(
        detection
    )
    assert "no hidden reading" in read_detection(detection.assign(text_auroc=0.99))
    assert "Not above the shuffled labels" in read_detection(detection.assign(low=0.4, auroc=0.5))
    assert "a little optimistic" in read_detection(detection[detection.split == "test"])
    assert "a little optimistic" not in told


def test_a_control_that_was_not_run_is_a_dash(tables):
    bare = tables["detection"].drop(columns=["control_high", "c", "pool", "condition"]).assign(text_auroc=math.nan)
    drawn = auroc_by_layer_and_span(bare)
    cells = next(trace for trace in drawn.data if trace.name == "reasoning" and len(trace.y) == LAYERS)
    assert {hover[7] for line in cells.customdata for hover in line} == {"–"} == {hover[8] for line in cells.customdata for hover in line}
    assert "undecided" in read_detection(bare)
