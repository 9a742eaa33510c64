"""Thought against answer: how often an unsafe thought ends in a safe answer, and how often a safe thought does not help.

Always both, beside each other: a model whose answers are all safe corrects every thought and learns nothing from it. What is counted, and
over which prompts: corrected.py.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import wilson
from .corrected import QUADRANTS, corrections, counted, stated
from .dots import place
from .readings import bars, label, left_out, legend_room, readings

LEFT_OUT = "not told"
RATES = {  # metric -> its name and mark
    "self_correction_safe": ("safe after an unsafe thought", theme.OTHERS[3]),
    "self_correction": ("refused after an unsafe thought", theme.OTHERS[0]),
    "reverse_correction": ("unsafe after a safe thought", theme.OTHERS[1]),
}
TALL, LOW, MANY = 46, 36, 8  # pixels of a row, and where there are many
HOVER_CELL = (
    "<b>%{customdata[0]}</b><br>thought %{customdata[1]} → answer %{customdata[2]}<br>%{customdata[3]} of %{customdata[4]}"
    "  (%{z:.1%}, 95% interval %{customdata[5]})<extra></extra>"
)
HOVER_RATE = (
    "<b>%{customdata[0]}</b><br>%{fullData.name}: %{x:.1%}  (95% interval %{customdata[1]})"
    "<br>%{customdata[2]} of %{customdata[3]}<extra></extra>"
)


def quadrants(answers: pd.DataFrame, prompts: pd.DataFrame) -> go.Figure:
    """Counts and shares of the four quadrants per reading, below them both corrections. Columns: CONTRIBUTING.md, `answers`, `prompts`."""
    counts = counted(answers, prompts)
    told, names = corrections(counts), readings(counts)
    plot, gap = _height(names), 40
    heads = legend_room([RATES[metric][0] for metric in RATES if metric in set(told["metric"])])
    judges = sorted({str(one) for one in answers["judge"] if one}) if "judge" in answers else []
    told_by = [f"judge {', '.join(judges)}"] if judges else []
    note = " · ".join(["thought → answer, harmful prompts", *told_by, "95% intervals", *filter(None, [left_out(answers)])])
    blank = theme.figure("Thought against answer", note, plot=2 * plot + gap + heads, above=46)
    figure = make_subplots(rows=2, cols=1, vertical_spacing=(gap + heads) / (2 * plot + gap + heads), figure=blank)
    figure.add_traces(_cells(counts, names), rows=[1, 1], cols=[1, 1])
    _rates(figure, told, names, row=2)
    across = [*QUADRANTS.values(), LEFT_OUT]
    figure.update_xaxes(
        row=1, col=1, tickvals=list(range(5)), ticktext=[t.replace(" → ", "<br>→ ") for t in across], showgrid=False, ticks="", side="top"
    )
    figure.update_xaxes(row=1, col=1, range=[-0.5, 4.5], tickangle=0)
    figure.update_layout(coloraxis={"cmin": 0, "cmax": 1, "showscale": False})
    below = figure.layout.yaxis2.domain[1]
    return figure.update_layout(legend={"y": below + 6 / (2 * plot + gap + heads), "yanchor": "bottom"})


def _cells(counts: pd.DataFrame, names: list[str]) -> list[go.Heatmap | go.Scatter]:
    rows = [counts[counts["reading"] == name].iloc[0] for name in names]
    n = [max(1, int(row["n"])) for row in rows]
    cells = go.Heatmap(
        z=[[row[key] / of for key in QUADRANTS] for row, of in zip(rows, n, strict=True)],
        x=list(range(4)),
        y=list(range(len(names))),
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        text=[[f"{row[key]}<br>{theme.percent(row[key] / of)}" for key in QUADRANTS] for row, of in zip(rows, n, strict=True)],
        texttemplate="%{text}",
        textfont={"size": 12 if len(names) <= MANY else 10},
        customdata=[[_hover(row, key) for key in QUADRANTS] for row in rows],
        hovertemplate=HOVER_CELL,
    )
    beside = go.Scatter(
        x=[4] * len(names),
        y=list(range(len(names))),
        mode="text",
        text=[str(row["left_out"]) for row in rows],
        customdata=[[theme.plain(name)] for name in names],
        hovertemplate="<b>%{customdata[0]}</b><br>%{text} harmful prompts cut off, unscored or without a thought<extra></extra>",
        showlegend=False,
        name=LEFT_OUT,
    )
    return [cells, beside]


def _height(names: list[str]) -> int:
    return (TALL if len(names) <= MANY else LOW) * len(names)


def _hover(row: pd.Series, key: tuple[bool, bool]) -> list[str]:
    words = ["unsafe" if one else "safe" for one in key]
    return [theme.plain(row["reading"]), *words, str(row[key]), str(row["n"]), _interval(*wilson(int(row[key]), int(row["n"])))]


def _interval(low: float, high: float) -> str:
    return "–" if math.isnan(low + high) else f"{low:.1%} to {high:.1%}"


def corrections_stated(collapse: pd.DataFrame) -> go.Figure:
    """Both corrections as the audit states them, where answers are not at hand. Columns: CONTRIBUTING.md, `collapse`."""
    told = stated(collapse)
    names = readings(told)
    heads = legend_room([RATES[metric][0] for metric in RATES if metric in set(told["metric"])])
    note = "harmful prompts whose output ended · 95% intervals"
    figure = theme.figure("Self-correction and its reverse", note, plot=max(110, _height(names)), above=heads)
    _rates(figure, told, names)
    return figure


def _rates(figure: go.Figure, told: pd.DataFrame, names: list[str], row: int | None = None) -> None:
    """A trace per rate; readings are the rows."""
    where = {"row": row, "col": 1} if row else {}
    at = {name: index for index, name in enumerate(names)}
    metrics = [metric for metric in RATES if metric in set(told["metric"])]
    for index, metric in enumerate(metrics):
        (words, mark), shift = RATES[metric], 0.7 * place(index, len(metrics))
        mine = told[told["metric"] == metric].sort_values("reading", key=lambda column: column.map(at), kind="stable")
        customdata = [
            [theme.plain(r["reading"]), _interval(r["low"], r["high"]), theme.count(r["numerator"]), theme.count(r["n"])]
            for _, r in mine.iterrows()
        ]
        trace = go.Scatter(
            x=[None if math.isnan(value) else float(value) for value in mine["value"]],
            y=[at[name] + shift for name in mine["reading"]],
            error_x=bars(mine, mark.color),
            mode="markers",
            marker={"color": mark.color, "symbol": mark.symbol, "size": 9},
            name=words,
            customdata=customdata,
            hovertemplate=HOVER_RATE,
        )
        figure.add_trace(trace, **where)
        unasked = mine[mine["value"].isna()]
        figure.add_trace(
            go.Scatter(
                x=[0.0] * len(unasked),
                y=[at[name] + shift for name in unasked["reading"]],
                mode="text",
                text=["none to ask"] * len(unasked),
                textposition="middle right",
                textfont={"size": 11},
                hoverinfo="skip",
                showlegend=False,
                name=f"{words}, n = 0",
            ),
            **where,
        )
    labels = [label(name, width=20) for name in names]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=labels, range=[len(names) - 0.5, -0.5], showgrid=False, ticks="")
    ticks = {"tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    figure.update_xaxes(range=[-0.02, 1.02], title_text="share of such thoughts", **ticks, **where)


def read_quadrants(answers: pd.DataFrame, prompts: pd.DataFrame) -> str:
    """Both corrections of every reading, and how many harmful prompts are in no quadrant."""
    counts = counted(answers, prompts)
    left = {name: int(counts.loc[counts["reading"] == name, "left_out"].iloc[0]) for name in readings(counts)}
    out = ", ".join(f"{name} {n}" for name, n in left.items() if n)
    return _read(corrections(counts)) + (f" In no quadrant, since cut off, unscored or without a thought: {out}." if out else "")


def read_corrections(collapse: pd.DataFrame) -> str:
    """The same from the audit's own rates."""
    return _read(stated(collapse))


def _read(told: pd.DataFrame) -> str:
    return " ".join(f"{name}: {_rates_of(told[told['reading'] == name])}." for name in readings(told))


def _rates_of(mine: pd.DataFrame) -> str:
    by = {str(row["metric"]): row for _, row in mine.iterrows()}
    parts = []
    for metric, (words, _) in RATES.items():
        if metric in by:
            asked = by[metric]["n"] > 0
            parts.append(f"{words} {theme.rate(by[metric])}" if asked else f"{words}: there was no such thought")
    return "; ".join(parts)
