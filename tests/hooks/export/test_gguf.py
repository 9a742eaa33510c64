"""The control vector file holds what llama.cpp reads, under the names it reads, and nothing else; EasySteer's is the same with a specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from thoughtlens.hooks.edits import Edit
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.export import CannotExport, export
from thoughtlens.hooks.export.easysteer import through_easysteer
from thoughtlens.hooks.export.gguf import ARCHITECTURES, WRAPPED, architecture, read_directions, through_llama_cpp
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.steer import steer
from torch.testing import assert_close
from zoo import FAMILIES_TINY, zoo_lens, zoo_prompts

FAMILIES = ("llama", "qwen2", "qwen3", "qwen2_5_vl", "qwen3_vl", "llava", "gemma3", "glm4v", "qwen3_vl_moe", "qwen3_5")


def written(path: Path, tensors: dict[str, Any]) -> Path:
    writer = gguf.GGUFWriter(path, "controlvector")
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def vectors(edits: list[Edit]) -> dict[int, torch.Tensor]:
    """What is to be added behind each block, from the edits' own values, for sites with one block each."""
    found: dict[int, torch.Tensor] = {}
    for one in edits:
        for site, value in one.vector.values.items():
            name, layer = site.split(".")
            at = int(layer) - (name == "resid_pre")
            found[at] = found.get(at, torch.zeros(32)) + float(one.strengths) / len(one.vector.sites) ** 0.5 * value
    return found


@pytest.mark.parametrize("target", ["gguf", "easysteer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_holds_the_vectors_and_steers_like_the_hooked_model(family: str, target: str, edit: Any, tmp_path: Path) -> None:
    lens, prompts = zoo_lens(family), zoo_prompts(family, 4)[1::2]
    edits = [edit("add", "resid_post.1", "resid_pre.2", strength=1.3), edit("add", "mlp_out.2", strength=-0.4, seed=1)]
    done = export(lens, edits, target, tmp_path / "out", prompts=prompts)
    assert done.share < 1e-5
    reader = gguf.GGUFReader(tmp_path / "out" / "steering.gguf")
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.2"]
    for tensor in reader.tensors:
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32 and list(tensor.shape) == [32]
        assert_close(torch.from_numpy(np.array(tensor.data)), vectors(edits)[int(tensor.name[-1])], atol=1e-6, rtol=1e-6)
    told = {name: reader.get_field(name).contents() for name in ("general.architecture", "controlvector.model_hint")}
    hint = architecture(lens) if target == "gguf" else lens.model.config.model_type
    assert told == {"general.architecture": "controlvector", "controlvector.model_hint": hint}
    assert reader.get_field("controlvector.layer_count").contents() == 2
    assert json.loads(reader.get_field("thoughtlens.made_for").contents())["fingerprint"] == lens.fingerprint
    check_hooked(lens, edits, through_llama_cpp if target == "gguf" else through_easysteer, tmp_path / "out", prompts)


def check_hooked(lens: LensModel, edits: list[Edit], through: Any, folder: Path, prompts: Any) -> None:
    """The file that was read back steers like the hooked model, and leaves no hook behind (conftest looks)."""
    inputs = encode(lens, prompts).inputs
    real = inputs["attention_mask"].bool()
    with torch.no_grad(), steer(lens, edits):
        hooked = lens.model(**inputs).logits
    with torch.no_grad(), through(lens, folder) as steered:
        theirs = steered.model(**inputs).logits
    assert_close(theirs[real], hooked[real], atol=1e-4, rtol=0)
    with torch.no_grad():
        assert float((hooked - lens.model(**inputs).logits)[real].abs().max()) > 0.1


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"direction.1": np.ones(32, np.float64)}, "direction.1 of .* is F64"),
        ({"direction.1": np.ones((2, 32), np.float32)}, r"is F32 \[32, 2\], not one float32 vector"),
        ({"direction.x": np.ones(32, np.float32)}, "holds a tensor 'direction.x'"),
        ({"direction.1": np.ones(32, np.float32), "other": np.ones(3, np.float32)}, "holds a tensor 'other'"),
        ({"direction.1": np.ones(32, np.float32), "direction.2": np.ones(16, np.float32)}, "equally long"),
        ({}, "holds 0 directions"),
    ],
)
def test_a_file_that_llama_cpp_would_refuse_is_refused(tensors: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        read_directions(written(tmp_path / "bad.gguf", tensors))


@pytest.mark.parametrize("layer", [0, 3])
def test_a_direction_that_llama_cpp_would_pass_over_is_no_export(layer: int, tmp_path: Path) -> None:
    written(tmp_path / "steering.gguf", {f"direction.{layer}": np.ones(32, np.float32)})
    with (
        pytest.raises(ValueError, match=f"would not add direction.{layer} to a model of 3 blocks"),
        through_llama_cpp(zoo_lens("llama"), tmp_path),
    ):
        raise AssertionError("the block ran")


def test_block_0_is_for_easysteer_alone(edit: Any, tmp_path: Path) -> None:
    lens, prompts = zoo_lens("llama"), zoo_prompts("llama", 2)
    for site in ("resid_post.0", "resid_pre.1", "mlp_out.0"):
        with pytest.raises(CannotExport, match=f"{site} is behind block 0, where llama.cpp takes no vector"):
            export(lens, edit("add", site), "gguf", tmp_path / "no", prompts=prompts)
    done = export(lens, edit("add", "resid_post.0"), "easysteer", tmp_path / "out", prompts=prompts)
    assert list(read_directions(tmp_path / "out" / "steering.gguf")) == done.facts["layers"] == [0]


def test_the_specification_acts_on_every_token(edit: Any, tmp_path: Path) -> None:
    export(zoo_lens("llama"), edit("add", "resid_post.1"), "easysteer", tmp_path / "out", prompts=zoo_prompts("llama", 1))
    spec = json.loads((tmp_path / "out" / "steering_spec.json").read_text())
    assert spec == {
        "vectors": [
            {
                "source": "steering.gguf",
                "algorithm": "direct",
                "scale": 1.0,
                "layers": [1],
                "apply": {"prompt": "all", "generation": "all"},
            }
        ],
        "conflict": "sequential",
    }
    spec["vectors"][0]["apply"] = {"prompt": "all"}
    (tmp_path / "out" / "steering_spec.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="not to every token"), through_easysteer(zoo_lens("llama"), tmp_path / "out"):
        raise AssertionError("the block ran")


def test_scale_and_layers_of_a_specification_count(edit: Any, tmp_path: Path) -> None:
    lens, prompts = zoo_lens("llama"), zoo_prompts("llama", 2)
    export(lens, edit("add", "resid_post.1", "resid_post.2"), "easysteer", tmp_path / "out", prompts=prompts)
    file = tmp_path / "out" / "steering_spec.json"
    spec = json.loads(file.read_text())
    spec["vectors"] = [{**spec["vectors"][0], "scale": 0.5, "layers": [1]}, {**spec["vectors"][0], "scale": 1.0, "layers": [1]}]
    file.write_text(json.dumps(spec))
    both = edit("add", "resid_post.1", "resid_post.2").vector
    check_hooked(
        lens, [Edit(both.at("resid_post.1"), strength=0.7 * 1.5 / 2**0.5, spans="all")], through_easysteer, tmp_path / "out", prompts
    )


def test_every_family_has_an_architecture_or_is_refused(edit: Any, tmp_path: Path) -> None:
    """The hints are names that the gguf package knows, those of the text model."""
    assert {*ARCHITECTURES.values(), *WRAPPED.values()} <= set(gguf.MODEL_ARCH_NAMES.values())
    found = {name: architecture(zoo_lens(name)) for name in FAMILIES_TINY}
    assert [name for name, hint in found.items() if hint is None] == ["mllama"]
    assert {name: found[name] for name in ("llava_next", "mistral3", "qwen2_5_vl", "glm46v", "internvl")} == {
        "llava_next": "llama",
        "mistral3": "mistral3",
        "qwen2_5_vl": "qwen2vl",
        "glm46v": "glm4",
        "internvl": "qwen2",
    }
    with pytest.raises(CannotExport, match="llama.cpp has no architecture for mllama_text_model"):
        export(zoo_lens("mllama"), edit("add", "resid_post.2"), "gguf", tmp_path / "out", prompts=zoo_prompts("mllama", 2))
    assert (
        export(zoo_lens("mllama"), edit("add", "resid_post.2"), "easysteer", tmp_path / "out", prompts=zoo_prompts("mllama", 2)).share
        < 1e-5
    )
