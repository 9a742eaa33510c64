"""Hidden states that are never stored: what capture() would write, handed over batch by batch, any number of times.

    for vectors, rows in stream(lens, transcripts, where):      vectors [v, site, D], float32; rows: what they are, one each

The same plan, the same batches and the same forwards as in a capture of the same arguments, so the numbers are the same bit for bit. Two
batches exist at most: a device computes the next while the caller works on the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from .capture import SHARD_BYTES, check_unsteered, meta, read_spans
from .model import LensModel
from .planning import Decisions, Labels, Plan, index_rows, make_plan
from .reading import Landing, reader
from .records import Transcript
from .select import Select

Piece = tuple[Float[Tensor, "v site D"], pd.DataFrame]


@dataclass(frozen=True, eq=False)
class Readings:
    """Batches of hidden states with their index rows. Each time it is iterated the model runs anew.

    meta   what a store of them would say of itself: model, fingerprint, select, sites, width, …
    """

    lens: LensModel
    plan: Plan
    batch_size: int
    progress: bool
    meta: Mapping[str, Any]

    def __iter__(self) -> Iterator[Piece]:
        check_unsteered(self.lens)
        about, where, size = self.plan.about.assign(model=self.lens.name), self.plan.where, self.batch_size
        batches = [batch for shard in self.plan.shards for batch in shard]
        before: Piece | None = None
        coming: list[Landing] = []
        with Progress(console=Console(stderr=True), disable=not self.progress) as bar:
            for some in bar.track(batches, description=f"stream {self.lens.name}"):
                vectors = torch.empty(sum(one.vectors(where.pool) for one in some), len(self.plan.sites), self.plan.width)
                with reader(self.lens, self.plan.sites) as one:  # hooks are there for a forward, not while the caller has the batch
                    started, size = read_spans([one], self.plan, some, [vectors], size)
                for landing in coming:
                    landing.wait()
                if before is not None:
                    yield before
                before, coming = (vectors, index_rows(about, where, some).drop(columns="order")), started
        for landing in coming:
            landing.wait()
        if before is not None:
            yield before


def stream(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    batch_size: int = 32,
    labels: Labels | None = None,
    progress: bool = True,
    allow_empty: bool = False,
    decisions: Decisions | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Readings:
    """Read `where` in every transcript and keep nothing. The arguments are those of capture(), and so are the errors.

    ValueError before the first forward for what cannot work; see capture().
    """
    plan = make_plan(
        lens,
        transcripts,
        where,
        batch_size=batch_size,
        shard_bytes=shard_bytes,
        labels=labels,
        allow_empty=allow_empty,
        decisions=decisions,
    )
    job = {**plan.job, "batch_size": batch_size, "shard_bytes": shard_bytes}
    return Readings(lens, plan, batch_size, progress, meta(lens, where, plan.sites, plan.width, job))
