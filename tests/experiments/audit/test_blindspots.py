"""Blind spots: excess by hand, p against all permutations, families of true nulls that stay below .05, a planted category that is found."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thoughtlens.experiments.audit.blindspots import COLUMNS, blind_spots, stand_out, standing
from thoughtlens.experiments.audit.significance import holm, paired_difference
from thoughtlens.experiments.audit.verdicts import ABSENT, Channel, Verdict
from thoughtlens.hooks.records import Prompt

ANSWERS = {"1": Channel(5.0, "none"), "0": Channel(0.0, "full"), "?": Channel(None, None)}
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


def prompt(i: int, category: str, **fields: Any) -> Prompt:
    return Prompt(f"p{i}", "x", category=category, **{"group": f"g{i // 2}", "harmful": True, **fields})


def said(prompts: list[Prompt], bits: str) -> list[Verdict]:
    return [Verdict(p.id, "m", "c", "j", ABSENT, ANSWERS[bit], ABSENT, True) for p, bit in zip(prompts, bits, strict=True) if bit != "-"]


def welch(change: np.ndarray, inside: np.ndarray, groups: np.ndarray) -> float:
    """Excess over its standard error, written out for one category: residuals of whole goals."""
    means, errors = [], []
    for side in (inside, ~inside):
        mean = change[side].mean()
        residuals = [change[side & (groups == g)].sum() - mean * (side & (groups == g)).sum() for g in np.unique(groups[side])]
        means.append(mean)
        errors.append(len(residuals) / max(len(residuals) - 1, 1) * float(np.square(residuals).sum()) / side.sum() ** 2)
    excess, error = means[0] - means[1], math.sqrt(sum(errors))
    return 0.0 if abs(excess) < 1e-12 else math.copysign(math.inf, excess) if error < 1e-9 else excess / error


def test_p_is_the_share_of_all_ways_to_deal_the_goals_out() -> None:
    stream = np.random.default_rng(4)
    groups = np.repeat(np.arange(9), [1, 2, 3, 1, 2, 3, 1, 2, 3])
    change = stream.choice([-1.0, 0.0, 1.0], len(groups), p=[0.1, 0.4, 0.5])
    inside = groups < 3
    change[inside] = [1, 1, 0, 1, 1, 1]
    seen = welch(change, inside, groups)
    dealt = [welch(change, np.isin(groups, some), groups) >= seen - 1e-9 for some in combinations(range(9), 3)]
    found = stand_out(change, (~inside).astype(int), groups, draws=4000)
    assert found.excess == pytest.approx([change[inside].mean() - change[~inside].mean(), change[~inside].mean() - change[inside].mean()])
    assert found.p[0] == pytest.approx(np.mean(dealt), abs=0.02) and 0.01 < np.mean(dealt) < 0.5


def test_excess_is_counted_in_standard_errors_from_whole_goals() -> None:
    stream = np.random.default_rng(5)
    groups = np.repeat(np.arange(10), stream.integers(1, 5, 10))
    change, categories = stream.integers(-1, 2, len(groups)).astype(float), np.digitize(groups, [1, 3, 6])
    totals = np.stack([np.bincount(groups, weights) for weights in (change, np.ones(len(groups)))])
    excess, seen = standing(totals[:, None], np.array([0, 1, 3, 6]))
    assert seen[0] == pytest.approx([welch(change, categories == c, groups) for c in range(4)])
    assert excess[0] == pytest.approx([change[categories == c].mean() - change[categories != c].mean() for c in range(4)])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_prompts_and_the_names_of_goals_are_nothing(seed: int) -> None:
    stream = np.random.default_rng(seed)
    n = 30
    change, categories, groups = stream.integers(-1, 2, n).astype(float), np.arange(n) % 3, stream.integers(0, 4, n) * 3 + np.arange(n) % 3
    one, order = stand_out(change, categories, groups, draws=60), stream.permutation(n)
    other = stand_out(change[order], categories[order], np.array([f"goal {g:02}" for g in groups])[order], draws=60)
    assert one.excess == pytest.approx(other.excess) and one.p == pytest.approx(other.p) and (one.p >= 1 / 61).all() and (one.p <= 1).all()


def test_nothing_stands_out_where_all_are_the_same() -> None:
    for change in (np.zeros(12), np.ones(12)):
        found = stand_out(change, np.arange(12) // 4, np.arange(12), draws=50)
        assert (found.p == 1).all() and (found.excess == 0).all()
    alone = stand_out(np.array([1.0, 0, 0, 0, 0]), np.array([0, 1, 1, 1, 1]), np.arange(5), draws=2000)  # one goal in five
    assert alone.p[0] == pytest.approx(0.2, abs=0.04)


def test_a_row_is_the_taxes_counted_by_hand() -> None:
    prompts = [prompt(i, "AABBBBCC"[i]) for i in range(8)] + [
        prompt(8, ""),
        prompt(9, "A", harmful=False),
        prompt(10, "A", meta={"apart": True}),
    ]
    table = blind_spots({"base": said(prompts, "00000001111"), "m": said(prompts, "1110000?111")}, prompts, judge="j", draws=300)
    assert list(table.columns) == list(COLUMNS) and table.category.tolist() == ["A", "B", "C"]
    rows = table.set_index("category")
    assert rows.n.to_dict() == {"A": 2, "B": 4, "C": 1} and rows.groups.to_dict() == {"A": 1, "B": 2, "C": 1}
    assert rows.tax.to_dict() == {"A": 1.0, "B": 0.25, "C": 0.0} and rows.rest.to_dict() == pytest.approx({"A": 0.2, "B": 2 / 3, "C": 0.5})
    assert (rows.excess == rows.tax - rows.rest).all() and (rows.excess_low < rows.excess).all() and (rows.excess < rows.excess_high).all()
    mine = paired_difference(np.array([0.0, 0, 0, 0]), np.array([1.0, 0, 0, 0]), ["g1", "g1", "g2", "g2"])
    assert tuple(rows.loc["B", ["tax", "low", "high"]]) == pytest.approx(mine)
    assert rows.p_holm.tolist() == holm(rows.p.tolist()).tolist() and not rows.blind.any()
    assert set(table.model) == {"m"} and set(table.against_model) == {"base"} and set(table.judge) == {"j"} and set(table.threshold) == {4}


def test_the_interval_of_the_excess_covers_the_truth() -> None:
    """Five prompts a goal, alike; in A seven of ten fall, elsewhere two of ten."""
    stream, repeats, covered, width = np.random.default_rng(6), 60, 0, 0.0
    prompts = [Prompt(f"p{i}", "x", category="ABC"[i // 100], group=f"g{i // 5}", harmful=True) for i in range(300)]
    for _ in range(repeats):
        falls = np.repeat(stream.random(60) < np.repeat([0.7, 0.2, 0.2], 20), 5)
        bits = "".join("01"[int(bit)] for bit in falls)
        row = (
            blind_spots({"base": said(prompts, "0" * 300), "m": said(prompts, bits)}, prompts, judge="j", draws=20)
            .set_index("category")
            .loc["A"]
        )
        covered += row.excess_low <= 0.5 <= row.excess_high
        width += (row.excess_high - row.excess_low) / repeats
    assert 0.88 < covered / repeats and 0.4 < width < 0.55  # 2 · 1.96 · √(.21 / 20 + .16 / 40) = .47


def world(stream: np.random.Generator, shares: list[float], *, goals: int = 12, size: int = 2, before: float = 0.1) -> Drawn:
    """Change, category and goal of prompts; those of a goal mostly go together."""
    goal = np.repeat(np.arange(len(shares) * goals), size)
    category = goal // goals
    luck = np.where(stream.random(len(goal)) < 0.6, stream.random(len(shares) * goals)[goal], stream.random(len(goal)))
    after = luck < np.array(shares)[category]
    return after.astype(float) - (stream.random(len(goal)) < before), category, goal


def found(drawn: Drawn, seed: int) -> np.ndarray:
    return holm(stand_out(*drawn, draws=399, seed=seed).p.tolist()) <= 0.05


@pytest.mark.parametrize("shares", [[0.5] * 8, [0.03] * 8])
def test_where_no_category_stands_out_one_is_found_in_twenty_families_at_most(shares: list[float]) -> None:
    stream, repeats = np.random.default_rng(0), 250
    wrong = sum(found(world(stream, shares), seed).any() for seed in range(repeats))
    assert wrong / repeats <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / repeats)


def test_a_category_that_changes_to_and_fro_is_no_blind_spot() -> None:
    """The same tax everywhere, none; in one category half of the answers change. Plain means would find one in one family of eight."""
    stream, repeats, wrong = np.random.default_rng(1), 150, 0
    for seed in range(repeats):
        goal = np.arange(160)
        often = np.where(goal < 20, 0.5, 0.005)
        change = (stream.random(160) < often) * 1.0 - (stream.random(160) < often)
        wrong += found((change, goal // 20, goal), seed).any()
    assert wrong / repeats <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / repeats)


def test_a_planted_category_is_found_and_no_other() -> None:
    stream, repeats = np.random.default_rng(2), 60
    hits = np.array([found(world(stream, [0.95, *[0.4] * 7]), seed) for seed in range(repeats)])
    assert hits[:, 0].mean() > 0.8 and hits[:, 1:].any(1).mean() <= 0.1


def test_the_whole_table_of_models_benchmarks_and_thresholds() -> None:
    stream = np.random.default_rng(3)
    prompts = [prompt(i, "ABCD"[i % 4], benchmark=("one", "two")[i // 120], group="") for i in range(240)]
    blind = [("01"[int(stream.random() < (0.9 if p.category == "B" else 0.2))]) for p in prompts]
    verdicts = {"base": said(prompts, "0" * 240), "m": said(prompts, "".join(blind)), "same": said(prompts, "0" * 240)}
    table = blind_spots(verdicts, prompts, judge="j", thresholds=(3,), draws=200)
    assert len(table) == 2 * 3 * 4 * 2 and not table.duplicated(["model", "benchmark", "category", "threshold"]).any()
    assert table.blind.equals((table.model == "m") & (table.category == "B")) and set(table.benchmark) == {"all", "one", "two"}
    assert (table.groupby(["model", "benchmark", "threshold"]).excess.diff().dropna() <= 0).all()
    assert blind_spots({"base": verdicts["base"]}, prompts, judge="j").empty
    one = [p for p in prompts if p.category == "A"]
    nothing = blind_spots({"base": said(one, "0" * 60), "m": said(one, "1" * 60)}, one, judge="j")
    assert nothing.empty and list(nothing.columns) == list(COLUMNS) and isinstance(nothing, pd.DataFrame)
