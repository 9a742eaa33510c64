"""Every labelling of some sites fitted at every setting, each kept at the setting it does best with on rows it was not fitted on.

    on dev          the AUROC of the dev rows decides
    group folds     with `folds`, the mean AUROC over held-out folds of train decides, and the fit on all of train is kept. Folds are
                    row masks, so all of it is one batched solve

The true labelling, the shuffled ones and the control task all choose, each by its own labels of the rows that decide: a control that had
to take the setting which suits the true labels would be too easy to beat. The control task is dealt several times, since with few types one
random deal may be easy and the next hard; it chooses by accuracy, by which it is told. The first of equally good settings is taken.

Shapes: x [s, n, d]; labellings [f, n]; scores [s, c, f, n] (`s` sites, `n` rows, `d` d_model, `c` settings, `f` labellings, `k` deals).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .controls import control_task, prompt_types, shuffle_labels
from .dataset import Dataset
from .kinds import KINDS
from .metrics import auroc

TYPES = (("attack", "category"), ("category",), ("attack",))  # what a type of prompt is for the control task: the first that recurs


@dataclass(frozen=True, eq=False)
class Labellings:
    """The labels that are fitted: the true ones, shuffled ones, and the control task where prompts have types that recur.

    train, dev   [f, n] of the training rows and of the dev rows
    task         side -> [k, n] the control task's labels of its rows, deal by deal: the last labellings. Empty without a control task
    """

    train: Bool[Tensor, "f n"]
    dev: Bool[Tensor, "f m"]
    task: Mapping[str, Bool[Tensor, "k n"]]

    @property
    def deals(self) -> int:
        """How many of the labellings, the last ones, are deals of the control task."""
        return len(self.task["train"]) if self.task else 0

    @property
    def shuffled(self) -> slice:
        """Which labellings are shuffled labels."""
        return slice(1, len(self.train) - self.deals)

    def to(self, device: str) -> Labellings:
        return Labellings(self.train.to(device), self.dev.to(device), {side: y.to(device) for side, y in self.task.items()})


@dataclass(frozen=True, eq=False)
class Fits:
    """Every labelling of every site at its chosen setting, float64."""

    weight: Float[Tensor, "s f d"]
    bias: Float[Tensor, "s f"]
    setting: Float[Tensor, "s f"]

    def scores(self, x: Float[Tensor, "s n d"]) -> Float[Tensor, "s f n"]:
        return scores(x, self.weight[:, None], self.bias[:, None])[:, 0]


def labellings(sides: Mapping[str, Dataset], shuffles: int, seed: int, deals: int = 1) -> Labellings:
    """True, shuffled and control labels. Train and dev are shuffled each by itself, so neither tells of the other."""
    train, dev = sides["train"], sides["dev"]
    task = _task({side: data.index for side, data in sides.items()}, seed, deals)
    return Labellings(
        torch.cat([train.y[None], shuffle_labels(train.y, train.groups, shuffles, seed), *([task["train"]] if task else [])]),
        torch.cat([dev.y[None], shuffle_labels(dev.y, dev.groups, shuffles, seed + 1), *([task["dev"]] if task else [])]),
        task,
    )


def choose(
    kind: str,
    train: Float[Tensor, "s n d"],
    dev: Float[Tensor, "s m d"],
    labels: Labellings,
    *,
    folds: Int64[Tensor, " n"] | None = None,
    balanced: bool = False,
) -> Fits:
    """Fit a kind to every labelling, and keep each at its best setting. `folds`: the fold of every training row; None chooses on dev."""
    fit, settings = KINDS[kind].fit, torch.tensor(KINDS[kind].settings, dtype=torch.float64, device=train.device)
    if folds is None or len(settings) == 1:
        weight, bias = fit(train, labels.train, settings.tolist(), balanced=balanced)
        reached = _reached(scores(dev, weight, bias), labels.dev, labels.deals)
    else:
        held = torch.stack([folds.to(train.device) == fold for fold in range(int(folds.max()) + 1)])
        masks = torch.cat([~held, torch.ones_like(held[:1])])
        weight, bias = fit(
            train,
            labels.train.repeat_interleave(len(masks), 0),
            settings.tolist(),
            rows=masks.repeat(len(labels.train), 1),
            balanced=balanced,
        )
        by_fold = (*bias.shape[:2], len(labels.train), len(masks))
        weight, bias = weight.reshape(*by_fold, -1), bias.reshape(by_fold)
        of_fold = [
            _reached(scores(train[:, rows], weight[..., i, :], bias[..., i]), labels.train[:, rows], labels.deals)
            for i, rows in enumerate(held)
        ]
        reached, weight, bias = torch.stack(of_fold).nanmean(0), weight[..., -1, :], bias[..., -1]
    best = reached.nan_to_num(-1).argmax(1)  # [s, f]; nan: a fold in which a shuffled labelling has one class only
    kept = weight.gather(1, best[:, None, :, None].expand(-1, -1, -1, weight.shape[-1]))[:, 0]
    return Fits(kept, bias.gather(1, best[:, None])[:, 0], settings[best])


def scores(x: Float[Tensor, "s n d"], weight: Float[Tensor, "s c f d"], bias: Float[Tensor, "s c f"]) -> Float[Tensor, "s c f n"]:
    """Readouts of every site. Weights are copied, since the last bit of a product may depend on where in memory a factor begins."""
    return torch.stack([w.clone() @ site.double().T for site, w in zip(x, weight, strict=True)]) + bias[..., None]


def _reached(found: Float[Tensor, "s c f n"], y: Bool[Tensor, "f n"], deals: int) -> Float[Tensor, "s c f"]:
    """What a labelling is chosen by: AUROC by its own labels, for the control task (the last ones) accuracy."""
    ranked = len(y) - deals
    areas = torch.stack([auroc(found[:, :, i], labels) for i, labels in enumerate(y[:ranked])], -1)
    return torch.cat([areas, ((found[:, :, ranked:] > 0) == y[ranked:]).double().mean(-1)], -1)


def _task(indices: Mapping[str, pd.DataFrame], seed: int, deals: int) -> dict[str, Any]:
    """Labels of the control task by the finest type of which the training side has all; none where no type recurs."""
    for columns in TYPES:
        types = {side: prompt_types(index, columns) for side, index in indices.items()}
        learned = set(types["train"])
        if len(learned) > 1 and learned.issuperset({*types["dev"], *types["test"]}):
            dealt = [control_task(types, [seed, deal]) for deal in range(deals)]
            return {side: torch.stack([labels[side] for labels in dealt]) for side in types}
    return {}
