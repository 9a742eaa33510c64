"""What the engines that steer by addition do, on the running model: a vector added behind a block by a plain forward hook.

The export that was read back is applied with these hooks, which share nothing with steer(): no spans, no clock, no buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..model import LensModel

Behind = Callable[[Float[Tensor, "*n d"]], Float[Tensor, "*n d"]]


@contextmanager
def behind_blocks(lens: LensModel, changes: Mapping[int, Behind]) -> Iterator[LensModel]:
    """The model with its blocks' outputs replaced, by the number of the block."""
    handles = []
    try:
        for layer, change in changes.items():
            handles.append(lens.layers[layer].register_forward_hook(_hook(change)))
        yield lens
    finally:
        for handle in handles:
            handle.remove()


def _hook(change: Behind) -> Callable[[nn.Module, Any, Any], Any]:
    def after(_: nn.Module, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return after
