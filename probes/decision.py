"""Decision points: the step boundaries at which a thought turns towards refusing or complying.

Two things are measured at the last prompt token and at every boundary between steps, and each ranks them:

    gap      mean JS over harmful prompts − mean JS over benign ones        where safe and reasoning part ways because of what is asked,
                                                                            not because one of them writes in another manner
    margin   (mean s | harmful − mean s | benign) / pooled sd of s          where a probe's readout s tells them apart best: Cohen 1988's d

JS is the divergence of the two models' next-token distributions (hooks/divergence.py). The combined rank is that of the sum of both ranks;
among equals the larger gap comes first. A boundary that few thoughts come to is told and not ranked. Everything is decided on one side of
the data and measured again, ranks included, on the other. Intervals are from bootstrap draws of whole groups, the same draws at every
boundary, so that the share of draws in which a boundary comes first tells how firm the choice is.

A probe fitted at one anchor reads best there: the margin of such a probe speaks for that anchor, the gap does not know of it.

Shapes: values [n, k], weights [b, n] (`n` prompts, `k` anchors, `b` draws, the first of them the data as they are).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import kendalltau

from .dataset import group_names
from .metrics import resamples

LAST_PROMPT = "last_prompt"
COLUMNS = (
    *("model_a", "model_b", "model", "split", "decides", "anchor", "step", "n", "n_harmful", "groups", "reached"),
    *("js", "js_low", "js_high", "js_harmful", "js_benign", "gap", "gap_low", "gap_high"),
    *("n_margin", "margin", "margin_low", "margin_high", "rank_gap", "rank_margin", "rank", "first_gap", "first_margin", "first"),
)
RANKINGS = {"gap": "rank_gap", "margin": "rank_margin", "both": "rank"}
FIRSTS = {"gap": "first_gap", "margin": "first_margin", "both": "first"}
Values = Float[np.ndarray, "n k"]
Weights = Float[np.ndarray, "b n"]
Estimates = Float[np.ndarray, "b k"]


def decision_points(
    divergences: pd.DataFrame,
    trajectory: pd.DataFrame,
    *,
    split: str = "dev",
    confirm: str = "test",
    least: float = 0.5,
    resampled: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """A row per anchor and side, in the order decided on `split`; `confirm` is only measured.

    divergences   from divergence(safe, reasoning, transcripts)
    trajectory    readouts of one probe at the tokens of the same transcripts: prompt_id, position, token, score; model, if there
    least         an anchor is ranked if at least this share of the harmful prompts, and of the benign ones, comes to it

    n, n_harmful, groups     prompts with a label that come to the anchor, and their groups; reached: the smaller share of the two classes
    js, gap, margin          with their 95% intervals (_low, _high); n_margin: how many of the n prompts have a readout there
    rank_gap, rank_margin, rank         1 is first; nan where not ranked, or no readout is there
    first_gap, first_margin, first      share of bootstrap draws in which the anchor comes first
    Raises ValueError for tables of several pairs, models or conditions, of different tokens, and for a side without both classes.
    """
    joined = _joined(divergences, trajectory)
    sides = {side: _measured(joined[joined["split"] == side], side, least, resampled, seed) for side in (split, confirm)}
    order = sides[split].sort_values(["rank", "step"], kind="stable")["anchor"].tolist()
    order += [anchor for anchor in sides[confirm]["anchor"] if anchor not in order]
    told = pd.concat([rows.assign(split=side, decides=side == split) for side, rows in sides.items()])
    told["place"] = told["anchor"].map({anchor: i for i, anchor in enumerate(order)})
    pair = {name: divergences[name].iloc[0] for name in ("model_a", "model_b")}
    told = told.sort_values(["decides", "place"], ascending=[False, True], kind="stable")
    return told.assign(**pair, model=_only(trajectory, "model") if "model" in trajectory else "")[list(COLUMNS)].reset_index(drop=True)


def anchors(table: pd.DataFrame, n: int = 1) -> list[str]:
    """The first `n` decision points, by the side that decides, as spans that Select, capture() and steer() take: "step_end[4]", …"""
    ranked = table[table["decides"] & table["rank"].notna()].sort_values("rank", kind="stable")["anchor"].tolist()
    if len(ranked) < n:
        raise ValueError(f"{n} decision points are asked for and {len(ranked)} anchors are ranked. Ask for fewer, or lower least=.")
    return ranked[:n]


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """How rankings of decision_points() agree: gap with margin on either side, and each ranking with itself on the other side.

    Columns one, other (ranking and side), n (anchors ranked in both), tau and p (Kendall 1938, by scipy), same_first.
    """
    decided, confirmed = (table[table["decides"] == value].set_index("anchor") for value in (True, False))
    pairs = [("gap", side, "margin", side) for side in (decided, confirmed)] + [(by, decided, by, confirmed) for by in RANKINGS]
    return pd.DataFrame([_agree(*pair) for pair in pairs])


def _agree(one: str, here: pd.DataFrame, other: str, there: pd.DataFrame) -> dict[str, Any]:
    both = pd.concat([here[RANKINGS[one]], there[RANKINGS[other]]], axis=1, keys=["one", "other"]).dropna()
    tau = kendalltau(both["one"], both["other"])
    firsts = {ranks.idxmin() for _, ranks in both.items() if len(ranks)}
    names = {"one": f"{one} on {here['split'].iloc[0]}", "other": f"{other} on {there['split'].iloc[0]}"}
    return {**names, "n": len(both), "tau": float(tau.statistic), "p": float(tau.pvalue), "same_first": len(firsts) == 1}


def _joined(divergences: pd.DataFrame, trajectory: pd.DataFrame) -> pd.DataFrame:
    """Divergence and readout at the last prompt token and at every boundary, for prompts with a label."""
    for table, names in ((divergences, ("model_a", "model_b", "condition")), (trajectory, ("model", "condition"))):
        for name in names:
            if name in table:
                _only(table, name)
    at = ["prompt_id", "position"]
    here = divergences[(divergences["boundary"] | (divergences["position"] == -1)) & divergences["harmful"].notna()]
    joined = here.merge(trajectory[[*at, "token", "score"]], on=at, how="left", suffixes=("", "_read"), validate="one_to_one")
    other = joined[joined["token_read"].notna() & (joined["token_read"] != joined["token"])]
    if len(other):
        row = other.iloc[0]
        raise ValueError(
            f"at token {row['position']} of prompt {row['prompt_id']!r} the divergences have {row['token']!r}, the trajectory has "
            f"{row['token_read']!r}: they are of other transcripts. Make both from the same ones."
        )
    steps = joined["step"].where(joined["position"] >= 0, -1)
    return joined.assign(step=steps, anchor=[LAST_PROMPT if step < 0 else f"step_end[{step}]" for step in steps])


def _measured(rows: pd.DataFrame, side: str, least: float, resampled: int, seed: int) -> pd.DataFrame:
    """A row per anchor, in the order of the thought."""
    if set(rows["harmful"]) != {True, False} or rows["score"].isna().all():
        raise ValueError(
            f"decision points need boundaries of harmful and of benign prompts, with readouts, and on {side!r} there are "
            f"{int((rows['harmful'] == True).sum())} and {int((rows['harmful'] == False).sum())}, {rows['score'].count()} with a readout. "  # noqa: E712
            "Run divergence() and the trajectory over transcripts of this side."
        )
    prompts = rows.drop_duplicates("prompt_id").reset_index(drop=True)
    places = rows.drop_duplicates("anchor").sort_values("step")
    tables = (rows.pivot(index="prompt_id", columns="anchor", values=name) for name in ("js", "score"))
    js, scores = (table.loc[prompts["prompt_id"], places["anchor"]].to_numpy(dtype=float) for table in tables)
    harmful, groups = prompts["harmful"].to_numpy(dtype=bool), group_names(prompts, "group")
    weights = np.concatenate([np.ones((1, len(prompts))), resamples(groups, resampled, seed).double().numpy()])
    reached = np.stack([np.isfinite(js[harmful == label]).mean(0) for label in (True, False)]).min(0)
    mean, of_harmful, of_benign = (_means(js, weights, rows) for rows in (harmful | True, harmful, ~harmful))
    gap, margin = of_harmful - of_benign, _standardised(scores, harmful, weights)
    ranks = dict(_ranks(np.where(reached >= least, gap, np.nan), np.where(reached >= least, margin, np.nan)))
    there = np.isfinite(js)
    return pd.DataFrame(
        {
            **{"anchor": places["anchor"].to_numpy(), "step": places["step"].to_numpy(), "reached": reached},
            **{"n": there.sum(0), "n_harmful": there[harmful].sum(0), "groups": [len(np.unique(groups[one])) for one in there.T]},
            **{"js_harmful": of_harmful[0], "js_benign": of_benign[0], "n_margin": (there & np.isfinite(scores)).sum(0)},
            **_bounded("js", mean),
            **_bounded("gap", gap),
            **_bounded("margin", margin),
            **{RANKINGS[by]: found[0] for by, found in ranks.items()},
            **{FIRSTS[by]: _firsts(found[1:]) for by, found in ranks.items()},
        }
    )


def _means(values: Values, weights: Weights, rows: Bool[np.ndarray, " n"]) -> Estimates:
    """Weighted mean of every column over some rows, where there is a value."""
    there = np.isfinite(values) & rows[:, None]
    with np.errstate(invalid="ignore"):
        return (weights @ np.where(there, values, 0)) / (weights @ there)


def _standardised(scores: Values, harmful: Bool[np.ndarray, " n"], weights: Weights) -> Estimates:
    """Difference of the class means in pooled standard deviations."""
    there = np.isfinite(scores)
    centred = scores - _means(scores, weights[:1], harmful | True)
    spread, means = 0.0, []
    for rows in (harmful, ~harmful):
        mean = _means(centred, weights, rows)
        mass = weights @ (there & rows[:, None])
        spread = spread + mass * (_means(centred**2, weights, rows) - mean**2)
        means.append(mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (means[0] - means[1]) / np.sqrt(spread / (weights @ there - 2))


def _ranks(gap: Estimates, margin: Estimates) -> Iterator[tuple[str, Estimates]]:
    """Ranks in every draw, 1 the largest; nan stays nan."""
    one, other = (pd.DataFrame(values).rank(axis=1, ascending=False) for values in (gap, margin))
    both = (one + other + one / (2 * gap.shape[1])).rank(axis=1)
    for by, ranks in zip(RANKINGS, (one, other, both), strict=True):
        yield by, ranks.to_numpy()


def _firsts(ranks: Estimates) -> Float[np.ndarray, " k"]:
    """Share of draws in which a column comes first; draws without a class of prompts, which rank nothing, are left out."""
    drawn = ranks[np.isfinite(ranks).any(1)]
    return (drawn == 1).sum(0) / max(len(drawn), 1)


def _bounded(name: str, estimates: Estimates) -> dict[str, Float[np.ndarray, " k"]]:
    low, high = pd.DataFrame(estimates[1:]).quantile([0.025, 0.975]).to_numpy()
    return {name: estimates[0], f"{name}_low": low, f"{name}_high": high}


def _only(table: pd.DataFrame, name: str) -> str:
    """The one value of a column."""
    if len(values := table[name].unique()) != 1:
        raise ValueError(f"the column {name!r} holds {', '.join(map(str, values)) or 'nothing'}: choose the rows of one {name}.")
    return str(values[0])
