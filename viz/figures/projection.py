"""Prompts as points: hidden states of one moment and layer along two axes that all models share.

    pca   the two directions of largest variance          lda   x tells harmful from benign best, y is the largest variance beside it

Axes were fitted on train prompts of all models; the points are other prompts (CONTRIBUTING.md, `projection`). A panel per model, one above
the other, so that a shift along x shows; by model they share one panel. What is mixed here may be apart along other directions. The same
in words: projected.py.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem, where
from .readings import label, legend_room, marks, readings, with_reading

Method = Literal["pca", "lda"]
Color = Literal["harmful", "verdict", "attack", "category", "model"]
LETTERS, LINE = 160, 56  # of the prompt's text, and of a line of it
ALONE, PANEL, BETWEEN, LEFT = 400, 190, 34, 72  # pixels of a panel, between two, and left of them for numbers and their title
UNKNOWN = theme.Mark("#7D868F", "circle-open")
KNOWN: Mapping[str, Mapping[str, theme.Mark]] = {
    "harmful": {"benign": theme.MARKS["benign"], "harmful": theme.MARKS["harmful"]},
    "verdict": {
        "unsafe": theme.MARKS["harmful"],
        "refused": theme.MARKS["benign"],
        "safe": theme.MARKS["safe"],
        "truncated": theme.Mark("#A17400", "triangle-down"),
    },
}
SPARE = (*(theme.MARKS[name] for name in theme.MODEL_ORDER), *theme.OTHERS)
HEADINGS = {"pca": "principal components", "lda": "the harmful direction"}
TOLD = ("text", "harmful", "category", "attack", "group")


def projection_map(
    projection: pd.DataFrame,
    answers: pd.DataFrame,
    prompts: pd.DataFrame,
    *,
    span: str | None = None,
    layer: int | None = None,
    method: Method = "pca",
    color: Color = "harmful",
) -> go.Figure:
    """Points at one moment and layer; left out: the moment that most models have, the deepest layer.

    Every point's customdata begins with prompt_id, model, condition. TableProblem for a span, layer or method that the table does not have.
    """
    there = joined(projection, answers, prompts, span=span, method=method)
    return point_map(where(there, layer=int(there["layer"].max()) if layer is None else layer), color=color)


def joined(
    projection: pd.DataFrame, answers: pd.DataFrame, prompts: pd.DataFrame, *, span: str | None = None, method: Method = "pca"
) -> pd.DataFrame:
    """Every layer of one moment, with what is known of the prompts, the verdict of the same model's answer, and `reading`."""
    rows = where(projection, method=method)
    rows = where(rows, span=_widest(rows) if span is None else span)
    told = prompts[["prompt_id", *(column for column in TOLD if column in prompts)]].drop_duplicates("prompt_id")
    key = ["prompt_id", "model", "condition"]
    verdicts = answers[[*key, "verdict"]].drop_duplicates(key)
    return with_reading(rows.merge(told, on="prompt_id", how="left").merge(verdicts, on=key, how="left"))


def _widest(rows: pd.DataFrame) -> str:
    """The moment at which most models are drawn; of equals `thought`, then the first."""
    models = with_reading(rows).groupby("span", sort=False)["reading"].nunique()
    most = [str(span) for span in models[models == models.max()].index]
    return "thought" if "thought" in most else most[0]


def point_map(points: pd.DataFrame, *, color: Color = "harmful", told: bool = True) -> go.Figure:
    """Points of one moment, layer and method: rows of `projection` with text, harmful, category, attack and verdict beside them.

    told    the hover holds the prompt's text
    """
    if points.empty:
        raise TableProblem("No points are left to draw. Loosen the filters, or choose another span or layer.")
    table = values_of(points, color)
    first, panels = table.iloc[0], [""] if color == "model" else readings(table)
    look = looks(table, color)
    above = legend_room([_short(name) for name in look]) + 22 * (len(panels) > 1)
    height = ALONE if len(panels) == 1 else (PANEL + BETWEEN) * len(panels) - BETWEEN
    note = f"{first['span']}, layer {first['layer']} · {first['split']} split · {count_told(table)}"
    blank = theme.figure(f"Hidden states along {HEADINGS[first['method']]}", note, plot=height, above=above)
    titles = [f"<b>{label(name, width=48, lines=1)}</b>" for name in panels if len(panels) > 1]
    figure = make_subplots(
        rows=len(panels),
        shared_xaxes="all",
        shared_yaxes="all",
        vertical_spacing=BETWEEN / height,
        subplot_titles=titles,
        figure=blank,
    )
    for panel, name, mine in traces(table, panels, look):
        figure.add_trace(_scatter(mine, name, look[name], told=told).update(showlegend=name not in _named(figure)), row=panel + 1, col=1)
    x, y = axis_titles(first)
    figure.update_xaxes(title_text=x, row=len(panels))
    figure.update_yaxes(title_text=y, row=(len(panels) + 1) // 2)
    figure.update_xaxes(automargin=False).update_yaxes(automargin=False).update_layout(margin_l=LEFT)  # twice as fast to draw
    return theme.legend_over(figure, 22 * (len(panels) > 1))


def count_told(table: pd.DataFrame, of: int | None = None) -> str:
    asked = table["prompt_id"].nunique()
    return f"{asked}{'' if of in (None, asked) else f' of {of}'} prompt{'s' if asked > 1 else ''}"


def values_of(points: pd.DataFrame, color: str) -> pd.DataFrame:
    """The points with `reading` and `value`, what they are coloured by."""
    table = points if "reading" in points else with_reading(points)
    if color == "harmful":
        value = table["harmful"].map({True: "harmful", False: "benign"})
    else:
        value = table["reading" if color == "model" else color].replace("", None)
    missing = {"harmful": "unlabelled", "verdict": "no verdict"}.get(color, f"no {color}")
    return table.assign(value=value.astype(object).where(value.notna(), missing).astype(str))


def looks(table: pd.DataFrame, color: str) -> dict[str, theme.Mark]:
    """A mark per value, in the order of the legend: known ones first, then the most frequent."""
    there = [str(value) for value in table["value"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index]
    if color == "model":
        return {name: mark for name, mark in marks(table).items() if name in there}
    known = KNOWN.get(color, {})
    if known:
        return {name: known.get(name, UNKNOWN) for name in theme.ordered(there, list(known))}
    return {name: theme.variant(SPARE[at % len(SPARE)], at // len(SPARE)) for at, name in enumerate(there)}


def traces(table: pd.DataFrame, panels: Sequence[str], look: Mapping[str, theme.Mark]) -> list[tuple[int, str, pd.DataFrame]]:
    """Panel, value and rows of every trace: what is drawn, in its order. Rows are in the order of the prompts' ids."""
    found = []
    for at, panel in enumerate(panels):
        here = table[table["reading"] == panel] if panel else table
        for name in look:
            mine = here[here["value"] == name]
            if len(mine):
                found.append((at, name, mine.sort_values(["prompt_id", "model", "condition"], kind="stable")))
    return found


def _named(figure: go.Figure) -> set[str]:
    return {trace.legendgroup for trace in figure.data}


def _scatter(mine: pd.DataFrame, name: str, mark: theme.Mark, *, told: bool) -> go.Scatter:
    return go.Scatter(
        x=rounded(mine["x"]),
        y=rounded(mine["y"]),
        mode="markers",
        marker={"color": mark.color, "symbol": mark.symbol, "size": 6, "line": {"width": 1, "color": mark.color}},
        opacity=0.72,
        name=theme.plain(_short(name)),
        legendgroup=name,
        customdata=_carried(mine, told=told),
        hovertemplate="%{customdata[3]}<extra></extra>",
    )


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"


def _carried(mine: pd.DataFrame, *, told: bool) -> np.ndarray:
    """Of every point: prompt_id, model, condition, and what its hover says."""
    names = ("prompt_id", "model", "condition", "reading", "verdict", "category", "attack", "harmful", "text")
    rows = zip(*(mine[name] if name in mine else [None] * len(mine) for name in names), strict=True)
    found = np.empty((len(mine), 4), dtype=object)
    for at, (prompt, model, condition, reading, verdict, category, attack, harmful, text) in enumerate(rows):
        known = [category, attack, {"True": "harmful", "False": "benign"}.get(str(harmful))]
        beside = " · ".join(one for one in known if isinstance(one, str) and one)
        lines = [
            f"<b>{theme.plain(reading)}</b> · {theme.plain(verdict if pd.notna(verdict) else 'no verdict')}",
            theme.plain(beside),
            _lines(text) if told and isinstance(text, str) else "",
        ]
        found[at] = [
            prompt,
            model,
            condition,
            "<br>".join(line for line in lines if line),
        ]
    return found


@lru_cache(maxsize=10_000)
def _lines(text: str) -> str:
    """The beginning of a prompt in lines, escaped; the same prompts are drawn at every layer."""
    text = " ".join(text.split())
    return "<br>".join(theme.plain(line) for line in textwrap.wrap(text if len(text) <= LETTERS else text[: LETTERS - 1] + "…", LINE))


def rounded(values: pd.Series) -> list[float | None]:
    """Four digits are finer than a pixel; a page of thousands of points stays small."""
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values.astype(float)]


def axis_titles(row: pd.Series) -> tuple[str, str]:
    """What the axes are, with the share of variance or the AUROC that the table gives."""
    if row["method"] == "lda":
        return f"harmful direction (AUROC {theme.auroc(row['share_x'])} over all models)", "largest variance beside it"
    x, y = (f"component {n} ({theme.percent(row[f'share_{axis}'])} of variance)" for n, axis in enumerate("xy", 1))
    return x, y
