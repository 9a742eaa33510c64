"""Choosing a steering setting: the best on dev among those that do not over-refuse, every question asked once, test never touched."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from thoughtlens.experiments.benchmarks import prompts
from thoughtlens.experiments.judges.rule import judge
from thoughtlens.experiments.organism.thoughts import REFUSALS
from thoughtlens.experiments.organism.world import Goal
from thoughtlens.experiments.restoration import (
    HEADLINES,
    SOURCES,
    STRENGTHS,
    Setting,
    Workbench,
    choose,
    from_json,
    restored,
    rows_of,
    to_json,
)
from thoughtlens.hooks.gates import Always, AtSteps
from thoughtlens.hooks.records import Prompt, Transcript

DEV = prompts("organism", split="dev", limit=10)
PEAK = Setting(HEADLINES[1], "step_end[2]", ("resid_post.1",), 2.0, "steps")


@dataclass
class Bench:
    """Stands for the workbench: refusals grow with every answer that is that of PEAK; the strongest push refuses everything, benign or not."""

    says: Callable[..., Transcript]
    lens: Any = field(default_factory=lambda: SimpleNamespace(n_layers=3))
    tried: list[Setting] = field(default_factory=list)

    def vector(self, source: str, span: str) -> tuple[str, str]:
        if source.startswith("base"):
            raise ValueError("one side only")
        return source, span

    def write(self, asked: Sequence[Prompt], setting: Setting, vector: object) -> list[Transcript]:
        assert list(asked) == DEV and vector == (setting.source, setting.span)
        self.tried.append(setting)
        alike = sum(getattr(setting, name) == getattr(PEAK, name) for name in ("source", "span", "sites", "strength", "gate"))
        said = []
        for number, prompt in enumerate(asked):
            steps = " ".join(f"{i} {step} ." for i, step in enumerate(Goal(prompt.meta["action"], prompt.meta["object"]).recipe, 1))
            refused = setting.strength == max(STRENGTHS) or (prompt.harmful and number // 2 < 2 * alike)
            said.append(replace(self.says(prompt, "okay .", REFUSALS[0] if refused else f"here are the steps : {steps}"), fired=1 + number))
        return said

    verdicts = staticmethod(judge)


def test_the_best_setting_on_dev_is_chosen_and_every_setting_tried_once(says, caplog: pytest.LogCaptureFixture) -> None:
    bench, lines = Bench(says), []
    with caplog.at_level(logging.WARNING):
        choice = choose(bench, DEV, spans=("last_prompt", "step_end[2]"), told=lines.append)
    assert choice.setting == PEAK
    assert len(bench.tried) == len(set(bench.tried)) == len(lines)
    assert set(choice.table.condition) == {str(setting) for setting in bench.tried} and set(choice.table.split) == {"dev"}
    assert set(choice.others) == {name for name in SOURCES if not name.startswith("base") and name != PEAK.source}
    assert all(setting.source == name for name, setting in choice.others.items())
    assert {setting.strength for setting in bench.tried} == set(STRENGTHS)
    assert {setting.sites for setting in bench.tried} >= {(f"resid_post.{i}",) for i in range(3)} | {
        tuple(f"resid_post.{i}" for i in range(3))
    }
    assert any("no vector for base: harmful - benign" in message for message in caplog.messages)


@dataclass
class LastLayer(Bench):
    """Refusals come back at one token and in the last layer alone: pushed elsewhere, or harder, nothing does or everything is refused."""

    def write(self, asked: Sequence[Prompt], setting: Setting, vector: object) -> list[Transcript]:
        self.tried.append(setting)
        there = setting.span == "last_prompt" and setting.sites == ("resid_post.2",)
        said = []
        for prompt in asked:
            steps = " ".join(f"{i} {step} ." for i, step in enumerate(Goal(prompt.meta["action"], prompt.meta["object"]).recipe, 1))
            refused = there and (bool(prompt.harmful) or setting.strength > 1)
            said.append(self.says(prompt, "okay .", REFUSALS[0] if refused else f"here are the steps : {steps}"))
        return said


def test_a_moment_that_works_in_the_last_layer_alone_is_found(says) -> None:
    setting = choose(LastLayer(says), DEV, spans=("step_end[2]", "last_prompt")).setting
    assert (setting.span, setting.sites) == ("last_prompt", ("resid_post.2",)) and setting.strength <= 1


def test_refusing_everything_restores_nothing(says) -> None:
    bench = Bench(says)
    written = ((s, bench.write(DEV, s, (s.source, s.span))) for s in (replace(PEAK, strength=max(STRENGTHS)), PEAK))
    everything, peak = (rows_of(judge(said), said, s) for s, said in written)
    assert restored(everything) < 0 < restored(peak) == 1.0


def test_the_score_is_refusals_and_help_by_hand() -> None:
    def rows(refusal: float, helpful: float, over: float) -> list[dict[str, Any]]:
        values = {"refusal": refusal, "helpful": helpful, "over_refusal": over}
        return [
            {"metric": metric, "attack": attack, "value": value if attack == "all" else 0.0}
            for attack in ("plain", "all")
            for metric, value in values.items()
        ]

    assert restored(rows(0.8, 0.9, 0.08)) == pytest.approx(0.85)
    assert restored(rows(0.8, 0.9, 0.09)) == pytest.approx(-0.15)


def test_rows_tell_tokens_fired_in_their_own_slice(says) -> None:
    bench = Bench(says)
    said = bench.write(DEV, PEAK, (PEAK.source, PEAK.span))
    rows = rows_of(judge(said), said, PEAK, condition="steered", split="dev")
    for attack in ("all", *{p.attack for p in DEV}):
        kept = [t for t in said if attack in ("all", t.prompt.attack)]
        (row,) = [row for row in rows if row["attack"] == attack and row["metric"] == "truncated"]
        assert (row["fired"], row["n"], row["numerator"]) == (sum(t.fired for t in kept), len(kept), 0)


def test_rows_have_the_columns_of_the_design(says) -> None:
    bench = Bench(says)
    said = bench.write(DEV, PEAK, (PEAK.source, PEAK.span))
    design = "condition vector source site operator strength gate thought_mode split attack metric value low high n".split()
    for setting in (PEAK, None):
        for row in rows_of(judge(said), said, setting, condition="x", split="dev"):
            assert set(design) <= row.keys() and row["low"] <= row["value"] <= row["high"]
            assert (row["source"], row["strength"]) == ((PEAK.source, PEAK.strength) if setting else ("", 0.0))


def test_a_choice_survives_json(says) -> None:
    choice = choose(Bench(says), DEV, spans=("last_prompt",))
    written = json.loads(json.dumps(to_json(choice, {"base": "a", "safe": "b"})))
    assert from_json(written, {"base": "a", "safe": "b"}) == (choice.setting, choice.others)
    with pytest.raises(ValueError, match=r"other checkpoints \(safe differ\)"):
        from_json(written, {"base": "a", "safe": "c"})
    with pytest.raises(ValueError, match="does not hold steering settings"):
        from_json({"setting": {"span": "thought"}}, {})


def test_gates_by_name() -> None:
    bench = Workbench(None, {}, None, "rule", 1, 1)  # type: ignore[arg-type]
    assert isinstance(bench.gate("always"), Always) and isinstance(bench.gate("steps"), AtSteps)
    with pytest.raises(ValueError, match="unknown gate 'sometimes'; known are always, steps, probe"):
        bench.gate("sometimes")
