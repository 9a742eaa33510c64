"""What a lineage of the trio is measured on: one row per set, a row more for every kind of held-out that the world can ask.

A row is what benchmarks/organism.py is asked for. Names of sets are what tables and docs call the kind of held-out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...hooks.records import Prompt
from ..benchmarks.organism import load

HELD = 120  # twin pairs of every other kind of held-out
SETS: Mapping[str, Mapping[str, Any]] = {  # test: 80 goals a side in 3 wordings: 240 prompts of each attack; 50 tasks of each kind
    "test": {"split": "test", "wordings": 3, "tasks": 50},
    "long": {"split": "test", "depth": "long", "limit": HELD},
    "goals": {"split": "goals", "limit": HELD},
    "templates": {"split": "templates", "limit": HELD},
    "objects": {"split": "objects", "limit": HELD},
    "ood": {"split": "ood", "limit": HELD},
}
SEEN_GOALS = ("templates",)  # sets of goals that directions are fitted on: no probe is told there
CONTROLLED = ("test",)  # sets on which the controls of steering are told
FITTED: Mapping[str, Mapping[str, Any]] = {  # twin pairs on which directions are fitted, and on which everything is chosen
    "train": {"split": "train", "limit": 150},
    "dev": {"split": "dev", "limit": 100},
}


def evaluation_sets(limit: int | None = None) -> dict[str, list[Prompt]]:
    """name -> prompts, of at most `limit` twin pairs a set and as many tasks of each kind."""
    return {name: _asked(how, limit) for name, how in SETS.items()}


def fitting_sets(limit: int | None = None) -> dict[str, list[Prompt]]:
    """train and dev, without tasks."""
    return {name: _asked(how, limit) for name, how in FITTED.items()}


def _asked(how: Mapping[str, Any], limit: int | None) -> list[Prompt]:
    if limit is None:
        return load(**how)
    fewer = {"limit": min(limit, how.get("limit", limit))}
    if "tasks" in how:
        fewer["tasks"] = min(limit, how["tasks"])
    return load(**{**how, **fewer})
