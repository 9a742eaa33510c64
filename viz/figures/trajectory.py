"""The probe's readout along the thought: mean score per step, harmful against benign prompts, with 95% bands.

A prompt counts once at each step (the mean of its token scores there), so n is prompts, not tokens:

    mean ± t(n − 1) · s / √n        s: standard deviation over prompts

The quantile is the Cornish-Fisher series of Abramowitz and Stegun 26.7.5 (within 0.05 of the exact one from n = 5).
Thoughts are aligned at their start; a step reached by fewer than MIN_PROMPTS prompts of a side is not drawn. Bands are pointwise.
"""

from __future__ import annotations

import math
from typing import Literal

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem, Z, complete, highest, prefer

MIN_PROMPTS = 5
PANELS_A_ROW = 3
CROWDED = 25  # points of a line, from which on its marks would hide it
SIDES = ("harmful", "benign")


def readout(trajectory: pd.DataFrame, by: Literal["step", "token"] = "step") -> pd.DataFrame:
    """Columns model, condition, reading, side, at, mean, low, high, se, n; one row per drawn point.

    Of the test split, where the table has several. `by` step: the aligned step index of the table. `by` token: tokens since the
    prompt's first row. Answer and padding tokens are left out.
    """
    rows = prefer(complete(trajectory, "trajectory"), "split", "test") if len(trajectory) else trajectory
    rows = rows[~rows["kind"].isin(("answer", "pad")) & rows["step"].notna() & rows["score"].notna()]
    who = ["model", "condition", "prompt_id"]
    at = rows["step"] if by == "step" else rows["position"] - rows.groupby(who)["position"].transform("min")
    rows = rows.assign(at=at.astype(int), side=rows["harmful"].map({True: "harmful", False: "benign"}))
    prompts = rows.groupby([*who, "side", "at"], sort=False)["score"].mean()
    found = prompts.groupby(["model", "condition", "side", "at"]).agg(["mean", "std", "count"]).reset_index().rename(columns={"count": "n"})
    found = found[found["n"] >= MIN_PROMPTS]
    if found.empty:
        raise TableProblem(f"No step of the thought is reached by {MIN_PROMPTS} prompts of a side, so no mean is drawn.")
    found["se"] = found["std"] / found["n"] ** 0.5
    half = found["se"] * found["n"].map(quantile)
    found = found.assign(low=found["mean"] - half, high=found["mean"] + half)
    steered = found["condition"] != "unsteered"
    return found.assign(reading=found["model"].where(~steered, found["model"] + " @ " + found["condition"]))


def quantile(n: int) -> float:
    """97.5% quantile of Student's t with n − 1 degrees of freedom."""
    v = n - 1
    return Z + (Z**3 + Z) / (4 * v) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * v * v)


def readout_along_thought(trajectory: pd.DataFrame, by: Literal["step", "token"] = "step") -> go.Figure:
    """A panel per model and condition; lines are means over prompts, bands 95%. Columns: CONTRIBUTING.md, `trajectory`."""
    table = readout(trajectory, by)
    readings = theme.ordered(table["reading"].tolist())
    across = min(PANELS_A_ROW, len(readings))
    down = math.ceil(len(readings) / across)
    note = f"mean over prompts, bands are 95% · steps with fewer than {MIN_PROMPTS} prompts of a side are not drawn"
    blank = theme.figure("Probe readout along the thought", note, plot=250 * down, above=64)
    titles = [f"<b>{theme.plain(reading)}</b>" for reading in readings]
    figure = make_subplots(
        rows=down,
        cols=across,
        shared_yaxes=True,
        shared_xaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.12 / down,
        subplot_titles=titles,
        figure=blank,
    )
    for index, reading in enumerate(readings):
        for side in SIDES:
            mine = table[(table["reading"] == reading) & (table["side"] == side)].sort_values("at")
            for trace in band_and_line(mine, side, "step"):
                figure.add_trace(
                    trace.update(showlegend=trace.showlegend is not False and index == 0), row=index // across + 1, col=index % across + 1
                )
    figure.update_xaxes(title_text="step of the thought" if by == "step" else "token of the thought", row=down)
    figure.update_yaxes(title_text="readout", col=1)
    theme.legend_over(figure, 26)
    return figure


def band_and_line(mine: pd.DataFrame, side: str, at: str) -> list[go.Scatter]:
    """The mean of one side with its interval, from columns at, mean, low, high, n; `at` says in the hover what a point is."""
    mark = theme.MARKS[side]
    crowded = len(mine) > CROWDED
    edge = pd.concat([mine["high"], mine["low"][::-1]]).tolist()
    band = go.Scatter(
        x=[*mine["at"], *mine["at"][::-1]],
        y=edge,
        fill="toself",
        fillcolor=mark.color,
        opacity=0.2,
        mode="none",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=side,
        name=side,
    )
    line = go.Scatter(
        x=mine["at"].tolist(),
        y=mine["mean"].tolist(),
        mode="lines+markers",
        line={"color": mark.color, "width": 1.5 if crowded else 2, "dash": "solid" if crowded else mark.dash},
        marker={"color": mark.color, "symbol": mark.symbol, "size": 3 if crowded else 7},
        legendgroup=side,
        name=side,
        customdata=mine[["low", "high", "n"]].to_numpy().tolist(),
        hovertemplate=f"{side}, {at} "
        + "%{x}<br>%{y:.2f}  (95% %{customdata[0]:.2f} to %{customdata[1]:.2f})<br>n = %{customdata[2]:.0f} prompts<extra></extra>",
    )
    return [band, line]


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Harmful − benign per reading and step where both sides are drawn: gap, low, high, n_harmful, n_benign."""
    keys = ["reading", "at"]
    two = table[table["side"] == "harmful"].merge(table[table["side"] == "benign"], on=keys, suffixes=("_harmful", "_benign"))
    gap = two["mean_harmful"] - two["mean_benign"]
    half = Z * (two["se_harmful"] ** 2 + two["se_benign"] ** 2) ** 0.5
    return two[[*keys, "n_harmful", "n_benign"]].assign(gap=gap, low=gap - half, high=gap + half)


def read_trajectory(trajectory: pd.DataFrame) -> str:
    """The figure in words: from which step harmful and benign thoughts are apart, where most, and whether they stay so."""
    apart = gaps(readout(trajectory))
    if apart.empty:
        return f"No step has {MIN_PROMPTS} harmful and {MIN_PROMPTS} benign prompts, so the two cannot be compared."
    return " ".join(
        _along(reading, apart[apart["reading"] == reading].sort_values("at")) for reading in theme.ordered(apart["reading"].tolist())
    )


def _along(reading: str, mine: pd.DataFrame) -> str:
    clear = mine[mine["low"] > 0]
    top = highest(mine, "gap")
    size = f"n = {top['n_harmful']:.0f} harmful, {top['n_benign']:.0f} benign"
    if clear.empty:
        largest = f"largest gap {top['gap']:.2f} [{top['low']:.2f} to {top['high']:.2f}], {size}"
        return f"In the {reading} model harmful and benign thoughts are not apart at any step ({largest})."
    last = mine.iloc[-1]
    end = "they stay apart to the last step drawn" if last["low"] > 0 else f"by step {last['at']} the gap is no longer clear of zero"
    return (
        f"In the {reading} model harmful and benign thoughts are apart from step {clear.iloc[0]['at']:.0f}, most at step {top['at']:.0f} "
        f"(gap {top['gap']:.2f} [{top['low']:.2f} to {top['high']:.2f}], {size}); {end}."
    )
