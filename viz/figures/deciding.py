"""Where thoughts are decided, measured three ways, and how far along the thought the recognised decisions lie.

`decision_ranks`: three panels over the same anchors, divergence, probe margin and what one steered token takes back, the side that decides
(dev) beside the one that confirms (test); bars are 95% group-bootstrap intervals, and a ring shows the most that any random direction did.
`decision_boundaries`: the share of test thoughts with a recognised and with a measured decision, by how much of the thought is gone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import TableProblem, lowest
from .decision import in_thought, panels

PANELS = {"gap": "divergence: harmful − benign (nats)", "margin": "probe margin (sd)", "effect": "one steered token closes (nats)"}
BINS = 10
WHERE = "%{customdata[0]}<br>%{x} of the thought gone<br>%{y:.0%} of %{customdata[1]} thoughts, %{customdata[2]} boundaries<extra></extra>"


def three_measures(decision_ranks: pd.DataFrame) -> go.Figure:
    """Divergence, margin and effect side by side, an anchor a row. Columns: CONTRIBUTING.md, `decision_ranks`."""
    rows = decision_ranks.dropna(subset=["rank"])
    if rows.empty:
        raise TableProblem("The decision_ranks table ranks no anchor: no step boundary is reached by enough thoughts.")
    decided = rows[rows["decides"]]
    note = (
        f"{rows['model_a'].iloc[0]} and {rows['model_b'].iloc[0]} on the same tokens · bold: first of the three together on "
        f"{decided['split'].iloc[0]} · bars are 95% intervals · ring: the most of any random direction"
    )
    figure = panels(
        rows,
        PANELS,
        "Where the thought is decided",
        note,
        other=theme.MARKS["reasoning"],
        ranks="rank_{name}",
        further=lambda row, name: _how(row) if name == "effect" else "",
    )
    at = {name: index for index, name in enumerate(in_thought(rows))}
    return figure.add_trace(_rings(decided.dropna(subset=["random_effect"]), at), row=1, col=len(PANELS))


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
