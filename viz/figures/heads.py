"""Which heads write the direction a probe reads: what each writes for harmful prompts beyond benign ones, layer × head.

Rows of `heads` (parts head, and others such as mlp and embedding): readouts are sums over parts, so differences are, too. Above, colour is
the share of the readout's difference, around zero; in bold, heads whose 95% interval is clear of zero. Below, the parts that write most,
heads or not, with their intervals.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem, highest, prefer
from .readings import bars

HOVER = (
    "layer %{customdata[0]}, head %{customdata[1]}<br>harmful − benign %{customdata[2]}"
    "  (95% interval %{customdata[3]} to %{customdata[4]})<br>%{customdata[5]} of the difference<br>n = %{customdata[6]}<extra></extra>"
)
HOVER_PART = (
    "<b>%{customdata[0]}</b><br>harmful − benign %{x:.3g}  (95% interval %{customdata[1]} to %{customdata[2]})"
    "<br>%{customdata[3]} of the difference<br>n = %{customdata[4]}<extra></extra>"
)
MOST, ROW, BETWEEN, SHOWN_AT_MOST = 10, 22, 66, 16
HARMFUL, BENIGN = theme.MARKS["harmful"], theme.MARKS["benign"]


def shown(heads: pd.DataFrame) -> pd.DataFrame:
    """The test rows of one probe: one model, site and span."""
    if heads.empty:
        raise TableProblem("The heads table is empty. `thoughtlens probe RUN` makes it.")
    rows = prefer(prefer(heads, "split", "test"), "model", "reasoning")
    for column in ("probe", "site", "span"):
        rows = prefer(rows, column)
    return rows


def heads_that_write(heads: pd.DataFrame) -> go.Figure:
    """Heatmap of shares over dots of the parts that write most. Columns: CONTRIBUTING.md, `heads`."""
    told = shown(heads)
    rows = told[told["part"] == "head"]
    if rows.empty:
        raise TableProblem("The heads table has no row of a head. `thoughtlens probe RUN` makes it.")
    most = told.dropna(subset=["difference"]).sort_values("difference", key=lambda column: column.abs(), ascending=False, kind="stable")
    most = most.head(MOST)
    one = rows.iloc[0]
    note = f"{one['model']}, {one['probe']} at {one['site']}, {one['span']} · {one['split']} · n = {one['n']:.0f}"
    grid, parts = max(120, 26 * rows["layer"].nunique()), max(2, len(most)) * ROW
    plot = grid + BETWEEN + parts
    blank = theme.figure("Which heads write the direction", note, plot=plot, above=14)
    figure = make_subplots(rows=2, cols=1, row_heights=[grid, parts], vertical_spacing=BETWEEN / plot, figure=blank)
    for trace in _cells(rows):
        figure.add_trace(trace, row=1, col=1)
    figure.add_trace(_parts(most), row=2, col=1)
    layers, across = _numbers(rows["layer"]), _numbers(rows["head"])
    figure.update_xaxes(title_text="head", **_ticks(across), showgrid=False, ticks="", row=1, col=1)
    figure.update_yaxes(title_text="layer", **_ticks(layers), showgrid=False, ticks="", row=1, col=1)
    figure.update_xaxes(title_text="harmful − benign, in the unit of the readout", row=2, col=1)
    figure.update_yaxes(
        tickvals=list(range(len(most))), ticktext=_names(most), range=[len(most) - 0.5, -0.5], showgrid=True, ticks="", row=2, col=1
    )
    figure.add_vline(x=0, line={"width": 1.2, "color": theme.MARKS["random"].color}, layer="below", row=2, col=1)
    colorbar = {
        "title": {"text": "share", "font": {"size": 11}},
        "tickfont": {"size": 11},
        "tickformat": ".0%",
        "len": grid / plot,
        "y": 1,
        "yanchor": "top",
    }
    figure.update_traces(colorbar={**colorbar, "outlinewidth": 0, "thickness": 10}, selector={"type": "heatmap"})
    return figure.update_layout(showlegend=False)


def _numbers(column: pd.Series) -> list[int]:
    return sorted(int(number) for number in column.unique())


def _ticks(numbers: list[int]) -> dict[str, object]:
    """The cells stand at 0, 1, 2, … whatever numbers they have."""
    there = list(range(0, len(numbers), max(1, math.ceil(len(numbers) / SHOWN_AT_MOST))))
    return {"tickvals": there, "ticktext": [str(numbers[at]) for at in there]}


def _cells(rows: pd.DataFrame) -> list[go.Heatmap | go.Scatter]:
    """Colours, and the numbers in a trace of their own: on the pale middle of the scale they need the ink of the paper."""
    layers, across = _numbers(rows["layer"]), _numbers(rows["head"])
    cells = {(int(row["layer"]), int(row["head"])): row for _, row in rows.iterrows() if not math.isnan(row["share"])}
    grid = [[cells.get((layer, head)) for head in across] for layer in layers]
    most = float(rows["share"].abs().max())
    most = 1.0 if math.isnan(most) or most == 0 else most
    numbers = [(x, y, _printed(cell)) for y, line in enumerate(grid) for x, cell in enumerate(line) if cell is not None]
    numbers = numbers if len(across) <= SHOWN_AT_MOST else []
    x, y, text = ([one[at] for one in numbers] for at in range(3))
    colors = go.Heatmap(
        z=[[None if cell is None else float(cell["share"]) for cell in line] for line in grid],
        x=list(range(len(across))),
        y=list(range(len(layers))),
        zmin=-most,
        zmax=most,
        colorscale=[[0, BENIGN.color], [0.5, "rgba(128,128,128,0.08)"], [1, HARMFUL.color]],
        xgap=2,
        ygap=2,
        customdata=[[_told(cell) for cell in line] for line in grid],
        hovertemplate=HOVER,
        hoverongaps=False,
        name="heads",
    )
    return [colors, go.Scatter(x=x, y=y, text=text, mode="text", textfont={"size": 11}, hoverinfo="skip", name="share")]


def _printed(cell: pd.Series) -> str:
    share = theme.percent(float(cell["share"])).replace("-", "−")
    return f"<b>{share}</b>" if cell["low"] > 0 or cell["high"] < 0 else share


def _told(cell: pd.Series | None) -> list[str]:
    if cell is None:
        return ["–"] * 7
    numbers = [_number(cell[name]) for name in ("difference", "low", "high")]
    return [theme.count(cell["layer"]), theme.count(cell["head"]), *numbers, theme.percent(cell["share"]), theme.count(cell["n"])]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def _parts(most: pd.DataFrame) -> go.Scatter:
    colors = [HARMFUL.color if value > 0 else BENIGN.color for value in most["difference"]]
    told = [
        [name, _number(row["low"]), _number(row["high"]), theme.percent(row["share"]), theme.count(row["n"])]
        for name, (_, row) in zip(_names(most), most.iterrows(), strict=True)
    ]
    return go.Scatter(
        x=most["difference"].tolist(),
        y=list(range(len(most))),
        error_x=bars(most, theme.MARKS["random"].color, value="difference"),
        mode="markers",
        marker={"color": colors, "symbol": ["square" if part == "head" else "circle" for part in most["part"]], "size": 9},
        customdata=told,
        hovertemplate=HOVER_PART,
        name="parts",
        cliponaxis=False,
    )


def _names(rows: pd.DataFrame) -> list[str]:
    """head 3 of layer 5, mlp of layer 4, embedding"""
    found = []
    for part, layer, head in zip(rows["part"], rows["layer"], rows["head"], strict=True):
        name = f"head {head:.0f}" if part == "head" else theme.plain(part)
        found.append(f"{name}, layer {layer:.0f}" if layer >= 0 else name)
    return found


def read_heads(heads: pd.DataFrame) -> str:
    """How much all heads write, which most, and how much is not written by heads."""
    rows = shown(heads)
    by_head = rows[rows["part"] == "head"].dropna(subset=["share"])
    if by_head.empty:
        raise TableProblem("The heads table has no row of a head. `thoughtlens probe RUN` makes it.")
    top = highest(by_head, "share")
    others = ", ".join(f"{part} {theme.percent(float(some['share'].sum()))}" for part, some in rows.groupby("part", sort=False))
    clear = int(((by_head["low"] > 0) | (by_head["high"] < 0)).sum())
    return (
        f"Most is written by head {top['head']:.0f} of layer {top['layer']:.0f}: {theme.percent(top['share'])} of the difference "
        f"({top['difference']:.2f} [{top['low']:.2f} to {top['high']:.2f}], n = {top['n']:.0f}). By part: {others}. "
        f"The interval of {clear} of {len(by_head)} heads is clear of zero. "
        "What a part writes directly is not yet what it is good for; the ablation in the printed table tests that."
    )
