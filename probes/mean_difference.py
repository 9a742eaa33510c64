"""Mean difference: the direction from the mean of the negatives to the mean of the positives.

    w = μ₊ − μ₋        b = −w · (μ₊ + μ₋) / 2        reads positive where h is nearer to μ₊ along w

Marks and Tegmark 2023, "The geometry of truth" (mass-mean probing). Nothing is scaled: w lives in the model's own space and units, which
makes it a steering vector as it stands.

Shapes: x [s, n, d]; y [f, n] (`s` sites, `n` rows, `d` d_model, `f` labellings, the true one and shuffled ones); w [s, c, f, d] with c = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_difference(x: Float[Tensor, "s n d"], y: Bool[Tensor, "*f n"]) -> Float[Tensor, "s *f d"]:
    """μ₊ − μ₋ per site and labelling. Accumulates in float64 whatever x is."""
    above, below = class_means(x, y)
    return above - below


def class_means(x: Float[Tensor, "s n d"], y: Bool[Tensor, "*f n"]) -> tuple[Float[Tensor, "s *f d"], Float[Tensor, "s *f d"]]:
    """Means of the positives and of the negatives, float64."""
    positive = y.double()
    weights = torch.stack([positive / positive.sum(-1, keepdim=True), (1 - positive) / (1 - positive).sum(-1, keepdim=True)])
    flat = weights.flatten(0, -2)
    means = torch.stack([flat @ site.double() for site in x])
    above, below = means.reshape(len(x), *weights.shape[:-1], x.shape[-1]).unbind(1)
    return above, below


def fit(x: Float[Tensor, "s n d"], y: Bool[Tensor, "f n"], cs: Sequence[float]) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """Weight and bias per site and labelling. There is nothing to regularise: `cs` is not used and c is 1."""
    above, below = class_means(x, y)
    weight = above - below
    return weight[:, None], -(weight * (above + below)).sum(-1)[:, None] / 2
