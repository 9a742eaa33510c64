"""How well a score separates two classes, and how sure that is.

    auroc         P(score of a positive > score of a negative), ties count half
    tpr_at_fpr    the largest share of positives above a threshold that at most `fpr` of the negatives pass
    interval      percentile bootstrap over groups: whole groups are drawn with replacement, a row counts as often as its group was drawn

A detector at AUROC .98 can still catch only 80% at 1% false alarms, so both are reported. Rows of one group are not independent, hence the
cluster bootstrap (Field and Welsh 2007). Where scores separate perfectly no resample differs and the percentile interval has no width; the
exact binomial bound for as many groups as the rarer class has takes its place (the case of Obuchowski and Lieber 2002).

Unweighted, both numbers are scikit-learn's; they are written out here because 1,000 resamples are 1,000 weightings of one sorted list.

Shapes: scores [*s, n], y [n], weights [*w, n] → [*w, *s] (`n` rows, `s` any batch of scores, `w` any batch of weightings).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

CHUNK = 2**20  # row weights looked at together, so that 50,000 rows resampled 1,000 times do not fill the memory
Statistic = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def auroc(scores: Float[Tensor, "*s n"], y: Bool[Tensor, " n"], weights: Float[Tensor, "*w n"] | None = None) -> Float[Tensor, "*out"]:
    """Area under the ROC curve; nan where a class has no weight."""
    ranked, order = scores.sort(dim=-1)
    positive, negative = _masses(y, weights, order)
    below = torch.nn.functional.pad(negative.cumsum(-1), (1, 0))
    first = torch.searchsorted(ranked, ranked).expand_as(positive)
    last = torch.searchsorted(ranked, ranked, right=True).expand_as(positive)
    beaten = (below.gather(-1, first) + below.gather(-1, last)) / 2
    return (positive * beaten).sum(-1) / (positive.sum(-1) * negative.sum(-1))


def tpr_at_fpr(
    scores: Float[Tensor, "*s n"], y: Bool[Tensor, " n"], weights: Float[Tensor, "*w n"] | None = None, *, fpr: float = 0.01
) -> Float[Tensor, "*out"]:
    """True positive rate at a false positive rate of at most `fpr`; nan where a class has no weight."""
    ranked, order = scores.sort(dim=-1, descending=True)
    positive, negative = _masses(y, weights, order)
    caught = positive.cumsum(-1) / positive.sum(-1, keepdim=True)
    alarms = negative.cumsum(-1) / negative.sum(-1, keepdim=True)
    between = torch.ones_like(ranked, dtype=torch.bool)  # a threshold fits below a row only where the next score is lower
    between[..., :-1] = ranked[..., :-1] > ranked[..., 1:]
    allowed = between & (alarms <= fpr + 1e-12)
    best = torch.where(allowed, caught, 0.0).amax(-1)
    return torch.where(alarms[..., -1].isnan() | caught[..., -1].isnan(), torch.nan, best)


def group_bootstrap(
    statistic: Statistic,
    scores: Float[Tensor, " n"],
    y: Bool[Tensor, " n"],
    groups: Shaped[np.ndarray, " n"],
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The interval of `statistic`, a rate in [0, 1] called with (scores, y, weights [n resamples, rows])."""
    low, high = intervals(statistic, scores[None], y, resamples(groups, n, seed), groups, level)
    return float(low[0]), float(high[0])


def resamples(groups: Shaped[np.ndarray, " n"], n: int = 1000, seed: int = 0) -> Float[Tensor, "b n"]:
    """How often each row counts in each of `n` draws of whole groups. Drawn once, it serves every score of the same rows."""
    names, member = np.unique(groups, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
    return torch.from_numpy(drawn[:, member].astype(np.float32))


def intervals(
    statistic: Statistic,
    scores: Float[Tensor, "s n"],
    y: Bool[Tensor, " n"],
    weights: Float[Tensor, "b n"],
    groups: Shaped[np.ndarray, " n"],
    level: float = 0.95,
) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Lower and upper bound for each score of the same rows. Resamples that miss a class are left out; nan where all do."""
    tail = (1 - level) / 2
    rarer = min(len(np.unique(groups[y.cpu().numpy() == value])) for value in (True, False))
    exact = tail ** (1 / max(rarer, 1))
    bounds, step = [], max(1, CHUNK // len(y))
    for row in scores:
        drawn = torch.cat([statistic(row, y, weights[start : start + step]) for start in range(0, len(weights), step)])
        low, high = torch.nanquantile(drawn, torch.tensor([tail, 1 - tail], dtype=drawn.dtype)).tolist()
        bounds.append((exact if low == high == 1 else low, 1 - exact if low == high == 0 else high))
    low_high = torch.tensor(bounds, dtype=torch.float64)
    return low_high[:, 0], low_high[:, 1]


def _masses(y: Tensor, weights: Tensor | None, order: Tensor) -> tuple[Tensor, Tensor]:
    """Weight of the positives and of the negatives, each row's in sorted order: [*w, *s, n]."""
    mass = torch.ones(len(y), dtype=torch.float64, device=y.device) if weights is None else weights.double()
    return torch.where(y, mass, 0.0)[..., order], torch.where(y, 0.0, mass)[..., order]
