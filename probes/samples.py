"""Sample size: how well a probe reads that was fitted on fewer goals.

Training groups are put in random order, and a subset of size k is the first k of them, so the subsets of one repeat are nested. The order
keeps the mix of labels: groups of positives, of negatives and of both take turns in proportion. All subsets of all repeats are fitted in
one batched solve, as masks over the same rows, at one fixed setting: the curve says what more data would bring, not what choosing would.

    auroc       mean over the repeats of the AUROC on the same held-out rows
    low, high   95% of repeats × bootstrap resamples of the held-out groups: where one probe fitted on as many goals would fall

A curve still rising at its right end says that the probes are limited by their data (Perlich, Provost and Simonoff 2003).

Shapes: x [n, 1, d] of a Dataset at one site; masks [k, r, n] (`n` rows, `d` d_model, `k` sizes, `r` repeats).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int, Shaped

from ..hooks.sites import parse_site
from .dataset import Dataset
from .kinds import KINDS
from .metrics import auroc, percentiles, resamples

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
FEWEST = 4  # groups
COLUMNS = (
    *("model", "condition", "site", "layer", "span", "probe", "c", "groups", "rows", "repeats", "auroc", "low", "high"),
    *("n_test", "groups_test"),
)


def sample_sizes(
    train: Dataset,
    test: Dataset,
    site: str,
    *,
    kind: str = "logistic",
    setting: float | None = None,
    sizes: Sequence[int] | None = None,
    repeats: int = 10,
    resampled: int = 1000,
    seed: int = 0,
    balanced: bool = False,
) -> pd.DataFrame:
    """One row per size, columns COLUMNS; `rows` is the mean number of training rows, `c` the setting.

    train, test   the same span at one site, as matrix(…, sites=[site]) gives them; no group in both
    kind          a row of KINDS; setting: its value, the cell's chosen one (default: the middle of those the kind offers)
    sizes         numbers of training groups; default a sixteenth, an eighth, … all of them, from 4 on
    Raises ValueError for a size that is not there, or too small to hold both labels.
    """
    if train.x.shape[1] != 1 or test.x.shape[1] != 1:
        raise ValueError(f"a sample-size curve is about one site, and the data has {train.x.shape[1]}; take matrix(…, sites=[{site!r}])")
    offered, there = KINDS[kind].settings, len(np.unique(train.groups))
    chosen = offered[len(offered) // 2] if setting is None else setting
    asked = sorted({round(share * there) for share in SHARES if round(share * there) >= FEWEST}) if sizes is None else list(sizes)
    masks = subsets(train, asked, repeats=repeats, seed=seed)
    fits = masks.flatten(0, 1)
    weight, bias = KINDS[kind].fit(train.x.transpose(0, 1), train.y.expand(len(fits), -1), [chosen], rows=fits, balanced=balanced)
    scores = (weight[0, 0] @ test.x[:, 0].double().T + bias[0, 0, :, None]).reshape(*masks.shape[:2], -1)
    drawn = resamples(test.groups, resampled, seed)
    about: dict[str, Any] = {name: "+".join(sorted(map(str, train.index[name].unique()))) for name in ("model", "condition", "span")}
    about |= {"site": site, "layer": parse_site(site)[1], "probe": kind, "c": chosen, "repeats": repeats}
    about |= {"n_test": len(test), "groups_test": len(np.unique(test.groups))}
    rows = []
    for size, found, used in zip(asked, scores, masks, strict=True):
        low, high = percentiles(torch.cat([auroc(row, test.y, drawn) for row in found]), test.y, test.groups)
        reached = {"auroc": float(auroc(found, test.y).mean()), "low": float(low), "high": float(high)}
        rows.append({**about, "groups": size, "rows": float(used.sum(1).double().mean()), **reached})
    return pd.DataFrame(rows)[list(COLUMNS)]


def subsets(data: Dataset, sizes: Sequence[int], *, repeats: int, seed: int = 0) -> Bool[torch.Tensor, "k r n"]:
    """Which rows are in the subset of each size and repeat. Raises ValueError where a size is not there or misses a label."""
    turns = np.stack([_turns(data.groups, data.y.numpy(), seed + repeat) for repeat in range(repeats)])
    if wrong := [size for size in sizes if not 0 < size <= turns.max() + 1]:
        raise ValueError(f"a subset of {wrong[0]} groups was asked for; pass sizes from 1 to {turns.max() + 1}, as many as there are")
    masks = torch.from_numpy(turns < np.array(sizes)[:, None, None])
    both = (masks & data.y).any(-1) & (masks & ~data.y).any(-1)
    if not bool(both.all()):
        few = sizes[int((~both).nonzero()[0, 0])]
        raise ValueError(f"{few} training groups hold one label only in some repeat, and both are needed; pass larger sizes")
    return masks


def _turns(groups: Shaped[np.ndarray, " n"], y: Bool[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """The turn of each row's group, from 0: random, with the kinds of group (positive, negative, mixed) in proportion all along."""
    names, member = np.unique(groups, return_inverse=True)
    share = np.bincount(member, weights=y) / np.bincount(member)
    stratum = np.where(share == 0, 0, np.where(share == 1, 1, 2))
    rng = np.random.default_rng(seed)
    place = np.empty(len(names))
    for value in np.unique(stratum):
        inside = np.flatnonzero(stratum == value)
        place[rng.permutation(inside)] = (np.arange(len(inside)) + rng.random()) / len(inside)
    turn = np.empty(len(names), dtype=np.int64)
    turn[place.argsort()] = np.arange(len(names))
    return turn[member]
