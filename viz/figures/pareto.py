"""Attack success against over-refusal: every setting tried on dev, the front of the best, and what was measured on test beside it.

Rows and front: trade.py. The front of many settings on few prompts is told too well, since the luckiest are on it; what it comes to is told
by the test split: large marks with 95% intervals both ways. Directions of equal norm that mean nothing are a faint cloud. Lower left is
better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import RATE
from .labels import beside_marks, wrapped_room
from .readings import bars
from .trade import AXES, BASELINES, CONTROLS, SETTING, broken, front, sides, ways

By = Literal["operator", "gate", "thought_mode", "span", "source", "site"]
VARYING: tuple[By, ...] = ("operator", "gate", "source", "span", "site")
NO_EDIT = "no edit"
BARRED = 40  # settings, up to which each is drawn with its intervals; of more only the front
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]} split%{customdata[8]}"
    "<br>attack success %{y:.1%}  (95% %{customdata[5]:.1%} to %{customdata[6]:.1%}), n = %{customdata[7]:.0f}"
    "<br>over-refusal %{x:.1%}  (95% %{customdata[2]:.1%} to %{customdata[3]:.1%}), n = %{customdata[4]:.0f}%{customdata[9]}<extra></extra>"
)


def pareto(tried: pd.DataFrame, measured: pd.DataFrame | None = None, *, by: By | None = None) -> go.Figure:
    """`tried`: `sweep` or `comparison_dev`; `measured`: `restoration` or `comparison`. All have the columns of `restoration`.

    by    what colours the settings; left out: operator, gate or source, the first of them that varies

    A table of the test split alone is drawn as measured, with the front of its own ways.
    """
    both, test = sides(tried, measured)
    shown = pd.concat([both, test], ignore_index=True)
    by = _varying(shown) if by is None else by
    look = _looks(ways(shown), by)
    names = [*map(_named, look), "front", *(f"{name} (20)" for name in CONTROLS.values())]
    figure = theme.figure("Attack success against over-refusal", _note(both, test), plot=420, above=wrapped_room(names))
    best = front(both if len(both) else ways(test))
    inside = pd.concat([best, test])
    ends = {axis: _end(inside if len(inside) else both, axis) for axis in AXES}
    _clouds(figure, test)
    for name, mark in look.items():
        figure.add_trace(_key(_named(name), mark))
        _settings(figure, both[both[by] == name], best, mark, _named(name), barred=len(both) <= BARRED)
    _step(figure, best)
    _measured(figure, test, look, by, ends["y"])
    _axes(figure, ends, shown)
    return figure


def _note(both: pd.DataFrame, test: pd.DataFrame) -> str:
    told = []
    if len(both):
        told.append(f"small: {len(both)} settings on {both['split'].iloc[0]}, n = {both['y_n'].median():.0f} + {both['x_n'].median():.0f}")
    if len(test):
        told.append(f"large: {test['split'].iloc[0]}, 95% intervals")
    told.append("open: helps fewer than half")
    without = sum(side.attrs.get("without", 0) for side in (both, test) if len(side))
    return " · ".join([*told, *([f"{without} without both rates"] if without else [])])


def _varying(both: pd.DataFrame) -> By:
    return next((key for key in VARYING if key in both and both.loc[both[key] != "", key].nunique() > 1), "operator")


def _named(value: object) -> str:
    return NO_EDIT if value == "" else str(value) if len(str(value)) <= 32 else f"{str(value)[:31]}…"


def _looks(shown: pd.DataFrame, by: str) -> dict[object, theme.Mark]:
    there = sorted(dict.fromkeys(shown[by]), key=lambda value: value == "")
    return {value: theme.variant(theme.OTHERS[at % len(theme.OTHERS)], at // len(theme.OTHERS)) for at, value in enumerate(there)}


def _key(name: str, mark: theme.Mark) -> go.Scatter:
    """What stands in the legend: the settings themselves are faint."""
    look = {"color": mark.color, "symbol": mark.symbol.removesuffix("-open"), "size": 9, "line": {"width": 1.2, "color": mark.color}}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=look, name=theme.plain(name), legendgroup=name)


def _settings(figure: go.Figure, mine: pd.DataFrame, best: pd.DataFrame, mark: theme.Mark, name: str, *, barred: bool) -> None:
    on = mine.index.isin(best.index)
    for rows, opacity in ((mine[~on], 0.4), (mine[on], 1.0)):
        if len(rows):
            figure.add_trace(_marks(rows, mark, name, size=6, opacity=opacity, barred=barred or opacity == 1))


def _marks(rows: pd.DataFrame, mark: theme.Mark, name: str, *, size: int, opacity: float, barred: bool) -> go.Scatter:
    errors = {f"error_{axis}": bars(_of(rows, axis), mark.color) | {"thickness": 1.2} for axis in AXES} if barred else {}
    symbols = [f"{mark.symbol.removesuffix('-open')}{'-open' if empty else ''}" for empty in broken(rows)]
    return go.Scatter(
        x=rows["x_value"].tolist(),
        y=rows["y_value"].tolist(),
        **errors,
        mode="markers",
        opacity=opacity,
        marker={"color": mark.color, "symbol": symbols, "size": size, "line": {"width": 1.2, "color": mark.color}},
        name=theme.plain(name),
        legendgroup=name,
        showlegend=False,
        cliponaxis=False,
        customdata=[_told(row) for _, row in rows.iterrows()],
        hovertemplate=HOVER,
    )


def _of(rows: pd.DataFrame, axis: str) -> pd.DataFrame:
    return rows.rename(columns={f"{axis}_{column}": column for column in RATE})


def _told(row: pd.Series) -> list[object]:
    numbers = [row[f"{axis}_{column}"] for axis in AXES for column in ("low", "high", "n")]
    setting = [f"{key.replace('_', ' ')} {row[key]}" for key in SETTING if key in row and row[key] != ""]
    lines = "".join(f"<br>{theme.plain(', '.join(part))}" for part in (setting[:3], setting[3:]) if part)
    helped = "" if pd.isna(row["helpful"]) else f"<br>helpful {theme.percent(row['helpful'])}"
    return [theme.plain(row["condition"]), theme.plain(row["split"]), *numbers, lines, helped]


def _step(figure: go.Figure, best: pd.DataFrame) -> None:
    """Right of and above this line a setting is beaten by one on it."""
    if best.empty:
        return
    x, y = best["x_value"].tolist(), best["y_value"].tolist()
    look = {"color": theme.MARKS["random"].color, "width": 1.6, "shape": "hv"}
    figure.add_scatter(x=[x[0], *x, 1.1], y=[1.1, *y, y[-1]], mode="lines", line=look, name="front", hoverinfo="skip")


def _clouds(figure: go.Figure, test: pd.DataFrame) -> None:
    for control, name in CONTROLS.items():
        rows, mark = test[test["kind"] == control], theme.MARKS[control]
        if len(rows):
            figure.add_trace(_key(f"{name} ({len(rows)})", mark))
            figure.add_trace(_marks(rows, mark, f"{name} ({len(rows)})", size=8, opacity=0.45, barred=True))


def _measured(figure: go.Figure, test: pd.DataFrame, look: Mapping[object, theme.Mark], by: str, top: float) -> None:
    """Ways in the colour of `by`; the models as they are and the chosen setting in their own, with their names beside."""
    others = test[~test["kind"].isin([*CONTROLS, *BASELINES])]
    for value, mark in look.items():
        rows = others[others[by] == value]
        if len(rows):
            figure.add_trace(_marks(rows, mark, _named(value), size=11, opacity=1.0, barred=True))
    named = [test[test["condition"] == name] for name in BASELINES]
    for name, rows in zip(BASELINES, named, strict=True):
        if len(rows):
            figure.add_trace(_marks(rows, theme.mark(name), name, size=13, opacity=1.0, barred=True))
    told = pd.concat(named)
    beside_marks(figure, told["condition"].tolist(), told["x_value"].tolist(), told["y_value"].tolist(), bottom=-0.1 * top, top=top)


def _end(shown: pd.DataFrame, axis: str) -> float:
    """Where an axis ends: a little beyond the longest interval."""
    longest = shown[f"{axis}_high"].fillna(shown[f"{axis}_value"]).max()
    return min(1.04, max(0.2, 1.1 * float(longest if pd.notna(longest) else 0)))


def _axes(figure: go.Figure, ends: Mapping[str, float], shown: pd.DataFrame) -> None:
    right, top = ends["x"], ends["y"]
    figure.update_xaxes(title_text="over-refusal (harmless prompts refused)", range=[-0.03 * right, right], tickformat=".0%")
    figure.update_yaxes(title_text="attack success", range=[-0.1 * top, top], tickformat=".0%", tick0=0)
    figure.add_annotation(x=0, y=0, yshift=-16, text="◎ better: refuses harm, answers the rest", xanchor="left")
    beyond = int(((shown["x_value"] > right) | (shown["y_value"] > top)).sum())
    if beyond:
        text = f"{beyond} more further out →"
        figure.add_annotation(x=1, xref="paper", y=1, yref="paper", yshift=-8, xanchor="right", yanchor="top", text=text)
