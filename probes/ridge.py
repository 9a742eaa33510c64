"""Ridge regression on labels of ±1.

    min over w, b    Σᵢ (w · zᵢ + b − ỹᵢ)² + α‖w‖²        z = (h − μ)/σ,  ỹ = ±1,  b not penalised

Hoerl and Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems". With n rows of covariance C the solution is
w = 2p (C + α/n)⁻¹ δ, so its direction lies between that of the discriminant and, for large α, the mean difference (symbols: closed.py).
This is scikit-learn's RidgeClassifier(alpha=α) on StandardScaler'd features, folded back; α = 0 is least squares of the smallest norm.

Shapes: x [s, n, d]; y, rows [f, n]; weight [s, c, f, d], bias [s, c, f] (`s` sites, `n` rows, `d` d_model, `c` penalties, `f` fits).
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
    """Weight and bias per site, penalty α and fit, in the space of x, float64.

    `balanced` weighs both classes alike. Each labelling then has a covariance of its own, and is solved on its own.
    """
    return closed.fit(readout, x, y, settings, rows=rows, balanced=balanced)


def solve(moments: Moments, settings: Sequence[float]) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """The same from moments."""
    return closed.solve(readout, moments, settings)


def readout(rows: Spread, settings: Sequence[float]) -> tuple[Float[Tensor, "c f d"], Float[Tensor, "c f"]]:
    """One site and row mask."""
    if odd := [alpha for alpha in settings if not alpha >= 0]:
        raise ValueError(f"a ridge penalty is at least 0, not {odd[0]}")
    alpha = torch.tensor(settings, dtype=torch.float64, device=rows.scale.device)
    share = rows.share
    direction = 2 * share.prod(-1)[:, None] * rows.total(torch.ones_like(alpha), alpha[:, None] / rows.rows)
    return rows.readout(direction, (share[:, None] @ rows.class_mean)[:, 0], share[:, 1] - share[:, 0])
