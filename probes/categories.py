"""Which kind of harm: one multinomial probe per site and span, fitted on train, its C chosen on dev, told on test.

    auroc       each category against all others, by its probability, averaged over the categories: scikit-learn's
                roc_auc_score(multi_class="ovr"), over the categories that a side has
    accuracy    share of rows whose most probable category is theirs; majority: that of always naming the commonest one of train

A group has one category, so labels are shuffled for the control by exchanging the categories of whole groups, and intervals resample whole
groups. Each shuffled labelling chooses its C by its own dev labels, and is told against the true ones. Rows without a category, or with one
that train does not have, are left out and counted in a log line.

Shapes: x [n, d], y [n] numbers of categories, probabilities [*f, n, k] (`n` rows, `d` d_model, `k` categories, `f` labellings, the true one
first).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..hooks.sites import parse_site
from . import multinomial
from .controls import permutation_p
from .dataset import Labels, Stores, Where, as_stores, group_names, select_rows, spans_of
from .metrics import auroc, percentiles, resamples
from .rows import only
from .splits import GIVEN, check_whole
from .sweep import ALL

logger = logging.getLogger(__name__)

PENALTIES = (0.001, 0.01, 0.1, 1.0)
COLUMNS = (
    *("model", "condition", "site", "layer", "span", "pool", "probe", "label", "split", "subset", "auroc", "low", "high"),
    *("control_auroc", "control_high", "control_p", "accuracy", "accuracy_low", "accuracy_high", "control_accuracy", "majority"),
    *("n_train", "n_test", "groups", "categories", "c"),
)


@dataclass(frozen=True, eq=False)
class CategoryProbe:
    """Scores a hidden state per category: softmax(weight · h + bias)."""

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    categories: tuple[str, ...]
    site: str
    span: str
    pool: str
    model: str
    c: float

    def probability(self, h: Float[Tensor, "*n d"]) -> Float[Tensor, "*n k"]:
        return (h.float() @ self.weight.T + self.bias).softmax(-1)

    def direction(self, category: str) -> Float[Tensor, " d"]:
        """Unit direction along which a category grows against the others."""
        if category not in self.categories:
            raise ValueError(f"no category {category!r}; this probe tells {', '.join(self.categories)}")
        weight = self.weight[self.categories.index(category)]
        return weight / weight.norm()


def fit_categories(
    stores: Stores,
    *,
    label: str = "category",
    group: str = "group",
    where: Where | None = None,
    train: Where = GIVEN["train"],
    valid: Where = GIVEN["dev"],
    test: Where = GIVEN["test"],
    spans: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    labels: Labels | None = None,
    shuffles: int = 20,
    resampled: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[pd.DataFrame, dict[tuple[str, str], CategoryProbe]]:
    """A table with a row per site, span and side (COLUMNS), and the probe of every site and span.

    label, group       index columns: the category, and which rows belong to one goal
    where              rows of every side, e.g. {"harmful": True}; train, valid, test: those of each
    labels             prompt id -> column -> value: further index columns
    The rest is as for fit_probes. Raises ValueError where train has fewer than two categories, or a group two.
    """
    stores = as_stores(stores)
    spans, sites = list(spans_of(stores) if spans is None else spans), list(stores[0].sites if sites is None else sites)
    wheres = {"train": {**(where or {}), **train}, "dev": {**(where or {}), **valid}, "test": {**(where or {}), **test}}
    rows, probes = [], {}
    for span in track(spans, "fit categories", console=Console(stderr=True), disable=not progress):
        found = {side: select_rows(stores, span=span, where=asked, sites=(), labels=labels)[1] for side, asked in wheres.items()}
        categories = tuple(sorted(map(str, found["train"].get(label, pd.Series(dtype=object)).dropna().unique())))
        if len(categories) < 2:
            raise ValueError(
                f"span {span!r}: train has {len(categories)} values of {label!r}, and two are needed. Widen `where` or `train`"
            )
        sides = {side: _labelled(index, side, label, group, categories) for side, index in found.items()}
        check_whole({side: data.groups for side, data in sides.items()})
        dealt = {side: _exchanged(sides[side], shuffles, seed + i) for i, side in enumerate(("train", "dev"))}
        for site in sites:
            x = {
                side: select_rows(stores, span=span, where=asked, sites=[site], labels=labels)[0][sides[side].kept, 0].to(device)
                for side, asked in wheres.items()
            }
            weight, bias, c = _chosen(x["train"], x["dev"], dealt["train"].to(device), dealt["dev"].to(device))
            for side in ("dev", "test"):
                chances = (x[side].double() @ weight.transpose(1, 2) + bias[:, None]).softmax(-1).cpu()
                told = {**_told(chances, sides[side], resampled, seed), "majority": _majority(sides["train"], sides[side])}
                place = {"site": site, "layer": parse_site(site)[1], "probe": "multinomial", "label": label, "split": side, "subset": ALL}
                about = {name: only(sides[side].index[name]) for name in ("model", "condition", "span", "pool")}
                sizes = {"n_train": len(sides["train"].y), "n_test": len(sides[side].y), "categories": len(categories)}
                rows.append({**about, **place, **told, **sizes, "groups": len(np.unique(sides[side].groups)), "c": c})
            pool, model = (only(sides["train"].index[name]) for name in ("pool", "model"))
            probes[site, span] = CategoryProbe(weight[0].float().cpu(), bias[0].float().cpu(), categories, site, span, pool, model, c)
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)), probes


def macro_auroc(
    probabilities: Float[Tensor, "*f n k"], y: Int[Tensor, " n"], weights: Float[Tensor, "*w n"] | None = None
) -> Float[Tensor, "*out"]:
    """Mean over the categories that the rows have, of each against the others: [*w, *f]."""
    there = y.bincount().nonzero()[:, 0].tolist()
    return torch.stack([auroc(probabilities[..., k], y == k, weights) for k in there]).nanmean(0)


@dataclass(frozen=True, eq=False)
class _Side:
    """The rows of a side that have a category, and which of all its rows they are."""

    y: Int[Tensor, " n"]
    groups: Shaped[np.ndarray, " n"]
    index: pd.DataFrame
    kept: Int[Tensor, " n"]


def _labelled(index: pd.DataFrame, side: str, label: str, group: str, categories: Sequence[str]) -> _Side:
    named = index[label].map({name: number for number, name in enumerate(categories)})
    kept = named.notna().to_numpy(dtype=bool)
    if not kept.all():
        logger.info("%d of %d %s rows have no %r that train has and were left out", (~kept).sum(), len(kept), side, label)
    if not kept.any():
        raise ValueError(f"no {side} row has a {label!r} that train has ({', '.join(categories)}). Widen `where`, or the side")
    index = index[kept].reset_index(drop=True)
    data = _Side(torch.tensor(named[kept].astype(int).to_numpy()), group_names(index, group), index, torch.from_numpy(kept.nonzero()[0]))
    several = index.groupby(data.groups)[label].nunique()
    if (several > 1).any():
        raise ValueError(f"group {several.idxmax()!r} has rows of {several.max()} categories, and a group is one goal: give each its own")
    return data


def _exchanged(data: _Side, n: int, seed: int) -> Int[Tensor, "f n"]:
    """The true categories, and `n` times those of whole groups exchanged."""
    names, first, member = np.unique(data.groups, return_index=True, return_inverse=True)
    of_group, rng = data.y.numpy()[first], np.random.default_rng(seed)
    return torch.from_numpy(np.stack([data.y.numpy(), *(of_group[rng.permutation(len(names))][member] for _ in range(n))]))


def _chosen(
    train: Float[Tensor, "n d"], dev: Float[Tensor, "m d"], y: Int[Tensor, "f n"], dev_y: Int[Tensor, "f m"]
) -> tuple[Float[Tensor, "f k d"], Float[Tensor, "f k"], float]:
    """Every labelling at the C that reads its dev rows best, and the C of the true one."""
    weight, bias = (found[0] for found in multinomial.fit(train[None], y, PENALTIES))
    chances = (dev.double() @ weight.transpose(-1, -2) + bias[:, :, None]).softmax(-1)
    reached = torch.stack([macro_auroc(chances[:, i], labels) for i, labels in enumerate(dev_y)], 1)
    best, fits = reached.argmax(0), torch.arange(len(y), device=y.device)
    return weight[best, fits], bias[best, fits], PENALTIES[int(best[0])]


def _told(probabilities: Float[Tensor, "f n k"], data: _Side, resampled: int, seed: int) -> dict[str, float]:
    """Macro AUROC and accuracy with their intervals, and what shuffled labels reach."""
    true, weights = probabilities[0], resamples(data.groups, resampled, seed).double()
    hits = (probabilities.argmax(-1) == data.y).double()
    areas = macro_auroc(probabilities, data.y)
    drawn = torch.stack([macro_auroc(true, data.y, weights), weights @ hits[0] / weights.sum(1)], 1)
    there, counts = torch.unique(data.y, return_counts=True)
    low, high = percentiles(drawn, data.y == there[counts.argmin()], data.groups)
    control = areas[1:] if len(areas) > 1 else areas.new_full((1,), torch.nan)
    return {
        **{"auroc": float(areas[0]), "low": float(low[0]), "high": float(high[0])},
        **{"accuracy": float(hits[0].mean()), "accuracy_low": float(low[1]), "accuracy_high": float(high[1])},
        **{"control_auroc": float(control.mean()), "control_high": float(control.quantile(0.95))},
        **{"control_p": float(permutation_p(areas[0], areas[1:])), "control_accuracy": float(hits[1:].mean())},
    }


def _majority(train: _Side, side: _Side) -> float:
    return float((side.y == train.y.bincount().argmax()).double().mean())
