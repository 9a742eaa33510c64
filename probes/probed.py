"""The tokens a probe reads, batch by batch, and how what is found there differs between harmful and benign prompts.

For questions that need the running model at a probe's own tokens (heads.py, ablation.py): a span is resolved as capture() does it and
pooled by its mean, of which the first and the last token are the smallest cases.

Shapes: `m` probed tokens of a batch, `v` transcripts of a batch, `n` prompts, `p` values of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..hooks.capture import check_unsteered, encode_transcripts
from ..hooks.encode import Batch
from ..hooks.model import LensModel
from ..hooks.planning import about, batched, check_transcripts, places, wanted
from ..hooks.reading import read
from ..hooks.records import Transcript
from ..hooks.select import Select
from .dataset import group_names
from .metrics import resamples

LINEAR = {"mean": slice(None), "first": slice(0, 1), "last": slice(-1, None)}  # pools that are means, over these tokens of a span


@dataclass(frozen=True, eq=False)
class Probed:
    """A batch: the rows its transcripts have in the index, the probed tokens among its b·n, and how many of them each transcript has."""

    rows: Sequence[int]
    batch: Batch
    at: Int64[Tensor, " m"]
    counts: Int64[Tensor, " v"]

    def read(self, lens: LensModel, site: str) -> Float[Tensor, "v d"]:
        return read(lens, self.batch, lens.expand(site), self.at, self.counts, "mean")[:, 0]

    def tokens(self, hidden: Float[Tensor, "b n *d"]) -> Float[Tensor, "m *d"]:
        return hidden.flatten(0, 1)[self.at.to(hidden.device)].float()

    def mean(self, values: Float[Tensor, "m *p"]) -> Float[Tensor, "v p"]:
        """Over the probed tokens of each transcript, in float64 on the CPU."""
        return torch.segment_reduce(values.double().cpu().reshape(len(values), -1), "mean", lengths=self.counts)


def probed(
    lens: LensModel, transcripts: Sequence[Transcript], span: str, pool: str, batch_size: int, what: str, progress: bool
) -> tuple[pd.DataFrame, Iterator[Probed]]:
    """Which labelled transcripts have the span, and batches of them, those of like length together."""
    check_unsteered(lens)
    check_transcripts(transcripts)
    labelled = [t for t in transcripts if t.prompt.harmful is not None]
    asked = wanted(lens, labelled, Select("resid_post", span))
    spans = {n: replace(some[0], positions=some[0].positions[LINEAR[pool]]) for n, some in enumerate(asked) if some}
    rows = {n: row for row, n in enumerate(spans)}
    pictures = [len(t.prompt.images) for t in labelled]
    order = sorted(spans, key=lambda n: (0 if lens.family.mixes else pictures[n], -len(labelled[n].prompt_ids + labelled[n].output_ids)))

    def runs() -> Iterator[Probed]:
        batches = list(batched(lens, order, pictures, batch_size))
        for some in track(batches, what, console=Console(stderr=True), disable=not progress):
            batch = encode_transcripts(lens, [labelled[n] for n in some])
            width = batch.inputs["input_ids"].shape[1]
            starts = {n: row * width + offset for row, (n, offset) in enumerate(zip(some, batch.offsets.tolist(), strict=True))}
            yield Probed([rows[n] for n in some], batch, *places([spans[n] for n in some], starts))

    return about(labelled, None).loc[list(spans)].reset_index(drop=True), runs()


def side(index: pd.DataFrame, split: str) -> tuple[list[int], Bool[Tensor, " n"], Shaped[np.ndarray, " n"]]:
    """Rows of a split, which of them are harmful, and their groups. ValueError where one of the two is missing."""
    rows = np.flatnonzero(index["split"] == split)
    y = torch.from_numpy(index["harmful"].iloc[rows].to_numpy(dtype=bool))
    if not 0 < int(y.sum()) < len(y):
        raise ValueError(
            f"harmful and benign prompts are compared, and of {len(y)} in the split {split!r} with the span {int(y.sum())} are harmful. "
            f"The transcripts are of the splits {', '.join(sorted(index['split'].unique()))}: pass some of both kinds."
        )
    return rows.tolist(), y, group_names(index.iloc[rows].reset_index(drop=True), "group")


def differences(
    values: Float[Tensor, "n p"], y: Bool[Tensor, " n"], groups: Shaped[np.ndarray, " n"], resampled: int, seed: int
) -> pd.DataFrame:
    """Mean over harmful and over benign prompts, and their difference with its 95% group-bootstrap interval, per column."""
    weights = torch.cat([torch.ones(1, len(y)), resamples(groups, resampled, seed)]).double()
    harmful, benign = ((weights[:, some] @ values[some]) / weights[:, some].sum(1, keepdim=True) for some in (y, ~y))
    low, high = torch.nanquantile((harmful - benign)[1:], torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    told = {"harmful": harmful[0], "benign": benign[0], "difference": harmful[0] - benign[0], "low": low, "high": high}
    return pd.DataFrame({name: value.numpy() for name, value in told.items()})
