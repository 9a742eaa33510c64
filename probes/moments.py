"""Moments: what every closed form needs to know of the training rows, small and exactly mergeable.

    n, μ, S = Σᵢ (hᵢ − μ)(hᵢ − μ)ᵀ    of each row mask          n₋, n₊, μ₋, μ₊    of each fit's two classes

Two sets of rows merge without going back to them, and without the cancellation of sums of squares: the scatters add up, and so does what
the two means are apart (Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances"):

    S = Sₐ + S_b + nₐ n_b / (nₐ + n_b) · (μₐ − μ_b)(μₐ − μ_b)ᵀ

So moments of batches, of folds, or of many workers are moments of the whole, and a mask that is made of parts is never multiplied out: with
k folds each row enters one product, not k − 1. The scatter within the two classes is S less a term of rank one, so one S serves all
labellings of the same rows (closed.py).

Shapes: x [s, n, d]; y [f, n]; rows [m, n] (`s` sites, `n` rows, `d` d_model, `f` fits, each with its labels, `m` row masks, `a` parts).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int64
from scipy.linalg.blas import dsyrk
from torch import Tensor

from ..hooks.artifact import load_artifact, save_artifact

TENSORS = ("count", "mean", "scatter", "mask", "class_count", "class_mean")


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of labelled rows, float64.

    count        [m] rows of each mask; mean [s, m, d]; scatter [s, m, d, d] about that mean
    mask         [f] which mask holds the rows of a fit
    class_count  [f, 2] rows of a fit that are negative and positive; class_mean [s, f, 2, d]
    about        what has to be the same for two to be merged, such as sites, span, label and the model's fingerprint; JSON-able
    groups       groups the rows came from: no later side may share one
    transcripts  a short hash of each transcript the rows came from, by which merging what was gathered twice is refused
    """

    count: Float[Tensor, " m"]
    mean: Float[Tensor, "s m d"]
    scatter: Float[Tensor, "s m d d"]
    mask: Int64[Tensor, " f"]
    class_count: Float[Tensor, "f 2"]
    class_mean: Float[Tensor, "s f 2 d"]
    about: Mapping[str, Any] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()
    transcripts: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "s n d"],
        y: Bool[Tensor, "f n"],
        rows: Bool[Tensor, "m n"] | None = None,
        *,
        mask: Int64[Tensor, " f"] | None = None,
        about: Mapping[str, Any] | None = None,
        groups: Iterable[str] = (),
    ) -> Self:
        """Moments of some rows.

        rows   masks; by default one, of all rows
        mask   which of them is each fit's; by default the one there is, or one each, in order
        """
        rows = torch.ones_like(y[:1]) if rows is None else rows
        mask = torch.arange(len(y), device=y.device) % len(rows) if mask is None else mask
        class_count, share = by_class(y, rows[mask])
        pieces = parts(rows)
        mean = x.new_empty(len(x), len(rows), x.shape[-1], dtype=torch.float64)
        scatter = x.new_empty(*mean.shape, x.shape[-1], dtype=torch.float64)
        class_mean = x.new_empty(len(x), *class_count.shape, x.shape[-1], dtype=torch.float64)
        for i, site in enumerate(x):
            class_mean[i] = share @ site.double()
            for j, of_mask in enumerate(scatters(site, rows, pieces)):
                mean[i, j], scatter[i, j] = of_mask
        return cls(rows.sum(1, dtype=torch.float64), mean, scatter, mask, class_count, class_mean, dict(about or {}), frozenset(groups))

    @classmethod
    def total(cls, several: Iterable[Self]) -> Self:
        """All of them merged."""
        return reduce(add, several)

    def __add__(self, other: Self) -> Self:
        """Moments of the rows of both. ValueError where they are moments of different things, or some transcripts are in both."""
        self._check(other)
        count = torch.stack([self.count, other.count], -1)
        mean, between = together(count, torch.stack([self.mean, other.mean], 2))
        class_count = torch.stack([self.class_count, other.class_count], -1)
        class_mean = _centre(class_count, torch.stack([self.class_mean, other.class_mean], 3))
        scatter = between.add_(self.scatter).add_(other.scatter)
        tensors = (count.sum(-1), mean, scatter, self.mask, class_count.sum(-1), class_mean)
        return type(self)(*tensors, self.about, self.groups | other.groups, self.transcripts | other.transcripts)

    def save(self, path: str | Path) -> None:
        """One safetensors file with a JSON header; refuses to overwrite."""
        header = {
            **{"kind": "moments", "about": dict(self.about), "n": self.class_count.tolist()},
            **{name: sorted(getattr(self, name)) for name in ("groups", "transcripts")},
        }
        save_artifact(path, {name: getattr(self, name) for name in TENSORS}, header)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what save() wrote."""
        tensors, header = load_artifact(path)
        if header.get("kind") != "moments":
            raise ValueError(f"{path} holds a {header.get('kind')!r}, not moments. Pass a file written by Moments.save().")
        return cls(**tensors, about=header["about"], groups=frozenset(header["groups"]), transcripts=frozenset(header["transcripts"]))

    def _check(self, other: Self) -> None:
        if twice := self.transcripts & other.transcripts:
            raise ValueError(
                f"{len(twice)} transcripts are in both, of {len(self.transcripts)} and {len(other.transcripts)}, and would count twice. "
                "Give each worker its own, such as transcripts[worker::workers], and merge the moments of each once"
            )
        for name in sorted({*self.about, *other.about}):
            if (one := self.about.get(name)) != (two := other.about.get(name)):
                raise ValueError(
                    f"these moments are not of one thing: {name} is {one!r} in one and {two!r} in the other. Merge like with like"
                )
        one, two = list(self.scatter.shape), list(other.scatter.shape)
        if one != two or not torch.equal(self.mask, other.mask):
            fits = f"{self.mask.tolist()} and {other.mask.tolist()}"
            raise ValueError(f"these moments differ in shape: [sites, masks, d, d] {one} and {two}, the mask of each fit {fits}")


def parts(rows: Bool[Tensor, "m n"]) -> tuple[Bool[Tensor, "m a"], Int64[Tensor, " n"]]:
    """The pieces that masks are made of: which pieces a mask holds, and the piece of every row (−1: in no mask)."""
    member, part = torch.unique(rows, dim=1, return_inverse=True)
    used = member.any(0)
    place = torch.where(used, used.cumsum(0) - 1, -1)
    return member[:, used], place[part]


def together(count: Float[Tensor, "*#m a"], mean: Float[Tensor, "*m a d"]) -> tuple[Float[Tensor, "*m d"], Float[Tensor, "*m d d"]]:
    """Parts taken together: their common mean, and the scatter of their means about it."""
    centre = _centre(count, mean)
    apart = mean - centre[..., None, :]
    return centre, (apart * count[..., None]).mT @ apart


def by_class(y: Bool[Tensor, "f n"], rows: Bool[Tensor, "f n"]) -> tuple[Float[Tensor, "f 2"], Float[Tensor, "f 2 n"]]:
    """How many of a fit's rows are negative and positive, and the share of each row in the mean of its class."""
    classes = torch.stack([rows & ~y, rows & y], 1)
    count = classes.sum(-1, dtype=torch.float64)
    return count, classes / _divisor(count)[..., None]


def scatters(
    h: Float[Tensor, "n d"], rows: Bool[Tensor, "m n"], pieces: tuple[Bool[Tensor, "m a"], Int64[Tensor, " n"]]
) -> Iterator[tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]]:
    """Mean and scatter of one mask after the other. Where there are no more `pieces` than masks each row is multiplied once."""
    member, part = pieces
    if not 0 < member.shape[1] <= len(member):
        yield from (_scatter(h[here]) for here in rows)
        return
    means = h.new_empty(member.shape[1], h.shape[1], dtype=torch.float64)
    inside = h.new_empty(*means.shape, h.shape[1], dtype=torch.float64)
    for i in range(len(means)):
        means[i], inside[i] = _scatter(h[part == i])
    sizes = (part == torch.arange(len(means), device=h.device)[:, None]).sum(1)
    for used, count in zip(member.double(), member * sizes.double(), strict=True):
        mean, between = together(count, means)
        yield mean, between.add_(torch.tensordot(used, inside, 1))


def gram(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """xᵀx, float64. On a CPU every pair of columns is multiplied once, where a plain product would do so twice."""
    if x.device.type != "cpu":
        return x.T @ x
    lower = torch.from_numpy(dsyrk(1.0, x.numpy().T).T)
    return lower.add_(lower.tril(-1).T)


def _scatter(piece: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    piece = piece.double()
    mean = piece.sum(0) / max(len(piece), 1)
    return mean, gram(piece - mean)


def _centre(count: Float[Tensor, "*#m a"], mean: Float[Tensor, "*m a d"]) -> Float[Tensor, "*m d"]:
    share = count / _divisor(count.sum(-1))[..., None]
    return (share[..., None, :] @ mean).squeeze(-2)


def _divisor(count: Tensor) -> Tensor:
    """The count, or 1 where there is nothing to divide."""
    return torch.where(count > 0, count, 1.0)
