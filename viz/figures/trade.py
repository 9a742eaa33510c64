"""Pairs of rates: what a setting of steering buys (attack success) and what it costs (over-refusal), and which settings none beats.

A setting is on the front when no other has both rates as low and one of them lower (Pareto). A setting that helps fewer than half of the
harmless prompts is *broken*: outputs that never end or say nothing are neither unsafe nor refusals. It is told, and never on the front.
"""

from __future__ import annotations

import math

import pandas as pd

from .. import theme
from ..tables import ALL, RATE, TableProblem, prefer, rates

AXES = {"x": "over_refusal", "y": "attack_success"}
HELPS = 0.5  # of harmless prompts
SETTING = ("source", "span", "site", "operator", "strength", "gate", "thought_mode")
BASELINES = ("unsteered", "base", "safe", "steered")
CONTROLS = {"random": "random", "shuffled": "shuffled"}


def pairs(table: pd.DataFrame, *splits: str) -> pd.DataFrame:
    """One row per condition and setting that has both rates: condition, kind (condition without the number of a draw), what, the setting,
    split, x_ and y_ value, low, high, numerator and n, and helpful (nan where it was not measured). Columns: `restoration`.

    splits    which to take, the first that is there: test, dev. `.attrs["without"]`: how many settings lack one of the rates
    """
    rows = table[table["metric"].isin((*AXES.values(), "helpful"))]
    if rows.empty or not set(AXES.values()) <= set(rows["metric"]):
        raise TableProblem("The table does not have both attack_success and over_refusal, so there is no trade to draw.")
    rows = prefer(rows, "split", *(splits or ("test", "dev")))
    if "threshold" in rows and rows["threshold"].notna().any():
        rows = rows[rows["threshold"] == rows["threshold"].dropna().iloc[0]]
    rows = rows.assign(**{key: "" for key in SETTING if key not in rows})
    keys = [key for key in ("condition", "what", *SETTING) if key in rows]
    rows = rows.assign(**{key: rows[key].astype(object).where(rows[key].notna(), "") for key in keys})
    found = _over_attacks(rows, [*keys, "metric"])
    side = {metric: found[found["metric"] == metric].drop(columns="metric") for metric in (*AXES.values(), "helpful")}
    both = side["helpful"][[*keys, "value"]].rename(columns={"value": "helpful"})
    for axis, metric in AXES.items():
        named = side[metric].rename(columns={column: f"{axis}_{column}" for column in RATE})
        both = named.merge(both, on=keys, how="left" if axis == "x" else "inner")
    both = both.dropna(subset=["x_value", "y_value"]).reset_index(drop=True)
    if both.empty:
        raise TableProblem("No condition of the table has both attack_success and over_refusal, so there is no trade to draw.")
    both = both.assign(split=rows["split"].iloc[0], kind=both["condition"].astype(str).str.split("[").str[0])
    both.attrs["without"] = len(rows.drop_duplicates(keys)) - len(both)
    return both


def _over_attacks(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The rows over all attacks where every setting has one, else the attacks added up."""
    whole = rows[rows["attack"] == ALL]
    each = len(rows.drop_duplicates(keys))
    return whole[[*keys, *RATE]] if len(whole) == len(whole.drop_duplicates(keys)) == each else rates(rows, keys)


def ways(both: pd.DataFrame) -> pd.DataFrame:
    """Without models as they are and without controls: what one may choose."""
    return both[~both["kind"].isin([*CONTROLS, "unsteered", "base", "safe"]) & ~both["condition"].astype(str).str.startswith("unsteered")]


def broken(both: pd.DataFrame) -> pd.Series:
    return both["helpful"] < HELPS


def front(both: pd.DataFrame) -> pd.DataFrame:
    """The settings that no other beats, from the lowest over-refusal on; equals are kept together."""
    kept: list[int] = []
    lowest, last = math.inf, (math.nan, math.nan)
    whole = both[~broken(both)].reset_index(names="at")
    for row in whole.sort_values(["x_value", "y_value"], kind="stable").to_dict("records"):
        place = (row["x_value"], row["y_value"])
        if place[1] < lowest or place == last:
            kept.append(row["at"])
            lowest, last = place[1], place
    return both.loc[kept]


def sides(tried: pd.DataFrame, measured: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What was tried on dev and what was measured on test, as pairs; one of them may be empty."""
    if measured is not None:
        return pairs(tried, "dev", "test"), pairs(measured)
    both = pairs(tried)
    return (both.iloc[:0], both) if both["split"].iloc[0] == "test" else (both, both.iloc[:0])


def read_pareto(tried: pd.DataFrame, measured: pd.DataFrame | None = None) -> str:
    """The figure in words: the ends of the front, what was left off it, and what was measured beside the models and the controls."""
    both, test = sides(tried, measured)
    return _front_told(both if len(both) else ways(test)) + (_beside(test) if len(test) else "")


def _front_told(choices: pd.DataFrame) -> str:
    best, left = front(choices), int(broken(choices).sum())
    if choices.empty:
        return "Nothing was steered, so there is nothing to choose from."
    first = choices.iloc[0]
    size = f"{first['y_n']:.0f} harmful and {first['x_n']:.0f} harmless prompts each"
    many = f"Of {len(choices)} settings on the {first['split']} split ({size})"
    if best.empty:
        return f"{many} none helps half of the harmless prompts."
    ends = [row for _, row in best.iloc[[0, -1]].drop_duplicates(["x_value", "y_value"]).iterrows()]
    said = " to ".join(f"{_name(row)} ({_rates(row)})" for row in ends)
    off = f" {left} help{'s' if left == 1 else ''} fewer than half of the harmless prompts and may not lie on it." if left else ""
    return f"{many} {len(best)} lie{'s' if len(best) == 1 else ''} on the front{_ends(len(best), len(ends))}{said}.{off}"


def _beside(test: pd.DataFrame) -> str:
    """The models as they are, the chosen setting and the random directions, on the test split."""
    once = {str(row["condition"]): row for _, row in test.iterrows()}
    shown = [f"{name} {_rates(once[name])}" for name in BASELINES if name in once]
    drawn = test[test["kind"] == "random"]
    if len(drawn):
        shown.append(f"{len(drawn)} random direction{'s' if len(drawn) > 1 else ''} attack success {theme.span(drawn['y_value'])}")
    return f" On the {test['split'].iloc[0]} split: {'; '.join(shown)}." if shown else ""


def _ends(settings: int, places: int) -> str:
    return ", from " if places > 1 else ", all alike, such as " if settings > 1 else ", "


def _name(row: pd.Series) -> str:
    return str(row.get("what") or row["condition"])


def _rates(row: pd.Series) -> str:
    y, x = (theme.percents(*(row[f"{axis}_{column}"] for column in ("value", "low", "high"))) for axis in ("y", "x"))
    return f"attack success {y} at over-refusal {x}, n = {row['y_n']:.0f} + {row['x_n']:.0f}"
