"""Prompt sets by name, one loader a file: `prompts("organism", split="test")`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...hooks.records import Prompt
from . import organism

BENCHMARKS: dict[str, Callable[..., list[Prompt]]] = {"organism": organism.load}


def prompts(name: str, **options: Any) -> list[Prompt]:
    """Load the prompts of a benchmark; options are those of its loader (split, limit, tasks for "organism").

    Raises ValueError for an unknown benchmark.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name](**options)
