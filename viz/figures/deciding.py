"""Where thoughts are decided, measured three ways, and how far along the thought the recognised decisions lie.

`decision_ranks`: three panels over the same anchors, divergence, probe margin and what one steered token takes back, the side that decides
(dev) beside the one that confirms (test); bars are 95% group-bootstrap intervals, and a ring shows the most that any random direction did.
`decision_boundaries`: the share of test thoughts with a recognised and with a measured decision, by how much of the thought is gone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem, lowest

PANELS = {"gap": "divergence: harmful − benign (nats)", "margin": "probe margin (sd)", "effect": "one steered token closes (nats)"}
BINS = 10
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]}<br>%{x:.3f}  (95% interval %{customdata[2]:.3f} to %{customdata[3]:.3f})"
    "<br>rank %{customdata[4]} · n = %{customdata[5]} prompts, %{customdata[6]} harmful%{customdata[7]}<extra></extra>"
)
WHERE = "%{customdata[0]}<br>%{x} of the thought gone<br>%{y:.0%} of %{customdata[1]} thoughts, %{customdata[2]} boundaries<extra></extra>"


def three_measures(decision_ranks: pd.DataFrame) -> go.Figure:
    """Divergence, margin and effect side by side, an anchor a row. Columns: CONTRIBUTING.md, `decision_ranks`."""
    rows = decision_ranks.dropna(subset=["rank"])
    if rows.empty:
        raise TableProblem("The decision_ranks table ranks no anchor: no step boundary is reached by enough thoughts.")
    names = rows.drop_duplicates("anchor").sort_values("step", kind="stable")["anchor"].tolist()
    at = {name: index for index, name in enumerate(names)}
    decided = rows[rows["decides"]]
    top = str(lowest(decided, "rank")["anchor"])
    note = (
        f"{rows['model_a'].iloc[0]} and {rows['model_b'].iloc[0]} on the same tokens · bold: first of the three together on "
        f"{decided['split'].iloc[0]} · bars are 95% intervals · ring: the most of any random direction"
    )
    blank = theme.figure("Where the thought is decided", note, plot=30 * len(names), above=64)
    titles = [f"<b>{title}</b>" for title in PANELS.values()]
    figure = make_subplots(rows=1, cols=len(PANELS), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=titles, figure=blank)
    for column, name in enumerate(PANELS, start=1):
        for index, (decides, mine) in enumerate(rows.groupby("decides", sort=False)):
            figure.add_trace(_dots(mine, name, at, bool(decides), index).update(showlegend=column == 1), row=1, col=column)
    drawn = decided.dropna(subset=["random_effect"])
    figure.add_trace(_rings(drawn, at), row=1, col=len(PANELS))
    labels = [f"<b>{theme.plain(name)}</b>" if name == top else theme.plain(name) for name in names]
    figure.update_yaxes(tickvals=list(at.values()), ticktext=labels, range=[len(names) - 0.5, -0.5], ticks="")
    theme.legend_over(figure, 26)
    return figure


def decisions_along_thought(decision_boundaries: pd.DataFrame) -> go.Figure:
    """Share of test thoughts with a decision in each tenth of the thought. Columns: CONTRIBUTING.md, `decision_boundaries`."""
    shares = along(decision_boundaries)
    figure = theme.figure("How far along the thought decisions lie", "test · tenths of the thought, counted in steps", plot=260)
    for (prompts, what), part in shares.groupby(["prompts", "what"], sort=False):
        mark = theme.MARKS[str(prompts)]
        told = [[f"{prompts} prompts, {what}", n, boundaries] for n, boundaries in zip(part["n"], part["boundaries"], strict=True)]
        figure.add_trace(
            go.Scatter(
                x=part["bin"].tolist(),
                y=part["share"].tolist(),
                mode="lines+markers",
                line={"color": mark.color, "dash": "solid" if what == "recognised" else "dot"},
                marker={"color": mark.color, "symbol": mark.symbol, "size": 8},
                name=f"{prompts}, {what}",
                customdata=told,
                hovertemplate=WHERE,
            )
        )
    figure.update_xaxes(title="share of the thought that is gone", type="category")
    figure.update_yaxes(title="thoughts with a decision there", tickformat=".0%", rangemode="tozero")
    theme.legend_over(figure, 8)
    return figure


def along(decision_boundaries: pd.DataFrame) -> pd.DataFrame:
    """prompts, what (recognised, measured), bin ("40-50%"), share, n (thoughts), boundaries. TableProblem without labelled test rows."""
    test = decision_boundaries[(decision_boundaries["split"] == "test") & decision_boundaries["harmful"].notna()]
    if test.empty:
        raise TableProblem("The decision_boundaries table has no test row of a labelled prompt.")
    steps = test.groupby("prompt_id")["step"].transform("max") + 1
    number = np.minimum((BINS * (test["step"] + 1) / steps - 1e-9).astype(int), BINS - 1)
    test = test.assign(bin=number)
    rows = []
    for prompts, label in (("harmful", True), ("benign", False)):
        mine = test[test["harmful"].astype(bool) == label]
        for what, column in (("recognised", "found"), ("measured", "decision")):
            for tenth in range(BINS) if len(mine) else ():
                here = mine[mine["bin"] == tenth]
                n, name = mine["prompt_id"].nunique(), f"{100 // BINS * tenth}-{100 // BINS * (tenth + 1)}%"
                share = here.groupby("prompt_id")[column].any().sum() / n
                rows.append({"prompts": prompts, "what": what, "bin": name, "share": share, "n": n, "boundaries": len(here)})
    return pd.DataFrame(rows)


def _dots(mine: pd.DataFrame, name: str, at: dict[str, int], decides: bool, index: int) -> go.Scatter:
    mark = theme.MARKS["steered"] if decides else theme.MARKS["reasoning"]
    split, shift = str(mine["split"].iloc[0]), (index - 0.5) * 0.24
    told = [
        [theme.plain(r["anchor"]), theme.plain(split), r[f"{name}_low"], r[f"{name}_high"], theme.count(r[f"rank_{name}"]), r["n"]]
        + [r["n_harmful"], _how(r) if name == "effect" else ""]
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


def _rings(drawn: pd.DataFrame, at: dict[str, int]) -> go.Scatter:
    return go.Scatter(
        x=drawn["random_effect"].tolist(),
        y=[at[anchor] - 0.12 for anchor in drawn["anchor"]],
        mode="markers",
        marker={"color": theme.MARKS["random"].color, "symbol": theme.MARKS["random"].symbol, "size": 9},
        name="random directions",
        hovertemplate="random directions, at most %{x:.3f}<extra></extra>",
    )


def _how(row: pd.Series) -> str:
    return (
        f"<br>{theme.plain(row['source'])} at {theme.plain(row['site'])}, strength {row['strength']:g}"
        f"<br>{row['closed_harmful']:.3f} of {row['before_harmful']:.3f} on harmful prompts, {row['closed_benign']:.3f} on benign ones"
    )


def read_three(decision_ranks: pd.DataFrame) -> str:
    """The first anchor of each measure in words, and what one token does there."""
    rows = decision_ranks.dropna(subset=["rank"])
    if rows.empty:
        return "No anchor is ranked."
    decided, confirmed = rows[rows["decides"]], rows[~rows["decides"]]
    top = lowest(decided, "rank")
    firsts = {name: str(lowest(decided, f"rank_{name}")["anchor"]) for name in PANELS}
    agree = (
        "All three put it first" if set(firsts.values()) == {top["anchor"]} else f"By divergence {firsts['gap']} comes first, by margin "
    )
    agree += "" if agree.startswith("All") else f"{firsts['margin']}, by effect {firsts['effect']}"
    told = (
        f"On {top['split']} {top['anchor']} comes first, in {theme.percent(top['first'])} of bootstrap draws. {agree}. One token steered "
        f"there takes back {top['effect']:.2f} [{top['effect_low']:.2f} to {top['effect_high']:.2f}] of {top['before_harmful']:.2f} nats "
        f"by which the models part on harmful prompts (n = {top['n']:.0f}), a random direction at most {top['random_effect']:.2f}."
    )
    if len(confirmed):
        again = str(lowest(confirmed, "rank")["anchor"])
        told += f" On {confirmed['split'].iloc[0]} the first is {again}" + (", too." if again == top["anchor"] else ".")
    return told


def read_along(decision_boundaries: pd.DataFrame) -> str:
    """Where most decisions are recognised, in words."""
    shares = along(decision_boundaries)
    told = []
    for prompts, part in shares[shares["what"] == "recognised"].groupby("prompts", sort=False):
        best = part.sort_values("share", kind="stable", ascending=False).iloc[0]
        told.append(f"{theme.percent(best['share'])} of the {prompts} thoughts at {best['bin']} (n = {best['n']})")
    return f"Most decisions are recognised in {' and in '.join(told)} of the way."
