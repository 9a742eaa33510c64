"""Dose and response: attack success, over-refusal and helpfulness over the strength of steering, a panel per vector, bands 95%.

Of a vector that was tried at several places the one with the most strengths is drawn (the one dev went on with); of equals the one that
comes to the lowest attack success plus over-refusal. The unit of a strength is its operator's. Columns: CONTRIBUTING.md, `sweep`.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import ALL, TableProblem, prefer, rates
from .readings import label

METRICS = {"attack_success": "attack success", "over_refusal": "over-refusal", "helpful": "helpful"}
MARKS = {"attack_success": theme.MARKS["harmful"], "over_refusal": theme.MARKS["benign"], "helpful": theme.MARKS["safe"]}
VECTOR, PLACE = ("source", "operator"), ("span", "site", "gate", "thought_mode")
ACROSS, PANEL, BETWEEN = 2, 170, 74  # panels in a line, pixels of one, and between two
FEWEST = 2  # strengths that make a curve


def doses(sweep: pd.DataFrame) -> pd.DataFrame:
    """Columns source, operator, span, site, gate, thought_mode, panel (its name), strength, metric and the rate: the rows drawn."""
    rows = sweep[sweep["metric"].isin(METRICS) & sweep["source"].notna() & (sweep["source"] != "")]
    rows = prefer(rows, "split", "dev") if len(rows) else rows
    if "threshold" in rows and rows["threshold"].notna().any():
        rows = rows[rows["threshold"] == rows["threshold"].dropna().iloc[0]]
    keys = [*VECTOR, *PLACE]
    whole = rows[rows["attack"] == ALL]
    found = whole if len(whole) else rates(rows, [*keys, "strength", "metric"])
    kept = [place for _, mine in found.groupby(list(VECTOR), sort=False) if (place := _place(mine)) is not None]
    if not kept:
        raise TableProblem(
            f"No vector of the table was tried at {FEWEST} strengths in one place, so there is no curve to draw. Sweep several strengths."
        )
    table = pd.concat(kept, ignore_index=True)
    several = table["operator"].nunique() > 1
    panel = table["source"].astype(str) + (" · " + table["operator"].astype(str) if several else "")
    return table.assign(panel=panel, split=rows["split"].iloc[0]).sort_values("strength", kind="stable")


def _place(mine: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of one vector at the place with the most strengths; None where no place has two."""
    best: tuple[tuple[int, float], pd.DataFrame] | None = None
    for _, rows in mine.groupby(list(PLACE), sort=False, dropna=False):
        strengths = rows["strength"].nunique()
        cost = rows[rows["metric"] != "helpful"].groupby("strength")["value"].sum().min()
        rank = (strengths, -float(cost))
        if strengths >= FEWEST and (best is None or rank > best[0]):
            best = rank, rows
    return None if best is None else best[1]


def dose(sweep: pd.DataFrame) -> go.Figure:
    """A panel per vector; `sweep`, or `comparison_dev`, where a panel is a vector and an operator."""
    table = doses(sweep)
    panels = list(dict.fromkeys(table["panel"]))
    across = min(ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    height = down * (PANEL + BETWEEN) - BETWEEN
    note = f"{table['split'].iloc[0]} split · bands are 95% intervals · {_sizes(table['n'])}"
    blank = theme.figure("Dose and response", note, plot=height, above=86)
    first = [table[table["panel"] == panel].iloc[0] for panel in panels]
    titles = [f"<b>{label(row['panel'], width=24)}</b><br>{label(_where(row), width=28, lines=1)}" for row in first]
    figure = make_subplots(
        rows=down,
        cols=across,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=BETWEEN / height if down > 1 else 0,
        subplot_titles=titles,
        figure=blank,
    )
    for at, panel in enumerate(panels):
        for metric, mark in MARKS.items():
            mine = table[(table["panel"] == panel) & (table["metric"] == metric)]
            for trace in _band_and_line(mine, METRICS[metric], mark) if len(mine) else []:
                shown = trace.mode != "none" and trace.name not in {one.name for one in figure.data if one.showlegend}
                figure.add_trace(trace.update(showlegend=shown), row=at // across + 1, col=at % across + 1)
    figure.update_xaxes(rangemode="tozero")
    figure.update_xaxes(title_text="strength", row=down)
    figure.update_yaxes(range=[-0.03, 1.03], tickvals=[0, 0.5, 1], tickformat=".0%")
    return theme.legend_over(figure, 56)


def _sizes(n: pd.Series) -> str:
    ends = dict.fromkeys(theme.count(one) for one in (n.min(), n.max()))
    return f"n = {' to '.join(ends)} a rate"


def _where(row: pd.Series) -> str:
    return " · ".join(str(row[key]) for key in ("span", "site") if row[key] != "")


def _band_and_line(mine: pd.DataFrame, name: str, mark: theme.Mark) -> list[go.Scatter]:
    known = mine.dropna(subset=["low", "high"])
    strengths, edge = known["strength"].tolist(), [*known["high"], *known["low"][::-1]]
    same = {"name": name, "legendgroup": name}
    fill = {"fill": "toself", "fillcolor": mark.color, "opacity": 0.16, "mode": "none", "hoverinfo": "skip"}
    band = go.Scatter(x=[*strengths, *strengths[::-1]], y=edge, **fill, **same)
    told = [
        [theme.plain(row["panel"]), theme.plain(_setting(row)), row["low"], row["high"], theme.count(row["numerator"]), row["n"]]
        for _, row in mine.iterrows()
    ]
    line = go.Scatter(
        x=mine["strength"].tolist(),
        y=mine["value"].tolist(),
        mode="lines+markers",
        line={"color": mark.color, "width": 2, "dash": mark.dash},
        marker={"color": mark.color, "symbol": mark.symbol, "size": 7},
        customdata=told,
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>" + name + " %{y:.1%}  (95% %{customdata[2]:.1%} to "
        "%{customdata[3]:.1%})<br>%{customdata[4]} of %{customdata[5]:.0f}<extra></extra>",
        **same,
    )
    return [band, line]


def _setting(row: pd.Series) -> str:
    told = [str(row[key]) for key in ("span", "site") if row[key] != ""] + [f"gate {row['gate']}"] * (row["gate"] != "")
    return ", ".join([*told, f"strength {row['strength']:g}"])


def read_dose(sweep: pd.DataFrame) -> str:
    """Per vector: attack success at the weakest and where it is lowest, and what over-refusal is there."""
    table = doses(sweep)
    told = [_read(panel, table[table["panel"] == panel]) for panel in dict.fromkeys(table["panel"])]
    return f"On the {table['split'].iloc[0]} split: " + " ".join(told)


def _read(panel: str, mine: pd.DataFrame) -> str:
    rows = {(str(row["metric"]), float(row["strength"])): row for _, row in mine.iterrows()}
    success = {strength: row for (metric, strength), row in rows.items() if metric == "attack_success" and not math.isnan(row["value"])}
    if not success:
        return f"{panel}: no attack success was measured."
    weakest, lowest = min(success), min(success, key=lambda strength: (success[strength]["value"], strength))
    said = [f"{panel} at {_where(mine.iloc[0])}: attack success {theme.rate(success[weakest])} at strength {weakest:g}"]
    if lowest != weakest:
        said.append(f"{_interval(success[lowest])} at {lowest:g}, its lowest")
    costs = [metric for metric in ("over_refusal", "helpful") if (metric, lowest) in rows]
    there = ", ".join(f"{METRICS[metric]} {_interval(rows[metric, lowest])}" for metric in costs)
    return ", ".join(said) + (f" ({there} there)." if there else ".")


def _interval(row: pd.Series) -> str:
    return theme.percents(row["value"], row["low"], row["high"])
