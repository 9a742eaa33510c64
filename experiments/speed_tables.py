"""The tables of `thoughtlens bench capture`, printed and as markdown."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measured:
    """What bench_capture found, as tidy tables.

    speed    shape, kind (forward | job), condition, milliseconds, ratio, low, high (quartiles), tokens_per_s, goal
    memory   condition, megabytes
    store    condition, megabytes_per_s, ratio, low, high, goal
    """

    machine: str
    speed: pd.DataFrame
    memory: pd.DataFrame
    store: pd.DataFrame


def show(measured: Measured) -> None:
    """Print the tables."""
    console = Console(highlight=False)
    console.print(measured.machine)
    for title, table in _tables(measured).items():
        drawn = Table(title=title, title_justify="left")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="left" if number < 2 and table[column].dtype == object else "right")
        for row in table.itertuples(index=False):
            drawn.add_row(*map(str, row))
        console.print(drawn)


def markdown(measured: Measured, how: str) -> str:
    """The tables for docs/speed.md, under how they were made: a title line and text."""
    told = how.strip().splitlines()
    parts = [f"# {told[0].rstrip('.')}", f"`thoughtlens bench capture` on {measured.machine}.", "```text\n" + "\n".join(told[2:]) + "\n```"]
    for title, table in _tables(measured).items():
        lines = [list(table.columns), ["---"] * len(table.columns), *([*map(str, row)] for row in table.itertuples(index=False))]
        parts.append(f"## {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def _tables(measured: Measured) -> dict[str, pd.DataFrame]:
    """What is shown: words and rounded numbers."""
    found = {}
    for kind, title in (("forward", "Forwards of an encoded batch"), ("job", "Transcripts to a finished store")):
        rows = measured.speed[measured.speed.kind == kind]
        found[title] = pd.DataFrame(
            {
                "shape": rows["shape"],
                "condition": rows.condition,
                "ms": rows.milliseconds.map("{:.1f}".format),
                "tokens/s": rows.tokens_per_s.map("{:,.0f}".format),
                "times plain": _spread(rows),
                "goal": [_goal(goal, ratio, "at most") for goal, ratio in zip(rows.goal, rows.ratio, strict=True)],
            }
        )
    found["Most memory beyond the loaded model"] = pd.DataFrame(
        {
            "what": measured.memory.what,
            "condition": measured.memory.condition,
            "MB": measured.memory.megabytes.map("{:.1f}".format),
        }
    )
    rows = measured.store
    found["Writing a shard"] = pd.DataFrame(
        {
            "condition": rows.condition,
            "MB/s": rows.megabytes_per_s.map("{:,.0f}".format),
            "share of plain": _spread(rows),
            "goal": [_goal(goal, ratio, "at least") for goal, ratio in zip(rows.goal, rows.ratio, strict=True)],
        }
    )
    return found


def _spread(rows: pd.DataFrame) -> list[str]:
    return [f"{row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})" for row in rows.itertuples()]


def _goal(goal: float | None, ratio: float, sense: str) -> str:
    if goal is None or pd.isna(goal):
        return ""
    met = ratio <= goal if sense == "at most" else ratio >= goal
    return f"{sense} {goal:.2f}: {'met' if met else 'missed'}"
