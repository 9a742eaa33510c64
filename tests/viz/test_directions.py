"""Cosines are the rows of `geometry`: the same site of two models, and a model's neighbouring sites; what cannot be estimated is a gap."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from thoughtlens.viz.figures.directions import CHANCE, cosine_between_models, drift_over_layers, read_between_models, read_drift
from thoughtlens.viz.tables import TableProblem

LAYERS, SPANS, MODELS = (0, 2, 4), ("thought", "last_prompt"), ("base", "reasoning", "safe")


@pytest.fixture(scope="module")
def geometry() -> pd.DataFrame:
    """Every two (model, site), as the table has them; layer 0 has no cosine, yet bounds from −1 to 1."""
    rng, rows = np.random.default_rng(0), []
    for span in SPANS:
        for (a, i), (b, j) in combinations([(model, layer) for model in MODELS for layer in LAYERS], 2):
            cosine = math.nan if 0 in (i, j) else float(rng.uniform(0.2, 0.9))
            bounds = (-1.0, 1.0) if 0 in (i, j) else (cosine - 0.1, cosine + 0.05)
            sites = {"a": a, "b": b, "site_a": f"resid_post.{i}", "site_b": f"resid_post.{j}", "layer": i, "layer_b": j, "span": span}
            rows.append({**sites, "cosine": cosine, "low": bounds[0], "high": bounds[1], "n": 300, "chance": 0.06, "label": "harmful"})
    return pd.DataFrame(rows)


def lines(drawn, name: str) -> list:
    """The traces of a name, panel by panel."""
    return [trace for trace in drawn.data if trace.name == name and trace.mode == "lines+markers"]


def same(trace, rows: pd.DataFrame) -> None:
    known = [at for at, cosine in enumerate(rows.cosine) if not math.isnan(cosine)]
    assert [y for y in trace.y if y is not None] == rows.cosine.dropna().tolist() and len(trace.y) == len(rows)
    assert [at for at, y in enumerate(trace.y) if y is not None] == known and trace.connectgaps is False
    assert [trace.y[at] + trace.error_y.array[at] for at in known] == pytest.approx(rows.high.iloc[known].tolist())
    assert [trace.y[at] - trace.error_y.arrayminus[at] for at in known] == pytest.approx(rows.low.iloc[known].tolist())
    assert all(trace.error_y.array[at] is None for at in range(len(rows)) if at not in known)
    assert {told[4] for told in trace.customdata} == {"300"}


def test_two_models_are_compared_at_the_same_site(geometry):
    drawn = cosine_between_models(geometry)
    assert [note.text for note in drawn.layout.annotations] == ["<b>last_prompt</b>", "<b>thought</b>"]  # as they happen
    for a, b in combinations(MODELS, 2):
        panels = lines(drawn, f"{a} and {b}")
        assert [trace.showlegend for trace in panels] == [True, False]
        for trace, span in zip(panels, ("last_prompt", "thought"), strict=True):
            mine = geometry[(geometry.a == a) & (geometry.b == b) & (geometry.site_a == geometry.site_b) & (geometry.span == span)]
            same(trace, mine.sort_values("layer"))
            assert [round(x) for x in trace.x] == list(LAYERS)
    assert len({(trace.line.color, trace.marker.symbol) for trace in drawn.data if trace.mode == "lines+markers"}) == 3


def test_drift_is_a_site_with_the_next_one_there_is(geometry):
    drawn = drift_over_layers(geometry)
    for model in MODELS:
        for trace, span in zip(lines(drawn, model), ("last_prompt", "thought"), strict=True):
            mine = geometry[(geometry.a == model) & (geometry.b == model) & (geometry.span == span)]
            mine = mine[(mine.layer_b - mine.layer) == 2].sort_values("layer")
            assert len(mine) == 2
            same(trace, mine)
            assert [round(x) for x in trace.x] == [1, 3]


def test_chance_is_a_band_around_zero(geometry):
    for drawn in (cosine_between_models(geometry), drift_over_layers(geometry)):
        bands = [trace for trace in drawn.data if trace.name == CHANCE]
        assert len(bands) == 2 and {y for band in bands for y in band.y} == {0.06, -0.06} and bands[0].fill == "toself"
        assert [band.showlegend for band in bands] == [True, False]
        low, high = drawn.layout.yaxis.range
        assert low < -0.06 and high > 1


def test_readings_say_what_cannot_be_estimated(geometry):
    told = read_between_models(geometry)
    mine = geometry.query("a == 'base' and b == 'safe' and site_a == site_b and span == 'thought'").dropna()
    least, most = mine.loc[mine.cosine.idxmin()], mine.loc[mine.cosine.idxmax()]
    assert told.startswith("At last_prompt: base and reasoning from ") and "Two random directions reach 0.06 on average." in told
    text = f"base and safe from {least.cosine:.2f} [{least.low:.2f}, {least.high:.2f}] (n = 300) at layer {least.layer}"
    assert text in told and f"up to {most.cosine:.2f} [" in told and told.count("not estimable at 1 of 3") == 6
    drift = read_drift(geometry)
    assert drift.count("at layers 2–4, not estimable at 1 of 2") == 6
    gone = geometry.assign(cosine=math.nan)
    assert "not estimable at any of 3 places" in read_between_models(gone)
    assert all(set(trace.y) == {None} for trace in cosine_between_models(gone).data if trace.mode == "lines+markers")


def test_streams_and_labels_are_not_mixed(geometry):
    other = geometry.assign(site_a="attn_out." + geometry.layer.astype(str), site_b="attn_out." + geometry.layer_b.astype(str), cosine=0.0)
    crossed = geometry.assign(site_a="attn_out." + geometry.layer.astype(str), cosine=0.0)
    mixed = pd.concat([other, crossed, geometry.assign(label="refused", cosine=0.0), geometry], ignore_index=True)
    assert cosine_between_models(mixed).to_json() == cosine_between_models(geometry).to_json()
    assert drift_over_layers(mixed).to_json() == drift_over_layers(geometry).to_json()


def test_missing_parts_say_what_makes_them(geometry):
    one = geometry[(geometry.a == "base") & (geometry.b == "base")]
    with pytest.raises(TableProblem, match=r"no two models at the same site. `thoughtlens probe RUN` makes it, from stores of two models"):
        cosine_between_models(one)
    with pytest.raises(TableProblem, match="no site of a model with the next"):
        read_drift(geometry[geometry.site_a == geometry.site_b])
    with pytest.raises(TableProblem, match="no two models"):
        cosine_between_models(geometry.iloc[:0])
    assert [trace.name for trace in drift_over_layers(one).data if trace.mode == "lines+markers"] == ["base", "base"]


def test_names_stay_text(geometry):
    script = "<script>alert(1)</script>"
    drawn = cosine_between_models(geometry.replace({"a": {"base": script}, "b": {"base": script}, "span": {"thought": script}}))
    assert "<script" not in drawn.to_json() and "\\u003cscript" not in drawn.to_json()
