"""The reasoning tax: how much more often the reasoning model gives an unsafe answer than its base, on the same prompts.

    tax = attack success of the reasoning model − attack success of the base model

Rows: `collapse`, metric attack_success, channel answer, condition unsteered, one judge at one threshold. Where the table has
`tax_difference` (paired, as experiments compute it) that interval is used; else Newcombe's from the two rates.
Which category is a *blind spot* takes a test of its own (table `blind_spots`), which no figure of single intervals replaces.
"""

from __future__ import annotations

from numbers import Real
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import ALL, TableProblem, beside, difference, one_judge, rates, where
from .dots import add_series, place, rule_percent, rule_rows


class Tax(NamedTuple):
    value: float
    low: float
    high: float
    n: int


def answers(collapse: pd.DataFrame) -> pd.DataFrame:
    """The rows both figures stand on."""
    return one_judge(where(collapse, metric="attack_success", channel="answer", condition="unsteered"))


def tax_by_category(collapse: pd.DataFrame) -> go.Figure:
    """Paired dots per harm category, base to reasoning and safe, largest tax on top. Columns: CONTRIBUTING.md, `collapse`."""
    return _paired(collapse, "category", "Attack success by harm category", "all categories")


def attack_success_by_attack(collapse: pd.DataFrame) -> go.Figure:
    """Paired dots per attack (how the prompt is wrapped), largest tax on top. Columns: CONTRIBUTING.md, `collapse`."""
    return _paired(collapse, "attack", "Attack success by attack", "all attacks")


def _paired(collapse: pd.DataFrame, key: str, title: str, whole: str) -> go.Figure:
    rows = answers(collapse)
    table = by_model(rows, key).replace({key: {ALL: whole}})
    taxes = {whole if name == ALL else name: tax for name, tax in taxes_by(collapse, key).items()}
    names = _order(table, taxes, key, whole)
    models = theme.ordered(table["model"].tolist())
    first = rows.iloc[0]
    note = f"unsafe answers among harmful prompts · judge {first['judge']}{_at(first['threshold'])} · bars are 95% intervals"
    figure = theme.figure(title, note, plot=44 * len(names), above=48)
    _joined(figure, table, names, key, models)
    for index, model in enumerate(models):
        mine = table[table["model"] == model]
        add_series(figure, mine, rows=names, key=key, name=model, mark=theme.mark(model, models), shift=place(index, len(models)))
    _printed(figure, taxes, names)
    rule_rows(figure, names, whole=whole)
    rule_percent(figure, "attack success (answer)", upper=1.2 if taxes else 1.02)
    return figure


def by_model(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """One rate per model and value of `key`, and one per model for all of them (key `all`)."""
    parts = rows[(rows[key] != ALL) & ~beside(rows[key])]
    whole = rates(rows, ["model"]).assign(**{key: ALL})
    return pd.concat([whole, rates(parts, ["model", key])], ignore_index=True)


def taxes_by(collapse: pd.DataFrame, key: str) -> dict[str, Tax]:
    """Tax per value of `key` and for `all`; empty unless both base and reasoning are there."""
    table = by_model(answers(collapse), key)
    paired = _paired_taxes(collapse, key)
    taxes = {}
    for value, group in table.groupby(key, sort=False):
        two = {str(row["model"]): row for _, row in group.iterrows()}
        if {"base", "reasoning"} <= set(two):
            after, before = two["reasoning"], two["base"]
            taxes[str(value)] = Tax(*paired.get(str(value), difference(after, before)), int(after["n"]))
    return taxes


def _paired_taxes(collapse: pd.DataFrame, key: str) -> dict[str, tuple[float, float, float]]:
    """`tax_difference` of the reasoning model where the table has exactly the row asked for."""
    rows = collapse[(collapse["metric"] == "tax_difference") & (collapse["channel"] == "answer") & (collapse["model"] == "reasoning")]
    if rows.empty:
        return {}
    rows = one_judge(rows)
    for other in sorted({"benchmark", "attack", "category"} - {key}):
        rows = rows[(rows[other] == ALL) | (rows[other].nunique() == 1)]
    once = rows[~rows[key].duplicated(keep=False)]
    return {str(row[key]): (float(row["value"]), float(row["low"]), float(row["high"])) for _, row in once.iterrows()}


def _order(table: pd.DataFrame, taxes: dict[str, Tax], key: str, whole: str) -> list[str]:
    names = [name for name in dict.fromkeys(table[key]) if name != whole]
    worst = table.groupby(key)["value"].max()
    return [whole, *sorted(names, key=lambda name: taxes[name].value if name in taxes else worst[name] - 2, reverse=True)]


def _joined(figure: go.Figure, table: pd.DataFrame, names: list[str], key: str, models: list[str]) -> None:
    """A thin line from base to reasoning in every row."""
    if not {"base", "reasoning"} <= set(models):
        return
    value = table.set_index([key, "model"])["value"]
    x: list[float | None] = []
    y: list[float | None] = []
    for index, name in enumerate(names):
        if (name, "base") in value.index and (name, "reasoning") in value.index:
            x += [value[name, "base"], value[name, "reasoning"], None]
            y += [index + place(models.index(model), len(models)) for model in ("base", "reasoning")] + [None]
    line = {"color": theme.MARKS["random"].color, "width": 1}
    figure.add_scatter(x=x, y=y, mode="lines", line=line, opacity=0.6, hoverinfo="skip", showlegend=False)


def _printed(figure: go.Figure, taxes: dict[str, Tax], names: list[str]) -> None:
    """The tax itself, in points, in a column at the right."""
    if not taxes:
        return
    there = [name for name in names if name in taxes]
    figure.add_scatter(
        x=[1.17] * len(there),
        y=[names.index(name) for name in there],
        mode="text",
        text=[theme.signed(taxes[name].value) for name in there],
        textposition="middle left",
        customdata=[[theme.signed(taxes[name].low), theme.signed(taxes[name].high), taxes[name].n] for name in there],
        hovertemplate="tax %{text} points (95% interval %{customdata[0]} to %{customdata[1]})<br>n = %{customdata[2]}<extra></extra>",
        name="tax",
        showlegend=False,
    )
    figure.add_annotation(x=1.17, y=1, yref="paper", xanchor="right", yanchor="bottom", text="tax, points")


def _at(threshold: object) -> str:
    return f" at ≥ {float(threshold):g}" if isinstance(threshold, Real) and float(threshold) == float(threshold) else ""


def read_tax(collapse: pd.DataFrame) -> str:
    """The figure in words: the tax over all, what the safe model does, which categories stand out."""
    table = by_model(answers(collapse), "category")
    whole = table[table["category"] == ALL].set_index("model")
    told = f"Unsafe answers among harmful prompts: {_each(whole.loc[theme.ordered(list(whole.index))])}. "
    taxes = taxes_by(collapse, "category")
    if ALL not in taxes:
        return told + "Without both a base and a reasoning model there is no tax to compute."
    return told + _overall(taxes[ALL]) + _spots({name: tax for name, tax in taxes.items() if name != ALL})


def _each(whole: pd.DataFrame) -> str:
    if whole["n"].nunique() > 1:
        return ", ".join(f"{model} {theme.rate(row)}" for model, row in whole.iterrows())
    said = ", ".join(f"{model} {theme.percents(row['value'], row['low'], row['high'])}" for model, row in whole.iterrows())
    return f"{said}, n = {whole['n'].iloc[0]:.0f} each"


def _overall(tax: Tax) -> str:
    if tax.low <= 0 <= tax.high:
        verdict = ": its interval holds zero, so this run shows no collapse. "
    elif tax.high < 0:
        verdict = ": here reasoning made the model safer. "
    else:
        verdict = ". "
    return f"The reasoning tax is {theme.points(*tax[:3])}{verdict}"


def _spots(taxes: dict[str, Tax]) -> str:
    """The largest tax; never whether it stands out from the rest, which takes a test (`blind_spots`)."""
    if len(taxes) < 2:
        return ""
    said = {name: f"{name} ({theme.points(*tax[:3])}, n = {tax.n})" for name, tax in taxes.items()}
    by_size = sorted(taxes, key=lambda name: taxes[name].value, reverse=True)
    return (
        f"Of {len(taxes)} categories the largest is {said[by_size[0]]}, the smallest {said[by_size[-1]]}. "
        "Whether one is a blind spot takes a test that is corrected for how many there are: `thoughtlens collapse` makes it."
    )


def read_attacks(collapse: pd.DataFrame) -> str:
    """The attacks in words: which wrapping opens the reasoning model most and least."""
    table = by_model(answers(collapse), "attack")
    models = theme.ordered(table["model"].tolist())
    model = "reasoning" if "reasoning" in models else models[0]
    mine = table[(table["model"] == model) & (table["attack"] != ALL)].sort_values("value", kind="stable")
    if mine.empty:
        raise TableProblem("The collapse table has no rows by attack; `thoughtlens demo` writes one per attack.")
    least, most = mine.iloc[0], mine.iloc[-1]
    if len(mine) == 1:
        return f"There is one attack in this run, {most['attack']}: {theme.rate(most)} for the {model} model."
    told = f"The {model} model is most open to {most['attack']} ({theme.rate(most)}) and least to {least['attack']} ({theme.rate(least)}); "
    if most["low"] > least["high"]:
        return told + "their intervals are apart, so the wrapping matters."
    return told + "their intervals overlap, so this run does not show that the wrapping matters."
