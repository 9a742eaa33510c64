"""Benchmark tables: printed, and as parts of docs/speed.md. Every benchmark replaces its own part and leaves the rest as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table

from ..hooks.files import write_text
from .progress import printer

TITLE = "# How fast it is"


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


def show(machine: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Print tables of words, under their titles."""
    console = printer()
    console.print(machine)
    for title, table in tables.items():
        drawn = Table(title=title, title_justify="left")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="left" if number < 2 and table[column].dtype == object else "right")
        for row in table.itertuples(index=False):
            drawn.add_row(*map(str, row))
        console.print(drawn)


def markdown(command: str, machine: str, how: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """A part of docs/speed.md: tables under how they were made, which is a title line and text."""
    told = how.strip().splitlines()
    parts = [f"## {told[0].rstrip('.')}", f"`{command}` on {machine}.", "```text\n" + "\n".join(told[2:]) + "\n```"]
    for title, table in tables.items():
        lines = [list(table.columns), ["---"] * len(table.columns), *([*map(str, row)] for row in table.itertuples(index=False))]
        parts.append(f"### {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def write_part(page: Path, command: str, part: str) -> None:
    """Put a part where the page's marks for it are, or at its end; whatever else is on the page stays, remarks between parts too.

    Raises ValueError for a page that has one of the two marks only.
    """
    start, stop = f"<!-- {command} -->", f"<!-- end of {command} -->"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"{TITLE}\n"
    if start not in text and stop not in text:
        text = f"{text.rstrip()}\n\n{start}\n{stop}\n"
    before, opened, rest = text.partition(start)
    _, closed, after = rest.partition(stop)
    if not opened or not closed:
        raise ValueError(f"{page} has one of the marks {start} and {stop} without the other; put it back, or delete both")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, f"{before}{start}\n{part}{stop}{after}")


def capture_tables(measured: Measured) -> dict[str, pd.DataFrame]:
    """What is shown of bench_capture: words and rounded numbers."""
    found = {}
    for kind, title in (("forward", "Forwards of an encoded batch"), ("job", "Transcripts to a finished store")):
        rows = measured.speed[measured.speed.kind == kind]
        found[title] = pd.DataFrame(
            {
                "shape": rows["shape"],
                "condition": rows.condition,
                "ms": rows.milliseconds.map("{:.1f}".format),
                "tokens/s": rows.tokens_per_s.map("{:,.0f}".format),
                "times plain": spread(rows),
                "goal": [goal_met(goal, ratio, "at most") for goal, ratio in zip(rows.goal, rows.ratio, strict=True)],
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
            "share of plain": spread(rows),
            "goal": [goal_met(goal, ratio, "at least") for goal, ratio in zip(rows.goal, rows.ratio, strict=True)],
        }
    )
    return found


def spread(rows: pd.DataFrame, digits: int = 3) -> list[str]:
    return [f"{row.ratio:.{digits}f} ({row.low:.{digits}f} to {row.high:.{digits}f})" for row in rows.itertuples()]


def goal_met(goal: float | None, ratio: float, sense: str) -> str:
    if goal is None or pd.isna(goal):
        return ""
    met = ratio <= goal if sense == "at most" else ratio >= goal
    return f"{sense} {goal:.2f}: {'met' if met else 'missed'}"
