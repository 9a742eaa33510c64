"""Operators: what happens to a hidden state h, each as an affine map in a small subspace with the rows of U as its axes.

    h' = h + f Uᵀ(N z + c) + g Uᵀ J z        z = U h

    add        U = v             f = α    N = 0    c = 1          h' = h + α v. Turner et al. 2023 (ActAdd), Rimsky et al. 2023 (CAA)
    add local  U = v̂             f = α    N = 0    c = |h|        h' = h + α |h| v̂, α a share of the hidden state's own length
    ablate     U = û             f = α    N = −1   c = 0          h' = h − α (h · û) û. Arditi et al. 2024, eq. 4; α < 1 weakens
    affine     U = û             f = α    N = −1   c = t          h' = h + α (t − h · û) û, the component set to t, the mean of the class
                                                                  steered to. Marshall et al. 2024 (affine concept editing)
    rotate     U = (e₁, e₂)      f = 1 − cos αθ   N = −I   c = 0  turned by αθ in the plane of the two class means, which are θ apart;
                                 g = sin αθ   J = [0 −1; 1 0]     |h'| = |h|. Vu and Nguyen 2025 (angular steering), there to an angle
    subspace   U = k directions  f = α    N = −I   c = 0          ablate for k of them. Ravfogel et al. 2020 (projections, there iterated)
    transport  U = k directions  f = α    N = A−I  c = μ₊ − A μ₋  z moved as the Gaussian of one class moves onto that of the other: A as in
                                                                  Knott and Smith 1984; Singh et al. 2024 (affine steering functions)

Strength α = 1 is the measured difference of the two classes: `add` moves by it, `affine`, `rotate` and `transport` carry the mean of the
one to the mean of the other, `ablate` and `subspace` take away all there is. α = 0 gives the very bits of h back: a select, since
h + 0 · v is not h for a v with inf or nan, nor for h = −0.

Several changes at one site all read the same h, and what they add is summed: their order does not matter. Everything is computed in float32
(or wider) and rounded once to the dtype of h. Nothing is edited in place.

Shapes: h [*n, d] (`n` any leading axes), U [k, d], N [k, k], c [k]; amounts [*n, e] for `e` changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

if TYPE_CHECKING:
    from .vector import Vector


@dataclass(frozen=True, eq=False)
class LowRank:
    """One change of a hidden state.

    basis    U [k, d]
    matrix   N [k, k]; None for zero
    offset   c [k]
    local    c counts in lengths of the hidden state itself
    angle    θ in radians; None unless it rotates
    """

    basis: Float[Tensor, "k d"]
    matrix: Float[Tensor, "k k"] | None
    offset: Float[Tensor, " k"]
    local: bool = False
    angle: float | None = None

    def at(self, strength: float) -> tuple[Float[Tensor, "k k"], Float[Tensor, " k"]]:
        """M and b of  h' = h + Uᵀ(M U h + b)  at a strength: what an exporter writes. ValueError where the change is no such map."""
        if self.local:
            raise ValueError('a strength that counts in lengths of the hidden state (unit "local") is no fixed map of it')
        matrix = torch.zeros(len(self.basis), len(self.basis)) if self.matrix is None else self.matrix
        if self.angle is None:
            return strength * matrix, strength * self.offset
        cos, sin = math.cos(strength * self.angle), math.sin(strength * self.angle)
        return torch.tensor([[cos - 1, -sin], [sin, cos - 1]], dtype=self.basis.dtype), torch.zeros(2)


def add(vector: Vector, site: str) -> LowRank:
    """α times the vector."""
    return LowRank(vector.direction(site)[None], None, torch.ones(1))


def add_local(vector: Vector, site: str) -> LowRank:
    """α times the length of the hidden state, along the vector."""
    return LowRank(_unit(vector.direction(site))[None], None, torch.ones(1), local=True)


def ablate(vector: Vector, site: str) -> LowRank:
    """Without a share α of the component along the vector."""
    return LowRank(_unit(vector.direction(site))[None], -torch.eye(1), torch.zeros(1))


def affine(vector: Vector, site: str) -> LowRank:
    """The component along the vector moved by a share α of the way to the mean of the class the vector points to."""
    unit = _unit(vector.direction(site))
    return LowRank(unit[None], -torch.eye(1), (wide(vector.means_at(site)[1]) @ unit)[None].float())


def rotate(vector: Vector, site: str) -> LowRank:
    """Turned by α times the angle between the two class means, in their plane, from the first to the second."""
    start, end = wide(vector.means_at(site))
    first = _unit(start)
    rest = end - (end @ first) * first
    if float(rest.norm()) < 1e-6 * float(end.norm()):
        raise ValueError(f"the class means of {vector.source!r} at {site} point the same way, so there is no plane to turn in. Use add.")
    angle = math.acos(max(-1.0, min(1.0, float(_unit(end) @ first))))
    return LowRank(torch.stack([first, _unit(rest)]), -torch.eye(2), torch.zeros(2), angle=angle)


def subspace(vector: Vector, site: str) -> LowRank:
    """Without a share α of what lies in the span of the vector's directions."""
    basis = vector.basis(site)
    return LowRank(basis, -torch.eye(len(basis)), torch.zeros(len(basis)))


def transport(vector: Vector, site: str) -> LowRank:
    """In the span of the vector's directions, moved by a share α as the one class is carried onto the other."""
    basis, matrix = vector.basis(site), vector.transport_at(site)
    start, end = (wide(mean) @ basis.T for mean in vector.means_at(site))
    return LowRank(basis, matrix - torch.eye(len(basis)), (end - matrix @ start).float())


Make = Callable[["Vector", str], LowRank]
OPERATORS: Mapping[str, Make] = MappingProxyType(
    {"add": add, "ablate": ablate, "affine": affine, "rotate": rotate, "subspace": subspace, "transport": transport}
)
UNITS: Mapping[str, Mapping[str, Make]] = MappingProxyType(
    {"measured": OPERATORS, "local": MappingProxyType({"add": add_local})}  # what strength counts in
)


@dataclass(frozen=True, eq=False)
class Changes:
    """All changes of one site, side by side; what none of them needs is None.

    basis    [K, d], matrix [K, K], offset [K]: those of each change, the matrices on the diagonal. No matrix and no offset: all are `add`
    owner    [K] which of the amounts a row belongs to; None where each has one, in order
    local    [K] 1 where the offset counts in lengths of h
    angle    [K] θ where a row rotates, else 0; turned [K, K] its J
    """

    basis: Float[Tensor, "K d"]
    matrix: Float[Tensor, "K K"] | None
    offset: Float[Tensor, " K"] | None
    owner: Int64[Tensor, " K"] | None
    local: Float[Tensor, " K"] | None
    angle: Float[Tensor, " K"] | None
    turned: Float[Tensor, "K K"] | None

    def to(self, device: torch.device, dtype: torch.dtype) -> Changes:
        """Where and in what they are computed: dtype is that of wide(h)."""

        def moved(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.to(device) if part is self.owner else part.to(device, dtype)

        parts: dict[str, Any] = {name: moved(part) for name, part in vars(self).items()}
        return replace(self, **parts)


def stacked(changes: Sequence[LowRank], owners: Sequence[int], amounts: int) -> Changes:
    """Changes side by side; `owners` says which of the `amounts` drives each."""
    sizes = [len(one.basis) for one in changes]

    def rows(values: Sequence[float]) -> Float[Tensor, " K"]:
        return torch.tensor([value for value, size in zip(values, sizes, strict=True) for _ in range(size)])

    def blocks(matrices: Sequence[Tensor | None]) -> Float[Tensor, "K K"]:
        side_by_side: Any = torch.block_diag
        return side_by_side(*(torch.zeros(k, k) if one is None else one.float() for one, k in zip(matrices, sizes, strict=True)))

    plain = all(one.matrix is None and not one.local and bool((one.offset == 1).all()) for one in changes)
    linear, turning = any(one.matrix is not None for one in changes), any(one.angle is not None for one in changes)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    return Changes(
        torch.cat([wide(one.basis) for one in changes]),
        blocks([one.matrix for one in changes]) if linear else None,
        None if plain else torch.cat([one.offset.float() for one in changes]),
        None if rows(owners).tolist() == list(range(amounts)) else rows(owners).long(),
        rows([one.local for one in changes]).float() if any(one.local for one in changes) else None,
        rows([one.angle or 0.0 for one in changes]) if turning else None,
        blocks([None if one.angle is None else turn for one in changes]) if turning else None,
    )


def apply(h: Float[Tensor, "*n d"], changes: Changes, amounts: Float[Tensor, "*n e"], every: bool = False) -> Float[Tensor, "*n d"]:
    """h changed by each amount; a hidden state all of whose amounts are 0 comes back bit for bit.

    every   each hidden state has an amount that is not 0, so that nothing needs to be selected
    """
    whole = wide(h)
    share = amounts if changes.owner is None else amounts[..., changes.owner]  # [*n, K]
    if changes.offset is None and len(changes.basis) == 1:
        moved = whole + share * changes.basis
    else:
        with exact(h.device.type):
            moved = whole + _moves(whole, changes, share) @ changes.basis
    moved = moved.to(h.dtype)
    if every:
        return moved
    acting = amounts != 0
    return torch.where(acting if amounts.shape[-1] == 1 else acting.any(-1, keepdim=True), moved, h)


def _moves(whole: Float[Tensor, "*n d"], changes: Changes, share: Float[Tensor, "*n K"]) -> Float[Tensor, "*n K"]:
    """f (N z + c) + g J z."""
    if changes.offset is None:
        return share.to(whole.dtype)
    offset = changes.offset
    if changes.local is not None:
        offset = offset * (1 + changes.local * (whole.norm(dim=-1, keepdim=True) - 1))
    if changes.matrix is None:
        return share * offset
    z = whole @ changes.basis.T
    if changes.angle is None or changes.turned is None:
        return share * (z @ changes.matrix.T + offset)
    by = share * changes.angle
    weight = torch.where(changes.angle != 0, 1 - by.cos(), share)
    return weight * (z @ changes.matrix.T + offset) + by.sin() * (z @ changes.turned.T)


def changed(h: Float[Tensor, "*n d"], change: LowRank, strength: Float[Tensor, "*n"] | float = 1.0) -> Float[Tensor, "*n d"]:
    """One change of hidden states: `changed(h, ablate(vector, "resid_post.4"), 0.5)`. Strength 0 returns h bit for bit."""
    amounts = torch.as_tensor(strength, dtype=torch.float32, device=h.device).expand(h.shape[:-1])[..., None]
    return apply(h, stacked([change], [0], 1).to(h.device, wide(h).dtype), amounts)


def exact(device: str) -> AbstractContextManager[Any]:
    """Without autocast, which would round the factors of a product."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def wide(x: Tensor) -> Tensor:
    """x in the dtype arithmetic is done in: float32, or float64 if x already is. No copy where nothing changes."""
    return x if x.dtype == torch.float64 else x.float()


def _unit(direction: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    direction = wide(direction)
    return direction / direction.norm()
