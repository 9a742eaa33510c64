"""Where a thought turns: at every step boundary, how far safe and reasoning part and how far apart the probe reads harmful and benign.

Rows of `decision`: two panels over the same anchors, each with the side that decides (dev) and the side that confirms (test). Bars are 95%
group-bootstrap intervals. The anchors are drawn in the order they come in the thought; the first of the combined ranking stands out.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem, lowest

PANELS = {"gap": "divergence: harmful − benign (nats)", "margin": "probe margin (sd)"}
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]}<br>%{x:.3f}  (95% interval %{customdata[2]:.3f} to %{customdata[3]:.3f})"
    "<br>rank %{customdata[4]} · n = %{customdata[5]} prompts, %{customdata[6]} harmful<extra></extra>"
)


def decision_points(decision: pd.DataFrame) -> go.Figure:
    """Divergence and margin side by side, an anchor a row. Columns: CONTRIBUTING.md, `decision`."""
    rows = decision.dropna(subset=["rank"])
    if rows.empty:
        raise TableProblem("The decision table ranks no anchor: no step boundary is reached by enough thoughts.")
    names, top = _in_thought(rows), first(rows)
    at = {name: index for index, name in enumerate(names)}
    pair = f"{rows['model_a'].iloc[0]} and {rows['model_b'].iloc[0]} on the same tokens"
    note = f"{pair} · bold: first of the combined ranking on {rows[rows['decides']]['split'].iloc[0]} · bars are 95% intervals"
    blank = theme.figure("Where the thought turns", note, plot=30 * len(names), above=64)
    titles = [f"<b>{title}</b>" for title in PANELS.values()]
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=titles, figure=blank)
    for column, name in enumerate(PANELS, start=1):
        for index, (decides, mine) in enumerate(rows.groupby("decides", sort=False)):
            figure.add_trace(_dots(mine, name, at, bool(decides), index).update(showlegend=column == 1), row=1, col=column)
    labels = [f"<b>{theme.plain(name)}</b>" if name == top else theme.plain(name) for name in names]
    figure.update_yaxes(tickvals=list(at.values()), ticktext=labels, range=[len(names) - 0.5, -0.5], ticks="")
    theme.legend_over(figure, 26)
    return figure


def first(decision: pd.DataFrame) -> str:
    """The anchor that comes first on the side that decides."""
    return str(lowest(decision[decision["decides"]], "rank")["anchor"])


def _in_thought(rows: pd.DataFrame) -> list[str]:
    steps = rows.drop_duplicates("anchor").sort_values("step", kind="stable")
    return steps["anchor"].tolist()


def _dots(mine: pd.DataFrame, name: str, at: dict[str, int], decides: bool, index: int) -> go.Scatter:
    mark = theme.MARKS["steered"] if decides else theme.MARKS["random"]
    split, shift = str(mine["split"].iloc[0]), (index - 0.5) * 0.24
    told = [
        [theme.plain(r["anchor"]), theme.plain(split), r[f"{name}_low"], r[f"{name}_high"], theme.count(r["rank"]), r["n"], r["n_harmful"]]
        for _, r in mine.iterrows()
    ]
    bars = {"array": (mine[f"{name}_high"] - mine[name]).tolist(), "arrayminus": (mine[name] - mine[f"{name}_low"]).tolist()}
    return go.Scatter(
        x=mine[name].tolist(),
        y=[at[anchor] + shift for anchor in mine["anchor"]],
        error_x={"type": "data", "symmetric": False, **bars, "thickness": 1.6, "width": 0, "color": mark.color},
        mode="markers",
        marker={"color": mark.color, "symbol": mark.symbol, "size": 9},
        name=f"{theme.plain(split)}, {'decides' if decides else 'confirms'}",
        legendgroup=split,
        customdata=told,
        hovertemplate=HOVER,
    )


def read_decision(decision: pd.DataFrame) -> str:
    """The first decision point in words, and whether divergence, margin and the other side of the data agree on it."""
    rows = decision.dropna(subset=["rank"])
    if rows.empty:
        return "No anchor is ranked."
    decided, confirmed = rows[rows["decides"]], rows[~rows["decides"]]
    top = lowest(decided, "rank")
    told = (
        f"The first decision point on {top['split']} is {top['anchor']}: harmful thoughts part by {top['gap']:.2f} nats more than "
        f"benign ones [{top['gap_low']:.2f} to {top['gap_high']:.2f}], and the probe's margin is {top['margin']:.2f} sd "
        f"[{top['margin_low']:.2f} to {top['margin_high']:.2f}], n = {top['n']:.0f}; it comes first in {theme.percent(top['first'])} of "
        "bootstrap draws."
    )
    by_margin = str(lowest(decided, "rank_margin")["anchor"]) if decided["rank_margin"].notna().any() else "none"
    by_gap = str(lowest(decided, "rank_gap")["anchor"])
    told += f" Divergence alone puts {by_gap} first, margin alone {by_margin}."
    if len(confirmed):
        again = str(lowest(confirmed, "rank")["anchor"])
        told += f" On {confirmed['split'].iloc[0]} the first is {again}" + (", too." if again == top["anchor"] else ".")
    return told
