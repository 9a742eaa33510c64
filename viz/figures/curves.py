"""The readout along the thought, aligned three ways: from its start, to its end, and by the share that is gone.

Rows of `curves`: means over prompts with 95% group-bootstrap bands, drawn as they are in the table. Aligned at the end a fall before the
answer shows, which alignment at the start smears out.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem, prefer
from .trajectory import SIDES, band_and_line

ALIGNED = {"start": "tokens from the start", "fraction": "share of the thought", "end": "tokens to the end"}
BETWEEN = 46  # pixels between two models


def readings(curves: pd.DataFrame) -> pd.DataFrame:
    """The test rows with the name of the model, and of the condition where it is steered."""
    rows = prefer(curves[curves["by"].isin(list(ALIGNED))], "split", "test") if len(curves) else curves
    if rows.empty:
        raise TableProblem("The curves table has no aligned readout. `thoughtlens probe RUN` makes it.")
    steered = rows["condition"] != "unsteered"
    return rows.assign(reading=rows["model"].where(~steered, rows["model"] + " @ " + rows["condition"]))


def readout_aligned(curves: pd.DataFrame) -> go.Figure:
    """A row of panels per model: start, share, end. Columns: CONTRIBUTING.md, `curves`."""
    rows = readings(curves)
    names, aligned = theme.ordered(rows["reading"].tolist()), [by for by in ALIGNED if by in set(rows["by"])]
    note = f"mean over prompts, {rows['split'].iloc[0]} split · 95% bands over goals"
    blank = theme.figure("The readout at both ends of the thought", note, plot=200 * len(names), above=64)
    titles = [f"<b>{theme.plain(name)}</b>" if column == 0 else "" for name in names for column in range(len(aligned))]
    figure = make_subplots(
        rows=len(names),
        cols=len(aligned),
        shared_yaxes="rows",
        horizontal_spacing=0.03,
        vertical_spacing=BETWEEN / (200 * len(names)),
        subplot_titles=titles,
        figure=blank,
    )
    for down, name in enumerate(names, start=1):
        for column, by in enumerate(aligned, start=1):
            for side in SIDES:
                mine = rows[(rows["reading"] == name) & (rows["by"] == by) & (rows["side"] == side)].sort_values("at")
                for trace in band_and_line(mine, side, ALIGNED[by]):
                    shown = trace.showlegend is not False and down == column == 1
                    figure.add_trace(trace.update(showlegend=shown), row=down, col=column)
    figure.update_xaxes(tickangle=0, nticks=4)
    for column, by in enumerate(aligned, start=1):
        figure.update_xaxes(title_text=ALIGNED[by].replace(" the ", "<br>the "), row=len(names), col=column)
    figure.update_yaxes(title_text="readout", col=1)
    theme.legend_over(figure, 26)
    return figure


def read_curves(curves: pd.DataFrame) -> str:
    """Per model how far apart harmful and benign thoughts are at the start, at their farthest, and at the end."""
    rows = readings(curves)
    return " ".join(_read(name, rows[rows["reading"] == name]) for name in theme.ordered(rows["reading"].tolist()))


def _read(name: str, mine: pd.DataFrame) -> str:
    by = mine[mine["by"] == "fraction"] if (mine["by"] == "fraction").any() else mine
    two = by[by["side"] == "harmful"].merge(by[by["side"] == "benign"], on=["by", "at"], suffixes=("", "_benign"))
    if two.empty:
        return f"In the {name} model no point has both harmful and benign thoughts."
    gap = (two["mean"] - two["mean_benign"]).tolist()
    top = max(range(len(gap)), key=gap.__getitem__)
    size = f"n = {two['n'].iloc[top]:.0f} harmful, {two['n_benign'].iloc[top]:.0f} benign"
    return (
        f"In the {name} model the mean readout of harmful thoughts lies {gap[0]:.2f} above that of benign ones at the start, "
        f"{gap[top]:.2f} at most (at {two['at'].iloc[top]:g}; {size}), and {gap[-1]:.2f} at the end."
    )
