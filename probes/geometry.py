"""How far apart directions are: over layers, over checkpoints.

    raw        w_a · w_b / ‖w_a‖ ‖w_b‖                                      the mean differences as they were fitted
    cosine     (w_a · w_b − c_ab) / √((‖w_a‖² − c_aa) (‖w_b‖² − c_bb))      the same without the noise of their samples, c (directions.py)

With few prompts in many dimensions most of w can be noise: the raw cosine is then too small for two models that read different prompts,
and for two that read the same prompts too large, since both carry the noise of those. Taking the noise out is the correction for
attenuation (Spearman 1904, "The proof and measurement of association between two things"). A direction no longer than its noise has no
cosine: nan.

Intervals are percentiles over draws of whole groups, the same draws for all directions. A drawn w carries the noise twice, that of the
sample and that of the draw, so 2c is taken off. Two random directions have a |cosine| of √(2 / πd) on average (`chance`). `shuffled` is the
mean raw cosine of directions from shuffled labels: how alike two models are in what has nothing to do with the label.

Principal angles (Björck and Golub 1973, "Numerical methods for computing angles between linear subspaces") compare what the directions of
all sites span in two models. There is no such correction for them, so each is told from halves too: one model from one half of the groups,
the other from the other half, over random halvings. A model beside itself shows what sampling alone does, `chance` random subspaces.

Models must share a basis (basis.py). Shapes: products, noise [k, k] for k directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, combinations_with_replacement
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.linalg import subspace_angles
from torch import Tensor

from ..hooks.sites import parse_site
from ..hooks.store import Store
from .directions import Directions, read_directions

COLUMNS = (
    *("a", "b", "site_a", "site_b", "layer", "layer_b", "span", "cosine", "angle", "low", "high", "n", "chance"),
    *("raw", "shuffled", "groups", "label", "aligned"),
)
ANGLES = ("a", "b", "span", "number", "angle", "halves", "low", "high", "chance", "n", "groups", "label", "aligned")
CHUNK = 2**22  # numbers in the drawn directions that are looked at together
NAN = float("nan")
TRAIN: Mapping[str, Any] = MappingProxyType({"split": "train"})


def cosines(directions: Mapping[str, Float[Tensor, " d"]]) -> pd.DataFrame:
    """Raw cosines of any directions of one basis by name, e.g. {"probe": probe.weight, "steering": vector.values["resid_post.4"]}.

    A row per pair: a, b, cosine, angle in degrees, chance. ValueError: widths differ, or a direction has no length.
    """
    if len({len(direction) for direction in directions.values()}) > 1:
        widths = ", ".join(f"{name} {len(direction)}" for name, direction in directions.items())
        raise ValueError(f"directions of different widths cannot be compared: {widths}. Take them from models of one family")
    for name, direction in directions.items():
        if not bool(direction.isfinite().all()) or not bool(direction.any()):
            raise ValueError(f"{name!r} is zero or holds nan or inf, and has no direction")
    pairs = [
        (a, b, torch.cosine_similarity(x.double(), y.double(), dim=0).item()) for (a, x), (b, y) in combinations(directions.items(), 2)
    ]
    level = chance(len(next(iter(directions.values()))))
    return pd.DataFrame([(a, b, cosine, degrees(cosine), level) for a, b, cosine in pairs], columns=["a", "b", "cosine", "angle", "chance"])


def chance(d: int) -> float:
    """The mean |cosine| of two random directions in d dimensions, up to terms of order 1/d of it."""
    return float(np.sqrt(2 / (np.pi * d)))


def degrees(cosine: float) -> float:
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def geometry(
    stores: Store | Mapping[str, Store],
    *,
    label: str = "harmful",
    group: str = "group",
    span: str | Sequence[str] | None = None,
    site: str | Sequence[str] | None = None,
    where: Mapping[str, Any] = TRAIN,
    labels: Mapping[str, Mapping[str, Any]] | None = None,
    align: str | None = None,
    shuffles: int = 20,
    resampled: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Cosines between the directions of every two (model, site), at each span.

    stores        one store, or name -> store
    span, site    one or several; by default all that the stores hold
    where         the rows that directions are taken from
    align         "procrustes": every model is rotated into the basis of the first, and column `aligned` says so
    A row compares `a` at site_a, layer with `b` at site_b, layer_b, from n rows of `groups` groups (those of the one that has fewer).
    Raises ValueError: models that share no basis or width, and as matrix().
    """
    rows: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"label": label, "group": group, "span": span, "site": site, "where": where, "labels": labels, "align": align}
    for name, found in read_directions(stores, **asked, shuffles=shuffles, seed=seed):
        whole, noise = found.all_rows(), found.noise()
        cosine, raw = _cosines(whole @ whole.T - noise), _cosines(whole @ whole.T)
        low, high = _interval(found, noise, resampled, seed)
        shuffled = _cosines(found.shuffled @ found.shuffled.mT).mean(0)
        numbers = {"cosine": cosine, "raw": raw, "low": low, "high": high, "shuffled": shuffled}
        layers, n, groups = [parse_site(site)[1] for site in found.sites], found.rows(), found.groups()
        for i, j in combinations(range(len(found.sites)), 2):
            rows.append(
                {
                    **{"a": found.models[i], "b": found.models[j], "site_a": found.sites[i], "site_b": found.sites[j]},
                    **{"layer": layers[i], "layer_b": layers[j], "span": name, "angle": degrees(float(cosine[i, j]))},
                    **{column: float(values[i, j]) for column, values in numbers.items()},
                    **{"n": min(n[i], n[j]), "groups": min(groups[i], groups[j]), "chance": chance(whole.shape[1])},
                    **{"label": label, "aligned": align or ""},
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def angles(
    stores: Store | Mapping[str, Store],
    *,
    label: str = "harmful",
    group: str = "group",
    span: str | Sequence[str] | None = None,
    site: str | Sequence[str] | None = None,
    where: Mapping[str, Any] = TRAIN,
    labels: Mapping[str, Mapping[str, Any]] | None = None,
    align: str | None = None,
    halvings: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Principal angles, in degrees, between what the directions of all sites span in every two models, each beside itself too.

    A row: a, b, span and the number of the angle, 1 the smallest. `angle` is from all rows, `halves` the median over random halvings with
    the range of 95% of them, `low` to `high`. The arguments are those of geometry().
    """
    rows: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"label": label, "group": group, "span": span, "site": site, "where": where, "labels": labels, "align": align}
    for name, found in read_directions(stores, **asked, shuffles=0, seed=seed):
        rng, whole, g = np.random.default_rng(seed), found.all_rows().numpy(), len(found.positive)
        halves = [rng.permutation(g) < g // 2 for _ in range(halvings)]
        drawn = [[found.drawn(torch.from_numpy(half[None]).double())[0].numpy() for half in (half, ~half)] for half in halves]
        at = {model: np.flatnonzero(np.array(found.models) == model) for model in found.models}
        unrelated = [[rng.normal(size=(len(found.sites) // len(at), whole.shape[1])) for _ in "ab"] for _ in range(20)]
        random = np.median([_angles(*pair) for pair in unrelated], axis=0)
        for a, b in combinations_with_replacement(at, 2):
            low, middle, high = np.quantile([_angles(one[at[a]], other[at[b]]) for one, other in drawn], [0.025, 0.5, 0.975], axis=0)
            for i, angle in enumerate(_angles(whole[at[a]], whole[at[b]])):
                rows.append(
                    {
                        **{"a": a, "b": b, "span": name, "number": i + 1, "angle": angle, "chance": random[i]},
                        **{"halves": middle[i], "low": low[i], "high": high[i], "label": label, "aligned": align or ""},
                        **{"n": min(found.rows()), "groups": min(found.groups())},
                    }
                )
    return pd.DataFrame(rows, columns=list(ANGLES))


def _angles(a: Float[np.ndarray, "k d"], b: Float[np.ndarray, "l d"]) -> Float[np.ndarray, " m"]:
    """In degrees, the smallest first."""
    found: Float[np.ndarray, " m"] = np.degrees(subspace_angles(a.T, b.T))[::-1]
    return found


def _interval(found: Directions, noise: Float[Tensor, "k k"], n: int, seed: int) -> tuple[Float[Tensor, "k k"], Float[Tensor, "k k"]]:
    """Lower and upper bound from n draws of groups; nan without any. A draw that has no cosine counts on the far side of either bound."""
    if not n:
        return torch.full_like(noise, NAN), torch.full_like(noise, NAN)
    groups = len(found.positive)
    weights = torch.from_numpy(np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=n)).double()
    parts = torch.split(weights, max(1, CHUNK // found.positive[0].numel()))
    drawn = torch.cat([_cosines(w @ w.mT - 2 * noise) for w in map(found.drawn, parts)])
    return drawn.nan_to_num(-1).quantile(0.025, dim=0), drawn.nan_to_num(1).quantile(0.975, dim=0)


def _cosines(products: Float[Tensor, "*b k k"]) -> Float[Tensor, "*b k k"]:
    """Cosines from inner products, within [−1, 1]; nan where a squared length is not above zero."""
    squared = products.diagonal(dim1=-2, dim2=-1)
    length = torch.where(squared > 0, squared, NAN).sqrt()
    return (products / (length[..., None] * length[..., None, :])).clamp(-1, 1)
