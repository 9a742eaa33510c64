"""The tables of a run folder, and how rows are chosen from them.

A rate is one row of `collapse` or `restoration`: value, 95% interval, numerator, n. Where the table holds the row that is asked for
(category `all`, attack `all`), it is taken as it stands, interval included. Where it holds only the parts, numerators and n are added
and the interval is Wilson's (1927): centre (p + z²/2n) / (1 + z²/n), half-width z √(p(1−p)/n + z²/4n²) / (1 + z²/n).
"""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow

Z = 1.959963984540054
ALL = "all"

COLUMNS: dict[str, tuple[str, ...]] = {
    "collapse": (
        "model",
        "condition",
        "benchmark",
        "attack",
        "category",
        "channel",
        "metric",
        "value",
        "low",
        "high",
        "numerator",
        "n",
        "judge",
        "threshold",
    ),
    "detection": (
        *("model", "site", "layer", "span", "probe", "label", "split", "auroc", "low", "high"),
        *("tpr_at_1fpr", "control_auroc", "text_auroc", "n_train", "n_test"),
    ),
    "trajectory": ("model", "condition", "prompt_id", "position", "kind", "score", "harmful", "step"),
    "restoration": (
        *("condition", "vector", "source", "site", "operator", "strength", "gate", "thought_mode", "split", "attack"),
        *("metric", "value", "low", "high", "n", "numerator"),
    ),
    "comparison": (*("condition", "what", "split", "attack", "thought_mode", "metric", "value", "low", "high", "n", "numerator"),),
    "margins": ("span", "site", "layer", "model", "metric", "value", "low", "high", "n"),
    "explained": ("part", "condition", "what", "split", "attack", "metric", "value", "low", "high", "n", "numerator"),
    "holdouts": (
        *("model", "holdout", "site", "layer", "span", "probe", "label", "split", "subset", "auroc", "low", "high", "tpr_at_1fpr"),
        *("n_train", "n_test"),
    ),
    "transfer": (
        *("along", "source", "target", "model", "site", "layer", "span", "probe", "auroc", "low", "high", "n_train", "n_test"),
        "tpr_at_1fpr",
    ),
    "curves": ("model", "condition", "split", "side", "by", "at", "mean", "low", "high", "n"),
    "decision": (
        *("model_a", "model_b", "split", "decides", "anchor", "step", "n", "n_harmful", "gap", "gap_low", "gap_high"),
        *("margin", "margin_low", "margin_high", "rank", "rank_gap", "rank_margin", "first"),
    ),
    "decision_ranks": (
        *("model_a", "model_b", "split", "decides", "anchor", "step", "n", "n_harmful", "source", "site", "strength", "random_effect"),
        *("before_harmful", "closed_harmful", "closed_benign", "rank", "first"),
        *(f"{name}{part}" for name in ("gap", "margin", "effect") for part in ("", "_low", "_high")),
        *("rank_gap", "rank_margin", "rank_effect"),
    ),
    "decision_boundaries": ("prompt_id", "split", "harmful", "step", "decision", "found"),
    "heads": ("model", "site", "span", "probe", "split", "n", "part", "layer", "head", "difference", "low", "high", "share"),
    "prompts": ("prompt_id", "text", "goal", "category", "attack", "group", "harmful", "benchmark", "split", "images"),
    "answers": (
        *("prompt_id", "model", "condition", "status", "thought", "answer", "n_tokens", "fired", "judge", "verdict"),
        *("answer_unsafe", "thought_unsafe", "refusal"),
    ),
    "readouts": ("model", "condition", "prompt_id", "position", "kind", "token", "step", "layer", "score", "fired"),
    "projection": (*("model", "condition", "site", "layer", "span", "method", "prompt_id", "split", "x", "y", "share_x", "share_y"),),
    "harm_histogram": ("model", "condition", "benchmark", "judge", "channel", "what", "rating", "n"),
    "blind_spots": (
        *("model", "condition", "against_model", "against_condition", "benchmark", "channel", "category", "tax", "low", "high"),
        *("rest", "excess", "excess_low", "excess_high", "p", "p_holm", "n", "groups", "blind", "judge", "threshold"),
    ),
    "geometry": ("a", "b", "site_a", "site_b", "layer", "layer_b", "span", "cosine", "low", "high", "n", "chance"),
    "cliff": ("model", "condition", "split", "side", "plateau", "end", "drop", "low", "high", "n"),
    "sweep": (
        *("condition", "source", "span", "site", "operator", "strength", "gate", "thought_mode", "split", "attack"),
        *("metric", "value", "low", "high", "n", "numerator"),
    ),
}
DEFAULTS: dict[str, dict[str, str | float]] = {
    "trajectory": {"split": "test"},
    "detection": {"condition": "unsteered", "holdout": "given", "subset": ALL, "pool": "", "control_high": math.nan, "c": math.nan},
}
MADE_BY = {
    **dict.fromkeys(("collapse", "detection", "trajectory", "restoration"), "thoughtlens demo"),
    **dict.fromkeys(("holdouts", "transfer", "curves", "decision", "heads", "geometry", "cliff"), "thoughtlens probe RUN"),
    **dict.fromkeys(("prompts", "answers"), "thoughtlens view RUN"),
    **dict.fromkeys(("readouts", "projection"), "thoughtlens probe RUN"),
    **dict.fromkeys(("harm_histogram", "blind_spots"), "thoughtlens collapse"),
    "sweep": "thoughtlens demo --sweep",
    **dict.fromkeys(("decision_ranks", "decision_boundaries"), "thoughtlens decide RUN"),
    "comparison": "thoughtlens sweep RUN",
    **dict.fromkeys(("margins", "explained"), "thoughtlens organism explain RUN"),
}

PARTS = ("benchmark", "category", "attack")
BESIDE = ("macro", "apart")  # categories that are no part of the whole; nor is "hazard: …"
MOST_REMEMBERED = 16  # results of a function
Value = TypeVar("Value")
RATE = ("value", "low", "high", "numerator", "n")


class TableProblem(ValueError):
    """A table that is missing, unreadable, empty or without the rows a figure needs; the text says what to do."""


def read_table(run: Path, name: str) -> pd.DataFrame:
    """`tables/<name>.parquet` of a run folder, its columns checked. Raises TableProblem naming the command that makes it."""
    table, again = _read(run, name), f"`{MADE_BY[name]}` makes it."
    if lacking := [column for column in COLUMNS[name] if column not in table]:
        raise TableProblem(
            f"The {name} table lacks {', '.join(lacking)}; it has {', '.join(map(str, table.columns)) or 'no columns'}. {again}"
        )
    if table.empty:
        raise TableProblem(f"The {name} table is empty (no rows in tables/{name}.parquet). {again}")
    return complete(table, name)


def rows_of_prompt(run: Path, name: str, prompt_id: str) -> pd.DataFrame:
    """The rows of one prompt; the rest of the file is not read where its row groups tell. TableProblem as `read_table`, and for no row."""
    rows = _read(run, name, [("prompt_id", "=", prompt_id)])
    if rows.empty:
        raise TableProblem(f"The {name} table has no row of prompt {prompt_id!r}.")
    return rows


def columns_of(run: Path, name: str, *columns: str) -> pd.DataFrame:
    """Some columns of a large table, distinct rows; nothing else is read. TableProblem as `read_table`."""
    return _read(run, name, columns=list(columns)).drop_duplicates(ignore_index=True)


def makes(run: Path, name: str) -> str:
    """What to do for a table: the command that makes it, and why it cannot where verdict files were all there was."""
    if name in ("prompts", "answers") and not (Path(run) / "prompts.jsonl").is_file():
        return f"`{MADE_BY[name]}` makes it out of prompts.jsonl, which this run does not have."
    return f"`{MADE_BY[name]}` makes it."


def _read(run: Path, name: str, only: list[tuple[str, str, str]] | None = None, columns: list[str] | None = None) -> pd.DataFrame:
    path = Path(run) / "tables" / f"{name}.parquet"
    again = makes(run, name)
    if not path.is_file():
        raise TableProblem(f"This run has no {name} table (tables/{name}.parquet). {again}")
    try:
        return pd.read_parquet(path, engine="pyarrow", filters=only, columns=columns)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as problem:
        raise TableProblem(f"The {name} table cannot be read: tables/{name}.parquet is damaged. Delete it; {again}") from problem


def complete(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table with the columns that may be left out filled in."""
    return table.assign(**{column: value for column, value in DEFAULTS.get(name, {}).items() if column not in table})


def remembered(make: Callable[..., Value]) -> Callable[..., Value]:
    """Keeps what a function of a table gave lately, for as long as the table is there: one figure and its reading ask the same several
    times. Tables are never changed in place, and neither is what is kept."""
    kept: OrderedDict[tuple[object, ...], tuple[weakref.ref[pd.DataFrame], Value]] = OrderedDict()

    @wraps(make)
    def once(table: pd.DataFrame, *args: Hashable, **named: Hashable) -> Value:
        key = (id(table), args, *named.items())
        known = kept.get(key)
        if known is None or known[0]() is not table:
            known = kept[key] = (weakref.ref(table), make(table, *args, **named))
            while len(kept) > MOST_REMEMBERED:
                kept.popitem(last=False)
        return known[1]

    return once


def where(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows with these values. Nothing left is an error that says what was asked and what there is."""
    rows = table
    for column, value in wanted.items():
        kept = rows[rows[column] == value]
        if kept.empty:
            there = ", ".join(sorted({str(v) for v in rows[column]})[:8])
            raise TableProblem(f"No rows with {column} = {value!r}; the table has {there or 'none'}.")
        rows = kept
    return rows


def prefer(table: pd.DataFrame, column: str, *choices: object) -> pd.DataFrame:
    """The rows of the first choice that is there, else of the value that comes first: one value, never a mixture."""
    there = list(dict.fromkeys(table[column]))
    choice = next((c for c in choices if c in there), there[0])
    return table[table[column] == choice]


def one_judge(table: pd.DataFrame) -> pd.DataFrame:
    """Verdicts of one judge at one threshold (the first in the table): rates of two judges are never added up."""
    first = table.iloc[0]
    same = table["threshold"] == first["threshold"] if pd.notna(first["threshold"]) else table["threshold"].isna()
    kept: pd.DataFrame = table[(table["judge"] == first["judge"]) & same]
    return kept


def highest(table: pd.DataFrame, column: str) -> pd.Series:
    """The row with the largest value of a column, the first of equals."""
    return table.sort_values(column, ascending=False, kind="stable").iloc[0]


def lowest(table: pd.DataFrame, column: str) -> pd.Series:
    """The row with the smallest value of a column, the first of equals."""
    return table.sort_values(column, kind="stable").iloc[0]


def rates(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One rate per combination of `by`, in the order of the table: columns `by`, value, low, high, numerator, n.

    `table` holds one metric. Over benchmark, category and attack (unless in `by`) the row `all` is taken where there is one, else the
    parts are added up; what stands beside them (`macro`, `apart`, hazards) is never a part.
    """
    by, parts = list(by), [part for part in PARTS if part in table and part not in by]
    names, k = [*by, *parts], len(by)  # plain rows: groups of a few rows each are slow in pandas
    rows = list(zip(*(_plain(table[name]) for name in [*names, *RATE]), strict=True))
    for at in range(k, len(names)):
        rows = [row for row in rows if not is_beside(row[at])]
    for at in range(k, len(names)):
        whole = {row[:k] for row in rows if row[at] == ALL}
        rows = [row for row in rows if row[at] == ALL or row[:k] not in whole]
    groups: dict[tuple[object, ...], list[tuple[Any, ...]]] = {}
    for row in rows:
        groups.setdefault(row[:k], []).append(row[len(names) :])
    found = [(*key, *(told[0] if len(told) == 1 else _added(told))) for key, told in groups.items()]
    return pd.DataFrame(found, columns=[*by, *RATE]).astype(dict.fromkeys(RATE, float))


def _plain(column: pd.Series) -> list[Any]:
    """Its values, nan being one and the same, so that it is equal to itself."""
    return [math.nan if value is None or value != value else value for value in column.tolist()]


def _added(parts: Sequence[tuple[Any, ...]]) -> tuple[float, ...]:
    """One rate out of those of the parts."""
    told = dict(zip(RATE, zip(*parts, strict=True), strict=True))
    numerator, n = (math.fsum(value for value in told[name] if value is not math.nan) for name in ("numerator", "n"))
    return (numerator / n if n else math.nan, *wilson(numerator, n), numerator, n)


def beside(column: pd.Series) -> pd.Series:
    """Which rows tell the whole in another way."""
    return column.isin([name for name in column.unique() if is_beside(name)])


def is_beside(name: object) -> bool:
    return name in BESIDE or str(name).startswith("hazard: ")


def wilson(numerator: float, n: float) -> tuple[float, float]:
    """95% interval of a rate."""
    if n == 0:
        return math.nan, math.nan
    p, z2 = numerator / n, Z * Z
    centre, half = p + z2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z2 / n)), min(1.0, (centre + half) / (1 + z2 / n))


def difference(after: pd.Series, before: pd.Series) -> tuple[float, float, float]:
    """after − before with a 95% interval from the two intervals (Newcombe 1998, method 10; as if the samples were independent)."""
    gap = after["value"] - before["value"]
    low = gap - math.hypot(after["value"] - after["low"], before["high"] - before["value"])
    high = gap + math.hypot(after["high"] - after["value"], before["value"] - before["low"])
    return gap, max(-1.0, low), min(1.0, high)
