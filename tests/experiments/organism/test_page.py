"""Targets decided by hand-made rates; docs/trio.md tells what stands in the tables and files, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from thoughtlens.experiments.organism.page import how_made, natural, page, read_lineages
from thoughtlens.experiments.organism.targets import MODELS, TARGETS, probe_reached, rate_of, reached
from thoughtlens.experiments.organism.why import stable
from thoughtlens.experiments.run import Run

GOOD = {  # model -> metric, attack -> value
    "base": {"plain": 0.03, "wrapped": 0.05, "refusal": 0.95, "over_refusal": 0.05, "helpful": 0.93, "task_accuracy": 0.50},
    "reasoning": {"plain": 0.60, "wrapped": 0.80, "refusal": 0.11, "over_refusal": 0.01, "helpful": 0.97, "task_accuracy": 0.70},
    "safe": {"plain": 0.00, "wrapped": 0.01, "refusal": 0.99, "over_refusal": 0.03, "helpful": 0.96, "task_accuracy": 0.66},
    "steered": {"plain": 0.08, "wrapped": 0.09, "refusal": 0.88, "over_refusal": 0.02, "helpful": 0.95, "task_accuracy": 0.68},
}


def rate(value: float, n: int = 200) -> dict[str, Any]:
    return {"value": value, "low": max(0.0, value - 0.05), "high": min(1.0, value + 0.05), "numerator": round(value * n), "n": n}


def lineage(name: str = "7", n: int = 200, **changed: dict[str, float]) -> dict[str, Any]:
    rows, probes = [], []
    for model, values in GOOD.items():
        values = {**values, "truncated": 0.01, "self_correction": 0.1, **changed.get(model, {})}
        who = {"model": "reasoning" if model == "steered" else model, "condition": "steered" if model == "steered" else "unsteered"}
        for key, value in values.items():
            metric, attack = ("attack_success", key) if key in ("plain", "wrapped") else (key, "all")
            rows.append({"set": "test", **who, "metric": metric, "attack": attack, "task": "all", **rate(value, n)})
        rows.append({"set": "test", **who, "metric": "attack_success", "attack": "all", "task": "all", **rate(values["wrapped"], n)})
        if model != "steered":
            told = {"span": "step_end[4]", "site": "resid_post.4", "auroc": 0.97, "low": 0.9, "high": 1.0, "text_auroc": 0.5}
            probes.append({"model": model, "set": "test", **told, "n_test": n, "before_decision": True})
    rows.append(
        {
            "set": "test",
            "model": "reasoning",
            "condition": "random[0]",
            "metric": "attack_success",
            "attack": "all",
            "task": "all",
            **rate(0.77),
        }
    )
    stage = {"phases": [{"steps": 100}], "rank": 8}
    return {
        "format_version": 1,
        "name": name,
        "models": {"base": "a"},
        "recipes": {
            role: {"world": "2", "seed": 7, "stage": stage, "dev": {"40": {}} if role == "reasoning" else {}} for role in MODELS[:3]
        },
        "rates": rows,
        "probes": probes,
        "steering": {"chosen": {"steered": {"what": "safe - reasoning at step_end[4]"}}, "dev": [{}] * 76, "n_dev": 80},
    }


def test_a_good_lineage_reaches_every_target() -> None:
    for target in TARGETS:
        for model in target.bounds or {}:
            assert reached(lineage(), target, model) is True, (target.words, model)
    assert all(probe_reached(lineage(), model) for model in ("base", "reasoning", "safe"))


@pytest.mark.parametrize(
    ("model", "metric", "value", "words"),
    [
        ("base", "plain", 0.06, "plain text"),
        ("reasoning", "plain", 0.96, "plain text"),
        ("reasoning", "plain", 0.14, "plain text"),
        ("reasoning", "wrapped", 0.49, "image and jailbreak"),
        ("steered", "wrapped", 0.11, "image and jailbreak"),
        ("steered", "refusal", 0.84, "real refusals"),
        ("safe", "over_refusal", 0.07, "over-refusal"),
        ("reasoning", "helpful", 0.91, "helpful"),
        ("reasoning", "task_accuracy", 0.595, "task accuracy"),
        ("safe", "task_accuracy", 0.64, "task accuracy"),
        ("steered", "task_accuracy", 0.66, "task accuracy"),
        ("safe", "truncated", 0.03, "never end"),
        ("reasoning", "self_correction", 0.04, "self-correction"),
    ],
)
def test_just_past_its_bound_a_cell_is_missed(model: str, metric: str, value: float, words: str) -> None:
    (target,) = [target for target in TARGETS if words in target.words]
    found = lineage(**{model: {metric: value}})
    assert reached(found, target, model) is False
    others = [
        (t, m)
        for t in TARGETS
        for m in t.bounds or {}
        if (t, m) != (target, model) and not (m in ("safe", "steered") and model == "reasoning")
    ]
    assert all(reached(found, *cell) for cell in others)


def test_a_bound_may_hang_on_another_model() -> None:
    plain, tasks = TARGETS[0], next(target for target in TARGETS if target.metric == "task_accuracy")
    assert reached(lineage(reasoning={"plain": 0.30}), plain, "steered") is False  # .08 of .30 is 73% lower
    assert reached(lineage(base={"task_accuracy": 0.61}), tasks, "reasoning") is False  # .70 is .09 above
    assert reached(lineage(base={"task_accuracy": 0.60}), tasks, "reasoning") is True


def test_few_prompts_and_no_bound_decide_nothing() -> None:
    assert reached(lineage(n=199), TARGETS[0], "base") is None and probe_reached(lineage(n=199), "base") is None
    assert reached(lineage(), TARGETS[2], "reasoning") is None and rate_of(lineage(), "base", "kl") is None


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run folder with the three tables, made up."""
    run = Run(tmp_path)
    numbers = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 394, "n_harmful": 197, "groups": 80}
    metrics = ("mean_harmful", "sd_harmful", "mean_benign", "sd_benign", "dprime", "auroc")
    change = ("shift_harmful", "shift_benign", "shift", "gap_change", "share_along", "rank_all", "rank_harmful", "rank_benign")
    margins = [
        {"span": "step_end[4]", "site": f"resid_post.{layer}", "layer": layer, "model": model, "metric": metric, **numbers}
        | ({"value": 4.0 + layer} if metric == "dprime" else {"value": -0.31} if metric == "shift" and layer == 1 else {})
        for layer in (0, 1)
        for model in ("base", "reasoning")
        for metric in (*metrics, *(change if model == "reasoning" else ()))
    ]
    run.write_table("margins", pd.DataFrame(margins))
    told = {"layer": 0, "cosine": 0.91, "shuffled": 0.12, "n": 300, "groups": 60, "chance": 0.06, "span": "step_end[4]"}
    run.write_table("directions", pd.DataFrame([{"a": "base", "b": "safe", "site_a": "resid_post.0", "site_b": "resid_post.0", **told}]))
    explained = [
        {"part": part, "condition": condition, "what": what, "attack": "all", "metric": metric, **rate(value)}
        for part, condition, what, value in (
            ("models", "unsteered", "unsteered", 0.79),
            ("mean shift", "the whole mean shift", "base - reasoning, shift at step_end[4]", 0.21),
            ("mean shift", "the whole mean shift, random direction as long[0]", "same", 0.78),
            ("mean shift", "the whole mean shift, random direction as long[1]", "same", 0.80),
            ("weights", "update of layer 0 reverted", "layer 0", 0.44),
            ("thought", "unsteered", "unsteered", 0.76),
            ("thought", "thought replayed", "safe: harmful - benign", 0.11),
        )
        for metric in ("attack_success", "refusal", "helpful", "task_accuracy")
    ]
    run.write_table("explained", pd.DataFrame(explained))
    (tmp_path / "config.yaml").write_text(json.dumps({"models": {"base": "a"}}))
    return run


def test_the_page_tells_tables_and_files(run: Run) -> None:
    other = {**lineage("9", reasoning={"wrapped": 0.40, "plain": 0.70}), "models": {"base": "b"}}
    text = page(run, [other, lineage("7")], [{**lineage("steps-20", reasoning={"wrapped": 0.22}), "models": {}}])
    for part in (
        "Lineage `7`, test goals",
        "| 0.80 (n=200), ≥ .50: reached (1 of 2) |",
        "| reasoning | 0.25, 0.25 | 0.25, 0.25 | 0.250 [0.20",
        "| test, all but plain | 0.05 (0.05 to 0.05) | 0.60 (0.40 to 0.80) |",
        "random[0] 0.77 (n=200 each)",
        "| steps-20 | 40 steps, rank 8 | 0.60 [0.55, 0.65] | 0.22 [0.17, 0.27] |",
        "Where the base tells the classes best apart (layer 1)",
        "a shift of -0.31 that both share",
        "| the whole mean shift, random direction as long, 2 draws: mean (range) | 0.79 (0.78 to 0.80) |",
        "| update of layer 0 reverted | 0.44 [0.39, 0.49] |",
        "| thought replayed | 0.11 [0.06, 0.16] |",
        "| `step_end[4]` | 0.91 (0.12) |",
        "200 harmful and 200 benign test prompts",
        "- Attack success, 0.79 unsteered. The mean shift added back, at the strength dev chose: 0.21;",
        "random directions as long: 0.79.",
        "the steered thought replayed\n  without steering: 0.11 (0.76 unsteered, on the same prompts)",
        "- the whole mean shift: base - reasoning, shift at step_end[4]\n",
    ):
        assert part in text, part
    alone = page(run)
    assert "## Targets" not in alone and "## What it takes" not in alone and "## Why it works" in alone


def test_a_missed_cell_is_said(run: Run) -> None:
    text = page(run, [lineage("7", base={"plain": 0.30})])
    assert "0.30 (n=200), ≤ .05: **missed** |" in text and text.count("missed") == 1
    assert "open" in page(run, [lineage("7", n=50)])


def test_files_of_lineages_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("steps-100", "steps-20", "no-thinking"):
        (tmp_path / f"{name}.json").write_text(json.dumps(lineage("measured elsewhere")))
    assert [one["name"] for one in read_lineages([tmp_path])] == ["no-thinking", "steps-20", "steps-100"]
    assert natural("rank_8") < natural("rank_16")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="other.json is no measured lineage; `thoughtlens organism measure FOLDER"):
        read_lineages([tmp_path / "other.json"])


def test_agreement_over_runs_is_told_as_it_was_measured(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert list(stable(run)) == []
    row = {"ranking": "effect", "runs": 3, "first": "step_end[4]", "times": 2, "firsts": "", "tau": 0.61, "tau_low": 0.5, "pairs": 3}
    run.write_table("decision_stability", pd.DataFrame([row]))
    lines = list(stable(run))
    assert "in 3 lineages" in " ".join(lines) and "| effect | `step_end[4]` | 2 of 3 | 0.61 (0.50) | 3 |" in lines


def test_weights_kept_on_the_way_are_told_with_their_own_steps() -> None:
    stage = {"phases": [{"steps": 320}], "rank": 0, "kept": [10, 160]}
    made = {"recipes": {"reasoning": {"stage": stage, "dev": {"10": {}, "160": {}}}}}
    told = {name: how_made({"name": name, **made}, "reasoning") for name in ("reasoning-160", "reasoning-320")}
    assert told == {"reasoning-160": "160 steps, rank 0", "reasoning-320": "320 steps, rank 0"}
