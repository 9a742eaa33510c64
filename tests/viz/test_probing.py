"""Transfer, aligned curves, decision points and heads: what is drawn is what the tables say, and what cannot be drawn says so."""

from __future__ import annotations

import math

import pytest
from thoughtlens.viz.figures.best_layer import read_detection
from thoughtlens.viz.figures.curves import read_curves, readout_aligned
from thoughtlens.viz.figures.decision import decision_points, read_decision
from thoughtlens.viz.figures.heldout import probe_held_out, read_held_out
from thoughtlens.viz.figures.layers import auroc_by_layer_and_span
from thoughtlens.viz.figures.readable import best_layers
from thoughtlens.viz.figures.transfer import read_transfer, transfer_matrix, views
from thoughtlens.viz.tables import TableProblem


def test_every_matrix_is_a_view_and_every_cell_its_row(tables):
    table = tables["transfer"]
    drawn = transfer_matrix(table)
    assert list(views(table)) == [trace.name for trace in drawn.data] and [trace.visible for trace in drawn.data] == [True, False]
    for trace, rows in zip(drawn.data, views(table).values(), strict=True):
        cells = {
            (line[0], line[1]): value
            for told, values in zip(trace.customdata, trace.z, strict=True)
            for line, value in zip(told, values, strict=True)
        }
        assert cells == {(row.source, row.target): pytest.approx(row.auroc) for row in rows.itertuples()}
    buttons = drawn.layout.updatemenus[0].buttons
    assert list(buttons[1].args[1]["xaxis.ticktext"]) == sorted({*table[table.along == "attack"].source})
    assert list(drawn.layout.xaxis.ticktext) == ["base", "reasoning", "safe"] and list(drawn.layout.yaxis.range) == [2.5, -0.5]


def test_transfer_in_words_names_the_worst_pair(tables):
    away = tables["transfer"].query("along == 'model' and source != target")
    worst = away.loc[away["auroc"].idxmin()]
    told = read_transfer(tables["transfer"])
    assert f"lowest fitted on {worst.source}, read on {worst.target}" in told and "n = 200" in told


def test_what_is_held_out_is_told_at_the_layer_dev_likes(tables):
    drawn = probe_held_out(tables["holdouts"])
    assert [a.text for a in drawn.layout.annotations] == ["<b>last_prompt</b>", "<b>step_end[0]</b>"]
    words, probes = drawn.data[:2]
    assert list(probes.x) == [0.9] * 3 and list(words.x) == [0.5] * 3 and list(probes.y) == [0, 1, 2]
    assert [told[4:7] for told in probes.customdata] == [["2", "reasoning", "40"], ["2", "reasoning", "80"], ["2", "safe", "200"]]
    told = read_held_out(tables["holdouts"])
    assert (
        "At step_end[0] the probe reaches AUROC .99 to .99" in told and "(3 ways)" in told and "tf-idf over the prompt .50 to .50" in told
    )
    with pytest.raises(TableProblem, match="no probe with dev and test rows"):
        probe_held_out(tables["holdouts"].query("split == 'test'"))


def test_aligned_curves_are_the_table(tables):
    curves = tables["curves"]
    drawn = readout_aligned(curves)
    lines = [trace for trace in drawn.data if trace.mode == "lines+markers"]
    assert len(lines) == 2 * 3 * 2 and sum(trace.showlegend is not False for trace in lines) == 2
    ended = curves.query("model == 'reasoning' and by == 'end' and side == 'harmful'").sort_values("at")
    assert any(list(line.x) == ended["at"].tolist() and list(line.y) == ended["mean"].tolist() for line in lines)
    assert "4.00 at most (at 0; n = 60 harmful, 60 benign), and 2.00 at the end" in read_curves(curves)
    with pytest.raises(TableProblem, match="no aligned readout"):
        readout_aligned(curves[curves["by"] == "nothing"])


def test_decision_points_show_both_sides_and_the_first_in_bold(tables):
    drawn = decision_points(tables["decision"])
    assert list(drawn.layout.yaxis.ticktext) == ["last_prompt", "step_end[0]", "<b>step_end[1]</b>"]
    assert [trace.name for trace in drawn.data] == ["dev, decides", "test, confirms"] * 2
    for trace, name in zip(drawn.data, ("gap", "gap", "margin", "margin"), strict=True):
        side = tables["decision"].query("split == @split", local_dict={"split": trace.name.split(",")[0]}).dropna(subset=["rank"])
        assert list(trace.x) == side[name].tolist()
        assert [told[2:4] for told in trace.customdata] == side[[f"{name}_low", f"{name}_high"]].to_numpy().tolist()
    told = read_decision(tables["decision"])
    assert "on dev is step_end[1]" in told and "On test the first is step_end[1], too." in told and "98%" in told
    with pytest.raises(TableProblem, match="ranks no anchor"):
        decision_points(tables["decision"].assign(rank=math.nan))


def test_a_probe_within_the_interval_of_the_words_is_not_beyond_them(tables):
    clean = tables["detection"]
    words = clean[(clean.probe == "logistic") & (clean.layer == 0)].assign(site="", layer=-1, probe="words", low=0.4, high=0.6)
    near = words.assign(high=words["high"].where(words["span"] != "last_prompt", 0.999))
    table = clean.__class__([*clean.to_dict("records"), *near.to_dict("records")])
    verdicts = best_layers(table).query("reading == 'reasoning'").set_index("column")["verdict"]
    assert verdicts["last_prompt"] == "close" and verdicts["step_end[0]"] == "state"
    assert "Not clear of what the words may tell: last_prompt" in read_detection(table)


def test_baselines_subsets_and_held_out_rows_are_not_mixed_into_detection(tables):
    clean = tables["detection"]
    rows = clean[(clean.split == "test") & (clean.probe == "logistic")]
    mixed = [
        clean.assign(holdout="given", subset="all"),
        rows.assign(holdout="given", subset="complied", auroc=0.1),
        rows.assign(holdout="without fraud", subset="all", auroc=0.2),
        rows.assign(holdout="given", subset="all", auroc=0.3, probe="tfidf_prompt", site="", layer=-1),
    ]
    table = clean.__class__(sum((part.to_dict("records") for part in mixed), []))
    assert best_layers(table)[["span", "layer", "auroc"]].equals(best_layers(clean)[["span", "layer", "auroc"]])
    assert auroc_by_layer_and_span(table).data[1].z == auroc_by_layer_and_span(clean).data[1].z
