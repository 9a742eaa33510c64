"""Tensors that hooks read, kept as non-persistent buffers of a module: they move with the model and are never saved with it.

A write happens in place where shape and dtype allow, so a compiled model or a captured graph sees it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PREFIX = "thoughtlens_"


class Buffers:
    """Named tensors on `module`, under names of our own, until remove()."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._names: list[str] = []

    def add(self, name: str, value: Tensor) -> None:
        self._module.register_buffer(PREFIX + name, value, persistent=False)
        self._names.append(name)

    def remove(self) -> None:
        while self._names:
            delattr(self._module, PREFIX + self._names.pop())

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Tensor:
        held = self._module._buffers[PREFIX + name]
        assert held is not None
        return held

    def __setitem__(self, name: str, value: Tensor) -> None:
        held = self[name]
        if held.shape == value.shape and held.dtype == value.dtype and not held.is_inference():
            held.copy_(value)
        else:
            self._module._buffers[PREFIX + name] = value.to(held.device).clone(memory_format=torch.contiguous_format)
