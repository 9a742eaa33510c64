"""The collapse table on a small made set: counts by hand in every slice, and a tax whose interval covers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from thoughtlens.experiments.collapse import collapse
from thoughtlens.experiments.verdicts import Channel, Verdict
from thoughtlens.hooks.records import Prompt

COLUMNS = {
    "model",
    "condition",
    "benchmark",
    "attack",
    "category",
    "channel",
    "metric",
    "value",
    "low",
    "high",
    "numerator",
    "n",
    "judge",
    "threshold",
}
UNSAFE, REFUSED = Channel(5.0, "none"), Channel(0.0, "full")


def verdict(prompt: Prompt, unsafe: bool) -> Verdict:
    answer = UNSAFE if unsafe else REFUSED
    return Verdict(prompt.id, "m", "unsteered", "rule", Channel(0.0, "none"), answer, answer, True)


def made(base: str, reasoning: str) -> tuple[list[Prompt], pd.DataFrame]:
    """Harmful prompts, two a goal, from strings of 1 (unsafe) and 0 (refused); attacks alternate, the first half is of category A."""
    n = len(base)
    prompts = [
        Prompt(f"p{i}", "x", attack=("plain", "prefix")[i % 2], category="AB"[2 * i >= n], group=f"g{i // 2}", harmful=True)
        for i in range(n)
    ]
    said = {
        name: [verdict(p, bit == "1") for p, bit in zip(prompts, bits, strict=True)]
        for name, bits in (("base", base), ("reasoning", reasoning))
    }
    return prompts, collapse(said, prompts, benchmark="organism", judge="rule")


PROMPTS, TABLE = made("00000010", "11010011")


def cell(table: pd.DataFrame = TABLE, **wanted: str) -> pd.Series:
    for name, value in {"channel": "answer", "attack": "all", "category": "all", **wanted}.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize(
    ("where", "base", "reasoning"),
    [
        ({}, (1, 8), (5, 8)),
        ({"attack": "plain"}, (1, 4), (2, 4)),
        ({"attack": "prefix"}, (0, 4), (3, 4)),
        ({"category": "A"}, (0, 4), (3, 4)),
        ({"category": "B"}, (1, 4), (2, 4)),
    ],
)
def test_every_slice_is_counted_by_hand(where: dict[str, str], base: tuple[int, int], reasoning: tuple[int, int]) -> None:
    for model, count in (("base", base), ("reasoning", reasoning)):
        row = cell(model=model, metric="attack_success", **where)
        assert (
            (row.numerator, row.n, row.value) == (*count, count[0] / count[1]) and row.low <= row.value <= row.high and row.low < row.high
        )
        assert cell(model=model, metric="refusal", **where).numerator == count[1] - count[0]
    tax = cell(model="reasoning", metric="tax_difference", **where)
    assert (tax.numerator, tax.n, tax.value) == (reasoning[0] - base[0], base[1], (reasoning[0] - base[0]) / base[1])
    assert tax.low <= tax.value <= tax.high


def test_the_table_has_the_columns_of_the_design() -> None:
    assert set(TABLE.columns) == COLUMNS and not TABLE[["value", "low", "high", "n"]].isna().any().any()
    assert not TABLE.duplicated(["model", "condition", "attack", "category", "channel", "metric"]).any()
    assert set(TABLE.judge) == {"rule"} and set(TABLE.threshold) == {4.0} and set(TABLE.benchmark) == {"organism"}


def test_a_change_that_is_the_same_everywhere_has_no_width() -> None:
    row = cell(made("0000", "1111")[1], metric="tax_difference", model="reasoning")
    assert (row.value, row.low, row.high) == (1.0, 1.0, 1.0)


def test_no_tax_without_both_models() -> None:
    table = collapse({"reasoning": [verdict(p, True) for p in PROMPTS]}, PROMPTS, benchmark="organism", judge="rule")
    assert "tax_difference" not in set(table.metric) and len(table)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert TABLE.equals(made("00000010", "11010011")[1])


def test_the_interval_of_the_tax_covers_the_truth_when_prompts_share_goals() -> None:
    """Five prompts a goal that fall together: 95% intervals over goals cover about 95%; over prompts they would not."""
    stream, covered, naive, truth = np.random.default_rng(0), 0, 0, 0.5
    repeats, goals, size = 80, 40, 5
    for _ in range(repeats):
        falls = np.repeat(stream.random(goals) < truth, size)
        prompts = [Prompt(f"p{i}", "x", category="A", group=f"g{i // size}", harmful=True) for i in range(goals * size)]
        said = {
            "base": [verdict(p, False) for p in prompts],
            "reasoning": [verdict(p, bool(f)) for p, f in zip(prompts, falls, strict=True)],
        }
        table = collapse(said, prompts, benchmark="organism", judge="rule")
        tax, success = (cell(table, model="reasoning", metric=metric) for metric in ("tax_difference", "attack_success"))
        covered += tax.low <= truth <= tax.high
        naive += success.low <= truth <= success.high
    assert covered / repeats > 0.88 and naive / repeats < 0.8
