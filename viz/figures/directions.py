"""How alike the models' directions of unsafe intent are, layer by layer, and how a model's own direction turns from layer to layer.

Rows: `geometry` (or `directions`): cosines of mean-difference directions, sampling noise taken off. Between models: the same site on both
sides. Within a model: a site and the next one there is; a cosine of 1 means that the direction is handed on as it is. The gray band holds
what two random directions reach on average (`chance`). A direction no longer than its own noise has no cosine: a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem, highest, lowest, prefer
from .readable import in_time
from .readings import bars, legend_room

PANEL, BETWEEN, ASIDE = 200, 54, 0.08
PAIRS = (theme.OTHERS[0], theme.OTHERS[1], theme.OTHERS[3])  # not the gray one: that is chance
CHANCE = "two random directions"
LAST = 2000  # plotly ranks a trace without a word 1000
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]} · %{customdata[2]}<br>cosine %{y:.3f}  (95% interval %{customdata[3]})"
    "<br>n = %{customdata[4]} rows · chance ±%{customdata[5]}<extra></extra>"
)


def between_models(geometry: pd.DataFrame) -> pd.DataFrame:
    """Pairs of models at the same site; adds `pair` and `at` (the layer)."""
    rows = _one_stream(geometry)
    rows = rows[(rows["a"] != rows["b"]) & (rows["site_a"] == rows["site_b"])]
    if rows.empty:
        raise TableProblem(
            "The geometry table compares no two models at the same site. `thoughtlens probe RUN` makes it, from stores of two models."
        )
    return rows.assign(pair=rows["a"].astype(str) + " and " + rows["b"].astype(str), at=rows["layer"].astype(float))


def within_models(geometry: pd.DataFrame) -> pd.DataFrame:
    """A model at a site and at the next one of the table; adds `pair` (the model) and `at` (half-way between both layers)."""
    rows = _one_stream(geometry)
    rows = rows[(rows["a"] == rows["b"]) & (rows["layer"] != rows["layer_b"])]
    layers = sorted({*rows["layer"], *rows["layer_b"]})
    following = dict(zip(layers[:-1], layers[1:], strict=True))
    low, high = rows[["layer", "layer_b"]].min(axis=1), rows[["layer", "layer_b"]].max(axis=1)
    rows = rows[low.map(following) == high]
    if rows.empty:
        raise TableProblem("The geometry table compares no site of a model with the next. `thoughtlens probe RUN` makes it.")
    return rows.assign(pair=rows["a"].astype(str), at=(rows["layer"] + rows["layer_b"]) / 2)


def _one_stream(geometry: pd.DataFrame) -> pd.DataFrame:
    """Residual stream where there is one, of one label and one basis where the table has several."""
    streams = geometry.assign(
        stream=geometry["site_a"].astype(str).str.split(".").str[0], stream_b=geometry["site_b"].astype(str).str.split(".").str[0]
    )
    rows = streams[streams["stream"] == streams["stream_b"]]
    for column, choice in (("stream", "resid_post"), ("label", "harmful"), ("aligned", "")):
        rows = prefer(rows, column, choice) if column in rows and len(rows) else rows
    return rows


def cosine_between_models(geometry: pd.DataFrame) -> go.Figure:
    """A panel per span, a line per pair of models over layers. Columns: CONTRIBUTING.md, `geometry`."""
    rows = between_models(geometry)
    pairs = list(dict.fromkeys(rows["pair"]))
    look = {pair: _pair_mark(index) for index, pair in enumerate(pairs)}
    return _panels(rows, "Directions of two models, by layer", "cosine, same site · gap: not estimable · 95% intervals", look)


def drift_over_layers(geometry: pd.DataFrame) -> go.Figure:
    """A panel per span, a line per model: cosine of its direction at a layer and at the next. Columns: CONTRIBUTING.md, `geometry`."""
    rows = within_models(geometry)
    models = theme.ordered(rows["pair"].tolist())
    look = {model: theme.mark(model, models) for model in models}
    return _panels(rows, "How a direction turns between layers", "cosine with the next layer · gap: not estimable · 95% intervals", look)


def _pair_mark(index: int) -> theme.Mark:
    return theme.variant(PAIRS[index % len(PAIRS)], index // len(PAIRS))


def _panels(rows: pd.DataFrame, title: str, note: str, look: dict[str, theme.Mark]) -> go.Figure:
    spans = sorted(dict.fromkeys(rows["span"]), key=in_time)
    plot = PANEL * len(spans) + BETWEEN * (len(spans) - 1)
    legend = legend_room([*look, CHANCE])
    blank = theme.figure(title, note, plot=plot, above=legend + 24)
    figure = make_subplots(
        rows=len(spans),
        cols=1,
        vertical_spacing=BETWEEN / plot if len(spans) > 1 else 0.0,
        subplot_titles=[f"<b>{theme.plain(span)}</b>" for span in spans],
        figure=blank,
    )
    known = rows.dropna(subset=["cosine"])
    low = known[["cosine", "low", "chance"]].min().min() if len(known) else -0.2
    low = max(-1.05, min(-1.4 * float(rows["chance"].max()), float(low) - 0.08))
    layers = sorted({*rows["layer"].astype(int), *rows["layer_b"].astype(int)})
    for line, span in enumerate(spans, start=1):
        mine = rows[rows["span"] == span]
        figure.add_trace(_chance(mine, layers, first=line == 1), row=line, col=1)
        for index, (pair, mark) in enumerate(look.items()):
            aside = ASIDE * (index - (len(look) - 1) / 2)
            trace = _line(mine[mine["pair"] == pair].sort_values("at", kind="stable"), pair, mark, aside)
            figure.add_trace(trace.update(showlegend=line == 1), row=line, col=1)
    every = max(1, math.ceil(len(layers) / 16))
    figure.update_xaxes(tickvals=layers[::every], range=[layers[0] - 0.5, layers[-1] + 0.5], showgrid=False)
    figure.update_xaxes(title_text="layer", row=len(spans), col=1)
    figure.update_yaxes(title_text="cosine", range=[low, 1.06], tickvals=[-1, -0.5, 0, 0.5, 1])
    figure.update_layout(showlegend=True, legend={"traceorder": "normal"})
    return theme.legend_over(figure, 24)


def _line(mine: pd.DataFrame, pair: str, mark: theme.Mark, aside: float) -> go.Scatter:
    """What has no cosine has no interval either, whatever its bounds say."""
    gone = mine["cosine"].isna()
    shown = mine.assign(low=mine["low"].mask(gone), high=mine["high"].mask(gone))
    told = [
        [theme.plain(pair), theme.plain(row["span"]), _sites(row), _interval(row), theme.count(row["n"]), f"{row['chance']:.2f}"]
        for _, row in mine.iterrows()
    ]
    return go.Scatter(
        x=[at + aside for at in mine["at"]],
        y=[None if math.isnan(cosine) else float(cosine) for cosine in mine["cosine"]],
        error_y=bars(shown, mark.color, value="cosine"),
        mode="lines+markers",
        connectgaps=False,
        line={"color": mark.color, "width": 2},
        marker={"color": mark.color, "symbol": mark.symbol, "size": 8},
        name=theme.plain(pair),
        legendgroup=theme.plain(pair),
        customdata=told,
        hovertemplate=HOVER,
        cliponaxis=False,
    )


def _sites(row: pd.Series) -> str:
    return theme.plain(row["site_a"] if row["site_a"] == row["site_b"] else f"{row['site_a']} → {row['site_b']}")


def _interval(row: pd.Series) -> str:
    return "–" if math.isnan(row["low"] + row["high"]) else f"{row['low']:.3f} to {row['high']:.3f}"


def _chance(mine: pd.DataFrame, layers: list[int], *, first: bool) -> go.Scatter:
    level = float(mine["chance"].max())
    left, right = layers[0] - 0.5, layers[-1] + 0.5
    known = not math.isnan(level)
    return go.Scatter(
        x=[left, right, right, left] if known else [],
        y=[level, level, -level, -level] if known else [],
        fill="toself",
        mode="lines",
        line={"width": 0, "color": theme.MARKS["random"].color},
        fillcolor="rgba(125,134,143,0.28)",
        name=CHANCE,
        legendgroup=CHANCE,
        legendrank=LAST,
        showlegend=first,
        hoverinfo="skip",
    )


def read_between_models(geometry: pd.DataFrame) -> str:
    """Per span and pair the range of cosines and where it is lowest, and at how many layers there is none."""
    rows = between_models(geometry)
    return _read(rows, lambda row: f"layer {row['layer']:.0f}")


def read_drift(geometry: pd.DataFrame) -> str:
    """Per span and model where its direction is handed on most and least faithfully."""
    rows = within_models(geometry)
    return _read(rows, lambda row: f"layers {row['layer']:.0f}–{row['layer_b']:.0f}")


def _read(rows: pd.DataFrame, where: Callable[[pd.Series], str]) -> str:
    spans = sorted(dict.fromkeys(rows["span"]), key=in_time)
    told = []
    for span in spans:
        mine = rows[rows["span"] == span]
        parts = [_of_pair(str(pair), part, where) for pair, part in mine.groupby("pair", sort=False)]
        told.append(f"At {span}: {'; '.join(parts)}.")
    return " ".join(told) + f" Two random directions reach {rows['chance'].max():.2f} on average."


def _of_pair(pair: str, part: pd.DataFrame, where: Callable[[pd.Series], str]) -> str:
    known, missing = part.dropna(subset=["cosine"]), int(part["cosine"].isna().sum())
    if known.empty:
        return f"{pair} not estimable at any of {len(part)} places, since the directions are no longer than their noise"
    least, most = lowest(known, "cosine"), highest(known, "cosine")
    said = f"{pair} from {_cosine(least)} at {where(least)}"
    said = said + f" up to {_cosine(most)} at {where(most)}" if len(known) > 1 else f"{pair} {_cosine(least)} at {where(least)}"
    return said + (f", not estimable at {missing} of {len(part)}" if missing else "")


def _cosine(row: pd.Series) -> str:
    interval = "" if math.isnan(row["low"] + row["high"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['cosine']:.2f}{interval} (n = {row['n']:.0f})"
