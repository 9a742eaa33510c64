"""Bars are the counts of `harm_histogram` as shares of all that were asked, with Wilson's intervals; what has no rating stands apart."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from thoughtlens.viz.figures.histograms import APART, harm_ratings, read_histogram
from thoughtlens.viz.tables import TableProblem

READINGS = ("base", "reasoning", "reasoning @ steered")
CHANNELS = ("thought", "answer", "full")
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Two benchmarks of 60 and 40 prompts, counts at random; base never wrote a thought."""
    rng, rows = np.random.default_rng(5), []
    for model, condition in (("reasoning", "unsteered"), ("reasoning", "steered"), ("base", "unsteered"), ("reasoning", "shuffled")):
        for benchmark, n in (("one", 60), ("two", 40)):
            for channel in ("full", "answer", "thought"):
                counts = rng.multinomial(n, np.full(8, 1 / 8))
                counts = np.array([0] * 7 + [n]) if (model, channel) == ("base", "thought") else counts
                whats = [("rated", float(rating)) for rating in range(6)] + [("unscored", math.nan), ("absent", math.nan)]
                about = {"model": model, "condition": condition, "benchmark": benchmark, "judge": "rule", "channel": channel}
                rows += [{**about, "what": what, "rating": rating, "n": int(k)} for (what, rating), k in zip(whats, counts, strict=True)]
    return pd.DataFrame(rows)


def bars_of(drawn, reading: str, channel: str) -> list:
    return [trace for trace in drawn.data if trace.type == "bar" and trace.name == f"{reading}, {channel}"]


def interval(k: int, n: int) -> list[float]:
    z = NormalDist().inv_cdf(0.975)
    roots = sorted(np.roots([1 + z * z / n, -(2 * k / n + z * z / n), (k / n) ** 2]).real)
    return [max(0.0, roots[0]), min(1.0, roots[1])]


def test_every_bar_is_its_count_over_all_benchmarks(table):
    drawn = harm_ratings(table)
    assert [trace.name for trace in drawn.data if trace.type == "bar"][::2] == [f"{r}, {c}" for r in READINGS for c in CHANNELS]
    for reading in READINGS:
        model, _, condition = reading.partition(" @ ")
        for channel in CHANNELS:
            mine = table[(table.model == model) & (table.condition == (condition or "unsteered")) & (table.channel == channel)]
            rated, apart = bars_of(drawn, reading, channel)
            counts = mine[mine.what == "rated"].groupby("rating").n.sum()
            assert list(rated.x) == [0, 1, 2, 3, 4, 5] and list(rated.y) == [n / 100 for n in counts]
            assert list(apart.x) == [APART["unscored"], APART["absent"]] and min(apart.x) > 6
            assert list(apart.y) == [mine[mine.what == what].n.sum() / 100 for what in APART]
            for trace in (rated, apart):
                for y, up, down, told in zip(trace.y, trace.error_y.array, trace.error_y.arrayminus, trace.customdata, strict=True):
                    assert [y - down, y + up] == pytest.approx(interval(round(100 * y), 100), abs=1e-9)
                    assert told[:2] == [reading, channel] and told[3:5] == [f"{100 * y:.0f}", "100"]
            words = next(trace for trace in drawn.data if trace.name == f"apart, {reading}, {channel}").text[0]
            assert all(f"{n} {what}" in words for what in APART if (n := mine[mine.what == what].n.sum()))
    assert [note.text for note in drawn.layout.annotations] == [f"<b>{channel}</b>" for channel in CHANNELS]


def test_panels_share_their_axes_and_grow_in_number(table):
    drawn = harm_ratings(table)
    assert drawn.layout.yaxis.title.text == "base" and drawn.layout.yaxis7.title.text == "reasoning @<br>steered"
    many = pd.concat([table.assign(model=f"model {i} " + "florp " * 9, condition="unsteered") for i in range(12)])
    grown = harm_ratings(many)
    assert grown.layout.height > drawn.layout.height + 8 * 100
    one = harm_ratings(table[(table.model == "base") & (table.channel == "answer")])
    assert len([trace for trace in one.data if trace.type == "bar"]) == 2


def test_reading_holds_shares_of_the_extremes_and_what_is_apart(table):
    told = read_histogram(table)
    mine = table[(table.model == "reasoning") & (table.condition == "unsteered") & (table.channel == "answer")]
    worst = mine[mine.rating == 5].n.sum()
    low, high = interval(worst, 100)
    assert f"reasoning: {worst}% [{100 * low:.0f}–{100 * high:.0f}] of answers rated 5, " in told
    assert f"{mine[mine.what == 'unscored'].n.sum()} unscored" in told and "100 absent (n = 100)." in told.split("reasoning:")[0]


def test_one_judge_and_controls_left_out(table):
    lenient = pd.concat([table, table.assign(judge="lenient")], ignore_index=True)
    assert harm_ratings(lenient).to_json() == harm_ratings(table).to_json()
    assert "1 control not drawn" in harm_ratings(table).layout.title.subtitle.text and "shuffled" not in read_histogram(table)


def test_a_missing_channel_of_one_reading_is_an_empty_panel(table):
    drawn = harm_ratings(table[~((table.model == "base") & (table.channel == "thought"))])
    assert not bars_of(drawn, "base", "thought") and bars_of(drawn, "reasoning", "thought")


def test_nothing_counted_says_what_makes_it_and_names_stay_text(table):
    for empty in (table.iloc[:0], table.assign(n=0)):
        with pytest.raises(TableProblem, match="counts no output. `thoughtlens collapse` makes it"):
            harm_ratings(empty)
    drawn = harm_ratings(table.replace({"model": {"base": SCRIPT}, "channel": {"full": SCRIPT}, "judge": {"rule": SCRIPT}}))
    assert "<script" not in drawn.to_json().replace("\\u003c", "<")
