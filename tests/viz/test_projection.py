"""Every point is its row, with its prompt to click on; colours are values; the slider moves each point to its own place at each layer."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from thoughtlens.viz import theme
from thoughtlens.viz.figures.projected import RESAMPLES, parted, ranked, read_points, read_projection
from thoughtlens.viz.figures.projection import joined, point_map, projection_map
from thoughtlens.viz.figures.projection_layers import projection_by_layer, read_by_layer
from thoughtlens.viz.tables import TableProblem

SCRIPT = "<script>alert(1)</script>"
MODELS, LAYERS, PROMPTS = ("reasoning", "base", SCRIPT), (0, 3), 30


def made() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """projection, answers, prompts: harmful ones further along x at layer 3; one prompt without a label, one answer missing."""
    rng = np.random.default_rng(0)
    prompts = pd.DataFrame({"prompt_id": [f"p{i:02d}" for i in range(PROMPTS)]})
    prompts["harmful"] = pd.Series([i % 2 == 0 for i in range(PROMPTS - 1)] + [None], dtype=object)
    prompts["category"] = [("fraud", SCRIPT, "")[i % 3] for i in range(PROMPTS)]
    prompts = prompts.assign(
        text=f"how do i florp the wug {SCRIPT} " + "zim " * 60, attack="plain", group=[f"g{i // 2}" for i in range(PROMPTS)]
    )
    rows = []
    for model in MODELS:
        for span in ("last_prompt", "thought"):
            for layer in LAYERS:
                for method in ("pca", "lda"):
                    if model == "base" and span == "thought":
                        continue
                    place = {"model": model, "condition": "unsteered", "site": f"resid_post.{layer}", "layer": layer, "span": span}
                    shares = (0.42, 0.21) if method == "pca" else (0.9, np.nan)
                    for i in range(PROMPTS):
                        x, y = rng.normal(2.0 * (i % 2 == 0) * (layer == 3)), rng.normal()
                        at = {"prompt_id": f"p{i:02d}", "split": "test", "x": x, "y": y, "share_x": shares[0], "share_y": shares[1]}
                        rows.append({**place, "method": method, **at})
    said = ("unsafe", "refused", "safe", "truncated")
    answers = pd.DataFrame(
        [
            {"prompt_id": f"p{i:02d}", "model": model, "condition": "unsteered", "verdict": said[(i + at) % 4]}
            for at, model in enumerate(MODELS)
            for i in range(1, PROMPTS)
        ]
    )
    return pd.DataFrame(rows), answers, prompts


@pytest.fixture(scope="module")
def three() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return made()


def drawn(figure) -> dict[tuple[str, str], tuple[float, float, str, str]]:
    """(prompt, model) -> x, y, colour's name, hover."""
    found = {}
    for trace in figure.data:
        for x, y, told in zip(trace.x, trace.y, trace.customdata, strict=True):
            assert (told[0], told[1]) not in found and told[2] == "unsteered"
            found[told[0], told[1]] = (x, y, trace.legendgroup, told[3])
    return found


def at(projection: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    return projection.loc[(projection[list(wanted)] == pd.Series(wanted)).all(axis=1)]


def test_every_point_is_its_row_in_the_panel_of_its_model(three):
    figure = projection_map(*three, span="last_prompt", layer=3, method="lda")
    found, rows = drawn(figure), at(three[0], span="last_prompt", layer=3, method="lda")
    assert len(found) == len(rows) == 3 * PROMPTS
    harmful = three[2].set_index("prompt_id")["harmful"]
    for _, row in rows.iterrows():
        x, y, name, _ = found[row.prompt_id, row.model]
        assert (x, y) == pytest.approx((row.x, row.y), rel=1e-3)
        assert name == {True: "harmful", False: "benign", None: "unlabelled"}[harmful[row.prompt_id]]
    panels = {trace.yaxis: {told[1] for told in trace.customdata} for trace in figure.data}
    assert list(panels.values()) == [{"base"}, {"reasoning"}, {SCRIPT}]
    assert sum(trace.showlegend for trace in figure.data) == len({trace.legendgroup for trace in figure.data})
    assert figure.layout.xaxis3.title.text == "harmful direction (AUROC .90 over all models)"


def test_the_default_is_the_moment_of_most_models_and_the_deepest_layer(three):
    figure = projection_map(*three)
    assert "last_prompt, layer 3 · test split · 30 prompts" in figure.layout.title.subtitle.text
    assert figure.layout.xaxis3.title.text == "component 1 (42% of variance)"
    assert figure.layout.yaxis2.title.text == "component 2 (21% of variance)"
    one = three[0][three[0].model == "reasoning"]
    assert "thought, layer 3" in projection_map(one, *three[1:]).layout.title.subtitle.text
    assert len(projection_map(one, *three[1:], color="model").data) == 1


@pytest.mark.parametrize("color", ["harmful", "verdict", "attack", "category", "model"])
def test_colours_have_symbols_of_their_own(three, color):
    figure = projection_map(*three, color=color)
    look = {trace.legendgroup: (trace.marker.color, trace.marker.symbol) for trace in figure.data}
    assert len(set(look.values())) == len(look) and len({symbol for _, symbol in look.values()}) == len(look)
    verdicts = three[1].set_index(["prompt_id", "model"])["verdict"]
    expected = {
        "harmful": lambda key: None,
        "verdict": lambda key: verdicts.get(key, "no verdict"),
        "attack": lambda key: "plain",
        "category": lambda key: ("fraud", SCRIPT, "no category")[int(key[0][1:]) % 3],
        "model": lambda key: key[1],
    }[color]
    for key, (_, _, name, _) in drawn(figure).items():
        assert expected(key) in (name, None)


def test_prompts_that_are_not_in_the_table_are_drawn_all_the_same(three):
    figure = projection_map(three[0], three[1], three[2].iloc[1:])
    assert drawn(figure)["p00", "base"][2] == "unlabelled" and len(drawn(figure)) == 3 * PROMPTS


def test_many_values_repeat_no_mark(three):
    many = three[2].assign(category=[f"topic {i:02d} with a very long name indeed" for i in range(PROMPTS)])
    traces = [trace for trace in projection_map(three[0], three[1], many, color="category").data if trace.yaxis == "y"]
    assert len(traces) == 30 and len({(trace.marker.color, trace.marker.symbol) for trace in traces}) == 30
    assert max(len(trace.name) for trace in traces) <= 28


def test_hover_is_escaped_and_cut_and_can_leave_the_text_out(three):
    found = drawn(projection_map(*three))
    hover = found["p02", SCRIPT][3]
    assert set(re.findall(r"<[^>]*>", hover)) == {"<b>", "</b>", "<br>"} and theme.plain(SCRIPT) in hover
    assert "harmful" in hover and " unsafe<br>" in hover and "florp the wug" in hover and hover.endswith("…")
    assert len(re.sub(r"<br>", " ", hover)) < 420
    assert "no verdict" in found["p00", "base"][3]
    points = joined(*three, span="last_prompt", method="pca")
    assert not any("florp" in told[3] for told in found_hovers(point_map(points[points.layer == 0], told=False)))


def found_hovers(figure):
    return [told for trace in figure.data for told in trace.customdata]


def test_the_slider_moves_every_point_to_its_place(three):
    figure = projection_by_layer(*three, span="last_prompt", method="pca")
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["0", "3"] and slider.active == 1
    for step in slider.steps:
        rows = at(three[0], span="last_prompt", layer=int(step.label), method="pca").set_index(["prompt_id", "model"])
        places, titles = step.args
        for trace, xs, ys in zip(figure.data, places["x"], places["y"], strict=True):
            for told, x, y in zip(trace.customdata, xs, ys, strict=True):
                assert (x, y) == pytest.approx(tuple(rows.loc[told[0], told[1]][["x", "y"]]), rel=1e-3)
        assert titles == {"xaxis3.title.text": "component 1 (42% of variance)", "yaxis2.title.text": "component 2 (21% of variance)"}
    assert [list(trace.x) for trace in figure.data] == list(slider.steps[1].args[0]["x"])
    assert figure.layout.margin.b > projection_map(*three).layout.margin.b


def test_a_large_map_is_a_stable_sample_that_says_so(three):
    projection, answers, prompts = (
        pd.concat([table] + [table.assign(prompt_id=table.prompt_id + f"x{k}") for k in range(19)]) for table in three
    )
    figure = projection_by_layer(projection, answers, prompts)
    chosen = {told[0] for trace in figure.data for told in trace.customdata}
    shuffled = projection_by_layer(projection.sample(frac=1, random_state=0), answers, prompts)
    assert len(chosen) == 200 and {told[0] for trace in shuffled.data for told in trace.customdata} == chosen
    assert "200 of 600 prompts" in figure.layout.title.subtitle.text
    assert len(json.dumps(figure.to_json())) < 600_000


def test_reading_is_the_auroc_of_each_model(three):
    points = joined(*three, span="last_prompt", method="lda")
    mine = points[(points.layer == 3) & (points.model == "reasoning") & points.harmful.notna()]
    found, expected = parted(mine), roc_auc_score(mine.harmful.astype(bool), mine.x)
    assert found.auroc == pytest.approx(expected) and (found.harmful, found.benign) == (15, 14)
    told = read_projection(*three, span="last_prompt", layer=3, method="lda")
    assert f"{theme.aurocs(*found[:3])} in the reasoning model (15 harmful, 14 benign)" in told and "the harmful direction" in told
    assert "hold 42% and 21% of the training variance" in read_projection(*three)
    by_layer = read_by_layer(*three, span="last_prompt")
    assert f"{theme.aurocs(*found[:3])} at layer 3" in by_layer and "at layer 0" in by_layer


def test_weighted_auroc_is_that_of_repeated_rows():
    rng = np.random.default_rng(1)
    x, positive, weights = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.5, rng.integers(0, 4, (7, 40))
    by_hand = [roc_auc_score(np.repeat(positive, w), np.repeat(x, w)) for w in weights]
    assert ranked(x, positive, weights) == pytest.approx(by_hand)
    assert np.isnan(ranked(x, positive, np.zeros((1, 40)))).all()


def test_intervals_are_over_goals(three):
    """The same prompts five times over tell nothing new where they are of the same goals."""
    points = joined(*three, span="last_prompt", method="lda")
    mine = points[(points.layer == 3) & (points.model == "base")].assign(x=lambda rows: rows["x"] * 0.2)
    five = pd.concat([mine] * 5)
    once, again, alone = parted(mine), parted(five), parted(five.assign(group=[str(i) for i in range(len(five))]))
    assert (again.low, again.high) == pytest.approx((once.low, once.high))
    assert alone.high - alone.low < 0.7 * (once.high - once.low) and RESAMPLES >= 400


def test_what_is_not_there_is_an_error_that_says_what_is(three):
    with pytest.raises(TableProblem, match="the table has last_prompt, thought"):
        projection_map(*three, span="dax")
    with pytest.raises(TableProblem, match="the table has 0, 3"):
        projection_map(*three, layer=9)
    with pytest.raises(TableProblem, match="filters"):
        point_map(joined(*three).iloc[:0])
    unlabelled = three[2].assign(harmful=None)
    assert "nothing is told apart" in read_points(joined(three[0], three[1], unlabelled).query("layer == 3"))
    assert {trace.legendgroup for trace in projection_map(three[0], three[1], unlabelled).data} == {"unlabelled"}
    assert "nothing is told apart" in read_by_layer(three[0], three[1], unlabelled)


def test_a_report_shows_no_text_of_prompts_not_known_to_be_benign(three):
    projection, answers, prompts = three
    texts = prompts.assign(text=[f"text of {name}" for name in prompts["prompt_id"]])
    page = projection_by_layer(projection, answers, texts).to_json()
    shown = {name for name in prompts["prompt_id"] if f"text of {name}" in page}
    assert shown and shown <= set(prompts.loc[prompts["harmful"].eq(False), "prompt_id"])
