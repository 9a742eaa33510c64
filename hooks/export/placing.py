"""Where an edit ends up outside of the running model: in the projection that writes a site, or in a sum behind a block.

A site attn_out, cross_attn_out or mlp_out is what one linear map writes, y = W x + c. An operator that is affine in y goes into that map:

    y' = y + Uᵀ(M U y + b)        W' = W + Uᵀ M U W        c' = c + Uᵀ M U c + Uᵀ b

Several edits at one site all read the same y and what they add is summed, so U and b stand above each other and M is block-diagonal.

`add` reads nothing, so it may act wherever the same sum is made:

    resid_post.i        is mlp_out.i, and the sum behind block i
    resid_pre.i, i > 0  is mlp_out.i−1, and the sum behind block i−1
    mlp_out.i           is the sum behind block i

Shapes: U [k, d], M [k, k], b [k], W [d, n] (`n` inputs of the projection), c [d]. Everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..attach import place
from ..edits import Edit
from ..sites import Site

if TYPE_CHECKING:
    from ..model import LensModel

RESIDUAL = ("resid_pre", "resid_post")


@dataclass(frozen=True, eq=False)
class Rewrite:
    """What all edits together do to the output y of one projection:  y' = y + Uᵀ M U y + v.

    basis      U [k, d]; k is 0 where everything only adds
    matrix     M [k, k]
    constant   v [d]
    """

    basis: Float[Tensor, "k d"]
    matrix: Float[Tensor, "k k"]
    constant: Float[Tensor, " d"]

    def factors(self, weight: Float[Tensor, "d n"]) -> tuple[Float[Tensor, "d k"], Float[Tensor, "k n"]]:
        """Uᵀ M and U W, whose product is what is added to W."""
        return self.basis.T @ self.matrix, self.basis @ _exact(weight)

    def weight(self, weight: Float[Tensor, "d n"]) -> Float[Tensor, "d n"]:
        """W', in the dtype of W."""
        left, right = self.factors(weight)
        return (_exact(weight) + left @ right).to(weight.dtype)

    def shift(self, bias: Float[Tensor, " d"] | None) -> Float[Tensor, " d"]:
        """What is added to the bias c, which is zero where there is none."""
        if bias is None:
            return self.constant
        return self.constant + self.basis.T @ (self.matrix @ (self.basis @ _exact(bias)))


def rewritten(edit: Edit, site: Site) -> Site | None:
    """The site whose projection carries an edit; None for the embeddings, which no projection writes."""
    if edit.operator != "add" or site.name not in RESIDUAL:
        return site
    layer = site.layer - (site.name == "resid_pre")
    return Site("mlp_out", layer) if layer >= 0 else None


def behind(site: Site) -> int | None:
    """The block behind which adding at a site makes the same sum, −1 for the embeddings; None where it goes through an MLP first."""
    return {"resid_pre": site.layer - 1, "mlp_out": site.layer, "resid_post": site.layer}.get(site.name)


def rewrites(lens: LensModel, edits: Sequence[Edit]) -> dict[Site, Rewrite]:
    """What happens to each projection, in the order of the forward pass."""
    found: dict[Site, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for edit in edits:
        for site in lens.expand(edit.vector.sites):
            change = edit.change(lens, str(site))
            matrix, offset = change.at(float(edit.strengths))
            home = rewritten(edit, site)
            assert home is not None
            found.setdefault(home, []).append((_exact(change.basis), _exact(matrix), _exact(offset)))
    return {site: _together(found[site]) for site in sorted(found, key=place)}


def sums(lens: LensModel, edits: Sequence[Edit]) -> dict[int, Float[Tensor, " d"]]:
    """What is added behind each block, by its number: the vectors of all edits, each times its strength."""
    found: dict[int, Tensor] = {}
    for edit in edits:
        for site in lens.expand(edit.vector.sites):
            layer = behind(site)
            assert layer is not None
            (vector,) = _exact(edit.change(lens, str(site)).basis) * float(edit.strengths)
            found[layer] = found[layer] + vector if layer in found else vector
    return dict(sorted(found.items()))


def projection(lens: LensModel, site: Site) -> nn.Module | None:
    """The module whose output is written at attn_out, cross_attn_out or mlp_out; None for a mixture of experts."""
    try:
        return lens.model.get_submodule(projection_path(lens, site))
    except AttributeError:
        return None


def linear(lens: LensModel, site: Site) -> nn.Linear:
    """The same, where it is known to be a plain linear map."""
    found = projection(lens, site)
    assert isinstance(found, nn.Linear)
    return found


def projection_path(lens: LensModel, site: Site) -> str:
    """Its path from the model."""
    block = lens.blocks[site.layer]
    inside = f"{block.mlp}.{block.down}" if site.name == "mlp_out" else f"{block.attention}.{block.out}"
    return f"{lens.family.layers}.{site.layer}.{inside}"


def _together(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Rewrite:
    constant = torch.stack([offset @ basis for basis, _, offset in parts]).sum(0)
    reading = [(basis, matrix) for basis, matrix, _ in parts if bool(matrix.any())]
    if not reading:
        return Rewrite(constant.new_zeros(0, len(constant)), constant.new_zeros(0, 0), constant)
    return Rewrite(torch.cat([basis for basis, _ in reading]), torch.block_diag(*(matrix for _, matrix in reading)), constant)  # type: ignore[no-untyped-call]


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()
