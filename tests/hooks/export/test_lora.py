"""A LoRA adapter does what the hooked model does, whoever loads it: PEFT, transformers, load(adapter=)."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.export import export, lora
from thoughtlens.hooks.model import load, wrap
from thoughtlens.hooks.steer import steer
from tiny import tiny_folder, tiny_lens
from torch import Tensor
from torch.testing import assert_close
from zoo import zoo_folder, zoo_lens, zoo_model, zoo_prompts
from zoo_processors import zoo_processor

OPERATORS = ("add", "ablate", "affine", "rotate", "subspace", "transport")
BIASED = ("add", "affine", "transport")
AT_OUTPUTS = ("attn_out.1", "mlp_out.0")
CASES = [
    *(("llama", operator, AT_OUTPUTS) for operator in OPERATORS),
    ("qwen2", "transport", AT_OUTPUTS),
    ("qwen3", "affine", AT_OUTPUTS),
    ("qwen2_5_vl", "rotate", AT_OUTPUTS),
    ("qwen3_vl", "add", ("resid_pre.1", "resid_post.1")),
    ("llava", "add", ("resid_post.0",)),
    ("mllama", "affine", ("cross_attn_out.1", "mlp_out.1", "attn_out.2")),
    ("mllama", "add", ("resid_post.2",)),
    ("qwen3_vl_moe", "subspace", ("attn_out.0", "mlp_out.1")),
    ("qwen3_5", "ablate", ("attn_out.0", "attn_out.2", "mlp_out.3")),
    ("glm4v_moe", "add", ("attn_out.1",)),
]


def logits(model: Any, inputs: Any) -> Tensor:
    """At every token that is not padding."""
    with torch.no_grad():
        found: Tensor = model(**inputs).logits
    return found[inputs["attention_mask"].bool()]


def pictured(family: str) -> list[Any]:
    return zoo_prompts(family, 4)[1::2]


@pytest.mark.parametrize(("family", "operator", "sites"), CASES)
def test_an_adapter_equals_the_hooked_model(family: str, operator: str, sites: tuple[str, ...], edit: Any, tmp_path: Path) -> None:
    lens, one = zoo_lens(family), edit(operator, *sites)
    done = export(lens, one, "lora", tmp_path / "out", prompts=pictured(family))
    assert done.share < 1e-5 and set(done.errors) == {"thoughtlens.load with adapter=", "peft.PeftModel"}
    assert done.facts["lora_bias"] == (operator in BIASED)
    inputs = encode(lens, pictured(family)).inputs
    with steer(lens, one):
        hooked = logits(lens.model, inputs)
    theirs = PeftModel.from_pretrained(copy.deepcopy(lens.model), tmp_path / "out")
    assert_close(logits(theirs, inputs), hooked, atol=1e-4, rtol=0)
    with theirs.disable_adapter():
        assert torch.equal(logits(theirs, inputs), logits(lens.model, inputs))
    assert float((hooked - logits(lens.model, inputs)).abs().max()) > 0.1


def test_the_folder_is_what_peft_writes_for_such_an_adapter(edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("llama")
    edits = [edit("subspace", "attn_out.1"), edit("ablate", "mlp_out.2", seed=1), edit("add", "resid_post.0", seed=2)]
    done = export(lens, edits, "lora", tmp_path / "out", prompts=zoo_prompts("llama", 2))
    paths = ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.o_proj", "model.layers.2.mlp.down_proj"]
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        f"base_model.model.{path}.{name}": shape
        for path, inputs in zip(paths, (48, 32, 48), strict=True)
        for name, shape in (("lora_A.weight", (2, inputs)), ("lora_B.weight", (32, 2)), ("lora_B.bias", (32,)))
    }
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    filled = [tensors[f"base_model.model.{paths[2]}.lora_A.weight"][1:], tensors[f"base_model.model.{paths[2]}.lora_B.weight"][:, 1:]]
    assert not any(bool(part.any()) for part in filled), "a smaller rank is filled up with zeros"
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 2 and config["target_modules"] == paths == done.facts["modules"]
    assert "rank_pattern" not in config, "vLLM does not read it"
    assert done.facts["mergeable"] is False


def test_an_adapter_without_biases_can_be_merged(edit: Any, tmp_path: Path) -> None:
    lens, one = zoo_lens("qwen2"), edit("subspace", *AT_OUTPUTS)
    done = export(lens, one, "lora", tmp_path / "out", prompts=zoo_prompts("qwen2", 2))
    assert done.facts["mergeable"] is True
    merged = PeftModel.from_pretrained(copy.deepcopy(lens.model), tmp_path / "out").merge_and_unload()
    inputs = encode(lens, zoo_prompts("qwen2", 3)).inputs
    with steer(lens, one):
        hooked = logits(lens.model, inputs)
    assert_close(logits(merged, inputs), hooked, atol=1e-4, rtol=0)


def test_a_bias_the_base_has_already_is_taken_along(edit: Any, tmp_path: Path) -> None:
    """y = W x + c: an operator acts on c too, without any constant of its own, and the adapter can then be merged."""
    processor = zoo_processor("llama")
    model = zoo_model("llama", processor)
    for layer in model.model.layers:
        layer.mlp.down_proj.bias = torch.nn.Parameter(torch.randn(32))
    lens = wrap(model, processor, name="with a bias")
    done = export(lens, edit("ablate", "mlp_out.1"), "lora", tmp_path / "out", prompts=zoo_prompts("llama", 2))
    assert done.facts["lora_bias"] and done.facts["mergeable"] and done.share < 1e-5
    assert list(done.errors) == ["peft.PeftModel"], "a model made in memory has no folder to load again"
    merged = PeftModel.from_pretrained(copy.deepcopy(lens.model), tmp_path / "out").merge_and_unload()
    inputs = encode(lens, zoo_prompts("llama", 2)).inputs
    with steer(lens, edit("ablate", "mlp_out.1")):
        hooked = logits(lens.model, inputs)
    assert_close(logits(merged, inputs), hooked, atol=1e-4, rtol=0)


def test_rows_of_different_lengths_are_steered_alike(edit: Any, tmp_path: Path) -> None:
    """What the adapter adds at padding is attended by nobody."""
    one = edit("affine", "attn_out.0", "mlp_out.1")
    export(tiny_lens(), one, "lora", tmp_path / "out", prompts=zoo_prompts("qwen2_5_vl", 2))
    loaded = load(tiny_folder(), device="cpu", adapter=tmp_path / "out")
    batch = encode(tiny_lens(), zoo_prompts("qwen2_5_vl", 4))
    with steer(tiny_lens(), one):
        hooked = logits(tiny_lens().model, batch.inputs)
    assert not bool(batch.inputs["attention_mask"].bool().all())
    assert_close(logits(loaded.model, batch.inputs), hooked, atol=1e-4, rtol=0)


def test_a_narrow_model_keeps_a_float32_adapter(edit: Any, tmp_path: Path) -> None:
    lens = load(zoo_folder("qwen2"), device="cpu", dtype=torch.bfloat16)
    done = export(lens, edit("add", "resid_post.1"), "lora", tmp_path / "out", prompts=zoo_prompts("qwen2", 2))
    assert done.tolerance == 0.1 and 0 < done.share < 0.1
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "adapter_model.safetensors").values()} == {torch.float32}
    wide = load(zoo_folder("qwen2"), device="cpu")
    with lora.through_load(wide, tmp_path / "out") as loaded, steer(wide, edit("add", "resid_post.1"), foreign=True):
        inputs = encode(wide, zoo_prompts("qwen2", 2)).inputs
        assert_close(logits(loaded.model, inputs), logits(wide.model, inputs), atol=1e-4, rtol=0)


def test_peft_says_nothing_new(edit: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", FutureWarning)
        export(zoo_lens("llama"), edit("add", "resid_post.1"), "lora", tmp_path / "out", prompts=zoo_prompts("llama", 1))


def test_the_same_edits_give_the_same_bytes(edit: Any, tmp_path: Path) -> None:
    prompts, one = zoo_prompts("llama", 1), edit("affine", *AT_OUTPUTS)
    first, second = (export(zoo_lens("llama"), one, "lora", tmp_path / name, prompts=prompts) for name in ("a", "b"))
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert [first.files[name] for name in names] == [second.files[name] for name in names]
