"""Exports with their card: measured before, hooked and exported, on the same prompts by the same judge; all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from thoughtlens.experiments import exporting
from thoughtlens.experiments.audit.score import wilson
from thoughtlens.experiments.audit.verdicts import Channel, Verdict
from thoughtlens.experiments.exporting import CONDITIONS, METRICS, Measured, export_command, export_measured
from thoughtlens.experiments.judges import JUDGES
from thoughtlens.hooks.edits import Edit
from thoughtlens.hooks.export import CannotExport
from thoughtlens.hooks.generate import generate
from thoughtlens.hooks.records import Transcript, write_prompts
from thoughtlens.hooks.steer import steer
from thoughtlens.hooks.vector import Vector
from tiny import tiny_folder, tiny_lens, tiny_prompts

SITE = "resid_post.1"


def odd(transcripts: Sequence[Transcript]) -> list[Verdict]:
    """Stands for a judge: an output whose first token is odd refuses, any other gives all that was asked for."""
    found = []
    for t in transcripts:
        channel = Channel(0.0, "full") if t.output_ids[0] % 2 else Channel(5.0, "none")
        found.append(Verdict(t.id, t.model, t.condition, "odd", channel, channel, channel, t.ended))
    return found


@pytest.fixture(autouse=True)
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JUDGES, "odd", odd)


def vector(**how: Any) -> Vector:
    return Vector({SITE: 2 * torch.randn(32, generator=torch.Generator().manual_seed(0))}, span="last_prompt", source="test", **how)


def edit(strength: float = 1.0) -> Edit:
    return Edit(vector(), strength=strength, spans="all")


@pytest.mark.parametrize("target", ["lora", "gguf"])
def test_the_rates_are_those_of_the_unsteered_the_hooked_and_the_exported_model(target: str, tmp_path: Path) -> None:
    lens, prompts = tiny_lens(), tiny_prompts(8)
    done = export_measured(lens, edit(), target, tmp_path / "out", prompts, judge="odd", max_new_tokens=6)
    with steer(lens, edit()):
        hooked = generate(lens, prompts, max_new_tokens=6, progress=False)
    said = {"unsteered": generate(lens, prompts, max_new_tokens=6, progress=False), "hooked": hooked, "exported": hooked}
    assert any(a.output_ids != b.output_ids for a, b in zip(said["unsteered"], hooked, strict=True))
    for condition in CONDITIONS:
        rows = done.table[done.table.condition == condition].set_index("metric")
        refused = sum(t.output_ids[0] % 2 for t in said[condition] if t.prompt.harmful)
        assert tuple(rows.loc["refusal", ["numerator", "n"]]) == (refused, 4)
        assert tuple(rows.loc["refusal", ["value", "low", "high"]]) == pytest.approx(wilson(refused, 4))
        same = sum(a.output_ids == b.output_ids for a, b in zip(said[condition], hooked, strict=True))
        assert tuple(rows.loc["same_as_hooked", ["numerator", "n"]]) == (same, 8)
        assert tuple(rows.loc["truncated", ["numerator", "n"]]) == (sum(not t.ended for t in said[condition]), 8)
    assert set(done.table.metric) == {*METRICS, "same_as_hooked"} and set(done.table.target) == {target}
    assert done.exported.prompts == 4 and done.exported.share < 1e-4
    measured = json.loads((tmp_path / "out" / "measured.json").read_text())
    kept = ["condition", "metric", "numerator", "n", "value", "judge"]
    assert [[row[name] for name in kept] for row in measured] == done.table[kept].values.tolist()
    assert lens.steering is None


def test_the_export_is_what_is_measured_not_the_hooked_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an export that hardly steers, let through by a spoiled comparison, the rates say so."""
    from thoughtlens.hooks.export import exporting as hooks
    from thoughtlens.hooks.export import gguf

    own = gguf._adding
    monkeypatch.setattr(gguf, "_adding", lambda v: own(0 * v))
    monkeypatch.setattr(hooks, "_check_close", lambda found: None)
    done = export_measured(tiny_lens(), edit(), "gguf", tmp_path / "out", tiny_prompts(8), judge="odd", max_new_tokens=6)
    same = done.table[done.table.metric == "same_as_hooked"].set_index("condition").numerator
    assert same["exported"] == same["unsteered"] < same["hooked"] == 8


def test_the_card_says_all_there_is_to_know(tmp_path: Path) -> None:
    lens = tiny_lens()
    told = vector().recommend(strength=2.0, chosen_on="dev, 10 prompts", spans="last_prompt")
    one = Edit(told, strength=1.25, spans="all")
    done = export_measured(lens, one, "lora", tmp_path / "refusal", tiny_prompts(8), judge="odd", max_new_tokens=6)
    card = (tmp_path / "refusal" / "README.md").read_text()
    assert card.startswith(f"# refusal: steering for {lens.name}, as lora\n")
    for part in (
        f"- {one}: h' = h + α v",
        'PeftModel.from_pretrained(base, "refusal")',
        f"fingerprint `{lens.fingerprint}`, loaded in float32",
        f"on {done.exported.tokens} tokens of 4 prompts",
        f"by up to {done.exported.effect:.4g}; error / effect may be 0.0001",
        "| peft.PeftModel | ",
        "Prompts: 4 harmful, 4 benign, 8 in all, greedy decoding, judge `odd`",
        "| metric | unsteered | hooked | exported |",
        "The vector test was read at last_prompt; here it acts everywhere.",
        "It recommends strength 2.0, chosen_on dev, 10 prompts, spans last_prompt; here it is strength 1.25, add, every token, no gate.",
        "No gate and no span is exported",
        "It cannot be merged",
    ):
        assert part in card, part
    row = done.table[(done.table.metric == "refusal") & (done.table.condition == "exported")].iloc[0]
    assert f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}] {row.numerator} / {row.n} |\n| over_refusal" in card
    record = json.loads((tmp_path / "refusal" / "thoughtlens.json").read_text())
    assert {"README.md", "measured.json", "adapter_model.safetensors"} <= set(record["files"])
    assert str(done).endswith(f"truncated {' -> '.join(f'{v:.2f}' for v in done.table[done.table.metric == 'truncated'].value)} (n=8)")


def test_nothing_is_left_of_an_export_that_was_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match="unknown judge 'nobody'; known are .*rule"):
        export_measured(tiny_lens(), edit(), "gguf", tmp_path / "out", tiny_prompts(4), judge="nobody")
    with pytest.raises(CannotExport):
        export_measured(tiny_lens(), edit(), "merged", tmp_path / "out", tiny_prompts(4), judge="odd")
    monkeypatch.setattr(exporting, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_measured(tiny_lens(), edit(), "gguf", tmp_path / "out", tiny_prompts(4), judge="odd")
    assert list(tmp_path.iterdir()) == [] and tiny_lens().steering is None


def test_unlabelled_prompts_have_no_rates_of_refusal(tmp_path: Path) -> None:
    from dataclasses import replace

    prompts = [replace(prompt, harmful=None, expected="") for prompt in tiny_prompts(3)]
    done = export_measured(tiny_lens(), edit(), "vllm-lens", tmp_path / "out", prompts, judge="odd", max_new_tokens=4)
    assert set(done.table.metric) == {"truncated", "same_as_hooked"}
    assert "Prompts: 3 in all" in (tmp_path / "out" / "README.md").read_text()


# the command


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A vector's file, at two sites, recommending a strength; and a file of prompts."""
    made = Vector({SITE: vector().values[SITE], "resid_post.2": vector().values[SITE]}, span="last_prompt", source="test")
    made.recommend(strength=1.5, chosen_on="nothing").save(tmp_path / "vector.safetensors")
    write_prompts(tmp_path / "prompts.jsonl", tiny_prompts(8, images=(0,)))
    return tmp_path / "vector.safetensors", tmp_path / "prompts.jsonl"


def test_the_command_exports_what_its_words_say(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(out: str, **how: Any) -> Measured:
        plain: dict[str, Any] = {"prompts": str(files[1]), "judge": "odd", "max_new_tokens": 4, "device": "cpu", "progress": False}
        return export_command(tiny_folder(), files[0], out=tmp_path / out, **{"target": "gguf", "spans": ["all"], **plain, **how})

    with pytest.raises(CannotExport, match="it acts on last_prompt alone"):
        run("z", spans=())
    done = run("a")
    assert done.exported.does == ("test add 1.5 at resid_post.1,resid_post.2, all, always: h' = h + α v / √2 at each site",)
    assert int(done.table[done.table.metric == "truncated"].n.iloc[0]) == 8
    done = run("b", sites=("resid_post.2",), strength=0.5, limit=3, tolerance=0.01, target="easysteer")
    assert done.exported.does[0].startswith("test add 0.5 at resid_post.2, all") and done.exported.tolerance == 0.01
    assert int(done.table[done.table.metric == "truncated"].n.iloc[0]) == 3
    assert int(run("c", split="dev").table.n.max()) == sum(prompt.split == "dev" for prompt in tiny_prompts(8))
    done = run("d", unit="local", strength=0.2, target="vllm-lens")
    assert done.exported.does[0].endswith("h' = h + α |h| v̂ / √2 at each site")
    with pytest.raises(CannotExport, match="ablate depends on the hidden state"):
        run("e", operator="ablate")
    with pytest.raises(FileNotFoundError, match="there is no file of prompts nowhere, and no benchmark of that name; known are organism"):
        run("f", prompts="nowhere")
    for how in ({"split": "nosuch"}, {"limit": 0}):
        with pytest.raises(ValueError, match="has no prompt of the split|leaves none"):
            run("g", **how)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["a", "b", "c", "d"]
    assert capsys.readouterr().out == ""


def test_a_direction_can_be_taken_out_of_all_that_is_written(files: tuple[Path, Path], tmp_path: Path) -> None:
    """What was read in the residual, ablated at every attention and MLP: a plain checkpoint that no longer writes it."""
    how: dict[str, Any] = {"target": "merged", "operator": "ablate", "strength": 1.0, "at": ("outputs",), "spans": ("all",)}
    how |= {"prompts": str(files[1]), "judge": "odd", "max_new_tokens": 3, "device": "cpu", "progress": False}
    done = export_command(tiny_folder(), files[0], sites=(SITE,), out=tmp_path / "a", **how)
    assert len(done.exported.facts["modules"]) == 6
    unit = vector().values[SITE] / vector().values[SITE].norm()
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    written = {
        name: tensor
        for name, tensor in tensors.items()
        if name.endswith(("self_attn.o_proj.weight", "mlp.down_proj.weight")) and "visual" not in name
    }
    assert len(written) == 6 and all(float((unit @ weight).abs().max()) < 1e-5 < float(weight.abs().max()) for weight in written.values())
    with pytest.raises(ValueError, match="'test' has 2 sites, and one direction can act elsewhere"):
        export_command(tiny_folder(), files[0], out=tmp_path / "b", **how)


def test_progress_goes_to_standard_error(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_command(
        tiny_folder(),
        files[0],
        target="gguf",
        spans=["all"],
        out=tmp_path / "a",
        prompts=str(files[1]),
        judge="odd",
        max_new_tokens=3,
        device="cpu",
    )
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("generate tiny-words-0") >= 3
