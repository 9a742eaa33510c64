"""The cliff: how far the readout falls at the end of the thought, harmful against benign prompts.

    drop = mean readout over thought@0.5 … thought@0.9 − readout of the last moment

Yin et al. 2025, "Refusal falls off a cliff: how safety alignment fails in reasoning?" (arXiv 2510.06036). Probes of two models have units
of their own, so drops are drawn in standard deviations of the plateau among prompts of one side (`scale`). The cliff is the difference:
what harmful thoughts fall beyond benign ones, since any thought may end in words that read otherwise. Intervals are of the table, over
goals.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import TableProblem, prefer
from .dots import place, rule_rows
from .labels import wrapped_room
from .readings import bars, label, readings, with_reading

SIDES = {"harmful": theme.MARKS["harmful"], "benign": theme.MARKS["benign"], "difference": theme.MARKS["steered"]}
NAMES = {"harmful": "harmful", "benign": "benign", "difference": "harmful beyond benign"}
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]}<br>drop %{customdata[2]:.3g}  (95% interval %{customdata[3]:.3g} to %{customdata[4]:.3g})"
    "<br>plateau %{customdata[5]:.3g}, end %{customdata[6]:.3g}, one sd %{customdata[7]:.3g}"
    "<br>n = %{customdata[8]:.0f}, %{customdata[9]} left out<extra></extra>"
)


def drops(cliff: pd.DataFrame) -> pd.DataFrame:
    """The test rows with `reading`, and value, low, high in standard deviations of the plateau."""
    rows = cliff[cliff["side"].isin(SIDES) & cliff["drop"].notna()]
    if rows.empty:
        raise TableProblem("The cliff table tells of no thought with a plateau and an end. `thoughtlens probe RUN` makes it.")
    rows = with_reading(prefer(rows, "split", "test"))
    one = (rows["scale"].where(rows["scale"] > 0) if "scale" in rows else pd.Series(1.0, rows.index)).fillna(1.0)
    raw = rows.assign(one=one, value=rows["drop"], raw_low=rows["low"], raw_high=rows["high"])
    return raw.assign(**{name: raw[name] / one for name in ("value", "low", "high")})


def cliff_by_model(cliff: pd.DataFrame) -> go.Figure:
    """A row per model and condition, a dot per side. Columns: CONTRIBUTING.md, `cliff`."""
    table = drops(cliff)
    names = readings(table)
    note, room = f"{table['split'].iloc[0]} split · right of 0 it falls · 95% intervals", wrapped_room([*NAMES.values()])
    figure = theme.figure("The fall of the readout at the end of the thought", note, plot=max(130, 66 * len(names)), above=room)
    at = {name: index for index, name in enumerate(names)}
    for index, (side, mark) in enumerate(SIDES.items()):
        mine = table[table["side"] == side]
        if len(mine):
            figure.add_trace(_dots(mine, at, side, mark, place(index, len(SIDES))))
    rule_rows(figure, names)
    figure.update_yaxes(ticktext=[label(name) for name in names])
    zero = {"zeroline": True, "zerolinewidth": 1.4, "zerolinecolor": theme.MARKS["random"].color}
    return figure.update_xaxes(title_text="drop, in sd of the plateau", **zero)


def _dots(mine: pd.DataFrame, at: dict[str, int], side: str, mark: theme.Mark, shift: float) -> go.Scatter:
    raw = ["drop", "raw_low", "raw_high", "plateau", "end", "one", "n"]
    told = [
        [theme.plain(row["reading"]), NAMES[side], *(row[name] for name in raw), theme.count(row.get("left_out", float("nan")))]
        for _, row in mine.iterrows()
    ]
    return go.Scatter(
        x=mine["value"].tolist(),
        y=[at[name] + shift for name in mine["reading"]],
        error_x=bars(mine, mark.color),
        mode="markers",
        marker={"color": mark.color, "symbol": mark.symbol, "size": 10},
        name=NAMES[side],
        customdata=told,
        hovertemplate=HOVER,
    )


def read_cliff(cliff: pd.DataFrame) -> str:
    """Per model: from where to where harmful thoughts go, and whether they fall more than benign ones do."""
    table = drops(cliff)
    told = {name: {str(row["side"]): row for _, row in table[table["reading"] == name].iterrows()} for name in readings(table)}
    return " ".join(_read(name, sides) for name, sides in told.items())


def _read(name: str, mine: Mapping[str, pd.Series]) -> str:
    told = f"In the {name} model"
    if "harmful" in mine:
        row = mine["harmful"]
        told += f" the readout of harmful thoughts goes from {_number(row['plateau'])} to {_number(row['end'])} at the end"
        told += f" (drop {_drop(row)}, n = {row['n']:.0f})"
    if "difference" not in mine:
        return f"{told}; benign thoughts were not measured." if "harmful" in mine else f"{told} no harmful thought was measured."
    row = mine["difference"]
    shown = "a cliff" if row["low"] > 0 else "they fall less than benign ones" if row["high"] < 0 else "no cliff is shown"
    return f"{told}; beyond benign ones it drops by {_drop(row)}: {shown}."


def _drop(row: pd.Series) -> str:
    return f"{_number(row['drop'])} [{_number(row['raw_low'])} to {_number(row['raw_high'])}]"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
