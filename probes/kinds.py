"""The kinds of probe, as a table: how each is fitted, and the settings among which dev rows choose.

    logistic           L2-regularised logistic regression          C, the inverse penalty
    mean_difference    mean of the positives − of the negatives    nothing to set
    whitened           the same, whitened by the pooled scatter    nothing to set
    lda                linear discriminant analysis                shrinkage of the covariance
    ridge              least squares on ±1 labels                  alpha, the penalty

Every `fit` has one signature: x [s, n, d], labels [f, n], settings → weight [s, c, f, d], bias [s, c, f], in the space of x and float64.
`rows` [f, n] are each fit's own training rows (None: all), `balanced` weighs both labels equally where the kind can (logistic, ridge).
Shapes: `s` sites, `n` rows, `d` d_model, `f` fits side by side, each with its labels and rows, `c` settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from jaxtyping import Bool, Float
from torch import Tensor

from . import lda, logistic, mean_difference, ridge

NAN = float("nan")


class Fit(Protocol):
    def __call__(
        self,
        x: Float[Tensor, "s n d"],
        y: Bool[Tensor, "f n"],
        settings: Sequence[float],
        *,
        rows: Bool[Tensor, "f n"] | None = None,
        balanced: bool = False,
    ) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]: ...


@dataclass(frozen=True)
class Kind:
    """One kind of probe.

    fit        weight and bias for every site, setting and fit
    settings   what dev rows choose among
    setting    what a setting is called: "C", "shrinkage", "alpha"; "" where there is none
    """

    fit: Fit
    settings: tuple[float, ...]
    setting: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "logistic": Kind(logistic.fit, (0.001, 0.01, 0.1, 1.0), "C"),
        "mean_difference": Kind(mean_difference.fit, (NAN,), ""),
        "whitened": Kind(mean_difference.whitened, (NAN,), ""),
        "lda": Kind(lda.fit, (0.01, 0.1, 0.3, 0.7), "shrinkage"),
        "ridge": Kind(ridge.fit, (1.0, 10.0, 100.0, 1000.0), "alpha"),
    }
)
