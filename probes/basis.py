"""Whether two checkpoints keep their hidden states in one basis, and the rotation between them where they do not.

A direction is a row of numbers over axes. In a model with other axes it means nothing, and a cosine between the two is about the axes.
Checkpoints tuned from one base keep its axes. Whether two do is read off the hidden states a, b of the same tokens, in two halves of the
groups, each half centred:

    identity      tr(AᵀB) / ‖A‖ ‖B‖         how far b is a as it stands: a cosine of two tables
    procrustes    tr(AᵀBR) / ‖A‖ ‖B‖        the same after the best rotation, R = argmin ‖BR − A‖ over RᵀR = I, which is UVᵀ of BᵀA = UΣVᵀ

Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem". R is fitted on one half and both shares are taken on the
other: with fewer rows than dimensions a rotation fits anything, so fitting must not decide. It is one basis where identity is at least
SAME of procrustes and at least SHARED. (The shipped trio, every pair, layer and moment: identity from .75, never less than .90 of
procrustes. The same with one side rotated at random: identity up to .02, procrustes from .83. Layers two apart in one model, which share
the stream but not what is in it: .33 to .93 of procrustes.)

An alignment reads b in the basis of a, (b − μ_b) R + μ_a. With fewer rows than dimensions R is told on their span only; on the rest it is
the map nearest to the identity.

Shapes: a, b [n, d], row i of both the same tokens; rotation [d, d] (`n` rows, `d` d_model).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..hooks.store import Store
from ..hooks.trio import ROW
from .dataset import group_names
from .probe import Probe

SAME, SHARED = 0.75, 0.1
MOST = 1024  # rows a rotation is fitted on where it only has to be told whether there is one
ALIGN = ("procrustes",)


@dataclass(frozen=True)
class Shares:
    """What the identity and what a rotation explain of rows that neither was fitted on; n rows, in as many groups."""

    identity: float
    procrustes: float
    n: int
    groups: int

    @property
    def one_basis(self) -> bool:
        return self.identity >= max(SAME * self.procrustes, SHARED)

    def __str__(self) -> str:
        return f"identity {self.identity:.2f}, rotation {self.procrustes:.2f}, on {self.n} rows held out"


@dataclass(frozen=True, eq=False)
class Alignment:
    """How hidden states b are read in the basis of a: (b − centre_b) @ rotation + centre_a. Fitted on n rows; shares are held out."""

    rotation: Float[Tensor, "d d"]
    centre_a: Float[Tensor, " d"]
    centre_b: Float[Tensor, " d"]
    n: int
    shares: Shares

    def direction(self, direction: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """A direction of b, told in the basis of a."""
        return direction.double() @ self.rotation

    def probe(self, probe: Probe, model: str) -> Probe:
        """A probe of a that reads the hidden states of `model`, which b is, as they are. Its header says so."""
        weight = self.rotation @ probe.weight.double()
        bias = probe.bias + float(probe.weight.double() @ self.centre_a - weight @ self.centre_b)
        told = {"method": "procrustes", "from": probe.model, "to": model, "n": self.n, "held_out": asdict(self.shares)}
        return replace(probe, weight=weight.float(), bias=bias, model=model, header={**probe.header, "aligned": told})


def align(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], groups: Shaped[np.ndarray, " n"]) -> Alignment:
    """The rotation of b into the basis of a, from all rows; how much it explains, from halves of the groups."""
    a, b = a.double(), b.double()
    centre_a, centre_b = a.mean(0), b.mean(0)
    return Alignment(procrustes(a - centre_a, b - centre_b), centre_a, centre_b, len(a), shares(a, b, groups))


def shares(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], groups: Shaped[np.ndarray, " n"], seed: int = 0) -> Shares:
    """What identity and rotation explain of one half of the groups, the rotation fitted on the other."""
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 4:
        raise ValueError(
            f"two bases cannot be compared on {len(names)} groups of the same tokens; it takes 4, and many more to be sure. "
            "Capture the same transcripts with both models"
        )
    half = (np.random.default_rng(seed).permutation(len(names)) < len(names) // 2)[member]
    fitted = np.flatnonzero(half)
    fitted = fitted[:: 1 + len(fitted) // MOST]
    left, right = _turned(_centred(a[fitted]), _centred(b[fitted]))
    held_a, held_b = _centred(a[~half]), _centred(b[~half])
    size = held_a.norm() * held_b.norm()
    if not float(size) > 0:
        raise ValueError("two bases cannot be compared where all hidden states of a model are equal; take another span or site")
    turned = ((held_a @ right) * (held_b @ left)).sum() / size
    return Shares(float((held_a * held_b).sum() / size), float(turned), int((~half).sum()), len(names) - len(names) // 2)


def procrustes(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """The orthogonal R with the least ‖bR − a‖; among equals the one nearest to the identity. float64."""
    left, right = _turned(a.double(), b.double())
    d, k = left.shape
    whole = torch.eye(d, dtype=left.dtype, device=left.device)
    u, _, vt = torch.linalg.svd((whole - left @ left.T) @ (whole - right @ right.T))
    return left @ right.T + u[:, : d - k] @ vt[: d - k]


def _turned(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "d k"], Float[Tensor, "d k"]]:
    """Axes of b and the axes of a they become, for every direction the rows tell about: the U and V of BᵀA with a singular value."""
    (axes_b, b_of), (axes_a, a_of) = torch.linalg.qr(b.T), torch.linalg.qr(a.T)
    u, size, vt = torch.linalg.svd(b_of @ a_of.T)
    told = size > size[0] * max(a.shape) * torch.finfo(size.dtype).eps
    return (axes_b @ u)[:, told], (axes_a @ vt.T)[:, told]


def _centred(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return x.double() - x.double().mean(0)


def bases(
    stores: tuple[Store, Store],
    names: tuple[str, str],
    *,
    sites: Sequence[str],
    where: Mapping[str, Any],
    group: str = "group",
    how: str | None = None,
) -> dict[str, Alignment | None]:
    """Per site the alignment of the second store to the first; None where they stand in one basis and no alignment was asked for.

    where    the rows to go by, as index columns and values: the same tokens in both
    how      None: refuse where the bases differ. "procrustes": rotate
    Raises ValueError: widths differ, no common rows, bases that differ, or that not even a rotation brings together.
    """
    one, other = stores
    if how is not None and how not in ALIGN:
        raise ValueError(f"unknown alignment {how!r}; known are {', '.join(ALIGN)}")
    if one.width != other.width:
        raise ValueError(
            f"{names[0]!r} is {one.width} wide and {names[1]!r} {other.width}: no direction of one is a direction of the other, and no "
            "rotation makes it one. Compare checkpoints of one family"
        )
    if how is None and one.meta["fingerprint"] == other.meta["fingerprint"]:
        return dict.fromkeys(sites)
    a, b, groups = _paired(stores, names, sites, where, group)
    found: dict[str, Alignment | None] = {}
    for i, site in enumerate(sites):
        alignment = None if how is None else align(a[:, i], b[:, i], groups)
        told = alignment.shares if alignment else shares(a[:, i], b[:, i], groups)
        if alignment is None and not told.one_basis:
            raise ValueError(
                f"{names[0]!r} and {names[1]!r} do not keep their hidden states in one basis at {site} ({told}), so a direction of one "
                "means nothing in the other. Compare checkpoints tuned from one base, or pass align='procrustes' to rotate one into the "
                "other's basis"
            )
        if told.procrustes < SHARED:
            raise ValueError(
                f"no rotation brings {names[1]!r} into the basis of {names[0]!r} at {site} ({told}): they hold nothing alike there. "
                "Give more rows, or compare other sites"
            )
        found[site] = alignment
    return found


def _paired(
    stores: tuple[Store, Store], names: tuple[str, str], sites: Sequence[str], where: Mapping[str, Any], group: str
) -> tuple[Float[Tensor, "n s d"], Float[Tensor, "n s d"], Shaped[np.ndarray, " n"]]:
    """The rows that both stores hold of the same tokens, side by side, and their groups."""
    (a, one), (b, other) = (store.rows(where, sites=sites) for store in stores)
    keys = list(ROW)
    both = one[keys].assign(at=range(len(one))).merge(other[keys].assign(beside=range(len(other))), on=keys)
    if not len(both):
        raise ValueError(
            f"{names[0]!r} and {names[1]!r} were not read on the same tokens at {dict(where)}, so it cannot be told whether they share a "
            "basis. Capture the same transcripts with both (capture_trio)"
        )
    at, beside = both["at"].to_numpy(), both["beside"].to_numpy()
    return a[torch.tensor(at)], b[torch.tensor(beside)], group_names(one.iloc[at], group)
