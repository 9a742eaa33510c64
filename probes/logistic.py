"""L2-regularised logistic regression: all penalties and labellings of a site in one solve.

    min over w, b    Σᵢ log(1 + exp(−ỹᵢ (w · zᵢ + b))) + ‖w‖² / 2C        z = (h − μ) / σ,  ỹ = ±1,  b not penalised

This is scikit-learn's LogisticRegression(C=C) on StandardScaler'd features. μ and σ come from the rows given here, the training side, and
are folded back (w/σ, b − w · μ/σ), so weight · h + bias reads a hidden state as the model has it.

The features are rotated to the principal axes of z, where the Hessian is at most diag(λ/4 + 1/C) (Böhning 1992). Its inverse is the
preconditioner of nonlinear conjugate gradients (Polak and Ribière 1969), its quadratic form the safe step of the line search. All fits of a
site share one design matrix, so an iteration is three matrix products. An axis without variance (n < d, constant or duplicated columns)
carries no weight in the optimum and is dropped.

Shapes: x [s, n, d]; y [f, n]; weight [s, c, f, d] (`s` sites, `n` rows, `d` d_model, `c` penalties, `f` labellings). In the solver, which
has one site: design [n, k] with k its rank, and q = c·f fits side by side: w [k, q], b [q], margins and targets [n, q].
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

logger = logging.getLogger(__name__)

ROUNDS = (16, 32, 64, 128, 256, 512, 1024)  # iterations after which converged fits leave the batch


def fit(
    x: Float[Tensor, "s n d"], y: Bool[Tensor, "f n"], cs: Sequence[float], *, tolerance: float = 1e-8
) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """Weight and bias per site, penalty C and labelling, in the space of x, float64.

    `tolerance` bounds the largest component of the mean loss's gradient (scikit-learn stops at 1e-4). A fit that does not get there is
    logged as a warning.
    """
    targets = y.double().T.repeat(1, len(cs))
    penalty = torch.tensor(cs, dtype=torch.float64, device=x.device).repeat_interleave(len(y))
    weights, biases = [], []
    for site in x:  # sites do not share a design, and on a CPU a batch over them is slower than this loop (0.6 against 0.5 ms an iteration)
        h = site.double()
        mean, scale = _standard(h)
        design, axes = _principal((h - mean) / scale)
        w, b, gradient = solve(design, targets, penalty, tolerance=tolerance * len(h))
        if bool((late := gradient > tolerance * len(h)).any()):
            logger.warning("%d of %d logistic fits did not converge; largest gradient %.1e", late.sum(), len(late), gradient.max() / len(h))
        direction = (axes @ w).T / scale
        weights.append(direction)
        biases.append(b - direction @ mean)
    shape = (len(x), len(cs), len(y))
    return torch.stack(weights).reshape(*shape, -1), torch.stack(biases).reshape(shape)


def solve(
    design: Float[Tensor, "n k"], targets: Float[Tensor, "n q"], penalty: Float[Tensor, " q"], *, tolerance: float
) -> tuple[Float[Tensor, "k q"], Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Weights, biases and each fit's largest gradient component, on centred features with orthogonal columns."""
    w, b = design.new_zeros(design.shape[1], len(penalty)), torch.logit(targets.mean(0))
    gradient = torch.full_like(penalty, torch.inf)
    live = torch.arange(len(penalty), device=design.device)
    for iterations in ROUNDS:
        w[:, live], b[live], gradient[live] = _descend(design, targets[:, live], penalty[live], w[:, live], b[live], tolerance, iterations)
        live = (gradient > tolerance).nonzero()[:, 0]
        if not len(live):
            break
    return w, b, gradient


def _descend(
    design: Tensor, targets: Tensor, penalty: Tensor, w: Tensor, b: Tensor, tolerance: float, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Preconditioned conjugate gradients from (w, b) until every fit converged or `iterations` are spent."""
    extended = torch.cat([design, design.new_ones(len(design), 1)], 1)  # the bias as a last, unpenalised weight
    ridge = torch.cat([(1 / penalty).expand(len(w), -1), torch.zeros_like(b)[None]])
    precondition = 1 / (extended.square().sum(0)[:, None] / 4 + ridge)
    v, direction, before = torch.cat([w, b[None]]), torch.zeros_like(ridge), torch.zeros_like(ridge)
    margins, energy = extended @ v, torch.ones_like(b)
    for iteration in range(iterations + 1):
        slope = extended.T @ (torch.sigmoid(margins) - targets) + ridge * v
        if iteration == iterations or bool((slope.abs() <= tolerance).all()):
            break
        step = precondition * slope
        along = ((slope - before) * step).sum(0).clamp_min(0) / energy if iteration else torch.zeros_like(b)
        direction = along * direction - step
        direction = torch.where((slope * direction).sum(0) < 0, direction, -step)
        before, energy = slope, (slope * step).sum(0).clamp_min(torch.finfo(slope.dtype).tiny)
        change = extended @ direction
        pull, stiffness = (ridge * v * direction).sum(0), (ridge * direction.square()).sum(0)
        t = _length(margins, change, targets, (slope * direction).sum(0), pull, stiffness)
        v, margins = v + t * direction, margins + t * change
    return v[:-1], v[-1], slope.abs().amax(0)


def _length(margins: Tensor, change: Tensor, targets: Tensor, slope: Tensor, pull: Tensor, stiffness: Tensor) -> Tensor:
    """How far to go along a direction: two Newton steps on the loss along it, from a start that cannot overshoot.

    With curvature at most Σ change²/4 + stiffness the first length still lies before the minimum of the (convex) loss along the line, so it
    is what remains where Newton ends on a slope that rises more than half as steeply as the line began to fall.
    """
    tiny = torch.finfo(slope.dtype).tiny  # a fit that converged exactly has no direction left: its length is 0, not 0 / 0
    sure = -slope / (change.square().sum(0) / 4 + stiffness).clamp_min(tiny)
    t = sure
    for _ in range(2):
        p = torch.sigmoid(margins + t * change)
        rise = ((p - targets) * change).sum(0) + pull + t * stiffness
        sure = torch.where(rise <= 0, torch.maximum(sure, t), sure)
        t = t - rise / ((p * (1 - p) * change.square()).sum(0) + stiffness).clamp_min(tiny)
    p = torch.sigmoid(margins + t * change)
    rise = ((p - targets) * change).sum(0) + pull + t * stiffness
    return torch.where((rise.abs() <= slope.abs() / 2) & (t > 0), t, sure)


def _standard(h: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and standard deviation per feature; 1 for one that is constant up to rounding, as scikit-learn's StandardScaler tests it."""
    mean, variance = h.mean(0), h.var(0, correction=0)
    eps = torch.finfo(h.dtype).eps
    constant = variance <= len(h) * eps * variance + (len(h) * mean * eps).square()
    return mean, torch.where(constant, 1.0, variance.sqrt())


def _principal(z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "d k"]]:
    """Features along the principal axes that carry variance, and those axes; from the smaller of the two Gram matrices."""
    n, d = z.shape
    spectrum, vectors = torch.linalg.eigh(z.T @ z if d <= n else z @ z.T)
    keep = spectrum > spectrum[-1].clamp_min(1) * max(n, d) * torch.finfo(z.dtype).eps
    axes = vectors[:, keep] if d <= n else z.T @ vectors[:, keep] / spectrum[keep].sqrt()
    return z @ axes, axes
