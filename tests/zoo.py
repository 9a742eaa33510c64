"""A tiny random model of every family: the real transformers class with three or four layers of width 32, and weights that leave no part idle.

    lens = zoo_lens("qwen3_vl")                  loaded from zoo_folder("qwen3_vl"); shared, so leave it as it was
    prompts = zoo_prompts("qwen3_vl", 4)         every second one with a picture, where the family has pictures
    model = zoo_model("qwen3_vl", processor)     a fresh model in memory

The table below holds what makes a family hard: layers of two kinds (Qwen3.5, Mllama), experts in some layers (MoE), visual features behind
the first two layers (Qwen3-VL), head_out wider than the model (Qwen3 and others), sliding windows (Gemma 3).
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from thoughtlens.hooks import FAMILIES
from thoughtlens.hooks.model import LensModel, load
from thoughtlens.hooks.records import Prompt
from tiny import LOADED, tiny_prompts
from transformers import AutoConfig, PreTrainedModel
from zoo_processors import GEOMETRY, PATCH, zoo_processor

FAMILIES_TINY = tuple(FAMILIES)
PICTURED = tuple(name for name in FAMILIES_TINY if FAMILIES[name].image_token is not None)

_TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
_EXPERTS = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
_MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_HYBRID = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    "head_dim": 16,
    "rope_parameters": {**_MROPE, "mrope_interleaved": True, "partial_rotary_factor": 0.5},
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
}
_QWEN_VISION = {"depth": 3, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32, "patch_size": PATCH}
_QWEN3_VISION = {**_QWEN_VISION, "num_position_embeddings": 64}
_GLM_VISION = {**_QWEN_VISION, "image_size": GEOMETRY["glm4v"]["image_size"]}
_VIT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": PATCH}


def _clip(name: str) -> dict[str, Any]:
    return {"model_type": "clip_vision_model", **_VIT, "image_size": GEOMETRY[name]["image_size"]}


def _siglip(name: str) -> dict[str, Any]:
    return {"model_type": "siglip_vision_model", **_VIT, "image_size": GEOMETRY[name]["image_size"], "vision_use_head": False}


# family -> text configuration, vision configuration, further fields, and its special tokens by the field that holds their id
_QWEN = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_GLM = {
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}
_LLAVA = {"image_token_index": "<image>"}
_TINY: dict[str, tuple[Mapping[str, Any], Mapping[str, Any] | None, Mapping[str, Any], Mapping[str, str]]] = {
    "qwen2_vl": (
        {"rope_parameters": _MROPE},
        {"depth": 3, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": PATCH},
        {},
        _QWEN,
    ),
    "qwen2_5_vl": ({"rope_parameters": _MROPE}, {**_QWEN_VISION, "window_size": 56, "fullatt_block_indexes": [1]}, {}, _QWEN),
    "qwen3_vl": (
        {"head_dim": 16, "rope_parameters": {**_MROPE, "mrope_section": [4, 2, 2], "mrope_interleaved": True}},
        {**_QWEN3_VISION, "deepstack_visual_indexes": [0, 1]},
        {},
        _QWEN,
    ),
    "qwen3_vl_moe": (
        {
            **_EXPERTS,
            "head_dim": 16,
            "mlp_only_layers": [1],
            "rope_parameters": {**_MROPE, "mrope_section": [4, 2, 2], "mrope_interleaved": True},
        },
        {**_QWEN3_VISION, "deepstack_visual_indexes": [0, 1]},
        {},
        _QWEN,
    ),
    "qwen3_5": (_HYBRID, _QWEN3_VISION, {}, _QWEN),
    "qwen3_5_moe": ({**_HYBRID, **_EXPERTS, "shared_expert_intermediate_size": 24}, _QWEN3_VISION, {}, _QWEN),
    "llava": ({"model_type": "llama"}, _clip("llava"), {"vision_feature_layer": -2}, _LLAVA),
    "llava_next": (
        {"model_type": "mistral", "sliding_window": None},
        _clip("llava_next"),
        {"vision_feature_layer": -2, "image_grid_pinpoints": GEOMETRY["llava_next"]["grid"]},
        _LLAVA,
    ),
    "llava_onevision": (
        {"model_type": "qwen2"},
        _siglip("llava_onevision"),
        {"image_grid_pinpoints": GEOMETRY["llava_onevision"]["grid"]},
        {**_LLAVA, "video_token_index": "<video>"},
    ),
    "internvl": (
        {"model_type": "qwen2"},
        {**_VIT, "image_size": [GEOMETRY["internvl"]["image_size"]] * 2, "patch_size": [PATCH, PATCH]},
        {"image_seq_length": GEOMETRY["internvl"]["tokens_per_tile"], "downsample_ratio": GEOMETRY["internvl"]["downsample_ratio"]},
        {"image_token_id": "<IMG_CONTEXT>"},
    ),
    "mistral3": (
        {"model_type": "mistral", "sliding_window": None, "head_dim": 16},
        {**_VIT, "model_type": "pixtral", "image_size": GEOMETRY["mistral3"]["image_size"], "head_dim": 8},
        {"vision_feature_layer": -1},
        {"image_token_index": "[IMG]"},
    ),
    "gemma3": (
        {
            "head_dim": 16,
            "num_hidden_layers": 4,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "query_pre_attn_scalar": 16,
        },
        _siglip("gemma3"),
        {"mm_tokens_per_image": GEOMETRY["gemma3"]["mm_tokens_per_image"]},
        {"image_token_index": "<image_soft_token>", "boi_token_index": "<start_of_image>", "eoi_token_index": "<end_of_image>"},
    ),
    "glm4v": ({"rope_parameters": {**_MROPE, "mrope_section": [2, 1, 1]}}, _GLM_VISION, {}, _GLM),
    "glm46v": ({"rope_parameters": {**_MROPE, "mrope_section": [2, 1, 1]}}, _GLM_VISION, {}, _GLM),
    "glm4v_moe": (
        {
            "rope_parameters": {**_MROPE, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5},
            "head_dim": 16,
            "moe_intermediate_size": 24,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
        },
        _GLM_VISION,
        {},
        _GLM,
    ),
    "mllama": (
        {"num_hidden_layers": 4, "cross_attention_layers": [1, 3]},
        {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": GEOMETRY["mllama"]["image_size"],
            "patch_size": PATCH,
            "intermediate_layers_indices": [0, 1],
            "vision_output_dim": 48,
            "max_num_tiles": GEOMETRY["mllama"]["max_num_tiles"],
        },
        {},
        {"image_token_index": "<|image|>"},
    ),
    "qwen2": ({}, None, {}, {}),
    "qwen3": ({"head_dim": 16}, None, {}, {}),
    "llama": ({"num_key_value_heads": 4}, None, {}, {}),
}


def zoo_config(name: str, id_of: Callable[[str], int], vocabulary: int, ends: Mapping[str, int | None]) -> Any:
    """The configuration of a tiny model. `ends` are bos_token_id, eos_token_id and pad_token_id."""
    text, vision, further, tokens = _TINY[name]
    text = {**_TEXT, "vocab_size": vocabulary, "max_position_embeddings": 512, **ends, **text}
    if vision is None:
        return AutoConfig.for_model(name, **text)
    ids = {field: id_of(token) for field, token in tokens.items()}
    return AutoConfig.for_model(name, text_config=text, vision_config=dict(vision), tie_word_embeddings=False, **further, **ids)


def zoo_model(name: str, processor: Any, *, seed: int = 0) -> PreTrainedModel:
    """A tiny random model of the family's real class, fitting a processor of zoo_processors."""
    tokenizer = processor if FAMILIES[name].image_token is None else processor.tokenizer
    ends = {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    config = zoo_config(name, tokenizer.convert_tokens_to_ids, len(tokenizer), ends)
    auto = transformers.AutoModelForCausalLM if FAMILIES[name].image_token is None else transformers.AutoModelForImageTextToText
    torch.manual_seed(seed)
    model = auto.from_config(config)
    fill(model)
    for field, token in ends.items():
        setattr(model.generation_config, field, token)
    model.generation_config.do_sample = False
    return model.eval()


@torch.no_grad()
def fill(model: PreTrainedModel) -> None:
    """Random weights in which nothing is zero or one: gates are open, norms scale, biases shift."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.2)
        elif parameter.numel() == 1:
            parameter.fill_(0.7)  # Mllama's gates, which start closed
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))


@functools.cache
def zoo_folder(name: str) -> Path:
    """A checkpoint folder, written once a session."""
    parent = tempfile.mkdtemp(prefix="thoughtlens-zoo-")
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    folder = Path(parent) / f"tiny-{name}"
    processor = zoo_processor(name)
    zoo_model(name, processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@functools.cache
def zoo_lens(name: str) -> LensModel:
    """The tiny model of a family, loaded; one for the session."""
    LOADED.append(load(zoo_folder(name), device="cpu"))
    return LOADED[-1]


def zoo_prompts(name: str, n: int = 4, *, seed: int = 0) -> list[Prompt]:
    """n prompts of different lengths; every second one has a picture, where the family has pictures."""
    return tiny_prompts(n, images=(0, 1) if name in PICTURED else (0,), seed=seed)
