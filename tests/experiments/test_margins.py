"""Margins against numpy, scipy and scikit-learn by hand; what a pure shift, a lost distance and an unrelated change look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from thoughtlens.experiments.margins import RANKS, Axis, axis_of, compared, of_change, of_model, ranks
from thoughtlens.probes.metrics import resamples
from torch import Tensor

N, D = 120, 12
rng = np.random.default_rng(3)
Y = torch.from_numpy(np.arange(N) % 2 == 0)
W = torch.from_numpy(rng.normal(size=D)) * 3
X = torch.from_numpy(rng.normal(size=(N, D))) + Y[:, None] * W + 5
AXIS = axis_of(X, Y)
UNIT = AXIS.direction / AXIS.direction.norm()
GROUPS = np.array([f"g{i // 4}" for i in range(N)])
WEIGHTS = resamples(GROUPS, 300, 0)


def told(x: Tensor, before: Tensor | None = X, weights: Tensor = WEIGHTS) -> dict[str, dict[str, float]]:
    return compared(AXIS, x, before, Y, weights)


def test_the_base_reads_half_a_unit_to_either_side() -> None:
    found = told(X, None)
    assert found["mean_harmful"]["value"] == pytest.approx(0.5) and found["mean_benign"]["value"] == pytest.approx(-0.5)
    assert set(found) == {"mean_harmful", "sd_harmful", "mean_benign", "sd_benign", "dprime", "auroc"}


def test_numbers_are_those_of_numpy_scipy_and_scikit_learn() -> None:
    x = X + torch.from_numpy(rng.normal(size=(N, D))) - 0.3 * Y[:, None] * W
    found = told(x)
    w, y = AXIS.direction.numpy(), Y.numpy()
    margin, before = ((one.numpy() - AXIS.middle.numpy()) @ w / (w @ w) for one in (x, X))
    bad, good = margin[y], margin[~y]
    change = (x - X).numpy()
    mean = (change[y].mean(0) + change[~y].mean(0)) / 2
    by_hand = {
        "mean_harmful": bad.mean(),
        "sd_harmful": bad.std(),
        "sd_benign": good.std(),
        "dprime": (bad.mean() - good.mean()) / np.sqrt((bad.var() + good.var()) / 2),
        "auroc": roc_auc_score(y, margin),
        "shift_harmful": bad.mean() - before[y].mean(),
        "shift": (bad.mean() - before[y].mean() + good.mean() - before[~y].mean()) / 2,
        "gap_change": (bad.mean() - good.mean()) - (before[y].mean() - before[~y].mean()),
        "share_along": (mean @ w) ** 2 / (w @ w) / (mean @ mean),
        "rank_all": spearmanr(before, margin).statistic,
        "rank_harmful": spearmanr(before[y], bad).statistic,
        "rank_benign": spearmanr(before[~y], good).statistic,
    }
    for metric, number in by_hand.items():
        assert found[metric]["value"] == pytest.approx(number), metric
        assert found[metric]["low"] <= number <= found[metric]["high"] or metric.startswith(("rank", "share", "sd"))


def test_a_pure_shift_keeps_distance_and_order() -> None:
    found = {metric: row["value"] for metric, row in told(X - 0.7 * AXIS.direction).items()}
    assert found["shift"] == pytest.approx(-0.7) and found["gap_change"] == pytest.approx(0, abs=1e-9)
    assert found["share_along"] == pytest.approx(1)
    assert [found[name] for name in RANKS] == pytest.approx([1, 1, 1])
    assert found["auroc"] == pytest.approx(roc_auc_score(Y, AXIS.margin(X)))


def test_a_lost_distance_is_no_shift() -> None:
    lost = X - 0.4 * (Y.double() - 0.5)[:, None] * AXIS.direction
    found = {metric: row["value"] for metric, row in told(lost).items()}
    assert found["shift"] == pytest.approx(0, abs=1e-9) and found["gap_change"] == pytest.approx(-0.4)


def test_a_change_across_the_direction_has_no_share_of_it() -> None:
    aside = torch.from_numpy(rng.normal(size=D))
    aside -= aside @ UNIT * UNIT
    found = {metric: row["value"] for metric, row in told(X + aside).items()}
    assert found["share_along"] == pytest.approx(0, abs=1e-9) and found["rank_all"] == pytest.approx(1)


def test_a_draw_counts_a_row_as_often_as_it_was_drawn() -> None:
    counts = WEIGHTS[0].numpy().astype(int)
    rows = np.repeat(np.arange(N), counts)
    x = X + torch.from_numpy(rng.normal(size=(N, D)))
    once, y = torch.ones(1, len(rows), dtype=torch.float64), Y[rows]
    for drawn, repeated in (
        (of_model(AXIS, x, Y, WEIGHTS[:1].double()), of_model(AXIS, x[rows], y, once)),
        (of_change(AXIS, x - X, Y, WEIGHTS[:1].double()), of_change(AXIS, (x - X)[rows], y, once)),
    ):
        assert {name: float(value[0]) for name, value in drawn.items()} == pytest.approx({n: float(v[0]) for n, v in repeated.items()})
    before, after = AXIS.margin(X).numpy(), AXIS.margin(x).numpy()
    assert ranks(before, after, Y.numpy(), counts[None])["rank_all"][0] == pytest.approx(spearmanr(before[rows], after[rows]).statistic)


def test_the_middle_is_where_the_means_are_as_far_on_either_side() -> None:
    axis = axis_of(torch.tensor([[4.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.tensor([True, True, False]))
    assert axis.direction.tolist() == [3, -2] and axis.middle.tolist() == [1.5, 1]
    assert isinstance(axis, Axis) and axis.margin(torch.tensor([[3.0, 0.0]], dtype=torch.float64)).item() == pytest.approx(0.5)
