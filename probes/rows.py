"""From scores to table rows: the same for probes and for the baselines they are held against.

Dev rows set the threshold (1% false positives) and the calibration (calibration.py, slopes of at least 0); both are then applied to dev and
to test. A score that ranks the dev rows the wrong way round would otherwise be turned around by its own calibration, and show an AUROC
below .5 beside an accuracy above chance; it gets the slope 0, which says the share of positives of every row. Rows of
the subset `complied` are the positives that the model complied with and all negatives: a probe that reads harm there does not read refusal.

Shapes: scores [s, n] (`s` probes or baselines of the same rows, `n` rows); control [s, f, n] (`f` labellings or random directions);
task [s, k, n] (`k` deals of the control task).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .calibration import calibrated, probability
from .controls import permutation_p
from .dataset import Dataset
from .metrics import MEASURES, accuracy, auroc, measure, rarer_groups
from .probe import cut
from .sweep import ALL, COMPLIED

logger = logging.getLogger(__name__)

FPR = 0.01
HELD = ("dev", "test")
Scores = Mapping[str, Float[Tensor, "s n"]]  # by side
Told = Mapping[tuple[str, str], list[dict[str, Any]]]  # (side, subset) -> a row per score


@dataclass(frozen=True, eq=False)
class Held:
    """Rows that were held out, and how they are measured.

    sides      dev and test; their hidden states are not looked at
    complied   index column that says the model complied, or None
    about      columns that all rows share
    """

    sides: Mapping[str, Dataset]
    complied: str | None
    resampled: int
    seed: int
    about: Mapping[str, Any]

    @cached_property
    def subsets(self) -> Mapping[tuple[str, str], Bool[Tensor, " n"]]:
        """(side, subset) -> which rows count. Rows that no interval can be told of are logged."""
        found = {(side, name): rows for side in HELD for name, rows in _subsets(self.sides[side], side, self.complied).items()}
        for (side, name), rows in found.items():
            if self.resampled and (fewest := rarer_groups(self.sides[side].y[rows], self.sides[side].groups[rows.numpy()])) < 2:
                logger.warning("a class of the %s rows (%s) comes from %d group: no interval can be told of them", side, name, fewest)
        return found


@dataclass(frozen=True, eq=False)
class Decision:
    """What dev rows say of each score: the threshold for 1% false positives, and the calibration."""

    threshold: Float[Tensor, " s"]
    slope: Float[Tensor, " s"]
    offset: Float[Tensor, " s"]


def decide(scores: Float[Tensor, "s n"], y: Bool[Tensor, " n"]) -> Decision:
    """The decision by the dev rows."""
    return Decision(torch.tensor([cut(row[~y].sort().values, FPR) for row in scores], dtype=torch.float64), *calibrated(scores, y))


def tell(held: Held, scores: Scores, decision: Decision) -> Told:
    """A row per score on every side and subset: what it reads, and what its threshold does."""
    rows = {}
    for (side, subset), keep in held.subsets.items():
        data, here = held.sides[side], scores[side][:, keep]
        y, groups = data.y[keep], data.groups[keep.numpy()]
        chances = _chances(here, decision.slope, decision.offset)
        found = measure(here, chances, y, groups, resampled=held.resampled, seed=held.seed)
        passed = here > decision.threshold[:, None]
        columns = {
            **{name: value for name, (value, _, _) in found.items()},
            **{bound(name, "low"): low for name, (_, low, _) in found.items()},
            **{bound(name, "high"): high for name, (_, _, high) in found.items()},
            "threshold": decision.threshold,
            "fpr_reached": passed[:, ~y].double().mean(1),
            "tpr_reached": passed[:, y].double().mean(1),
        }
        about = {**held.about, **{name: only(data.index[name]) for name in ("model", "condition", "span", "pool")}}
        about |= {"split": side, "subset": subset, "n_test": len(y), "n_positive": int(y.sum()), "groups": len(np.unique(groups))}
        rows[side, subset] = [{**about, **_at(columns, i)} for i in range(len(here))]
    return rows


def with_controls(
    held: Held,
    told: Told,
    shuffled: Mapping[str, Float[Tensor, "s f n"]],
    random: Mapping[str, Float[Tensor, "s r n"]],
    task: Mapping[str, tuple[Float[Tensor, "*s k n"], Bool[Tensor, "k n"]]],
) -> Told:
    """The rows of tell() with what the controls reach on the same side and subset.

    shuffled   scores of the probes fitted to shuffled labels; random: of random directions
    task       scores of the probes fitted to each deal of the control task, with its labels; empty without one. They are calibrated on
               dev as probes are
    """
    rows = {}
    dealt = {side: _deals(*of_side) for side, of_side in task.items()}
    calibrations = [calibrated(*deal) for deal in dealt["dev"]] if task else []
    for (side, subset), keep in held.subsets.items():
        y = held.sides[side].y[keep]
        chance, drawn = auroc(shuffled[side][..., keep], y), auroc(random[side][..., keep], y)
        columns = {
            **{"control_auroc": chance.mean(1), "control_high": _high(chance)},
            **{"control_p": permutation_p(_column(told[side, subset], "auroc"), chance)},
            **{"random_auroc": drawn.mean(1), "random_high": _high(drawn)},
        }
        if task:
            each = zip(dealt[side], calibrations, strict=True)
            known = torch.stack([accuracy(_chances(scores, *by)[:, keep], labels[keep]) for (scores, labels), by in each])  # [k, s]
            true = _column(told[side, subset], "accuracy")
            columns |= {"task_accuracy": known.mean(0), "selectivity": true - known.mean(0)}
            columns |= {"selectivity_low": true - known.amax(0), "selectivity_high": true - known.amin(0)}
        rows[side, subset] = [{**row, **_at(columns, i)} for i, row in enumerate(told[side, subset])]
    return rows


def metrics_of(row: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The measures of a row as a probe's file holds them: value, low and high (None where nothing was resampled), and the sizes."""
    found = {name: {"value": row[name], "low": row[bound(name, "low")], "high": row[bound(name, "high")]} for name in MEASURES}
    sizes = {"positives": row["n_positive"], "negatives": row["n_test"] - row["n_positive"], "groups": row["groups"]}
    return {name: {key: None if value != value else value for key, value in of.items()} for name, of in {**found, "sizes": sizes}.items()}


def by_class(held: Held, scores: Mapping[str, Float[Tensor, " n"]]) -> dict[str, Float[Tensor, " m"]]:
    """The scores of one probe as it keeps them: dev_negative, dev_positive, test_negative, test_positive, ascending."""
    return {
        f"{side}_{name}": scores[side][held.sides[side].y == value].sort().values
        for side in HELD
        for name, value in (("negative", False), ("positive", True))
    }


def bound(name: str, which: str) -> str:
    """The column of a bound: low and high are those of the AUROC."""
    return which if name == "auroc" else f"{name}_{which}"


def only(values: pd.Series[Any]) -> str:
    """The one value of a column; several joined, where a side was made of several models or conditions."""
    return "+".join(sorted(map(str, values.unique())))


def _subsets(data: Dataset, side: str, complied: str | None) -> dict[str, Bool[Tensor, " n"]]:
    if complied is None:
        return {ALL: torch.ones_like(data.y)}
    if complied not in data.index:
        raise ValueError(f"no column {complied!r} says what the model complied with; pass it in labels={{prompt id: {{{complied!r}: …}}}}")
    gave = data.y & torch.tensor((data.index[complied].astype("boolean").fillna(False)).to_numpy(dtype=bool))
    if not bool(gave.any()):
        logger.info("no positive %s row was complied with; the subset is left out", side)
        return {ALL: torch.ones_like(data.y)}
    return {ALL: torch.ones_like(data.y), COMPLIED: gave | ~data.y}


def _deals(scores: Float[Tensor, "*s k n"], labels: Bool[Tensor, "k n"]) -> list[tuple[Float[Tensor, "s n"], Bool[Tensor, " n"]]]:
    return list(zip(scores.reshape(-1, *labels.shape).unbind(1), labels, strict=True))


def _chances(scores: Float[Tensor, "s n"], slope: Float[Tensor, " s"], offset: Float[Tensor, " s"]) -> Float[Tensor, "s n"]:
    """Probabilities, score by score: torch takes another exponential for the last few entries of a tensor than for the rest."""
    return torch.cat([probability(*(part[i : i + 1] for part in (scores, slope, offset))) for i in range(len(scores))])


def _at(columns: Mapping[str, Float[Tensor, " s"]], i: int) -> dict[str, float]:
    return {name: float(values[i]) for name, values in columns.items()}


def _column(rows: list[dict[str, Any]], name: str) -> Float[Tensor, " s"]:
    return torch.tensor([row[name] for row in rows], dtype=torch.float64)


def _high(values: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
    return values.quantile(0.95, dim=1) if values.shape[1] else values.new_full(values.shape[:1], torch.nan)
