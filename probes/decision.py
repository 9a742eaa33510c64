"""Decision points: the step boundaries at which a thought turns towards refusing or complying.

Two things, or three, are measured at the last prompt token and at every boundary between steps, and each ranks them:

    gap      mean JS over harmful prompts − mean JS over benign ones        where safe and reasoning part ways because of what is asked,
                                                                            not because one of them writes in another manner
    margin   (mean s | harmful − mean s | benign) / pooled sd of s          where a probe's readout s tells them apart best: Cohen 1988's d
    effect   mean closed over harmful prompts − max(that over benign, 0)    where steering one token takes the divergence back (effect.py)

JS is the divergence of the two models' next-token distributions (hooks/divergence.py). The combined rank is that of the sum of all ranks;
among equals the larger gap comes first. A boundary that few thoughts come to is told and not ranked. Everything is decided on one side of
the data and measured again, ranks included, on the other. Intervals are from bootstrap draws of whole groups, the same draws at every
boundary, so that the share of draws in which a boundary comes first tells how firm the choice is.

A probe fitted at one anchor reads best there: the margin of such a probe speaks for that anchor, the gap does not know of it.

Shapes: values [n, k], weights [b, n] (`n` prompts, `k` anchors, `b` draws, the first of them the data as they are).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
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
OF_EFFECT = (
    *("source", "site", "strength", "n_effect", "before_harmful", "closed_harmful", "closed_benign"),
    *("effect", "effect_low", "effect_high", "rank_effect", "first_effect"),
)
MEASURES = ("gap", "margin", "effect")
Values = Float[np.ndarray, "n k"]
Weights = Float[np.ndarray, "b n"]
Estimates = Float[np.ndarray, "b k"]


def decision_points(
    divergences: pd.DataFrame,
    trajectory: pd.DataFrame,
    effects: pd.DataFrame | None = None,
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
    effects       from chosen(): before and closed at the boundaries of the same transcripts, of one setting per anchor; left out, two
                  measures rank
    least         an anchor is ranked if at least this share of the harmful prompts, and of the benign ones, comes to it

    n, n_harmful, groups     prompts with a label that come to the anchor, and their groups; reached: the smaller share of the two classes
    js, gap, margin          with their 95% intervals (_low, _high); n_margin: how many of the n prompts have a readout there
    rank_gap, rank_margin, rank         1 is first; nan where not ranked, or no readout is there
    first_gap, first_margin, first      share of bootstrap draws in which the anchor comes first
    with effects also                   OF_EFFECT: the setting, its effect, and what it closes on either class
    Raises ValueError for tables of several pairs, models or conditions, of different tokens, and for a side without both classes.
    """
    joined = _joined(divergences, trajectory)
    if effects is not None:
        joined = joined.merge(effects[["prompt_id", "position", "before", "closed"]], on=["prompt_id", "position"], how="left")
    sides = {side: _measured(joined[joined["split"] == side], side, least, resampled, seed) for side in (split, confirm)}
    order = sides[split].sort_values(["rank", "step"], kind="stable")["anchor"].tolist()
    order += [anchor for anchor in sides[confirm]["anchor"] if anchor not in order]
    told = pd.concat([rows.assign(split=side, decides=side == split) for side, rows in sides.items()])
    told["place"] = told["anchor"].map({anchor: i for i, anchor in enumerate(order)})
    pair = {name: divergences[name].iloc[0] for name in ("model_a", "model_b")}
    told = told.sort_values(["decides", "place"], ascending=[False, True], kind="stable")
    told = told.assign(**pair, model=_only(trajectory, "model") if "model" in trajectory else "")
    if effects is not None:
        told = told.merge(effects[["anchor", "source", "site", "strength"]].drop_duplicates("anchor"), on="anchor", how="left")
    return told[[*COLUMNS, *(OF_EFFECT if effects is not None else ())]].reset_index(drop=True)


def anchors(table: pd.DataFrame, n: int = 1) -> list[str]:
    """The first `n` decision points, by the side that decides, as spans that Select, capture() and steer() take: "step_end[4]", …"""
    ranked = table[table["decides"] & table["rank"].notna()].sort_values("rank", kind="stable")["anchor"].tolist()
    if len(ranked) < n:
        raise ValueError(f"{n} decision points are asked for and {len(ranked)} anchors are ranked. Ask for fewer, or lower least=.")
    return ranked[:n]


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """How rankings of decision_points() agree: the measures with each other on either side, and each ranking with itself on the other side.

    Columns one, other (ranking and side), n (anchors ranked in both), tau and p (Kendall 1938, by scipy), same_first.
    """
    decided, confirmed = (table[table["decides"] == value].set_index("anchor") for value in (True, False))
    by_name = rankings(table)
    apart = list(combinations([name for name in MEASURES if name in by_name], 2))
    pairs = [(one, side, other, side) for one, other in apart for side in (decided, confirmed)]
    pairs += [(by, decided, by, confirmed) for by in by_name]
    return pd.DataFrame([_agree(*pair) for pair in pairs])


def rankings(table: pd.DataFrame) -> dict[str, str]:
    """The rankings of a table of decision_points(), by name: its measures, and all of them together."""
    there = [name for name in MEASURES if f"rank_{name}" in table]
    return {**{name: f"rank_{name}" for name in there}, "both" if len(there) == 2 else "all": "rank"}


def _agree(one: str, here: pd.DataFrame, other: str, there: pd.DataFrame) -> dict[str, Any]:
    both = pd.concat([here[rankings(here)[one]], there[rankings(there)[other]]], axis=1, keys=["one", "other"]).dropna()
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
    names = [name for name in ("js", "score", "closed", "before") if name in rows]
    tables = {name: rows.pivot(index="prompt_id", columns="anchor", values=name) for name in names}
    wide = {name: table.loc[prompts["prompt_id"], places["anchor"]].to_numpy(dtype=float) for name, table in tables.items()}
    js, scores = wide["js"], wide["score"]
    harmful, groups = prompts["harmful"].to_numpy(dtype=bool), group_names(prompts, "group")
    weights = np.concatenate([np.ones((1, len(prompts))), resamples(groups, resampled, seed).double().numpy()])
    reached = np.stack([np.isfinite(js[harmful == label]).mean(0) for label in (True, False)]).min(0)
    mean, of_harmful, of_benign = (_means(js, weights, rows) for rows in (harmful | True, harmful, ~harmful))
    estimates = {"gap": of_harmful - of_benign, "margin": _standardised(scores, harmful, weights)}
    further: dict[str, Any] = {}
    if "closed" in wide:
        closed = [_means(wide["closed"], weights, side) for side in (harmful, ~harmful)]
        estimates["effect"] = closed[0] - np.maximum(closed[1], 0)
        further = {"n_effect": np.isfinite(wide["closed"]).sum(0), "before_harmful": _means(wide["before"], weights[:1], harmful)[0]}
        further |= {"closed_harmful": closed[0][0], "closed_benign": closed[1][0]}
    ranks = dict(_ranks({name: np.where(reached >= least, values, np.nan) for name, values in estimates.items()}))
    there = np.isfinite(js)
    return pd.DataFrame(
        {
            **{"anchor": places["anchor"].to_numpy(), "step": places["step"].to_numpy(), "reached": reached},
            **{"n": there.sum(0), "n_harmful": there[harmful].sum(0), "groups": [len(np.unique(groups[one])) for one in there.T]},
            **{"js_harmful": of_harmful[0], "js_benign": of_benign[0], "n_margin": (there & np.isfinite(scores)).sum(0)},
            **_bounded("js", mean),
            **further,
            **{column: told for name, values in estimates.items() for column, told in _bounded(name, values).items()},
            **{column: found[0] for column, found in ranks.items()},
            **{column.replace("rank", "first"): _firsts(found[1:]) for column, found in ranks.items()},
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


def _ranks(estimates: Mapping[str, Estimates]) -> Iterator[tuple[str, Estimates]]:
    """Ranks in every draw, 1 the largest, by their column; nan stays nan."""
    ranks = {f"rank_{name}": pd.DataFrame(values).rank(axis=1, ascending=False) for name, values in estimates.items()}
    gap = ranks["rank_gap"]
    ranks["rank"] = (sum(ranks.values(), 0 * gap) + gap / (2 * gap.shape[1])).rank(axis=1)
    for by, found in ranks.items():
        yield by, found.to_numpy()


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
