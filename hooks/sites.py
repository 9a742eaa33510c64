"""Sites: named places in the decoder where a hidden state can be read or changed.

    resid_pre.i        [b, p, d]                 what layer i receives
    attn_out.i         [b, p, d]                 what its attention adds
    cross_attn_out.i   [b, p, d]                 what its cross-attention to the picture returns; the layer adds tanh(gate) times it
    mlp_out.i          [b, p, d]                 what its MLP adds; in a cross-attention layer what it returns, likewise gated, and added
                                                 only at tokens that see a picture: nothing of it at tokens before the first
    resid_post.i       [b, p, d]                 what layer i returns; for the last layer before the final norm
    head_out.i         [b, p, head, d_head]      each head's output, the input of the output projection

A layer has either attn_out or cross_attn_out. resid_post.i and resid_pre.i+1 are separate sites: some families add visual features
between layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAMES = ("resid_pre", "attn_out", "cross_attn_out", "mlp_out", "resid_post", "head_out")
ATTENTIONS = ("attn_out", "cross_attn_out")
_GRAMMAR = re.compile(r"(?P<name>[a-z_]+)(\.(?P<layer>\d+))?")


@dataclass(frozen=True)
class Site:
    """A place in one layer. str(site) is `resid_post.4`."""

    name: str
    layer: int

    def __str__(self) -> str:
        return f"{self.name}.{self.layer}"


def parse_site(text: str | Site) -> tuple[str, int | None]:
    """Name and layer of `resid_post.4`; the layer is None for `resid_post`, which means every layer that has it."""
    match = _GRAMMAR.fullmatch(str(text))
    if not match or match["name"] not in NAMES:
        raise ValueError(f"unknown site {str(text)!r}; known are {', '.join(NAMES)}, alone for every layer or with one, as in resid_post.4")
    return match["name"], None if match["layer"] is None else int(match["layer"])


def expand(sites: str | Site | Iterable[str | Site], n_layers: int, attention: Sequence[str] = ()) -> list[Site]:
    """The sites meant in a model of `n_layers` layers, each once, in the order asked.

    attention   per layer which of attn_out and cross_attn_out it has; left out, attn_out everywhere
    Raises ValueError for a layer that is not there, and for an attention the layer does not have.
    """
    asked = [sites] if isinstance(sites, str | Site) else list(sites)
    attention = attention or ["attn_out"] * n_layers
    found: dict[Site, None] = {}
    for text in asked:
        name, layer = parse_site(text)
        if layer is not None and layer >= n_layers:
            raise ValueError(f"site {str(text)!r} is out of range: this model has layers 0 to {n_layers - 1}. Choose one of these.")
        there = [one for one in range(n_layers) if name not in ATTENTIONS or attention[one] == name]
        if not there or layer not in (None, *there):
            raise ValueError(f"site {str(text)!r} is not in this model: {_where(attention)}. Choose one of these.")
        for one in there if layer is None else (layer,):
            found[Site(name, one)] = None
    return list(found)


def _where(attention: Sequence[str]) -> str:
    layers = {name: [str(layer) for layer, has in enumerate(attention) if has == name] for name in ATTENTIONS}
    return "; ".join(f"{name} is at layers {', '.join(there)}" if there else f"no layer has {name}" for name, there in layers.items())
