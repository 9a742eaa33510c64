"""How long detection takes once the thought has named what gives it away.

    delay = position of the first readout above the threshold, at or after the naming − position of the naming          in tokens

A prompt never detected while thinking has an endless delay and counts as such: the median is over all prompts that name the thing, so it is
inf where fewer than half are detected (a median over the detected ones alone would look the shorter the more are missed). The benign side
stands beside: what passes there is a false alarm, and how soon it comes is what delay means by chance.

Intervals as in timing.py. Shapes: values [p], weights [b, p] (`p` prompts, `b` draws and one).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from .timing import NEVER, READING, SIDES, Weights, averages, draws_of, interval, name_of, thoughts

logger = logging.getLogger(__name__)


def alarm_threshold(table: pd.DataFrame, fpr: float = 0.01, *, split: str = "dev") -> dict[str, float]:
    """model -> the lowest threshold that at most a share `fpr` of the benign prompts of `split` ever read above while thinking.

    A monitor that looks at every token has as many chances of a false alarm as there are tokens; here a prompt is one alarm or none.
    """
    moments = thoughts(table)
    rows = moments[(moments["split"] == split) & ~moments["harmful"]]
    if rows.empty:
        there = ", ".join(sorted(map(str, moments["split"].unique())))
        raise ValueError(
            f"the trajectory table has no benign prompt of split {split!r}, only {there}. Follow that split too, or pass split="
        )
    if not 0 <= fpr < 1:
        raise ValueError(f"a false positive rate lies in [0, 1), not {fpr}")
    found = {}
    for model, own in rows.groupby("model", sort=False):
        highest = np.sort(own.groupby(["condition", "prompt_id"])["score"].max().to_numpy())
        if 0 < fpr * len(highest) < 1:
            logger.warning("a false positive rate of %g cannot be set on %d benign prompts of %s; none may pass", fpr, len(highest), model)
        found[str(model)] = float(highest[len(highest) - 1 - int(fpr * len(highest) + 1e-9)])
    return found


def delays(table: pd.DataFrame, named: Mapping[str, int | None], threshold: Mapping[str, float]) -> pd.DataFrame:
    """How many tokens after the thought named the thing its readout first passes the threshold, a row per prompt.

    named       prompt id -> position of the output token that names it, None where the thought never does (trajectory.named); prompts that
                are not in it, or have no thought, are left out
    threshold   model -> threshold, as alarm_threshold() sets it
    Columns model, condition, split, prompt_id, group, harmful, named (nan: never), before (the threshold was passed before that), delay
    (inf: never while thinking; nan: never named).
    """
    moments = thoughts(table)
    moments = moments[moments["prompt_id"].isin(list(named))]
    if moments.empty:
        raise ValueError("no prompt of `named` is in the trajectory table; `named` maps the prompt ids of the table to positions")
    if missing := sorted(set(moments["model"]) - set(threshold)):
        raise ValueError(f"no threshold for model {missing[0]!r}; there are thresholds for {', '.join(threshold)}")
    known = moments["prompt_id"].map({prompt: np.nan if at is None else at for prompt, at in named.items()}).astype(float)
    since = moments["position"] - known
    passed = moments["score"] > moments["model"].map(dict(threshold))
    rows = moments.assign(named=known, before=passed & (since < 0), delay=since.where(passed & (since >= 0)))
    who = [*READING, "prompt_id", "group", "harmful"]
    found = rows.groupby(who, sort=False).agg({"named": "first", "before": "any", "delay": "min"}).reset_index()
    return found.assign(delay=found["delay"].where(found["delay"].notna() | found["named"].isna(), NEVER))


def delay(
    table: pd.DataFrame, named: Mapping[str, int | None], threshold: Mapping[str, float], *, resampled: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Detection after the thing is named, a row per reading and side; the benign side tells how often the alarm is false.

    Columns model, condition, split, side, threshold, n (prompts whose thought names it), never_named, before (of n: passed the threshold
    earlier), detected, never_detected, share, share_low, share_high (detected of n), median, median_low, median_high (tokens, a prompt
    never detected counting as inf), groups.
    """
    rows = []
    for key, found in delays(table, named, threshold).groupby(list(READING), sort=False):
        name = name_of(key)
        weights = draws_of(found["group"].to_numpy(str), resampled, seed)
        for side, harmful in SIDES.items():
            mine = (found["harmful"] == harmful).to_numpy()
            known = mine & found["named"].notna().to_numpy()
            if not known.any():
                continue
            took, groups = found["delay"].to_numpy(float)[known], int(found["group"][known].nunique())
            share, share_low, share_high = interval(averages(np.isfinite(took)[:, None], weights[:, known])[:, 0], groups)
            median, median_low, median_high = interval(_medians(took, weights[:, known]))
            rows.append(
                {
                    **{**name, "side": side, "threshold": threshold[name["model"]]},
                    **{"n": len(took), "never_named": int((mine & ~known).sum()), "before": int(found["before"][known].sum())},
                    **{"detected": int(np.isfinite(took).sum()), "never_detected": int(np.isinf(took).sum())},
                    **{"share": share, "share_low": share_low, "share_high": share_high},
                    **{"median": median, "median_low": median_low, "median_high": median_high, "groups": groups},
                }
            )
    return pd.DataFrame(rows)


def _medians(values: Float[np.ndarray, " p"], weights: Weights) -> Float[np.ndarray, " b"]:
    """The smallest value that at least half of the weight does not exceed."""
    order = np.argsort(values)
    mass = weights[:, order].cumsum(1)
    return np.where(mass[:, -1] > 0, values[order][(mass >= mass[:, -1:] / 2).argmax(1)], np.nan)
