"""All probes of a store: every site × span × kind, fitted on train, chosen on dev, told on test.

    train   weights, scaling; with `folds` also the setting of each cell, by group folds
    dev     the setting of each cell (choose.py); layer, span and kind where one probe is picked; threshold and calibration (rows.py)
    test    read once, for the table

The controls go through the same fit: shuffled labels and the control task choose their setting as the true labels do, by their own dev
labels. Hidden states are read for as many sites at a time as `memory` holds; the numbers are the same however many that are.

Rows of several models are one data set only where the models keep their hidden states in one basis, which is checked (basis.py).

What a table row says: sweep.py. What can be held out: splits.py.
Shapes: x [s, n, d] (`s` sites, `n` rows, `d` d_model).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..hooks.sites import parse_site
from ..hooks.store import Store
from .baselines import WORDS, Baselines, Texts, baseline_scores
from .basis import bases
from .choose import Fits, Labellings, choose, labellings, scores
from .controls import random_directions
from .dataset import Dataset, Labels, Stores, Where, as_stores, check_writer, joined, matrix, spans_of
from .kinds import KINDS
from .probe import Probe
from .rows import HELD, Held, by_class, decide, metrics_of, only, tell, with_controls
from .splits import GIVEN, Holdout, check_whole, group_folds, holdouts
from .sweep import ALL, COLUMNS, Sweep

__all__ = ["COLUMNS", "Sweep", "Texts", "fit_probes"]

WIDE = 8  # bytes of a float64; hidden states are stored in half of that
COPIES = 4  # how often a fit holds, in float64 and at its peak, a site's training rows, and the weights and scores of all settings
SQUARES = (3, 4)  # float64 matrices [d, d] at its peak: so many per row mask, and so many in any case (moments.py, closed.py)
SCATTERED = frozenset({"whitened", "lda", "ridge"})
DEALS = 5  # of the control task


def fit_probes(
    stores: Stores,
    *,
    label: str = "harmful",
    group: str = "group",
    split: str = "given",
    pictures: Mapping[str, bool] | None = None,
    train: Where = GIVEN["train"],
    valid: Where = GIVEN["dev"],
    test: Where = GIVEN["test"],
    spans: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    kinds: Sequence[str] = ("logistic", "mean_difference"),
    labels: Labels | None = None,
    texts: Texts | None = None,
    baselines: Baselines | None = None,
    complied: str | None = None,
    folds: int | None = None,
    balanced: bool = False,
    shuffles: int = 20,
    directions: int = 20,
    resampled: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    memory: int = 2 * 2**30,
    progress: bool = True,
) -> Sweep:
    """Fit a probe at every site and span of a store, or of several that hold the same sites.

    label, group          index columns: what to detect, and which rows belong to one goal
    split                 what is held out: "given", "folds", "leave-category-out", "text-to-image", "base-to-safe", … (splits.py)
    pictures              attack -> whether its request is in the picture, for attacks that splits.py does not know
    train, valid, test    which rows each side has in any case, as index column -> value; no group may lie on two sides
    spans, sites          by default all that the stores have
    kinds                 names in KINDS: logistic, mean_difference, whitened, lda, ridge
    labels                prompt id -> column -> value: further index columns, such as a judge's verdicts. What is given by prompt id,
                          here and below, is of one text per prompt: rows that several models wrote (`written_by`) are refused with it
    texts                 span -> prompt id -> the words up to that span, for the bag of words; spans without texts get nan
    baselines             name -> prompt id -> a text (tf-idf) or a number or several (log counts): rows of the table beside the probes
    complied              index column that says the model complied: adds rows of the positives it complied with
    folds                 choose settings by so many group folds within train; by default on dev
    balanced              both labels weigh the same in a fit
    shuffles, directions  how many shuffled labellings a cell is fitted on, how many random directions it is held against
    resampled             bootstrap resamples of an interval; 0: no intervals
    device                where the fits run; they are float64, which rules out "mps"
    memory                bytes that hidden states and fits may take at a time, one site at least
    Raises ValueError naming the span and what it lacks: rows, one of the two labels, a group, whole groups, finite hidden states. Also for
    several models that do not keep their hidden states in one basis, or were not read on the same tokens, so that it cannot be told.
    """
    stores = as_stores(stores)
    known = spans_of(stores)
    spans, sites = list(known if spans is None else spans), list(stores[0].sites if sites is None else sites)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"unknown kind of probe {unknown[0]!r}; known are {', '.join(KINDS)}")
    if unknown := [span for span in texts or {} if span not in known]:
        raise ValueError(f"texts were given for the span {unknown[0]!r}, which is not in the store; it holds {', '.join(known)}")
    if taken := {*KINDS, WORDS} & set(baselines or {}):
        raise ValueError(f"a baseline cannot be called {min(taken)!r}, which is a name in the table already; choose another")
    given = {"train": train, "dev": valid, "test": test}
    ways = holdouts(_index(stores, labels), split, sides=given, label=label, group=group, pictures=pictures, seed=seed)
    check_bases(stores, ways, spans, sites, group)
    selection = {
        **{"setting": f"{folds} group folds within train" if folds else "dev", "cell": "dev", "threshold": "dev", "calibration": "dev"},
        **{"cells": len(spans) * len(sites) * len(kinds), "test": "read once, after every choice"},
    }
    rows: list[dict[str, Any]] = []
    probes: dict[tuple[str, ...], Probe] = {}
    moments = [(way, span) for way in ways for span in spans]
    for way, span in track(moments, "fit probes", console=Console(stderr=True), disable=not progress):
        read = partial(matrix, stores, span=span, label=label, group=group, labels=labels)
        sides = {side: read(where=where, sites=()) for side, where in way.sides.items()}
        check_whole({side: data.groups for side, data in sides.items()})
        if labels or texts or baselines:
            check_writer(pd.concat([data.index for data in sides.values()]), "labels, texts and baselines")
        about = {"label": label, "holdout": way.name, "n_train": len(sides["train"])}
        held = Held({side: sides[side] for side in HELD}, complied, resampled, seed, about)
        header = {"split": split, "group": group, "seed": seed, **origin(stores, way, sides), "selection": selection}
        found = _baseline_rows(held, baseline_scores(sides, span, texts or {}, baselines or {}))
        words = {(row["split"], row["subset"]): row["auroc"] for row in found if row["probe"] == WORDS}
        tasks = labellings(sides, shuffles, seed, DEALS).to(device)
        dealt = None if folds is None else torch.from_numpy(group_folds(sides["train"].groups, sides["train"].y.numpy(), folds, seed))
        masks = 1 + (folds or 0)
        room = (memory - _shared_bytes(kinds, sides, stores[0].width, masks)) // _bytes(sides, stores[0].width, len(tasks.train) * masks)
        for some in _together(sites, max(1, room)):
            x = {side: read(where=where, sites=some).x.transpose(0, 1).contiguous().to(device) for side, where in way.sides.items()}
            random = random_directions(x["train"], tasks.train[0], directions, seed)
            for kind in kinds:
                fits = choose(kind, x["train"], x["dev"], tasks, folds=dealt, balanced=balanced)
                for probe, of_probe in _cells(kind, some, fits, random, x, tasks, held, header):
                    found += of_probe
                    probes[(probe.site, span, kind, *([way.name] if len(ways) > 1 else []))] = probe
        rows += [{**row, "text_auroc": words.get((row["split"], row["subset"]), torch.nan)} for row in found]
    return Sweep(pd.DataFrame(rows).reindex(columns=list(COLUMNS)), probes)


def _cells(
    kind: str,
    sites: Sequence[str],
    fits: Fits,
    random: Float[Tensor, "s r d"],
    x: Mapping[str, Float[Tensor, "s n d"]],
    tasks: Labellings,
    held: Held,
    header: Mapping[str, Any],
) -> Iterator[tuple[Probe, list[dict[str, Any]]]]:
    """The probe of every site, and its table rows. Readouts are taken as Probe.readout does, so that a threshold means the same later."""
    weight, bias = fits.weight[:, 0].float().cpu(), fits.bias[:, 0].tolist()
    read = {side: torch.stack([h.clone() @ w.clone() + b for h, w, b in zip(x[side].cpu(), weight, bias, strict=True)]) for side in HELD}
    controls = {side: fits.scores(x[side]).cpu() for side in HELD}
    nowhere = random.new_zeros(random.shape[:2])
    decision = decide(read["dev"], held.sides["dev"].y)
    told = with_controls(
        held,
        tell(held, read, decision),
        shuffled={side: found[:, tasks.shuffled] for side, found in controls.items()},
        random={side: scores(x[side], random[:, None], nowhere[:, None])[:, 0].cpu() for side in HELD},
        task={side: (controls[side][:, -tasks.deals :], tasks.task[side].cpu()) for side in HELD} if tasks.task else {},
    )
    for i, site in enumerate(sites):
        setting = None if fits.setting[i, 0].isnan() else float(fits.setting[i, 0])
        rows = [{**of_side[i], "site": site, "layer": parse_site(site)[1], "probe": kind, "c": setting} for of_side in told.values()]
        test = told["test", ALL][i]
        yield (
            Probe(
                weight[i],
                bias[i],
                site,
                test["span"],
                test["pool"],
                kind,
                str(held.about["label"]),
                header["model"],
                by_class(held, {side: found[i] for side, found in read.items()}),
                {**header, "c": setting},
                setting=setting,
                calibration=(float(decision.slope[i]), float(decision.offset[i])),
                metrics=metrics_of(test),
            ),
            rows,
        )


def _baseline_rows(held: Held, baselines: Mapping[str, Mapping[str, Float[Tensor, " n"]]]) -> list[dict[str, Any]]:
    rows = []
    for name, of_name in baselines.items():
        found = {side: scores[None] for side, scores in of_name.items()}
        told = tell(held, found, decide(found["dev"], held.sides["dev"].y))
        rows += [{**row, "site": "", "layer": -1, "pool": "", "probe": name} for (row,) in told.values()]
    return rows


def origin(stores: Sequence[Store], way: Holdout, sides: Mapping[str, Dataset]) -> dict[str, Any]:
    """Which model it was fitted on, and which prompts each side has."""
    models, prompts = set(sides["train"].index["model"]), sorted(set(sides["test"].index["prompt_id"]))
    prints = {store.meta["fingerprint"] for store in stores if models & set(store.index["model"])}
    return {
        **{"model": only(sides["train"].index["model"]), "fingerprint": "+".join(sorted(prints))},
        **{"holdout": way.name, "sides": {side: _plain(where) for side, where in way.sides.items()}, "n_train": len(sides["train"])},
        "test_prompts_sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest(),
    }


def check_bases(stores: Sequence[Store], ways: Sequence[Holdout], spans: Sequence[str], sites: Sequence[str], group: str) -> None:
    """ValueError where the rows of one way come from models whose hidden states at some site do not stand in one basis."""
    pairs = dict[tuple[str, Store, Store], Where]()
    for way, span in product(ways, spans):
        used = [store for store in stores if any(store.arrow(_inside(where, store, span)).num_rows for where in way.sides.values())]
        pairs |= {(span, used[0], other): way.train for other in used[1:]}
    for (span, one, other), where in pairs.items():
        names = (only(one.index["model"]), only(other.index["model"]))
        same = {column: value for column, value in _inside(where, one, span).items() if column != "model"}
        for site in sites:  # one at a time: there may be many, and wide
            try:
                bases((one, other), names, sites=[site], where=same, group=group)
            except ValueError as error:
                raise ValueError(
                    f"{error}. One probe of several models needs one basis: fit each model alone, or carry a probe over with "
                    "transfer(along='model', align='procrustes')"
                ) from error


def _inside(where: Where, store: Store, span: str) -> Where:
    """What is asked of the store's own columns; labels= may have added others."""
    return {**{column: value for column, value in where.items() if column in store.index}, "span": span}


def _plain(where: Where) -> dict[str, Any]:
    return {column: sorted(value, key=str) if isinstance(value, set | frozenset) else value for column, value in where.items()}


def _index(stores: Sequence[Store], labels: Labels | None) -> pd.DataFrame:
    return joined(pd.concat([store.index for store in stores], ignore_index=True), labels)


def _together(sites: Sequence[str], room: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(sites), room):
        yield sites[start : start + room]


def _shared_bytes(kinds: Sequence[str], sides: Mapping[str, Dataset], width: int, masks: int) -> int:
    """What a fit takes however many sites there are: scatters of the site it is at, if its kind has any."""
    per_mask, always = SQUARES
    side = min(width, len(sides["train"]))
    return (per_mask * masks * (not SCATTERED.isdisjoint(kinds)) + always) * side * side * WIDE


def _bytes(sides: Mapping[str, Dataset], width: int, fits: int) -> int:
    """What one site takes: its hidden states as read and as laid out for the fits, the fits, and the scores of their settings."""
    rows, settings = sum(map(len, sides.values())), max(len(kind.settings) for kind in KINDS.values())
    stored = 2 * rows * width * WIDE // 2
    return stored + COPIES * (len(sides["train"]) * width + fits * settings * (width + rows)) * WIDE
