"""Prompt sets by name, one loader a file: `prompts("organism", split="test")`, `prompts("figstep", root="FigStep", limit=50)`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ...hooks.records import Prompt
from . import (
    advbench,
    beavertails_v,
    figstep,
    hades,
    harmbench,
    jailbreakbench,
    jailbreakv,
    jsonl,
    mathvista,
    mis,
    mm_safetybench,
    mmvet,
    mossbench,
    mssbench,
    or_bench,
    organism,
    pope,
    redteam2k,
    salad,
    siuo,
    spa_vl,
    strongreject,
    vlguard,
    vlsbench,
    xstest,
)
from .benchmark import Benchmark, BenchmarkProblem, Root, load
from .choosing import choose

log = logging.getLogger(__name__)

_PUBLISHED = (
    figstep,
    mm_safetybench,
    jailbreakv,
    redteam2k,
    hades,
    mossbench,
    xstest,
    pope,
    salad,
    siuo,
    mssbench,
    vlguard,
    vlsbench,
    spa_vl,
    beavertails_v,
    mis,
    or_bench,
    advbench,
    harmbench,
    jailbreakbench,
    strongreject,
    mathvista,
    mmvet,
)
PUBLISHED: Mapping[str, Benchmark] = MappingProxyType({module.BENCHMARK.name: module.BENCHMARK for module in _PUBLISHED})
OWN: Mapping[str, Callable[..., list[Prompt]]] = MappingProxyType({"organism": organism.load, "jsonl": jsonl.load})
BENCHMARKS = (*OWN, *PUBLISHED)


def prompts(
    name: str,
    *,
    root: Root | None = None,
    variant: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    missing: str = "raise",
    **options: Any,
) -> list[Prompt]:
    """Load the prompts of a benchmark.

    root      where its published files lie: a folder, one file, or the rows of a `datasets` dataset
    variant   which of its dresses; None: the first that `thoughtlens benchmarks list` names
    limit     at most so many; categories take turns, the first ones of each, or random ones with `seed`
    missing   what to do about prompts whose picture is not there: "raise" names them all, "skip" leaves them out and says how many
    options   of the loader: split, tasks, wordings, depth of "organism" (whose limit is a number of pairs)

    ValueError for an unknown benchmark, variant or option, and for files that are not what was published.
    """
    if name in OWN:
        if name == "jsonl":
            options = {**options, "root": root, "seed": seed}
        elif root is not None or variant is not None or seed is not None:
            raise ValueError("the organism is made, not read: it takes split, limit, tasks, wordings and depth, no root, variant or seed")
        return OWN[name](limit=limit, **options)
    if name not in PUBLISHED:
        raise ValueError(f"unknown benchmark {name!r}; known are {', '.join(BENCHMARKS)}")
    if options:
        raise ValueError(f"{name} has no option {next(iter(options))!r}; it takes root, variant, limit, seed and missing")
    benchmark = PUBLISHED[name]
    if root is None:
        raise ValueError(f"{name} is read from its published files: give root=, the folder of {benchmark.home} or one of its files")
    found = load(benchmark, root, variant, keep=lambda all_of_them: choose(all_of_them, limit, seed))
    if found.missing and missing != "skip":
        raise BenchmarkProblem(
            f"{name}: {len(found.missing)} of {len(found.missing) + len(found.prompts)} prompts lack their picture: "
            f"{', '.join(found.missing.values())}. Put them there, or leave these prompts out with missing='skip'."
        )
    if found.missing:
        log.warning("%s: %d prompts are left out, their pictures are not there; %d are kept", name, len(found.missing), len(found.prompts))
    return found.prompts
