"""Closed forms: what is factored serves all labellings of the same rows.

In standard units z = (h − μ)/σ the rows of a mask have the covariance C. With δ = μ₊ − μ₋ and p the product of the two classes' shares,
the covariance within the classes is W = C − p δδᵀ, whatever the labels are: ridge needs (C + γ)⁻¹δ, discriminants (κW + γ)⁻¹δ. The latter
follows from C, since W is C less a term of rank one (Sherman and Morrison 1950):

    (κW + γ)⁻¹ δ = a / (1 − κp δ·a)        a = (κC + γ)⁻¹ δ

A Cholesky factor of κC + γ serves all labellings that share κ and γ, and where there are few pairs of these each has its own. Where there
are many, or κC + γ is singular, the principal axes C = U Λ Uᵀ serve them all: on them the system is the diagonal κΛ + γ.

Where 1 − κp δ·a is zero, W has no variance along a: the classes lie apart with certainty, as always with fewer rows than d + 2 and γ = 0.
The pseudo-inverse leaves that direction out, (D − κp δδᵀ)⁺δ = P D⁺ P δ with D = κC + γ and P = 1 − aaᵀ/|a|² (Meyer 1973, "Generalized
inversion of modified matrices", the case in which the rank falls).

C comes from the scatter [d, d] that folds share and workers add up (moments.py) or, with fewer rows than d, from the rows themselves.

Shapes: x [s, n, d]; y, rows [f, n]; weight [s, c, f, d] (`s` sites, `n` rows, `d` d_model, `c` settings, `f` fits, `m` masks, `k` axes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .moments import Moments, by_class, gram, parts, scatters

EPS = torch.finfo(torch.float64).eps
FEW = 12  # Cholesky factors that take as long as the principal axes, 256 to 1,024 wide on a CPU
STEPS = 4  # of inverse iteration, each of which turns a vector towards the axis of least variance


@dataclass(frozen=True, eq=False)
class Spread:
    """How the rows of one site and mask spread, and where the classes of each labelling lie.

    covariance   [d, d] C; with fewer rows than d a root of it, [n, d], C = rootᵀ root
    scale        [d] σ, the standard units
    class_count  [f, 2] rows of the negatives and of the positives, or what they weigh; class_mean [f, 2, d], in the units of h
    rows         how many rows there are
    """

    covariance: Float[Tensor, "d d"] | Float[Tensor, "n d"]
    scale: Float[Tensor, " d"]
    class_count: Float[Tensor, "f 2"]
    class_mean: Float[Tensor, "f 2 d"]
    rows: float

    @property
    def share(self) -> Float[Tensor, "f 2"]:
        """What share of the rows is negative and positive; p is the product of the two."""
        return self.class_count / self.class_count.sum(-1, keepdim=True)

    @property
    def gap(self) -> Float[Tensor, "f d"]:
        """δ."""
        return (self.class_mean[:, 1] - self.class_mean[:, 0]) / self.scale

    @cached_property
    def trace(self) -> Float[Tensor, ""]:
        """The trace of C."""
        return self.covariance.square().sum() if self._is_root else self.covariance.trace()

    @cached_property
    def size(self) -> Float[Tensor, ""]:
        """The Frobenius norm of C, no less than the largest variance."""
        return self.axes[0].norm() if self._is_root else self.covariance.norm()

    @cached_property
    def axes(self) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
        """Λ and U."""
        if not self._is_root:
            variance, vectors = torch.linalg.eigh(self.covariance)
            return variance.clamp_min(0), vectors
        variance, vectors = torch.linalg.eigh(gram(self.covariance.T))
        there = variance > self._rounding(variance[-1])
        return torch.where(there, variance, 0.0), torch.where(there, self.covariance.T @ vectors / variance.sqrt(), 0.0)

    @cached_property
    def factor(self) -> Float[Tensor, "d d"] | None:
        """The Cholesky factor of C, constant features aside; None where C is singular up to rounding."""
        if self._is_root:
            return None
        factor, failed = torch.linalg.cholesky_ex(self._system(1.0, 0.0))
        if failed:
            return None
        vector = torch.linspace(1, 2, len(factor), dtype=factor.dtype, device=factor.device)[:, None]
        for _ in range(STEPS):
            vector = torch.cholesky_solve(vector / vector.norm(), factor)
        return factor if 1 / vector.norm() > self._rounding(self.size) else None

    def total(self, keep: Float[Tensor, " c"], shift: Float[Tensor, "c #f"]) -> Float[Tensor, "c f d"]:
        """(κC + γ)⁺δ."""
        return self._over(keep, shift, self.gap)

    def within(self, keep: Float[Tensor, " c"], shift: Float[Tensor, "c #f"]) -> Float[Tensor, "c f d"]:
        """(κW + γ)⁺δ."""
        a = self.total(keep, shift)
        left, lost = self._left(a, keep, shift)
        if not lost.any():
            return a / left[..., None]
        unit = a / a.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(a.dtype).tiny)
        rest = _without(unit, self._over(keep, shift, _without(unit, self.gap)))
        return torch.where(lost[..., None], rest, a / left[..., None])

    def whitened(self) -> Float[Tensor, "1 f d"]:
        """W⁺δ, in the units of h. An inverse is the same in all units and found in standard ones; only a pseudo-inverse depends on them."""
        keep, shift = self.scale.new_ones(1), self.scale.new_zeros(1, 1)
        a, lost = self.gap[None], torch.ones_like(self.class_count[None, :, 0], dtype=torch.bool)
        if self.factor is not None:
            a = torch.cholesky_solve(self.gap.T, self.factor).T[None]
            left, lost = self._left(a, keep, shift)
            a = a / left[..., None]
        if not lost.any():
            return a / self.scale
        units = torch.where(self.scale.isinf(), 0.0, self.scale)
        covariance = self.covariance * units * (1 if self._is_root else units[:, None])
        plain = replace(self, covariance=covariance, scale=torch.where(self.scale.isinf(), torch.inf, 1.0)).within(keep, shift)
        return torch.where(lost[..., None], plain, a / self.scale)

    def readout(
        self, direction: Float[Tensor, "c f d"], at: Float[Tensor, "f d"], level: Float[Tensor, " f"]
    ) -> tuple[Float[Tensor, "c f d"], Float[Tensor, "c f"]]:
        """Weight and bias of a direction in standard units, for hidden states as the model has them: `level` at the point `at`."""
        weight = direction / self.scale
        return weight, level - (weight * at).sum(-1)

    @property
    def _is_root(self) -> bool:
        return len(self.covariance) < len(self.scale)

    def _over(self, keep: Float[Tensor, " c"], shift: Float[Tensor, "c #f"], vector: Float[Tensor, "*c f d"]) -> Float[Tensor, "c f d"]:
        """(κC + γ)⁺ of a vector. On the axes an entry counts as zero where rounding of the largest is as large."""
        vector = vector.expand(len(keep), -1, -1)
        if not self._is_root and shift.numel() <= FEW and shift.min() > self._rounding(self.size):
            of_system = vector.reshape(shift.numel(), -1, vector.shape[-1])
            systems = zip(keep.repeat_interleave(shift.shape[1]), shift.flatten(), of_system, strict=True)
            factored = ((v, torch.linalg.cholesky(self._system(k, g))) for k, g, v in systems)
            return torch.cat([torch.cholesky_solve(v.T, factor).T for v, factor in factored]).view_as(vector)
        variance, axes = self.axes
        diagonal = keep[:, None, None] * variance + shift[..., None]
        there = diagonal > self._rounding(diagonal.amax(-1, keepdim=True))
        return torch.where(there, vector @ axes / diagonal, 0.0) @ axes.T

    def _system(self, keep: Float[Tensor, ""] | float, shift: Float[Tensor, ""] | float) -> Float[Tensor, "d d"]:
        """κC + γ; a constant feature, along which no vector has anything, gets a variance."""
        system = self.covariance * keep
        system.diagonal().add_(self.scale.isinf() + shift)
        return system

    def _left(
        self, a: Float[Tensor, "c f d"], keep: Float[Tensor, " c"], shift: Float[Tensor, "c #f"]
    ) -> tuple[Float[Tensor, "c f"], Bool[Tensor, "c f"]]:
        """1 − κp δ·a, and where the variance that is left along a is none but rounding."""
        reach = (a * self.gap).sum(-1)
        left = 1 - keep[:, None] * self.share.prod(-1) * reach
        return left, left * reach <= self._rounding(keep[:, None] * self.size + shift) * a.square().sum(-1)

    def _rounding(self, largest: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return largest * max(self.rows, len(self.scale)) * EPS


Cell = tuple[Spread, Bool[Tensor, " f"]]  # one mask of a site, and which fits are its
Readout = Callable[[Spread, Sequence[float]], tuple[Float[Tensor, "c f d"], Float[Tensor, "c f"]]]


def fit(
    readout: Readout,
    x: Float[Tensor, "s n d"],
    y: Bool[Tensor, "f n"],
    settings: Sequence[float],
    *,
    rows: Bool[Tensor, "f n"] | None = None,
    balanced: bool = False,
) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """Weight and bias of every fit, float64. Row masks are taken one at a time; where classes are weighed, fits are."""
    rows = torch.ones_like(y) if rows is None else rows
    check_classes(class_counts(y, rows))
    masks, mask = (rows, torch.arange(len(y), device=y.device)) if balanced else torch.unique(rows, dim=0, return_inverse=True)
    pieces, (class_count, share) = parts(masks), by_class(y, rows)
    shared = not balanced and int(masks.sum(1).min()) >= x.shape[-1] and pieces[0].shape[1] <= len(masks)

    def cells(site: Float[Tensor, "n d"]) -> Iterator[Cell]:
        if not shared:
            weights = _even(y, rows) if balanced else masks.double()
            yield from ((_of_rows(site, y[mask == i], masks[i], weights[i]), mask == i) for i in range(len(masks)))
            return
        class_mean = share @ site.double()
        for i, (mean, scatter) in enumerate(scatters(site, masks, pieces)):
            here, count = mask == i, int(masks[i].sum())
            yield _of_covariance(count, mean, scatter.div_(count), class_count[here], class_mean[here]), here

    return _stacked([_joined(readout, cells(site), settings) for site in x])


def solve(readout: Readout, moments: Moments, settings: Sequence[float]) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """The same from moments."""
    check_classes(moments.class_count)
    return _stacked([_joined(readout, _of_moments(moments, site), settings) for site in range(len(moments.mean))])


def class_counts(y: Bool[Tensor, "f n"], rows: Bool[Tensor, "f n"] | None = None) -> Int64[Tensor, "f 2"]:
    """How many negatives and positives there are among each fit's rows."""
    rows = torch.ones_like(y) if rows is None else rows
    return torch.stack([rows & ~y, rows & y], 1).sum(-1)


def check_classes(count: Float[Tensor, "f 2"] | Int64[Tensor, "f 2"]) -> None:
    """ValueError for a fit whose rows are all positive, or all negative, or none."""
    if len(bad := (count == 0).any(-1).nonzero()):
        fit = int(bad[0])
        negative, positive = count[fit].tolist()
        raise ValueError(
            f"fit {fit} of {len(count)} has {positive:g} positive and {negative:g} negative rows, and both classes are needed "
            f"({len(bad)} fits lack one). Widen its rows, or leave it out"
        )


def standard(count: float | Tensor, mean: Float[Tensor, "*m d"], variance: Float[Tensor, "*m d"]) -> Float[Tensor, "*m d"]:
    """Standard deviation per feature; infinite, so that it gets no weight, for one that is constant up to rounding.

    The test is that of scikit-learn's StandardScaler.
    """
    constant = variance <= count * EPS * variance + (count * mean * EPS).square()
    return torch.where(constant, torch.inf, variance.sqrt())


def _joined(readout: Readout, cells: Iterable[Cell], settings: Sequence[float]) -> tuple[Float[Tensor, "c f d"], Float[Tensor, "c f"]]:
    """The readouts of all masks of a site, each put where its fits are."""
    weights, biases, places = [], [], []
    for spread, here in cells:
        weight, bias = readout(spread, settings)
        weights.append(weight)
        biases.append(bias)
        places.append(here.nonzero()[:, 0])
    order = torch.cat(places).argsort()
    return torch.cat(weights, 1)[:, order], torch.cat(biases, 1)[:, order]


def _stacked(sites: Sequence[tuple[Tensor, Tensor]]) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    return torch.stack([weight for weight, _ in sites]), torch.stack([bias for _, bias in sites])


def _of_moments(moments: Moments, site: int) -> Iterator[Cell]:
    for i, count in enumerate(moments.count.tolist()):
        here = moments.mask == i
        classes = moments.class_count[here], moments.class_mean[site, here]
        yield _of_covariance(count, moments.mean[site, i], moments.scatter[site, i] / count, *classes), here


def _of_covariance(
    count: float,
    mean: Float[Tensor, " d"],
    covariance: Float[Tensor, "d d"],
    class_count: Float[Tensor, "f 2"],
    class_mean: Float[Tensor, "f 2 d"],
) -> Spread:
    """From what is in the units of h; `covariance` is scaled in place."""
    scale = standard(count, mean, covariance.diagonal())
    return Spread(covariance.div_(scale).div_(scale[:, None]), scale, class_count, class_mean, count)


def _of_rows(site: Float[Tensor, "n d"], y: Bool[Tensor, "f n"], rows: Bool[Tensor, " n"], weights: Float[Tensor, " n"]) -> Spread:
    """The rows of a mask that shares its scatter with no other."""
    h, y, weights = site[rows].double(), y[:, rows], weights[rows]
    n, d = h.shape
    scale = standard(n, h.mean(0), h.var(0, correction=0))
    classes = torch.stack([~y, y], 1) * weights
    class_count = classes.sum(-1)
    share = weights / weights.sum()
    root = (h - share @ h) / scale * share.sqrt()[:, None]
    return Spread(root if n < d else gram(root), scale, class_count, classes / class_count[..., None] @ h, n)


def _even(y: Bool[Tensor, "f n"], rows: Bool[Tensor, "f n"]) -> Float[Tensor, "f n"]:
    """1 / n_k for the rows of class k: both classes weigh the same. 0 outside a fit's rows."""
    return rows * (1 / class_counts(y, rows).double()).gather(1, y.long())


def _without(unit: Float[Tensor, "c f k"], vector: Float[Tensor, "*c f k"]) -> Float[Tensor, "c f k"]:
    return vector - (vector * unit).sum(-1, keepdim=True) * unit
