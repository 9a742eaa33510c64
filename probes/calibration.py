"""Calibration: from a score to a probability.

    P(positive | score) = σ(slope · score + offset)

Platt 1999, "Probabilistic outputs for support vector machines". Slope and offset minimise the cross entropy against smoothed targets,
(p + 1) / (p + 2) for the p positives and 1 / (q + 2) for the q negatives, which keeps both finite where the classes do not overlap. Fit it
on rows the probe has not seen (dev): on its own training rows a probe is too sure. Newton steps, halved until the loss does not rise (Lin,
Lin and Weng 2007), on scores brought to mean 0 and deviation 1, so that their unit does not matter.

A probe that reads backwards on dev has nothing to be calibrated: its slope is held at 0, so that it does not pass for a good one.

Shapes: scores [s, n], y [n] → slope, offset [s] (`s` scores, each calibrated on its own, `n` rows).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

STEPS, HALVINGS = 100, 40
TOLERANCE = 1e-10  # of the mean gradient
RIDGE = 1e-12  # a constant score has no curvature along its slope


def platt(scores: Float[Tensor, "s n"], y: Bool[Tensor, " n"]) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Slope and offset per score, float64. A score that is the same on every row gets slope 0."""
    positives, negatives = y.sum().double(), (~y).sum().double()
    target = torch.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    wide = scores.double()
    mean, scale = wide.mean(1), wide.std(1, correction=0)
    constant = scale <= 1e-12 * mean.abs()
    scale = torch.where(constant, 1.0, scale)
    z = torch.where(constant[:, None], 0.0, (wide - mean[:, None]) / scale[:, None])
    slope, offset = _newton(z, target)
    slope = slope / scale
    return slope, offset - slope * mean


def calibrated(scores: Float[Tensor, "s n"], y: Bool[Tensor, " n"]) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Slope, at least 0, and offset, score by score: steps taken together stop together, and the last bits would depend on the company.

    The cross entropy is convex: where its minimum has a negative slope, the least among slopes of at least 0 is that of a constant score.
    """
    slopes, offsets = (torch.cat(part) for part in zip(*(platt(row[None], y) for row in scores), strict=True))
    _, flat = platt(torch.zeros_like(scores[:1]), y)
    return slopes.clamp_min(0), torch.where(slopes < 0, flat, offsets)


def probability(scores: Float[Tensor, "s n"], slope: Float[Tensor, " s"], offset: Float[Tensor, " s"]) -> Float[Tensor, "s n"]:
    """σ(slope · score + offset), float64."""
    return torch.sigmoid(slope[:, None] * scores.double() + offset[:, None])


def _newton(z: Float[Tensor, "s n"], target: Float[Tensor, " n"]) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Slope and offset on standardised scores."""
    slope, offset = z.new_zeros(len(z)), torch.logit(target.mean()).expand(len(z))
    for _ in range(STEPS):
        p = torch.sigmoid(margin := slope[:, None] * z + offset[:, None])
        pull, lift = ((p - target) * z).sum(1), (p - target).sum(1)
        if bool((torch.maximum(pull.abs(), lift.abs()) <= TOLERANCE * len(target)).all()):
            break
        h = p * (1 - p)
        zz, zo, oo = (h * z * z).sum(1) + RIDGE, (h * z).sum(1), h.sum(1)
        determinant = zz * oo - zo * zo
        turn, shift = (oo * pull - zo * lift) / determinant, (zz * lift - zo * pull) / determinant
        length = _length(margin, turn[:, None] * z + shift[:, None], target)
        slope, offset = slope - length * turn, offset - length * shift
    return slope, offset


def _length(margin: Float[Tensor, "s n"], step: Float[Tensor, "s n"], target: Float[Tensor, " n"]) -> Float[Tensor, " s"]:
    """The first of 1, 1/2, 1/4, … at which the cross entropy does not rise."""
    length = torch.ones_like(margin[:, 0])
    before = _loss(margin, target)
    for _ in range(HALVINGS):
        rises = _loss(margin - length[:, None] * step, target) > before * (1 + 1e-12)
        if not bool(rises.any()):
            break
        length = torch.where(rises, length / 2, length)
    return length


def _loss(margin: Float[Tensor, "s n"], target: Float[Tensor, " n"]) -> Float[Tensor, " s"]:
    return (softplus(margin) - target * margin).sum(1)
