"""Which wrapping opens which model: attack success as a heatmap, attack × model (and condition), with the rate and n in every cell.

Rows: success.py. The first line is all attacks together; below, the attack that opens the reasoning model most comes first.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import ALL, TableProblem
from .readings import label, readings
from .success import by_model, judged, note

WHOLE = "all attacks"
ROOMY = 6  # more columns leave no room for n in a cell: it is in the hover
HOVER = (
    "<b>%{customdata[1]}</b> · %{customdata[2]}<br>%{z:.1%}  (95% interval %{customdata[3]})"
    "<br>%{customdata[4]} of %{customdata[5]}<extra></extra>"
)


def attack_success_by_attack(collapse: pd.DataFrame) -> go.Figure:
    """Heatmap attack × reading; customdata begins with the attack as the table has it. Columns: CONTRIBUTING.md, `collapse`."""
    table = by_model(judged(collapse), "attack")
    columns, names = readings(table), _order(table)
    figure = theme.figure("Attack success by attack", note(collapse), plot=40 * len(names) + 40, above=12)
    cells = {(row["attack"], row["reading"]): row for _, row in table.iterrows() if not math.isnan(row["value"])}
    grid = [[cells.get((name, column)) for column in columns] for name in names]
    roomy = len(columns) <= ROOMY
    figure.add_heatmap(
        z=[[None if cell is None else float(cell["value"]) for cell in line] for line in grid],
        x=list(range(len(columns))),
        y=list(range(len(names))),
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        text=[[_printed(cell, roomy) for cell in line] for line in grid],
        texttemplate="%{text}",
        textfont={"size": 11},
        customdata=[[_told(name, column, cells.get((name, column))) for column in columns] for name in names],
        hovertemplate=HOVER,
        hoverongaps=False,
    )
    across = [label(column, width=20, lines=1) for column in columns]
    figure.update_xaxes(showgrid=False, ticks="", tickangle=-40, tickvals=list(range(len(columns))), ticktext=across)
    labels = [f"<b>{WHOLE}</b>" if name == ALL else label(name, width=18) for name in names]
    figure.update_yaxes(showgrid=False, ticks="", tickvals=list(range(len(names))), ticktext=labels, range=[len(names) - 0.5, -0.5])
    bar = {"title": {"text": "success"}, "tickformat": ".0%", "tickvals": [0, 0.5, 1], "len": 0.8}
    return figure.update_layout(coloraxis={"cmin": 0, "cmax": 1, "colorbar": bar})


def _order(table: pd.DataFrame) -> list[str]:
    """All attacks first, then by the attack success of the model that is spoken of, then by the highest of any."""
    spoken = table[table["reading"] == _spoken_of(table)].set_index("attack")["value"].fillna(-1.0).to_dict()
    worst = table.groupby("attack")["value"].max().fillna(-1.0).to_dict()
    names = [str(name) for name in dict.fromkeys(table["attack"]) if name != ALL]
    return [ALL, *sorted(names, key=lambda name: (spoken.get(name, -1.0), worst[name]), reverse=True)]


def _spoken_of(table: pd.DataFrame) -> str:
    there = readings(table)
    return "reasoning" if "reasoning" in there else there[0]


def _printed(cell: pd.Series | None, roomy: bool) -> str:
    if cell is None:
        return ""
    return theme.percent(cell["value"]) + (f"<br>n = {cell['n']:.0f}" if roomy else "")


def _told(attack: str, reading: str, cell: pd.Series | None) -> list[str]:
    names = [attack, WHOLE if attack == ALL else theme.plain(attack), theme.plain(reading)]
    if cell is None:
        return [*names, "–", "–", "–"]
    interval = "–" if math.isnan(cell["low"] + cell["high"]) else f"{cell['low']:.1%} to {cell['high']:.1%}"
    return [*names, interval, theme.count(cell["numerator"]), theme.count(cell["n"])]


def read_attacks(collapse: pd.DataFrame) -> str:
    """The attacks in words: which wrapping opens the reasoning model most and least."""
    table = by_model(judged(collapse), "attack")
    model = _spoken_of(table)
    mine = table[(table["reading"] == model) & (table["attack"] != ALL)].dropna(subset=["value"]).sort_values("value", kind="stable")
    if mine.empty:
        raise TableProblem("The collapse table has no rows by attack; `thoughtlens demo` writes one per attack.")
    least, most = mine.iloc[0], mine.iloc[-1]
    if len(mine) == 1:
        return f"There is one attack in this run, {most['attack']}: {theme.rate(most)} for the {model} model."
    told = f"The {model} model is most open to {most['attack']} ({theme.rate(most)}) and least to {least['attack']} ({theme.rate(least)}); "
    if most["low"] > least["high"]:
        return told + "their intervals are apart, so the wrapping matters."
    return told + "their intervals overlap, so this run does not show that the wrapping matters."
