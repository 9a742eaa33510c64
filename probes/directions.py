"""Mean-difference directions of several models and sites at one span, with the sampling noise they carry.

    w = μ₊ − μ₋                                                         the direction
    ψ_g = Σ_{i in g, +} (h_i − μ₊) / n₊ − Σ_{i in g, −} (h_i − μ₋) / n₋     what group g does to it, each sum times √(G / (G − 1))
    c_ab = Σ_g ψ_ga · ψ_gb                                              how much of w_a · w_b is noise that both share

G is the number of groups that hold the label. E[w_a · w_b] exceeds the product of the true directions by the trace of their covariance over
draws of groups; c_ab estimates it, so w_a · w_b − c_ab is right on average (cf. Walther et al. 2016, "Reliability of dissimilarity measures
for multi-voxel pattern analysis", who get there by cross-validation). Two models that read the same prompts share much of their noise.

Only sums over groups are kept, so no draw of groups touches a hidden state. All in float64.
Shapes: positive, negative [g, k, d]; weights [b, g]; directions [b, k, d] (`g` groups, `k` pairs of a model and a site, `b` draws).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..hooks.store import Store
from .basis import bases
from .controls import shuffle_labels
from .dataset import matrix
from .mean_difference import mean_difference


@dataclass(frozen=True, eq=False)
class Directions:
    """k directions of one span, told by sums over the groups of their rows.

    models, sites         whose and where each is
    positive, negative    [g, k, d] sums over the rows of each group
    counts                [2, g, k] how many rows these are, positives first
    shuffled              [f, k, d] the same directions from shuffled labels
    """

    models: tuple[str, ...]
    sites: tuple[str, ...]
    positive: Float[Tensor, "g k d"]
    negative: Float[Tensor, "g k d"]
    counts: Float[Tensor, "2 g k"]
    shuffled: Float[Tensor, "f k d"]

    def all_rows(self) -> Float[Tensor, "k d"]:
        return self.drawn(self.positive.new_ones(1, len(self.positive)))[0]

    def drawn(self, weights: Float[Tensor, "b g"]) -> Float[Tensor, "b k d"]:
        """The directions when each group counts as often as its weight says; nan where a label then has no row."""
        above, below = (
            torch.einsum("bg,gkd->bkd", weights, sums) / (weights @ count)[..., None]
            for sums, count in zip((self.positive, self.negative), self.counts, strict=True)
        )
        return above - below

    def noise(self) -> Float[Tensor, "k k"]:
        """c, see above."""
        psi = torch.zeros_like(self.positive)
        for sums, count, sign in zip((self.positive, self.negative), self.counts, (1, -1), strict=True):
            n, groups = count.sum(0), (count > 0).sum(0)
            off = sums - count[..., None] * (sums.sum(0) / n[:, None])
            psi += sign * off * ((groups / (groups - 1)).sqrt() / n)[:, None]
        return torch.einsum("gkd,gld->kl", psi, psi)

    def rows(self) -> list[int]:
        return [int(n) for n in self.counts.sum((0, 1))]

    def groups(self) -> list[int]:
        return [int(n) for n in (self.counts.sum(0) > 0).sum(0)]


def read_directions(
    stores: Store | Mapping[str, Store],
    *,
    label: str,
    group: str,
    span: str | Sequence[str] | None,
    site: str | Sequence[str] | None,
    where: Mapping[str, Any],
    labels: Mapping[str, Mapping[str, Any]] | None,
    align: str | None,
    shuffles: int,
    seed: int,
) -> Iterator[tuple[str, Directions]]:
    """Every span and its directions, all in the basis of the first model. The arguments are those of geometry()."""
    named = by_name(stores)
    (first, base), *_ = named.items()
    sites = listed(site) or base.sites
    for name in listed(span) or common_spans(named):
        found = {}
        for model, store in named.items():
            data = matrix(store, span=name, label=label, where=where, group=group, sites=sites, labels=labels)
            order = data.index.sort_values(["prompt_id", "start"], kind="stable").index.to_numpy()  # one shuffle for the same prompts
            place = {**where, "span": name}
            turned = bases((base, store), (first, model), sites=sites, where=place, group=group, how=align) if store is not base else {}
            rotations = [None if (alignment := turned.get(site)) is None else alignment.rotation for site in sites]
            found[model] = (data.x[torch.tensor(order)], data.y[torch.tensor(order)], data.groups[order], rotations)
        names = np.unique(np.concatenate([groups for _, _, groups, _ in found.values()]))
        sums = [_sums(*each, names, shuffles, seed) for each in found.values()]
        positive, negative, counts, shuffled = (
            torch.cat(parts, dim=-2 if i != 2 else -1) for i, parts in enumerate(zip(*sums, strict=True))
        )
        models = tuple(model for model in named for _ in sites)
        yield name, Directions(models, tuple(sites) * len(named), positive, negative, counts, shuffled)


def _sums(
    x: Tensor, y: Tensor, groups: np.ndarray, rotations: Sequence[Tensor | None], names: np.ndarray, shuffles: int, seed: int
) -> tuple[Float[Tensor, "g s d"], Float[Tensor, "g s d"], Float[Tensor, "2 g s"], Float[Tensor, "f s d"]]:
    member = torch.from_numpy(np.searchsorted(names, groups))
    x = x.double()
    empty = x.new_zeros(len(names), *x.shape[1:])
    positive, negative = (empty.index_add(0, member[side], x[side]) for side in (y, ~y))
    counts = torch.stack([torch.bincount(member[side], minlength=len(names)) for side in (y, ~y)]).double()
    shuffled = mean_difference(x.transpose(0, 1), shuffle_labels(y, groups, shuffles, seed)).transpose(0, 1)
    for i, rotation in enumerate(rotations):
        if rotation is not None:
            for told in (positive, negative, shuffled):
                told[:, i] = told[:, i] @ rotation
    return positive, negative, counts[..., None].expand(-1, -1, x.shape[1]), shuffled


def by_name(stores: Store | Mapping[str, Store]) -> Mapping[str, Store]:
    """One store under its model's name; several as they are named."""
    return stores if isinstance(stores, Mapping) else {str(stores.index["model"].iloc[0]): stores}


def common_spans(stores: Mapping[str, Store]) -> list[str]:
    first, *others = (store.index["span"].unique() for store in stores.values())
    return [span for span in first if all(span in spans for spans in others)]


def listed(one_or_several: str | Sequence[str] | None) -> list[str]:
    return [one_or_several] if isinstance(one_or_several, str) else list(one_or_several or ())
