"""The comparison of ways: every dot is a row of the table, controls share a row, and the reading tells what is drawn."""

from __future__ import annotations

import pytest
from fake_run import comparison
from thoughtlens.viz.figures.ways import PANELS, read_ways, ways_compared
from thoughtlens.viz.tables import TableProblem


def dots(figure, table):
    """metric -> condition -> (value, low, high, row of the axis)."""
    labels = list(figure.layout.yaxis.ticktext)
    found = {}
    for trace in figure.data:
        metric = next(name for name, words in PANELS.items() if words == trace.name)
        for x, y, up, down, told in zip(trace.x, trace.y, trace.error_x.array, trace.error_x.arrayminus, trace.customdata, strict=True):
            found.setdefault(metric, {})[told[0]] = (x, x - down, x + up, labels[y])
    return found


def test_every_dot_is_a_test_row_over_all_attacks():
    table = comparison()
    found = dots(ways_compared(table), table)
    rows = table[(table.split == "test") & (table.attack == "all")]
    assert set(found) == set(rows.metric)
    for _, row in rows.iterrows():
        value, low, high, label = found[row.metric][row.condition]
        assert (value, label) == (row.value, row.condition.split("[")[0])
        assert (low, high) == pytest.approx((row.low, row.high))
    assert sum(len(one) for one in found.values()) == len(rows)


def test_draws_of_a_control_share_a_row_and_are_faint():
    figure = ways_compared(comparison())
    assert list(figure.layout.yaxis.ticktext) == ["unsteered", "safe", "reminder", "system prompt", "steered", "shuffled", "random"]
    assert {trace.opacity for trace in figure.data} == {1.0, 0.5}
    for trace in figure.data:
        assert all("[" in told[0] for told in trace.customdata) == (trace.opacity == 0.5)


def test_panels_without_rows_are_left_out():
    table = comparison()
    assert len(ways_compared(table[table.metric != "helpful"]).layout.annotations) == 2
    with pytest.raises(TableProblem, match="no test rows of attack_success"):
        ways_compared(table[table.split == "dev"])


def test_the_reading_tells_steering_beside_words_and_controls():
    told = read_ways(comparison())
    for part in (
        "unsteered: 80% [",
        "steered: 10% [",
        "reminder: 40% [",
        "n = 160",
        "3 random vectors of equal norm: 79% to 81%",
        "2 shuffled vectors",
    ):
        assert part in told, part


def test_text_from_data_is_escaped():
    table = comparison().assign(what="<script>")
    figure = ways_compared(table)
    assert all("<script>" not in told[6] and "&lt;script&gt;" in told[6] for trace in figure.data for told in trace.customdata)
