"""Mean difference: the direction from the mean of the negatives to the mean of the positives, plain or whitened.

    w = μ₊ − μ₋             plain: nothing is scaled, so w lives in the model's own space and units and is a steering vector as it stands
    w = W⁺(μ₊ − μ₋)         whitened by W, the covariance within the two classes: the best direction to tell them apart if that is normal
    b = −w · (μ₊ + μ₋)/2    reads positive where h is nearer to μ₊ along w

Marks and Tegmark 2023, "The geometry of truth" (mass-mean probing; whitened is their variant for rows that are drawn alike). W⁺ is the
inverse, and the pseudo-inverse where W is singular: constant or collinear features, fewer rows than d + 2 (closed.py).

Shapes: x [s, n, d]; y, rows [f, n] (`s` sites, `n` rows, `d` d_model, `f` fits: labellings, each with its rows); w [s, c, f, d], c = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import closed
from .closed import Spread
from .moments import Moments


def mean_difference(x: Float[Tensor, "s n d"], y: Bool[Tensor, "*f n"]) -> Float[Tensor, "s *f d"]:
    """μ₊ − μ₋ per site and labelling. Accumulates in float64 whatever x is."""
    above, below = class_means(x, y)
    return above - below


def class_means(
    x: Float[Tensor, "s n d"], y: Bool[Tensor, "*f n"], rows: Bool[Tensor, "*f n"] | None = None
) -> tuple[Float[Tensor, "s *f d"], Float[Tensor, "s *f d"]]:
    """Means of the positives and of the negatives among `rows`, float64."""
    classes = torch.stack([y, ~y]) if rows is None else torch.stack([y & rows, ~y & rows])
    weights = classes / classes.sum(-1, keepdim=True, dtype=torch.float64)
    flat = weights.flatten(0, -2)
    means = torch.stack([flat @ site.double() for site in x])
    above, below = means.reshape(len(x), *weights.shape[:-1], x.shape[-1]).unbind(1)
    return above, below


def fit(
    x: Float[Tensor, "s n d"],
    y: Bool[Tensor, "f n"],
    settings: Sequence[float],
    *,
    rows: Bool[Tensor, "f n"] | None = None,
    balanced: bool = False,
) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """Weight and bias per site and fit. There is nothing to set and nothing to balance: `settings` is not used and c is 1."""
    closed.check_classes(closed.class_counts(y, rows))
    return _midway(*class_means(x, y, rows))


def solve(moments: Moments, settings: Sequence[float]) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """The same from moments."""
    closed.check_classes(moments.class_count)
    below, above = moments.class_mean.unbind(2)
    return _midway(above, below)


def whitened(
    x: Float[Tensor, "s n d"],
    y: Bool[Tensor, "f n"],
    settings: Sequence[float],
    *,
    rows: Bool[Tensor, "f n"] | None = None,
    balanced: bool = False,
) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """Whitened weight and bias per site and fit. Nothing to set or to balance here either."""
    return closed.fit(_whitened, x, y, settings, rows=rows)


def solve_whitened(moments: Moments, settings: Sequence[float]) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """The same from moments."""
    return closed.solve(_whitened, moments, settings)


def _midway(above: Float[Tensor, "s f d"], below: Float[Tensor, "s f d"]) -> tuple[Float[Tensor, "s 1 f d"], Float[Tensor, "s 1 f"]]:
    weight = above - below
    return weight[:, None], -(weight * (above + below)).sum(-1)[:, None] / 2


def _whitened(rows: Spread, settings: Sequence[float]) -> tuple[Float[Tensor, "1 f d"], Float[Tensor, "1 f"]]:
    weight = rows.whitened()
    return weight, -(weight * rows.class_mean.mean(1)).sum(-1)
