"""Subspaces to steer in: several directions along which two classes differ, and the map that carries one class onto the other there.

    D = U S Vᵀ                        the differences between the classes, row by row; the first k rows of Vᵀ are the directions
    z = V h                           what a hidden state is in the subspace
    A = Σ₋^(−½) (Σ₋^½ Σ₊ Σ₋^½)^½ Σ₋^(−½)      the linear part of the optimal transport between two Gaussians: μ₊ + A (z − μ₋)

The first direction is close to the plain vector; the others hold how the differences vary from prompt to prompt. Covariances in the
subspace are shrunk as Ledoit and Wolf 2004 (by scikit-learn).

Knott and Smith 1984 for A; Singh et al. 2024, "Representation surgery", for steering with it.
Shapes: D [n, d], V [k, d], z [n, k], A [k, k] (`n` rows, `d` d_model).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from ..hooks.model import LensModel
from ..hooks.records import Transcript
from ..hooks.select import Select
from ..hooks.store import Store
from ..hooks.vector import Vector
from .vectors import PAIRED, captured, contrast_of, vector_from_stores


def steering_subspace(
    source: LensModel,
    target: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    k: int = 3,
    contrast: str = PAIRED,
    span: str | None = None,
    rows: Mapping[str, Any] | None = None,
    labels: Mapping[str, Mapping[str, Any]] | None = None,
) -> Vector:
    """Capture the transcripts through both models and take `k` directions of the contrast at every site; as steering_vector()."""
    with captured(source, target, transcripts, where, span, labels) as (taken, steered, chosen):
        return subspace_from_stores(source=taken, target=steered, k=k, contrast=contrast, span=chosen, where=rows)


def subspace_from_stores(
    *,
    source: Store,
    target: Store,
    k: int = 3,
    contrast: str = PAIRED,
    span: str,
    where: Mapping[str, Any] | None = None,
    label: str | None = None,
    group: str = "group",
) -> Vector:
    """`k` directions at every site, with class means and transport, for the operators subspace and transport.

    The other arguments, and the errors, are those of vector_from_stores(). ValueError besides where there are fewer than k + 2 rows of a
    class, or where the differences have fewer than k directions.
    """
    if k < 1:
        raise ValueError(f"a subspace has at least 1 direction, not {k}")
    vector = vector_from_stores(source=source, target=target, contrast=contrast, span=span, where=where, label=label, group=group)
    contrasted = contrast_of(source, target, contrast, span, where, label)
    start, end = (side.double() for side in contrasted.sides)
    if min(start.shape[1], end.shape[1]) < k + 2:
        raise ValueError(
            f"{k} directions need at least {k + 2} rows of each class, there are {start.shape[1]} and {end.shape[1]}. Ask for fewer"
        )
    values, transports = {}, {}
    for i, site in ((i, site) for i, site in enumerate(source.sites) if site in vector.values):
        _, lengths, axes = torch.linalg.svd(contrasted.differences[i].double(), full_matrices=False)
        if len(lengths) < k or float(lengths[k - 1]) <= 1e-9 * float(lengths[0]):
            raise ValueError(f"the differences of {contrast} at {site} have fewer than {k} directions. Ask for fewer")
        basis = axes[:k]
        values[site] = basis.float()
        transports[site] = optimal_transport(start[i] @ basis.T, end[i] @ basis.T).float()
    return replace(vector, values=values, transport=transports, source=f"{vector.source}, {k} directions", header={**vector.header, "k": k})


def optimal_transport(start: Float[Tensor, "n k"], end: Float[Tensor, "m k"]) -> Float[Tensor, "k k"]:
    """A of the map that carries the Gaussian of `start` onto that of `end`: symmetric, positive."""
    first, second = (torch.from_numpy(ledoit_wolf(side.numpy())[0]) for side in (start, end))
    root = _power(first, 0.5)
    inverse = _power(first, -0.5)
    return inverse @ _power(root @ second @ root, 0.5) @ inverse


def _power(matrix: Float[Tensor, "k k"], exponent: float) -> Float[Tensor, "k k"]:
    """Of a symmetric positive matrix."""
    values, axes = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (axes * values.clamp(min=1e-12 * float(values.max())) ** exponent) @ axes.T
