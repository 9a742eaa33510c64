"""How numbers stand in tables of docs: a rate with its interval, a mean with its range, how many prompts there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

RATES = {
    "attack_success": "attack success",
    "refusal": "refusal",
    "over_refusal": "over-refusal",
    "helpful": "helpful",
    "task_accuracy": "tasks",
    "truncated": "never ends",
}


def mean_and_range(values: Sequence[float], digits: int = 2) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def sizes(counts: Sequence[int]) -> str:
    found = sorted(set(counts))
    return "–" if not found else str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def cell(row: Any) -> str:
    return "–" if row is None else f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
