"""The restoration figures in words. A result counts only against its controls: random and shuffled directions of equal norm."""

from __future__ import annotations

import pandas as pd

from .. import theme
from ..tables import difference
from .tradeoff import METRICS, arms, compare_arms, main_arm


def read_tradeoff(restoration: pd.DataFrame) -> str:
    """Attack success bought, over-refusal paid, and whether random or shuffled directions do the same."""
    table = arms(restoration)
    bought = compare_arms(table, "attack_success")
    if "unsteered" not in bought or "steered" not in bought:
        return "Without both an unsteered and a steered condition there is no effect of steering to report."
    told = [
        _effect(bought["steered"], bought["unsteered"], "attack success", wanted=-1),
        _against_random(table, bought),
        _against_shuffled(bought),
    ]
    paid = compare_arms(table, "over_refusal")
    if "unsteered" in paid and "steered" in paid:
        told.append(_effect(paid["steered"], paid["unsteered"], "over-refusal", wanted=0))
    others = table[table["condition"] == "steered"]["arm"].nunique() - 1
    if others:
        told.append(f"These are the numbers of {main_arm(table)}; {others} more steered setting{'s are' if others > 1 else ' is'} drawn.")
    return " ".join(part for part in told if part)


def _effect(after: pd.Series, before: pd.Series, name: str, *, wanted: int) -> str:
    change = difference(after, before)
    told = f"Steering takes {name} from {theme.from_to(before, after)}: {theme.points(*change)}"
    if change[1] <= 0 <= change[2]:
        return told + (
            ", an interval that holds zero: no effect is shown." if wanted else ", an interval that holds zero: no cost is shown."
        )
    if wanted == 0:
        return told + (", a cost beyond chance." if change[1] > 0 else ", lower than before.")
    return told + ("." if change[2] < 0 else ": it made matters worse.")


def _against_random(table: pd.DataFrame, bought: dict[str, pd.Series]) -> str:
    random = table[(table["metric"] == "attack_success") & (table["condition"] == "random")]
    if random.empty:
        return "No random directions were run, so it is open whether any push of this size would do the same."
    draws = len(random)
    told = f"{draws} random direction{'s' if draws > 1 else ''} of equal norm: {theme.span(random['value'])}"
    closest = random.sort_values("value").iloc[0]
    if difference(bought["steered"], closest)[2] < 0:
        return told + ", all clearly above the steered model: the direction matters, not the push."
    return told + "; the lowest is not clearly above the steered model, so the effect is not shown to belong to this direction."


def _against_shuffled(bought: dict[str, pd.Series]) -> str:
    if "shuffled" not in bought:
        return ""
    clear = difference(bought["steered"], bought["shuffled"])[2] < 0
    return f"The shuffled vector: {theme.rate(bought['shuffled'])}" + ("." if clear else ", not clearly above the steered model.")


def read_restoration(restoration: pd.DataFrame) -> str:
    """Refusal, helpfulness and truncation: whether the model still answers, and still ends."""
    table = arms(restoration)
    told = []
    for metric in ("refusal", "helpful", "truncated"):
        rows = compare_arms(table, metric)
        if "unsteered" in rows and "steered" in rows:
            safe = f" (safe model {theme.percent(rows['safe']['value'])})" if "safe" in rows else ""
            change = difference(rows["steered"], rows["unsteered"])
            clear = "" if change[1] > 0 or change[2] < 0 else ", within what chance explains"
            told.append(f"{METRICS[metric].capitalize()}: from {theme.from_to(rows['unsteered'], rows['steered'])}{safe}{clear}.")
    truncated = compare_arms(table, "truncated")
    if "unsteered" in truncated and "steered" in truncated and difference(truncated["steered"], truncated["unsteered"])[1] > 0:
        told.append(
            "More outputs never end under steering; they count as neither safe nor unsafe, so a low attack success may be gibberish."
        )
    return " ".join(told) or "The table holds neither refusal nor helpfulness for the unsteered and the steered model."
