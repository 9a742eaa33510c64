"""Two axes through hidden states: those of numpy and scikit-learn, orthonormal, turned towards the positives."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.preprocessing import StandardScaler
from thoughtlens.probes.projection import Axes, discriminant, principal


def rows(n: int = 120, d: int = 7, seed: int = 0, harm: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Most variance along the first axis, harm along another or along that very one, float32 as stores have it."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3 == 0
    x = rng.normal(size=(n, d)) * np.array([9.0, 5.0, *[1.0] * (d - 2)]) + 3.0
    x[:, harm] += (30.0 if harm == 0 else 2.5) * y
    return (x @ np.linalg.qr(rng.normal(size=(d, d)))[0]).astype(np.float32), y


def aligned(one: np.ndarray, other: np.ndarray) -> float:
    return abs(float(one @ other)) / float(np.linalg.norm(one) * np.linalg.norm(other))


def flat(axes: Axes) -> bool:
    return np.allclose(axes.axes @ axes.axes.T, np.eye(2), atol=1e-5)


def test_principal_axes_are_those_of_a_singular_value_decomposition() -> None:
    x, y = rows()
    found = principal(x, y)
    _, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    assert aligned(found.axes[0], v[0]) == pytest.approx(1, abs=1e-4) and aligned(found.axes[1], v[1]) == pytest.approx(1, abs=1e-4)
    assert found.share == pytest.approx((s**2 / (s**2).sum())[:2], rel=1e-4) and flat(found)
    points = found.points(x)
    assert points.mean(0) == pytest.approx([0, 0], abs=1e-4)
    assert points.var(0) == pytest.approx((s**2 / len(x))[:2], rel=1e-4)


@pytest.mark.parametrize("harm", [0, 2])
def test_the_discriminant_is_fishers_with_a_shrunken_covariance(harm: int) -> None:
    x, y = rows(harm=harm)
    found = discriminant(x, y)
    within = np.zeros((7, 7))
    for side in (False, True):  # by hand: the covariance of each class in its own units, shrunk, weighed by its size
        scaler = StandardScaler().fit(x[y == side])
        within += (y == side).mean() * scaler.scale_[:, None] * ledoit_wolf(scaler.transform(x[y == side]))[0] * scaler.scale_
    fisher = np.linalg.solve(within, x[y].mean(0) - x[~y].mean(0))
    assert aligned(found.axes[0], fisher) == pytest.approx(1, abs=1e-4) and flat(found)
    centred = x - x.mean(0)
    rest = centred - np.outer(centred @ found.axes[0], found.axes[0])
    assert aligned(found.axes[1], np.linalg.svd(rest, full_matrices=False)[2][0]) == pytest.approx(1, abs=1e-4)
    assert found.share == pytest.approx((found.points(x).var(0) / x.var(0).sum()).tolist(), rel=1e-3)
    apart = found.points(x)[:, 0]
    assert apart[y].mean() - apart[~y].mean() > 2 * apart[~y].std()


@pytest.mark.parametrize("fit", [principal, discriminant])
@pytest.mark.parametrize("seed", range(4))
def test_x_points_to_the_positives_whichever_they_are(fit, seed: int) -> None:
    x, y = rows(seed=seed)
    one, other = fit(x, y), fit(x, ~y)
    for axes, positive in ((one, y), (other, ~y)):
        along = axes.points(x)[:, 0]
        assert along[positive].mean() > along[~positive].mean()
    assert np.allclose(one.axes[0], -other.axes[0], atol=1e-3) and np.allclose(one.axes[1], other.axes[1], atol=1e-3)


def test_the_same_rows_have_the_same_axes_twice() -> None:
    x, y = rows(n=600, d=90)  # where scikit-learn draws at random
    assert np.array_equal(principal(x, y).axes, principal(x.copy(), y).axes) and np.array_equal(principal(x).share, principal(x, y).share)


def test_fewer_rows_than_width_are_looked_at_in_the_space_they_span() -> None:
    x, y = rows(n=20, d=50)
    found = discriminant(x, y)
    along = found.points(x)[:, 0]
    assert flat(found) and found.axes.shape == (2, 50) and along[y].min() > along[~y].mean()
    inside = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:19]
    assert np.linalg.norm(inside @ found.axes.T, axis=0) == pytest.approx([1, 1], abs=1e-4)


def test_what_cannot_be_fitted_is_said() -> None:
    x, y = rows()
    with pytest.raises(ValueError, match="0 of 120 rows are positive"):
        discriminant(x, np.zeros_like(y))
    for few in (x[:2], x[:, :1]):
        with pytest.raises(ValueError, match="two axes are fitted on 3 rows of width 2 at least"):
            principal(few)
