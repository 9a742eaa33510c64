"""Sequence probes: one direction that reads every token of a span, and one score per prompt made of its readouts.

    score(prompt) = over_t (w · h_t + b)          over: mean | max | last of the tokens t of the span

A probe fitted on the mean of a span need not be right at any one token; this one is asked to be, so it can follow a thought as it is
written (trajectory.py), and with over "max" it is a gate that opens once and stays open. McKenzie et al. 2025, "Detecting high-stakes
interactions with activation probes" (arXiv 2506.10805), compare such ways of making one score of many.

w and b come from training tokens that carry the label of their prompt. Every prompt gives the same number of them, evenly spaced from a
random start (systematic sampling, Madow and Madow 1944; a shorter span gives some tokens twice), so that a long thought counts no more than
a short one. Setting and over are chosen together, by AUROC on dev prompts. A shuffled labelling chooses its own on shuffled dev labels; a
random direction is read with the over of the probe it stands beside.

Shapes: x [t, d]; labellings [f, p], the true one first; scores [o, c, f, p] (`t` tokens, `p` prompts, `d` d_model, `c` settings,
`f` labellings, `o` ways of making one score, `r` random directions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..hooks.sites import parse_site
from .baselines import WORDS, Texts, baseline_scores
from .choose import Labellings, labellings
from .controls import random_directions
from .dataset import Labels, Stores, Where, as_stores, check_writer, joined
from .fit import DEALS, check_bases, origin
from .kinds import KINDS
from .metrics import auroc
from .probe import Probe
from .rows import HELD, Held, by_class, decide, metrics_of, tell, with_controls
from .splits import GIVEN, check_whole, holdouts
from .sweep import ALL, COLUMNS, Sweep
from .tokens import Prompts, Reader, token_prompts

KIND = "sequence"
OVERS = ("mean", "max", "last")


def fit_sequence(
    stores: Stores,
    *,
    span: str = "thought",
    kind: str = "logistic",
    label: str = "harmful",
    group: str = "group",
    split: str = "given",
    train: Where = GIVEN["train"],
    valid: Where = GIVEN["dev"],
    test: Where = GIVEN["test"],
    sites: Sequence[str] | None = None,
    labels: Labels | None = None,
    texts: Texts | None = None,
    complied: str | None = None,
    tokens: int = 16,
    balanced: bool = False,
    shuffles: int = 20,
    directions: int = 20,
    resampled: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    memory: int = 2 * 2**30,
    progress: bool = True,
) -> Sweep:
    """Fit a sequence probe at every site of a store, or of several that hold the same sites, captured with pool "every".

    kind     how the direction is fitted: a name in KINDS
    tokens   how many each training prompt gives
    memory   bytes that hidden states and readouts may take while a side is read, one prompt at least; training tokens come on top
    The rest, and the table, as in fit_probes: rows are prompts, `probe` is "sequence", and a last column `over` says how scores were made.
    Raises ValueError as fit_probes does, and for a span that was pooled.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of probe {kind!r}; known are {', '.join(KINDS)}")
    stores = as_stores(stores)
    sites = list(stores[0].sites if sites is None else sites)
    index = joined(pd.concat([store.index for store in stores], ignore_index=True).query("span == @span"), labels)
    ways = holdouts(index, split, sides={"train": train, "dev": valid, "test": test}, label=label, group=group, seed=seed)
    check_bases(stores, ways, [span], sites, group)
    if texts:
        check_writer(index, "texts")
        if unknown := [name for name in texts if name != span]:
            raise ValueError(
                f"texts were given for the span {unknown[0]!r}; this probe reads {span!r}: texts={{{span!r}: {{prompt id: words}}}}"
            )
    selection = {
        **{name: "dev" for name in ("setting", "over", "cell", "threshold", "calibration")},
        **{"cells": len(sites), "test": "read once, after every choice"},
    }
    rows: list[dict[str, Any]] = []
    probes: dict[tuple[str, ...], Probe] = {}
    select = partial(token_prompts, stores, span=span, label=label, group=group, labels=labels)
    for way in ways:
        read = {side: select(where=where) for side, where in way.sides.items()}
        sides = {side: prompts.data for side, prompts in read.items()}
        check_whole({side: data.groups for side, data in sides.items()})
        about = {"label": label, "holdout": way.name, "n_train": len(sides["train"])}
        held = Held({side: sides[side] for side in HELD}, complied, resampled, seed, about)
        header = {
            **{"fitted": kind, "tokens": tokens, "split": split, "group": group, "seed": seed},
            **{**origin(stores, way, sides), "selection": selection},
        }
        tasks = labellings(sides, shuffles, seed, DEALS)
        text_auroc = _text_auroc(held, baseline_scores(sides, span, texts or {}, {}))
        for site in track(sites, f"sequence probes of {span}, {way.name}", console=Console(stderr=True), disable=not progress):
            reader = Reader(stores, site, span, device, memory)
            x = reader.sample(read["train"], tokens, seed)
            fits = _fit(reader, read, tasks, x, kind, tokens, balanced)
            drawn = random_directions(x[None], sides["train"].y.repeat_interleave(tokens).to(x.device), directions, seed)
            probe, told = _cell(reader, read, fits, drawn, tasks, held, header)
            probes[(site, span, KIND, *([way.name] if len(ways) > 1 else []))] = probe
            rows += [{**row, "text_auroc": text_auroc.get((row["split"], row["subset"]), torch.nan)} for row in told]
    return Sweep(pd.DataFrame(rows).reindex(columns=[*COLUMNS, "over"]), probes)


@dataclass(frozen=True, eq=False)
class _Fits:
    """Every labelling at the setting and over it chose, the true one first, and its scores of the held-out prompts, float64."""

    weight: Float[Tensor, "f d"]
    bias: Float[Tensor, " f"]
    setting: float
    over: str
    scores: Mapping[str, Float[Tensor, "f p"]]


def _fit(
    reader: Reader, read: Mapping[str, Prompts], tasks: Labellings, x: Float[Tensor, "t d"], kind: str, tokens: int, balanced: bool
) -> _Fits:
    """Every setting and labelling; each keeps the over and setting with the highest AUROC on its own dev labels, the first among equals."""
    settings = KINDS[kind].settings
    labels = tasks.train.repeat_interleave(tokens, 1).to(x.device)
    weight, bias = (fitted[0] for fitted in KINDS[kind].fit(x[None], labels, settings, balanced=balanced))
    scores = reader.scores(read["dev"], weight, bias, OVERS)
    reached = torch.stack([auroc(scores[:, :, i], y) for i, y in enumerate(tasks.dev)])  # [f, o, c]
    best = reached.flatten(1).argmax(1)
    over, setting, fit = best // len(settings), best % len(settings), torch.arange(len(best))
    weight, bias = weight[setting, fit], bias[setting, fit]
    test = reader.scores(read["test"], weight[None], bias[None], OVERS)
    kept = {"dev": scores[over, setting, fit], "test": test[over, 0, fit]}
    return _Fits(weight, bias, settings[int(setting[0])], OVERS[int(over[0])], kept)


def _cell(
    reader: Reader,
    read: Mapping[str, Prompts],
    fits: _Fits,
    random: Float[Tensor, "1 r d"],
    tasks: Labellings,
    held: Held,
    header: Mapping[str, Any],
) -> tuple[Probe, list[dict[str, Any]]]:
    """The probe of a site and its table rows. Tokens are read as Probe.readout does, so that a threshold means the same later."""
    weight, bias, overs = fits.weight[0].float(), fits.bias[0].float(), [fits.over]
    scores = {side: reader.scores(read[side], weight[None, None], bias[None, None], overs)[0, 0] for side in HELD}
    decision = decide(scores["dev"], held.sides["dev"].y)
    told = with_controls(
        held,
        tell(held, scores, decision),
        shuffled={side: fits.scores[side][None, tasks.shuffled] for side in HELD},
        random={side: reader.scores(read[side], random, random.new_zeros(random.shape[:2]), overs)[0] for side in HELD},
        task={side: (fits.scores[side][None, -tasks.deals :], tasks.task[side]) for side in HELD} if tasks.task else {},
    )
    setting = None if isnan(fits.setting) else fits.setting
    about = {"site": reader.site, "layer": parse_site(reader.site)[1], "probe": KIND, "c": fits.setting, "over": fits.over}
    probe = Probe(
        weight.cpu(),
        float(bias),
        reader.site,
        reader.span,
        "every",
        KIND,
        str(held.about["label"]),
        header["model"],
        by_class(held, {side: of_side[0] for side, of_side in scores.items()}),
        {**header, "c": setting},
        setting=setting,
        over=fits.over,
        calibration=(float(decision.slope[0]), float(decision.offset[0])),
        metrics=metrics_of(told["test", ALL][0]),
    )
    return probe, [{**row, **about} for (row,) in told.values()]


def _text_auroc(held: Held, baselines: Mapping[str, Mapping[str, Float[Tensor, " p"]]]) -> dict[tuple[str, str], float]:
    """AUROC of the bag of words on every side and subset, if the span has texts."""
    if WORDS not in baselines:
        return {}
    found, sides = baselines[WORDS], held.sides
    return {(side, subset): float(auroc(found[side][keep], sides[side].y[keep])) for (side, subset), keep in held.subsets.items()}
