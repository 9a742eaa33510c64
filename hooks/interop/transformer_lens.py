"""TransformerLens on the same weights: its bridge, its names for our sites, and what capture() would store, read by its hooks.

    resid_pre.i    blocks.i.hook_in          blocks.i.hook_resid_pre
    attn_out.i     blocks.i.attn.hook_out    blocks.i.hook_attn_out      blocks.i.linear_attn.hook_out in a linear-attention layer,
                                                                         blocks.i.ln1_post.hook_out where a norm stands behind it
    mlp_out.i      blocks.i.mlp.hook_out     blocks.i.hook_mlp_out       blocks.i.ln2_post.hook_out where a norm stands behind it
    resid_post.i   blocks.i.hook_out         blocks.i.hook_resid_post
    head_out.i     blocks.i.attn.o.hook_in   blocks.i.attn.hook_z        [b, p, head, d_head]

The bridge computes attention in its eager form and leaves weights as they are (no folding, no centring), so hidden states of real tokens
agree with capture() up to rounding. After enable_compatibility_mode() they do not, being those of folded weights; the lens keeps its own.

    not to be had                                                because
    qwen2_vl, internvl, glm46v, glm4v_moe, mllama                TransformerLens 4.3 has no adapter for them
    head_out in linear-attention layers (qwen3_5, qwen3_5_moe)   it has no hook point at the input of their output projection

Shapes: b batch, p position, v vectors, D width of a site (heads side by side).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module

from ..attach import PLACES, Take
from ..encode import Batch
from ..model import LensModel
from ..records import Transcript
from ..select import Select
from ..sites import Site
from .rows import path_of, read_with, twin

COMPONENTS = {  # module of a layer -> what TransformerLens calls it
    "": "",
    "self_attn": "attn.",
    "self_attn.o_proj": "attn.o.",
    "linear_attn": "linear_attn.",
    "mlp": "mlp.",
    "post_self_attn_layernorm": "ln1_post.",
    "post_attention_layernorm": "ln1_post.",  # Gemma 3, where it is what joins the residual; elsewhere no site is there
    "post_mlp_layernorm": "ln2_post.",
    "post_feedforward_layernorm": "ln2_post.",
}
PICTURES_ONLY = " without videos"  # an adapter registered under this name asks for no torchvision, which only videos need
SHORT = {
    "hook_resid_pre": "resid_pre",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "hook_resid_post": "resid_post",
    "attn.hook_z": "head_out",
}


def bridge(lens: LensModel) -> TransformerBridge:
    """A TransformerBridge around the lens's own weights; the lens itself is left as it is.

    Whatever attention the lens uses, the bridge's is eager. ValueError: an architecture that TransformerLens has no adapter for, or
    steering is active. ImportError: a library the adapter needs.
    """
    architecture = type(lens.model).__name__
    known: dict[str, Any] = ArchitectureAdapterFactory._adapters
    if architecture not in known:
        raise ValueError(
            f"{lens.name}: TransformerLens has no adapter for {architecture}. Read it with capture(), which knows this family, or with "
            "interop.nnsight."
        )
    adapter = known[architecture]
    if "torchvision" in adapter.required_libraries:
        architecture += PICTURES_ONLY
        others = [library for library in adapter.required_libraries if library != "torchvision"]
        ArchitectureAdapterFactory.register_adapter(architecture, type(adapter.__name__, (adapter,), {"required_libraries": others}))
    model = twin(lens)
    return build_bridge_from_module(
        model, architecture, hf_config=model.config, tokenizer=copy.deepcopy(lens.tokenizer), model_name=lens.name
    )


def hook_name(lens: LensModel, site: str | Site) -> str:
    """What TransformerLens calls a site of this model. ValueError where it has no hook point there."""
    (site,) = lens.expand(site)
    path, end = path_of(lens, site), "in" if PLACES[site.name].at_input else "out"
    if path not in COMPONENTS:
        raise ValueError(
            f"{lens.name}: TransformerLens has no hook point at the {end}put of {path}, where {site} is. Read this site with capture(), or "
            "with interop.nnsight."
        )
    return f"blocks.{site.layer}.{COMPONENTS[path]}hook_{end}"


def site_of(lens: LensModel, name: str) -> Site:
    """The site a hook of TransformerLens is at, by its full name or its usual one (blocks.4.hook_resid_post). ValueError where none is."""
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if match and int(match[1]) < lens.n_layers:
        for usual, kind in SHORT.items():
            site = Site(kind, int(match[1]))
            if path_of(lens, site) in COMPONENTS and name in (f"blocks.{site.layer}.{usual}", hook_name(lens, site)):
                return site
    raise ValueError(
        f"{name!r} is at no site of {lens.name}, which has {lens.n_layers} layers; blocks.0.hook_resid_post, for one, is at resid_post.0. "
        f"Sites have the names {', '.join(SHORT)}."
    )


def read(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    engine: TransformerBridge | None = None,
    batch_size: int = 32,
    allow_empty: bool = False,
) -> tuple[Float[Tensor, "v site D"], pd.DataFrame]:
    """The vectors and index rows of capture(), in its order, read by TransformerLens.

    engine    what bridge(lens) returned; left out, one is made for this call
    """
    engine = bridge(lens) if engine is None else engine

    def run(batch: Batch, sites: Sequence[Site], take: Take) -> None:
        forward(engine, lens, batch, sites, take)

    return read_with(run, lens, transcripts, where, batch_size=batch_size, allow_empty=allow_empty)


@torch.no_grad()
def forward(engine: TransformerBridge, lens: LensModel, batch: Batch, sites: Sequence[Site], take: Take) -> None:
    """One forward of a batch as far as the last of the sites; take(site, hidden) at each, as `watch` does."""

    def taker(site: Site) -> Any:
        return lambda hidden, hook: take(site, hidden)

    inputs = dict(batch.inputs)
    stop = max(site.layer for site in sites) + 1
    with engine.hooks(fwd_hooks=[(hook_name(lens, site), taker(site)) for site in sites]):
        engine(
            inputs.pop("input_ids"),
            return_type=None,
            stop_at_layer=stop if stop < lens.n_layers else None,
            use_cache=False,
            logits_to_keep=1,
            **inputs,
        )
