"""Rows of dots: one named row per thing, one dot per series in it, every dot with its 95% interval and its n in the hover."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from .. import theme

SPREAD = 0.56
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]}<br>%{x:.1%}  (95% interval %{customdata[2]:.1%} to %{customdata[3]:.1%})"
    "<br>%{customdata[4]} of %{customdata[5]}<extra></extra>"
)


def place(index: int, of: int) -> float:
    """How far from the middle of its row the series sits; the first is highest."""
    return 0.0 if of < 2 else SPREAD * (index / (of - 1) - 0.5)


def add_series(
    figure: go.Figure, table: pd.DataFrame, *, rows: Sequence[str], key: str, name: str, mark: theme.Mark, shift: float, **look: object
) -> None:
    """One trace: the rows of `table` (columns `key`, value, low, high, numerator, n) in the order of `rows`."""
    at = {row: index for index, row in enumerate(rows)}
    table = table[table[key].isin(at)].sort_values(key, key=lambda column: column.map(at), kind="stable")
    told = [
        [theme.plain(row[key]), theme.plain(name), row["low"], row["high"], theme.count(row["numerator"]), theme.count(row["n"])]
        for _, row in table.iterrows()
    ]
    figure.add_scatter(
        x=table["value"].tolist(),
        y=[at[row] + shift for row in table[key]],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (table["high"] - table["value"]).tolist(),
            "arrayminus": (table["value"] - table["low"]).tolist(),
            "thickness": 1.6,
            "width": 0,
            "color": mark.color,
        },
        mode="markers",
        marker={"color": mark.color, "symbol": mark.symbol, "size": 9, "line": {"width": 1.6, "color": mark.color}},
        name=theme.plain(name),
        customdata=told,
        hovertemplate=HOVER,
    )
    figure.data[-1].update(**look)


def rule_rows(figure: go.Figure, rows: Sequence[str], *, whole: str | None = None) -> None:
    """Names at the left, first row on top; `whole` (the row for all) stands out and is set apart."""
    names = [f"<b>{theme.plain(row)}</b>" if row == whole else theme.plain(row) for row in rows]
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=names, range=[len(rows) - 0.45, -0.55], showgrid=False, ticks="")
    for index in range(1, len(rows)):
        after_whole = whole is not None and rows[index - 1] == whole
        figure.add_shape(
            type="line",
            xref="paper",
            x0=0,
            x1=1,
            y0=index - 0.5,
            y1=index - 0.5,
            line={"width": 1.2 if after_whole else 0.4},
            layer="below",
        )


def rule_percent(figure: go.Figure, title: str, *, upper: float = 1.02) -> None:
    figure.update_xaxes(range=[-0.02, upper], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1], title_text=title)
