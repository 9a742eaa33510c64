"""Splits that keep a group whole.

A group is the underlying goal of a prompt: the same goal wrapped as plain text, as a picture and as a role play is one group. A probe
that has seen one wrapping has seen the goal, so rows of one group must lie on one side, or the measured AUROC is partly memory.

Shapes: one entry per row, `n` rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int, Shaped
from sklearn.model_selection import StratifiedGroupKFold

Groups = Shaped[np.ndarray, " n"]


def group_folds(groups: Groups, y: Bool[np.ndarray, " n"], k: int = 5, seed: int = 0) -> Int[np.ndarray, " n"]:
    """The fold, 0 to k − 1, of every row: no group in two folds, both labels spread as evenly as the groups allow.

    For data that comes without splits: fold 0 the test side, fold 1 the dev side, the rest the training side.
    Raises ValueError where a label has fewer than k groups, since some fold would then miss it.
    """
    for value in (True, False):
        if (have := len(np.unique(groups[y == value]))) < k:
            raise ValueError(f"{k} folds were asked for, but only {have} groups hold a row labelled {value}; pass a smaller k")
    folds = np.empty(len(y), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    for fold, (_, rows) in enumerate(splitter.split(np.zeros((len(y), 1)), y, groups)):
        folds[rows] = fold
    return folds


def check_whole(sides: Mapping[str, Groups]) -> None:
    """Raise ValueError where a group occurs on two of the named sides."""
    home: dict[str, str] = {}
    for side, groups in sides.items():
        for group in np.unique(groups):
            if (other := home.setdefault(str(group), side)) != side:
                raise ValueError(
                    f"group {str(group)!r} lies in {other} and in {side}: a probe would be tested on goals it was fitted on. "
                    "Give all rows of a group one split (group_folds makes such splits)"
                )
