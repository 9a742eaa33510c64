"""A benchmark as a command line names it: NAME[@VARIANT][=ROOT], as in organism, figstep=FigStep or mm_safetybench@sd=MM-SafetyBench."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...hooks.records import Prompt
from . import BENCHMARKS, prompts
from .attacks import ATTACKS, crossed, made
from .organism import TASKS_PER_KIND

CROSSED = "crossed"  # harmful and benign twins, one in the text and one in the picture, in all four ways
SPEC = re.compile(r"(?P<name>\w+)(?:@(?P<variant>[\w.-]+))?(?:=(?P<root>.+))?")


def is_benchmark(text: str) -> bool:
    """Whether a text names a benchmark, rather than a file of prompts."""
    return (said := SPEC.fullmatch(text)) is not None and said["name"] in BENCHMARKS


def asked_for(
    specs: Sequence[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    missing: str = "raise",
    attacks: Sequence[str] = (),
) -> list[Prompt]:
    """The prompts of one or several benchmarks, each limited by itself, and attacks made of those that are plain.

    A file of prompts is a benchmark too: jsonl=FILE, or the file's own name.
    ValueError for what is no such text, an unknown benchmark, and prompts of two that share an id.
    """
    if not specs:
        raise ValueError(f"name at least one benchmark; known are {', '.join(BENCHMARKS)}")
    found: list[Prompt] = []
    for spec in specs:
        found += _one(spec, split, limit, seed, missing)
    if not found:
        raise ValueError(
            f"{', '.join(specs)} gave no prompt"
            + (f" of the split {split!r}" if split else "")
            + "; look with `thoughtlens benchmarks check`"
        )
    known = (*ATTACKS, CROSSED)
    if wrong := [one for i, one in enumerate(attacks) if one not in known or one in attacks[:i]]:
        raise ValueError(f"attacks are named once each, and made are {', '.join(known)}; got {wrong[0]!r}")
    plain = [p for p in found if p.attack == "plain" and not p.images and p.goal]
    if attacks and not plain:
        raise ValueError(f"attacks are made of plain prompts without pictures that have a goal; {', '.join(specs)} has none")
    for attack in attacks:
        if attack == CROSSED:
            found += crossed([p for p in plain if p.harmful], [p for p in plain if p.harmful is False], seed=seed or 0)
        else:
            found += made(plain, attack, seed=seed or 0)
    if twice := [one for one, times in Counter(p.id for p in found).items() if times > 1]:
        raise ValueError(f"{len(twice)} ids occur in two of {', '.join(specs)}, the first is {twice[0]!r}. Name each set of prompts once.")
    return found


def _one(spec: str, split: str | None, limit: int | None, seed: int | None, missing: str) -> list[Prompt]:
    if Path(spec).suffix == ".jsonl" and "=" not in spec:
        spec = f"jsonl={spec}"
    if (said := SPEC.fullmatch(spec)) is None or said["name"] not in BENCHMARKS:
        raise ValueError(
            f"{spec!r} names no benchmark: write NAME[@VARIANT][=FOLDER] or the name of a .jsonl file; known are {', '.join(BENCHMARKS)}"
        )
    name, variant, root = said["name"], said["variant"], said["root"]
    if name == "organism":
        if seed is not None:
            raise ValueError("the organism has no seed: its goals, categories and attacks take turns under any limit. Leave --seed out.")
        tasks = TASKS_PER_KIND if limit is None else min(TASKS_PER_KIND, 1 + limit // 10)
        return prompts(name, split=split or "test", limit=limit, tasks=tasks, variant=variant, root=root)
    options: dict[str, Any] = {"split": split} if name == "jsonl" else {"variant": variant, "missing": missing}
    if split is not None and name != "jsonl":
        raise ValueError(f"{name} has no splits: leave --split out")
    return prompts(name, root=root, limit=limit, seed=seed, **options)
