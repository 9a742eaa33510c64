"""A merged checkpoint, loaded by plain transformers, does what the hooked model does; every other weight keeps its bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.export import CannotExport, export
from thoughtlens.hooks.model import LensModel, load, wrap
from thoughtlens.hooks.steer import steer
from tiny import tiny_lens, tiny_prompts
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer, LlamaForCausalLM
from zoo import fill, zoo_folder, zoo_lens, zoo_model, zoo_prompts
from zoo_processors import zoo_processor

AT_OUTPUTS = ("attn_out.1", "mlp_out.0")
# family, operator, sites, switches turned on, type changed
CASES = [
    *(("llama", operator, AT_OUTPUTS, (), "") for operator in ("ablate", "rotate", "subspace")),
    ("llama", "add", ("resid_post.1",), ("mlp_bias",), ""),
    ("llama", "affine", AT_OUTPUTS, ("attention_bias", "mlp_bias"), ""),
    ("llama", "transport", ("mlp_out.2",), ("mlp_bias",), ""),
    ("qwen2", "ablate", AT_OUTPUTS, (), ""),
    ("qwen2", "add", ("resid_pre.1", "resid_post.2"), ("attention_bias", "mlp_bias"), "qwen2 as llama"),
    ("qwen2", "affine", ("attn_out.1",), ("attention_bias",), "qwen2 as llama"),
    ("qwen3", "affine", ("attn_out.1",), ("attention_bias",), ""),
    ("qwen2_5_vl", "subspace", AT_OUTPUTS, (), ""),
    ("qwen3_vl", "transport", ("attn_out.2",), ("attention_bias",), ""),
    ("llava", "add", ("resid_post.0",), ("mlp_bias",), ""),
    ("llava_next", "affine", ("mlp_out.1",), ("mlp_bias",), "mistral as llama"),
    ("llava_onevision", "add", ("resid_post.1",), ("attention_bias", "mlp_bias"), "qwen2 as llama"),
    ("internvl", "transport", AT_OUTPUTS, ("attention_bias", "mlp_bias"), "qwen2 as llama"),
    ("mllama", "rotate", ("cross_attn_out.1", "mlp_out.1"), (), ""),
    ("qwen3_vl_moe", "ablate", ("attn_out.0", "mlp_out.1"), (), ""),
    ("qwen3_5", "add", ("attn_out.2",), ("attention_bias",), ""),
]


def logits(model: Any, inputs: Any) -> Tensor:
    """At every token that is not padding."""
    with torch.no_grad():
        found: Tensor = model(**inputs).logits
    return found[inputs["attention_mask"].bool()]


def plain(lens: LensModel, folder: Path, **options: Any) -> Any:
    auto: Any = AutoModelForCausalLM if lens.family.image_token is None else AutoModelForImageTextToText
    return auto.from_pretrained(folder, **options)


@pytest.mark.parametrize(("family", "operator", "sites", "switches", "retyped"), CASES)
def test_plain_transformers_loads_what_the_hooked_model_does(
    family: str, operator: str, sites: tuple[str, ...], switches: tuple[str, ...], retyped: str, edit: Any, tmp_path: Path
) -> None:
    lens, one, prompts = zoo_lens(family), edit(operator, *sites), zoo_prompts(family, 4)[1::2]
    done = export(lens, one, "merged", tmp_path / "out", prompts=prompts)
    assert done.share < 1e-5
    assert (sorted(done.facts["switched"]), done.facts["retyped"]) == (sorted(switches), retyped)
    inputs = encode(lens, prompts).inputs
    with steer(lens, one):
        hooked = logits(lens.model, inputs)
    theirs = plain(lens, tmp_path / "out", dtype=torch.float32)
    assert_close(logits(theirs, inputs), hooked, atol=1e-4, rtol=0)
    assert float((hooked - logits(lens.model, inputs)).abs().max()) > 0.1
    changed = {f"{path}.{part}" for path in done.facts["modules"] for part in ("weight", "bias")}
    own = lens.model.state_dict()
    for name, weight in theirs.state_dict().items():
        if name in own and name not in changed:
            assert torch.equal(weight, own[name]), f"{name} changed"
        if name not in own:
            assert name.endswith(".bias") and (name in changed or not bool(weight.any())), f"{name} is new"


def test_two_kinds_of_edit_in_one_checkpoint(edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("qwen2")
    edits = [edit("rotate", "mlp_out.1"), edit("add", "resid_post.1", seed=1), edit("affine", "attn_out.2", seed=2)]
    assert export(lens, edits, "merged", tmp_path / "out", prompts=zoo_prompts("qwen2", 2)).share < 1e-5


def test_tied_embeddings_stay_tied_and_as_they_were(edit: Any, tmp_path: Path) -> None:
    lens = tiny_lens()
    assert lens.model.config.tie_word_embeddings
    export(lens, edit("ablate", *AT_OUTPUTS), "merged", tmp_path / "out", prompts=tiny_prompts(2))
    theirs = plain(lens, tmp_path / "out", dtype=torch.float32)
    assert theirs.lm_head.weight is theirs.get_input_embeddings().weight
    assert torch.equal(theirs.lm_head.weight, lens.model.lm_head.weight)


def test_weights_are_written_in_the_dtype_they_were_loaded_in(edit: Any, tmp_path: Path) -> None:
    lens = load(zoo_folder("llama"), device="cpu", dtype=torch.bfloat16)
    done = export(lens, edit("affine", *AT_OUTPUTS), "merged", tmp_path / "out", prompts=zoo_prompts("llama", 2))
    assert done.facts["dtype"] == "bfloat16" and 0 < done.share < 0.1
    theirs = plain(lens, tmp_path / "out", dtype="auto")
    assert {weight.dtype for weight in theirs.state_dict().values()} == {torch.bfloat16}
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}


def test_the_model_in_memory_is_not_touched(edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("llava_onevision")
    before, config = {name: weight.clone() for name, weight in lens.model.state_dict().items()}, lens.model.config.to_json_string()
    export(lens, edit("affine", *AT_OUTPUTS), "merged", tmp_path / "out", prompts=zoo_prompts("llava_onevision", 2))
    assert all(torch.equal(weight, before[name]) for name, weight in lens.model.state_dict().items())
    assert list(before) == list(lens.model.state_dict()) and lens.model.config.to_json_string() == config


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llama"])
def test_tokenizer_and_template_are_copied_byte_by_byte(family: str, edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens(family)
    assert lens.path is not None
    done = export(lens, edit("ablate", "attn_out.0"), "merged", tmp_path / "out", prompts=zoo_prompts(family, 1))
    names = {file.name for file in lens.path.iterdir()} - {"config.json", "model.safetensors"}
    assert {"tokenizer.json", "generation_config.json", "chat_template.jinja"} <= names
    assert all((lens.path / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in names)
    assert set(done.files) == names | {"config.json", "model.safetensors", "thoughtlens.json"}


def test_a_text_model_of_another_type_reads_the_same_words(edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("qwen2")
    export(lens, edit("add", "resid_post.1"), "merged", tmp_path / "out", prompts=zoo_prompts("qwen2", 1))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("llama", ["LlamaForCausalLM"])
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "open the old lock <think> slowly . </think> no"
    assert theirs(text)["input_ids"] == lens.tokenizer(text)["input_ids"] and theirs.chat_template == lens.processor.chat_template
    assert load(tmp_path / "out", device="cpu").markers.eos_ids == lens.markers.eos_ids


def windowed(family: str) -> LensModel:
    """A tiny model whose text model looks back four tokens only."""
    processor = zoo_processor(family)
    model = zoo_model(family, processor)
    config = model.config
    text = config.get_text_config()
    text.sliding_window = 4
    if text.model_type == "qwen2":
        text.use_sliding_window, text.layer_types = True, ["sliding_attention"] * 3
    return wrap(type(model)(config).eval(), processor, name="windowed")


@pytest.mark.parametrize(("family", "text"), [("qwen2", "qwen2"), ("llava_next", "mistral")])
def test_sliding_windows_are_not_taken_for_another_type(family: str, text: str, edit: Any, tmp_path: Path) -> None:
    """With sliding windows it is no Llama; the bias is refused instead of computing something else."""
    with pytest.raises(CannotExport, match=f"a checkpoint of {text} has no place for it"):
        export(windowed(family), edit("add", "resid_post.1"), "merged", tmp_path / "out", prompts=zoo_prompts(family, 1))


@pytest.mark.parametrize("operator", ["ablate", "affine"])
def test_a_bias_that_is_there_already_is_kept_and_changed(operator: str, edit: Any, tmp_path: Path) -> None:
    processor = zoo_processor("llama")
    config = zoo_model("llama", processor).config
    config.mlp_bias = True
    model = LlamaForCausalLM(config).eval()
    fill(model)
    lens = wrap(model, processor, name="with biases")
    done = export(lens, edit(operator, "mlp_out.1"), "merged", tmp_path / "out", prompts=zoo_prompts("llama", 2))
    assert done.share < 1e-5 and done.facts["switched"] == []
    theirs, own = plain(lens, tmp_path / "out", dtype=torch.float32).state_dict(), model.state_dict()
    moved = {name for name, weight in theirs.items() if not torch.equal(weight, own[name])}
    assert moved == {f"model.layers.1.mlp.down_proj.{part}" for part in ("weight", "bias")}


def test_a_model_made_in_memory_is_written_whole(edit: Any, tmp_path: Path) -> None:
    processor = zoo_processor("qwen3_vl")
    model = zoo_model("qwen3_vl", processor, seed=3)
    model.generation_config.max_new_tokens = 7
    lens = wrap(model, processor, name="in memory")
    done = export(lens, edit("add", "attn_out.1"), "merged", tmp_path / "out", prompts=zoo_prompts("qwen3_vl", 2))
    assert done.share < 1e-5
    again = load(tmp_path / "out", device="cpu")
    assert again.markers.eos_ids == lens.markers.eos_ids and again.template_sha == lens.template_sha
    assert again.model.generation_config.max_new_tokens == 7


def test_a_large_checkpoint_in_shards_is_written_whole(edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedModel

    own = PreTrainedModel.save_pretrained
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", lambda self, folder: own(self, folder, max_shard_size="40KB"))
    done = export(zoo_lens("llama"), edit("ablate", *AT_OUTPUTS), "merged", tmp_path / "out", prompts=zoo_prompts("llama", 1))
    assert "model.safetensors.index.json" in done.files and done.share < 1e-5
