"""The lines of one span are its rows of `detection`; both controls are beside them, and a click knows layer and span."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from fake_run import LAYERS, WORDS
from thoughtlens.viz.figures.lines import SHUFFLED, auroc_over_layers, read_lines
from thoughtlens.viz.tables import TableProblem

SPAN = "step_end[1]"


def rows(detection: pd.DataFrame, model: str, span: str = SPAN) -> pd.DataFrame:
    kept = detection[(detection.model == model) & (detection.split == "test") & (detection.probe == "logistic") & (detection.span == span)]
    return kept.sort_values("layer")


def ends(trace) -> tuple[list[float], list[float]]:
    below = [y - down for y, down in zip(trace.y, trace.error_y.arrayminus, strict=True)]
    return below, [y + up for y, up in zip(trace.y, trace.error_y.array, strict=True)]


def test_every_line_is_its_rows_with_interval_and_both_controls(tables):
    drawn = auroc_over_layers(tables["detection"], SPAN)
    lines = {trace.name: trace for trace in drawn.data if trace.mode == "lines+markers"}
    assert list(lines) == ["reasoning", "safe"]  # base never wrote a thought
    for model, line in lines.items():
        mine = rows(tables["detection"], model)
        assert list(line.y) == mine.auroc.tolist() and [round(x) for x in line.x] == mine.layer.tolist() == list(range(LAYERS))
        low, high = ends(line)
        assert low == pytest.approx(mine.low.tolist()) and high == pytest.approx(mine.high.tolist())
        assert [told[:4] for told in line.customdata] == [[layer, SPAN, model, "unsteered"] for layer in range(LAYERS)]
        assert {told[9] for told in line.customdata} == {"324"}
        words = next(trace for trace in drawn.data if trace.name == f"{model}, words alone")
        assert set(words.y) == {WORDS[SPAN]} and words.line.dash == "dash" and words.line.color == line.line.color
        assert words.x[0] < 0 and words.x[1] > LAYERS - 1
    for shuffled, model in zip([trace for trace in drawn.data if trace.name == SHUFFLED], lines, strict=True):
        mine = rows(tables["detection"], model)
        low, high = ends(shuffled)
        assert list(shuffled.y) == mine.control_auroc.tolist() == low and high == pytest.approx(mine.control_high.tolist())
    legend = [trace.name for trace in drawn.data if trace.showlegend is not False]
    assert sorted(legend) == sorted(["reasoning", "safe", SHUFFLED, "words alone"]) and SPAN in drawn.layout.title.text


def test_without_a_span_it_is_the_one_read_best_beyond_the_words(tables):
    assert "step_end[0]" in auroc_over_layers(tables["detection"]).layout.title.text
    assert read_lines(tables["detection"]).startswith("At step_end[0]: reasoning best at layer ")


def test_reading_holds_the_best_layer_of_each_model(tables):
    told = read_lines(tables["detection"], "last_prompt")
    detection = tables["detection"]
    for model in ("base", "reasoning", "safe"):
        dev = detection[(detection.model == model) & (detection.split == "dev") & (detection.probe == "logistic")]
        layer = dev[dev.span == "last_prompt"].set_index("layer").auroc.idxmax()
        assert f"{model} best at layer {layer}, AUROC " in told
    assert told.count("(n = 324)") == 3 and "words .50" in told


def test_a_span_that_is_not_there_names_those_that_are(tables):
    with pytest.raises(TableProblem, match=r"No rows with span = 'step_end\[9\]'; the detection table has last_prompt, "):
        auroc_over_layers(tables["detection"], "step_end[9]")


def test_gaps_pools_conditions_and_missing_controls(tables):
    detection = tables["detection"]
    gone = detection.assign(
        auroc=detection.auroc.mask(detection.layer == 2), low=math.nan, high=math.nan, text_auroc=math.nan, control_high=math.nan
    )
    drawn = auroc_over_layers(gone, SPAN)
    line = next(trace for trace in drawn.data if trace.name == "safe")
    assert line.y[2] is None and set(line.error_y.array) == {None} and "nan" not in read_lines(gone, SPAN)
    assert not next(trace for trace in drawn.data if trace.name == "safe, words alone").x
    two = pd.concat([detection.assign(pool="max", auroc=0.6), detection], ignore_index=True)
    pooled = auroc_over_layers(two, f"{SPAN} · mean")
    assert list(next(t for t in pooled.data if t.name == "safe").y) == rows(detection, "safe").auroc.tolist()
    steered = pd.concat([detection, detection[detection.model == "reasoning"].assign(condition="steered")], ignore_index=True)
    names = [trace.name for trace in auroc_over_layers(steered, SPAN).data if trace.mode == "lines+markers"]
    assert names == ["reasoning", "reasoning @ steered", "safe"]


def test_one_model_many_layers_and_names_that_stay_text(tables):
    detection = tables["detection"]
    deep = pd.concat([detection.assign(layer=detection.layer + 6 * times) for times in range(6)], ignore_index=True)
    assert len(auroc_over_layers(deep, SPAN).layout.xaxis.tickvals) <= 16
    script = "<script>alert(1)</script>"
    drawn = auroc_over_layers(detection[detection.model == "safe"].replace({"model": {"safe": script}, "span": {SPAN: script}}), script)
    line = next(trace for trace in drawn.data if trace.mode == "lines+markers")
    assert "<script" not in line.name + line.customdata[0][4] + line.customdata[0][5] + drawn.layout.title.text
    assert line.customdata[0][1] == script == line.customdata[0][2]
