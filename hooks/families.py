"""Architecture facts as data: where a family keeps its decoder layers, what its layers are made of, and what its image token is called.

Paths are attribute paths; `layers` and `inner` start at the model, those of a Block at a layer. Nothing is guessed: a family without an
entry is an error that shows how to write one, and load() checks every entry against a forward of the model.

A layer of any family here computes

    resid_post = resid_pre + attention + mlp

where `attention` and `mlp` are the outputs of two modules, each named in its Block, and multiplied by tanh(gate) where there is a gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Block:
    """One kind of decoder layer, by the paths of its parts.

    attention         its attention
    out               the output projection inside the attention
    mlp               its MLP, or its mixture of experts
    down              the output projection inside the MLP; a mixture of experts has no single one
    attention_adds    the module whose output joins the residual, where that is not the attention itself but a norm behind it
    mlp_adds          the same for the MLP
    attention_gate    parameter g, where tanh(g) times the attention joins the residual
    mlp_gate          the same for the MLP
    site              what the attention's output is called: attn_out | cross_attn_out
    heads             field of the text configuration with the number of heads in head_out
    """

    attention: str = "self_attn"
    out: str = "o_proj"
    mlp: str = "mlp"
    down: str = "down_proj"
    attention_adds: str = ""
    mlp_adds: str = ""
    attention_gate: str = ""
    mlp_gate: str = ""
    site: Literal["attn_out", "cross_attn_out"] = "attn_out"
    heads: str = "num_attention_heads"


@dataclass(frozen=True)
class Family:
    """One architecture.

    layers        path of the ModuleList of decoder layers
    inner         path of the model without the output head
    image_token   config field that holds the image placeholder's id; None for a family without pictures
    block         what a layer is made of
    layer_types   field of the text configuration that tells layers apart: a list with a type per layer, or the numbers of those
                  that differ; empty where all are alike
    blocks        type -> what such a layer is made of, where it differs from `block`; for a field of numbers the key is the field's name
    deepstack     path in the configuration of the list with one entry per layer after which visual features are added; empty: none
    mixes         whether rows with different numbers of pictures may share a batch and still compute what each computes alone
    sums          whether resid_post = resid_pre + attention + mlp holds, which load() then checks
    note          what a reader of hidden states must know
    """

    layers: str = "model.language_model.layers"
    inner: str = "model"
    image_token: str | None = "image_token_id"
    block: Block = Block()
    layer_types: str = ""
    blocks: Mapping[str, Block] = field(default_factory=dict)
    deepstack: str = ""
    mixes: bool = True
    sums: bool = True
    note: str = ""


_DEEPSTACK = (
    "DeepStack adds visual features at image tokens behind each of the first layers: there resid_pre[i+1] is resid_post[i] plus features."
)
_LINEAR = "Layers of type linear_attention have no attention pattern; their attn_out is the output of the gated delta rule."
_QWEN_HYBRID = {"linear_attention": Block(attention="linear_attn", out="out_proj", heads="linear_num_value_heads")}
_NORMS = "Norms stand behind attention and MLP too: attn_out and mlp_out are read behind them, where they join the residual."
_GLM = Block(attention_adds="post_self_attn_layernorm", mlp_adds="post_mlp_layernorm")
_TEXT = Family(layers="model.layers", image_token=None)

FAMILIES = {
    "qwen2_vl": Family(),
    "qwen2_5_vl": Family(),
    "qwen3_vl": Family(deepstack="vision_config.deepstack_visual_indexes", note=_DEEPSTACK),
    "qwen3_vl_moe": Family(deepstack="vision_config.deepstack_visual_indexes", note=_DEEPSTACK),
    "qwen3_5": Family(layer_types="layer_types", blocks=_QWEN_HYBRID, note=_LINEAR),
    "qwen3_5_moe": Family(layer_types="layer_types", blocks=_QWEN_HYBRID, note=_LINEAR),
    "llava": Family(),
    "llava_next": Family(),
    "llava_onevision": Family(),
    "internvl": Family(),
    "mistral3": Family(),
    "gemma3": Family(
        block=Block(attention_adds="post_attention_layernorm", mlp_adds="post_feedforward_layernorm"),
        note=_NORMS,
    ),
    "glm4v": Family(block=_GLM, note=_NORMS),
    "glm46v": Family(block=_GLM, note=_NORMS),
    "glm4v_moe": Family(),
    "mllama": Family(
        layer_types="cross_attention_layers",
        blocks={
            "cross_attention_layers": Block(
                attention="cross_attn", attention_gate="cross_attn_attn_gate", mlp_gate="cross_attn_mlp_gate", site="cross_attn_out"
            )
        },
        mixes=False,
        note="Cross-attention layers are skipped in a batch without pictures, and add tanh(gate) times their outputs in one with pictures; "
        "at tokens before the first picture their mlp_out is computed and not added.",
    ),
    "qwen2": _TEXT,
    "qwen3": _TEXT,
    "llama": _TEXT,
}


def family_of(config: Any) -> Family:
    """The entry for a model's configuration. ValueError shows how to write a missing one."""
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"no entry for the architecture {config.model_type!r}; known are {', '.join(FAMILIES)}. Pass "
            'family=Family(layers="model.language_model.layers", inner="model", image_token="image_token_id", '
            'block=Block(attention="self_attn", out="o_proj", mlp="mlp")) with the paths of this model (print(model) shows them), '
            "or add it to FAMILIES in hooks/families.py."
        )
    return FAMILIES[config.model_type]


def blocks_of(family: Family, text_config: Any) -> tuple[Block, ...]:
    """What each layer is made of."""
    count = int(text_config.num_hidden_layers)
    if not family.layer_types:
        return (family.block,) * count
    told: Sequence[str | int] = getattr(text_config, family.layer_types)
    types = [family.layer_types if layer in told else "" for layer in range(count)] if _numbers(told) else list(told)
    return tuple(family.blocks.get(str(kind), family.block) for kind in types)


def _numbers(told: Sequence[str | int]) -> bool:
    return all(isinstance(one, int) for one in told)
