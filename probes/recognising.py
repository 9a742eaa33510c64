"""Fitting an anchor: a readout that tells the boundaries at which a thought is decided from its other boundaries.

    decision      a boundary at which patching this one token closes at least `counts` nats (effect.py), at the site where it closes most
    readout       logistic regression on the writer's own hidden states at the boundaries of training thoughts, per site and penalty
    site, C       the largest AUROC on dev; among equals the earlier site, which can be read in time for more edits
    threshold     the largest F1 on dev

No label of a prompt is asked for, and no word is looked at: a boundary counts by what was measured. A thought in which the models part
nowhere does not tell where it would have been decided; it is left out of fitting and measuring, and the anchor reads it all the same.

Baselines that know no hidden state, each the share of decisions among training boundaries: with the same number ("step 4"), and with the
same last token. Control: labels shuffled among the boundaries of each thought. Alain and Bengio 2016; what is a decision: Vig et al. 2020.

Shapes: x [s, n, d], y [n] (`s` sites, `n` boundaries, `d` width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..hooks.anchor import Anchor
from . import logistic
from .boundaries import Boundaries
from .dataset import group_names
from .effect import PATCHED
from .metrics import auroc, group_bootstrap

COUNTS = 0.1
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
BASELINES = {"number_auroc": "step", "token_auroc": "token"}
SIDES = ("train", "dev", "test")


@dataclass(frozen=True, eq=False)
class Recognised:
    """An anchor, and what it reads.

    boundaries   a row per end of a step: closed, before, decision (measured), counted (its thought has one), score, found
    readout      a row per site and split: auroc with its interval, controls, and for the chosen site precision and recall
    """

    anchor: Anchor
    boundaries: pd.DataFrame
    readout: pd.DataFrame


def recognise(
    read: Boundaries,
    effects: pd.DataFrame,
    *,
    made_for: dict[str, Any] | None = None,
    counts: float = COUNTS,
    penalties: Sequence[float] = PENALTIES,
    shuffles: int = 5,
    resampled: int = 1000,
    seed: int = 0,
) -> Recognised:
    """Fit on train, choose on dev, tell all sides.

    read, effects   of the same transcripts
    ValueError where train or dev have no thought that is decided at one boundary and not at another.
    """
    told = measured(read, effects, counts)
    ends = torch.from_numpy((read.rows["step"] >= 0).to_numpy(dtype=bool).copy())
    x = read.where(ends).b.transpose(0, 1)
    y, counted = (torch.from_numpy(told[name].to_numpy(dtype=bool).copy()) for name in ("decision", "counted"))
    sides = {side: counted & torch.from_numpy((told["split"] == side).to_numpy(dtype=bool).copy()) for side in SIDES}
    _check(y, sides, counts)
    weight, bias = logistic.fit(x, y[None], penalties, rows=sides["train"][None], balanced=True)
    scores = torch.einsum("snd,scd->scn", x.double(), weight[:, :, 0]) + bias[:, :, 0, None]
    on_dev = auroc(scores[..., sides["dev"]], y[sides["dev"]])
    penalty = on_dev.argmax(1)
    site = int(on_dev.max(1).values.argmax())
    best = scores[torch.arange(len(x)), penalty]
    threshold = best_f1(best[site][sides["dev"]], y[sides["dev"]])
    told = told.assign(score=best[site].numpy(), found=(best[site] > threshold).numpy())
    rows = _readout(read.sites, x, y, sides, best, told, [penalties[int(c)] for c in penalty], shuffles, resampled, seed)
    table = _with_rates(rows, told, read.sites[site])
    header = {"counts": counts, "penalty": penalties[int(penalty[site])], "readout": table[table["chosen"]].to_dict("records")}
    anchor = Anchor(
        weight[site, penalty[site], 0].float(), float(bias[site, penalty[site], 0]), read.sites[site], threshold, made_for or {}, header
    )
    return Recognised(anchor, told, table)


def measured(read: Boundaries, effects: pd.DataFrame, counts: float = COUNTS) -> pd.DataFrame:
    """The ends of steps, with what patching closes there at the best site, and whether that makes them decisions."""
    patched = effects[effects["source"] == PATCHED].groupby(["prompt_id", "position"], sort=False)
    most = patched.agg(closed=("closed", "max"), before=("before", "first"), a_writes=("a_writes", "first")).reset_index()
    ends = read.rows[read.rows["step"] >= 0].reset_index(drop=True)
    told = ends.merge(most, on=["prompt_id", "position"], how="left", validate="one_to_one")
    if lacking := int(told["closed"].isna().sum()):
        raise ValueError(f"{lacking} boundaries were not patched. Measure effects() of the same transcripts.")
    told = told.assign(decision=told["closed"] >= counts)
    return told.assign(counted=told.groupby("prompt_id")["decision"].transform("any"))


def best_f1(scores: Float[Tensor, " n"], y: Bool[Tensor, " n"]) -> float:
    """The threshold above which F1 is largest: halfway between two scores, or below all of them."""
    order = scores.double().argsort(descending=True)
    ranked, hits = scores.double()[order], y[order].cumsum(0).double()
    f1 = 2 * hits / (torch.arange(1, len(y) + 1) + y.sum())
    last = torch.cat([ranked[:-1] > ranked[1:], torch.tensor([True])])  # equal scores pass or fail together
    k = int(torch.where(last, f1, -1.0).argmax())
    return float((ranked[k] + ranked[k + 1]) / 2) if k + 1 < len(y) else float(ranked[k] - 1)


def _check(y: Bool[Tensor, " n"], sides: dict[str, Bool[Tensor, " n"]], counts: float) -> None:
    for side in ("train", "dev"):
        positive, negative = int(y[sides[side]].sum()), int((~y[sides[side]]).sum())
        if not positive or not negative:
            raise ValueError(
                f"on {side} patching one token closes {counts} nats at {positive} boundaries, and in the same thoughts less at {negative}: "
                "an anchor needs both. Pass more transcripts, or lower counts= if the models part less."
            )


def _readout(
    sites: Sequence[str],
    x: Float[Tensor, "s n d"],
    y: Bool[Tensor, " n"],
    sides: dict[str, Bool[Tensor, " n"]],
    best: Float[Tensor, "s n"],
    told: pd.DataFrame,
    penalties: Sequence[float],
    shuffles: int,
    resampled: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A row per site and held-out side. Shuffled labels are fitted with the penalty of the site's own."""
    groups, shuffled = group_names(told, "group"), _shuffled(y, told["prompt_id"], shuffles, seed)
    baselines = {name: _share(told[column], y, sides["train"]) for name, column in BASELINES.items()}
    found = []
    for i, site in enumerate(sites):
        w, b = logistic.fit(x[i : i + 1], shuffled, penalties[i : i + 1], rows=sides["train"].expand(shuffles, -1), balanced=True)
        control = x[i].double() @ w[0, 0].T + b[0, 0]
        for side in ("dev", "test"):
            rows = sides[side]
            if not rows.any() or y[rows].all() or not y[rows].any():
                continue
            low, high = group_bootstrap(auroc, best[i][rows], y[rows], groups[rows.numpy()], resampled, seed)
            found.append(
                {
                    **{"site": site, "split": side, "penalty": penalties[i], "n": int(rows.sum()), "n_decisions": int(y[rows].sum())},
                    **{
                        "groups": len(np.unique(groups[rows.numpy()])),
                        "auroc": float(auroc(best[i][rows], y[rows])),
                        "low": low,
                        "high": high,
                    },
                    "control_auroc": float(auroc(control.T[:, rows], y[rows]).mean()),
                    **{name: float(auroc(scores[rows], y[rows])) for name, scores in baselines.items()},
                }
            )
    return found


def _with_rates(rows: list[dict[str, Any]], told: pd.DataFrame, site: str) -> pd.DataFrame:
    """Precision and recall of the chosen site against what was measured, in the thoughts that have a decision."""
    table = pd.DataFrame(rows)
    table = table.assign(chosen=table["site"] == site, precision=np.nan, recall=np.nan)
    for number in table.index[table["chosen"]]:
        here = told[told["counted"] & (told["split"] == table.loc[number, "split"])]
        hits = (here["found"] & here["decision"]).sum()
        table.loc[number, "precision"] = hits / max(here["found"].sum(), 1)
        table.loc[number, "recall"] = hits / here["decision"].sum()
    return table


def _shuffled(y: Bool[Tensor, " n"], thoughts: pd.Series, draws: int, seed: int) -> Bool[Tensor, "f n"]:
    """Labels dealt anew among the boundaries of each thought."""
    chance = np.random.default_rng(seed)
    places = [np.asarray(rows) for rows in thoughts.groupby(thoughts, sort=False).indices.values()]
    dealt = np.tile(y.numpy(), (draws, 1))
    for row in dealt:
        for some in places:
            row[some] = row[chance.permutation(some)]
    return torch.from_numpy(dealt)


def _share(values: pd.Series, y: Bool[Tensor, " n"], train: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """For each boundary the share of decisions among training boundaries with the same value."""
    seen = pd.Series(y[train].double().numpy()).groupby(values[train.numpy()].to_numpy()).mean()
    return torch.tensor(values.map(seen).fillna(0.0).to_numpy(dtype=float))
