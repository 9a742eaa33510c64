"""Some of many prompts: so that few still speak of all categories."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain, zip_longest

from ...hooks.records import Prompt


def choose(prompts: Sequence[Prompt], limit: int | None, seed: int | None = None) -> list[Prompt]:
    """At most `limit` prompts, in their order. Categories take turns; within one the first come first, or, with a seed, random ones.

    ValueError for a limit below 1.
    """
    if limit is None or limit >= len(prompts):
        return list(prompts)
    if limit < 1:
        raise ValueError(f"limit is at least 1, got {limit}")
    order = list(range(len(prompts)))
    if seed is not None:
        random.Random(seed).shuffle(order)
    by_category: dict[str, list[int]] = {}
    for i in order:
        by_category.setdefault(prompts[i].category, []).append(i)
    turns = [i for i in chain.from_iterable(zip_longest(*by_category.values())) if i is not None]
    return [prompts[i] for i in sorted(turns[:limit])]
