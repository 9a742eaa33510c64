"""Steering vectors: differences of mean hidden states at the same span, and the controls they are held against.

    safe-reasoning      v = mean h(source) − mean h(target)           the same tokens through both models
    harmful-benign      v = mean h(harmful) − mean h(benign)          within the source model
    refused-complied    v = mean h(refused) − mean h(complied)        within the source model

Difference of means: Rimsky et al. 2023 (CAA), Marks and Tegmark 2023; refusal directions: Arditi et al. 2024. The source is the model a
vector is taken from, the target the one to be steered. `scale` is the mean norm of the *target's* hidden states at the span, so a strength
is a share of what is there. Spans and pooling choose different directions for one concept, so both are part of the vector.

A vector is compared with others of equal norm at every site: one from shuffled labels (everything but the contrast is the same) and random
directions (only the size is the same).

Shapes: x [n, s, d], y [n] (`n` rows, `s` sites, `d` d_model); values [d] per site.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
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
) -> Vector:
    """Capture the transcripts through both models and take the contrast, at every site of `where`.

    span     which span of `where`; by default its first
    rows     which transcripts count, as index column -> value, e.g. {"harmful": True, "split": "train"}
    labels   prompt id -> further index columns, e.g. {"p1": {"refused": True}} for refused-complied
    """
    span = where.spans[0] if span is None else span
    if span not in where.spans:
        raise ValueError(f"the selection has no span {span!r}; it has {', '.join(where.spans)}")
    if len(where.spans) > 1:
        logger.info("the vector is taken at %r, one of %d spans selected", span, len(where.spans))
    select = Select(where.sites, span, where.pool)
    with tempfile.TemporaryDirectory() as folder:
        taken, steered = (
            capture(lens, transcripts, select, into=Path(folder) / name, labels=labels, progress=False)
            for name, lens in (("source", source), ("target", target))
        )
        return vector_from_stores(source=taken, target=steered, contrast=contrast, span=span, where=rows)


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
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast {contrast!r}; known are {', '.join(CONTRASTS)}")
    if source.sites != target.sites:
        sites = f"source {', '.join(source.sites)}; target {', '.join(target.sites)}"
        raise ValueError(f"the stores hold other sites: {sites}. Capture both with one Select")
    contrasted = _paired(source, target, span, where) if contrast == PAIRED else _labelled(source, span, where, label or LABELS[contrast])
    residual, steered = select_rows(target, span=span, where=where)
    scale = residual.double().norm(dim=-1).mean(0)
    values = contrasted.direction()
    there = values.norm(dim=-1) > SMALLEST * scale
    if not bool(there.any()):
        raise ValueError(f"{contrast} is zero at every site of {span!r}: both sides are the same there. Are source and target one model?")
    if not bool(there.all()):
        lost = [site for site, kept in zip(source.sites, there, strict=True) if not kept]
        logger.warning("%s is zero at %s, which the vector leaves out", contrast, ", ".join(lost))
    if shuffled is not None:
        values = _at_norm_of(values, contrasted.shuffled(group_names(contrasted.index, group), shuffled))
    header = {
        **{"contrast": contrast, "source_model": _models(contrasted.index), "target_model": _models(steered)},
        **{"source_fingerprint": source.meta["fingerprint"], "target_fingerprint": target.meta["fingerprint"]},
        **{"span": span, "pool": str(steered["pool"].iloc[0]), "where": dict(where or {})},
        **{**contrasted.sizes(), "n_scale": len(residual)},
        **({} if shuffled is None else {"control": "shuffled labels", "seed": shuffled}),
    }
    kept = [i for i, here in enumerate(there.tolist()) if here]
    return Vector(
        values={source.sites[i]: values[i].float() for i in kept},
        span=span,
        pool=header["pool"],
        source=contrast if shuffled is None else f"{contrast}, shuffled",
        scale={source.sites[i]: float(scale[i]) for i in kept},
        header=header,
    )


def random_vectors(vector: Vector, n: int = 1, seed: int = 0) -> list[Vector]:
    """`n` vectors of random direction, with the norm `vector` has at each site: what any push of this size would do."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(n):
        values = {site: _at_norm_of(value, torch.randn(value.shape, generator=generator)) for site, value in vector.values.items()}
        header = {**vector.header, "control": "random direction", "seed": seed, "number": number}
        made.append(replace(vector, values=values, source=f"random {number}", header=header))
    return made


@dataclass(frozen=True, eq=False)
class _Contrast:
    """What is averaged: hidden states with a label per row or, where y is None, the changes from target to source at the same tokens."""

    x: Float[Tensor, "s n d"]
    y: Bool[Tensor, " n"] | None
    index: pd.DataFrame

    def direction(self) -> Float[Tensor, "s d"]:
        return self.x.double().mean(1) if self.y is None else mean_difference(self.x, self.y)

    def shuffled(self, groups: Shaped[np.ndarray, " n"], seed: int) -> Float[Tensor, "s d"]:
        """The direction without its meaning: the change in one half of the groups less that in the other, or labels shuffled by group."""
        return mean_difference(self.x, _half(groups, seed) if self.y is None else shuffle_labels(self.y, groups, 1, seed)[0])

    def sizes(self) -> dict[str, int]:
        positive = len(self.index) if self.y is None else int(self.y.sum())
        return {"n_positive": positive, "n_negative": len(self.index) if self.y is None else len(self.index) - positive}


def _half(groups: Shaped[np.ndarray, " n"], seed: int) -> Bool[Tensor, " n"]:
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"all rows lie in the group {str(names[0])!r}; a shuffled control needs two halves of groups. Widen `where`")
    return torch.from_numpy((np.random.default_rng(seed).permutation(len(names)) < len(names) // 2)[member])


def _labelled(source: Store, span: str, where: Mapping[str, Any] | None, label: str) -> _Contrast:
    x, y, index = labelled_rows(source, span=span, label=label, where=where)
    return _Contrast(x.transpose(0, 1), y, index)


def _paired(source: Store, target: Store, span: str, where: Mapping[str, Any] | None) -> _Contrast:
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
    return _Contrast((above - below).transpose(0, 1), None, one)


def _at_norm_of(value: Float[Tensor, "*s d"], direction: Float[Tensor, "*s d"]) -> Float[Tensor, "*s d"]:
    ratio: Tensor = value.norm(dim=-1, keepdim=True) / direction.norm(dim=-1, keepdim=True)
    return direction * ratio


def _models(index: pd.DataFrame) -> str:
    return "+".join(sorted(map(str, index["model"].unique())))
