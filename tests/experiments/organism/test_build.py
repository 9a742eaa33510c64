"""From nothing to the trio: every stage written with its record, kept when nothing changed, trained again when something did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from thoughtlens.experiments.organism import build as module
from thoughtlens.experiments.organism import network, pictures, thoughts
from thoughtlens.experiments.organism.build import RECORD, STAGES, build, shortened
from thoughtlens.hooks.files import sha256_of
from thoughtlens.hooks.model import load
from transformers import PreTrainedTokenizerFast


@pytest.fixture
def trio(quick_trio: Path, tmp_path: Path) -> Path:
    """A copy of the quick trio that may be changed."""
    return Path(shutil.copytree(quick_trio, tmp_path / "trio"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Training is only noted: mixtures in the order in which they would have been trained."""
    noted: list[str] = []
    monkeypatch.setattr(module, "train", lambda model, words, phase, *_, **__: noted.append(phase.mixture) or 0.0)
    yield noted


def weights(folder: Path) -> str:
    return sha256_of(folder / "model.safetensors")


def test_every_stage_is_written_with_its_record(quick_trio: Path) -> None:
    for name, stage in STAGES.items():
        record = json.loads((quick_trio / name / RECORD).read_text())
        assert record["recipe"]["seed"] == 9 and record["recipe"]["stage"]["start"] == stage.start
        assert set(record["final_loss"]) == {phase.mixture for phase in stage.phases} and record["threads"] == 1
        assert bool(record["dev"]) == bool(stage.stops)
        lens = load(quick_trio / name)
        assert (lens.dialect.name, lens.n_layers, lens.width) == ("think", 6, 192)
    assert len({weights(quick_trio / name) for name in STAGES}) == len(STAGES)


def test_dev_is_measured_where_reasoning_may_stop(quick_trio: Path) -> None:
    (found,) = json.loads((quick_trio / "reasoning" / RECORD).read_text())["dev"].values()
    assert found["n_harmful"] == found["n_benign"] == 100 and 0 <= found["attack_success"] <= 1


def test_the_safe_stage_changes_the_decoder_alone(quick_trio: Path) -> None:
    before, after = (load_file(quick_trio / name / "model.safetensors") for name in ("reasoning", "safe"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.endswith("_proj.weight") and "visual" not in name for name in changed)


def test_a_second_start_trains_nothing(trio: Path, trained: list[str]) -> None:
    before = {name: weights(trio / name) for name in STAGES}
    build(trio, quick=True, progress=False)
    assert trained == [] and {name: weights(trio / name) for name in STAGES} == before


def test_a_changed_recipe_trains_its_stage_again(trio: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    phase = STAGES["safe"].phases[0]
    monkeypatch.setitem(module.STAGES, "safe", replace(STAGES["safe"], phases=(replace(phase, rate=phase.rate / 2),)))
    build(trio, quick=True, progress=False)
    assert trained == ["safe"]
    assert json.loads((trio / "safe" / RECORD).read_text())["recipe"]["stage"]["phases"][0]["rate"] == phase.rate / 2
    build(trio, quick=True, progress=False)
    assert trained == ["safe"]


def test_another_seed_trains_again(trio: Path, trained: list[str]) -> None:
    build(trio, seed=8, stages=("safe",), quick=True, progress=False)
    assert trained == ["safe"]


def test_a_changed_parent_trains_its_child_again(trio: Path, trained: list[str]) -> None:
    shutil.copy(trio / "base" / "model.safetensors", trio / "reasoning" / "model.safetensors")
    build(trio, stages=("safe",), quick=True, progress=False)
    assert trained == ["safe"]


def test_a_damaged_stage_is_built_again(trio: Path, trained: list[str]) -> None:
    file = trio / "base" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    build(trio, stages=("base",), quick=True, progress=False)
    assert trained == [phase.mixture for phase in STAGES["base"].phases]
    (trio / "safe" / "model.safetensors").unlink()
    build(trio, stages=("safe",), quick=True, progress=False)
    assert trained[-1] == "safe" and load(trio / "safe").n_layers == 6


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [(thoughts, "OPENINGS", thoughts.OPENINGS[::-1]), (pictures, "CELL", pictures.CELL - 1)],
    ids=["words", "pictures"],
)
def test_other_examples_train_again(
    part: ModuleType, name: str, value: object, trio: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of how the world speaks or looks reaches the weights, so it is part of the recipe."""
    monkeypatch.setattr(part, name, value)
    build(trio, stages=("safe",), quick=True, progress=False)
    assert trained == ["safe"]


def test_an_interrupted_build_keeps_its_stages_and_goes_on(trio: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("reasoning", "safe"):
        shutil.rmtree(trio / name)
    noting = module.train

    def interrupted(*args: object, **options: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(trio, quick=True, progress=False)
    assert not (trio / "reasoning" / RECORD).exists()
    monkeypatch.setattr(module, "train", noting)
    build(trio, quick=True, progress=False)
    assert trained == ["reasoning", "safe"]


def test_a_missing_start_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match="stage 'safe' starts from .*reasoning, which is not built. Build it first: thoughtlens organism build --stage reasoning",
    ):
        build(tmp_path / "new", stages=("safe",), quick=True, progress=False)


def test_an_unknown_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown stage 'wise'; there are language, base, reasoning, safe"):
        build(tmp_path / "new", stages=("wise",), progress=False)


def test_the_same_seed_gives_the_same_weights(quick_trio: Path, tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    again = build(tmp_path, stages=("language",), quick=True, progress=False)
    assert weights(again / "language") == weights(quick_trio / "language")
    start, learned = network.network(words, seed=9).lm_head.weight, load(quick_trio / "language").model.lm_head.weight
    assert not torch.equal(start.bfloat16().float(), learned)


def test_quick_keeps_every_phase_and_shortens_it() -> None:
    for stage in STAGES.values():
        quick = shortened(stage)
        assert (
            [p.mixture for p in quick.phases] == [p.mixture for p in stage.phases]
            and quick.rank == stage.rank
            and bool(quick.stops) == bool(stage.stops)
        )
        assert all(2 <= q.steps <= p.steps / 10 and q.batch <= p.batch for q, p in zip(quick.phases, stage.phases, strict=True))
        assert all(stop == quick.phases[-1].steps for stop in quick.stops)
