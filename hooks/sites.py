"""Sites: named places in the decoder where a hidden state can be read or changed.

    resid_pre.i    [b, p, d]                 what layer i receives
    attn_out.i     [b, p, d]                 what its attention adds
    mlp_out.i      [b, p, d]                 what its MLP adds
    resid_post.i   [b, p, d]                 what layer i returns; for the last layer before the final norm
    head_out.i     [b, p, head, d_head]      each head's output, the input of the output projection

resid_post.i and resid_pre.i+1 are separate sites: some families add visual features between layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

NAMES = ("resid_pre", "attn_out", "mlp_out", "resid_post", "head_out")
_GRAMMAR = re.compile(r"(?P<name>[a-z_]+)(\.(?P<layer>\d+))?")


@dataclass(frozen=True)
class Site:
    """A place in one layer. str(site) is `resid_post.4`."""

    name: str
    layer: int

    def __str__(self) -> str:
        return f"{self.name}.{self.layer}"


def parse_site(text: str | Site) -> tuple[str, int | None]:
    """Name and layer of `resid_post.4`; the layer is None for `resid_post`, which means every layer."""
    match = _GRAMMAR.fullmatch(str(text))
    if not match or match["name"] not in NAMES:
        raise ValueError(f"unknown site {str(text)!r}; known are {', '.join(NAMES)}, alone for every layer or with one, as in resid_post.4")
    return match["name"], None if match["layer"] is None else int(match["layer"])


def expand(sites: str | Site | Iterable[str | Site], n_layers: int) -> list[Site]:
    """The sites meant in a model of `n_layers` layers, each once, in the order asked. ValueError for a layer that is not there."""
    asked = [sites] if isinstance(sites, str | Site) else list(sites)
    found: dict[Site, None] = {}
    for text in asked:
        name, layer = parse_site(text)
        if layer is not None and layer >= n_layers:
            raise ValueError(f"site {str(text)!r} is out of range: this model has layers 0 to {n_layers - 1}. Choose one of these.")
        for one in range(n_layers) if layer is None else (layer,):
            found[Site(name, one)] = None
    return list(found)
