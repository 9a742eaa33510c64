"""Where a site is in the running model: one table for both directions, reading a hidden state and replacing it.

    watch     take(site, hidden) sees what the model computed there
    attach    hidden <- change(hidden) before the model goes on

A site is the input or the output of one module of its layer; which module follows from the layer's Block (families.py). A layer of
transformers 5 returns a tensor, its attention a tuple with the hidden state first; layers are called with the hidden state first.

Shapes: hidden states [b, p, d]; [b, p, head, d_head] at head_out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .families import Block
from .sites import Site

if TYPE_CHECKING:
    from .model import LensModel

Take = Callable[[Site, Tensor], None]
Change = Callable[[Tensor], Tensor]
CHANGEABLE = ("resid_pre", "attn_out", "cross_attn_out", "mlp_out", "resid_post")  # in the order they run in


@dataclass(frozen=True)
class Place:
    """Where a site is: at the input of a module of the layer, or at its output; `module` gives the module's path, empty for the layer."""

    module: Callable[[Block], str]
    at_input: bool = False


PLACES = {
    "resid_pre": Place(lambda block: "", at_input=True),
    "attn_out": Place(lambda block: block.attention_adds or block.attention),
    "cross_attn_out": Place(lambda block: block.attention_adds or block.attention),
    "mlp_out": Place(lambda block: block.mlp_adds or block.mlp),
    "resid_post": Place(lambda block: ""),
    "head_out": Place(lambda block: f"{block.attention}.{block.out}", at_input=True),
}


def place(site: Site) -> int:
    """Rank of a site in the order of the forward pass. ValueError for a site that cannot be changed."""
    if site.name not in CHANGEABLE:
        raise ValueError(f"steering and gates act at {', '.join(CHANGEABLE)}, not at {str(site)!r}. Choose one of these sites.")
    return site.layer * len(CHANGEABLE) + CHANGEABLE.index(site.name)


def watch(lens: LensModel, site: Site, take: Take) -> RemovableHandle:
    """Call take(site, hidden) whenever the site is computed, until the handle is removed. `hidden` is the model's own: do not change it."""
    module, split = module_at(lens, site), _split(lens, site)

    def before(_: nn.Module, args: Any) -> None:  # what a hook returns would take the place of the hidden state
        take(site, split(_given(site, args)))

    def after(_: nn.Module, args: Any, output: Any) -> None:
        take(site, split(hidden_of(output)))

    return module.register_forward_pre_hook(before) if PLACES[site.name].at_input else module.register_forward_hook(after)


def attach(lens: LensModel, site: Site, change: Change) -> RemovableHandle:
    """Let `change` replace the hidden state at a site, until the handle is removed."""
    module = module_at(lens, site)
    replaced = _on_heads(change, _split(lens, site)) if site.name == "head_out" else change
    if PLACES[site.name].at_input:
        return module.register_forward_pre_hook(lambda _, args: (replaced(_given(site, args)), *args[1:]))
    return module.register_forward_hook(
        lambda _, args, output: (replaced(output[0]), *output[1:]) if isinstance(output, tuple) else replaced(output)
    )


def _on_heads(change: Change, split: Change) -> Change:
    return lambda hidden: change(split(hidden)).reshape(hidden.shape)


def module_at(lens: LensModel, site: Site) -> nn.Module:
    """The module whose input or output a site is."""
    return lens.layers[site.layer].get_submodule(PLACES[site.name].module(lens.blocks[site.layer]))


def out_projection(lens: LensModel, site: Site) -> nn.Module:
    """The output projection of the attention at a site's layer, whose input is head_out. With an adapter it is PEFT's, not nn.Linear."""
    return module_at(lens, Site("head_out", site.layer))


def heads(lens: LensModel, site: Site) -> int:
    """Attention heads of a site's layer: those whose outputs stand side by side in head_out."""
    return int(getattr(lens.text_config, lens.blocks[site.layer].heads))


def site_width(lens: LensModel, site: Site) -> int:
    """Numbers per token at a site: d, or head · d_head for head_out, which may differ between layers."""
    if site.name != "head_out":
        return lens.width
    projection: Any = out_projection(lens, site)
    return int(projection.in_features)


def gate(lens: LensModel, site: Site) -> Float[Tensor, "1"] | None:
    """What the layer multiplies attn_out, cross_attn_out or mlp_out with before adding it, tanh(gate); None where it just adds."""
    block = lens.blocks[site.layer]
    name = {"attn_out": block.attention_gate, "cross_attn_out": block.attention_gate, "mlp_out": block.mlp_gate}.get(site.name)
    return lens.layers[site.layer].get_parameter(name).detach().tanh() if name else None


def hidden_of(output: Any) -> Tensor:
    """The hidden state in what a module returned."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _given(site: Site, args: tuple[Any, ...]) -> Tensor:
    """The hidden state a module is called with."""
    if not args:
        raise ValueError(
            f"{site} is the first argument of its module, and this architecture calls that by keywords alone. "
            "It cannot be read as it is: have the module called with the hidden state first."
        )
    hidden: Tensor = args[0]
    return hidden


def _split(lens: LensModel, site: Site) -> Change:
    """Heads side by side to an axis of their own, at head_out."""
    if site.name != "head_out":
        return lambda hidden: hidden
    count = heads(lens, site)
    return lambda hidden: hidden.view(*hidden.shape[:-1], count, -1)
