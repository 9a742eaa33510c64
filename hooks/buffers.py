"""Tensors that hooks read and write, kept as non-persistent buffers of a module: they move with the model and are never saved with it.

All that changes from forward to forward is laid out as [rows, tokens, …] and written in place, so that a compiled model or a captured graph
sees it. There is room for so many rows and tokens; a larger forward makes more, in powers of two, and a compiled model is traced once more.

Shapes: `b` rows and `p` tokens of this forward, `B` and `P` what there is room for.
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
        self._laid_out: dict[str, bool] = {}  # whether it has a place for every token
        self._room = (0, 0)
        self._views: dict[tuple[str, int, int, int | None], tuple[Tensor, Tensor]] = {}

    def add(self, name: str, value: Tensor) -> None:
        """A tensor of a fixed shape."""
        self._module.register_buffer(PREFIX + name, value, persistent=False)
        self._names.append(name)

    def lay_out(self, name: str, *behind: int, dtype: torch.dtype, device: torch.device, tokens: bool = True) -> None:
        """Zeros [B, P, *behind], or [B, 1, *behind] for what is the same at all tokens of a row."""
        self._laid_out[name] = tokens
        self.add(name, torch.zeros((self._room[0], self._room[1] if tokens else 1, *behind), dtype=dtype, device=device))

    def make_room(self, rows: int, tokens: int) -> None:
        """Room for at least so many rows and tokens; what is written stays."""
        if rows <= self._room[0] and tokens <= self._room[1]:
            return
        room = tuple(max(there, 1 << (wanted - 1).bit_length()) for there, wanted in zip(self._room, (rows, tokens), strict=True))
        self._room, self._views = (room[0], room[1]), {}
        with torch.inference_mode(False):
            for name, by_token in self._laid_out.items():
                held = self[name]
                larger = held.new_zeros((room[0], room[1] if by_token else 1, *held.shape[2:]))
                larger[: held.shape[0], : held.shape[1]] = held
                self._module._buffers[PREFIX + name] = larger

    def view(self, name: str, rows: int, tokens: int, columns: slice = slice(None)) -> Tensor:
        """The part [b, p, …] of a buffer that is laid out, for a forward of so many rows and tokens; `columns` of what is last."""
        held = self[name]
        if torch.compiler.is_compiling():
            return held[:rows, :tokens][..., columns]
        of, view = self._views.get((name, rows, tokens, columns.start), (None, held))
        if of is not held:  # none yet, or the model was moved
            view = held[:rows, :tokens][..., columns]
            self._views[name, rows, tokens, columns.start] = (held, view)
        return view

    def remove(self) -> None:
        self._views = {}
        while self._names:
            delattr(self._module, PREFIX + self._names.pop())

    def __getitem__(self, name: str) -> Tensor:
        held = self._module._buffers[PREFIX + name]
        assert held is not None
        return held


def taken(module: nn.Module) -> bool:
    """Whether somebody's Buffers are on a module."""
    return any(name.startswith(PREFIX) for name in module._buffers)
