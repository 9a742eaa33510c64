"""The map of prompts with a slider over layers: the same points move, so that one sees where harmful and benign part.

Only coordinates and the titles of axes change with the layer; texts are on the page once. Of many prompts those with the smallest hashes
are drawn, the same at every layer and of every model, and the line under the title says of how many.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from .projected import parted
from .projection import Color, Method, axis_titles, count_told, joined, looks, point_map, rounded, traces, values_of
from .readings import readings

MOST = 600  # points of a layer
SLIDER = 74  # pixels under the plot
GREY = theme.MARKS["random"].color


def projection_by_layer(
    projection: pd.DataFrame,
    answers: pd.DataFrame,
    prompts: pd.DataFrame,
    *,
    span: str | None = None,
    method: Method | None = None,
    color: Color = "harmful",
) -> go.Figure:
    """As projection_map, which names the arguments; a slider instead of a layer; harmful prompts without their text.

    Left out: the harmful direction, where it was fitted."""
    there = _veiled(joined(projection, answers, prompts, span=span, method=_method(projection) if method is None else method))
    points, layers = kept(there, MOST), sorted(set(there["layer"]))
    deepest = points[points["layer"] == layers[-1]]
    figure = point_map(deepest, color=color)
    drawn = count_told(points, there["prompt_id"].nunique())
    note = f"{points['span'].iloc[0]}, layer by layer · {points['split'].iloc[0]} split · {drawn}"
    figure.update_layout(title_subtitle_text=theme.plain(note), height=figure.layout.height + SLIDER)
    figure.update_layout(margin_b=figure.layout.margin.b + SLIDER, sliders=[_slider(points, color, layers)])
    return figure


def _veiled(points: pd.DataFrame) -> pd.DataFrame:
    """Without the texts of prompts that are not known to be benign: a report is sent on."""
    if "text" not in points or "harmful" not in points:
        return points
    benign = points["harmful"].astype("boolean").eq(False).fillna(False).astype(bool)
    return points.assign(text=points["text"].where(benign, "(harmful text is not shown here)"))


def _method(projection: pd.DataFrame) -> Method:
    return "lda" if (projection["method"] == "lda").any() else "pca"


def kept(points: pd.DataFrame, most: int) -> pd.DataFrame:
    """The prompts with the smallest hashes, as many as give `most` points at a layer."""
    names = points[["model", "condition"]].drop_duplicates()
    by_hash = sorted(set(points["prompt_id"].astype(str)), key=lambda name: hashlib.md5(name.encode(), usedforsecurity=False).hexdigest())
    chosen = by_hash[: max(1, most // len(names))]
    return points[points["prompt_id"].isin(chosen)]


def _slider(points: pd.DataFrame, color: Color, layers: list[int]) -> dict[str, Any]:
    table = values_of(points, color)
    panels = [""] if color == "model" else readings(table)
    deepest = table[table["layer"] == layers[-1]]
    key = ["prompt_id", "model", "condition"]
    drawn = [pd.MultiIndex.from_frame(mine[key]) for _, _, mine in traces(deepest, panels, looks(deepest, color))]
    steps = []
    for layer in layers:
        here = table[table["layer"] == layer]
        at = here.set_index(key)[["x", "y"]]
        moved = [at.reindex(index) for index in drawn]
        x, y = axis_titles(here.iloc[0])
        last, middle = (str(number) if number > 1 else "" for number in (len(panels), (len(panels) + 1) // 2))
        titles = {f"xaxis{last}.title.text": x, f"yaxis{middle}.title.text": y}
        places = {axis: [rounded(one[axis]) for one in moved] for axis in ("x", "y")}
        steps.append({"method": "update", "label": str(layer), "args": [places, titles]})
    return {
        "active": len(layers) - 1,
        "steps": steps,
        "currentvalue": {"prefix": "layer ", "xanchor": "left", "font": {"size": 13}},
        "pad": {"t": 46, "b": 0},
        "len": 1,
        "x": 0,
        **{"bgcolor": GREY, "activebgcolor": GREY, "bordercolor": GREY, "tickcolor": GREY},
    }


def read_by_layer(
    projection: pd.DataFrame, answers: pd.DataFrame, prompts: pd.DataFrame, *, span: str | None = None, method: Method | None = None
) -> str:
    """The slider in words: how far the first axis parts harmful from benign at the first layer, where most, and at the last."""
    there = joined(projection, answers, prompts, span=span, method=_method(projection) if method is None else method)
    axis = "harmful direction" if there["method"].iloc[0] == "lda" else "first component"
    found = {name: _along(there[there["reading"] == name]) for name in readings(there)}
    told = [f"in the {name} model {said}" for name, said in found.items() if said]
    if not told:
        return f"At {there['span'].iloc[0]} no model has both harmful and benign prompts, so nothing is told apart."
    begin = f"At {there['span'].iloc[0]}, the probability that a harmful prompt lies beyond a benign one along the {axis}: "
    return begin + "; ".join(told) + ". The most separate layer is the best of those shown; a choice among layers takes a dev split."


def _along(mine: pd.DataFrame) -> str:
    layers = sorted(set(mine["layer"]))
    found = {layer: one for layer in layers if (one := parted(mine[mine["layer"] == layer]))}
    if not found:
        return ""
    best = max(found, key=lambda layer: found[layer].auroc)
    ends = {f"at layer {layer}": found[layer] for layer in dict.fromkeys((min(found), best, max(found)))}
    size = f"{found[best].harmful} harmful, {found[best].benign} benign"
    return ", ".join(f"{one} {at}" for at, one in ends.items()) + f" (most at layer {best}; {size})"
