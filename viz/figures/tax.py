"""The reasoning tax: how much more often the reasoning model gives an unsafe answer than its base, on the same prompts.

    tax = attack success of the reasoning model − attack success of the base model

Rows: success.py; both models as they are, without steering. Where the table has `tax_difference` (paired, as experiments compute it) that
interval is used; else Newcombe's from the two rates. Steered models stand beside, as dots of their own.
Which category is a *blind spot* takes a test of its own (blindspots.py), which no figure of single intervals replaces.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import ALL, difference, one_judge
from .dots import add_series, place, rule_percent, rule_rows
from .readings import UNSTEERED, label, legend_room, marks, points, readings
from .success import by_model, judged, note

WHOLE = "all categories"
RIGHT = 1.17  # where the column of taxes ends


class Tax(NamedTuple):
    value: float
    low: float
    high: float
    n: int


def tax_by_category(collapse: pd.DataFrame) -> go.Figure:
    """Dots per harm category: base to reasoning, safe, what was steered; largest tax on top. Columns: CONTRIBUTING.md, `collapse`."""
    rows = judged(collapse)
    rated = by_model(rows, "category")
    table = rated.replace({"category": {ALL: WHOLE}})
    taxes = {WHOLE if name == ALL else name: tax for name, tax in _taxes(collapse, rows, rated, "category").items()}
    names, series, look = _order(table, taxes), readings(table), marks(table)
    title_of_column = 18 if taxes else 0
    above = legend_room(series) + title_of_column
    figure = theme.figure("Attack success by harm category", note(collapse), plot=max(44, 14 * len(series)) * len(names), above=above)
    _joined(figure, table, names, series)
    for index, reading in enumerate(series):
        mine, shift = table[table["reading"] == reading], place(index, len(series))
        add_series(figure, mine, rows=names, key="category", name=reading, mark=look[reading], shift=shift)
    _printed(figure, taxes, names)
    rule_rows(figure, names, whole=WHOLE)
    figure.update_yaxes(ticktext=[f"<b>{name}</b>" if name == WHOLE else label(name) for name in names])
    rule_percent(figure, "attack success (answer), 95% intervals", upper=RIGHT + 0.03 if taxes else 1.02)
    return theme.legend_over(figure, title_of_column).update_layout(showlegend=True)


def taxes_by(collapse: pd.DataFrame, key: str) -> dict[str, Tax]:
    """Tax per value of `key` and for `all`; empty unless both base and reasoning are there."""
    rows = judged(collapse)
    return _taxes(collapse, rows, by_model(rows, key), key)


def _taxes(collapse: pd.DataFrame, rows: pd.DataFrame, table: pd.DataFrame, key: str) -> dict[str, Tax]:
    paired = _paired_taxes(collapse, key, rows.iloc[[0]])
    taxes = {}
    for value, group in table[table["condition"] == UNSTEERED].groupby(key, sort=False):
        two = {str(row["model"]): row for _, row in group.iterrows()}
        if {"base", "reasoning"} <= set(two):
            after, before = two["reasoning"], two["base"]
            taxes[str(value)] = Tax(*paired.get(str(value), difference(after, before)), int(after["n"]))
    return taxes


def _paired_taxes(collapse: pd.DataFrame, key: str, first: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """`tax_difference` of the reasoning model by the judge of the rates, where the table has exactly the row asked for."""
    if ((collapse["metric"] == "tax_difference") & (collapse["model"] == "base")).any():
        return {}  # every model but the reference has such rows: these are taxes against another model
    told = {"metric": "tax_difference", "channel": "answer", "model": "reasoning", "condition": UNSTEERED}
    rows = collapse.loc[(collapse[list(told)] == pd.Series(told)).all(axis=1)]
    rows = one_judge(pd.concat([first, rows])).iloc[1:]
    for other in sorted({"benchmark", "attack", "category"} - {key}):
        rows = rows[(rows[other] == ALL) | (rows[other].nunique() == 1)]
    once = rows[~rows[key].duplicated(keep=False)]
    return {str(row[key]): (float(row["value"]), float(row["low"]), float(row["high"])) for _, row in once.iterrows()}


def _order(table: pd.DataFrame, taxes: dict[str, Tax]) -> list[str]:
    """The whole first, then the largest tax; after those the categories without one, the largest rate first."""
    worst = table.groupby("category")["value"].max().fillna(-1.0)
    known = {name: tax.value for name, tax in taxes.items() if not math.isnan(tax.value)}
    names = [str(name) for name in dict.fromkeys(table["category"]) if name != WHOLE]
    return [WHOLE, *sorted(names, key=lambda name: known.get(name, worst[name] - 3), reverse=True)]


def _joined(figure: go.Figure, table: pd.DataFrame, names: list[str], series: list[str]) -> None:
    """A thin line from base to reasoning in every row."""
    if not {"base", "reasoning"} <= set(series):
        return
    value = table.set_index(["category", "reading"])["value"]
    x: list[float | None] = []
    y: list[float | None] = []
    for index, name in enumerate(names):
        if (name, "base") in value.index and (name, "reasoning") in value.index:
            x += [value[name, "base"], value[name, "reasoning"], None]
            y += [index + place(series.index(model), len(series)) for model in ("base", "reasoning")] + [None]
    line = {"color": theme.MARKS["random"].color, "width": 1}
    figure.add_scatter(x=x, y=y, mode="lines", line=line, opacity=0.6, hoverinfo="skip", showlegend=False)


def _printed(figure: go.Figure, taxes: dict[str, Tax], names: list[str]) -> None:
    """The tax itself, in points, in a column at the right."""
    there = [name for name in names if name in taxes and not math.isnan(taxes[name].value)]
    if not there:
        return
    figure.add_scatter(
        x=[RIGHT] * len(there),
        y=[names.index(name) for name in there],
        mode="text",
        text=[theme.signed(taxes[name].value) for name in there],
        textposition="middle left",
        customdata=[[theme.plain(name), points(*taxes[name][:3]), taxes[name].n] for name in there],
        hovertemplate="<b>%{customdata[0]}</b><br>tax %{customdata[1]}<br>n = %{customdata[2]}<extra></extra>",
        name="tax",
        showlegend=False,
    )
    figure.add_annotation(x=RIGHT, y=1, yref="paper", xanchor="right", yanchor="bottom", text="tax, points")


def read_tax(collapse: pd.DataFrame) -> str:
    """The figure in words: the tax over all, what the safe model does and what steering does, which categories stand out."""
    rows = judged(collapse)
    table = by_model(rows, "category")
    whole = table[table["category"] == ALL].set_index("reading")
    told = f"Unsafe answers among harmful prompts: {_each(whole.loc[readings(table)])}. "
    taxes = _taxes(collapse, rows, table, "category")
    if ALL not in taxes:
        return told + "Without both a base and a reasoning model there is no tax to compute."
    return told + _overall(taxes[ALL]) + _spots({name: tax for name, tax in taxes.items() if name != ALL})


def _each(whole: pd.DataFrame) -> str:
    if whole["n"].nunique() > 1:
        return ", ".join(f"{reading} {theme.rate(row)}" for reading, row in whole.iterrows())
    said = ", ".join(f"{reading} {theme.percents(row['value'], row['low'], row['high'])}" for reading, row in whole.iterrows())
    return f"{said}, n = {whole['n'].iloc[0]:.0f} each"


def _overall(tax: Tax) -> str:
    if math.isnan(tax.low + tax.high):
        verdict = ", without an interval. "
    elif tax.low <= 0 <= tax.high:
        verdict = ": its interval holds zero, so this run shows no collapse. "
    elif tax.high < 0:
        verdict = ": here reasoning made the model safer. "
    else:
        verdict = ". "
    return f"The reasoning tax is {points(*tax[:3])}{verdict}"


def _spots(taxes: dict[str, Tax]) -> str:
    """The largest tax; never whether it stands out from the rest, which takes a test (`blind_spots`)."""
    taxes = {name: tax for name, tax in taxes.items() if not math.isnan(tax.value)}
    if len(taxes) < 2:
        return ""
    said = {name: f"{name} ({points(*tax[:3])}, n = {tax.n})" for name, tax in taxes.items()}
    by_size = sorted(taxes, key=lambda name: taxes[name].value, reverse=True)
    return (
        f"Of {len(taxes)} categories the largest is {said[by_size[0]]}, the smallest {said[by_size[-1]]}. "
        "Whether one is a blind spot takes a test that is corrected for how many there are: `thoughtlens collapse` makes it."
    )
