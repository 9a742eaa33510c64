"""What every engine shares: a model of its own around the same weights, and the rows of capture() filled by its forward.

Engines rebuild or instrument the model they are given and never undo it, so they get a twin: its modules are new, its parameters are the
lens's own tensors. It costs no memory, and what an engine does to its modules does not reach the lens.

Shapes: m tokens in all spans, v vectors, D width of a site (heads side by side).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import PreTrainedModel

from ..attach import PLACES, Take
from ..capture import check_unsteered, encode_transcripts
from ..encode import Batch
from ..model import LensModel
from ..planning import Plan, Wanted, make_plan, places
from ..reading import Landing, never_ran
from ..records import Transcript
from ..select import Select
from ..sites import Site

Run = Callable[[Batch, Sequence[Site], Take], None]


def twin(lens: LensModel) -> PreTrainedModel:
    """The model again, its modules copied and its parameters shared. ValueError while steering is active."""
    check_unsteered(lens)
    return copy.deepcopy(lens.model, {id(parameter): parameter for parameter in lens.model.parameters()})


@torch.no_grad()
def read_with(
    run: Run, lens: LensModel, transcripts: Sequence[Transcript], where: Select, *, batch_size: int = 32, allow_empty: bool = False
) -> tuple[Float[Tensor, "v site D"], pd.DataFrame]:
    """The vectors capture() would store and their index rows, in its order, held in memory.

    run    one forward of a batch that hands each site's hidden state [b, p, d], or [b, p, head, d_head], to `take` once
    """
    plan = make_plan(lens, transcripts, where, batch_size=batch_size, shard_bytes=2**62, allow_empty=allow_empty)
    vectors = torch.empty(plan.size(0), len(plan.sites), plan.width)
    stop = 0
    for some in plan.shards[0]:
        start, stop = stop, stop + sum(one.vectors(where.pool) for one in some)
        batch, at, counts = encoded(lens, plan, some)
        landing = Landing(plan.sites, at, counts, where.pool, vectors[start:stop])
        run(batch, plan.sites, landing.take)
        if lost := [site for site in plan.sites if site not in landing.seen]:
            raise ValueError(never_ran(lens, lost))
        landing.wait()
    index = plan.rows(lens.name, 0)
    order = np.argsort(index["order"].to_numpy(), kind="stable")
    return vectors[torch.from_numpy(order)], index.drop(columns="order").iloc[order].reset_index(drop=True)


def encoded(lens: LensModel, plan: Plan, some: Sequence[Wanted]) -> tuple[Batch, Int64[Tensor, " m"], Int64[Tensor, " v"]]:
    """The transcripts that some spans are of as one batch, and where the spans stand in it (see places)."""
    numbers = list(dict.fromkeys(one.transcript for one in some))
    batch = encode_transcripts(lens, [plan.transcripts[number] for number in numbers])
    width, offsets = batch.inputs["input_ids"].shape[1], batch.offsets.tolist()
    at, counts = places(some, {number: row * width + offsets[row] for row, number in enumerate(numbers)})
    return batch, at, counts


def path_of(lens: LensModel, site: Site) -> str:
    """Path inside its layer of the module whose input or output a site is; empty for the layer itself."""
    return PLACES[site.name].module(lens.blocks[site.layer])
