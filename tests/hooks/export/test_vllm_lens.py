"""The JSON for vLLM-Lens is read back as it reads it: plain base64, one row a layer, lengths of the hidden state where asked."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.export import CannotExport, export
from thoughtlens.hooks.export.vllm_lens import read, through_vllm_lens
from thoughtlens.hooks.steer import steer
from torch import Tensor
from torch.testing import assert_close
from zoo import zoo_lens, zoo_prompts

FILE = "steering_vectors.json"


def as_vllm_lens(hidden: Tensor, layer: int, vectors: list[dict[str, Any]]) -> Tensor:
    """Its _apply_steering, by hand: h + scale · v, or h + scale · |h| · v / (|v| + 1e-6), one vector after the other."""
    for one in vectors:
        said = one["activations"]
        rows = np.frombuffer(base64.b64decode(said["data"]), "<f4").reshape(said["shape"])
        if layer in one["layer_indices"]:
            v = torch.from_numpy(rows[one["layer_indices"].index(layer)].copy())
            if one["norm_match"]:
                v = v * (hidden.norm(dim=-1, keepdim=True) / (v.norm() + 1e-6))
            hidden = hidden + one["scale"] * v
    return hidden


@pytest.mark.parametrize("family", ["llama", "qwen3_vl", "gemma3", "mllama"])
def test_the_list_steers_like_the_hooked_model(family: str, edit: Any, tmp_path: Path) -> None:
    lens, prompts = zoo_lens(family), zoo_prompts(family, 4)[1::2]
    edits = [
        edit("add", "resid_post.0", "resid_post.2", strength=-0.5, unit="local"),
        edit("add", "resid_post.2", strength=1.1, seed=1),
        edit("add", "resid_post.1", strength=0.3, seed=2),
    ]
    done = export(lens, edits, "vllm-lens", tmp_path / "out", prompts=prompts)
    assert done.share < 1e-5
    vectors = json.loads((tmp_path / "out" / FILE).read_text())
    assert all(set(one) == {"activations", "layer_indices", "scale", "norm_match"} for one in vectors)
    inputs = encode(lens, prompts).inputs
    real = inputs["attention_mask"].bool()
    handles = [
        layer.register_forward_hook(lambda _, args, out, i=i: as_vllm_lens(out[0] if isinstance(out, tuple) else out, i, vectors))
        for i, layer in enumerate(lens.layers)
    ]
    try:
        with torch.no_grad():
            theirs = lens.model(**inputs).logits
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad(), steer(lens, edits):
        hooked = lens.model(**inputs).logits
    assert_close(theirs[real], hooked[real], atol=1e-4, rtol=0)


def test_lengths_are_a_vector_of_their_own_that_comes_first(edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("llama")
    edits = [edit("add", "resid_post.1", strength=2.0, seed=1), edit("add", "resid_post.0", "resid_post.1", strength=-0.5, unit="local")]
    export(lens, edits, "vllm-lens", tmp_path / "out", prompts=zoo_prompts("llama", 2))
    (local, about), (added, plainly) = read(tmp_path / "out")
    assert about == {"layer_indices": [0, 1], "scale": pytest.approx(0.5 / 2**0.5), "norm_match": True}
    assert plainly == {"layer_indices": [1], "scale": 1.0, "norm_match": False}
    assert_close(added[0], 2.0 * edits[0].vector.values["resid_post.1"])
    unit = edits[1].vector.values["resid_post.0"]
    assert_close(local[0], -unit / unit.norm())


def test_both_files_hold_the_same(edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("llama")
    export(lens, edit("add", "resid_post.1"), "vllm-lens", tmp_path / "out", prompts=zoo_prompts("llama", 1))
    tensors = load_file(tmp_path / "out" / "activations.safetensors")
    said = json.loads((tmp_path / "out" / FILE).read_text())[0]["activations"]
    assert said["dtype"] == "float32" and said["shape"] == [1, 32]
    assert np.frombuffer(base64.b64decode(said["data"]), "<f4").tolist() == tensors["0"].flatten().tolist()
    save_file({"0": tensors["0"] + 1}, tmp_path / "out" / "activations.safetensors")
    with pytest.raises(ValueError, match="SteeringVector 0 .* not what activations.safetensors holds"):
        read(tmp_path / "out")


def test_a_layer_that_is_not_there_is_no_export(edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("llama")
    export(lens, edit("add", "resid_post.1"), "vllm-lens", tmp_path / "out", prompts=zoo_prompts("llama", 1))
    vectors = json.loads((tmp_path / "out" / FILE).read_text())
    vectors[0]["layer_indices"] = [7]
    (tmp_path / "out" / FILE).write_text(json.dumps(vectors))
    with pytest.raises(ValueError, match="would refuse layer 7 of a model of 3 blocks"), through_vllm_lens(lens, tmp_path / "out"):
        raise AssertionError("the block ran")


def test_lengths_behind_one_block_are_measured_once(edit: Any, tmp_path: Path) -> None:
    """vLLM-Lens measures after the vectors before it, or before all of them, as the model returns its hidden state."""
    lens, prompts = zoo_lens("llama"), zoo_prompts("llama", 1)
    local = edit("add", "resid_post.1", unit="local")
    for other in (
        edit("add", "mlp_out.1", seed=1),
        edit("add", "resid_pre.2", unit="local", seed=1),
        edit("add", "resid_post.1", unit="local", seed=1),
    ):
        with pytest.raises(CannotExport, match="another edit acts behind the same block as resid_post.1"):
            export(lens, [other, local], "vllm-lens", tmp_path / "no", prompts=prompts)
    for number, other in enumerate(
        (edit("add", "resid_pre.2", seed=1), edit("add", "mlp_out.0", seed=1), edit("add", "resid_post.2", unit="local"))
    ):
        assert export(lens, [other, local], "vllm-lens", tmp_path / str(number), prompts=prompts).share < 1e-5
