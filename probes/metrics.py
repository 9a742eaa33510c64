"""How well a score separates two classes, how far its probabilities can be trusted, and how sure that is.

    auroc               P(score of a positive > score of a negative), ties count half
    auprc               Σ (recall_k − recall_{k−1}) · precision_k over falling thresholds k: average precision
    tpr_at_fpr          the largest share of positives above a threshold that at most `fpr` of the negatives pass
    accuracy            share of rows whose probability lies on the side of 0.5 that their label says
    brier               mean (probability − label)²                                           Brier 1950
    calibration_error   Σ_bins share of rows · |mean probability − share of positives|, 10 bins of equal width      Guo et al. 2017

A detector at AUROC .98 can still catch only 80% at 1% false alarms, so both are reported. Guo et al. bin the confidence in the predicted
class; of two classes the probability of the positive is binned here, as in scikit-learn's calibration_curve.

The interval is a percentile bootstrap over groups: whole groups are drawn with replacement, a row counts as often as its group was drawn,
since rows of one group are not independent (the cluster bootstrap; Field and Welsh 2007). Where a class comes from a single group, nothing
tells how much another would differ: the bounds are nan. Two cases in which they would be wrong:

    no resample differs     as where scores separate perfectly: the exact binomial bound for as many groups as the rarer class has takes
                            the place of the bound without width (Obuchowski and Lieber 2002)
    the calibration error   is biased upwards, and each resample once more: its lower bound is reflected, 2 · value − high, at least 0.
                            That covers errors from about .05 at the stated rate; of scores without any, 6 intervals in 10 hold 0

Unweighted, all are scikit-learn's where it has them; they are written out because 1,000 resamples are 1,000 weightings of one sorted list.

Shapes: scores, probabilities [*s, n], y [n], weights [*w, n] → [*w, *s] (`n` rows, `s` any batch of scores, `w` any batch of weightings).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

MEASURES = ("auroc", "auprc", "tpr_at_1fpr", "tpr_at_5fpr", "accuracy", "brier", "ece")
ECE = MEASURES.index("ece")
BINS = 10
CHUNK = 2**16  # row weights looked at together: half a MB stays in the cache, and 2**20 take twice the time
Statistic = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def auroc(scores: Float[Tensor, "*s n"], y: Bool[Tensor, " n"], weights: Float[Tensor, "*w n"] | None = None) -> Float[Tensor, "*out"]:
    """Area under the ROC curve; nan where a class has no weight, or a score is nan."""
    return _area(*_counts(scores, y, weights))


def auprc(scores: Float[Tensor, "*s n"], y: Bool[Tensor, " n"], weights: Float[Tensor, "*w n"] | None = None) -> Float[Tensor, "*out"]:
    """Average precision; nan where a class has no weight. Chance is the share of positives, not 0.5."""
    return _precision(*_counts(scores, y, weights))


def tpr_at_fpr(
    scores: Float[Tensor, "*s n"], y: Bool[Tensor, " n"], weights: Float[Tensor, "*w n"] | None = None, *, fpr: float = 0.01
) -> Float[Tensor, "*out"]:
    """True positive rate at a false positive rate of at most `fpr`; nan where a class has no weight."""
    return _caught(*_counts(scores, y, weights), fpr)


def accuracy(
    probabilities: Float[Tensor, "*s n"], y: Bool[Tensor, " n"], weights: Float[Tensor, "*w n"] | None = None
) -> Float[Tensor, "*out"]:
    """Share of rows on the right side of 0.5; nan where a probability is."""
    return _mean(torch.where(probabilities.isnan(), torch.nan, ((probabilities > 0.5) == y).double()), weights)


def brier(
    probabilities: Float[Tensor, "*s n"], y: Bool[Tensor, " n"], weights: Float[Tensor, "*w n"] | None = None
) -> Float[Tensor, "*out"]:
    """Mean squared distance of the probability from the label."""
    return _mean((probabilities.double() - y.double()).square(), weights)


def calibration_error(
    probabilities: Float[Tensor, "*s n"], y: Bool[Tensor, " n"], weights: Float[Tensor, "*w n"] | None = None
) -> Float[Tensor, "*out"]:
    """Expected calibration error over 10 bins of equal width, each closed above. n rows alone give about 1/√n where the truth is 0."""
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64, device=y.device)[1:-1]
    inside = torch.nn.functional.one_hot(torch.bucketize(probabilities.double(), edges), BINS).transpose(-1, -2)
    return _mean((probabilities.double() - y.double())[..., None, :] * inside, weights).abs().sum(-1)


def measure(
    scores: Float[Tensor, "s n"],
    probabilities: Float[Tensor, "s n"],
    y: Bool[Tensor, " n"],
    groups: Shaped[np.ndarray, " n"],
    *,
    resampled: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[Float[Tensor, " s"], Float[Tensor, " s"], Float[Tensor, " s"]]]:
    """Every measure of MEASURES for each score: value, lower and upper bound (nan where nothing is resampled). Float64, on the CPU.

    All scores see the same resamples, so two probes that differ in every resample differ. A score is sorted once for all of them.
    """
    parts = _parts(torch.cat([torch.ones(1, len(y)), resamples(groups, resampled, seed)]).double())
    told = torch.empty(3, len(scores), len(MEASURES), dtype=torch.float64)
    for i, (row, chance) in enumerate(zip(scores.cpu(), probabilities.cpu(), strict=True)):
        drawn = torch.cat([_every(row, chance, y.cpu(), part) for part in parts])
        told[:, i] = torch.stack([drawn[0], *_quantiles(drawn[1:], level)])
    value, low, high = told[0], *_widened(told[1], told[2], y, groups, level)
    low[:, ECE] = (2 * value[:, ECE] - high[:, ECE]).clamp_min(0)
    return {name: (value[:, i], low[:, i], high[:, i]) for i, name in enumerate(MEASURES)}


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
    parts = _parts(weights)
    bounds = [torch.stack(_quantiles(torch.cat([statistic(row, y, part) for part in parts]), level)) for row in scores]
    low, high = torch.stack(bounds, dim=1).double()
    return _widened(low, high, y, groups, level)


def percentiles(
    drawn: Float[Tensor, "b *m"], y: Bool[Tensor, " n"], groups: Shaped[np.ndarray, " n"], level: float = 0.95
) -> tuple[Float[Tensor, "*m"], Float[Tensor, "*m"]]:
    """Bounds of rates that were drawn `b` times from rows labelled y, as intervals() gives them. nan without draws."""
    return _widened(*_quantiles(drawn, level), y, groups, level)


def rarer_groups(y: Bool[Tensor, " n"], groups: Shaped[np.ndarray, " n"]) -> int:
    """From how many groups the class comes that comes from fewer."""
    labels = y.cpu().numpy()
    return min(len(np.unique(groups[labels == value])) for value in (True, False))


def _quantiles(drawn: Float[Tensor, "b *m"], level: float) -> tuple[Float[Tensor, "*m"], Float[Tensor, "*m"]]:
    if not len(drawn):
        return drawn.new_full(drawn.shape[1:], torch.nan), drawn.new_full(drawn.shape[1:], torch.nan)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=drawn.dtype, device=drawn.device)
    low, high = drawn.nanquantile(tails, dim=0)
    return low, high


def _widened(
    low: Float[Tensor, "*m"], high: Float[Tensor, "*m"], y: Bool[Tensor, " n"], groups: Shaped[np.ndarray, " n"], level: float
) -> tuple[Float[Tensor, "*m"], Float[Tensor, "*m"]]:
    """The exact bound of a rate where all resamples gave 1, or all 0; nan where a class comes from fewer than two groups."""
    if (rarer := rarer_groups(y, groups)) < 2:
        return torch.full_like(low, torch.nan), torch.full_like(high, torch.nan)
    exact = ((1 - level) / 2) ** (1 / rarer)
    return torch.where((low == 1) & (high == 1), exact, low), torch.where((low == 0) & (high == 0), 1 - exact, high)


def _parts(weights: Float[Tensor, "b n"]) -> list[Float[Tensor, "c n"]]:
    step = max(1, CHUNK // weights.shape[1])
    return [weights[start : start + step] for start in range(0, len(weights), step)]


def _every(scores: Float[Tensor, " n"], probabilities: Float[Tensor, " n"], y: Bool[Tensor, " n"], weights: Tensor) -> Float[Tensor, "w m"]:
    counts = _counts(scores, y, weights)
    ranked = (_area(*counts), _precision(*counts), _caught(*counts, 0.01), _caught(*counts, 0.05))
    return torch.stack([*ranked, *(of(probabilities, y, weights) for of in (accuracy, brier, calibration_error))], dim=-1)


def _counts(scores: Tensor, y: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight of the positives and of the negatives that score at least as high as each row, highest first: [*w, *s, n].

    No threshold parts rows with equal scores, so all of them carry the weight down to the last. A score that is nan leaves nan.
    """
    ranked, order = scores.sort(dim=-1, descending=True)
    mass = torch.ones(len(y), dtype=torch.float64, device=y.device) if weights is None else weights.double()
    sorted_mass = mass.index_select(-1, order.flatten()).reshape(*mass.shape[:-1], *order.shape)
    positive = sorted_mass * y[order]
    caught, alarms = positive.cumsum(-1), (sorted_mass - positive).cumsum(-1)
    if bool(ranked[..., :1].isnan().any()):  # sorted as the largest of numbers, which it is not
        caught = caught.masked_fill(ranked[..., :1].isnan(), torch.nan)
    if bool((ranked[..., 1:] == ranked[..., :-1]).any()):
        last = (scores.shape[-1] - 1 - torch.searchsorted(ranked.flip(-1), ranked)).clamp_min(0).expand_as(caught)
        caught, alarms = caught.gather(-1, last), alarms.gather(-1, last)
    return caught, alarms


def _area(caught: Tensor, alarms: Tensor) -> Tensor:
    beneath, along = _from_zero(caught), _from_zero(alarms).diff(dim=-1)
    return (along * (beneath[..., 1:] + beneath[..., :-1])).sum(-1) / (2 * caught[..., -1] * alarms[..., -1])


def _precision(caught: Tensor, alarms: Tensor) -> Tensor:
    precision = caught / (caught + alarms).clamp_min(torch.finfo(caught.dtype).tiny)
    return _both((precision * _from_zero(caught).diff(dim=-1)).sum(-1) / caught[..., -1], alarms)


def _caught(caught: Tensor, alarms: Tensor, fpr: float) -> Tensor:
    allowed = alarms <= (fpr + 1e-12) * alarms[..., -1:]
    return _both(torch.where(allowed, caught, 0.0).amax(-1) / caught[..., -1], alarms)


def _both(value: Tensor, alarms: Tensor) -> Tensor:
    """The value where there are negatives, else nan; without positives it is 0 / 0 already."""
    return torch.where(alarms[..., -1] > 0, value, torch.nan)


def _from_zero(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts, (1, 0))


def _mean(terms: Float[Tensor, "*s n"], weights: Float[Tensor, "*w n"] | None) -> Float[Tensor, "*out"]:
    if weights is None:
        return terms.mean(-1)
    summed = torch.tensordot(weights.double(), terms, dims=([-1], [-1]))
    return summed / weights.double().sum(-1).reshape(*weights.shape[:-1], *[1] * (terms.dim() - 1))
