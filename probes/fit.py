"""All probes of a store: every site × span × kind, fitted on train, chosen on dev, told on test.

    train   weights, scaling                                 shuffled labels take the place of the true ones here, and only here
    dev     the penalty C of each cell; layer, span and kind where one probe is picked; the thresholds of a gate
    test    read once, for the table

A table row is one cell on one side. `auroc` has a 95% group-bootstrap interval (`low`, `high`); `control_auroc` is the mean over shuffled
labels, `control_high` their 95th percentile, each shuffled fit choosing its C as the true one does; `text_auroc` is the bag of words.
`n_train` and `n_test` count rows of the training side and of the side the row is about.

Shapes: x [s, n, d]; labellings [f, n], the true one first; weight [s, c, f, d] (`s` sites, `n` rows, `d` d_model, `c` penalties).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..hooks.sites import parse_site
from ..hooks.store import Store
from . import logistic, mean_difference
from .controls import bag_of_words, shuffle_labels
from .dataset import Dataset, matrix
from .metrics import auroc, intervals, resamples, tpr_at_fpr
from .probe import Probe
from .splits import check_whole

NAN = float("nan")
Fitter = Callable[[Tensor, Tensor, Sequence[float]], tuple[Tensor, Tensor]]
KINDS: Mapping[str, Fitter] = MappingProxyType({"logistic": logistic.fit, "mean_difference": mean_difference.fit})
PENALTIES: Mapping[str, tuple[float, ...]] = MappingProxyType({"logistic": (0.001, 0.01, 0.1, 1.0), "mean_difference": (NAN,)})
COLUMNS = (
    *("model", "condition", "site", "layer", "span", "pool", "probe", "label", "split", "auroc", "low", "high", "tpr_at_1fpr"),
    *("control_auroc", "control_high", "text_auroc", "n_train", "n_test", "c"),
)
Texts = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep leaves.

    table    one row per cell and side, columns as in CONTRIBUTING.md `detection`
    probes   the fitted probe of every cell, by (site, span, kind)
    """

    table: pd.DataFrame
    probes: Mapping[tuple[str, str, str], Probe]

    @property
    def best(self) -> Probe:
        """The best probe of the whole sweep on dev."""
        return self.pick()

    def pick(self, **cell: Any) -> Probe:
        """The best on dev among the cells that match, e.g. pick(span="last_prompt", probe="logistic").

        Best is the highest AUROC; among equals the higher rate at 1% false positives, then the lower layer. Test is not looked at.
        """
        if unknown := [name for name in cell if name not in self.table.columns]:
            raise ValueError(f"the table has no column {unknown[0]!r}; it has {', '.join(self.table.columns)}")
        rows = self.table[self.table["split"] == "dev"]
        for name, value in cell.items():
            if not len(found := rows[rows[name] == value]):
                raise ValueError(f"no probe has {name} == {value!r}; left are {', '.join(map(repr, rows[name].unique()))}")
            rows = found
        best = rows.sort_values(["auroc", "tpr_at_1fpr", "layer"], ascending=[False, False, True], kind="stable").iloc[0]
        return self.probes[best["site"], best["span"], best["probe"]]


def fit_probes(
    store: Store,
    *,
    label: str = "harmful",
    group: str = "group",
    train: Mapping[str, Any] = MappingProxyType({"split": "train"}),
    valid: Mapping[str, Any] = MappingProxyType({"split": "dev"}),
    test: Mapping[str, Any] = MappingProxyType({"split": "test"}),
    spans: Sequence[str] | None = None,
    kinds: Sequence[str] = ("logistic", "mean_difference"),
    texts: Texts | None = None,
    shuffles: int = 20,
    resampled: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Sweep:
    """Fit a probe at every site and span of a store.

    label, group          index columns: what to detect, and which rows belong to one goal
    train, valid, test    which rows each side has, as index column -> value; no group may lie on two sides
    spans                 by default all that the store has
    texts                 span -> prompt id -> the words of that span, for the bag of words; spans without texts get nan
    shuffles, resampled   how many shuffled labellings a cell is fitted on, and how many bootstrap resamples its interval has
    device                where the fits run; they are float64, which rules out "mps"
    Raises ValueError naming the span and what it lacks: rows, one of the two labels, a group, whole groups, finite hidden states.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"unknown kind of probe {unknown[0]!r}; known are {', '.join(KINDS)}")
    known = list(store.index["span"].unique())
    if unknown := [span for span in texts or {} if span not in known]:
        raise ValueError(f"texts were given for the span {unknown[0]!r}, which is not in the store; it holds {', '.join(known)}")
    rows: list[dict[str, Any]] = []
    probes: dict[tuple[str, str, str], Probe] = {}
    wheres = {"train": train, "dev": valid, "test": test}
    for span in track(known if spans is None else spans, "fit probes", console=Console(stderr=True), disable=not progress):
        sides = {side: matrix(store, span=span, label=label, where=where, group=group) for side, where in wheres.items()}
        check_whole({side: data.groups for side, data in sides.items()})
        words = _text_auroc(sides, span, (texts or {}).get(span))
        labellings = torch.cat([sides["train"].y[None], shuffle_labels(sides["train"].y, sides["train"].groups, shuffles, seed)])
        hidden = {side: data.x.transpose(0, 1).to(device) for side, data in sides.items()}
        for kind in kinds:
            cells = _fit_cells(hidden, labellings.to(device), sides["dev"].y.to(device), kind)
            rows += [{**row, "label": label} for row in _tell(sides, cells, store.sites, kind, words, resampled, seed)]
            header = {
                **{"sides": {side: dict(where) for side, where in wheres.items()}, "n_train": len(sides["train"])},
                **{"group": group, "seed": seed, "fingerprint": store.meta["fingerprint"]},
            }
            for probe in _probes(sides, cells, store.sites, kind, label, header):
                probes[probe.site, probe.span, probe.kind] = probe
    return Sweep(pd.DataFrame(rows)[list(COLUMNS)], probes)


@dataclass(frozen=True, eq=False)
class _Cells:
    """The fits of one span and kind at their chosen C, the true labelling first."""

    weight: Float[Tensor, "s d"]
    bias: Float[Tensor, " s"]
    c: Sequence[float]
    scores: Mapping[str, Float[Tensor, "s f n"]]


def _fit_cells(hidden: Mapping[str, Tensor], labellings: Bool[Tensor, "f n"], dev_y: Bool[Tensor, " n"], kind: str) -> _Cells:
    """Fit every C and labelling, and keep for each the C with the highest AUROC on dev (the smallest among equals)."""
    weight, bias = KINDS[kind](hidden["train"], labellings, PENALTIES[kind])
    chosen = auroc(_scores(hidden["dev"], weight, bias), dev_y).argmax(1)  # [s, f]
    weight = weight.gather(1, chosen[:, None, :, None].expand(-1, -1, -1, weight.shape[-1]))
    bias = bias.gather(1, chosen[:, None])
    scores = {side: _scores(hidden[side], weight, bias)[:, 0].cpu() for side in ("dev", "test")}
    return _Cells(weight[:, 0, 0].cpu(), bias[:, 0, 0].cpu(), [PENALTIES[kind][i] for i in chosen[:, 0].tolist()], scores)


def _scores(x: Float[Tensor, "s n d"], weight: Float[Tensor, "s c f d"], bias: Float[Tensor, "s c f"]) -> Float[Tensor, "s c f n"]:
    return torch.stack([w @ site.double().T for site, w in zip(x, weight, strict=True)]) + bias[..., None]


def _tell(
    sides: Mapping[str, Dataset], cells: _Cells, sites: Sequence[str], kind: str, words: Mapping[str, float], resampled: int, seed: int
) -> list[dict[str, Any]]:
    """The table rows of one span and kind: every site on dev and on test."""
    rows = []
    for side in ("dev", "test"):
        data, scores = sides[side], cells.scores[side]
        found, caught = auroc(scores, data.y), tpr_at_fpr(scores[:, 0], data.y)
        low, high = intervals(auroc, scores[:, 0], data.y, resamples(data.groups, resampled, seed), data.groups)
        control = found[:, 1:]
        rare = control.quantile(0.95, dim=1) if control.shape[1] else torch.full((len(sites),), NAN)
        for i, site in enumerate(sites):
            rows.append(
                {
                    **{name: _only(data.index[name]) for name in ("model", "condition", "span", "pool")},
                    **{"site": site, "layer": parse_site(site)[1], "probe": kind, "split": side, "c": cells.c[i]},
                    **{"auroc": float(found[i, 0]), "low": float(low[i]), "high": float(high[i]), "tpr_at_1fpr": float(caught[i])},
                    **{"control_auroc": float(control[i].mean()), "control_high": float(rare[i])},
                    **{"text_auroc": words.get(side, NAN), "n_train": len(sides["train"]), "n_test": len(data)},
                }
            )
    return rows


def _probes(
    sides: Mapping[str, Dataset], cells: _Cells, sites: Sequence[str], kind: str, label: str, header: Mapping[str, Any]
) -> Iterator[Probe]:
    for i, site in enumerate(sites):
        weight, bias = cells.weight[i].float(), float(cells.bias[i])
        scores = {}
        for side in ("dev", "test"):
            readout = sides[side].x[:, i] @ weight + bias  # as Probe.readout does it, so a threshold means the same later
            for name, value in (("negative", False), ("positive", True)):
                scores[f"{side}_{name}"] = readout[sides[side].y == value].sort().values
        index = sides["train"].index
        span, pool, model = (_only(index[name]) for name in ("span", "pool", "model"))
        yield Probe(weight, bias, site, span, pool, kind, label, model, scores, {**header, "c": cells.c[i]})


def _text_auroc(sides: Mapping[str, Dataset], span: str, words: Mapping[str, str] | None) -> dict[str, float]:
    """AUROC of the bag of words on dev and test; empty without texts."""
    if words is None:
        return {}
    for data in sides.values():
        if missing := [prompt for prompt in data.index["prompt_id"] if prompt not in words]:
            raise ValueError(
                f"texts[{span!r}] lacks {len(missing)} prompts of the store, the first is {missing[0]!r}; "
                "give every prompt its text, '' if it has none"
            )
    texts = {side: [words[prompt] for prompt in data.index["prompt_id"]] for side, data in sides.items()}
    return bag_of_words(texts, {side: data.y for side, data in sides.items()})


def _only(values: pd.Series[Any]) -> str:
    """The one value of a column; several joined, where a side was made of several models or conditions."""
    return "+".join(sorted(map(str, values.unique())))
