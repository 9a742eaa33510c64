"""What a target cannot express is refused before anything is written, with the reason and the nearest exact alternative."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from thoughtlens.hooks.export import TARGETS, CannotExport, export
from thoughtlens.hooks.export.refusing import refuse
from thoughtlens.hooks.families import Block
from thoughtlens.hooks.gates import AtSteps, FirstTokens
from thoughtlens.hooks.model import LensModel, wrap
from torch import nn
from zoo import zoo_lens, zoo_model, zoo_prompts
from zoo_processors import zoo_processor

EVERY = tuple(TARGETS)
WEIGHTS = ("lora", "merged")
SUMS = ("gguf", "easysteer", "vllm-lens")
# targets, family, operator, site, further arguments of the edit, words of the reason, words of the alternative
CASES: list[tuple[tuple[str, ...], str, str, str, dict[str, Any], str, str]] = [
    (EVERY, "llama", "add", "resid_post.1", {"gate": AtSteps()}, "the gate steps decides token by token", "gate=Always()"),
    (EVERY, "llama", "add", "resid_post.1", {"gate": ~FirstTokens(3)}, "the gate not first_tokens(3) decides", "steer()"),
    (EVERY, "llama", "add", "resid_post.1", {"spans": "thought"}, "it acts on thought alone", 'spans="all"'),
    (EVERY, "llama", "add", "resid_post.1", {"spans": ("thought", "answer")}, "it acts on thought, answer alone", 'spans="all"'),
    (EVERY, "llama", "add", "resid_post.1", {"spans": "all[2:]"}, "it acts on all[2:] alone", 'spans="all"'),
    (EVERY, "llama", "add", "resid_post.1", {"strength": (1.0, 2.0)}, "a strength per row", "once with each strength"),
    (EVERY, "llama", "add", "resid_post.1", {"strength": 0.0}, "would be the unsteered model", "Leave this edit out"),
    ((*WEIGHTS, "gguf", "easysteer"), "llama", "add", "resid_post.1", {"unit": "local"}, "lengths of the hidden state", "vllm-lens"),
    *(
        (WEIGHTS, "llama", operator, site, {}, "reads the whole residual", f"Use {operator} at attn_out.1 and mlp_out.1")
        for operator, site in (("ablate", "resid_post.1"), ("affine", "resid_pre.1"), ("rotate", "resid_post.1"))
    ),
    (WEIGHTS, "mllama", "subspace", "resid_post.1", {}, "reads the whole residual", "Use subspace at cross_attn_out.1 and mlp_out.1"),
    (WEIGHTS, "llama", "add", "resid_pre.0", {}, "resid_pre.0 is the embeddings", "add at resid_post.0"),
    (SUMS, "llama", "add", "resid_pre.0", {}, "resid_pre.0 is the embeddings", "add at resid_post.0"),
    (WEIGHTS, "gemma3", "add", "resid_post.1", {}, "in gemma3 a norm stands between", "gguf, easysteer or vllm-lens"),
    (WEIGHTS, "gemma3", "ablate", "attn_out.1", {}, "in gemma3 a norm stands between", "steer()"),
    (WEIGHTS, "glm4v", "rotate", "mlp_out.1", {}, "in glm4v a norm stands between", "steer()"),
    (WEIGHTS, "mllama", "add", "resid_post.1", {}, "multiplies what the MLP of that layer writes with a gate", "self-attention layer"),
    ((*WEIGHTS, *SUMS[1:]), "mllama", "add", "resid_pre.1", {}, "do not run in a batch without pictures", "self-attention layer"),
    ((*WEIGHTS, *SUMS[1:]), "mllama", "add", "resid_pre.2", {}, "do not run in a batch without pictures", "self-attention layer"),
    (SUMS[1:], "mllama", "add", "mlp_out.1", {}, "is not simply added", "Use add at resid_post.1"),
    (WEIGHTS, "qwen3_vl_moe", "ablate", "mlp_out.0", {}, "a mixture of experts", "Use attn_out.0 alone"),
    (WEIGHTS, "qwen3_5_moe", "add", "resid_post.2", {}, "a mixture of experts", "gguf, easysteer or vllm-lens"),
    (("lora",), "glm4v_moe", "ablate", "mlp_out.0", {}, "for one of its experts", "as merged"),
    (("merged",), "qwen2_5_vl", "add", "resid_post.1", {}, "transformers would drop it on reload", "Export it as lora"),
    (("merged",), "qwen3", "affine", "mlp_out.1", {}, "a checkpoint of qwen3 has no place for it", "ablate or subspace"),
    (("merged",), "qwen3_5", "add", "attn_out.0", {}, "a checkpoint of qwen3_5_text has no place", "Export it as lora"),
    (("merged",), "mllama", "transport", "attn_out.0", {}, "a checkpoint of mllama_text_model has no place", "Export it as lora"),
    (SUMS, "llama", "ablate", "mlp_out.1", {}, "ablate depends on the hidden state", "at attn_out.1 and mlp_out.1 as lora or merged"),
    (SUMS, "qwen2", "add", "attn_out.1", {}, "goes through the MLP of its block first", "Use add at resid_post.1"),
    (("gguf",), "llama", "add", "resid_post.0", {}, "behind block 0", "a later site"),
    (("gguf",), "mllama", "add", "resid_post.2", {}, "no architecture for mllama_text_model", "easysteer or vllm-lens"),
    (("vllm-lens",), "llama", "add", "mlp_out.1", {"unit": "local"}, "lengths of what the MLP writes", "Use resid_post.1"),
    (("vllm-lens",), "qwen3_vl", "add", "resid_pre.1", {"unit": "local"}, "visual features are added between block 0", "Use resid_post.0"),
]


@pytest.mark.parametrize(
    ("target", "family", "operator", "site", "how", "why", "instead"),
    [(target, *case) for targets, *case in CASES for target in targets],
)
def test_what_cannot_be_expressed_is_refused_with_a_way_out(
    target: str, family: str, operator: str, site: str, how: dict[str, Any], why: str, instead: str, edit: Any, tmp_path: Path
) -> None:
    with pytest.raises(CannotExport) as refused:
        export(zoo_lens(family), edit(operator, site, **how), target, tmp_path / "out", prompts=zoo_prompts(family, 2))
    assert list(tmp_path.iterdir()) == []
    (reason,) = refused.value.reasons
    before, _, after = reason.partition(". ")
    assert why in before and instead in f"{before}. {after}", reason
    assert str(refused.value).startswith(f"this cannot be exported as {target}. ") and "{" not in reason


def test_what_is_next_to_it_is_allowed(edit: Any, tmp_path: Path) -> None:
    """The same cases, one step to the side: what was refused above for one reason is not refused for another."""
    neighbours = [
        ("lora", "mllama", edit("add", "resid_post.2")),
        ("merged", "qwen3_vl_moe", edit("ablate", "mlp_out.1")),
        ("vllm-lens", "qwen3_vl", edit("add", "resid_post.0", unit="local")),
        ("vllm-lens", "llama", edit("add", "resid_pre.1", unit="local")),
        ("lora", "llama", edit("add", "resid_post.1", spans=("thought", "all"))),
        ("easysteer", "gemma3", edit("add", "mlp_out.1")),
    ]
    for number, (target, family, one) in enumerate(neighbours):
        assert export(zoo_lens(family), one, target, tmp_path / str(number), prompts=zoo_prompts(family, 2)).share < 1e-5


def test_every_reason_is_told_once(edit: Any, tmp_path: Path) -> None:
    edits = [
        edit("add", "resid_post.0", "resid_post.1", "resid_post.2", gate=FirstTokens(2)),
        edit("ablate", "resid_post.1", "mlp_out.1"),
        edit("rotate", "attn_out.1", strength=0.0),
    ]
    with pytest.raises(CannotExport) as refused:
        export(zoo_lens("llama"), edits, "lora", tmp_path / "out", prompts=zoo_prompts("llama", 1))
    gate, residual, zero = refused.value.reasons
    assert "the gate first_tokens(2) decides" in gate and ", and at 2 more of its sites." in gate
    assert "at resid_post.1 ablate reads" in residual and "more of its sites" not in residual
    assert "its strength is 0" in zero
    assert all(reason in str(refused.value) for reason in refused.value.reasons)


def test_rules_about_all_edits_wait_for_the_others(edit: Any, tmp_path: Path) -> None:
    """A merged bias is looked for only once every edit can be put into weights at all."""
    edits = [edit("add", "resid_post.1"), edit("add", "resid_post.1", strength=(1.0, 2.0))]
    with pytest.raises(CannotExport, match="a strength per row"):
        export(zoo_lens("qwen2_5_vl"), edits, "merged", tmp_path / "out", prompts=zoo_prompts("qwen2_5_vl", 1))
    with pytest.raises(CannotExport) as refused:
        export(
            zoo_lens("qwen3"),
            [edit("ablate", "mlp_out.1"), edit("add", "mlp_out.1")],
            "merged",
            tmp_path / "out",
            prompts=zoo_prompts("qwen3", 1),
        )
    (reason,) = refused.value.reasons
    assert reason.startswith("test add 0.7 at mlp_out.1")


def made(change: Any) -> LensModel:
    """A tiny Llama in memory with something about it changed."""
    processor = zoo_processor("llama")
    model = zoo_model("llama", processor)
    change(model)
    return wrap(model, processor, name="changed")


def tie(model: Any) -> None:
    model.model.layers[2].mlp.down_proj.weight = model.model.layers[1].mlp.down_proj.weight


class Packed(nn.Linear):
    """Stands for the layers of a quantizer, which are no plain nn.Linear."""


def pack(model: Any) -> None:
    model.model.layers[1].mlp.down_proj.__class__ = Packed


@pytest.mark.parametrize("target", WEIGHTS)
@pytest.mark.parametrize(
    ("change", "why"), [(tie, "shares its weight with another part of changed"), (pack, "is no plain weight in memory")]
)
def test_a_weight_that_is_not_the_sites_own_is_refused(change: Any, why: str, target: str, edit: Any, tmp_path: Path) -> None:
    with pytest.raises(CannotExport, match=why):
        export(made(change), edit("ablate", "mlp_out.1"), target, tmp_path / "out", prompts=zoo_prompts("llama", 1))


@pytest.mark.parametrize("target", WEIGHTS)
def test_a_model_with_an_adapter_is_refused(target: str, edit: Any, tmp_path: Path) -> None:
    processor = zoo_processor("llama")
    peft = get_peft_model(zoo_model("llama", processor), LoraConfig(target_modules=["q_proj"]))  # type: ignore[arg-type]
    lens = wrap(peft, processor, name="adapted")
    with pytest.raises(CannotExport, match="adapted holds an adapter already.*merge_and_unload"):
        export(lens, edit("ablate", "mlp_out.1"), target, tmp_path / "out", prompts=zoo_prompts("llama", 1))
    done = export(lens, edit("add", "resid_post.1"), "gguf", tmp_path / "fine", prompts=zoo_prompts("llama", 1))
    assert done.share < 1e-5, "what is added behind a block is no matter of weights"


@pytest.mark.parametrize("target", EVERY)
def test_a_family_whose_parts_do_not_sum_moves_nothing(target: str, edit: Any, tmp_path: Path) -> None:
    lens = zoo_lens("llama")
    other = replace(lens, family=replace(lens.family, sums=False))
    site, why = ("mlp_out.1", "is not simply added") if target in SUMS else ("resid_post.1", "is not resid_pre . attention . MLP")
    with pytest.raises(CannotExport, match=why):
        export(other, edit("add", site), target, tmp_path / "out", prompts=zoo_prompts("llama", 1))


@pytest.mark.parametrize(
    ("field", "behind", "other"), [("attention_adds", "attn_out.1", "mlp_out.1"), ("mlp_adds", "mlp_out.1", "attn_out.1")]
)
def test_a_norm_refuses_what_stands_before_it_alone(field: str, behind: str, other: str, edit: Any) -> None:
    lens = zoo_lens("llama")
    normed = replace(lens, family=replace(lens.family, block=Block(**{field: "input_layernorm"})))
    refuse(normed, [edit("ablate", other)], "lora", TARGETS["lora"].rules)
    with pytest.raises(CannotExport, match="a norm stands between"):
        refuse(normed, [edit("ablate", behind)], "lora", TARGETS["lora"].rules)


def test_an_offloaded_weight_is_refused(edit: Any) -> None:
    lens = made(lambda model: None)
    lens.layers[1].get_submodule("mlp.down_proj").to("meta")
    with pytest.raises(CannotExport, match="no plain weight in memory"):
        refuse(lens, [edit("ablate", "mlp_out.1")], "merged", TARGETS["merged"].rules)
