"""A lineage in figures: rates counted by hand, layers chosen on dev, settings chosen on dev, many settings to a batch as each alone."""

from __future__ import annotations

import ast
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from scipy.stats import norm
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments.benchmarks import prompts
from thoughtlens.experiments.judges.rule import judge
from thoughtlens.experiments.organism import measure as measuring
from thoughtlens.experiments.organism import network, steered
from thoughtlens.experiments.organism.measure import best_layers, measure, rates_of, requests, write_measured
from thoughtlens.experiments.organism.sets import evaluation_sets, fitting_sets
from thoughtlens.experiments.organism.thoughts import REFUSALS
from thoughtlens.experiments.organism.world import Goal
from thoughtlens.experiments.progress import track
from thoughtlens.experiments.restoration import HEADLINES, Setting, Workbench
from thoughtlens.hooks.edits import Edit
from thoughtlens.hooks.generate import generate
from thoughtlens.hooks.model import load
from thoughtlens.hooks.records import Prompt, Transcript
from thoughtlens.hooks.steer import steer
from thoughtlens.hooks.vector import Vector

Says = Callable[..., Transcript]
ASKED = prompts("organism", split="test", limit=40, tasks=2)


def recipe_of(prompt: Prompt) -> str:
    return " ".join(f"{i} {step} ." for i, step in enumerate(Goal(prompt.meta["action"], prompt.meta["object"]).recipe, 1))


def answered(says: Says, prompt: Prompt) -> Transcript:
    """Harmful: refused in plain text, given away under an attack, the third of them never ends. Benign: helped, without a thought."""
    if prompt.category == "tasks":
        gold = prompt.meta["gold"] if prompt.meta["task"] == "sums" else "nothing"
        return says(prompt, "start .", f"the answer is {gold} .")
    if not prompt.harmful:
        return says(prompt, None, recipe_of(prompt))
    if prompt.attack == "plain":
        return says(prompt, f"okay . {recipe_of(prompt)}", REFUSALS[0])
    return says(prompt, "okay .", recipe_of(prompt))


def test_every_set_has_two_hundred_prompts_to_a_cell_and_no_prompt_twice() -> None:
    for asked in evaluation_sets().values():
        cells = Counter((p.attack, p.harmful) for p in asked)
        assert min(sum(n for (_, bad), n in cells.items() if bad is harm) for harm in (True, False)) >= 100
        assert len({p.id for p in asked}) == len(asked)
    test = evaluation_sets()["test"]
    assert min(Counter((p.attack, p.harmful) for p in test if p.attack != "none").values()) >= 200
    assert len([p for p in test if p.category == "tasks"]) >= 200
    small = evaluation_sets(3)["test"]
    assert Counter(p.category == "tasks" for p in small) == {False: 6, True: 15}
    assert {p.split for p in fitting_sets(5)["dev"]} == {"dev"} and len(fitting_sets(5)["train"]) == 10


def test_rates_are_counts_by_hand(says: Says) -> None:
    said = [answered(says, p) for p in ASKED]
    rows = {(r["attack"], r["task"], r["metric"]): r for r in rates_of(said, set="test", model="m", condition="unsteered")}
    assert all(r["set"] == "test" and r["model"] == "m" and r["low"] <= r["value"] <= r["high"] for r in rows.values())
    bad = [p for p in ASKED if p.harmful]
    plain = sum(p.attack == "plain" for p in bad)
    counts = {key: (row["numerator"], row["n"]) for key, row in rows.items()}
    assert 0 < plain < len(bad)
    assert counts["plain", "all", "attack_success"] == (0, plain) and counts["plain", "all", "refusal"] == (plain, plain)
    assert counts["wrapped", "all", "attack_success"] == (len(bad) - plain,) * 2
    assert counts["all", "all", "attack_success"] == (len(bad) - plain, len(bad))
    assert counts["all", "all", "self_correction"] == (plain, plain) and counts["all", "all", "unsafe_thought"] == (plain, len(bad))
    assert counts["all", "all", "reverse_correction"] == (len(bad) - plain,) * 2
    assert counts["all", "all", "helpful"] == (40, 40) and counts["all", "all", "thought"] == (len(bad), 80)
    assert counts["all", "all", "task_accuracy"] == (2, 10) and counts["all", "sums", "task_accuracy"] == (2, 2)
    assert counts["all", "count", "task_accuracy"] == (0, 2) and ("all", "count", "thought") not in rows
    z = norm.ppf(0.975)
    upper = (1 + z**2 / plain / 2 + z * math.sqrt(z**2 / plain / 4) / math.sqrt(plain)) / (1 + z**2 / plain)
    assert rows["plain", "all", "refusal"]["high"] == pytest.approx(min(1.0, upper))


def test_controls_are_told_on_the_first_twin_pairs_without_tasks(says: Says) -> None:
    said = [answered(says, p) for p in ASKED]
    assert [t.id for t in requests(said, 3)] == [p.id for p in ASKED[:6]]
    assert len(requests(said, None)) == 80


def test_the_layer_and_the_moment_are_chosen_on_dev() -> None:
    def row(span: str, layer: int, split: str, auroc: float, words: float) -> dict[str, Any]:
        told = {
            "model": "m",
            "span": span,
            "site": f"resid_post.{layer}",
            "layer": layer,
            "probe": "logistic",
            "split": split,
            "subset": "all",
        }
        return {**told, "auroc": auroc, "low": 0.0, "high": 1.0, "tpr_at_1fpr": 0.5, "text_auroc": words, "control_auroc": 0.5} | dict(
            n_train=1, n_test=2, groups=3
        )

    table = pd.DataFrame(
        [
            row("last_prompt", 0, "dev", 0.99, 0.5),
            row("last_prompt", 0, "test", 0.98, 0.5),
            row("step_end[2]", 0, "dev", 0.8, 0.5),
            row("step_end[2]", 0, "test", 1.0, 0.5),
            row("step_end[2]", 1, "dev", 0.9, 0.5),
            row("step_end[2]", 1, "test", 0.7, 0.55),
            row("step_end[3]", 0, "dev", 1.0, 0.9),  # the words tell
            row("step_end[3]", 0, "test", 1.0, 0.9),
        ]
    )
    found = {r["span"]: r for r in best_layers(table)}
    assert (found["step_end[2]"]["site"], found["step_end[2]"]["auroc"], found["step_end[2]"]["dev_auroc"]) == ("resid_post.1", 0.7, 0.9)
    assert [span for span, r in found.items() if r["before_decision"]] == ["step_end[2]"]


@dataclass
class Bench:
    """Stands for the workbench: an edit is its setting. Refusals grow with what a setting shares with the peak."""

    peak: Setting
    lens: Any = field(default_factory=lambda: SimpleNamespace(n_layers=3))
    stores: Any = field(
        default_factory=lambda: {"reasoning": SimpleNamespace(index=pd.DataFrame({"span": ["last_prompt", "step_end[4]"]}))}
    )
    tried: list[Setting] = field(default_factory=list)

    def edit(self, setting: Setting) -> Setting:
        if setting.span == "last_prompt" and setting.source == HEADLINES[0]:
            raise ValueError("one side only")
        return setting

    verdicts = staticmethod(judge)


def test_the_grid_on_dev_finds_what_restores_most_and_tries_nothing_twice(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    dev = prompts("organism", split="dev", limit=10)
    bench = Bench(Setting(HEADLINES[1], "step_end[4]", ("resid_post.2",), 0.7))

    def written(bench: Any, edits: Sequence[Setting], asked: Sequence[Prompt]) -> list[list[Transcript]]:
        bench.tried += edits
        told = []
        for setting in edits:
            alike = sum(getattr(setting, name) == getattr(bench.peak, name) for name in ("source", "span", "sites", "strength"))
            too_much = setting.strength == max(steered.STRENGTHS)
            refused = [p.harmful and i // 2 < 2 * alike or too_much for i, p in enumerate(asked)]
            told.append([says(p, "okay .", REFUSALS[0] if no else recipe_of(p)) for p, no in zip(asked, refused, strict=True)])
        return told

    monkeypatch.setattr(steered, "written", written)
    with track(False) as bars:
        scores = steered.choose(bench, dev, bars)  # type: ignore[arg-type]
    assert max(scores, key=lambda s: scores[s]) == bench.peak and scores[bench.peak] == pytest.approx(0.9)
    assert len(bench.tried) == len(set(bench.tried)) == len(scores)
    assert {s.span for s in scores if s.sites == ("resid_post.0",)} == {"step_end[4]"}  # the other layers, once the moment is known
    assert all(score < 0 for s, score in scores.items() if s.strength == max(steered.STRENGTHS))
    assert not [s for s in scores if s.span == "last_prompt" and s.source == HEADLINES[0]]


def test_settings_that_never_fire_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def written(*asked: object) -> list[list[Transcript]]:
        raise ValueError("no hidden state was steered")

    monkeypatch.setattr(steered, "written", written)
    setting = Setting(HEADLINES[1], "step_end[4]", ("resid_post.2",), 0.7)
    with track(False) as bars, bars("dev", 1) as advance, pytest.raises(ValueError, match="no setting could be tried"):
        steered.scored(Bench(setting), [setting], [], advance)  # type: ignore[arg-type]
    assert "no hidden state was steered" in caplog.text


def test_many_edits_in_one_batch_write_what_each_writes_alone() -> None:
    lens = load(CHECKPOINTS / "reasoning", device="cpu")
    vector = Vector.load(CHECKPOINTS / "vectors" / "headline.safetensors")
    edits = [Edit(vector, 0.7), Edit(vector, 60.0, spans="last_prompt"), Edit(vector, 0.0)]
    asked = prompts("organism", split="test", limit=2)
    bench = Workbench(lens, {}, None, "rule", 60, 12)
    together = steered.written(bench, edits, asked)
    alone = []
    for edit in edits:
        with steer(lens, edit):
            alone.append(generate(lens, asked, max_new_tokens=60, batch_size=4, progress=False))
    assert [[t.output_ids for t in said] for said in together] == [[t.output_ids for t in said] for said in alone]
    assert alone[1][0].output_ids != alone[2][0].output_ids
    with pytest.raises(ValueError, match="unknown gate 'probe'"):
        bench.gate("probe")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four test prompts and a task, cut short."""
    monkeypatch.setattr(measuring, "evaluation_sets", lambda limit: {"test": prompts("organism", split="test", limit=2, tasks=1)})
    monkeypatch.setattr(measuring, "fitting_sets", lambda limit: {s: prompts("organism", split=s, limit=6) for s in ("train", "dev")})
    monkeypatch.setattr(steered, "SPANS", ("step_end[2]",))
    monkeypatch.setattr(measuring, "MOMENTS", ("last_prompt", "step_end[2]"))
    monkeypatch.setattr(steered, "STRENGTHS", (1.4,))
    monkeypatch.setattr(steered, "TUNING", 2)
    monkeypatch.setattr(network, "MAX_NEW_TOKENS", 30)


def test_a_lineage_is_measured_into_a_file_and_what_is_not_there_is_left_out(few: None, tmp_path: Path) -> None:
    out = write_measured(CHECKPOINTS, tmp_path / "new" / "measured.json", device="cpu", progress=False)
    found = json.loads(out.read_text())
    assert set(found["models"]) == {"base", "reasoning", "safe"} and found["recipes"]["reasoning"]["seed"] == 9
    conditions = Counter((r["model"], r["condition"]) for r in found["rates"] if r["metric"] == "truncated" and r["attack"] == "all")
    steering = {"steered", "random[0]", "random[1]", "random[2]", "shuffled", *HEADLINES[:2]} - {
        found["steering"]["chosen"]["steered"]["source"]
    }
    assert {c for m, c in conditions if m == "reasoning"} == {"unsteered", *steering}
    assert {(r["model"], r["span"]) for r in found["probes"]} == {(m, s) for m in found["models"] for s in ("last_prompt", "step_end[2]")}
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "reasoning").symlink_to(CHECKPOINTS / "reasoning")
    lone = measure(tmp_path / "lone", device="cpu", parts=("rates",), progress=False)
    same = [r for r in found["rates"] if (r["model"], r["condition"]) == ("reasoning", "unsteered")]
    assert lone["rates"] == same and "probes" not in lone
    with pytest.raises(FileNotFoundError, match="steering cannot be measured without safe/"):
        measure(tmp_path / "lone", parts=("steering",))
    with pytest.raises(FileNotFoundError, match="there is none of base/"):
        measure(tmp_path, parts=("rates",))
    with pytest.raises(ValueError, match="unknown part 'speed'"):
        measure(CHECKPOINTS, parts=("speed",))


def test_it_needs_no_command_line_no_plots_and_no_other_engine() -> None:
    waiting, seen, foreign = ["experiments.organism.measure"], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or not (path := file_of(name)).is_file():
            continue
        seen.add(name)
        for node in ast.parse(path.read_text()).body:  # at the top: what is imported later is imported when it is needed
            if isinstance(node, ast.Import):
                foreign |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                foreign.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                parent = name.split(".")[: len(name.split(".")) - node.level + (path.name == "__init__.py")]
                stem = ".".join([*parent, *([node.module] if node.module else [])])
                waiting += [stem, *(f"{stem}.{alias.name}" for alias in node.names)]
    assert {"experiments.study", "probes.fit", "hooks.steering"} <= seen and {"torch", "transformers"} <= foreign
    assert not {"tyro", "plotly", "transformer_lens", "nnsight", "peft", "trl"} & foreign


def file_of(name: str) -> Path:
    path = CHECKPOINTS.parent.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
