"""export(): proven on real prompts or not kept, whole or absent, with its provenance; the model is left as it was."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from thoughtlens.hooks.export import TARGETS, TOLERANCE, export
from thoughtlens.hooks.export import exporting as module
from thoughtlens.hooks.export.usage import USAGE, limits, usage
from thoughtlens.hooks.model import LensModel, load
from thoughtlens.hooks.steer import Edit, steer
from thoughtlens.hooks.vector import Vector
from tiny import tiny_lens, tiny_prompts
from torch import nn
from zoo import zoo_folder, zoo_lens, zoo_prompts

EVERY = tuple(TARGETS)
AT = {"lora": "resid_post.1", "merged": "attn_out.1", "gguf": "resid_post.1", "easysteer": "resid_post.1", "vllm-lens": "resid_post.1"}


def spoiled(monkeypatch: pytest.MonkeyPatch, target: str, spoil: Any) -> None:
    """Let `spoil` change what a target has written before it is read back."""
    own = TARGETS[target]

    def write(lens: LensModel, edits: Any, folder: Path) -> dict[str, Any]:
        facts = own.write(lens, edits, folder)
        spoil(folder)
        return facts

    monkeypatch.setattr(module, "target_named", lambda name: replace(own, write=write))


# proven or not kept


@pytest.mark.parametrize("target", EVERY)
def test_an_export_says_how_exact_it_is_and_leaves_the_model_as_it_was(target: str, edit: Any, tmp_path: Path) -> None:
    lens, one = zoo_lens("llama"), edit("add", AT[target])
    before = {name: weight.clone() for name, weight in lens.model.state_dict().items()}
    done = export(lens, one, target, tmp_path / "out", prompts=zoo_prompts("llama", 3))
    assert (done.target, done.path, done.prompts, done.tolerance) == (target, tmp_path / "out", 3, 1e-4)
    assert (
        0 <= done.error < 1e-4 and done.effect > 0.5 and done.share == done.error / done.effect and done.error == max(done.errors.values())
    )
    assert str(done).startswith(f"{tmp_path / 'out'}: {target}, logits within ") and f"{done.tokens} tokens of 3 prompts" in str(done)
    assert done.does == (f"{one}: h' = h + α v",)
    assert all(torch.equal(weight, before[name]) for name, weight in lens.model.state_dict().items()) and lens.steering is None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("share", "kept"), [(0.999, True), (0.99, False), (0.5, False), (0.0, False)])
@pytest.mark.parametrize("target", ["lora", "merged"])
def test_a_bias_that_is_lost_in_part_or_whole_is_caught(
    target: str, share: float, kept: bool, edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(folder: Path) -> None:
        name = "adapter_model.safetensors" if target == "lora" else "model.safetensors"
        tensors = load_file(folder / name)
        for key in tensors:
            if key.endswith("down_proj.lora_B.bias") or key.endswith("layers.1.mlp.down_proj.bias"):
                tensors[key] = tensors[key] * share
        save_file(tensors, folder / name, metadata={"format": "pt"})

    spoiled(monkeypatch, target, lose)
    how: dict[str, Any] = {"prompts": zoo_prompts("llama", 2), "tolerance": 0.005}
    if kept:
        assert export(zoo_lens("llama"), edit("add", "resid_post.1"), target, tmp_path / "out", **how).share > 1e-4
        return
    with pytest.raises(
        ValueError, match="from the hooked model where steering moves logits by .*0.005 is allowed.*Nothing was kept"
    ) as caught:
        export(zoo_lens("llama"), edit("add", "resid_post.1"), target, tmp_path / "out", **how)
    assert ("hardly steers at all" in str(caught.value)) == (share == 0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_whose_bias_has_no_place_is_caught(edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers does with a bias the configuration does not name: it is dropped, with a line in the log."""

    def forget(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "mlp_bias": False}))

    spoiled(monkeypatch, "merged", forget)
    with pytest.raises(ValueError, match="transformers does not load 9 weights .* first 'model.layers.0.mlp.down_proj.bias'"):
        export(zoo_lens("llama"), edit("add", "resid_post.1"), "merged", tmp_path / "out", prompts=zoo_prompts("llama", 2))
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_one_of_its_readers_passes_over_is_caught(edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reader is compared: one that returns the bare model is 1 away, though the other is exact."""
    from contextlib import nullcontext

    through = {**TARGETS["lora"].through, "peft.PeftModel": lambda lens, folder: nullcontext(lens)}
    monkeypatch.setattr(module, "target_named", lambda name: replace(TARGETS["lora"], through=through))
    with pytest.raises(ValueError, match="read back by peft.PeftModel, the lora export is .*: 1 of it, .* hardly steers at all"):
        export(zoo_lens("llama"), edit("add", "resid_post.1"), "lora", tmp_path / "out", prompts=zoo_prompts("llama", 2))
    assert list(tmp_path.iterdir()) == []


def test_pictures_alone_unsteered_are_caught(edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that leaves out the tokens of pictures is not what was asked for."""
    from thoughtlens.hooks.export import gguf

    def words_only(lens: LensModel, folder: Path) -> Any:
        own = gguf.read_directions(folder / gguf.FILE)
        places: list[torch.Tensor] = []
        watch = lens.inner.register_forward_pre_hook(
            lambda _, args, kwargs: places.append(kwargs["input_ids"] == lens.frame.image_token_id), with_kwargs=True
        )
        changes = {layer: lambda h, v=v: torch.where(places[-1][..., None], h, h + v) for layer, v in own.items()}

        class Both:
            def __enter__(self) -> LensModel:
                self.inside = gguf.behind_blocks(lens, changes)
                return self.inside.__enter__()

            def __exit__(self, *error: Any) -> None:
                watch.remove()
                self.inside.__exit__(*error)

        return Both()

    monkeypatch.setattr(module, "target_named", lambda name: replace(TARGETS["gguf"], through={"words": words_only}))
    prompts = tiny_prompts(2)
    assert export(tiny_lens(), edit("add", "resid_post.1"), "gguf", tmp_path / "a", prompts=prompts[:1]).share < 1e-5
    with pytest.raises(ValueError, match="from the hooked model"):
        export(tiny_lens(), edit("add", "resid_post.1"), "gguf", tmp_path / "b", prompts=prompts)


def test_edits_that_do_nothing_are_refused(edit: Any, tmp_path: Path) -> None:
    for one in (edit("add", "resid_post.1", strength=1e-9), [edit("add", "resid_post.1"), edit("add", "resid_post.1", strength=-0.7)]):
        with pytest.raises(ValueError, match="move no logit of tiny-llama by more than rounding .* on these 1 prompts"):
            export(zoo_lens("llama"), one, "lora", tmp_path / "out", prompts=zoo_prompts("llama", 1))
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_not_finite_are_refused(edit: Any, tmp_path: Path) -> None:
    one = edit("add", "resid_post.1", strength=3e38)
    with pytest.raises(ValueError, match="are not finite under these edits"):
        export(zoo_lens("llama"), one, "gguf", tmp_path / "out", prompts=zoo_prompts("llama", 1))


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, 5.0, float("nan")])
def test_a_tolerance_that_an_unsteered_model_meets_is_refused(tolerance: float, edit: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a share of the effect, from 0 to below 1"):
        export(zoo_lens("llama"), edit("add", "resid_post.1"), "lora", tmp_path / "o", prompts=zoo_prompts("llama", 1), tolerance=tolerance)


def test_a_narrow_dtype_has_a_tolerance_of_its_own(edit: Any, tmp_path: Path) -> None:
    lens, one = load(zoo_folder("llama"), device="cpu", dtype=torch.float16), edit("affine", "attn_out.1", "mlp_out.0")
    assert export(lens, one, "lora", tmp_path / "out", prompts=zoo_prompts("llama", 2)).tolerance == TOLERANCE[torch.float16] == 0.01
    with pytest.raises(ValueError, match="In a narrow dtype both sides round"):
        export(lens, one, "lora", tmp_path / "no", prompts=zoo_prompts("llama", 2), tolerance=1e-5)


# what is asked


def test_what_is_there_already_is_left_alone(edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And found before the model runs."""
    (tmp_path / "out").mkdir()
    monkeypatch.delattr(module, "traced")
    with pytest.raises(FileExistsError, match="never changed in place"):
        export(zoo_lens("llama"), edit("add", "resid_post.1"), "gguf", tmp_path / "out", prompts=zoo_prompts("llama", 1))
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_missing_or_unknown_is_named(edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lens, one, prompts = zoo_lens("llama"), edit("add", "resid_post.1"), zoo_prompts("llama", 1)
    with pytest.raises(ValueError, match=r"unknown target 'gguff'; known are lora \(a LoRA adapter for PEFT and transformers\), merged"):
        export(lens, one, "gguff", tmp_path / "out", prompts=prompts)
    with pytest.raises(ValueError, match="there is no prompt to compare the export on"):
        export(lens, one, "gguf", tmp_path / "out", prompts=[])
    with pytest.raises(ValueError, match="there is no edit to export"):
        export(lens, [], "gguf", tmp_path / "out", prompts=prompts)
    with pytest.raises(ValueError, match="has width 16, tiny-llama has 32"):
        export(lens, edit("add", "resid_post.1", width=16), "gguf", tmp_path / "out", prompts=prompts)
    with steer(lens, one), pytest.raises(RuntimeError, match="is being steered, and an export is compared with the unsteered model"):
        lens.model(torch.tensor([[1, 2, 3]]))
        export(lens, one, "gguf", tmp_path / "out", prompts=prompts)
    for target, package in (("lora", "peft"), ("gguf", "gguf"), ("easysteer", "gguf")):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, absent=package: None if name == absent else object())
        with pytest.raises(ImportError, match=rf"needs {package}, which is not installed: pip install 'thoughtlens\[export\]'"):
            export(lens, one, target, tmp_path / "out", prompts=prompts)
    assert list(tmp_path.iterdir()) == []


def test_a_vector_for_another_model_needs_to_be_meant(edit: Any, tmp_path: Path) -> None:
    made = edit("add", "resid_post.1").vector
    other = replace(made, header={"made_for": {"model": "another", "fingerprint": "f" * 64}})
    prompts = zoo_prompts("llama", 1)
    with pytest.raises(ValueError, match="was made for 'another', and tiny-llama has other weights"):
        export(zoo_lens("llama"), Edit(other, spans="all"), "gguf", tmp_path / "out", prompts=prompts)
    assert export(zoo_lens("llama"), Edit(other, spans="all"), "gguf", tmp_path / "out", prompts=prompts, foreign=True).share < 1e-4


def test_a_vector_alone_is_an_edit(edit: Any, tmp_path: Path) -> None:
    made: Vector = edit("add", "resid_post.1").vector
    done = export(zoo_lens("llama"), made, "gguf", tmp_path / "out", prompts=zoo_prompts("llama", 1))
    assert done.does[0].startswith("test add 1 at resid_post.1, all, always: ")


# what lies in the folder


def test_the_record_says_what_for_which_model_and_how_exactly(edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("llama")
    edits = [edit("affine", "attn_out.1"), edit("add", "resid_post.0", "resid_post.1", strength=-1.5, seed=1)]
    done = export(lens, edits, "lora", tmp_path / "out", prompts=zoo_prompts("llama", 2))
    record = json.loads((tmp_path / "out" / "thoughtlens.json").read_text())
    assert (record["format"], record["format_version"], record["kind"], record["target"]) == ("thoughtlens", 1, "export", "lora")
    assert record["made_for"]["fingerprint"] == lens.fingerprint and record["made_for"]["dtype"] == "float32"
    assert (record["error"], record["effect"], record["tolerance"]) == (done.error, done.effect, 1e-4)
    assert [one["operator"] for one in record["edits"]] == ["affine", "add"] and record["edits"][1]["strength"] == -1.5
    value = edits[0].vector.values["attn_out.1"].numpy().tobytes()
    assert record["edits"][0]["values_sha256"] == hashlib.sha256(b"attn_out.1" + value).hexdigest()
    assert record["does"] == list(done.does) and record["does"][1].endswith("h' = h + α v / √2 at each site")
    assert {"torch", "transformers", "peft"} <= set(record["versions"])
    assert record["written"] == dict(done.facts)
    own = {name: sha for name, sha in done.files.items() if name != "thoughtlens.json"}
    assert record["files"] == own == {name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in own}


def test_a_card_is_written_from_the_export_that_was_read_back(edit: Any, tmp_path: Path) -> None:
    lens, seen = zoo_lens("llama"), []

    def card(draft: Any) -> str:
        with draft.reloaded() as reloaded:
            seen.append(reloaded)
            assert reloaded is not lens and isinstance(reloaded.layers[1].mlp.down_proj, nn.Module) and reloaded.name == lens.name
        assert not (tmp_path / "out").exists() and draft.exported.path == tmp_path / "out"
        return "the card\n"

    done = export(lens, edit("add", "resid_post.1"), "lora", tmp_path / "out", prompts=zoo_prompts("llama", 1), card=card)
    assert len(seen) == 1 and (tmp_path / "out" / "README.md").read_text() == "the card\n"
    record = json.loads((tmp_path / "out" / "thoughtlens.json").read_text())
    assert record["files"]["README.md"] == done.files["README.md"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_nothing_is_left_where_the_card_fails(error: BaseException, edit: Any, tmp_path: Path) -> None:
    def card(draft: Any) -> str:
        raise error

    with pytest.raises(type(error)):
        export(zoo_lens("llama"), edit("add", "resid_post.1"), "gguf", tmp_path / "out", prompts=zoo_prompts("llama", 1), card=card)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", EVERY)
def test_every_target_says_how_it_is_used_and_what_to_know(target: str, edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("llama")
    done = export(lens, edit("add", AT[target]), target, tmp_path / "out", prompts=zoo_prompts("llama", 1))
    told = usage(lens, done)
    assert set(USAGE) == set(EVERY) and "```" in told and "{folder}" not in told and ("out" in told or target == "easysteer")
    sentences = [line.format(**done.facts) for line in limits(done)]
    assert sentences and all("{" not in line and line.endswith(".") for line in sentences)
    if target == "lora":
        assert ["vLLM refuses it" in line for line in sentences] == [True, False]
