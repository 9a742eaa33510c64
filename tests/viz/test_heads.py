"""Cells and dots are the rows of `heads` of one probe: shares, differences with their intervals, n."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from thoughtlens.viz.figures.heads import heads_that_write, read_heads
from thoughtlens.viz.tables import TableProblem


def traces(drawn) -> dict:
    return {trace.name: trace for trace in drawn.data}


def test_every_cell_is_its_row(tables):
    cells = traces(heads_that_write(tables["heads"]))["heads"]
    table = tables["heads"].query("part == 'head'").set_index(["layer", "head"])
    for y, (line, hovers) in enumerate(zip(cells.z, cells.customdata, strict=True)):
        for x, (share, hover) in enumerate(zip(line, hovers, strict=True)):
            row = table.loc[(y, x)]
            assert share == row["share"] and hover[:2] == [str(y), str(x)] and hover[6] == "180"
            assert hover[2:5] == [f"{row[name]:.3g}".replace("-", "−") for name in ("difference", "low", "high")]
    assert cells.zmax == 0.5 and cells.zmin == -0.5


def test_dots_are_the_parts_that_write_most_with_their_intervals(tables):
    drawn = heads_that_write(tables["heads"])
    dots = traces(drawn)["parts"]
    table = tables["heads"].sort_values("difference", ascending=False, kind="stable").head(10)
    assert list(dots.x) == table.difference.tolist() and list(dots.y) == list(range(10))
    assert [x + up for x, up in zip(dots.x, dots.error_x.array, strict=True)] == pytest.approx(table.high.tolist())
    assert [x - down for x, down in zip(dots.x, dots.error_x.arrayminus, strict=True)] == pytest.approx(table.low.tolist())
    assert list(drawn.layout.yaxis2.ticktext)[:3] == ["head 2, layer 1", "embedding", "mlp, layer 0"]
    assert {told[4] for told in dots.customdata} == {"180"}


def test_bold_says_that_the_interval_is_clear_of_zero(tables):
    heads = tables["heads"]
    wide = heads.assign(low=heads.low.mask(heads.layer == 1, -9.0), high=heads.high.mask(heads.layer == 1, 9.0))
    numbers = traces(heads_that_write(wide))["share"]
    assert [("<b>" in text, y == 1) for text, y in zip(numbers.text, numbers.y, strict=True)] == [
        (low > 0 or high < 0, layer == 1)
        for layer, low, high in wide[wide.part == "head"].sort_values(["layer", "head"])[["layer", "low", "high"]].to_numpy()
    ]
    assert "The interval of 8 of 12 heads is clear of zero." in read_heads(wide)


def test_reading_holds_the_head_and_the_parts(tables):
    told = read_heads(tables["heads"])
    assert "head 2 of layer 1: 50% of the difference (2.00 [1.90 to 2.10], n = 180)" in told
    assert "mlp 15%" in told and "embedding 5%" in told
    with pytest.raises(TableProblem, match="no row of a head"):
        heads_that_write(tables["heads"].query("part != 'head'"))
    with pytest.raises(TableProblem, match="no row of a head"):
        read_heads(tables["heads"].query("part != 'head'"))


def test_two_models_and_splits_are_not_mixed(tables):
    heads = tables["heads"]
    mixed = pd.concat([heads.assign(model="base", share=0.9), heads.assign(split="dev", share=0.9), heads], ignore_index=True)
    assert heads_that_write(mixed).to_json() == heads_that_write(heads).to_json()


def test_gaps_one_head_and_no_intervals(tables):
    heads = tables["heads"]
    gone = heads.assign(share=heads.share.mask((heads.layer == 1) & (heads["head"] == 2)), low=math.nan, high=math.nan)
    drawn = traces(heads_that_write(gone))
    assert drawn["heads"].z[1][2] is None and set(drawn["parts"].error_x.array) == {None} and "<b>" not in "".join(drawn["share"].text)
    one = heads_that_write(heads[(heads["head"] == 2) & (heads.layer == 1)])
    assert len(traces(one)["heads"].z) == 1 and list(one.layout.yaxis.ticktext) == ["1"]
    many = pd.concat([heads.assign(layer=heads.layer + 3 * i) for i in range(12)])
    assert heads_that_write(many).layout.height > one.layout.height + 35 * 20
    script = "<script>alert(1)</script>"
    assert "<script" not in heads_that_write(heads.replace({"part": {"mlp": script}, "model": {"reasoning": script}})).to_json()
