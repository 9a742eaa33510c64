"""Probes from hidden states that are never stored: two passes, of which only statistics and readouts are kept.

    first pass     gather(…)    train rows → Moments per span                        [sites, d, d] numbers, however many rows there are
    second pass    tell(…)      dev and test rows → their readouts at every setting  one number per row, site, kind and setting

Between the two the closed forms are solved. Moments of several workers, each with its share of the transcripts, are added in between
(Moments.save, load, total); they know their transcripts, so that none counts twice. The setting of a kind is chosen on dev; of the test
readouts only those at that setting are looked at.

    where    = Select("resid_post", ["last_prompt", "thought"])
    moments  = gather(stream(lens, train, where))
    probes   = tell(stream(lens, held_out, where), moments)          (site, span, kind) → Probe

Shapes: vectors [v, s, d] of a batch; weight [s, c, d] (`v` rows, `s` sites, `d` d_model, `c` settings of all kinds).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import lda, mean_difference, ridge
from .calibration import calibrated, probability
from .dataset import group_names
from .kinds import KINDS
from .metrics import auroc, measure
from .moments import Moments
from .probe import Probe
from .splits import check_whole

Solve = Callable[[Moments, Sequence[float]], tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]]
SOLVES: Mapping[str, Solve] = MappingProxyType(
    {"mean_difference": mean_difference.solve, "whitened": mean_difference.solve_whitened, "lda": lda.solve, "ridge": ridge.solve}
)
ALIKE = ("model", "fingerprint", "template", "dialect", "sites")  # of a reading's meta: what rows must share to be put together
CLASSES = (("negative", False), ("positive", True))
BOUNDS = ("value", "low", "high")
KEYS = ["prompt_id", "condition", "ids_sha"]  # what tells one transcript of a model from another
Where = Mapping[str, Any]


class Readings(Protocol):
    """Batches of hidden states with their index rows, and what a store of them would say of itself: hooks.stream() makes them."""

    @property
    def meta(self) -> Mapping[str, Any]: ...

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "v s d"], pd.DataFrame]]: ...


def gather(
    readings: Readings,
    *,
    label: str = "harmful",
    group: str = "group",
    where: Where = MappingProxyType({"split": "train"}),
    device: str = "cpu",
) -> dict[str, Moments]:
    """The moments of the rows that match `where` and carry the label, per span.

    label, group   index columns
    device         where they are accumulated, in float64
    ValueError: no such row at all; a row with nan or inf; a span pooled in two ways.
    """
    found: dict[str, Moments] = {}
    transcripts: dict[str, set[str]] = defaultdict(set)
    for one in _labelled(readings, {"": where}, label, group):
        about = {**{key: readings.meta[key] for key in ALIKE}, "span": one.span, "pool": one.pool, "label": label, "group": group}
        x, y = one.x.to(device), one.y.to(device)
        moments = Moments.of(x, y[None], about=about, groups=one.groups)
        found[one.span] = found[one.span] + moments if one.span in found else moments
        transcripts[one.span] |= one.transcripts
    if not found:
        raise ValueError(f"no row with {dict(where)} has a label {label!r}, so there is nothing to fit. Widen `where`, or label more")
    return {span: replace(moments, transcripts=frozenset(transcripts[span])) for span, moments in found.items()}


def tell(
    readings: Readings,
    moments: Mapping[str, Moments],
    *,
    kinds: Sequence[str] = tuple(SOLVES),
    valid: Where = MappingProxyType({"split": "dev"}),
    test: Where = MappingProxyType({"split": "test"}),
    resampled: int = 1000,
) -> dict[tuple[str, str, str], Probe]:
    """Solve every kind, read what was held out, choose and calibrate each cell on dev, measure it on test: (site, span, kind) → Probe.

    resampled   bootstrap resamples of the measures' intervals; 0 for none
    ValueError: a kind that has no closed form; readings of another model or sites than the moments; a span with no train, dev or
    test rows, or of one class only; a group that lies on two sides.
    """
    if unknown := [kind for kind in kinds if kind not in SOLVES]:
        raise ValueError(f"{unknown[0]!r} cannot be fitted from moments; {', '.join(SOLVES)} can. Store the hidden states for others")
    first = next(iter(moments.values())).about
    if other := [key for key in ALIKE if readings.meta[key] != first[key]]:
        raise ValueError(
            f"the moments are not of these readings: {other[0]} is {first[other[0]]!r} there and {readings.meta[other[0]]!r} here. "
            "Read with the same model and selection"
        )
    solved = {span: _solved(one, kinds) for span, one in moments.items()}
    held: dict[tuple[str, str], _Held] = defaultdict(_Held)
    for one in _labelled(readings, {"dev": valid, "test": test}, first["label"], first["group"]):
        if one.span in solved:
            held[one.span, one.side].add(one, *solved[one.span])
    probes = {}
    for span, of_span in moments.items():
        sides = {side: held[span, side] for side in ("dev", "test")}
        for side, rows in sides.items():
            rows.check(f"span {span!r}, {side}")
        check_whole({"train": np.array(sorted(of_span.groups)), **{side: np.array(rows.groups) for side, rows in sides.items()}})
        header = {
            **{"sides": {"dev": dict(valid), "test": dict(test)}, "n_train": int(of_span.class_count.sum()), "group": first["group"]},
            **{"model": first["model"], "fingerprint": first["fingerprint"]},
            "test_prompts_sha256": hashlib.sha256("\n".join(sorted(sides["test"].prompts)).encode()).hexdigest(),
        }
        for probe in _probes(of_span, solved[span], sides, kinds, resampled, header):
            probes[probe.site, probe.span, probe.kind] = probe
    return probes


@dataclass(frozen=True, eq=False)
class _Some:
    """The rows of one batch, span and side that carry the label."""

    span: str
    pool: str
    side: str
    x: Float[Tensor, "s v d"]
    y: Bool[Tensor, " v"]
    groups: Sequence[str]
    prompts: Sequence[str]
    transcripts: frozenset[str]


@dataclass(eq=False)
class _Held:
    """The readouts of one span and side, batch by batch."""

    scores: list[Float[Tensor, "s c v"]] = field(default_factory=list)
    y: list[Bool[Tensor, " v"]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    prompts: set[str] = field(default_factory=set)

    def add(self, rows: _Some, weight: Float[Tensor, "s c d"], bias: Float[Tensor, "s c"]) -> None:
        """Reads as Probe.readout does, in float32, so that a threshold that is one of these scores means the same later."""
        sites = zip(rows.x.float(), weight.float(), bias.tolist(), strict=True)
        read = [torch.stack([h.clone() @ w.clone() + b for w, b in zip(ws, bs, strict=True)]) for h, ws, bs in sites]
        self.scores.append(torch.stack(read))
        self.y.append(rows.y)
        self.groups += rows.groups
        self.prompts |= set(rows.prompts)

    def check(self, what: str) -> None:
        there = {bool(value) for y in self.y for value in y}
        if len(there) < 2:
            raise ValueError(f"{what}: {sum(map(len, self.y))} rows, and both labels are needed. Read more transcripts, or widen the side")


def _labelled(readings: Readings, sides: Mapping[str, Where], label: str, group: str) -> Iterator[_Some]:
    for vectors, index in readings:
        index = index.reset_index(drop=True)
        known = _column(index, label).notna()
        if odd := [value for value in index[label][known].unique() if value not in (True, False)]:
            raise ValueError(f"label {label!r} holds {odd[0]!r}; a label is true or false. Make one with stream(…, labels=…)")
        for side, where in sides.items():
            match = known.copy()
            for column, value in where.items():
                match &= _column(index, column).isin(value if isinstance(value, list | tuple | set | frozenset) else [value])
            for (span, pool), rows in index[match].groupby(["span", "pool"], sort=False):
                x = vectors[torch.from_numpy(rows.index.to_numpy(copy=True))].transpose(0, 1)
                _check_finite(x, readings.meta["sites"], rows)
                y, groups = torch.tensor(rows[label].to_numpy(dtype=bool)), group_names(rows.reset_index(drop=True), group).tolist()
                transcripts = frozenset(_short(key) for key in rows[KEYS].drop_duplicates().itertuples(index=False, name=None))
                yield _Some(str(span), str(pool), side, x, y, groups, rows["prompt_id"].tolist(), transcripts)


def _short(key: tuple[str, ...]) -> str:
    """16 hexadecimal digits: among a million transcripts two share them by chance once in 37 million."""
    return hashlib.sha256("\n".join(map(str, key)).encode()).hexdigest()[:16]


def _column(index: pd.DataFrame, name: str) -> pd.Series[Any]:
    if name not in index.columns:
        raise ValueError(f"the rows have no column {name!r}; they have {', '.join(index.columns)}. Add it with stream(…, labels=…)")
    return index[name]


def _check_finite(x: Float[Tensor, "s v d"], sites: Sequence[str], rows: pd.DataFrame) -> None:
    bad = (~x.isfinite()).any(-1).nonzero()
    if len(bad):
        site, row = bad[0].tolist()
        prompt, span = rows["prompt_id"].iloc[row], rows["span"].iloc[row]
        raise ValueError(
            f"the hidden state of prompt {prompt!r} at {sites[site]}, span {span!r}, holds nan or inf; "
            "load the model in float32 or bfloat16, or leave the prompt out"
        )


def _solved(moments: Moments, kinds: Sequence[str]) -> tuple[Float[Tensor, "s c d"], Float[Tensor, "s c"]]:
    """Weights and biases of all settings of all kinds, one kind after the other."""
    several = [SOLVES[kind](moments, KINDS[kind].settings) for kind in kinds]
    return torch.cat([weight[:, :, 0] for weight, _ in several], 1).cpu(), torch.cat([bias[..., 0] for _, bias in several], 1).cpu()


def _probes(
    moments: Moments,
    solved: tuple[Float[Tensor, "s c d"], Float[Tensor, "s c"]],
    sides: Mapping[str, _Held],
    kinds: Sequence[str],
    resampled: int,
    header: Mapping[str, Any],
) -> Iterator[Probe]:
    about, (weight, bias) = moments.about, solved
    y = {side: torch.cat(rows.y) for side, rows in sides.items()}
    scores = {side: torch.cat(rows.scores, -1) for side, rows in sides.items()}
    every = torch.arange(len(weight))
    start = 0
    for kind in kinds:
        settings = KINDS[kind].settings
        best = auroc(scores["dev"][:, start : start + len(settings)], y["dev"]).argmax(1)  # the smallest setting among equals
        read = {side: found[every, start + best] for side, found in scores.items()}
        slope, offset = calibrated(read["dev"], y["dev"])
        told = measure(
            read["test"], probability(read["test"], slope, offset), y["test"], np.array(sides["test"].groups), resampled=resampled
        )
        sizes = {"positives": int(y["test"].sum()), "negatives": int((~y["test"]).sum()), "groups": len(set(sides["test"].groups))}
        for site, name in enumerate(about["sites"]):
            setting = settings[best[site]]
            yield Probe(
                weight[site, start + best[site]].float(),
                float(bias[site, start + best[site]]),
                name,
                about["span"],
                about["pool"],
                kind,
                about["label"],
                about["model"],
                {f"{side}_{at}": read[side][site, y[side] == value].sort().values for side in read for at, value in CLASSES},
                {**header, "chosen": {"on": "dev", "setting_among": len(settings)}},
                setting=None if isnan(setting) else setting,
                calibration=(float(slope[site]), float(offset[site])),
                metrics={
                    **{of: {key: _known(part[site]) for key, part in zip(BOUNDS, parts, strict=True)} for of, parts in told.items()},
                    "sizes": sizes,
                },
            )
        start += len(settings)


def _known(value: Float[Tensor, ""]) -> float | None:
    return None if value.isnan() else float(value)
