"""Transfer: a probe fitted on one model, attack, category or moment, read on every other.

    along="model"       fitted on the hidden states of one checkpoint, read on those of another, which must have its basis (basis.py)
    along="span"        fitted at one moment of the thought, read at another
    along=<a column>    fitted on the rows with one value of an index column, such as one attack or category, read on those with another;
                        rows without a value (benign prompts of no category) belong to every one

Weights come from the source's train rows and the setting from its dev rows; every target is read on its test rows, and no group among
those is one its source was fitted or chosen on. Down a column of the matrix the rows are the same, so what differs there is the source:

    loss      AUROC of the target's own probe at that site − AUROC of the source's, with the interval of the difference

An AUROC needs no threshold, and `tpr_at_1fpr` sets its own on the target's rows: both say whether the direction transfers, not whether a
threshold does. Intervals are bootstraps over the target's groups, the probes fixed (metrics.py). A difference that no resample shows to be
other than 0 is bounded by the exact bound of its AUROC.

Shapes: scores [p, n] (`p` probes, `n` rows of a target).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..hooks.sites import parse_site
from ..hooks.store import Store
from .basis import Alignment, bases
from .dataset import Dataset, Labels, Where, joined, matrix
from .directions import by_name, common_spans, listed
from .fit import fit_probes
from .metrics import auroc, intervals, resamples, tpr_at_fpr
from .probe import Probe
from .splits import GIVEN, SIDES, check_whole, holdouts
from .sweep import Sweep

logger = logging.getLogger(__name__)

COLUMNS = (
    *("along", "source", "target", "site", "layer", "span", "probe", "auroc", "low", "high", "n_train", "n_test", "tpr_at_1fpr"),
    *("loss", "loss_low", "loss_high", "model", "label", "n_positive", "groups", "c", "aligned"),
)
SPLITS = ("given", "folds")
CHUNK = 2**20  # weighted scores looked at together


@dataclass(frozen=True, eq=False)
class End:
    """A row and a column of a matrix: where it reads, and which rows are its own."""

    name: str
    model: str
    store: Store
    span: str
    rows: Where = field(default_factory=dict)


def transfer(
    stores: Store | Mapping[str, Store],
    *,
    along: str = "model",
    label: str = "harmful",
    group: str = "group",
    span: str | Sequence[str] | None = None,
    site: str | Sequence[str] | None = None,
    kind: str = "logistic",
    values: Sequence[str] | None = None,
    split: str = "given",
    train: Where = GIVEN["train"],
    valid: Where = GIVEN["dev"],
    test: Where = GIVEN["test"],
    labels: Labels | None = None,
    align: str | None = None,
    balanced: bool = False,
    resampled: int = 1000,
    seed: int = 0,
    device: str = "cpu",
) -> pd.DataFrame:
    """A row for every source, target, site and span.

    stores    one store, or name -> store: the ends along "model"; along anything else there is a matrix for each
    along     "model", "span", or an index column
    span      one or several, by default all that the stores hold: along "span" the ends, else where to read. A row tells the target's
    site      one or several, by default all
    values    along a column: which values; by default all that have both labels on every side (what is left out is logged)
    split     "given" or "folds" (splits.py); train, valid, test as in fit_probes
    align     "procrustes": the states of each target model are rotated into the basis of its source, and column `aligned` says so
    The rest as in fit_probes. `n_train` counts rows of the source, `n_test`, `n_positive` and `groups` are the target's.
    Raises ValueError: fewer than two ends, models whose bases differ, groups of a source among a target's test rows, and as fit_probes.
    """
    if align is not None and along != "model":
        raise ValueError(f"align={align!r} rotates the states of one model into the basis of another; along={along!r} stays within one")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} holds something out, and a transfer does that itself; take {' or '.join(SPLITS)}")
    named = by_name(stores)
    spans, sites = listed(span) or common_spans(named), listed(site) or next(iter(named.values())).sites
    index = joined(pd.concat([store.index for store in named.values()], ignore_index=True), labels)
    given = dict(zip(SIDES, (train, valid, test), strict=True))
    (way,) = holdouts(index, split, sides=given, label=label, group=group, seed=seed)
    asked: dict[str, Any] = {"label": label, "group": group, "labels": labels}
    how: dict[str, Any] = {"balanced": balanced, "seed": seed, "device": device}
    rows: list[dict[str, Any]] = []
    for ends in _matrices(named, along, spans, values, way.sides, asked):
        fitted = {end.name: _fit(end, sites, kind, way.sides, {**asked, **how}) for end in ends}
        for target in ends:
            data = matrix(target.store, span=target.span, where={**way.test, **target.rows}, sites=sites, **asked)
            cells, probes = [], list[Probe]()
            for source in ends:
                seen = _fitted_on(source, way.sides, asked)
                check_whole({f"train and dev of {source.name!r}": seen, f"test of {target.name!r}": data.groups})
                alignments = _aligned(source, target, sites, way.train, group, align)
                for name in sites:
                    probe, alignment = fitted[source.name].probes[name, source.span, kind], alignments[name]
                    probes.append(probe if alignment is None else alignment.probe(probe, target.model))
                    cells.append({"source": source.name, "aligned": align if alignment else "", **_cell(fitted[source.name], name)})
            about = {"along": along, "target": target.name, "span": target.span, "probe": kind, "model": target.model, "label": label}
            own = [[end.name for end in ends].index(target.name) * len(sites) + i for _ in ends for i in range(len(sites))]
            told = _tell(_scores(probes, data), own, data, resampled, seed)
            rows += [{**about, **cell, **numbers} for cell, numbers in zip(cells, told, strict=True)]
    return pd.DataFrame(rows)[list(COLUMNS)]


def _fit(end: End, sites: Sequence[str], kind: str, sides: Mapping[str, Where], asked: Mapping[str, Any]) -> Sweep:
    """The probes of a source: no controls, no intervals, since its own rows are not what is told."""
    train, valid, test = ({**sides[side], **end.rows} for side in SIDES)
    moment: dict[str, Any] = {"spans": [end.span], "sites": sites, "kinds": [kind], "train": train, "valid": valid, "test": test}
    return fit_probes(end.store, **moment, **asked, shuffles=0, directions=0, resampled=0, progress=False)


def _cell(fitted: Sweep, site: str) -> dict[str, Any]:
    row = fitted.table[fitted.table["site"] == site].iloc[0]
    return {"site": site, "layer": parse_site(site)[1], "n_train": row["n_train"], "c": row["c"]}


def _fitted_on(end: End, sides: Mapping[str, Where], asked: Mapping[str, Any]) -> Shaped[np.ndarray, " n"]:
    """The groups of the rows that a source's weights and setting come from."""
    parts = [matrix(end.store, span=end.span, where={**sides[side], **end.rows}, sites=(), **asked) for side in ("train", "dev")]
    return np.concatenate([part.groups for part in parts])


def _aligned(source: End, target: End, sites: Sequence[str], train: Where, group: str, align: str | None) -> Mapping[str, Alignment | None]:
    """How the target's states are read in the source's basis, per site; None where they are in it. ValueError: they are not."""
    if source.store is target.store:
        return dict.fromkeys(sites)
    where = {**train, "span": target.span}
    return bases((source.store, target.store), (source.name, target.name), sites=sites, where=where, group=group, how=align)


def _scores(probes: Sequence[Probe], data: Dataset) -> Float[Tensor, "p n"]:
    return torch.stack([probe.readout(data.x[:, data.sites.index(probe.site)]) for probe in probes])


def _tell(scores: Float[Tensor, "p n"], own: Sequence[int], data: Dataset, resampled: int, seed: int) -> Iterator[dict[str, Any]]:
    """What each probe does on the rows of a target; `own` is the place of the target's own probe at the same site."""
    weights = resamples(data.groups, resampled, seed)
    found, caught = auroc(scores, data.y), tpr_at_fpr(scores, data.y)
    low, high = intervals(auroc, scores, data.y, weights, data.groups)
    drawn = torch.cat([auroc(scores, data.y, part) for part in torch.split(weights, max(1, CHUNK // scores.numel()))])
    bounds = torch.tensor([0.025, 0.975], dtype=drawn.dtype)
    less, more = (drawn[:, list(own)] - drawn).nanquantile(bounds, dim=0) if resampled else (low, high)
    sizes = {"n_test": len(data), "n_positive": int(data.y.sum()), "groups": len(np.unique(data.groups))}
    for i, at in enumerate(own):
        flat = 1 - float(low[i]) if i != at and less[i] == more[i] == 0 else 0.0
        yield {
            **{"auroc": float(found[i]), "low": float(low[i]), "high": float(high[i]), "tpr_at_1fpr": float(caught[i])},
            **{"loss": float(found[at] - found[i]), "loss_low": float(less[i]) - flat, "loss_high": float(more[i]) + flat, **sizes},
        }


def _matrices(
    stores: Mapping[str, Store],
    along: str,
    spans: Sequence[str],
    values: Sequence[str] | None,
    sides: Mapping[str, Where],
    asked: Mapping[str, Any],
) -> Iterator[list[End]]:
    """The ends of every matrix."""
    if along == "model":
        found = [[End(name, name, store, span) for name, store in stores.items()] for span in spans]
    elif along == "span":
        found = [[End(span, name, store, span) for span in spans] for name, store in stores.items()]
    else:
        found = [
            [End(value, name, store, span, {along: [value, None]}) for value in _values(store, along, span, values, sides, asked)]
            for name, store in stores.items()
            for span in spans
        ]
    for ends in found:
        if len(ends) < 2:
            there = f"only {ends[0].name!r} is" if ends else "none is"
            raise ValueError(f"a transfer along {along!r} has two ends or more, and {there} there. Give several stores, spans or values")
        yield ends


def _values(
    store: Store, column: str, span: str, wanted: Sequence[str] | None, sides: Mapping[str, Where], asked: Mapping[str, Any]
) -> list[str]:
    """The values of a column to transfer between; those that lack a label on some side are logged and left out."""
    if wanted is not None:
        return list(wanted)
    found = [matrix(store, span=span, where=where, sites=(), **asked) for where in sides.values()]
    if column not in found[0].index:
        there = ", ".join(map(str, found[0].index.columns))
        raise ValueError(f"there is no column {column!r} to transfer along; the store's index has {there}")
    kept = []
    for value in sorted(found[0].index[column].dropna().unique()):
        own = [(data.index[column].isna() | (data.index[column] == value)).to_numpy(dtype=bool) for data in found]
        if all(0 < int(data.y[torch.tensor(mine)].sum()) < mine.sum() for data, mine in zip(found, own, strict=True)):
            kept.append(value)
        else:
            logger.warning("%s %r has not both values of %r on every side at %r and was left out", column, value, asked["label"], span)
    return kept
