"""The dots are the rows of `collapse`: values, intervals, order; never another channel, metric, judge or the macro mean."""

from __future__ import annotations

import pandas as pd
import pytest
from fake_run import BESIDE
from thoughtlens.viz import TableProblem, attack_success_by_attack, tax_by_category
from thoughtlens.viz.figures.tax import read_attacks, read_tax


def shown(collapse: pd.DataFrame, model: str, **where: str) -> pd.Series:
    rows = collapse[(collapse.metric == "attack_success") & (collapse.channel == "answer") & (collapse.model == model)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize(
    ("figure", "key", "other"), [(tax_by_category, "category", "attack"), (attack_success_by_attack, "attack", "category")]
)
def test_every_dot_is_its_row(tables, figure, key, other):
    collapse = tables["collapse"]
    drawn = figure(collapse)
    names = [name.removeprefix("<b>").removesuffix("</b>") for name in drawn.layout.yaxis.ticktext]
    values = set(collapse[key]) - set(BESIDE)
    assert len(names) == len(values) and names[0].startswith("all ")
    models = [trace for trace in drawn.data if trace.mode == "markers"]
    assert [trace.name for trace in models] == ["base", "reasoning", "safe"]
    for trace in models:
        assert len(trace.x) == len(names)
        for x, y, above, below, told in zip(trace.x, trace.y, trace.error_x.array, trace.error_x.arrayminus, trace.customdata, strict=True):
            name = names[round(y)]
            row = shown(collapse, trace.name, **{key: "all" if name.startswith("all ") else name, other: "all"})
            assert x == row["value"]
            assert x + above == pytest.approx(row["high"]) and x - below == pytest.approx(row["low"])
            assert told == [name, trace.name, row["low"], row["high"], f"{row['numerator']:.0f}", f"{row['n']:.0f}"]


def test_largest_tax_stands_first(tables):
    drawn = tax_by_category(tables["collapse"])
    tax = tables["collapse"][tables["collapse"].metric == "tax_difference"].set_index("category")["value"]
    order = list(drawn.layout.yaxis.ticktext)[1:]
    assert [tax[name] for name in order] == sorted(tax.drop("all"), reverse=True)
    printed = next(trace for trace in drawn.data if trace.name == "tax")
    assert [int(text) for text in printed.text] == [round(100 * value) for value in (tax["all"], *(tax[name] for name in order))]


def test_parts_are_added_where_the_table_has_no_all(tables):
    collapse = tables["collapse"]
    parts = collapse[(collapse.attack != "all") & (collapse.category != "all") & (collapse.metric == "attack_success")]
    drawn, whole = tax_by_category(parts), tax_by_category(collapse)
    for ours, theirs in zip(drawn.data, whole.data, strict=True):
        if ours.mode == "markers":
            assert dict(zip(ours.y, ours.x, strict=True)).keys() == dict(zip(theirs.y, theirs.x, strict=True)).keys()
            assert sorted(ours.x) == pytest.approx(sorted(theirs.x))
            assert sorted(ours.error_x.array) == pytest.approx(sorted(theirs.error_x.array), abs=1e-4)


def test_two_judges_are_never_added_up(tables):
    collapse = tables["collapse"]
    lenient = collapse.assign(judge="lenient", value=0.5, numerator=0.0)
    both = tax_by_category(pd.concat([collapse, lenient], ignore_index=True))
    assert both.to_json() == tax_by_category(collapse).to_json()
    assert "judge rule at ≥ 4" in both.layout.title.subtitle.text


def test_reading_holds_the_numbers_and_claims_no_blind_spot(tables):
    told = read_tax(tables["collapse"])
    for model in ("base", "reasoning", "safe"):
        row = shown(tables["collapse"], model, category="all", attack="all")
        assert f"{model} {100 * row['value']:.0f}% [{100 * row['low']:.0f}–{100 * row['high']:.0f}]" in told
    tax = tables["collapse"].query("metric == 'tax_difference' and category != 'all'").set_index("category")["value"]
    assert "n = 200 each" in told and f"the largest is {tax.idxmax()} (" in told and f"the smallest {tax.idxmin()} (" in told
    assert "Blind spots" not in told and "Whether one is a blind spot takes a test" in told


def test_no_tax_is_said_to_be_none(tables):
    collapse = tables["collapse"]
    base = collapse[collapse.model == "base"]
    same = pd.concat([base, base.assign(model="reasoning")], ignore_index=True)
    assert "holds zero, so this run shows no collapse" in read_tax(same)
    assert "no tax to compute" in read_tax(base)


def test_attacks_that_do_not_differ_are_said_not_to(tables):
    collapse = tables["collapse"]
    assert "so the wrapping matters" in read_attacks(collapse)
    assert "does not show that the wrapping matters" in read_attacks(collapse.assign(low=0.0, high=1.0))


def test_a_table_without_the_rows_says_what_is_there(tables):
    with pytest.raises(TableProblem, match="No rows with metric = 'attack_success'; the table has refusal"):
        tax_by_category(tables["collapse"][tables["collapse"].metric == "refusal"])
