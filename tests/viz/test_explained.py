"""Margins layer by layer and conditions of the tests: every mark is a row of the table, and the readings tell what is drawn."""

from __future__ import annotations

import pytest
from fake_run import explained, margins
from thoughtlens.viz.figures.explained import explained_conditions, read_explained
from thoughtlens.viz.figures.margins import CLASSES, margins_by_layer, read_margins
from thoughtlens.viz.tables import TableProblem


def test_every_mean_and_deviation_is_drawn_once():
    table = margins()
    figure = margins_by_layer(table)
    assert len(figure.data) == 2 * 3 * len(CLASSES) and sum(trace.showlegend for trace in figure.data) == 3 * len(CLASSES)
    spans = [title.text.removeprefix("<b>").removesuffix("</b>") for title in figure.layout.annotations]
    for trace in figure.data:
        model, side = trace.name.split(", ")
        span = spans[int(trace.xaxis.removeprefix("x") or 1) - 1]
        for told, y, sd in zip(trace.customdata, trace.y, trace.error_y.array, strict=True):
            row = table[(table.span == span) & (table.model == model) & (table.layer == told[0])].set_index("metric").value
            assert (y, sd) == (row[f"mean_{side}"], row[f"sd_{side}"])


def test_the_reading_takes_the_layer_where_the_base_tells_best():
    told = read_margins(margins())
    assert "At step_end[4], layer 2, reasoning tuning moved both classes by -0.30 [-0.35, -0.25]" in told
    assert "changed their distance by -0.30 [-0.35, -0.25]" in told and "n = 394" in told
    assert "no reasoning model" in read_margins(margins().query("model == 'base'"))
    with pytest.raises(TableProblem, match="no class means"):
        margins_by_layer(margins().query("metric == 'auroc'"))


def test_conditions_are_told_once_and_draws_share_a_row():
    figure = explained_conditions(explained())
    labels = list(figure.layout.yaxis.ticktext)
    assert labels == [
        "unsteered",
        "base",
        "safe",
        "the whole mean shift",
        "update of layer 4 reverted",
        "the whole mean shift, random direction as long",
    ]
    values = {told[0]: x for trace in figure.data for x, told in zip(trace.x, trace.customdata, strict=True)}
    assert values["unsteered"] == 0.8 and values["the whole mean shift"] == 0.2 and len(values) == 8
    with pytest.raises(TableProblem, match="The explained table has no test rows"):
        explained_conditions(explained().assign(split="dev"))


def test_the_reading_tells_what_helps_most():
    told = read_explained(explained())
    assert "unsteered: 80% [" in told and told.index("the whole mean shift: 20%") < told.index("update of layer 4 reverted: 40%")
