"""The numbers at the top of the report: one card per question, each with its interval, n and control."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from . import theme
from .figures.readable import best_layers
from .figures.success import answers, by_model
from .figures.tax import taxes_by
from .figures.tradeoff import arms, compare_arms
from .tables import ALL, highest


@dataclass(frozen=True)
class Headline:
    question: str
    number: str
    detail: str


def collapse_headlines(collapse: pd.DataFrame) -> list[Headline]:
    question = "What did reasoning cost in safety?"
    whole = by_model(answers(collapse), "category").query("category == @ALL", local_dict={"ALL": ALL}).set_index("model")
    taxes = taxes_by(collapse, "category")
    rates = ", ".join(
        f"{model} {theme.percents(*whole.loc[model, ['value', 'low', 'high']])}" for model in theme.ordered(list(whole.index))
    )
    counts = [int(whole["n"].loc[model]) for model in theme.ordered(list(whole.index))]
    n = ", ".join(map(str, counts if len(set(counts)) > 1 else counts[:1]))
    detail = f"Attack success: {rates}; n = {n}."
    if ALL not in taxes:
        return [Headline(question, "no pair", f"{detail} No tax without a base and a reasoning model.")]
    tax = taxes[ALL]
    return [
        Headline(
            question, f"{theme.signed(tax.value)} points", f"95% interval {theme.signed(tax.low)} to {theme.signed(tax.high)}. {detail}"
        )
    ]


def detection_headlines(detection: pd.DataFrame) -> list[Headline]:
    question = "Is unsafe intent readable beyond the words?"
    best = best_layers(detection)
    readings = theme.ordered(best["reading"].tolist())
    reading = "reasoning" if "reasoning" in readings else readings[0]
    mine = best[(best["reading"] == reading) & (best["verdict"] == "state")]
    if mine.empty:
        return [
            Headline(
                question,
                "not shown",
                f"In the {reading} model no span's probe reads more than the words or the shuffled labels already give.",
            )
        ]
    top = highest(mine, "score")
    detail = (
        f"95% interval {theme.auroc(top['low'])} to {theme.auroc(top['high'])}, {reading} model, {top['column']}, "
        f"layer {top['layer']:.0f}, n = {top['n_test']:.0f}. "
        f"Words alone {theme.auroc(top['text_auroc'])}, shuffled labels {theme.auroc(top['control_auroc'])}."
    )
    return [Headline(question, f"AUROC {theme.auroc(top['auroc'])}", detail)]


def restoration_headlines(restoration: pd.DataFrame) -> list[Headline]:
    table = arms(restoration)
    random = table[(table["condition"] == "random") & (table["metric"] == "attack_success")]["value"]
    control = f" Random directions: {theme.span(random)} ({len(random)} draws)." if len(random) else " No random directions were run."
    cards = []
    for question, metric, more in (
        ("What does steering do to attack success?", "attack_success", control),
        ("What does steering do to harmless requests?", "over_refusal", _kept(table)),
    ):
        rows = compare_arms(table, metric)
        if "unsteered" in rows and "steered" in rows:
            before, after = rows["unsteered"], rows["steered"]
            name = "Over-refusal" if metric == "over_refusal" else "From"
            number = f"{theme.percent(before['value'])} → {theme.percent(after['value'])}"
            cards.append(Headline(question, number, f"{name} {theme.from_to(before, after)}.{more}"))
    return cards


def _kept(table: pd.DataFrame) -> str:
    rows = compare_arms(table, "helpful")
    if "unsteered" not in rows or "steered" not in rows:
        return ""
    return f" Helpful answers: {theme.from_to(rows['unsteered'], rows['steered'])}."
