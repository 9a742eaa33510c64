"""The states at which a thought may turn: the last prompt token and the end of every step, of two models on the same tokens.

Shapes: n boundaries of all transcripts, s sites, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..hooks.model import LensModel
from ..hooks.records import Transcript
from ..hooks.select import Select
from ..hooks.spans import STEP_ENDS
from ..hooks.streaming import stream
from ..hooks.trio import check_alike

LAST_PROMPT = "last_prompt"
SITES = 6  # that are read where none are named


@dataclass(frozen=True, eq=False)
class Boundaries:
    """Boundaries in the order of the transcripts and of their tokens.

    a, b     [n, s, d] of either model, float32, in the order of `sites`
    rows     a row each: prompt_id, group, split, harmful, condition, position (of the output, -1: last prompt token), step (-1 likewise),
             anchor ("step_end[4]"), token (its id)
    """

    a: Float[Tensor, "n s d"]
    b: Float[Tensor, "n s d"]
    rows: pd.DataFrame
    sites: tuple[str, ...]

    def where(self, keep: Bool[Tensor, " n"]) -> Boundaries:
        return Boundaries(self.a[keep], self.b[keep], self.rows[keep.numpy()].reset_index(drop=True), self.sites)


def read_boundaries(
    a: LensModel,
    b: LensModel,
    transcripts: Sequence[Transcript],
    *,
    sites: Sequence[str] | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> Boundaries:
    """Read two models at every boundary of some transcripts; `sites` are by default spread() over the layers.

    ValueError for models that do not read the same tokens, several transcripts of a prompt, and transcripts without a step.
    """
    check_alike({f"a ({a.name})": a, f"b ({b.name})": b})
    if len({t.id for t in transcripts}) < len(transcripts):
        raise ValueError("two transcripts are of one prompt. Pass those of one condition.")
    where = Select(list(sites) if sites else spread(b), [LAST_PROMPT, STEP_ENDS], "every")
    (one, told), (other, _) = (_read(lens, transcripts, where, batch_size, progress) for lens in (a, b))
    order = {t.id: number for number, t in enumerate(transcripts)}
    begun = {t.id: len(t.prompt_ids) for t in transcripts}
    ids = {t.id: (*t.prompt_ids, *t.output_ids) for t in transcripts}
    rows = told.assign(
        position=[start - begun[id_] for id_, start in zip(told["prompt_id"], told["start"], strict=True)],
        token=[ids[id_][start] for id_, start in zip(told["prompt_id"], told["start"], strict=True)],
    )
    places = rows.assign(order=rows["prompt_id"].map(order)).sort_values(["order", "position"], kind="stable").index.to_numpy()
    rows = rows.loc[places].reset_index(drop=True)
    steps = rows.groupby("prompt_id", sort=False).cumcount() - 1
    names = [LAST_PROMPT if step < 0 else f"step_end[{step}]" for step in steps]
    rows = rows.assign(step=steps, anchor=names)
    kept = rows[["prompt_id", "group", "split", "harmful", "condition", "position", "step", "anchor", "token"]]
    chosen = torch.tensor(places)
    return Boundaries(one[chosen], other[chosen], kept, tuple(str(site) for site in b.expand(where.sites)))


def spread(lens: LensModel, most: int = SITES) -> list[str]:
    """Residual sites of at most so many layers, evenly spread. The last layer is none of them: what is changed there is the prediction."""
    layers = max(len(lens.layers) - 1, 1)
    chosen = {round(i * (layers - 1) / max(min(most, layers) - 1, 1)) for i in range(min(most, layers))}
    return [f"resid_post.{layer}" for layer in sorted(chosen)]


def _read(
    lens: LensModel, transcripts: Sequence[Transcript], where: Select, batch_size: int, progress: bool
) -> tuple[Float[Tensor, "n s d"], pd.DataFrame]:
    pieces = [
        (hidden.clone(), rows) for hidden, rows in stream(lens, transcripts, where, batch_size=batch_size, progress=progress)
    ]  # the same batches for both models: they have one template
    return torch.cat([hidden for hidden, _ in pieces]), pd.concat([rows for _, rows in pieces], ignore_index=True)
