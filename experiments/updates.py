"""What tuning did to the weights that write into the residual stream, taken back or kept in part. Models are made in memory and not saved.

    ΔW = W_tuned − W_base                 for every output projection of attention and MLP; everything else stays as it is
    without    W_tuned − u uᵀ ΔW          the tuned model without what its update writes along u
    only       W_base + u uᵀ ΔW           the base model with nothing else of it
    reverted   W_base                     without the whole update of some layers

u is a unit direction of the residual stream. Arditi et al. 2024 orthogonalise whole weights; here the update alone, so what the base wrote
along u stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor

from ..hooks.model import LensModel, wrap

Change = Callable[[Float[Tensor, "d n"], Float[Tensor, "d n"]], Float[Tensor, "d n"]]  # tuned, base -> what is put in place


def without(direction: Float[Tensor, " d"]) -> Change:
    u = _unit(direction)
    return lambda tuned, base: tuned - torch.outer(u, u @ (tuned - base))


def only(direction: Float[Tensor, " d"]) -> Change:
    u = _unit(direction)
    return lambda tuned, base: base + torch.outer(u, u @ (tuned - base))


def reverted(tuned: Float[Tensor, "d n"], base: Float[Tensor, "d n"]) -> Float[Tensor, "d n"]:
    return base


def kept(tuned: Float[Tensor, "d n"], base: Float[Tensor, "d n"]) -> Float[Tensor, "d n"]:
    return tuned


def rewritten(lens: LensModel, change: Change, *, tuned: LensModel, base: LensModel, layers: Collection[int] | None = None) -> LensModel:
    """A copy of `lens` (tuned or base) whose output projections are what `change` makes of the two models', in all layers or some."""
    model = deepcopy(lens.model)
    with torch.no_grad():
        for path in outputs(lens, layers):
            new, old = (one.model.get_submodule(path).weight.detach().cpu().double() for one in (tuned, base))
            weight = model.get_submodule(path).weight
            weight.copy_(change(new, old).to(weight))
    return wrap(model, lens.processor, name=lens.name, dialect=lens.dialect, family=lens.family, template=lens.template)


def outputs(lens: LensModel, layers: Collection[int] | None = None) -> list[str]:
    """Paths of the output projections of attention and MLP."""
    return [
        f"{lens.family.layers}.{number}.{path}"
        for number, block in enumerate(lens.blocks)
        if layers is None or number in layers
        for path in (f"{block.attention}.{block.out}", f"{block.mlp}.{block.down}")
    ]


def _unit(direction: Tensor) -> Tensor:
    exact = direction.double().cpu()
    return exact / exact.norm()
