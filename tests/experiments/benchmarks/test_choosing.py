"""Some of many prompts: in order, categories in turn, the first of each or random ones that a seed brings back."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thoughtlens.experiments.benchmarks.choosing import choose
from thoughtlens.hooks.records import Prompt

PROMPTS = st.lists(st.sampled_from(["florp", "dax", "wug", ""]), max_size=30).map(
    lambda categories: [Prompt(str(n), "Florp?", category=category) for n, category in enumerate(categories)]
)


@given(PROMPTS, st.integers(1, 35), st.none() | st.integers(0, 9))
def test_few_prompts_are_in_order_and_speak_of_all_categories(prompts: list[Prompt], limit: int, seed: int | None) -> None:
    chosen = choose(prompts, limit, seed)
    kept = {p.id for p in chosen}
    assert chosen == [p for p in prompts if p.id in kept] and len(chosen) == min(limit, len(prompts)) == len(kept)
    there, taken = Counter(p.category for p in prompts), Counter(p.category for p in chosen)
    most = max(taken.values(), default=0)
    assert all(taken[category] in (most, most - 1, n) and taken[category] <= n for category, n in there.items())
    if seed is None:
        assert all(
            [p for p in prompts if p.category == category][: taken[category]] == [p for p in chosen if p.category == category]
            for category in there
        )
    assert chosen == choose(prompts, limit, seed)


def test_without_a_limit_all_of_them_and_another_seed_other_ones() -> None:
    prompts = [Prompt(str(n), "Florp?", category=str(n % 3)) for n in range(90)]
    assert choose(prompts, None, 1) == prompts
    found = [tuple(p.id for p in choose(prompts, 9, seed)) for seed in range(5)]
    assert len(set(found)) == 5 and all(Counter(prompts[int(i)].category for i in ids) == {"0": 3, "1": 3, "2": 3} for ids in found)
    with pytest.raises(ValueError, match="limit is at least 1, got 0"):
        choose(prompts, 0)
