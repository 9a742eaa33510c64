"""Blind spots: by how much the reasoning tax of a category exceeds that of all others, with what marks a true one.

    excess = tax of the category − tax of the rest          95% interval; p after Holm's correction for the number of categories

Rows: `blind_spots`, channel answer, the first judge, threshold 4. An interval off zero marks no blind spot by itself: with ten categories
one of them often is; the corrected test does (p ≤ .05).
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import TableProblem, highest, prefer
from .dots import place, rule_rows
from .readings import UNSTEERED, bars, label, legend_room, marks, points, readings, with_reading

RING = "blind spot (p ≤ .05 after Holm)"
HOVER = (
    "<b>%{customdata[1]}</b> · %{customdata[2]}<br>excess %{customdata[3]}<br>tax %{customdata[4]}, of the rest %{customdata[5]}"
    "<br>p = %{customdata[6]} after Holm, %{customdata[7]} alone<br>n = %{customdata[8]} prompts of %{customdata[9]} goals<extra></extra>"
)


def tested(blind_spots: pd.DataFrame) -> pd.DataFrame:
    """The drawn rows; adds `reading` (with what it is compared to, where that differs) and `what` (category, of several benchmarks)."""
    if blind_spots.empty:
        raise TableProblem("The blind_spots table has no rows: that takes prompts of two categories. `thoughtlens collapse` makes it.")
    rows = prefer(prefer(blind_spots, "channel", "answer"), "judge")
    rows = with_reading(_at_threshold(rows))
    against = with_reading(rows[["against_model", "against_condition"]].set_axis(["model", "condition"], axis=1))["reading"]
    rows = rows.assign(against=against)
    if against.nunique() > 1:
        rows["reading"] += " against " + against
    several = rows["benchmark"].nunique() > 1
    return rows.assign(what=rows["category"] + " (" + rows["benchmark"] + ")" if several else rows["category"])


def _at_threshold(rows: pd.DataFrame) -> pd.DataFrame:
    """Threshold 4 where there is one; judges that know only safe and unsafe have none."""
    known = rows.dropna(subset=["threshold"])
    return prefer(known, "threshold", 4.0) if len(known) else rows


def excess_by_category(blind_spots: pd.DataFrame) -> go.Figure:
    """Dots per category, largest excess of the reasoning model on top. The first of customdata is the category as the table has it."""
    rows = tested(blind_spots)
    names, series, look = _order(rows), readings(rows), marks(rows)
    at = {name: index for index, name in enumerate(names)}
    first = rows.iloc[0]
    compared = f"against {first['against']} · " if rows["against"].nunique() == 1 else ""
    note = f"tax − tax of the rest · {compared}judge {first['judge']} · 95% intervals"
    legend = [*series, *([RING] if rows["blind"].any() else [])]
    figure = theme.figure("Blind spots", note, plot=max(34, 14 * len(series)) * len(names), above=legend_room(legend))
    for index, name in enumerate(series):
        mine = rows[rows["reading"] == name].sort_values("what", key=lambda column: column.map(at), kind="stable")
        figure.add_scatter(
            x=mine["excess"].tolist(),
            y=[at[what] + place(index, len(series)) for what in mine["what"]],
            error_x=bars(mine, look[name].color, value="excess", low="excess_low", high="excess_high"),
            mode="markers",
            marker={"color": look[name].color, "symbol": look[name].symbol, "size": 9},
            name=theme.plain(name),
            customdata=[_told(row) for _, row in mine.iterrows()],
            hovertemplate=HOVER,
        )
    _rings(figure, rows, at, series)
    rule_rows(figure, names)
    figure.update_yaxes(ticktext=[label(name) for name in names])
    reach = float(rows[["excess", "excess_low", "excess_high"]].abs().max().max())
    reach = 1.05 * min(1.0, max(0.1, 0.1 if math.isnan(reach) else reach))
    figure.update_xaxes(title_text="excess of the tax, points", range=[-reach, reach], tickvals=_ticks(reach))
    figure.update_xaxes(ticktext=[theme.signed(value) for value in _ticks(reach)])
    figure.add_vline(x=0, line={"width": 1.2, "color": theme.MARKS["random"].color}, layer="below")
    return figure.update_layout(showlegend=True)


def _order(rows: pd.DataFrame) -> list[str]:
    """By the excess of the model that is spoken of; categories that only others have come last."""
    spoken = rows[rows["reading"] == _spoken_of(rows)]
    first = spoken.sort_values("excess", ascending=False, kind="stable")["what"].tolist()
    return list(dict.fromkeys([*first, *rows["what"]]))


def _spoken_of(rows: pd.DataFrame) -> str:
    plain = rows[(rows["model"] == "reasoning") & (rows["condition"] == UNSTEERED)]
    return str((plain if len(plain) else rows)["reading"].iloc[0])


def _rings(figure: go.Figure, rows: pd.DataFrame, at: dict[str, int], series: list[str]) -> None:
    blind = rows[rows["blind"].astype(bool)]
    if blind.empty:
        return
    y = [at[row["what"]] + place(series.index(row["reading"]), len(series)) for _, row in blind.iterrows()]
    ring = {"symbol": "circle-open", "size": 18, "color": theme.MARKS["harmful"].color, "line": {"width": 2}}
    figure.add_scatter(x=blind["excess"].tolist(), y=y, mode="markers", marker=ring, name=RING, hoverinfo="skip", cliponaxis=False)


def _told(row: pd.Series) -> list[str]:
    excess = points(row["excess"], row["excess_low"], row["excess_high"])
    tax = [points(row["tax"], row["low"], row["high"]), theme.signed(row["rest"]) if not math.isnan(row["rest"]) else "–"]
    names = [str(row["category"]), theme.plain(row["what"]), theme.plain(row["reading"])]
    return [*names, excess, *tax, _p(row["p_holm"]), _p(row["p"]), theme.count(row["n"]), theme.count(row["groups"])]


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "1" if value >= 0.995 else "<.001" if value < 0.001 else f"{value:.2g}".removeprefix("0")


def _ticks(reach: float) -> list[float]:
    step = next(step for step in (0.05, 0.1, 0.25, 0.5) if 2 * reach / step <= 8 or step == 0.5)
    count = int(reach / step)
    return [round(step * index, 2) for index in range(-count, count + 1)]


def read_blind_spots(blind_spots: pd.DataFrame) -> str:
    """Which categories are blind spots by the corrected test; else the largest excess and that it is none."""
    rows = tested(blind_spots)
    return " ".join(_read(name, rows[rows["reading"] == name]) for name in readings(rows))


def _read(name: str, mine: pd.DataFrame) -> str:
    known = mine.dropna(subset=["excess"])
    if known.empty:
        return f"{name}: no category can be compared with the rest."
    blind = known[known["blind"].astype(bool)].sort_values("excess", ascending=False, kind="stable")
    if len(blind):
        return f"{name}: blind in {'; '.join(_spot(row) for _, row in blind.iterrows())}, of {len(mine)} categories tested."
    return f"{name}: none of {len(mine)} categories is a blind spot; the largest excess is {_spot(highest(known, 'excess'))}."


def _spot(row: pd.Series) -> str:
    excess = points(row["excess"], row["excess_low"], row["excess_high"])
    return f"{row['what']}, {excess} over the rest (p = {_p(row['p_holm'])} after Holm, n = {row['n']:.0f})"
