"""Each way's attack success beside what it leaves of the model; a divergence is told in nats, never as a share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_run import comparison, rate
from thoughtlens.viz import theme
from thoughtlens.viz.figures.capability import PANELS, capability, read_capability
from thoughtlens.viz.tables import TableProblem

NATS = {"safe": 0.006, "reminder": 0.031, "steered": 0.002, "shuffled[0]": 0.001}


def costs() -> pd.DataFrame:
    """The made comparison with tasks solved and divergences; the reminder solves none."""
    table = comparison()
    where = {"split": "test", "attack": "all", "thought_mode": "regenerated"}
    rows = [
        {**where, "condition": name, "what": name, "metric": "task_accuracy", **rate(0 if name == "reminder" else 50, 160)}
        for name in ("unsteered", "safe", "reminder", "steered")
    ]
    for name, value in NATS.items():
        told = {"value": value, "low": value / 2, "high": value * 1.5, "numerator": np.nan, "n": 160.0}
        rows.append({**where, "condition": name, "what": name, "metric": "kl", **told})
    return pd.concat([table, pd.DataFrame(rows)], ignore_index=True)


def test_every_dot_is_a_row_in_the_panel_of_its_outcome():
    table, figure = costs(), capability(costs())
    assert [note.text for note in figure.layout.annotations] == [
        "<b>attack<br>success</b>",
        "<b>helpful</b>",
        "<b>tasks<br>solved</b>",
        "<b>KL, nats</b>",
    ]
    seen = 0
    for trace in figure.data:
        metric = next(key for key, words in PANELS.items() if words == trace.name)
        for x, y, up, down, told in zip(trace.x, trace.y, trace.error_x.array, trace.error_x.arrayminus, trace.customdata, strict=True):
            (row,) = [
                one for _, one in table.iterrows() if (one.condition, one.metric, one.split, one.attack) == (told[0], metric, "test", "all")
            ]
            assert (x, x - down, x + up) == pytest.approx((row.value, row.low, row.high))
            assert figure.layout.yaxis.ticktext[y] == row.condition.split("[")[0] and told[5] == f"{row.n:.0f}"
            seen += 1
        assert ("nats" in trace.hovertemplate) == (metric == "kl") == ("%}" not in trace.hovertemplate)
    assert seen == len(table[(table.split == "test") & (table.attack == "all") & table.metric.isin(PANELS)])


def test_the_axis_of_nats_holds_every_interval():
    figure = capability(costs())
    assert figure.layout.xaxis4.range[1] > 0.031 * 1.5 and figure.layout.xaxis4.ticktext[1] == "0.025"
    assert all(figure.layout[f"xaxis{n}"].ticktext[1] == "50%" for n in ("", 2, 3))
    tiny = costs()
    tiny.loc[tiny.metric == "kl", ["value", "low", "high"]] = 0.0
    assert capability(tiny).layout.xaxis4.range[1] > 0


def test_words_tell_the_chosen_way_and_who_comes_to_clearly_less():
    told = read_capability(costs())
    assert "Steered: attack success 10% [" in told and "KL 0.002 [0.001–0.003] nats, n = 160" in told
    assert "Tasks solved: unsteered 31% [25–39], n = 160; of 2 ways 1 comes to clearly less: reminder (0% [0–2])" in told
    assert "Helpful: unsteered 97%" in told and "reminder (90%" in told and "system prompt" not in told
    assert "move by 0.002 [0.001–0.003] nats, n = 160 (steered) to 0.031" in told
    alone = costs().query("condition != 'unsteered'")
    assert "unsteered" not in read_capability(alone)


def test_attack_success_alone_tells_nothing_of_what_is_left():
    with pytest.raises(TableProblem, match="nothing it may cost"):
        capability(comparison().query("metric == 'attack_success'"))
    with pytest.raises(TableProblem, match="no test rows"):
        capability(comparison().query("split == 'dev'"))


def test_names_from_data_are_escaped_and_cut():
    name = "<b>" + "very long " * 9
    table = costs().replace({"condition": {"reminder": name}})
    labels = capability(table).layout.yaxis.ticktext
    assert any(label.startswith("&lt;b&gt;very") and len(label) < 75 for label in labels)
    assert theme.plain(name) in {told[0] for trace in capability(table).data for told in trace.customdata}
