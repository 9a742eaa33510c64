"""`thoughtlens steer` and `thoughtlens vector`: what the API does, in a folder that survives being killed; what cannot be done is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from thoughtlens.experiments import prompting
from thoughtlens.experiments.steering import Asked, gate_of, steering
from thoughtlens.experiments.vectoring import rows_of, vectoring
from thoughtlens.hooks.capture import capture
from thoughtlens.hooks.gates import Always, AtSteps, FirstTokens
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.modes import thought_modes
from thoughtlens.hooks.provenance import facts_of
from thoughtlens.hooks.records import read_prompts, read_transcripts, write_prompts
from thoughtlens.hooks.select import Select
from thoughtlens.hooks.steer import Edit
from thoughtlens.hooks.vector import Vector
from thoughtlens.probes import steering_vector
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

MODES = ("regenerated", "none", "released")


@pytest.fixture
def vector(tmp_path: Path) -> Path:
    """A vector made for the tiny model, which recommends how it is used."""
    lens = tiny_lens()
    value = torch.randn(32, generator=torch.Generator().manual_seed(0))
    made = Vector({"resid_post.0": value, "resid_post.1": value}, "answer", source="test", header={"made_for": facts_of(lens)})
    return made.recommend(strength=2.0, chosen_on="dev", spans=["last_prompt", "answer"]).save(tmp_path / "v.safetensors")


@pytest.fixture
def asked(tmp_path: Path, vector: Path) -> Asked:
    file = write_prompts(tmp_path / "asked" / "prompts.jsonl", tiny_prompts(5, images=(0, 1)))
    return Asked(vector, prompts=str(file), sites=("resid_post.1",), modes=MODES, max_new_tokens=6, batch_size=2)


def done(folder: Path, asked: Asked) -> dict[str, bytes]:
    steering(folder, asked, tiny_lens, progress=False)
    return {path.name: path.read_bytes() for path in sorted((folder / "transcripts").iterdir())}


def test_it_is_thought_modes_chunk_by_chunk(tmp_path: Path, asked: Asked) -> None:
    files = done(tmp_path / "run", asked)
    lens, prompts = tiny_lens(), read_prompts(tmp_path / "run" / "prompts.jsonl")
    assert list(files) == [f"{lens.name}.jsonl", *(f"{lens.name}@{mode}.jsonl" for mode in sorted(MODES))]
    edit = Edit(Vector.load(asked.vector).at("resid_post.1"), spans=["last_prompt", "answer"])
    assert edit.strengths.item() == 2.0
    found = thought_modes(lens, prompts, edit, modes=MODES, max_new_tokens=6, batch_size=2, progress=False)
    for mode in MODES:
        assert read_transcripts(tmp_path / "run" / "transcripts" / f"{lens.name}@{mode}.jsonl", prompts) == found[mode]
    record = json.loads((tmp_path / "run" / "steering.json").read_text())
    assert record["header"]["recommended"]["chosen_on"] == "dev" and record["edit"]["strength"] == 2.0
    assert record["counts"][f"{lens.name}@regenerated"]["steered"] == 5 and record["counts"][lens.name]["tokens"] == 0


def test_killed_between_two_files_it_ends_with_the_same_bytes(tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = done(tmp_path / "whole", asked)
    append, calls = prompting.append_transcripts, []

    def pulled(path: Path, said: list) -> None:
        calls.append(path)
        if len(calls) == 6:
            raise OSError("the plug was pulled")
        append(path, said)

    with monkeypatch.context() as patched:
        patched.setattr(prompting, "append_transcripts", pulled)
        with pytest.raises(OSError, match="plug"):
            done(tmp_path / "run", asked)
    assert done(tmp_path / "run", asked) == whole


def test_a_second_start_writes_nothing(tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    first = done(tmp_path / "run", asked)
    monkeypatch.setattr(prompting, "append_transcripts", None)
    assert done(tmp_path / "run", asked) == first


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"strength": 3.0}, "edit.strength is 2.0 there and 3.0 now"),
        ({"max_new_tokens": 7}, "max_new_tokens is"),
        ({"modes": ("none",)}, "modes is"),
    ],
)
def test_a_folder_with_other_settings_is_refused(tmp_path: Path, asked: Asked, change: dict, says: str) -> None:
    done(tmp_path / "run", asked)
    with pytest.raises(ValueError, match=f"holds a steering with other settings: {says}.*--out"):
        done(tmp_path / "run", replace(asked, **change))


def test_a_folder_of_something_else_is_refused(tmp_path: Path, asked: Asked) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text('{"stage": "capture"}')
    with pytest.raises(ValueError, match="folder of something else"):
        done(tmp_path / "run", asked)


def test_a_vector_of_another_model_is_refused_unless_it_is_meant(tmp_path: Path, asked: Asked) -> None:
    other = lambda: replace(tiny_lens(), fingerprint="f" * 64)  # noqa: E731
    with pytest.raises(ValueError, match="other weights"):
        steering(tmp_path / "run", asked, other, progress=False)
    assert not (tmp_path / "run").exists()
    steering(tmp_path / "run", replace(asked, foreign=True), other, progress=False)


def test_prompts_that_cannot_be_used_are_named_or_left_out(tmp_path: Path, asked: Asked) -> None:
    file = Path(asked.prompts or "")
    file.write_text(file.read_text() + '{"id": "broken"}\n')
    with pytest.raises(ValueError, match="1 prompt cannot be used"):
        done(tmp_path / "run", asked)
    done(tmp_path / "run", replace(asked, on_error="skip"))
    assert len(read_prompts(tmp_path / "run" / "prompts.jsonl")) == 5


@pytest.mark.parametrize(
    ("gate", "expected"),
    [("always", Always()), ("steps", AtSteps()), ("steps:3", AtSteps(first=3)), ("first:16", FirstTokens(16))],
)
def test_gates_by_name(asked: Asked, gate: str, expected: object) -> None:
    assert gate_of(replace(asked, gate=gate)) == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gate": "sometimes"}, "unknown gate 'sometimes'"),
        ({"gate": "steps:few"}, "whole number behind the colon"),
        ({"gate": "probe"}, "needs the file of a probe: --probe"),
        ({"modes": ("half",)}, "unknown thought mode 'half'"),
        ({"limit": 0}, "limit is at least 1"),
        ({"operator": "rotate"}, "does not know the class means"),
        ({"sites": ("resid_post.9",)}, "has no value at 'resid_post.9'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_model_is_loaded(tmp_path: Path, asked: Asked, change: dict, says: str) -> None:
    def never() -> LensModel:
        raise AssertionError("a model was loaded")

    with pytest.raises(ValueError, match=says):
        steering(tmp_path / "run", replace(asked, **change), never, progress=False)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with the hidden states of two tiny models on the same tokens."""
    transcripts = tiny_transcripts(tiny_lens(), tiny_prompts(12), seed=3)
    for role, seed in (("safe", 1), ("reasoning", 0)):
        capture(
            tiny_lens(seed=seed),
            transcripts,
            Select("resid_post", "last_prompt"),
            into=tmp_path / "run" / "activations" / role,
            progress=False,
        )
    return tmp_path / "run"


def taken(run: Path, out: Path, **how: object) -> str:
    asked = {"source": "safe", "target": "reasoning", "contrast": "safe-reasoning", "span": "last_prompt", "sites": (), "where": ()}
    return vectoring(run, out, **{**asked, "label": None, "directions": 1, "strength": None, **how})  # type: ignore[arg-type]


def test_a_vector_out_of_a_run_is_that_of_the_models(run: Path, tmp_path: Path) -> None:
    told = taken(run, tmp_path / "v.safetensors", where=["harmful=true"], sites=["resid_post.1"], strength=1.5)
    vector = Vector.load(tmp_path / "v.safetensors")
    transcripts = tiny_transcripts(tiny_lens(), tiny_prompts(12), seed=3)
    theirs = steering_vector(tiny_lens(seed=1), tiny_lens(), transcripts, Select("resid_post", "last_prompt"), rows={"harmful": True})
    torch.testing.assert_close(vector.values["resid_post.1"], theirs.values["resid_post.1"])
    assert vector.sites == ("resid_post.1",) and vector.recommended == {"strength": 1.5, "chosen_on": "given by hand"}
    assert "6 rows against 6, for reasoning" in told and "resid_post.1: measured difference" in told


def test_several_directions_out_of_a_run(run: Path, tmp_path: Path) -> None:
    assert "resid_post.2: 2 directions" in taken(run, tmp_path / "v.safetensors", directions=2)
    assert Vector.load(tmp_path / "v.safetensors").transport["resid_post.2"].shape == (2, 2)


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"source": "base"}, FileNotFoundError, "stores there: reasoning, safe"),
        ({"where": ["harmful"]}, ValueError, "column=value"),
        ({"span": "thought"}, ValueError, "thought"),
        ({"sites": ["mlp_out.1"]}, ValueError, "no value at 'mlp_out.1'"),
    ],
)
def test_what_makes_no_vector_is_said_and_nothing_written(run: Path, tmp_path: Path, how: dict, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        taken(run, tmp_path / "v.safetensors", **how)
    assert not (tmp_path / "v.safetensors").exists()


def test_a_vector_is_never_written_over(run: Path, tmp_path: Path) -> None:
    taken(run, tmp_path / "v.safetensors")
    with pytest.raises(FileExistsError, match="never changed in place"):
        taken(run, tmp_path / "v.safetensors")


def test_rows_are_named_by_column_and_value() -> None:
    assert rows_of(["split=train", " harmful = true ", "group=g=1"]) == {"split": "train", "harmful": True, "group": "g=1"}


def test_a_folder_in_which_nothing_was_written_takes_other_settings(tmp_path: Path, asked: Asked) -> None:
    with pytest.raises(ValueError, match="no hidden state was steered"):
        done(tmp_path / "run", replace(asked, spans=("step_end[99]",)))
    assert done(tmp_path / "run", asked) == done(tmp_path / "other", asked)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modes": ("fixed", "fixed")}, "each once; got fixed,fixed"),
        ({"modes": ()}, "each once; got none"),
        ({"judge": "nope"}, "unknown judge 'nope'; known are"),
        ({"probe": Path("probe.safetensors")}, "Add --gate probe|add --gate probe"),
    ],
)
def test_what_would_be_lost_or_ignored_is_refused_before_anything_is_written(asked: Asked, change: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(asked, **change)


def test_where_fixed_and_none_act_is_told_and_kept(tmp_path: Path, asked: Asked) -> None:
    told = steering(tmp_path / "run", replace(asked, modes=("none",), answer_spans=("thought_last",)), tiny_lens, progress=False)
    assert "none: at thought_last instead" in str(told[-1])
    assert json.loads((tmp_path / "run" / "steering.json").read_text())["answer_spans"] == ["thought_last"]
