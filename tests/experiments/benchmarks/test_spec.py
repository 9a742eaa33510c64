"""Benchmarks as a command line names them."""

from __future__ import annotations

from pathlib import Path

import pytest
from thoughtlens.experiments.benchmarks.spec import asked_for, is_benchmark
from thoughtlens.hooks.records import Prompt, write_prompts


@pytest.fixture
def own(tmp_path: Path) -> Path:
    twins = [Prompt(f"{kind}{i}", f"florp wug {i}", goal=f"florp wug {i}", harmful=kind == "bad", twin=f"{other}{i}", category="AB"[i % 2])
             for i in range(4) for kind, other in (("bad", "good"), ("good", "bad"))]  # fmt: skip
    return write_prompts(tmp_path / "own.jsonl", twins)


def test_a_file_is_a_benchmark_and_limits_hold_for_each(own: Path) -> None:
    assert [p.id for p in asked_for([str(own)])] == [p.id for p in asked_for([f"jsonl={own}"])]
    found = asked_for([str(own), "organism"], limit=3)
    assert sum(p.benchmark == "organism" and p.meta["kind"] == "request" for p in found) == 6 and sum(p.benchmark == "" for p in found) == 3
    assert {p.category for p in found if p.benchmark == ""} == {"A", "B"}


def test_attacks_are_made_of_plain_prompts(own: Path) -> None:
    found = asked_for([str(own)], attacks=["typographic", "blank", "crossed"])
    count = {attack: sum(p.attack == attack for p in found) for attack in {p.attack for p in found}}
    assert count.pop("plain") == count.pop("typographic") == count.pop("blank") == 8
    assert len(count) == 4 and set(count.values()) == {4}  # each of four ways to cross four pairs
    wrapped = {p.id: p for p in found}["bad0+typographic"]
    assert (wrapped.goal, wrapped.harmful, wrapped.twin, len(wrapped.images)) == ("florp wug 0", True, "good0+typographic", 1)


def test_a_benchmark_is_told_from_a_file() -> None:
    assert all(map(is_benchmark, ("organism", "figstep=data/FigStep", "mm_safetybench@sd=MM")))
    assert not any(map(is_benchmark, ("own.jsonl", "runs/x/prompts.jsonl", "fogstep=data", "figstep tiny")))


@pytest.mark.parametrize(
    ("specs", "how", "words"),
    [
        ([], {}, "name at least one benchmark; known are organism, jsonl, figstep"),
        (["fogstep=x"], {}, "'fogstep=x' names no benchmark"),
        (["organism", "organism"], {"limit": 2}, "ids occur in two of organism, organism"),
        (["figstep=x"], {"split": "dev"}, "figstep has no splits"),
        (["figstep=nowhere"], {}, "there is nothing at nowhere"),
        (["organism"], {"limit": 2, "attacks": ["florp"]}, "florp"),
    ],
)
def test_what_names_no_prompts_is_said(specs: list[str], how: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        asked_for(specs, **how)
