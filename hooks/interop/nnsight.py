"""nnsight on the same weights: the wrapped model, its envoys at our sites, and what capture() would store, read in its traces.

    resid_pre.i    model.….layers[i].input                       resid_post.i   .output
    attn_out.i     model.….layers[i].self_attn.output[0]         the attention's output, or that of the norm behind it: a tuple or a tensor
    mlp_out.i      model.….layers[i].mlp.output                  the MLP's output, or that of the norm behind it
    head_out.i     model.….layers[i].self_attn.o_proj.input      [b, p, head · d_head]

nnsight instruments the model's own modules, so every family that capture() reads can be traced, and hidden states are equal bit for bit.
A trace asks for values in the order they are computed.

Shapes: b batch, p position, v vectors, D width of a site (heads side by side).
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from nnsight import NNsight
from nnsight.intervention.envoy import Envoy
from torch import Tensor

from ..attach import PLACES, Take, hidden_of
from ..encode import Batch
from ..model import LensModel
from ..records import Transcript
from ..select import Select
from ..sites import Site
from .rows import path_of, read_with, twin

ORDER = ("resid_pre", "head_out", "attn_out", "cross_attn_out", "mlp_out", "resid_post")  # of computation within a layer


def wrap(lens: LensModel) -> NNsight:
    """The model wrapped for tracing, around the lens's own weights; the lens stays as it is. ValueError while steering is active."""
    return NNsight(twin(lens))


def envoy(lens: LensModel, engine: NNsight, site: str | Site) -> Envoy:
    """nnsight's view of the module whose input (resid_pre, head_out) or output (the others) a site is."""
    (site,) = lens.expand(site)
    found = engine
    for name in (*lens.family.layers.split("."), str(site.layer), *filter(None, path_of(lens, site).split("."))):
        found = getattr(found, name)
    return found


def read(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    engine: NNsight | None = None,
    batch_size: int = 32,
    allow_empty: bool = False,
) -> tuple[Float[Tensor, "v site D"], pd.DataFrame]:
    """The vectors and index rows of capture(), in its order, read by nnsight.

    engine    what wrap(lens) returned; left out, the model is wrapped for this call
    """
    engine = wrap(lens) if engine is None else engine

    def run(batch: Batch, sites: Sequence[Site], take: Take) -> None:
        forward(engine, lens, batch, sites, take)

    return read_with(run, lens, transcripts, where, batch_size=batch_size, allow_empty=allow_empty)


@torch.no_grad()
def forward(engine: NNsight, lens: LensModel, batch: Batch, sites: Sequence[Site], take: Take) -> None:
    """One traced forward of a batch as far as the last of the sites; take(site, hidden) at each, heads side by side at head_out."""
    inner = engine
    for name in lens.family.inner.split("."):
        inner = getattr(inner, name)
    ordered = sorted(sites, key=lambda site: (site.layer, ORDER.index(site.name)))
    envoys = [(site, PLACES[site.name].at_input, envoy(lens, engine, site)) for site in ordered]
    with inner.trace(**batch.inputs, use_cache=False) as tracer:
        for site, at_input, module in envoys:
            take(site, module.input if at_input else hidden_of(module.output))
        tracer.stop()
