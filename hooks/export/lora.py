"""LoRA: an edit as an adapter of PEFT, exactly, loaded onto the same base model.

    y' = W x + c + B (A x + …)        lora_B = Uᵀ M   lora_A = U W   alpha = r, so that PEFT's scaling is 1
                                      bias of lora_B = Uᵀ M U c + Uᵀ b, where that is not zero (PEFT's lora_bias)

Every module has the same rank, filled up with zeros: vLLM reads no rank_pattern. An adapter without biases can be merged and is read by
other engines that read LoRA; with them it is for PEFT and transformers: vLLM refuses it, llama.cpp's converter too, and PEFT merges it
only into a base that has these biases.

Hu et al. 2021 (LoRA). Shapes: A [r, n], B [d, r] (`n` inputs of the projection).
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..edits import Edit
from ..model import load, wrap
from .placing import linear, projection_path, rewrites, rewritten
from .refusing import WEIGHTS, Asked, Rule

if TYPE_CHECKING:
    from ..model import LensModel

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_STEM = "base_model.model."
_MISREAD = ("glm4v_moe",)


def _misread(asked: Asked) -> bool:
    home = rewritten(asked.edit, asked.site)
    return asked.lens.model.config.model_type in _MISREAD and home is not None and home.name == "mlp_out"


RULES = (
    *WEIGHTS,
    Rule(
        _misread,
        "PEFT takes an adapter at any down_proj of {family} for one of its experts, those of plain MLPs too",
        "Use {attention}.{layer}; or export what needs no bias as merged",
    ),
)


def write(lens: LensModel, edits: Sequence[Edit], folder: Path) -> dict[str, Any]:
    """Write the adapter; what is worth knowing of it comes back."""
    changes = rewrites(lens, edits)
    paths = {site: projection_path(lens, site) for site in changes}
    shifts = {site: change.shift(linear(lens, site).bias) for site, change in changes.items()}
    rank = max(1, *(len(change.basis) for change in changes.values()))
    biased = any(bool(shift.any()) for shift in shifts.values())
    tensors: dict[str, Tensor] = {}
    for site, change in changes.items():
        left, right = change.factors(linear(lens, site).weight)
        k, stem = len(right), f"{_STEM}{paths[site]}"
        tensors[f"{stem}.lora_A.weight"] = torch.cat([right, right.new_zeros(rank - k, right.shape[1])])
        tensors[f"{stem}.lora_B.weight"] = torch.cat([left, left.new_zeros(left.shape[0], rank - k)], 1)
        if biased:
            tensors[f"{stem}.lora_B.bias"] = shifts[site]
    save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, folder / TENSORS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(_config(lens, list(paths.values()), rank, biased), indent=1) + "\n", encoding="utf-8")
    mergeable = all(linear(lens, site).bias is not None for site in changes) or not biased
    return {"rank": rank, "modules": list(paths.values()), "lora_bias": biased, "mergeable": mergeable, "dtype": "float32"}


def _config(lens: LensModel, modules: list[str], rank: int, biased: bool) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": lens.name if "/" in lens.name else None,  # a hub id; a folder's name says nothing elsewhere
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "lora_bias": biased,
        "target_modules": modules,
        "inference_mode": True,
    }


@contextmanager
def through_load(lens: LensModel, folder: Path) -> Iterator[LensModel]:
    """The base read from disk again, with the adapter put in by transformers. Needs a model that was loaded from a folder."""
    assert lens.path is not None
    spread = vars(lens.model).get("hf_device_map")
    with _quiet():
        loaded = load(
            lens.path,
            device=None if spread else lens.device,
            device_map=spread,
            dtype=lens.dtype,
            attention=lens.model.config._attn_implementation,
            adapter=folder,
            dialect=lens.dialect,
            family=lens.family,
            template=lens.template,
        )
    yield replace(loaded, name=lens.name)


@contextmanager
def through_peft(lens: LensModel, folder: Path) -> Iterator[LensModel]:
    """A copy of the base in memory, with the adapter put in by PEFT."""
    from peft import PeftModel

    with _quiet():
        model = PeftModel.from_pretrained(copy.deepcopy(lens.model), folder)
    yield wrap(
        model,
        lens.processor,
        name=lens.name,
        dialect=lens.dialect,
        family=lens.family,
        template=lens.template,
        sha=f"{lens.fingerprint} with an adapter",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PEFT's warnings at every module that a bias could not be merged, which the export says once, and about transformers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lora_bias.*|.*is_gradient_checkpointing.*")
        yield
