"""Every cell of the heatmap is a rate of `collapse`, with its n printed and its interval in the hover; what is not there is a gap."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from thoughtlens.viz.figures.attacks import attack_success_by_attack, read_attacks
from thoughtlens.viz.tables import TableProblem


def rows_of(collapse: pd.DataFrame) -> pd.DataFrame:
    kept = collapse[(collapse.metric == "attack_success") & (collapse.channel == "answer") & (collapse.category == "all")]
    return kept.set_index(["attack", "model"])


def test_every_cell_is_its_row(tables):
    drawn = attack_success_by_attack(tables["collapse"])
    (heat,) = drawn.data
    table = rows_of(tables["collapse"])
    assert list(drawn.layout.xaxis.ticktext) == ["base", "reasoning", "safe"]
    assert drawn.layout.yaxis.ticktext[0] == "<b>all attacks</b>"
    for z_line, texts, hovers in zip(heat.z, heat.text, heat.customdata, strict=True):
        for model, z, text, hover in zip(("base", "reasoning", "safe"), z_line, texts, hovers, strict=True):
            row = table.loc[(hover[0], model)]
            assert z == row["value"] and text == f"{round(100 * row['value'])}%<br>n = {row['n']:.0f}"
            assert hover[2:] == [model, f"{row['low']:.1%} to {row['high']:.1%}", f"{row['numerator']:.0f}", f"{row['n']:.0f}"]
    order = [hovers[0][0] for hovers in heat.customdata]
    reasoning = table.xs("reasoning", level="model")["value"]
    assert order[0] == "all" and [reasoning[name] for name in order[1:]] == sorted(reasoning.drop("all"), reverse=True)
    assert drawn.layout.yaxis.range[0] > drawn.layout.yaxis.range[1]  # the first line on top


def test_steered_is_a_column_and_a_missing_cell_a_gap(tables):
    collapse = tables["collapse"]
    steered = collapse[(collapse.model == "reasoning") & (collapse.attack != "prefix") & (collapse.metric != "tax_difference")]
    drawn = attack_success_by_attack(pd.concat([collapse, steered.assign(condition="steered")], ignore_index=True))
    (heat,) = drawn.data
    assert list(drawn.layout.xaxis.ticktext) == ["base", "reasoning", "reasoning @ steered", "safe"]
    at = [hovers[0][0] for hovers in heat.customdata].index("prefix")
    assert heat.z[at][2] is None and heat.text[at][2] == "" and heat.z[at][1] is not None


def test_any_subset_is_drawn(tables):
    collapse = tables["collapse"]
    one = collapse[(collapse.model == "safe") & collapse.attack.isin(["all", "plain"])].assign(low=math.nan)
    (heat,) = attack_success_by_attack(one).data
    assert len(heat.z) == 2 and heat.customdata[0][0][3] == "–"
    many = pd.concat([collapse[collapse.attack == "plain"].assign(attack=f"attack {i}") for i in range(40)])
    assert attack_success_by_attack(many).layout.height > attack_success_by_attack(one).layout.height + 38 * 38
    script = "<script>alert(1)</script>"
    drawn = attack_success_by_attack(collapse.replace({"attack": {"plain": script}, "model": {"safe": script}}))
    visible = (
        *drawn.layout.xaxis.ticktext,
        *drawn.layout.yaxis.ticktext,
        *(text for line in drawn.data[0].customdata for c in line for text in c[1:]),
    )
    assert not [text for text in visible if "<script" in text] and any("&lt;script" in text for text in visible)
    assert any(cell[0] == script for line in drawn.data[0].customdata for cell in line)  # a link needs the name as it is


def test_many_columns_print_the_rate_alone(tables):
    collapse = tables["collapse"]
    mine = collapse[(collapse.model == "reasoning") & (collapse.metric == "attack_success")]
    drawn = attack_success_by_attack(pd.concat([mine.assign(condition=f"way {i}") for i in range(8)]))
    assert "<br>" not in drawn.data[0].text[0][0]


def test_attacks_that_do_not_differ_are_said_not_to(tables):
    collapse = tables["collapse"]
    told = read_attacks(collapse)
    reasoning = rows_of(collapse).xs("reasoning", level="model").drop("all")
    assert (
        any(f"most open to {name} ({100 * reasoning.value.max():.0f}%" in told for name in reasoning.index)
        and "so the wrapping matters" in told
    )
    assert "does not show that the wrapping matters" in read_attacks(collapse.assign(low=0.0, high=1.0))
    assert "There is one attack in this run, plain" in read_attacks(collapse[collapse.attack.isin(["all", "plain"])])


def test_a_table_without_attacks_says_so(tables):
    with pytest.raises(TableProblem, match="no rows by attack"):
        read_attacks(tables["collapse"].query("attack == 'all'"))
    with pytest.raises(TableProblem, match="No rows with metric"):
        attack_success_by_attack(tables["collapse"].query("metric == 'refusal'"))
