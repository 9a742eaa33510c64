"""Where in the decoder a change can be made: a function from hidden state to hidden state, hooked in at a site.

Shapes: hidden states [b, p, d]. A layer of transformers 5 returns a tensor, its attention a tuple with the hidden state first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from .sites import Site

if TYPE_CHECKING:
    from .model import LensModel

Change = Callable[[Tensor], Tensor]
CHANGEABLE = ("resid_pre", "attn_out", "mlp_out", "resid_post")  # in the order they run in


def place(site: Site) -> int:
    """Rank of a site in the order of the forward pass. ValueError for a site that cannot be changed."""
    if site.name not in CHANGEABLE:
        raise ValueError(f"steering and gates act at {', '.join(CHANGEABLE)}, not at {str(site)!r}. Choose one of these sites.")
    return site.layer * len(CHANGEABLE) + CHANGEABLE.index(site.name)


def attach(lens: LensModel, site: Site, change: Change) -> RemovableHandle:
    """Let `change` replace the hidden state at a site, until the handle is removed."""
    layer = lens.layers[site.layer]
    match site.name:
        case "resid_pre":
            return layer.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
        case "attn_out":
            return layer.get_submodule(lens.family.attention).register_forward_hook(lambda _, __, output: (change(output[0]), *output[1:]))
        case "mlp_out":
            return layer.get_submodule(lens.family.mlp).register_forward_hook(lambda _, __, output: change(output))
        case _:
            return layer.register_forward_hook(lambda _, __, output: change(output))
