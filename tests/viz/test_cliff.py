"""Drops are the rows of the table in units of the plateau's spread; whether there is a cliff is told by the difference of the sides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from thoughtlens.viz.figures.cliff import NAMES, cliff_by_model, read_cliff
from thoughtlens.viz.tables import TableProblem

DROPS = {  # model, condition -> harmful, benign, and the interval of their difference
    ("reasoning", "unsteered"): (3.0, 1.0, (1.2, 2.8)),
    ("base", "unsteered"): (1.2, 1.0, (-0.4, 0.8)),
    ("reasoning", "steered"): (-1.0, 0.5, (-2.0, -1.0)),
}


def table() -> pd.DataFrame:
    rows = []
    for (model, condition), (harmful, benign, (low, high)) in DROPS.items():
        for split, shift in (("dev", 9.0), ("test", 0.0)):
            same = {"model": model, "condition": condition, "split": split, "scale": 0.5, "groups": 20, "left_out": 2}
            for side, drop in (("harmful", harmful), ("benign", benign)):
                ends = {"plateau": 4.0, "end": 4.0 - drop, "drop": drop + shift, "low": drop - 0.3, "high": drop + 0.4, "n": 30}
                rows.append({**same, "side": side, **ends})
            both = {"plateau": 0.0, "end": benign - harmful, "drop": harmful - benign + shift, "low": low, "high": high, "n": 60}
            rows.append({**same, "side": "difference", **both})
    return pd.DataFrame(rows)


def test_every_dot_is_a_test_row_in_units_of_its_spread():
    figure, rows = cliff_by_model(table()), table().query("split == 'test'")
    assert list(figure.layout.yaxis.ticktext) == ["base", "reasoning", "reasoning @ steered"]
    seen = 0
    for trace in figure.data:
        side = next(key for key, words in NAMES.items() if words == trace.name)
        for x, y, up, down, told in zip(trace.x, trace.y, trace.error_x.array, trace.error_x.arrayminus, trace.customdata, strict=True):
            model, condition = [*told[0].split(" @ "), "unsteered"][:2]
            row = rows[(rows.model == model) & (rows.condition == condition) & (rows.side == side)].iloc[0]
            assert (x, x - down, x + up) == pytest.approx((row["drop"] / 0.5, row.low / 0.5, row.high / 0.5))
            assert told[2:9] == pytest.approx([row["drop"], row.low, row.high, row.plateau, row.end, 0.5, row.n]) and told[9] == "2"
            assert figure.layout.yaxis.ticktext[round(y)] == told[0]
            seen += 1
    assert seen == len(rows)


def test_only_what_harmful_thoughts_fall_beyond_benign_ones_is_a_cliff():
    base, reasoning, steered = read_cliff(table()).split(". In the ")
    assert "the readout of harmful thoughts goes from 4.00 to 1.00 at the end (drop 3.00 [2.70 to 3.40], n = 30)" in reasoning
    assert reasoning.endswith("beyond benign ones it drops by 2.00 [1.20 to 2.80]: a cliff")
    assert base.endswith("no cliff is shown") and steered.endswith("drops by −1.50 [−2.00 to −1.00]: they fall less than benign ones.")
    assert "benign thoughts were not measured" in read_cliff(table().query("side == 'harmful'"))


def test_one_model_without_spread_or_interval_is_drawn_as_it_is():
    one = table().query("model == 'base' and split == 'test'").assign(scale=0.0, low=np.nan, high=np.nan, model="<script>")
    figure = cliff_by_model(one)
    assert [list(trace.x) for trace in figure.data] == [[1.2], [1.0], [pytest.approx(0.2)]]
    assert all(trace.error_x.array[0] is None for trace in figure.data) and figure.layout.yaxis.ticktext == ("&lt;script&gt;",)
    with pytest.raises(TableProblem, match="thoughtlens probe RUN"):
        cliff_by_model(one.iloc[:0])
