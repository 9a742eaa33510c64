"""The dots are the rows of `collapse`: values, intervals, order; never another channel, metric, judge or the macro mean."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from fake_run import BESIDE, rate
from thoughtlens.viz.figures.readings import label, left_out, marks, readings, with_reading
from thoughtlens.viz.figures.tax import read_tax, tax_by_category, taxes_by
from thoughtlens.viz.tables import TableProblem


def shown(collapse: pd.DataFrame, reading: str, **where: str) -> pd.Series:
    rows = collapse[(collapse.metric == "attack_success") & (collapse.channel == "answer")]
    rows = rows[rows.model.where(rows.condition == "unsteered", rows.model + " @ " + rows.condition) == reading]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def names_of(drawn) -> list[str]:
    return [name.removeprefix("<b>").removesuffix("</b>").replace("<br>", " ") for name in drawn.layout.yaxis.ticktext]


@pytest.fixture(scope="module")
def steered(tables) -> pd.DataFrame:
    """The reasoning model steered, and two controls that are in no figure of this kind."""
    collapse = tables["collapse"]
    mine = collapse[(collapse.model == "reasoning") & (collapse.metric != "tax_difference")]
    conditions = [mine.assign(condition=name, value=mine.value / 10, low=0.0) for name in ("headline", "random[0]", "shuffled")]
    return pd.concat([collapse, *conditions], ignore_index=True)


def test_every_dot_is_its_row(steered):
    drawn = tax_by_category(steered)
    names = names_of(drawn)
    assert len(names) == len(set(steered.category) - set(BESIDE)) and names[0] == "all categories"
    dots = [trace for trace in drawn.data if trace.mode == "markers"]
    assert [trace.name for trace in dots] == ["base", "reasoning", "reasoning @ headline", "safe"]
    for trace in dots:
        assert len(trace.x) == len(names)
        for x, y, above, below, told in zip(trace.x, trace.y, trace.error_x.array, trace.error_x.arrayminus, trace.customdata, strict=True):
            name = names[round(y)]
            row = shown(steered, trace.name, category="all" if name == "all categories" else name, attack="all")
            assert x == row["value"]
            assert x + above == pytest.approx(row["high"]) and x - below == pytest.approx(row["low"])
            assert told == [name, trace.name, row["low"], row["high"], f"{row['numerator']:.0f}", f"{row['n']:.0f}"]
    assert "2 controls not drawn" in drawn.layout.title.subtitle.text and len({(t.marker.color, t.marker.symbol) for t in dots}) == 4


def test_largest_tax_stands_first_whatever_is_steered(tables, steered):
    drawn = tax_by_category(steered)
    tax = steered[steered.metric == "tax_difference"].set_index("category")
    order = names_of(drawn)[1:]
    assert [tax.value[name] for name in order] == sorted(tax.value.drop("all"), reverse=True)
    printed = next(trace for trace in drawn.data if trace.name == "tax")
    assert [int(text) for text in printed.text] == [round(100 * tax.value[name]) for name in ("all", *order)]
    assert printed.customdata[0][1].startswith(f"+{100 * tax.value['all']:.0f} points [+{100 * tax.low['all']:.0f} to ")
    others = [
        steered[steered.metric == "tax_difference"].assign(**{key: name, "value": -1.0})
        for key, name in (("condition", "headline"), ("attack", "plain"))
    ]
    again = tax_by_category(pd.concat([*others, steered], ignore_index=True))
    assert again.to_json() == drawn.to_json()


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
    swapped = pd.concat([lenient[lenient.metric == "tax_difference"], collapse, lenient], ignore_index=True)
    assert tax_by_category(swapped).to_json() == tax_by_category(collapse).to_json()
    assert "judge rule at ≥ 4" in both.layout.title.subtitle.text


def test_reading_holds_the_numbers_and_claims_no_blind_spot(steered):
    told = read_tax(steered)
    for reading in ("base", "reasoning", "reasoning @ headline", "safe"):
        row = shown(steered, reading, category="all", attack="all")
        assert f"{reading} {100 * row['value']:.0f}% [{100 * row['low']:.0f}–{100 * row['high']:.0f}]" in told
    tax = steered.query("metric == 'tax_difference' and category != 'all'").set_index("category")["value"]
    assert "n = 200 each" in told and f"the largest is {tax.idxmax()} (" in told and f"the smallest {tax.idxmin()} (" in told
    assert "Blind spots" not in told and "Whether one is a blind spot takes a test" in told


def test_no_tax_is_said_to_be_none(tables):
    collapse = tables["collapse"]
    base = collapse[collapse.model == "base"]
    same = pd.concat([base, base.assign(model="reasoning")], ignore_index=True)
    assert "holds zero, so this run shows no collapse" in read_tax(same)
    assert "no tax to compute" in read_tax(base)


@pytest.mark.parametrize("keep", [{"base"}, {"reasoning"}, {"safe", "reasoning"}])
def test_any_models_alone_are_drawn(tables, keep):
    rows = tables["collapse"][tables["collapse"].model.isin(keep)]
    drawn = tax_by_category(rows)
    assert {trace.name for trace in drawn.data if trace.mode == "markers"} == keep
    assert not [trace for trace in drawn.data if trace.name == "tax"]


def test_only_steered_rows_are_drawn_too(steered):
    drawn = tax_by_category(steered[steered.condition == "headline"])
    assert [trace.name for trace in drawn.data if trace.mode == "markers"] == ["reasoning @ headline"]
    assert read_tax(steered[steered.condition == "headline"]).startswith("Unsafe answers among harmful prompts: reasoning @ headline 8%")


def test_one_category_and_no_interval(tables):
    one = tables["collapse"][tables["collapse"].category == "fraud"].assign(low=math.nan, high=math.nan)
    drawn = tax_by_category(one)
    assert names_of(drawn) == ["all categories", "fraud"] and "nan" not in read_tax(one)


def many(names: list[str]) -> pd.DataFrame:
    about = {"condition": "unsteered", "benchmark": "b", "attack": "all", "channel": "answer", "metric": "attack_success"}
    judged = {"judge": "rule", "threshold": 4.0}
    rows = [
        {**about, "model": model, "category": name, **rate(1 + at % 9, 10), **judged}
        for model in ("base", "reasoning")
        for at, name in enumerate(names)
    ]
    return pd.DataFrame(rows)


def test_height_grows_long_names_are_cut_and_names_stay_text():
    few, lots = tax_by_category(many(["one"])), tax_by_category(many([f"category {i}" for i in range(40)]))
    assert lots.layout.height - few.layout.height >= 39 * 40
    script, long = "<script>alert(1)</script>", "florp " * 30
    drawn = tax_by_category(many([script, long.strip()]))
    assert "<script" not in drawn.to_json() and "&lt;script" in drawn.to_json()
    assert max(len(line) for name in drawn.layout.yaxis.ticktext for line in name.split("<br>")) < 40
    assert any(told[0] == long.strip() for trace in drawn.data if trace.mode == "markers" for told in trace.customdata)


def test_a_table_without_the_rows_says_what_is_there(tables):
    with pytest.raises(TableProblem, match="No rows with metric = 'attack_success'; the table has refusal"):
        tax_by_category(tables["collapse"][tables["collapse"].metric == "refusal"])


def test_readings_stand_model_by_model_with_controls_last():
    pairs = [("safe", "unsteered"), ("reasoning", "random[10]"), ("reasoning", "b"), ("reasoning", "random[2]"), ("reasoning", "a")]
    table = with_reading(pd.DataFrame([*pairs, ("reasoning", "unsteered"), ("mine", "unsteered")], columns=["model", "condition"]))
    names = ["reasoning", "reasoning @ b", "reasoning @ a", "reasoning @ random[2]", "reasoning @ random[10]", "safe", "mine"]
    assert readings(table) == names and left_out(table) == "2 controls not drawn"
    look = marks(table)
    assert look["reasoning @ b"].color == look["reasoning @ a"].color and look["reasoning @ b"].symbol != look["reasoning @ a"].symbol
    assert look["reasoning @ random[2]"] == look["reasoning @ random[10]"]


def test_labels_keep_short_names_whole_and_cut_long_ones():
    assert label("Health Consultation") == "Health Consultation"
    assert label("one two three four five six seven", width=10) == "one two<br>three fou…"
    assert label("x" * 50, width=10) == "x" * 10 + "<br>" + "x" * 9 + "…" and label("") == ""
    assert label("a<b") == "a&lt;b"


def test_a_tax_against_another_model_is_not_taken_for_the_one_against_base(tables):
    clean = tables["collapse"]
    own = clean[clean["metric"] == "tax_difference"]
    other = own.assign(value=0.01, low=0.0, high=0.02)
    mixed = pd.concat([clean[clean["metric"] != "tax_difference"], other, other.assign(model="base")])
    plain = clean[clean["metric"] != "tax_difference"]
    assert taxes_by(mixed, "category") == taxes_by(plain, "category") != taxes_by(clean, "category")
