"""Steering vectors: differences of mean hidden states at the same span, and the controls they are held against.

    safe-reasoning      v = mean h(source) − mean h(target)           the same tokens through both models
    harmful-benign      v = mean h(harmful) − mean h(benign)          within the source model
    refused-complied    v = mean h(refused) − mean h(complied)        within the source model

Difference of means: Rimsky et al. 2023 (CAA), Marks and Tegmark 2023; refusal directions: Arditi et al. 2024. The source is the model a
vector is taken from, the target the one to be steered. A vector is as long as the difference, so strength 1 moves by what was measured;
both class means are kept beside it, for operators that need them, and `scale`, the mean norm of the *target's* hidden states at the span.
Spans and pooling choose different directions for one concept, so both are part of the vector.

A vector is compared with others of equal norm at every site: one from shuffled labels (everything but the contrast is the same) and random
directions (only the size is the same).

Shapes: x [n, s, d], y [n] (`n` rows, `s` sites, `d` d_model); values [d] per site.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ..hooks.capture import capture
from ..hooks.model import LensModel
from ..hooks.planning import Decisions
from ..hooks.records import Transcript
from ..hooks.select import Select
from ..hooks.store import Store
from ..hooks.vector import Vector
from .controls import shuffle_labels
from .dataset import group_names, labelled_rows, select_rows
from .mean_difference import mean_difference

logger = logging.getLogger(__name__)

PAIRED = "safe-reasoning"
LABELS: Mapping[str, str] = MappingProxyType({"harmful-benign": "harmful", "refused-complied": "refused"})
CONTRASTS = (PAIRED, *LABELS)
SMALLEST = 1e-6  # share of the scale below which a difference is rounding, e.g. at resid_pre.0 where both sides embed the same token
TOKENS = ["prompt_id", "condition", "ids_sha", "start", "stop"]


def steering_vector(
    source: LensModel,
    target: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    contrast: str = PAIRED,
    span: str | None = None,
    rows: Mapping[str, Any] | None = None,
    labels: Mapping[str, Mapping[str, Any]] | None = None,
    decisions: Decisions | None = None,
) -> Vector:
    """Capture the transcripts through both models and take the contrast, at every site of `where`.

    span        which span of `where`; by default its first
    rows        which transcripts count, as index column -> value, e.g. {"harmful": True, "split": "train"}
    labels      prompt id -> further index columns, e.g. {"p1": {"refused": True}} for refused-complied
    decisions   of the span "decision", as in capture()
    """
    with captured(source, target, transcripts, where, span, labels, decisions) as (taken, steered, chosen):
        return vector_from_stores(source=taken, target=steered, contrast=contrast, span=chosen, where=rows)


@contextmanager
def captured(
    source: LensModel,
    target: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    span: str | None,
    labels: Mapping[str, Mapping[str, Any]] | None,
    decisions: Decisions | None = None,
) -> Iterator[tuple[Store, Store, str]]:
    """The transcripts read in both models, in stores that are gone afterwards; and the span, by default the first of `where`."""
    span = where.spans[0] if span is None else span
    if span not in where.spans:
        raise ValueError(f"the selection has no span {span!r}; it has {', '.join(where.spans)}")
    if len(where.spans) > 1:
        logger.info("the vector is taken at %r, one of %d spans selected", span, len(where.spans))
    select = Select(where.sites, span, where.pool)
    with tempfile.TemporaryDirectory() as folder:
        taken, steered = (
            capture(lens, transcripts, select, into=Path(folder) / name, labels=labels, decisions=decisions, progress=False)
            for name, lens in (("source", source), ("target", target))
        )
        yield taken, steered, span


def vector_from_stores(
    *,
    source: Store,
    target: Store,
    contrast: str = PAIRED,
    span: str,
    where: Mapping[str, Any] | None = None,
    label: str | None = None,
    group: str = "group",
    shuffled: int | None = None,
) -> Vector:
    """A vector out of two activation stores, at all their sites.

    where      which rows of both stores count, as index column -> value
    label      the index column of a contrast within the source; by default `harmful` or `refused`
    group      the index column with the goal of a prompt, needed for shuffling only
    shuffled   a seed: the control vector, from labels shuffled by group (for safe-reasoning: the change in one half of the groups less that
               in the other, so that what all have in common is gone), at the norm the true vector has
    Raises ValueError for an unknown contrast, stores of other sites or tokens, one class only, nan or inf (naming the row), no difference.
    """
    contrasted = contrast_of(source, target, contrast, span, where, label)
    residual, steered = select_rows(target, span=span, where=where)
    scale = residual.double().norm(dim=-1).mean(0)
    means = contrasted.means()
    values = means[1] - means[0]
    there = values.norm(dim=-1) > SMALLEST * scale
    if not bool(there.any()):
        raise ValueError(f"{contrast} is zero at every site of {span!r}: both sides are the same there. Are source and target one model?")
    if not bool(there.all()):
        lost = [site for site, kept in zip(source.sites, there, strict=True) if not kept]
        logger.warning("%s is zero at %s, which the vector leaves out", contrast, ", ".join(lost))
    if shuffled is not None:
        values = _at_norm_of(values, contrasted.shuffled(group_names(contrasted.index, group), shuffled))
    kept = {name: i for i, (name, here) in enumerate(zip(source.sites, there.tolist(), strict=True)) if here}
    header = {
        **_provenance(source, target, contrasted.index, steered),
        **{"contrast": contrast, "span": span, "pool": str(steered["pool"].iloc[0]), "where": dict(where or {})},
        **{**contrasted.sizes(), "n_scale": len(residual)},
        **({} if shuffled is None else {"control": "shuffled labels", "seed": shuffled}),
    }
    told = f"{header['source_model']}-{header['target_model']}" if contrast == PAIRED else contrast
    return Vector(
        values={site: values[i].float() for site, i in kept.items()},
        span=span,
        pool=header["pool"],
        source=told if shuffled is None else f"{told}, shuffled",
        scale={site: float(scale[i]) for site, i in kept.items()},
        means={site: torch.stack([means[0, i], means[0, i] + values[i]]).float() for site, i in kept.items()},
        header=header,
    )


def random_vectors(vector: Vector, n: int = 1, seed: int = 0) -> list[Vector]:
    """`n` vectors of random direction, with the norm `vector` has at each site: what any push of this size would do.

    Of several directions at a site, as many that are orthonormal. Class means are the one that is steered from, and what the random
    direction makes of it.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(n):
        drawn = {site: torch.randn(value.shape, generator=generator) for site, value in vector.values.items()}
        values = {
            site: _at_norm_of(vector.values[site], value) if value.ndim == 1 else torch.linalg.qr(value.T).Q.T
            for site, value in drawn.items()
        }
        means = {
            site: torch.stack([start, start + values[site]]) if values[site].ndim == 1 else vector.means[site]
            for site, (start, _) in vector.means.items()
        }
        header = {**vector.header, "control": "random direction", "seed": seed, "number": number}
        made.append(replace(vector, values=values, means=means, source=f"random {number}", header=header))
    return made


def _provenance(source: Store, target: Store, taken: pd.DataFrame, steered: pd.DataFrame) -> dict[str, Any]:
    """Which models a vector is made from and for (provenance.py), and of which tokens."""
    tokens = taken[["prompt_id", "ids_sha"]].sort_values(["prompt_id", "ids_sha"]).to_json(orient="split", index=False)
    return {
        **{"source_model": _models(taken), "target_model": _models(steered)},
        **{"made_from": source.meta.get("read_from", {}), "made_for": target.meta.get("read_from", {})},
        "data": hashlib.sha256(tokens.encode()).hexdigest(),
    }


@dataclass(frozen=True, eq=False)
class Contrast:
    """What is averaged.

    x       hidden states of the source
    y       a label per row; None where the source is compared with the target at the same tokens
    start   hidden states of the target at these tokens, where y is None
    """

    x: Float[Tensor, "s n d"]
    y: Bool[Tensor, " n"] | None
    start: Float[Tensor, "s n d"]
    index: pd.DataFrame

    @property
    def differences(self) -> Float[Tensor, "s m d"]:
        """From the class steered from to that steered to: of each token, or of each positive from the mean of the negatives."""
        return self.x - self.start if self.y is None else self.x[:, self.y] - self.x[:, ~self.y].mean(1, keepdim=True)

    @property
    def sides(self) -> tuple[Float[Tensor, "s n d"], Float[Tensor, "s m d"]]:
        """Hidden states of the class that is steered from, and of the one steered to."""
        return (self.start, self.x) if self.y is None else (self.x[:, ~self.y], self.x[:, self.y])

    def means(self) -> Float[Tensor, "2 s d"]:
        """Of the class that is steered from, and of the one steered to."""
        x = self.x.double()
        return torch.stack([self.start.double().mean(1), x.mean(1)] if self.y is None else [x[:, ~self.y].mean(1), x[:, self.y].mean(1)])

    def shuffled(self, groups: Shaped[np.ndarray, " n"], seed: int) -> Float[Tensor, "s d"]:
        """The direction without its meaning: the change in one half of the groups less that in the other, or labels shuffled by group."""
        if self.y is None:
            return mean_difference(self.x - self.start, _half(groups, seed))
        return mean_difference(self.x, shuffle_labels(self.y, groups, 1, seed)[0])

    def sizes(self) -> dict[str, int]:
        positive = len(self.index) if self.y is None else int(self.y.sum())
        return {"n_positive": positive, "n_negative": len(self.index) if self.y is None else len(self.index) - positive}


def contrast_of(source: Store, target: Store, contrast: str, span: str, where: Mapping[str, Any] | None, label: str | None) -> Contrast:
    """The two classes of a contrast. ValueError for an unknown contrast, stores of other sites or tokens, one class only."""
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast {contrast!r}; known are {', '.join(CONTRASTS)}")
    if source.sites != target.sites:
        sites = f"source {', '.join(source.sites)}; target {', '.join(target.sites)}"
        raise ValueError(f"the stores hold other sites: {sites}. Capture both with one Select")
    return _paired(source, target, span, where) if contrast == PAIRED else _labelled(source, span, where, label or LABELS[contrast])


def _half(groups: Shaped[np.ndarray, " n"], seed: int) -> Bool[Tensor, " n"]:
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"all rows lie in the group {str(names[0])!r}; a shuffled control needs two halves of groups. Widen `where`")
    return torch.from_numpy((np.random.default_rng(seed).permutation(len(names)) < len(names) // 2)[member])


def _labelled(source: Store, span: str, where: Mapping[str, Any] | None, label: str) -> Contrast:
    x, y, index = labelled_rows(source, span=span, label=label, where=where)
    return Contrast(x.transpose(0, 1), y, x[:0].transpose(0, 1), index)


def _paired(source: Store, target: Store, span: str, where: Mapping[str, Any] | None) -> Contrast:
    """Source less target at every token. Raises ValueError where the stores do not hold the same tokens."""
    sides = []
    for store in (source, target):
        x, index = select_rows(store, span=span, where=where)
        order = index.sort_values(TOKENS, kind="stable").index.to_numpy()
        sides.append((x[torch.tensor(order)], index.loc[order].reset_index(drop=True)))
    (above, one), (below, other) = sides
    if not one[TOKENS].equals(other[TOKENS]):
        lone = one[TOKENS].merge(other[TOKENS], how="outer", indicator=True).query("_merge != 'both'")
        raise ValueError(
            f"safe-reasoning compares the same tokens in two models, but the stores differ in {len(lone)} rows of span {span!r}, the first "
            f"of prompt {lone['prompt_id'].iloc[0]!r}. Capture the same transcripts through both models"
        )
    return Contrast(above.transpose(0, 1), None, below.transpose(0, 1), one)


def _at_norm_of(value: Float[Tensor, "*s d"], direction: Float[Tensor, "*s d"]) -> Float[Tensor, "*s d"]:
    ratio: Tensor = value.norm(dim=-1, keepdim=True) / direction.norm(dim=-1, keepdim=True)
    return direction * ratio


def _models(index: pd.DataFrame) -> str:
    return "+".join(sorted(map(str, index["model"].unique())))
