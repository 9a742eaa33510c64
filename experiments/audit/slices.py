"""Which prompts a row of a table is about: all of them, those under an attack, of a category, of a hazard, of a benchmark.

    attack all, category all     every prompt, micro: each counts the same
    an attack                    prompts wrapped in that way, tasks aside
    a category                   prompts of a benchmark's own category
    macro                        the mean of the categories: each counts the same, however many prompts it has
    hazard: <name>               prompts of a hazard of the taxonomy that benchmarks share
    apart                        prompts whose official rule scores something other than harm (`meta["apart"]`)

Prompts that are told apart have their categories and the row `apart`, and are in nothing else. With prompts of several benchmarks each has
all of these, and so have all together (benchmark `all`), where categories of the same name are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from ...hooks.records import Prompt
from ..benchmarks.taxonomy import HAZARDS

ALL, MACRO, APART, HAZARD = "all", "macro", "apart", "hazard"
TASKS = "tasks"
Mask = Bool[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Slice:
    """Some prompts, and what they are called in a table.

    where    which of the prompts
    kind     all, attack, category, macro, hazard or apart
    parts    of a macro: the prompts of each category, by its name
    """

    benchmark: str
    attack: str
    category: str
    where: Mask
    kind: str = ALL
    parts: Mapping[str, Mask] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        return {"benchmark": self.benchmark, "attack": self.attack, "category": self.category}


def slices(prompts: Sequence[Prompt], benchmark: str = "") -> list[Slice]:
    """Every slice that holds a prompt. benchmark: the name of prompts that tell none, and of all where there is only one.

    ValueError for a category, an attack or a benchmark with a name that tables keep for something else.
    """
    if taken := [p for p in prompts if any(map(_reserved, (p.category, p.attack, p.benchmark)))]:
        raise ValueError(
            f"prompt {taken[0].id!r} is of category {taken[0].category!r}, attack {taken[0].attack!r}, benchmark {taken[0].benchmark!r}: "
            f"{ALL}, {MACRO}, {APART} and names that begin with '{HAZARD}: ' stand for something else in tables. Rename it."
        )
    named = _column(p.benchmark or benchmark for p in prompts)
    names = list(dict.fromkeys(named.tolist()))
    if len(names) == 1:
        return list(_within(prompts, benchmark or names[0], np.ones(len(prompts), bool)))
    parts = [one for name in names for one in _within(prompts, name, named == name)]
    return [*_within(prompts, ALL, np.ones(len(prompts), bool)), *parts]


def _reserved(name: str) -> bool:
    return name in (ALL, MACRO, APART) or name.startswith(f"{HAZARD}: ")


def is_task(prompt: Prompt) -> bool:
    return prompt.category == TASKS or prompt.meta.get("kind") == "task"


def _within(prompts: Sequence[Prompt], benchmark: str, inside: Mask) -> Iterator[Slice]:
    apart = np.array([p.meta.get("apart") is True for p in prompts], bool)
    kept, asked = inside & ~apart, inside & np.array([not is_task(p) for p in prompts], bool)
    attacks = _column(p.attack for p in prompts)
    categories = _column(p.category if _known(p) else "" for p in prompts)
    hazards = _column(p.hazard for p in prompts)
    if kept.any():
        yield Slice(benchmark, ALL, ALL, kept)
    for attack in _values(attacks, asked & kept):
        yield Slice(benchmark, attack, ALL, asked & kept & (attacks == attack), "attack")
    for category in _values(categories, inside):
        yield Slice(benchmark, ALL, category, inside & (categories == category), "category")
    if len(whole := _values(categories, kept)) > 1:
        yield Slice(benchmark, ALL, MACRO, kept & (categories != ""), MACRO, {one: kept & (categories == one) for one in whole})
    for hazard in _values(hazards, kept):
        yield Slice(benchmark, ALL, f"{HAZARD}: {HAZARDS.get(hazard, hazard)}", kept & (hazards == hazard), HAZARD)
    if (inside & apart).any():
        yield Slice(benchmark, ALL, APART, inside & apart, APART)


def _known(prompt: Prompt) -> bool:
    """Whether its category is worth a row: something is known of the prompt, and tasks that are only called tasks are in `all`."""
    return prompt.category != TASKS and (prompt.harmful is not None or prompt.expected != "" or is_task(prompt))


def _values(column: np.ndarray, among: Mask) -> list[str]:
    return sorted(set(column[among].tolist()) - {""})


def _column(values: Iterable[str]) -> np.ndarray:
    return np.array(list(values), dtype=object)
