"""Every way of steering beside every baseline: a row a way, a panel an outcome, each dot with its interval.

Draws of controls (`random[3]`, `shuffled[0]`) share one row and one faint mark. Rows are in the order of the table, which is that of the
comparison: left alone, the other models, words, steering, its operators, moments, gates and thought modes, controls.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem
from .readings import bars, label

PANELS = {
    "attack_success": "attack success",
    "refusal": "refused",
    "over_refusal": "over-refused",
    "helpful": "helpful",
    "task_accuracy": "tasks solved",
}
WAY, CONTROL = theme.MARKS["reasoning"], theme.MARKS["random"]
NATS = "kl"  # the one outcome that is no share
SHARE = "%{x:.1%}  (95% interval %{customdata[2]:.1%} to %{customdata[3]:.1%})<br>%{customdata[4]} of %{customdata[5]}"
DIVERGENCE = "%{x:.3g} nats  (95% interval %{customdata[2]:.3g} to %{customdata[3]:.3g})<br>n = %{customdata[5]}"


def shown(
    comparison: pd.DataFrame,
    table: str = "comparison",
    made: str = "`thoughtlens sweep RUN`",
    *,
    outcomes: Mapping[str, str] = PANELS,
) -> pd.DataFrame:
    """The rows over all attacks, with `row` (the way, draws of a control together) and `draw` (whether it is one)."""
    rows = comparison[(comparison["attack"] == "all") & (comparison["split"] == "test") & comparison["metric"].isin(outcomes)]
    if rows.empty:
        raise TableProblem(f"The {table} table has no test rows of {', '.join(outcomes)}. {made} makes it.")
    return rows.assign(row=rows["condition"].str.split("[").str[0], draw=rows["condition"].str.contains("[", regex=False))


def ways_compared(comparison: pd.DataFrame) -> go.Figure:
    """A panel per outcome, a row per way. Columns: CONTRIBUTING.md, `comparison`."""
    return panels(shown(comparison), "Every way beside every baseline", "test split · chosen on dev · bars are 95% intervals")


def panels(rows: pd.DataFrame, title: str, note: str, *, outcomes: Mapping[str, str] = PANELS) -> go.Figure:
    """Rows as shown() gives them. Shares run from 0 to 100% in every panel."""
    names = list(dict.fromkeys(rows["row"]))
    metrics = [metric for metric in outcomes if metric in set(rows["metric"])]
    blank = theme.figure(title, note, plot=24 * len(names), above=46)
    titles = [f"<b>{'<br>'.join(textwrap.wrap(outcomes[metric], 8))}</b>" for metric in metrics]
    figure = make_subplots(rows=1, cols=len(metrics), shared_yaxes=True, horizontal_spacing=0.025, subplot_titles=titles, figure=blank)
    at = {name: index for index, name in enumerate(names)}
    for column, metric in enumerate(metrics, start=1):
        for draws, mark in ((False, WAY), (True, CONTROL)):
            part = rows[(rows["metric"] == metric) & (rows["draw"] == draws)]
            if len(part):
                hover = DIVERGENCE if metric == NATS else SHARE
                figure.add_trace(_dots(part, at, outcomes[metric], mark, hover, faint=draws), row=1, col=column)
        top = _end(rows[rows["metric"] == metric]) if metric == NATS else 1.0
        told = f"{top / 2:g}" if metric == NATS else "50%"
        ticks = {"tickvals": [0, top / 2, top], "ticktext": ["", told, ""], "tickangle": 0}
        figure.update_xaxes(range=[-0.04 * top, 1.04 * top], **ticks, row=1, col=column)
    labels = [label(name, width=60, lines=1) for name in names]
    figure.update_yaxes(tickvals=list(at.values()), ticktext=labels, range=[len(names) - 0.5, -0.5], ticks="")
    return figure.update_annotations(font_size=11).update_layout(showlegend=False)


def _end(rows: pd.DataFrame) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    longest = float(rows["high"].fillna(rows["value"]).max())
    if not longest > 0:
        return 1.0
    ten = 10.0 ** math.floor(math.log10(longest))
    return next(step * ten for step in (1, 2, 5, 10) if step * ten >= longest)


def _dots(rows: pd.DataFrame, at: Mapping[str, int], panel: str, mark: theme.Mark, hover: str, *, faint: bool) -> go.Scatter:
    told = [
        [theme.plain(row["condition"]), panel, row["low"], row["high"], theme.count(row["numerator"]), theme.count(row["n"])]
        + [theme.plain(row["what"])]
        for _, row in rows.iterrows()
    ]
    return go.Scatter(
        x=rows["value"].tolist(),
        y=[at[name] for name in rows["row"]],
        error_x=bars(rows, mark.color) | {"thickness": 0.8 if faint else 1.6},
        mode="markers",
        opacity=0.5 if faint else 1.0,
        marker={"color": mark.color, "symbol": mark.symbol, "size": 6 if faint else 8},
        name=panel,
        cliponaxis=False,
        customdata=told,
        hovertemplate="<b>%{customdata[0]}</b> · %{customdata[1]}<br>" + hover + "<br>%{customdata[6]}<extra></extra>",
    )


def read_ways(comparison: pd.DataFrame) -> str:
    """Steering beside the text baselines, the controls, and the way with the fewest successful attacks."""
    rows = shown(comparison)
    success = rows[(rows["metric"] == "attack_success") & ~rows["draw"]].set_index("row")
    told = [
        f"{name}: {theme.rate(success.loc[name])}"
        for name in ("unsteered", "steered", "reminder", "reminder at the same step", "system prompt", "safe")
        if name in success.index
    ]
    drawn = rows[(rows["metric"] == "attack_success") & rows["draw"]]
    controls = [
        f"{part['condition'].nunique()} {name} vectors of equal norm: {theme.span(part['value'])}"
        for name, part in drawn.groupby("row", sort=False)
    ]
    return "Attack success, " + "; ".join([*told, *controls]) + "."
