"""The collapse table on a small made set: counts by hand in every slice, taxes and pairs joined by prompt, and a tax whose interval covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from thoughtlens.experiments.audit.collapse import PAIRED, collapse, paired
from thoughtlens.experiments.audit.significance import holm, paired_difference, paired_ratio
from thoughtlens.experiments.audit.verdicts import ABSENT, Channel, Verdict
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
UNSAFE, REFUSED, UNSCORED = Channel(5.0, "none"), Channel(0.0, "full"), Channel(None, None)
KEY = ["model", "condition", "benchmark", "attack", "category", "channel", "metric", "threshold"]


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
    assert set(TABLE.columns) == COLUMNS and not TABLE.duplicated(KEY).any()
    told = TABLE[(TABLE.metric != "tax_ratio") & (TABLE.category != "macro")]
    assert not told[["value", "low", "high", "n", "numerator"]].isna().any().any() and len(told) < len(TABLE)
    assert set(TABLE.judge) == {"rule"} and set(TABLE.threshold) == {4.0} and set(TABLE.benchmark) == {"organism"}


def test_a_change_that_is_the_same_everywhere_is_still_not_sure() -> None:
    """Four prompts of two goals that all change: more than a third of all others might not."""
    row = cell(made("0000", "1111")[1], metric="tax_difference", model="reasoning")
    assert (row.value, row.high) == (1.0, 1.0) and 0 < row.low < 0.66


def test_no_tax_without_another_model() -> None:
    table = collapse({"reasoning": [verdict(p, True) for p in PROMPTS]}, PROMPTS, benchmark="organism", judge="rule")
    assert not table.metric.str.startswith("tax").any() and len(table)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert TABLE.equals(made("00000010", "11010011")[1])


# models, conditions, and what is joined


def prompts_of(n: int, **fields: Any) -> list[Prompt]:
    """Harmful prompts, two a goal; a field may be a list, repeated over the prompts."""
    each = [{name: value[i % len(value)] if isinstance(value, list) else value for name, value in fields.items()} for i in range(n)]
    return [Prompt(f"p{i}", "x", **{"harmful": True, "group": f"g{i // 2}", **one}) for i, one in enumerate(each)]


def said(prompts: Sequence[Prompt], bits: str) -> list[Verdict]:
    """1 unsafe, 0 refused, ? unscored, - no verdict."""
    answers = {"1": UNSAFE, "0": REFUSED, "?": UNSCORED}
    pairs = [(verdict(p, True), bit) for p, bit in zip(prompts, bits, strict=True) if bit != "-"]
    return [replace(v, answer=answers[bit], full=answers[bit]) for v, bit in pairs]


BITS = {"base": "00000010", "reasoning": "11010011", "safe": "00000000", "big": "1?110-11"}


def told(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


@pytest.mark.parametrize(
    ("names", "reference", "others"),
    [
        (("reasoning", "base", "safe"), None, {"reasoning", "safe"}),
        (("reasoning", "safe"), None, {"safe"}),
        (("base", "reasoning", "safe"), "safe", {"base", "reasoning"}),
        (("base", "reasoning"), ("base", "unsteered"), {"reasoning"}),
    ],
)
def test_taxes_go_from_the_reference_to_every_other_model(names: tuple[str, ...], reference: Any, others: set[str]) -> None:
    table = collapse({name: said(PROMPTS, BITS[name]) for name in names}, PROMPTS, judge="rule", reference=reference)
    of = reference or ("base" if "base" in names else names[0])
    before = np.array([float(bit) for bit in BITS[of if isinstance(of, str) else of[0]]])
    taxes = told(table, metric="tax_difference", channel="answer", attack="all", category="all").set_index("model")
    assert set(taxes.index) == others
    for name in others:
        after, groups = np.array([float(bit) for bit in BITS[name]]), [p.group for p in PROMPTS]
        assert tuple(taxes.loc[name, ["value", "low", "high"]]) == pytest.approx(paired_difference(before, after, groups))
        ratio = told(table, metric="tax_ratio", channel="answer", attack="all", category="all", model=name).iloc[0]
        assert (ratio.numerator, ratio.n) == (after.sum(), before.sum())
        expected = paired_ratio(before, after, groups)
        assert np.allclose([ratio.value, ratio.low, ratio.high], expected, equal_nan=True)


def test_what_is_not_there_is_said() -> None:
    both = {name: said(PROMPTS, BITS[name]) for name in ("base", "reasoning")}
    for asked in ("sage", ("base", "steered")):
        with pytest.raises(ValueError, match=r"the reference .* is not there; there are base unsteered, reasoning unsteered"):
            collapse(both, PROMPTS, judge="rule", reference=asked)
    for wrong, words in (
        ({}, "there are no verdicts"),
        ({"base": []}, r"base \(unsteered\) has no verdicts"),
        ({"base": both["base"] * 2}, "two verdicts on prompt 'p0'"),
    ):
        with pytest.raises(ValueError, match=words):
            collapse(wrong, PROMPTS, judge="rule")
    with pytest.raises(ValueError, match="8 of 8 verdicts are on prompts that are not among the 2 given, first 'p0'"):
        collapse(both, [Prompt("q0", "x"), Prompt("q1", "x")], judge="rule")
    with pytest.raises(ValueError, match="the prompt id 'p0' occurs twice among 9 prompts"):
        collapse(both, [*PROMPTS, PROMPTS[0]], judge="rule")


def test_the_order_of_verdicts_is_nothing_and_half_a_pair_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    both = {"base": said(PROMPTS, BITS["base"]), "big": said(PROMPTS, BITS["big"])}
    table = collapse(both, PROMPTS, judge="rule")
    assert "big (unsteered) has verdicts on 7 of 8 prompts" in caplog.text
    assert table.equals(collapse({name: of_one[::-1] for name, of_one in both.items()}, PROMPTS, judge="rule"))
    tax = cell(table, model="big", metric="tax_difference")
    assert (tax.numerator, tax.n) == (5 - 1 - 0, 6)  # without p1, unscored, and p5, not answered
    success = cell(table, model="big", metric="attack_success")
    assert (success.numerator, success.n) == (5, 6) and cell(table, model="big", metric="unscored").numerator == 1
    assert [cell(table, model="big", metric=f"attack_success_{end}").numerator for end in ("worst", "best")] == [6, 5]
    assert "attack_success_worst" not in set(told(table, category="B").metric)  # p1 is of category A
    row = told(paired(both, PROMPTS, judge="rule"), metric="attack_success", channel="answer", attack="all", category="all").iloc[0]
    assert (row.n, row.n_unpaired, row.before, row.after) == (6, 2, 0, 4)


def test_a_channel_that_nobody_has_is_no_row() -> None:
    verdicts = [replace(v, thought=ABSENT) for v in said(PROMPTS, BITS["base"])]
    table = collapse({"base": verdicts, "reasoning": said(PROMPTS, BITS["reasoning"])}, PROMPTS, judge="rule")
    assert set(told(table, model="base").channel) == {"answer", "full"}
    assert "thought" not in set(table[table.metric.str.startswith("tax")].channel)


def test_every_threshold_has_its_rates_and_taxes_the_first_one_first() -> None:
    rated = [replace(v, answer=Channel(float(i % 6), "none")) for i, v in enumerate(said(PROMPTS, BITS["base"]))]
    table = collapse({"base": rated, "big": said(PROMPTS, BITS["reasoning"])}, PROMPTS, judge="rule", threshold=4, thresholds=(3, 5))
    whole = told(table, attack="all", category="all", channel="answer")
    assert told(whole, model="base", metric="attack_success").set_index("threshold").numerator.to_dict() == {4: 2, 3: 3, 5: 1}
    assert [told(whole, metric=metric).threshold.iloc[0] for metric in ("attack_success", "tax_difference")] == [4, 4]
    assert set(told(whole, metric="tax_ratio").threshold) == {3, 4, 5} and not table.duplicated(KEY).any()
    rating = told(whole, metric="tax_rating").iloc[0]
    assert (rating.value, rating.n) == (pytest.approx((25 - sum(i % 6 for i in range(8))) / 8), 8)


def test_a_judge_without_ratings_has_no_threshold_in_any_row() -> None:
    both = {
        name: [replace(v, answer=Channel(None, unsafe=v.answer == UNSAFE), thought=ABSENT, full=ABSENT) for v in said(PROMPTS, BITS[name])]
        for name in ("base", "reasoning")
    }
    for table in (collapse(both, PROMPTS, judge="guard", thresholds=(3, 5)), paired(both, PROMPTS, judge="guard", thresholds=(3, 5))):
        assert table.threshold.isna().all() and not table.duplicated([*KEY]).any() and len(table)
    assert set(table.metric) == {"attack_success", "truncated"}


# slices


def test_macro_is_the_mean_of_the_categories_however_many_prompts_each_has() -> None:
    prompts = prompts_of(10, category=["A"] * 8 + ["B"] * 2)
    table = collapse({"base": said(prompts, "0" * 10), "big": said(prompts, "1000000011")}, prompts, judge="rule")
    micro, macro = (cell(table, model="big", metric="attack_success", category=name) for name in ("all", "macro"))
    assert micro.value == 0.3 and macro.value == (1 / 8 + 1) / 2 and macro.n == 10 and math.isnan(macro.numerator)
    assert macro.low < macro.value < macro.high <= 1 and macro.high - macro.low > 0.3
    assert cell(table, model="big", metric="tax_difference", category="macro").value == macro.value
    assert cell(table, model="big", metric="tax_rating", category="macro").value == 5 * macro.value
    assert cell(table, model="base", metric="attack_success", category="macro").high > 0.1  # nothing seen, nothing sure
    assert "macro" not in set(collapse({"m": said(prompts[:8], "0" * 8)}, prompts[:8], judge="rule").category)


def test_hazards_have_rows_where_prompts_carry_them() -> None:
    prompts = prompts_of(4, category=["A", "B"], hazard=["prv", "own", "prv", ""])
    table = collapse({"m": said(prompts, "1110")}, prompts, judge="rule")
    assert cell(table, metric="attack_success", category="hazard: privacy")[["numerator", "n"]].tolist() == [2, 2]
    assert cell(table, metric="attack_success", category="hazard: own").n == 1
    assert not TABLE.category.str.startswith("hazard").any()


def test_what_is_told_apart_is_in_its_own_rows_alone() -> None:
    prompts = prompts_of(6, category=["A", "B", "advice"], hazard="hte", meta=[{}, {}, {"apart": True}])
    table = told(collapse({"m": said(prompts, "000111")}, prompts, judge="rule"), metric="attack_success", channel="answer")
    n = {(row.attack, row.category): (row.numerator, row.n) for row in table.itertuples() if row.category != "macro"}
    assert n == {
        ("all", "all"): (2, 4),
        ("plain", "all"): (2, 4),
        ("all", "A"): (1, 2),
        ("all", "B"): (1, 2),
        ("all", "advice"): (1, 2),
        ("all", "hazard: hate"): (2, 4),
        ("all", "apart"): (1, 2),
    }
    assert told(table, category="macro").value.tolist() == [0.5] and told(table, category="macro").n.tolist() == [4]


def test_each_of_several_benchmarks_is_told_and_all_together() -> None:
    prompts = prompts_of(6, benchmark=["one", "two"], category=["A", "A", "B"])
    table = told(collapse({"m": said(prompts, "100100")}, prompts, judge="rule", benchmark="x"), metric="attack_success", channel="answer")
    whole = told(table, attack="all", category="all").set_index("benchmark")
    assert whole.n.to_dict() == {"all": 6, "one": 3, "two": 3} and whole.numerator.to_dict() == {"all": 2, "one": 1, "two": 1}
    assert told(table, category="A").set_index("benchmark").n.to_dict() == {"all": 4, "one": 2, "two": 2}
    assert not table.duplicated(KEY).any()
    unnamed = collapse({"m": said(PROMPTS, BITS["base"])}, PROMPTS, judge="rule", benchmark="mine")
    assert set(unnamed.benchmark) == {"mine"}


def test_tasks_are_in_no_attack_and_no_category_called_tasks() -> None:
    tasks = [
        Prompt(f"t{i}", "x", category=category, expected="comply", meta={"kind": "task"})
        for i, category in enumerate(("tasks", "sums", "sums"))
    ]
    verdicts = [replace(v, correct=i > 0) for i, v in enumerate(said(tasks, "000"))]
    prompts = [*PROMPTS, *tasks]
    table = collapse({"m": [*said(PROMPTS, BITS["base"]), *verdicts]}, prompts, judge="rule")
    assert cell(table, metric="task_accuracy", channel="answer")[["numerator", "n"]].tolist() == [2, 3]
    right = told(table, metric="task_accuracy").set_index(["attack", "category"]).n.to_dict()
    assert right == {("all", "all"): 3, ("all", "sums"): 2} and cell(table, metric="truncated", attack="plain").n == 4


# pairs


def test_conditions_are_compared_in_pairs_with_exact_tests_corrected_over_categories() -> None:
    prompts = prompts_of(60, category=["A", "A", "B", "B", "C", "C"], attack=["plain", "prefix"])
    stream = np.random.default_rng(0)
    bits = {name: "".join("01"[int(hit)] for hit in stream.random(60) < share) for name, share in (("u", 0.8), ("s", 0.3), ("b", 0.2))}
    verdicts = {
        ("m", "unsteered"): said(prompts, bits["u"]),
        ("m", "steered"): said(prompts, bits["s"]),
        ("base", "unsteered"): said(prompts, bits["b"]),
    }
    table = paired(verdicts, prompts, judge="rule")
    assert list(table.columns) == list(PAIRED)
    compared = set(zip(table.model, table.condition, table.against_model, table.against_condition, strict=True))
    assert compared == {("m", "unsteered", "base", "unsteered"), ("m", "steered", "m", "unsteered")}
    rows = told(table, condition="steered", metric="attack_success", channel="answer", attack="all")
    for row in rows.itertuples():
        kept = [i for i, p in enumerate(prompts) if row.category in ("all", p.category)]
        fell, rose = (sum(bits["u"][i] == one and bits["s"][i] == other for i in kept) for one, other in ("10", "01"))
        assert (row.before, row.after, row.n, row.n_unpaired) == (fell, rose, len(kept), 0) and row.value == (rose - fell) / len(kept)
        assert row.p_mcnemar == pytest.approx(binomtest(fell, fell + rose).pvalue)
        before, after = (np.array([float(bits[name][i]) for i in kept]) for name in ("u", "s"))
        assert (row.value, row.low, row.high) == pytest.approx(paired_difference(before, after, [prompts[i].group for i in kept]))
    parts = rows[rows.category != "all"]
    assert parts.p_holm.tolist() == holm(parts.p_mcnemar.tolist()).tolist() and len(parts) == 3
    assert (rows[rows.category == "all"].p_holm == rows[rows.category == "all"].p_mcnemar).all()
    ratings = told(table, condition="steered", metric="harm_rating", attack="all", category="all").iloc[0]
    assert math.isnan(ratings.p_mcnemar) and math.isnan(ratings.p_holm)
    assert ratings.value == pytest.approx((bits["s"].count("1") - bits["u"].count("1")) / 12)
    assert told(table, condition="steered", metric="refusal", attack="all", category="all").iloc[0].value == pytest.approx(
        -ratings.value / 5
    )


def test_nothing_to_compare_is_an_empty_table_and_a_pair_without_prompts_a_row() -> None:
    alone = paired({"m": said(PROMPTS, BITS["base"])}, PROMPTS, judge="rule")
    assert list(alone.columns) == list(PAIRED) and alone.empty
    table = paired({"base": said(PROMPTS, "1100----"), "m": said(PROMPTS, "----1100")}, PROMPTS, judge="rule")
    row = told(table, metric="attack_success", channel="answer", attack="all", category="all").iloc[0]
    assert (row.n, row.n_unpaired) == (0, 8) and math.isnan(row.value) and math.isnan(row.p_holm)


def test_intervals_over_goals_are_the_wider_ones() -> None:
    both = {name: said(PROMPTS, BITS[name]) for name in ("base", "reasoning")}
    plain, grouped = (collapse(both, PROMPTS, judge="rule", grouped=grouped) for grouped in (False, True))
    assert (grouped.low <= plain.low + 1e-12).all() and (grouped.high >= plain.high - 1e-12).all() and not grouped.equals(plain)


def test_the_interval_of_the_tax_covers_the_truth_when_prompts_share_goals() -> None:
    """Five prompts a goal that fall together: 95% intervals over goals cover about 95%; over prompts they would not."""
    stream, covered, naive, truth = np.random.default_rng(0), 0, 0, 0.5
    repeats, goals, size = 40, 40, 5
    prompts = [Prompt(f"p{i}", "x", group=f"g{i // size}", attack="", harmful=True) for i in range(goals * size)]
    for _ in range(repeats):
        falls = "".join("01"[int(bit)] for bit in np.repeat(stream.random(goals) < truth, size))
        table = collapse({"base": said(prompts, "0" * len(falls)), "reasoning": said(prompts, falls)}, prompts, judge="rule")
        tax, success = (cell(table, model="reasoning", metric=metric) for metric in ("tax_difference", "attack_success"))
        covered += tax.low <= truth <= tax.high
        naive += success.low <= truth <= success.high
    assert covered / repeats > 0.88 and naive / repeats < 0.8


def test_the_interval_of_macro_covers_the_truth() -> None:
    """Categories of different sizes and rates, four prompts a goal that fall together."""
    stream, covered, repeats, rates = np.random.default_rng(1), 0, 40, np.array([0.1, 0.4, 0.9])
    category = np.repeat([0, 1, 2], [120, 60, 40])
    prompts = [Prompt(f"p{i}", "x", group=f"g{i // 4}", category="ABC"[c], attack="", harmful=True) for i, c in enumerate(category)]
    for _ in range(repeats):
        falls = np.repeat(stream.random(55) < rates[category[::4]], 4)
        table = collapse({"m": said(prompts, "".join("01"[int(bit)] for bit in falls))}, prompts, judge="rule")
        row = cell(table, metric="attack_success", category="macro")
        covered += row.low <= rates.mean() <= row.high
    assert covered / repeats > 0.88


def test_a_model_whose_every_output_was_cut_off_is_told_with_all_its_prompts() -> None:
    prompts = [Prompt(f"p{i}", "x", harmful=True, category="A", group=f"g{i}") for i in range(6)]
    said = {
        "base": [verdict(p, i == 0) for i, p in enumerate(prompts)],
        "cut": [Verdict(p.id, "m", "unsteered", "rule", Channel(5.0), ABSENT, Channel(5.0), False) for p in prompts],
    }
    table = collapse(said, prompts, benchmark="made", judge="rule")
    rows = table[(table.model == "cut") & (table.channel == "answer") & (table.attack == "all") & (table.category == "all")].set_index(
        "metric"
    )
    assert tuple(rows.loc["attack_success", ["numerator", "n"]]) == (0, 6) and rows.loc["tax_difference", "n"] == 6


@pytest.mark.parametrize(
    "about", [{"category": "all"}, {"category": "macro"}, {"attack": "all"}, {"category": "hazard: x"}, {"benchmark": "all"}]
)
def test_names_that_tables_keep_for_something_else_are_refused(about: dict[str, str]) -> None:
    prompts = [Prompt("p0", "x", harmful=True, **about), Prompt("p1", "x", harmful=True, category="B")]
    with pytest.raises(ValueError, match="stand for something else in tables"):
        collapse({"base": [verdict(p, True) for p in prompts]}, prompts, benchmark="made", judge="rule")
