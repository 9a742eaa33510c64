"""Attention within the pictures of a batch in one call.

The vision tower of transformers attends picture by picture, in a loop; on a GPU the loop takes longer than the attention. Where all
pictures have as many patches, they are rows of one batch. The same numbers to rounding.

Shapes: h heads, n pictures, p patches to a picture, d values to a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel as Tower

from .feeding import GRID

NAME = "pictures_of_one_size"


def _within_pictures(
    module: torch.nn.Module,
    query: Float[Tensor, "1 h n*p d"],
    key: Float[Tensor, "1 h n*p d"],
    value: Float[Tensor, "1 h n*p d"],
    attention_mask: None,
    *,
    scaling: float,
    **_: Any,
) -> tuple[Float[Tensor, "1 n*p h d"], None]:
    rows = (x[0].unflatten(1, (-1, GRID**2)).transpose(0, 1) for x in (query, key, value))
    return scaled_dot_product_attention(*rows, scale=scaling).transpose(1, 2).flatten(0, 1)[None], None


AttentionInterface.register(NAME, _within_pictures)


def tower_of(model: torch.nn.Module) -> Tower:
    return next(module for module in model.modules() if isinstance(module, Tower))


@contextmanager
def together(tower: Tower) -> Iterator[None]:
    """Within this context every picture that the tower sees must be 84 × 84."""
    before = tower.config._attn_implementation

    def one_stretch(_: torch.nn.Module, args: tuple[Any, ...], asked: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        ends = torch.tensor([0, len(args[0])], dtype=torch.int32)
        return args, {**asked, "cu_seqlens": ends, "cu_window_seqlens": ends}

    handle = tower.register_forward_pre_hook(one_stretch, with_kwargs=True)
    tower.config._attn_implementation = NAME
    try:
        yield
    finally:
        tower.config._attn_implementation = before
        handle.remove()
