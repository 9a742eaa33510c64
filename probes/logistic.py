"""L2-regularised logistic regression: every labelling, fold and penalty of a site in one solve.

    min over w, b    Σᵢ mᵢ log(1 + exp(−ỹᵢ (w · zᵢ + b))) + ‖w‖² / 2C        z = (h − μ) / σ,  ỹ = ±1,  b not penalised

This is scikit-learn's LogisticRegression(C=C) on StandardScaler'd features. μ, σ and the weights mᵢ are each fit's own: 1, or n / 2n_class
where classes are balanced, and 0 for a row the fit must not see. They are folded back (w/σ, b − w · μ/σ), so weight · h + bias
reads a hidden state as the model has it. How it is solved, and what `tolerance` promises: `descent`.

Shapes: x [s, n, d]; y, rows [f, n]; weight [s, c, f, d] (`s` sites, `n` rows, `d` d_model, `c` penalties, `f` fits: labels on some rows).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from .descent import TOLERANCE, Link, solve

SIGMOID = Link(
    probability=torch.sigmoid,
    loss=lambda scores, targets: (softplus(scores) - targets * scores).sum(1),
    variance=lambda p, change: (p * (1 - p) * change.square()).sum(1),
    inverse=lambda p, weights: 1 / (weights * p * (1 - p)).sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny),
    bound=0.25,
)


def fit(
    x: Float[Tensor, "s n d"],
    y: Bool[Tensor, "f n"],
    settings: Sequence[float],
    *,
    rows: Bool[Tensor, "f n"] | None = None,
    balanced: bool = False,
    tolerance: float = TOLERANCE,
) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """Weight and bias per site, penalty C and fit, in the space of x, float64.

    rows       the rows each fit learns from; all by default
    balanced   both classes weigh the same, as class_weight="balanced"
    tolerance  how far above its minimum an objective may end, as a share of it; fits that do not get there are counted in a warning
    Raises ValueError naming a fit that sees one class only.
    """
    rows = torch.ones_like(y) if rows is None else rows
    positive, negative = (rows & y).sum(1), (rows & ~y).sum(1)
    if bool((lacks := (positive == 0) | (negative == 0)).any()):
        which = int(lacks.nonzero()[0])
        raise ValueError(
            f"fit {which} of {len(y)} has {positive[which]} positive and {negative[which]} negative rows to learn from, and both are "
            "needed. Use fewer folds or larger samples, or label more"
        )
    weights = rows.double()
    if balanced:
        weights = weights * torch.where(y, (0.5 / positive)[:, None], (0.5 / negative)[:, None]) * (positive + negative)[:, None]
    base = (weights * y).sum(1) / weights.sum(1)
    weight, bias = solve(x, y[:, None], weights, torch.logit(base)[:, None], settings, link=SIGMOID, tolerance=tolerance)
    return weight[..., 0, :], bias[..., 0]
