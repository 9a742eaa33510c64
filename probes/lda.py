"""Linear discriminant analysis with a shrunken covariance.

    w = Σ⁻¹(μ₊ − μ₋)        b = −w · (μ₊ + μ₋)/2 + log(n₊/n₋)        Σ = (1 − g) W + g · tr(W)/d

W is the covariance within the classes (Fisher 1936, "The use of multiple measurements in taxonomic problems"), drawn by the shrinkage g
towards a multiple of the identity, which also makes it invertible with fewer rows than d (Friedman 1989, "Regularized discriminant
analysis"). This is scikit-learn's LinearDiscriminantAnalysis(solver="lsqr", shrinkage=g) on StandardScaler'd features, folded back.

How much is added, g · tr(W)/d, differs with the labelling: tr(W) is the trace of the total covariance less p|δ|² (symbols: closed.py).

Shapes: x [s, n, d]; y, rows [f, n]; weight [s, c, f, d], bias [s, c, f] (`s` sites, `n` rows, `d` d_model, `c` shrinkages, `f` fits).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import closed
from .closed import Spread
from .moments import Moments


def fit(
    x: Float[Tensor, "s n d"],
    y: Bool[Tensor, "f n"],
    settings: Sequence[float],
    *,
    rows: Bool[Tensor, "f n"] | None = None,
    balanced: bool = False,
) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """Weight and bias per site, shrinkage and fit, in the space of x, float64.

    `balanced` changes nothing: the classes enter through their means, and their sizes only move the bias.
    """
    return closed.fit(readout, x, y, settings, rows=rows)


def solve(moments: Moments, settings: Sequence[float]) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """The same from moments."""
    return closed.solve(readout, moments, settings)


def readout(rows: Spread, settings: Sequence[float]) -> tuple[Float[Tensor, "c f d"], Float[Tensor, "c f"]]:
    """One site and row mask."""
    if odd := [g for g in settings if not 0 < g <= 1]:
        raise ValueError(f"a shrinkage lies in (0, 1], not {odd[0]}; for none at all take the kind 'whitened'")
    shrinkage = torch.tensor(settings, dtype=torch.float64, device=rows.scale.device)
    trace = (rows.trace - rows.share.prod(-1) * rows.gap.square().sum(-1)).clamp_min(0)
    direction = rows.within(1 - shrinkage, shrinkage[:, None] * trace / len(rows.scale))
    negative, positive = rows.class_count.unbind(-1)
    return rows.readout(direction, rows.class_mean.mean(1), (positive / negative).log())
