"""Ablation of heads: what becomes of a probe's readout without those that write it.

What a head writes directly (heads.py) is not yet what it is good for: layers in between may undo it, or read it. So the heads that write
most of the difference between harmful and benign prompts are held at their mean at the probed tokens (mean ablation: Wang et al. 2022,
"Interpretability in the wild"), the forward goes on from there, and the probe reads again; beside it with as many heads drawn at random.
Heads are chosen on one side of the data, where their means come from too, and ablated on the other.

Shapes: head_out [b, n, h, k] (`h` heads of `k` numbers), `m` probed tokens, `c` sets of heads, readouts [n, c].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..hooks.attach import attach
from ..hooks.model import LensModel
from ..hooks.reading import reading
from ..hooks.records import Transcript
from ..hooks.sites import Site
from .heads import PARTS, Attribution
from .metrics import auroc, intervals, resamples
from .probed import Probed, differences, probed, side

Head = tuple[int, int]  # layer, head


def ablate(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    attribution: Attribution,
    *,
    top: int = 3,
    draws: int = 10,
    decide: str = "dev",
    confirm: str = "test",
    batch_size: int = 32,
    resampled: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Hold the `top` heads that write most of the difference on `decide` at their means there, and read the probe on `confirm`.

    A row for no head (`ablated`: none), one for the top heads (top), and one for each of `draws` draws of as many others (random); `heads`
    names them, layer.head. difference: harmful − benign of the readout; change: by how much the ablation moved it; predicted: by how much
    it should, were there direct writing alone; auroc. With n, and 95% group-bootstrap intervals from the same resamples in every row.
    """
    ranked = _ranked(attribution, decide)
    if len(ranked) < 2 * top:
        raise ValueError(f"{len(ranked)} heads write to {attribution.probe.site}: too few for {top} and as many others. Lower top=.")
    chance = np.random.default_rng(seed)
    drawn = [sorted(chance.choice(np.arange(top, len(ranked)), top, replace=False)) for _ in range(draws)]
    sets = [[], ranked[:top], *([ranked[i] for i in some] for some in drawn)]
    site, span, pool = attribution.probe.site, attribution.span, attribution.probe.pool
    deciding, confirming = ([t for t in transcripts if t.prompt.split == side] for side in (decide, confirm))
    _, runs = probed(lens, deciding, span, pool, batch_size, f"means of heads {lens.name}", progress)
    means = _means(lens, runs, site, sorted({layer for some in sets for layer, _ in some}))
    index, runs = probed(lens, confirming, span, pool, batch_size, f"ablate heads {lens.name}", progress)
    readouts = torch.empty(len(index), len(sets), dtype=torch.float64)
    for run in runs:
        for column, some in enumerate(sets):
            with ExitStack() as undo:
                for layer in {layer for layer, _ in some} & means.keys():
                    chosen = [head for at, head in some if at == layer]
                    hold = partial(held, at=run.at, chosen=chosen, means=means[layer][chosen])
                    undo.callback(attach(lens, Site("head_out", layer), hold).remove)
                readouts[run.rows, column] = attribution.probe.readout(run.read(lens, site)).double()
    return _told(attribution, readouts, index, sets, confirm, resampled, seed)


def held(
    hidden: Float[Tensor, "b n h k"], at: Int64[Tensor, " m"], chosen: Sequence[int], means: Float[Tensor, "c k"]
) -> Float[Tensor, "b n h k"]:
    """head_out with some heads at some of the b·n tokens replaced."""
    changed = hidden.clone(memory_format=torch.contiguous_format)
    changed.flatten(0, 1)[at.to(hidden.device)[:, None], list(chosen)] = means.to(changed)
    return changed


def _means(lens: LensModel, runs: Iterator[Probed], site: str, layers: Sequence[int]) -> dict[int, Float[Tensor, "h k"]]:
    """The mean of every head at the probed tokens, over the prompts with which its layer ran."""
    found: dict[int, list[Float[Tensor, "v hk"]]] = {}
    shapes: dict[int, torch.Size] = {}
    for run in runs:

        def take(at: Site, hidden: Tensor, run: Probed = run) -> None:
            found.setdefault(at.layer, []).append(run.mean(run.tokens(hidden)))
            shapes[at.layer] = hidden.shape[-2:]

        with reading(lens, [Site("head_out", layer) for layer in layers], take):
            run.read(lens, site)
    return {layer: torch.cat(values).mean(0).reshape(shapes[layer]) for layer, values in found.items()}


def _ranked(attribution: Attribution, split: str) -> list[Head]:
    """The heads, that which writes most of the difference first."""
    rows, y, _ = side(attribution.index, split)
    values = attribution.values[rows]
    difference = values[y].mean(0) - values[~y].mean(0)
    order = difference.argsort(descending=True, stable=True).tolist()
    parts = attribution.parts.iloc[order]
    return list(parts[parts["part"] == "head"][["layer", "head"]].itertuples(index=False, name=None))


def _told(
    attribution: Attribution,
    readouts: Float[Tensor, "n c"],
    index: pd.DataFrame,
    sets: Sequence[Sequence[Head]],
    split: str,
    resampled: int,
    seed: int,
) -> pd.DataFrame:
    _, y, groups = side(index, split)
    weights = resamples(groups, resampled, seed)
    area = auroc(readouts.T, y)
    bounds = intervals(auroc, readouts.T, y, weights, groups)
    direct = attribution.table(split, resampled=1).set_index(list(PARTS))["difference"]
    change = differences(readouts - readouts[:, :1], y, groups, resampled, seed)[["difference", "low", "high"]]
    told = differences(readouts, y, groups, resampled, seed).join(change.set_axis(["change", "change_low", "change_high"], axis=1))
    return pd.DataFrame(
        {
            "ablated": ["none", "top", *["random"] * (len(sets) - 2)],
            "draw": [0, 0, *range(len(sets) - 2)],
            "heads": [", ".join(f"{layer}.{head}" for layer, head in some) for some in sets],
        }
    ).assign(
        **told,
        predicted=[-sum(direct["head", layer, head] for layer, head in some) for some in sets],
        **{"auroc": area.numpy(), "auroc_low": bounds[0].numpy(), "auroc_high": bounds[1].numpy()},
        **attribution.about(split, y, groups),
    )
