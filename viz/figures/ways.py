"""Every way of steering beside every baseline: a row a way, a panel an outcome, each dot with its interval.

Draws of controls (`random[3]`, `shuffled[0]`) share one row and one faint mark. Rows are in the order of the table, which is that of the
comparison: left alone, the other models, words, steering, its operators, moments, gates and thought modes, controls.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem

PANELS = {
    "attack_success": "attack success",
    "refusal": "refused",
    "over_refusal": "over-refused",
    "helpful": "helpful",
    "task_accuracy": "tasks solved",
}
WAY, CONTROL = theme.MARKS["reasoning"], theme.MARKS["random"]
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]}<br>%{x:.1%}  (95% interval %{customdata[2]:.1%} to %{customdata[3]:.1%})"
    "<br>%{customdata[4]} of %{customdata[5]}<br>%{customdata[6]}<extra></extra>"
)


def shown(comparison: pd.DataFrame, table: str = "comparison", made: str = "`thoughtlens sweep RUN`") -> pd.DataFrame:
    """The rows over all attacks, with `row` (the way, draws of a control together) and `draw` (whether it is one)."""
    rows = comparison[(comparison["attack"] == "all") & (comparison["split"] == "test") & comparison["metric"].isin(PANELS)]
    if rows.empty:
        raise TableProblem(f"The {table} table has no test rows of {', '.join(PANELS)}. {made} makes it.")
    return rows.assign(row=rows["condition"].str.split("[").str[0], draw=rows["condition"].str.contains("[", regex=False))


def ways_compared(comparison: pd.DataFrame) -> go.Figure:
    """A panel per outcome, a row per way. Columns: CONTRIBUTING.md, `comparison`."""
    return panels(shown(comparison), "Every way beside every baseline", "test split · chosen on dev · bars are 95% intervals")


def panels(rows: pd.DataFrame, title: str, note: str) -> go.Figure:
    """Rows as shown() gives them."""
    names = list(dict.fromkeys(rows["row"]))
    outcomes = [metric for metric in PANELS if metric in set(rows["metric"])]
    blank = theme.figure(title, note, plot=24 * len(names), above=30)
    titles = [f"<b>{PANELS[metric]}</b>" for metric in outcomes]
    figure = make_subplots(rows=1, cols=len(outcomes), shared_yaxes=True, horizontal_spacing=0.025, subplot_titles=titles, figure=blank)
    at = {name: index for index, name in enumerate(names)}
    for column, metric in enumerate(outcomes, start=1):
        for draws, mark in ((False, WAY), (True, CONTROL)):
            part = rows[(rows["metric"] == metric) & (rows["draw"] == draws)]
            if len(part):
                figure.add_trace(_dots(part, at, PANELS[metric], mark, faint=draws), row=1, col=column)
    figure.update_xaxes(range=[-0.04, 1.04], tickvals=[0, 0.5, 1], ticktext=["0", "50%", "100%"])
    labels = [theme.plain(name) for name in names]
    figure.update_yaxes(tickvals=list(at.values()), ticktext=labels, range=[len(names) - 0.5, -0.5], ticks="")
    return figure.update_layout(showlegend=False)


def _dots(rows: pd.DataFrame, at: dict[str, int], panel: str, mark: theme.Mark, *, faint: bool) -> go.Scatter:
    told = [
        [theme.plain(row["condition"]), panel, row["low"], row["high"], theme.count(row["numerator"]), theme.count(row["n"])]
        + [theme.plain(row["what"])]
        for _, row in rows.iterrows()
    ]
    bars = {"array": (rows["high"] - rows["value"]).tolist(), "arrayminus": (rows["value"] - rows["low"]).tolist()}
    return go.Scatter(
        x=rows["value"].tolist(),
        y=[at[name] for name in rows["row"]],
        error_x={"type": "data", "symmetric": False, **bars, "thickness": 0.8 if faint else 1.6, "width": 0, "color": mark.color},
        mode="markers",
        opacity=0.5 if faint else 1.0,
        marker={"color": mark.color, "symbol": mark.symbol, "size": 6 if faint else 8},
        name=panel,
        cliponaxis=False,
        customdata=told,
        hovertemplate=HOVER,
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
