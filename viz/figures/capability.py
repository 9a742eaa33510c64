"""What steering leaves of a model: harmless prompts helped, tasks solved, and how far its words move, beside the attacks that succeed.

The divergence is KL(unsteered ‖ way) a token, the mean over harmless prompts: 0 where nothing changed. It sees what rates cannot: a way may
keep every rate and still write other text. Rows and panels: ways.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import TableProblem, difference
from .ways import NATS, panels, shown

PANELS = {"attack_success": "attack success", "helpful": "helpful", "task_accuracy": "tasks solved", NATS: "KL, nats"}
KEPT = ("helpful", "task_accuracy")
MODELS = ("unsteered", "base", "safe")


def capability(comparison: pd.DataFrame) -> go.Figure:
    """A row per way, a panel per outcome. Columns: CONTRIBUTING.md, `comparison`."""
    note = "test split · KL of harmless prompts from the unsteered model · 95% intervals"
    return panels(_rows(comparison), "What each way leaves of the model", note, outcomes=PANELS)


def _rows(comparison: pd.DataFrame) -> pd.DataFrame:
    rows = shown(comparison, outcomes=PANELS)
    if not set(rows["metric"]) & {*KEPT, NATS}:
        raise TableProblem("The comparison table holds attack success and nothing it may cost. `thoughtlens sweep RUN` makes it.")
    return rows


def read_capability(comparison: pd.DataFrame) -> str:
    """The chosen setting beside the unsteered model, and the ways that clearly help or solve less than it."""
    rows = _rows(comparison)
    ways = {(str(row["row"]), str(row["metric"])): row for _, row in rows[~rows["draw"]].iterrows()}
    told = [_chosen(ways)] if ("steered", "attack_success") in ways else []
    for metric in KEPT:
        if ("unsteered", metric) not in ways:
            continue
        left = ways["unsteered", metric]
        mine = {name: row for (name, of), row in ways.items() if of == metric and name not in MODELS}
        less = {name: row for name, row in mine.items() if difference(row, left)[2] < 0}
        said = ", ".join(f"{name} ({theme.percents(row['value'], row['low'], row['high'])})" for name, row in less.items())
        begin = f"{PANELS[metric].capitalize()}: unsteered {theme.rate(left)}; of {len(mine)} ways"
        told.append(f"{begin} {len(less)} come{'s' if len(less) == 1 else ''} to clearly less{': ' if less else ''}{said}.")
    moved = rows[(rows["metric"] == NATS) & ~rows["draw"]]
    moved = moved[~moved["row"].isin(MODELS)].sort_values("value")
    if len(moved):
        ends = [f"{_nats(row)} ({row['row']})" for _, row in moved.iloc[[0, -1]].drop_duplicates("row").iterrows()]
        told.append(f"The words of harmless prompts move by {' to '.join(ends)}.")
    return " ".join(told)


def _chosen(ways: Mapping[tuple[str, str], pd.Series]) -> str:
    said = []
    for metric, name in PANELS.items():
        if ("steered", metric) in ways:
            row = ways["steered", metric]
            said.append(f"{name.removesuffix(', nats')} {_nats(row) if metric == NATS else theme.rate(row)}")
    return f"Steered: {'; '.join(said)}."


def _nats(row: pd.Series) -> str:
    interval = "" if math.isnan(row["low"] + row["high"]) else f" [{row['low']:.2g}–{row['high']:.2g}]"
    return f"{row['value']:.2g}{interval} nats, n = {row['n']:.0f}"
