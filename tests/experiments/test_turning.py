"""Decisions in thoughts of two lengths: what is compared with the key is what was found, and the page tells what the tables hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments import turning
from thoughtlens.experiments.benchmarks import prompts
from thoughtlens.experiments.organism.why import turned
from thoughtlens.experiments.run import open_run
from thoughtlens.hooks.generate import generate
from thoughtlens.hooks.model import LensModel, load
from thoughtlens.hooks.records import Transcript


@pytest.fixture(scope="module")
def reasoning() -> LensModel:
    return load(CHECKPOINTS / "reasoning", device="cpu")


@pytest.fixture(scope="module")
def thoughts(reasoning: LensModel) -> list[Transcript]:
    asked = [p for depth in turning.DEPTHS for p in prompts("organism", split="test", limit=3, depth=depth)]
    return generate(reasoning, asked, max_new_tokens=120, batch_size=12, progress=False)


def test_what_is_found_is_counted_against_the_key_by_depth(reasoning: LensModel, thoughts: list[Transcript]) -> None:
    study: Any = SimpleNamespace(model=lambda role: reasoning, plan=SimpleNamespace(seed=0))
    ends = {t.id: _questions(reasoning, t) for t in thoughts}  # the tokens "?" of the thought: each ends a question of the world
    assert any(len(places) == 2 for places in ends.values()) or any(places for places in ends.values())
    rows = {(r["depth"], r["metric"]): r for r in turning._keyed(study, thoughts, ends) if r["split"] == "test"}
    assert set(rows) == {(depth, metric) for depth in ("short", "long", "all") for metric in ("precision", "recall")}
    for (depth, _), row in rows.items():
        some = [t for t in thoughts if depth in ("all", t.prompt.meta["depth"])]
        assert row["value"] == 1 and row["n"] == sum(len(ends[t.id]) for t in some) and row["thoughts"] == len(some)
    nothing: dict[str, tuple[int, ...]] = {t.id: () for t in thoughts}
    missed = next(r for r in turning._keyed(study, thoughts, nothing) if r["metric"] == "recall" and r["split"] == "test")
    assert missed["value"] == 0


def _questions(lens: LensModel, transcript: Transcript) -> tuple[int, ...]:
    words = lens.tokenizer.convert_ids_to_tokens(list(transcript.output_ids))
    stop = words.index("</think>") if "</think>" in words else len(words)
    return tuple(i for i, word in enumerate(words[:stop]) if word == "?") if "<think>" in words else ()


def test_long_thoughts_decide_later(thoughts: list[Transcript], reasoning: LensModel) -> None:
    first = {depth: [] for depth in turning.DEPTHS}
    for t in thoughts:
        if _questions(reasoning, t):
            first[t.prompt.meta["depth"]].append(t.thought[: t.thought.index("?")].count(" ."))
    assert set(first["short"]) == {4} and set(first["long"]) <= {5, 6} and first["long"]


def test_the_page_tells_what_the_tables_hold(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", {"study": "none"})
    assert list(turned(run)) == []
    rate = {"low": 0.1, "high": 0.9, "n": 100}
    metrics = ("attack_success", "refusal", "over_refusal", "helpful", "truncated")
    rows = [
        {"attack": "all", "depth": depth, "condition": "steered at decisions", "metric": metric, "value": 0.25, **rate}
        for depth in turning.DEPTHS
        for metric in metrics
    ]
    run.write_table("turning", pd.DataFrame(rows))
    key = [
        {"split": "test", "depth": "all", "metric": m, "value": v, "low": 0.5, "high": 1.0, "n": 77}
        for m, v in (("precision", 0.91), ("recall", 0.82))
    ]
    run.write_table("turning_key", pd.DataFrame(key))
    readout = {
        "site": "resid_post.2",
        "split": "test",
        "auroc": 0.987,
        "low": 0.9,
        "high": 1.0,
        "n": 333,
        "n_decisions": 44,
        "chosen": True,
    }
    run.write_table("turning_readout", pd.DataFrame([{**readout, "control_auroc": 0.51, "number_auroc": 0.8, "token_auroc": 0.7}]))
    text = "\n".join(turned(run))
    assert "| test | all | 0.91 [0.50, 1.00] | 77 | 0.82 [0.50, 1.00] | 77 |" in text and "AUROC 0.987" in text and "n=333" in text
    assert text.count("| steered at decisions | 0.25 [0.10, 0.90]") == 2 and "shuffled labels 0.51" in text
