"""One forward of a batch, read at sites and pooled where it was computed.

Hooks are installed for the length of a with-block and removed after it, whatever happens; hooks of others stay. They only look: a hidden
state is pooled in float32 on the device, and only the pooled vectors leave it.

Shapes: b batch, n padded length, d width, v vectors of a batch, m tokens in all their spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .encode import Batch
from .model import LensModel
from .select import Pool
from .sites import Site

Take = Callable[[Site, Tensor], None]


@contextmanager
def reading(lens: LensModel, sites: Sequence[Site], take: Take) -> Iterator[None]:
    """Within the context, take(site, hidden) is called at every site in every forward. `hidden` is the model's own: do not change it."""
    handles: list[RemovableHandle] = []
    try:
        for site in sites:
            handles.append(watch(lens, site, take))
        yield
    finally:
        for handle in handles:
            handle.remove()


def watch(lens: LensModel, site: Site, take: Take) -> RemovableHandle:
    """Call take(site, hidden) whenever the site is computed; hidden [b, p, d], or [b, p, head, d_head] for head_out."""
    family, layer = lens.family, lens.layers[site.layer]
    if site.name == "resid_pre":
        return layer.register_forward_pre_hook(lambda _, args: take(site, args[0]))
    if site.name == "resid_post":
        return layer.register_forward_hook(lambda _, args, output: take(site, output))
    if site.name == "attn_out":
        return layer.get_submodule(family.attention).register_forward_hook(lambda _, args, output: take(site, output[0]))
    if site.name == "mlp_out":
        return layer.get_submodule(family.mlp).register_forward_hook(lambda _, args, output: take(site, output))
    return out_projection(lens, site).register_forward_pre_hook(lambda _, args: take(site, args[0].unflatten(-1, (lens.n_heads, -1))))


def pooled(hidden: Float[Tensor, "b n *d"], at: Int64[Tensor, " m"], counts: Int64[Tensor, " v"], pool: Pool) -> Float[Tensor, "v D"]:
    """Pool runs of tokens in float32.

    at       [m] indices into the b·n tokens, the runs one after the other
    counts   [v] tokens of each run, each at least one; for pool "every" the runs do not matter and v = m
    """
    tokens = hidden.flatten(0, 1).flatten(1)[at].float()
    if pool == "every":
        return tokens
    ends = counts.cumsum(0)
    if pool in ("first", "last"):
        return tokens[ends - counts if pool == "first" else ends - 1]
    return torch.segment_reduce(tokens, pool, lengths=counts, axis=0)


@torch.no_grad()
def read(
    lens: LensModel, batch: Batch, sites: Sequence[Site], at: Int64[Tensor, " m"], counts: Int64[Tensor, " v"], pool: Pool
) -> Float[Tensor, "v site d"]:
    """One forward of an encoded batch, pooled at the sites; on the CPU, float32. `at` counts tokens of the padded batch, row by row."""
    found: dict[Site, Tensor] = {}
    at, counts = at.to(lens.device), counts.to(lens.device)

    def take(site: Site, hidden: Tensor) -> None:
        found[site] = pooled(hidden, at, counts, pool)

    with reading(lens, sites, take):
        lens.inner(**batch.inputs, use_cache=False)
    return torch.stack([found[site] for site in sites], dim=1).cpu()


def out_projection(lens: LensModel, site: Site) -> nn.Linear:
    """The output projection of the attention at a site's layer, whose input is head_out."""
    out = lens.layers[site.layer].get_submodule(f"{lens.family.attention}.{lens.family.out}")
    assert isinstance(out, nn.Linear)
    return out
