"""The heatmap is the test split of one probe, the controls stand beside it, and a span the words give away is marked."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from fake_run import LAYERS, SPANS, WORDS
from thoughtlens.viz import theme
from thoughtlens.viz.figures.best_layer import best_layer_by_span, read_detection
from thoughtlens.viz.figures.contours import outline
from thoughtlens.viz.figures.layers import BEAT, LINK, auroc_by_layer_and_span, read_layers
from thoughtlens.viz.figures.readable import best_layers, in_time, verdict


def rows(detection: pd.DataFrame, model: str, split: str = "test") -> pd.DataFrame:
    return detection[(detection.model == model) & (detection.split == split) & (detection.probe == "logistic")]


def cells_of(drawn, model: str):
    return next(trace for trace in drawn.data if trace.name == "probe" and trace.meta == model)


def test_every_cell_is_its_row_and_gaps_stay_gaps(tables):
    drawn = auroc_by_layer_and_span(tables["detection"])
    heat = [trace for trace in drawn.data if trace.name == "probe"]
    assert [trace.meta for trace in heat] == ["base", "reasoning", "safe"]
    columns = list(drawn.layout.xaxis.ticktext)
    assert sorted(columns) == sorted(SPANS) and columns[0] == "last_prompt" and columns[-1] == "thought_last"
    for trace in heat:
        table = rows(tables["detection"], trace.meta).set_index(["layer", "span"])
        for layer, line, hovers in zip(range(LAYERS), trace.z, trace.customdata, strict=True):
            for column, value, hover in zip(columns, line, hovers, strict=True):
                if (layer, column) in table.index:
                    assert value == table.loc[(layer, column), "auroc"]
                    assert tuple(hover[: len(LINK)]) == (layer, column, trace.meta, "unsteered")
                    assert hover[9:11] == [f"{table.loc[(layer, column), 'n_test']}", f"{table.loc[(layer, column), 'n_train']}"]
                    assert hover[6:8] == [theme.auroc(table.loc[(layer, column), bound]) for bound in ("low", "high")]
                else:
                    assert value is None and trace.meta == "base" and hover[:4] == [layer, "", "base", "unsteered"]


def test_words_stand_above_on_the_same_colours_and_hatch_what_they_give_away(tables):
    drawn = auroc_by_layer_and_span(tables["detection"])
    columns = list(drawn.layout.xaxis.ticktext)
    strip = next(trace for trace in drawn.data if trace.name == "controls" and trace.meta == "reasoning")
    assert list(strip.z[1]) == [WORDS[column] for column in columns]
    assert {trace.coloraxis for trace in drawn.data if trace.type == "heatmap"} == {"coloraxis"}
    hatched = next(trace for trace in drawn.data if trace.type == "bar" and trace.meta == "reasoning")
    assert [columns[index] for index in hatched.x] == ["thought", "thought_last"]
    assert all(width == LAYERS for width in hatched.y) and set(hatched.base) == {-0.5}


def enclosed(x, y) -> set[tuple[int, int]]:
    """The cells (column, line) inside closed loops, by counting edges crossed on the way up: an oracle that knows nothing of tracing."""
    edges = [(x[i], x[i + 1], y[i]) for i in range(len(x) - 1) if None not in (x[i], x[i + 1]) and y[i] == y[i + 1]]
    inside = set()
    for column in range(20):
        for line in range(-1, 40):
            if sum(min(left, right) < column < max(left, right) and level > line for left, right, level in edges) % 2:
                inside.add((column, line))
    return inside


def test_contours_enclose_the_cells_that_beat_a_control_with_their_whole_interval(tables):
    detection = tables["detection"]
    drawn = auroc_by_layer_and_span(detection)
    columns = list(drawn.layout.xaxis.ticktext)
    for model in ("base", "reasoning", "safe"):
        mine = rows(detection, model)
        shuffled, words = (next(trace for trace in drawn.data if trace.name == name and trace.meta == model) for name in BEAT)
        above = mine[mine.low > mine.control_high]
        beyond = above[above.low > above.text_auroc]
        for trace, kept in ((shuffled, above), (words, beyond)):
            assert enclosed(trace.x, trace.y) == {(columns.index(span), layer) for span, layer in zip(kept.span, kept.layer, strict=True)}
        assert (len(beyond) < len(above)) == (model != "base")
    assert drawn.layout.showlegend is not False and shuffled.line.color != words.line.color and shuffled.line.width > words.line.width


def test_a_control_that_was_not_run_encloses_nothing(tables):
    bare = tables["detection"].assign(control_high=math.nan, text_auroc=math.nan)
    drawn = auroc_by_layer_and_span(bare)
    shuffled, words = (next(trace for trace in drawn.data if trace.name == name and trace.meta == "reasoning") for name in BEAT)
    mine = rows(bare, "reasoning")
    assert len(enclosed(shuffled.x, shuffled.y)) == (mine.low > mine.control_auroc).sum() and not words.x
    none = auroc_by_layer_and_span(tables["detection"].assign(low=math.nan, high=math.nan))
    assert not any(trace.x for trace in none.data if trace.name in BEAT)


@pytest.mark.parametrize("seed", range(5))
def test_outlines_enclose_exactly_what_is_marked(seed):
    marked = np.random.default_rng(seed).random((6, 7)) < 0.5
    x, y = outline(marked.tolist())
    assert enclosed(x, y) == {(column, line) for line, column in np.argwhere(marked).tolist()}
    corners = [at for at, here in enumerate(x) if here is None]
    for start, end in zip([0, *(at + 1 for at in corners)], [*corners, len(x)], strict=True):
        assert (x[start], y[start]) == (x[end - 1], y[end - 1])  # closed


def test_outline_of_nothing_and_of_a_block():
    assert outline([[False, False]]) == ([], [])
    x, y = outline([[True, True], [True, True]])
    assert sorted(set(zip(x, y, strict=True))) == [(-0.5, -0.5), (-0.5, 1.5), (1.5, -0.5), (1.5, 1.5)] and len(x) == 5


def test_the_menu_shows_one_model_at_a_time(tables):
    drawn = auroc_by_layer_and_span(tables["detection"])
    buttons = drawn.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["base", "reasoning", "safe"]
    assert [trace.visible for trace in drawn.data] == list(buttons[1].args[0]["visible"])
    for button in buttons:
        assert {trace.meta for trace, seen in zip(drawn.data, button.args[0]["visible"], strict=True) if seen} == {button.label}


def test_one_model_one_layer_and_many_layers(tables):
    detection = tables["detection"]
    one = auroc_by_layer_and_span(detection[(detection.model == "safe") & (detection.layer == 3) & (detection.span == "thought")])
    assert not one.layout.updatemenus and list(one.layout.yaxis2.ticktext) == ["3"]
    deep = pd.concat([detection.assign(layer=2 * (detection.layer + 6 * times)) for times in range(6)], ignore_index=True)
    drawn = auroc_by_layer_and_span(deep)
    assert len(cells_of(drawn, "safe").z) == 36 and len(drawn.layout.yaxis2.ticktext) <= 16 and drawn.layout.height > 36 * 14
    assert [told[0][0] for told in cells_of(drawn, "safe").customdata] == list(range(0, 72, 2))


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
    cells = cells_of(drawn, "reasoning")
    assert {hover[12] for line in cells.customdata for hover in line} == {"–"} == {hover[13] for line in cells.customdata for hover in line}
    assert "undecided" in read_detection(bare)


def test_a_layer_is_the_first_to_clear_only_where_all_above_it_do(tables):
    clean = tables["detection"]
    mine = clean[(clean["model"] == "reasoning") & (clean["split"] == "test") & (clean["span"] == "last_prompt")]
    told = {}
    for name, low in {
        "all above": [0.1, 0.9, 0.1, 0.9, 0.9, 0.9],
        "not the last": [0.1, 0.9, 0.1, 0.9, 0.9, 0.1],
        "none": [0.1] * 6,
    }.items():
        told[name] = read_layers(mine.assign(low=mine["layer"].map(dict(enumerate(low))), control_high=0.6))
    assert "clears the shuffled labels from layer 3 on" in told["all above"]
    assert "clears the shuffled labels in layers 1, 3, 4 alone" in told["not the last"] and "never clears" in told["none"]
