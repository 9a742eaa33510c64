"""Three measures of a decision, and where decisions lie: what is drawn is what the tables say."""

from __future__ import annotations

import math

import pytest
from thoughtlens.viz.figures.deciding import decisions_along_thought, read_along, read_three, three_measures
from thoughtlens.viz.tables import TableProblem


def test_three_panels_show_both_sides_and_the_random_directions(tables):
    table = tables["decision_ranks"]
    drawn = three_measures(table)
    *dots, rings = drawn.data
    assert [trace.name for trace in dots] == ["dev, decides", "test, confirms"] * 3
    for trace, name in zip(dots, ("gap", "gap", "margin", "margin", "effect", "effect"), strict=True):
        side = table[(table["split"] == trace.name.split(",")[0]) & table["rank"].notna()]
        assert list(trace.x) == side[name].tolist()
        assert [told[2:4] for told in trace.customdata] == side[[f"{name}_low", f"{name}_high"]].to_numpy().tolist()
    assert list(rings.x) == [0.03] * 3 and "harmful - benign at resid_post.4, strength 1" in dots[-1].customdata[0][7]
    assert list(drawn.layout.yaxis.ticktext) == ["last_prompt", "step_end[0]", "<b>step_end[1]</b>"]
    with pytest.raises(TableProblem, match="ranks no anchor"):
        three_measures(table.assign(rank=math.nan))


def test_three_measures_in_words_say_where_they_differ(tables):
    table = tables["decision_ranks"]
    told = read_three(table)
    assert "On dev step_end[1] comes first, in 98% of bootstrap draws. All three put it first." in told
    assert "takes back 0.20 [0.19 to 0.21] of 0.50 nats" in told and "a random direction at most 0.03" in told and "too." in told
    other = table.assign(rank_effect=table["rank_effect"].map({1: 2, 2: 1, 3: 3}))
    assert "by effect step_end[0]" in read_three(other)


def test_decisions_lie_where_their_steps_are(tables):
    drawn = {trace.name: dict(zip(trace.x, trace.y, strict=True)) for trace in decisions_along_thought(tables["decision_boundaries"]).data}
    assert drawn["harmful, recognised"] == drawn["benign, recognised"]
    assert {name: share for name, share in drawn["harmful, measured"].items() if share} == {"30-40%": 0.5, "80-90%": 0.5}
    assert not any(drawn["benign, measured"].values())
    assert "50% of the harmful thoughts at 30-40% (n = 10)" in read_along(tables["decision_boundaries"])
    with pytest.raises(TableProblem, match="no test row"):
        decisions_along_thought(tables["decision_boundaries"].assign(split="dev"))
