"""Many penalised fits that share one design, by L-BFGS side by side.

    min over w, b    Σᵢ mᵢ loss(w zᵢ + b, yᵢ) + ‖w‖² / 2C        z = (h − μ) / σ,  b not penalised

Each fit has its own targets y, row weights m (0 for a row it must not see), μ, σ and C. All use one design, the features standardised over
all rows, of which a fit's own μ and σ are an offset and a factor per feature, so an iteration is two matrix products for all fits together.
Where other rows are so extreme that a fit's own would drown in rounding, it has a design of its own rows.

Memory of the last few steps (Liu and Nocedal 1989) starts from the inverse of κG + 1/C, with G the Gram matrix of the design and κ
the fit's mean curvature: in the principal axes of G, found once per design, that is diagonal for every fit. A fit leaves the batch when
C/2 ‖∇w‖² is below a share of its objective. Where its bias is the best for its weights, that is the duality gap at the dual point its own
probabilities are, so how far it can still be from the minimum is known, whatever its labels: a fit that seems done gets that bias, by
Newton's method, and is judged there. Products are float32; fits that rounding keeps from the tolerance go on in float64.

Shapes: z [n, d]; `q` = c·f fits of one site (`c` penalties, `f` pairs of targets and row weights), each with `k` scores a row (1, or one
per class): weight and bias together v [q, k, d + 1], scores and targets [q, k, n], row weights [q, 1, n].
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

logger = logging.getLogger(__name__)

TOLERANCE = 1e-7
ITERATIONS = {torch.float32: 200, torch.float64: 2000}
ATTAINABLE = {torch.float32: 1e-7, torch.float64: 0.0}  # relative gaps below this are rounding
FAR = 30  # standard deviations of a fit's own: rounded to float32, a feature in a design as far or as coarse is off by 2e-6 of one
LOST = 1e-4  # a variance below this share of the mean square it is found from is found again, about its own mean
SETTLING = 3
MEMORY = 5
Remembered = tuple[Tensor, Tensor, Tensor]  # a step, the change of the gradient along it, 1 / their product
SCORES = 2**24  # held at a time: as many fits as that allows go side by side
ROWS = 1024  # looked at together in float64, so that they stay in a cache


@dataclass(frozen=True)
class Link:
    """How scores [q, k, n] become probabilities, and what the loss needs of it.

    loss(scores, targets) and variance(p, change), its curvature along a change of the scores, are [q, n]; the curvature never exceeds
    bound · Σ change². inverse(p, weights), [q, k, k], is the inverse of the curvature of the weighted loss in the biases.
    """

    probability: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    variance: Callable[[Tensor, Tensor], Tensor]
    inverse: Callable[[Tensor, Tensor], Tensor]
    bound: float


def solve(
    x: Float[Tensor, "s n d"],
    targets: Bool[Tensor, "f k n"],
    weights: Float[Tensor, "f n"],
    start: Float[Tensor, "f k"],
    settings: Sequence[float],
    *,
    link: Link,
    tolerance: float,
) -> tuple[Float[Tensor, "s c f k d"], Float[Tensor, "s c f k"]]:
    """Weight and bias of every site, C and fit, in the space of x, float64; `start` are the biases that suit w = 0."""
    used = (weights > 0).any(0)
    targets, weights = targets[..., used], weights[:, used]
    masks, which = torch.unique(weights > 0, dim=0, return_inverse=True)
    masks, which = torch.cat([torch.ones_like(masks[:1]), masks]), which + 1  # all rows in use, then those of each fit
    c = torch.tensor(settings, dtype=torch.float64, device=x.device)
    weight = torch.empty(len(x), len(c), *start.shape, x.shape[2], dtype=torch.float64, device=x.device)
    bias, late = weight.new_empty(weight.shape[:-1]), 0
    for site, w, b in zip(x, weight, bias, strict=True):  # sites share no design, and the products of one fill a processor
        h = site[used]
        mean, spread = _moments(h, masks)
        scale = torch.where(spread > 0, spread, torch.inf)  # a constant feature has no weight
        far = ((mean - mean[0]).abs() / scale).maximum(spread[0] / scale).amax(1) > FAR
        design = (far * torch.arange(len(far), device=far.device))[which]  # the mask whose rows it is made of
        for own in torch.unique(design).tolist():
            mine, rows = (design == own).nonzero()[:, 0], masks[own]
            seen, centre = which[mine], mean[own].to(h.dtype)
            z = h[rows].sub_(centre).div_(scale[own].to(h.dtype))
            off, inverse = (
                pad(t[:, None], (0, 1), value=i) for i, t in enumerate(((mean[seen] - centre) / scale[own], spread[own] / scale[seen]))
            )
            fits = _Fits(targets[mine][..., rows], weights[mine][:, None, rows], off, inverse)
            v, missed = _minimise(z, fits, c, start[mine], link, tolerance)
            w[:, mine] = v[..., :-1] / scale[seen][:, None]
            b[:, mine] = v[..., -1] - (w[:, mine] * mean[seen][:, None]).sum(-1)
            late += missed
    if late:
        logger.warning(
            "%d of %d fits did not converge: their objective may lie more than %.0e above its minimum. A smaller C converges sooner",
            *(late, len(x) * len(c) * len(targets), tolerance),
        )
    return weight, bias


@dataclass(frozen=True)
class _Fits:
    """What is fitted side by side, and how the features of each lie in the design: z = (design − mean) · inverse.

    The inverse of σ is 0 for a feature that is constant within a fit's rows. The last feature is always 1, its weight is the bias.
    """

    targets: Tensor
    weights: Float[Tensor, "f 1 n"]
    mean: Float[Tensor, "f 1 e"]
    inverse: Float[Tensor, "f 1 e"]

    def at(self, which: Tensor, dtype: torch.dtype) -> _Fits:
        return _Fits(*(t[which].to(dtype) for t in (self.targets, self.weights, self.mean, self.inverse)))

    def scores(self, v: Float[Tensor, "f k e"], design: Float[Tensor, "n e"]) -> Float[Tensor, "f k n"]:
        on_design = v * self.inverse
        return on_design @ design.T - (on_design * self.mean).sum(-1, keepdim=True)

    def slope(self, residual: Float[Tensor, "f k n"], design: Float[Tensor, "n e"]) -> Float[Tensor, "f k e"]:
        """The transpose of scores()."""
        weighted = self.weights * residual
        return (weighted @ design - weighted.sum(-1, keepdim=True) * self.mean) * self.inverse


def _minimise(
    z: Float[Tensor, "n d"], fits: _Fits, settings: Float[Tensor, " c"], start: Float[Tensor, "f k"], link: Link, tolerance: float
) -> tuple[Float[Tensor, "c f k e"], int]:
    """Weights with bias, and how many fits missed the tolerance."""
    v = pad(start.double()[..., None], (z.shape[1], 0)).repeat(len(settings), 1, 1)
    c = settings.repeat_interleave(len(start))[:, None, None]
    spectrum, axes = _principal(z)
    axes = pad(axes, (0, 0, 0, 1))
    late = torch.arange(len(v), device=z.device)
    for dtype in (torch.float32, torch.float64):
        design, goal = pad(z.to(dtype), (0, 1), value=1.0), max(tolerance, ATTAINABLE[dtype])
        gap = torch.empty_like(c[late, 0, 0])
        for part in torch.split(torch.arange(len(late), device=z.device), max(1, SCORES // fits.targets[0].numel())):
            some = late[part]
            of = fits.at(some % len(start), dtype)
            v[some], gap[part] = _descend(design, spectrum.to(dtype), axes.to(dtype), of, c[some].to(dtype), v[some], link, goal)
        late = late[~(gap <= tolerance)]
        if not len(late):
            break
    return v.reshape(len(settings), *start.shape, -1), len(late)


def _descend(
    design: Float[Tensor, "n e"],
    spectrum: Float[Tensor, " r"],
    axes: Float[Tensor, "e r"],
    fits: _Fits,
    c: Float[Tensor, "q 1 1"],
    begin: Float[Tensor, "q k e"],
    link: Link,
    goal: float,
) -> tuple[Float[Tensor, "q k e"], Float[Tensor, " q"]]:
    """Weights with bias, and their relative gaps: below the goal, or what the iterations were enough for."""
    (n, features), last = design.shape, ITERATIONS[design.dtype]
    feature = torch.arange(features, device=design.device) < features - 1  # the bias is not penalised
    done, gaps = begin.clone(), torch.full((len(begin),), torch.inf, dtype=begin.dtype, device=design.device)
    live, v, check = torch.arange(len(begin), device=design.device), begin.to(design.dtype), 0
    memory: list[Remembered] = []
    scores = fits.scores(v, design)
    p, slope = _slope(design, scores, v * feature / c, fits, link)
    for iteration in range(last + 1):
        curvature = (fits.weights * p * (1 - p)).mean(-1, keepdim=True).clamp_min(1e-9)
        inverse = torch.where(feature, c, 1 / (n * curvature))  # bounds the inverse Hessian of the weights; the bias' own
        if iteration in (check, last):
            objective = (fits.weights[:, 0] * link.loss(scores, fits.targets)).sum(-1) + _dot(v, v * feature / c)[:, 0, 0] / 2
            gap = _dot(slope, slope * inverse)[:, 0, 0] / 2 / objective
            if len(near := (gap <= goal).nonzero()[:, 0]):
                of = fits.at(near, design.dtype)
                v[near], scores[near] = _settled(v[near], scores[near], of, link)
                p[near], slope[near] = _slope(design, scores[near], (v * feature / c)[near], of, link)
                gap[near] = (_dot(slope, slope * feature * c)[:, 0, 0] / 2 / objective)[near]
            done[live], gaps[live] = v.to(done.dtype), gap.to(done.dtype)
            late = (~(gap <= goal)).nonzero()[:, 0]
            if not len(late) or iteration == last:
                break
            if len(late) < len(live):
                fits, memory = fits.at(late, design.dtype), [(a[late], b[late], r[late]) for a, b, r in memory]
                live, c, v, scores, slope, curvature, inverse = (t[late] for t in (live, c, v, scores, slope, curvature, inverse))
            check += 1 + iteration // 4
        bent = curvature * spectrum * c
        direction = -_recur(slope, memory, partial(_precondition, inverse=inverse, axes=axes, shrink=bent / (1 + bent)))
        change = fits.scores(direction, design)
        stiff = direction * feature / c
        t = _length(scores, change, fits, link, _dot(slope, direction), _dot(v, stiff), _dot(direction, stiff))
        v, scores, before = v + t * direction, scores + t * change, slope
        p, slope = _slope(design, scores, v * feature / c, fits, link)
        memory = [*memory[1 - MEMORY :], _pair(t * direction, slope - before)]
    return done, gaps


def _settled(v: Tensor, scores: Tensor, fits: _Fits, link: Link) -> tuple[Tensor, Tensor]:
    """With the best bias for these weights."""
    for _ in range(SETTLING):
        p = link.probability(scores)
        excess = (fits.weights * (p - fits.targets)).sum(-1, keepdim=True)
        step = link.inverse(p, fits.weights) @ excess
        v, scores = torch.cat([v[..., :-1], v[..., -1:] - step], -1), scores - step
    return v, scores


def _slope(design: Tensor, scores: Tensor, penalty: Tensor, fits: _Fits, link: Link) -> tuple[Tensor, Tensor]:
    """Probabilities, and the gradient of loss and penalty."""
    p = link.probability(scores)
    return p, fits.slope(p - fits.targets, design) + penalty


def _precondition(slope: Tensor, inverse: Tensor, axes: Tensor, shrink: Tensor) -> Tensor:
    """The inverse of κG + 1/C, times the gradient: C where the design has no variance, less along its principal axes."""
    return inverse * (slope - ((slope @ axes) * shrink) @ axes.T)


def _pair(step: Tensor, change: Tensor) -> Remembered:
    """A step, how it changed the gradient, and 1 over their product; 0, which forgets the step, where that is rounding."""
    bend = _dot(step, change)
    sure = bend > torch.finfo(bend.dtype).eps * (_dot(step, step) * _dot(change, change)).sqrt()
    return step, change, torch.where(sure, 1 / bend, 0.0)


def _recur(slope: Tensor, memory: Sequence[Remembered], first: Callable[[Tensor], Tensor]) -> Tensor:
    """The inverse Hessian, as `first` and the remembered steps know it, times the gradient (Nocedal 1980)."""
    shares: list[Tensor] = []
    for step, change, scale in reversed(memory):
        shares.append(scale * _dot(step, slope))
        slope = slope - shares[-1] * change
    slope = first(slope)
    for step, change, scale in memory:
        slope = slope + (shares.pop() - scale * _dot(change, slope)) * step
    return slope


def _length(scores: Tensor, change: Tensor, fits: _Fits, link: Link, slope: Tensor, pull: Tensor, stiff: Tensor) -> Float[Tensor, "q 1 1"]:
    """How far to go along a direction: a Newton step on the loss along it from the full length, or one that surely does not overshoot.

    The loss is convex and its curvature at most bound · Σ change² + stiff, so the surest length still lies before the minimum, and so
    does the full one where the loss there still falls. Newton is taken where it ends on less than half the first slope.
    """
    tiny = torch.finfo(slope.dtype).tiny  # a fit that is done has no direction left: its length is finite, not 0 / 0
    weighted = fits.weights * change

    def rise(t: Tensor | float) -> tuple[Tensor, Tensor]:
        p = link.probability(scores + t * change)
        return p, _dot(p - fits.targets, weighted) + pull + t * stiff

    p, full = rise(1.0)
    sure = -slope / (link.bound * _dot(change, weighted) + stiff).clamp_min(tiny)
    sure = torch.where(full <= 0, sure.clamp_min(1.0), sure)
    newton = 1 - full / ((fits.weights[:, 0] * link.variance(p, change)).sum(-1)[:, None, None] + stiff).clamp_min(tiny)
    return torch.where(rise(newton)[1].abs() <= slope.abs() / 2, newton, sure)


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "q 1 1"]:
    """One number per fit."""
    return (a * b).sum((1, 2), keepdim=True)


def _moments(h: Float[Tensor, "n d"], masks: Bool[Tensor, "m n"]) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
    """Mean and standard deviation of the rows of each mask, float64; 0 for a feature that is constant up to rounding there, which is
    told as scikit-learn's StandardScaler does. A few rows at a time, about the mean of all, so that a large one costs no digits."""
    counts = masks.sum(1, keepdim=True, dtype=torch.float64)
    share, centre = masks / counts, h.mean(0).double()
    first, second = torch.zeros(2, len(masks), h.shape[1], dtype=torch.float64, device=h.device)
    for part, rows in zip(torch.split(share, ROWS, 1), torch.split(h, ROWS), strict=True):
        off = rows.double() - centre
        first += part @ off
        second += part @ off.square_()
    mean, variance = first + centre, second - first.square()
    lost = variance < LOST * second
    for mask in lost.any(1).nonzero()[:, 0].tolist():
        off = h[:, lost[mask]][masks[mask]].double() - mean[mask, lost[mask]]
        mean[mask, lost[mask]] += off.mean(0)
        variance[mask, lost[mask]] = off.var(0, correction=0)
    rounding = torch.finfo(torch.float64).eps * counts
    return mean, torch.where(variance > rounding * variance + (rounding * mean).square(), variance.sqrt(), 0.0)


def _principal(z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
    """Spectrum and principal axes of the Gram matrix, from the smaller of zᵀz and zzᵀ."""
    z = z.float()
    n, d = z.shape
    spectrum, vectors = torch.linalg.eigh(z.T @ z if d <= n else z @ z.T)
    keep = spectrum > spectrum[-1] * torch.finfo(z.dtype).eps
    axes = vectors[:, keep] if d <= n else z.T @ vectors[:, keep] / spectrum[keep].sqrt()
    return spectrum[keep], axes
