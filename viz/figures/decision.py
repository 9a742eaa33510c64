"""Where a thought turns: at every step boundary, how far safe and reasoning part and how far apart the probe reads harmful and benign.

Rows of `decision`: two panels over the same anchors, each with the side that decides (dev) and the side that confirms (test). Bars are 95%
group-bootstrap intervals. The anchors are drawn in the order they come in the thought; the first of the combined ranking stands out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem, lowest

PANELS = {"gap": "divergence: harmful − benign (nats)", "margin": "probe margin (sd)"}
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]}<br>%{x:.3f}  (95% interval %{customdata[2]:.3f} to %{customdata[3]:.3f})"
    "<br>rank %{customdata[4]} · n = %{customdata[5]} prompts, %{customdata[6]} harmful%{customdata[7]}<extra></extra>"
)
SHIFT = 0.24  # between the two sides of the data, of a row's height


def decision_points(decision: pd.DataFrame) -> go.Figure:
    """Divergence and margin side by side, an anchor a row. Columns: CONTRIBUTING.md, `decision`."""
    rows = decision.dropna(subset=["rank"])
    if rows.empty:
        raise TableProblem("The decision table ranks no anchor: no step boundary is reached by enough thoughts.")
    pair = f"{rows['model_a'].iloc[0]} and {rows['model_b'].iloc[0]} on the same tokens"
    note = f"{pair} · bold: first of the combined ranking on {rows[rows['decides']]['split'].iloc[0]} · bars are 95% intervals"
    return panels(rows, PANELS, "Where the thought turns", note, other=theme.MARKS["random"])


def panels(
    rows: pd.DataFrame,
    titles: Mapping[str, str],
    title: str,
    note: str,
    *,
    other: theme.Mark,
    ranks: str = "rank",
    further: Callable[[pd.Series, str], str] = lambda row, name: "",
) -> go.Figure:
    """A panel a measure over the same anchors, in the order of the thought, the first one bold.

    titles    column of `rows` -> what it measures; with <column>_low and <column>_high
    other     mark of the side that confirms
    ranks     the column of a measure's rank, as a pattern with {name}
    further   what else the hover says of a row and a measure
    """
    names, top = in_thought(rows), first(rows)
    blank = theme.figure(title, note, plot=30 * len(names), above=64)
    heads = [f"<b>{words}</b>" for words in titles.values()]
    figure = make_subplots(rows=1, cols=len(titles), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=heads, figure=blank)
    for column, name in enumerate(titles, start=1):
        for index, (decides, mine) in enumerate(rows.groupby("decides", sort=False)):
            mark, role = (theme.MARKS["steered"], "decides") if decides else (other, "confirms")
            split = theme.plain(str(mine["split"].iloc[0]))
            told = [
                [theme.plain(r["anchor"]), split, r[f"{name}_low"], r[f"{name}_high"], theme.count(r[ranks.format(name=name)]), r["n"]]
                + [r["n_harmful"], further(r, name)]
                for _, r in mine.iterrows()
            ]
            bars = {"array": (mine[f"{name}_high"] - mine[name]).tolist(), "arrayminus": (mine[name] - mine[f"{name}_low"]).tolist()}
            dots = go.Scatter(
                x=mine[name].tolist(),
                y=[names.index(anchor) + (index - 0.5) * SHIFT for anchor in mine["anchor"]],
                error_x={"type": "data", "symmetric": False, **bars, "thickness": 1.6, "width": 0, "color": mark.color},
                mode="markers",
                marker={"color": mark.color, "symbol": mark.symbol, "size": 9},
                name=f"{split}, {role}",
                legendgroup=split,
                showlegend=column == 1,
                customdata=told,
                hovertemplate=HOVER,
            )
            figure.add_trace(dots, row=1, col=column)
    labels = [f"<b>{theme.plain(name)}</b>" if name == top else theme.plain(name) for name in names]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=labels, range=[len(names) - 0.5, -0.5], ticks="")
    theme.legend_over(figure, 26)
    return figure


def first(decision: pd.DataFrame) -> str:
    """The anchor that comes first on the side that decides."""
    return str(lowest(decision[decision["decides"]], "rank")["anchor"])


def in_thought(rows: pd.DataFrame) -> list[str]:
    """Anchors in the order they come in the thought."""
    steps = rows.drop_duplicates("anchor").sort_values("step", kind="stable")
    return steps["anchor"].tolist()


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
