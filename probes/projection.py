"""Two axes along which hidden states are drawn, fitted on training rows.

    pca    x and y: the two directions of largest variance (Pearson 1901)
    lda    x: Σ⁻¹(μ₊ − μ₋), what tells the two labels apart best (Fisher 1936), the covariance within them shrunk as data ask for it
           (Ledoit and Wolf 2004); y: the direction of largest variance among those orthogonal to it

Axes are orthonormal, so a distance in the picture is one in the residual stream. x points from the rows that are not positive to those
that are. With fewer rows than d the discriminant is sought in the space the rows span, where it lies in any case.

Shapes: x [n, d]; y [n]; axes [2, d] (`n` rows, `d` d_model).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

FEWEST = 3  # rows


@dataclass(frozen=True, eq=False)
class Axes:
    """A plane through the training rows.

    centre    [d] their mean; axes [2, d], orthonormal
    share     of their variance that lies along x and along y
    """

    centre: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "2 d"]
    share: tuple[float, float]

    def points(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
        return (x - self.centre) @ self.axes.T


def principal(x: Float[np.ndarray, "n d"], y: Bool[np.ndarray, " n"] | None = None) -> Axes:
    """The first two principal components; with labels x is turned towards the positives."""
    _check(x)
    found = PCA(2, random_state=0).fit(x)
    axes = found.components_ * _towards(x @ found.components_[0], y)
    return Axes(found.mean_, axes, (float(found.explained_variance_ratio_[0]), float(found.explained_variance_ratio_[1])))


def discriminant(x: Float[np.ndarray, "n d"], y: Bool[np.ndarray, " n"]) -> Axes:
    """The discriminant, and the first principal component orthogonal to it. ValueError for labels of one kind."""
    _check(x)
    if not 0 < int(y.sum()) < len(y):
        raise ValueError(f"a discriminant tells two labels apart, and {int(y.sum())} of {len(y)} rows are positive. Pass rows of both")
    centre = x.mean(0)
    inside = x - centre
    basis = _span(inside)
    direction = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(inside @ basis.T, y).coef_[0] @ basis
    first = direction / np.linalg.norm(direction)
    along = inside @ first
    rest = PCA(1, random_state=0).fit(inside - along[:, None] * first)
    second = rest.components_[0] - (rest.components_[0] @ first) * first  # orthogonal but for rounding
    total = inside.var(0, ddof=1).sum()
    share = (float(along.var(ddof=1) / total), float(rest.explained_variance_[0] / total))
    return Axes(centre, np.stack([first * _towards(along, y)[0, 0], second / np.linalg.norm(second)]), share)


def _span(inside: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "k d"]:
    """Orthonormal directions in which centred rows vary. One in which they do not would count as one that tells everything."""
    n, d = inside.shape
    if n > d:
        return np.eye(d, dtype=inside.dtype)
    _, length, directions = np.linalg.svd(inside, full_matrices=False)
    return directions[length > length[0] * n * np.finfo(inside.dtype).eps]


def _towards(along: Float[np.ndarray, " n"], y: Bool[np.ndarray, " n"] | None) -> Float[np.ndarray, "2 1"]:
    """Factors of the two axes: x is turned round where the positives lie lower along it."""
    lower = y is not None and 0 < int(y.sum()) < len(y) and along[y].mean() < along[~y].mean()
    return np.array([[-1.0 if lower else 1.0], [1.0]], dtype=along.dtype)


def _check(x: Float[np.ndarray, "n d"]) -> None:
    if len(x) < FEWEST or x.shape[1] < 2:
        raise ValueError(f"two axes are fitted on {FEWEST} rows of width 2 at least; there are {len(x)} of width {x.shape[1]}")
