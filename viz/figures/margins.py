"""What tuning did along the refusal direction: margins of both classes in every model, layer by layer, a panel per moment.

Rows of `margins`: a margin is told along the base's direction, in units of what the base's classes are apart, so the base's two lines run
near ½ and −½. Bars reach one standard deviation over prompts to either side; the hover has the interval of the mean.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem

CLASSES = {"harmful": "solid", "benign": "dot"}
HOVER = (
    "<b>%{fullData.name}</b> · layer %{customdata[0]}<br>mean %{y:.2f}  (95% interval %{customdata[1]:.2f} to %{customdata[2]:.2f})"
    "<br>sd %{customdata[3]:.2f} · n = %{customdata[4]}<extra></extra>"
)
ROOM = 0.06  # between models at one layer, so that bars do not hide each other


def margins_by_layer(margins: pd.DataFrame) -> go.Figure:
    """A panel per moment, a line per model and class. Columns: CONTRIBUTING.md, `margins`."""
    rows = told(margins)
    spans, models = list(dict.fromkeys(rows["span"])), theme.ordered(rows["model"].tolist())
    blank = theme.figure(
        "Margins along the refusal direction", "test split, the same tokens in every model · bars are one sd", plot=280, above=64
    )
    titles = [f"<b>{theme.plain(span)}</b>" for span in spans]
    figure = make_subplots(rows=1, cols=len(spans), shared_yaxes=False, horizontal_spacing=0.07, subplot_titles=titles, figure=blank)
    for column, span in enumerate(spans, start=1):
        for index, model in enumerate(models):
            for side, dash in CLASSES.items():
                mine = rows[(rows["span"] == span) & (rows["model"] == model)]
                trace = _line(mine, model, side, dash, ROOM * (index - (len(models) - 1) / 2))
                figure.add_trace(trace.update(showlegend=column == 1), row=1, col=column)
    figure.update_xaxes(title_text="layer", tickvals=sorted(rows["layer"].unique()))
    figure.update_yaxes(title_text="margin", col=1)
    theme.legend_over(figure, 26)
    return figure


def told(margins: pd.DataFrame) -> pd.DataFrame:
    rows = margins[margins["metric"].isin([f"{part}_{side}" for part in ("mean", "sd") for side in CLASSES])] if len(margins) else margins
    if rows.empty:
        raise TableProblem("The margins table has no class means. `thoughtlens organism explain RUN` makes it.")
    return rows


def _line(rows: pd.DataFrame, model: str, side: str, dash: str, aside: float) -> go.Scatter:
    mean, sd = (rows[rows["metric"] == f"{part}_{side}"].sort_values("layer") for part in ("mean", "sd"))
    mark = theme.mark(model)
    return go.Scatter(
        x=[layer + aside for layer in mean["layer"]],
        y=mean["value"].tolist(),
        error_y={"type": "data", "array": sd["value"].tolist(), "thickness": 1, "width": 0, "color": mark.color},
        mode="lines+markers",
        line={"color": mark.color, "dash": dash, "width": 2},
        marker={"color": mark.color, "symbol": mark.symbol, "size": 7},
        name=f"{theme.plain(model)}, {side}",
        customdata=[list(one) for one in zip(mean["layer"], mean["low"], mean["high"], sd["value"], mean["n"], strict=True)],
        hovertemplate=HOVER,
    )


def read_margins(margins: pd.DataFrame) -> str:
    """Per moment, at the layer where the base tells the classes best apart: what both classes moved, and what is left between them."""
    told(margins)
    return " ".join(_read(str(span), part) for span, part in margins.groupby("span", sort=False))


def _read(span: str, part: pd.DataFrame) -> str:
    base = part[(part["model"] == "base") & (part["metric"] == "dprime")]
    layer = int(base.sort_values("value", kind="stable", ascending=False)["layer"].iloc[0])
    mine: Any = part[part["layer"] == layer].set_index(["model", "metric"])
    if ("reasoning", "shift") not in mine.index:
        return f"At {span} there is no reasoning model to compare with the base."
    shift, gap = (mine.loc[("reasoning", metric)] for metric in ("shift", "gap_change"))
    before, after = (mine.loc[(model, "auroc")] for model in ("base", "reasoning"))
    return (
        f"At {span}, layer {layer}, reasoning tuning moved both classes by {_number(shift)} and changed their distance by {_number(gap)}; "
        f"AUROC {theme.auroc(before['value'])} before, {theme.auroc(after['value'])} after (n = {shift['n']:.0f})."
    )


def _number(row: pd.Series) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
