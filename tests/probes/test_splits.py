"""Groups stay whole."""

from __future__ import annotations

import numpy as np
import pytest
from thoughtlens.probes.splits import check_whole, group_folds


def grouped(n_groups: int = 40, per_group: int = 4) -> tuple[np.ndarray, np.ndarray]:
    member = np.repeat(np.arange(n_groups), per_group)
    return np.array([f"g{g}" for g in member]), (member % 4 == 0)


def test_folds_keep_groups_whole_and_spread_both_labels():
    groups, y = grouped()
    folds = group_folds(groups, y, k=5, seed=3)
    assert set(folds) == set(range(5))
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    assert [y[folds == k].mean() for k in range(5)] == pytest.approx([0.25] * 5)
    assert (group_folds(groups, y, k=5, seed=3) == folds).all()
    assert (group_folds(groups, y, k=5, seed=4) != folds).any()


def test_more_folds_than_groups_of_a_label_is_an_error():
    groups, y = grouped(n_groups=12)
    with pytest.raises(ValueError, match="only 3 groups hold a row labelled True"):
        group_folds(groups, y, k=5)


def test_a_group_on_two_sides_is_named():
    check_whole({"train": np.array(["a", "a", "b"]), "test": np.array(["c"])})
    with pytest.raises(ValueError, match="group 'b' lies in train and in test"):
        check_whole({"train": np.array(["a", "b"]), "dev": np.array(["c"]), "test": np.array(["b"])})
