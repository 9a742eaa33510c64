"""Which heads write the direction a probe reads: what each writes for harmful prompts beyond benign ones, layer × head.

Rows of `heads` (parts head, and others such as mlp and embedding, which are told in words): readouts are sums over parts, so differences
are, too. Colour is the share of the readout's difference, around zero.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import TableProblem, highest, prefer

HOVER = (
    "layer %{y}, head %{x}<br>harmful − benign %{customdata[0]:.3f}  (95% interval %{customdata[1]:.3f} to %{customdata[2]:.3f})"
    "<br>%{customdata[3]} of the difference<br>n = %{customdata[4]:.0f}<extra></extra>"
)


def shown(heads: pd.DataFrame) -> pd.DataFrame:
    """The test rows of one probe."""
    return prefer(prefer(heads, "split", "test"), "span", heads["span"].iloc[0])


def heads_that_write(heads: pd.DataFrame) -> go.Figure:
    """Heatmap of shares. Columns: CONTRIBUTING.md, `heads`."""
    told = shown(heads)
    rows = told[told["part"] == "head"]
    if rows.empty:
        raise TableProblem("The heads table has no row of a head. `thoughtlens probe RUN` makes it.")
    layers, across = sorted(int(layer) for layer in rows["layer"].unique()), sorted(int(head) for head in rows["head"].unique())
    one = rows.iloc[0]
    read = f"{one['probe']} probe at {one['site']}, {one['span']}"
    note = f"{one['model']} · {read} · {one['split']}, n = {one['n']:.0f} · share of harmful − benign"
    figure = theme.figure("Which heads write the direction", note, plot=max(150, 30 * len(layers)), above=20)
    cells = {(int(row["layer"]), int(row["head"])): row for _, row in rows.iterrows()}
    grid = [[cells.get((layer, head)) for head in across] for layer in layers]
    most = float(rows["share"].abs().max())
    figure.add_heatmap(
        z=[[None if cell is None else float(cell["share"]) for cell in line] for line in grid],
        x=across,
        y=layers,
        zmin=-most,
        zmax=most,
        colorscale=[[0, theme.MARKS["benign"].color], [0.5, "rgba(128,128,128,0.08)"], [1, theme.MARKS["harmful"].color]],
        colorbar={"title": {"text": "share"}, "tickformat": ".0%", "outlinewidth": 0, "thickness": 10},
        xgap=2,
        ygap=2,
        text=[["" if cell is None else theme.percent(float(cell["share"])) for cell in line] for line in grid],
        texttemplate="%{text}",
        customdata=[[_told(cell) for cell in line] for line in grid],
        hovertemplate=HOVER,
        hoverongaps=False,
    )
    figure.update_xaxes(title_text="head", tickvals=across, showgrid=False, ticks="")
    figure.update_yaxes(title_text="layer", tickvals=layers, showgrid=False, ticks="")
    return figure


def _told(cell: pd.Series | None) -> list[object]:
    if cell is None:
        return [None, None, None, "–", None]
    return [cell["difference"], cell["low"], cell["high"], theme.percent(cell["share"]), cell["n"]]


def read_heads(heads: pd.DataFrame) -> str:
    """How much all heads write, which most, and how much is not written by heads."""
    rows = shown(heads)
    by_head = rows[rows["part"] == "head"]
    top = highest(by_head, "share")
    others = ", ".join(f"{part} {theme.percent(float(some['share'].sum()))}" for part, some in rows.groupby("part", sort=False))
    return (
        f"Most is written by head {top['head']:.0f} of layer {top['layer']:.0f}: {theme.percent(top['share'])} of the difference "
        f"({top['difference']:.2f} [{top['low']:.2f} to {top['high']:.2f}], n = {top['n']:.0f}). By part: {others}. "
        "What a part writes directly is not yet what it is good for; the ablation in the printed table tests that."
    )
