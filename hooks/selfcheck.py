"""The numeric self-check: does a model behave as its family entry says? One small forward, at load.

    every layer fires once, in order, and returns hidden states of the model's width
    resid_post = resid_pre + gate · attention + gate · mlp        per layer, up to the rounding of the model's dtype

The second line is what makes attn_out and mlp_out mean what they say: a norm behind the attention, a gate or a second branch that the
entry does not know breaks it. Cross-attention layers do not run without a picture, and need not here.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .attach import PLACES, gate, heads, module_at, site_width, watch
from .sites import Site

if TYPE_CHECKING:
    from .model import LensModel

_TOKENS = 8
_ROUNDINGS = 8  # how many roundings of the dtype the sum may be off; it takes two


@torch.no_grad()
def check(lens: LensModel) -> None:
    """ValueError, in one sentence, for the first thing that differs from the family entry."""
    _check_paths(lens)
    ids = torch.tensor([([*lens.frame.lead, *lens.frame.tail] * _TOKENS)[-_TOKENS:]], device=lens.device)
    seen: dict[Site, Tensor] = {}
    fired: list[Site] = []

    def take(site: Site, hidden: Tensor) -> None:
        fired.append(site)
        seen[site] = hidden

    sites = [site for layer in range(lens.n_layers) for site in _of_layer(lens, layer)]
    handles = []
    try:
        handles += [watch(lens, site, take) for site in sites]
        lens.inner(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    _check_order(lens, fired)
    for layer in dict.fromkeys(site.layer for site in fired):
        _check_layer(lens, layer, seen, (1, _TOKENS, lens.width))


def _of_layer(lens: LensModel, layer: int) -> list[Site]:
    return [Site(name, layer) for name in ("resid_pre", lens.blocks[layer].site, "mlp_out", "resid_post")]


def _check_paths(lens: LensModel) -> None:
    for path in (lens.family.layers, lens.family.inner):
        try:
            lens.model.get_submodule(path)
        except AttributeError as error:
            raise ValueError(
                f"{lens.name}: the family entry names {path!r}, which the model does not have. "
                "Correct the entry; print(model) shows the paths."
            ) from error
    if lens.n_layers != lens.text_config.num_hidden_layers:
        raise ValueError(
            f"{lens.name}: {lens.n_layers} layers at {lens.family.layers!r}, the configuration says {lens.text_config.num_hidden_layers}. "
            "Correct the family entry."
        )
    for layer in range(lens.n_layers):
        for site in (*_of_layer(lens, layer), Site("head_out", layer)):
            path = PLACES[site.name].module(lens.blocks[layer])
            try:
                module_at(lens, site)
                gate(lens, site)
            except AttributeError as error:
                raise ValueError(
                    f"{lens.name}: layer {layer} has no {path!r} for {site.name}, which the family entry names ({error}). "
                    "Correct its Block; print(model) shows the paths."
                ) from error
        _check_heads(lens, Site("head_out", layer))


def _check_heads(lens: LensModel, site: Site) -> None:
    field = lens.blocks[site.layer].heads
    try:
        count = heads(lens, site)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{lens.name}: layer {site.layer} takes the number of heads from {field!r}, which is no number in the text configuration. "
            "Correct its Block."
        ) from error
    if site_width(lens, site) % count:
        raise ValueError(
            f"{lens.name}: {site} has {site_width(lens, site)} numbers a token, which {count} heads ({field!r}) do not share evenly. "
            "Correct its Block."
        )


def _check_order(lens: LensModel, fired: list[Site]) -> None:
    layers = [site.layer for site in fired if site.name == "resid_post"]
    waiting = {layer for layer, block in enumerate(lens.blocks) if block.site == "cross_attn_out"} - set(layers)
    if layers != [layer for layer in range(lens.n_layers) if layer not in waiting]:
        raise ValueError(
            f"{lens.name}: in one forward the layers fired as {layers}, expected each once in order. Correct {lens.family.layers!r}."
        )
    times = Counter(fired)
    for site in (site for layer in layers for site in _of_layer(lens, layer)):
        if times[site] != 1:
            raise ValueError(
                f"{lens.name}: {site} was computed {times[site]} times in one forward, expected once. "
                f"Correct {PLACES[site.name].module(lens.blocks[site.layer])!r} in its Block."
            )


def _check_layer(lens: LensModel, layer: int, seen: dict[Site, Tensor], shape: tuple[int, ...]) -> None:
    before, attention, mlp, after = (seen[site] for site in _of_layer(lens, layer))
    for site, hidden in zip(_of_layer(lens, layer), (before, attention, mlp, after), strict=True):
        if not isinstance(hidden, Tensor) or tuple(hidden.shape) != shape:
            got = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
            raise ValueError(f"{lens.name}: {site} is {got}, expected a tensor {shape}. This architecture needs an entry of its own.")
    if not bool(after.isfinite().all()):
        raise ValueError(
            f"{lens.name}: resid_post.{layer} is not finite on {_TOKENS} tokens of its own chat template. The weights are damaged, or "
            f"{after.dtype} is too narrow for this model: load with dtype=torch.bfloat16 or torch.float32."
        )
    if not lens.family.sums:
        return
    parts = [before, *(_gated(lens, site, part) for site, part in zip(_of_layer(lens, layer)[1:3], (attention, mlp), strict=True))]
    wide = [part.to(after.device).double() for part in parts]
    off = (sum(wide, start=torch.zeros((), dtype=torch.float64)).sub(after.double())).abs()
    if bool((off > _ROUNDINGS * torch.finfo(after.dtype).eps * sum(part.abs() for part in (*wide, after.double()))).any()):
        block = lens.blocks[layer]
        raise ValueError(
            f"{lens.name}: in layer {layer} resid_pre + {block.site} + mlp_out is up to {float(off.max()):.3g} away from resid_post, so "
            f"{PLACES[block.site].module(block)!r} and {PLACES['mlp_out'].module(block)!r} are not what joins the residual. Name the norm "
            "or gate behind them in the Block, or set sums=False in the family entry if no module's output is."
        )


def _gated(lens: LensModel, site: Site, part: Tensor) -> Tensor:
    factor = gate(lens, site)
    return part if factor is None else part * factor
