"""Multinomial logistic regression with an L2 penalty: one direction per class, all fits of a site in one solve.

    min over w, b    Σᵢ mᵢ (log Σₖ exp sᵢₖ − sᵢ,yᵢ) + ‖w‖² / 2C        sᵢₖ = wₖ · zᵢ + bₖ,  z = (h − μ) / σ,  b not penalised

This is scikit-learn's LogisticRegression(C=C) with more than two classes on StandardScaler'd features (Bishop 2006, "Pattern recognition
and machine learning", 4.3.4). A constant added to every class changes no probability: the penalty makes the weights sum to zero over
classes, and so do the biases given here. Scaling is each fit's own and folded back, as in `logistic`; how it is solved: `descent`.

Shapes: x [s, n, d]; y [n]; rows [f, n]; weight [s, c, f, k, d], bias [s, c, f, k] (`k` classes, numbered 0 to k − 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.linalg import pinv
from torch.nn.functional import one_hot

from .descent import TOLERANCE, Link, solve

SOFTMAX = Link(
    probability=lambda scores: scores.softmax(1),
    loss=lambda scores, targets: scores.logsumexp(1) - (targets * scores).sum(1),
    variance=lambda p, change: (p * change.square()).sum(1) - (p * change).sum(1).square(),
    inverse=lambda p, weights: pinv((weights * p).sum(-1).diag_embed() - (weights * p) @ p.transpose(1, 2), hermitian=True),
    bound=0.5,
)


def fit(
    x: Float[Tensor, "s n d"],
    y: Int[Tensor, " n"] | Int[Tensor, "f n"],
    settings: Sequence[float],
    *,
    rows: Bool[Tensor, "f n"] | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[Float[Tensor, "s c f k d"], Float[Tensor, "s c f k"]]:
    """Weight and bias per site, penalty C, fit and class, in the space of x, float64.

    y          classes; one labelling for all fits, or one each
    rows       the rows each fit learns from; all by default
    tolerance  how far above its minimum an objective may end, as a share of it; fits that do not get there are counted in a warning
    Raises ValueError naming a fit that lacks one of the classes.
    """
    y = y[None] if y.ndim == 1 else y
    rows = torch.ones_like(y, dtype=torch.bool) if rows is None else rows
    targets = one_hot(y.expand(rows.shape)).transpose(1, 2).bool()
    counts = (targets & rows[:, None]).sum(-1)
    if bool((counts == 0).any()):
        which, missing = (counts == 0).nonzero()[0].tolist()
        raise ValueError(
            f"fit {which} of {len(rows)} has no row of class {missing} to learn from, and needs all {counts.shape[1]}. "
            "Use fewer folds or larger samples, or leave the class out"
        )
    weight, bias = solve(x, targets, rows.double(), counts.double().log(), settings, link=SOFTMAX, tolerance=tolerance)
    return weight, bias - bias.mean(-1, keepdim=True)
