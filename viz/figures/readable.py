"""Which `detection` rows are shown, and what they say about a span: does the probe read a state, or do the words already tell?

Rows: `detection` of one label, probe family and split: AUROC with its interval per layer and span, beside two controls: the same probe
on shuffled labels, and a bag of words over the tokens up to the same place (`text_auroc`; it has no layer). What they say about a span,
judged at its best layer:

    chance   the probe's interval does not rise above the shuffled control
    words    (text − ½) ≥ WORDS_TELL · (probe − ½): the words alone give most of the probe's lead over chance
    close    the probe's interval does not rise above that of every baseline of words and lengths known there, where the table has them
    state    otherwise: the probe reads something that the words do not say
    open     no bag-of-words number: cannot be told

The best layer is picked on the dev split where the table has one, so that the shown (test) number is not its own selection.
"""

from __future__ import annotations

import math
import re

import pandas as pd

from .. import theme
from ..tables import ALL, TableProblem, complete, prefer, remembered

WORDS_TELL = 0.75
OF_THE_WHOLE = ("tfidf_thought", "thought_length")  # baselines that know the whole thought
WHOLE = ("thought", "thought_last", "thought@1", "answer", "answer_first")  # spans at which it is known
VERDICTS = {
    "state": "probe reads beyond the words",
    "words": "words alone already tell",
    "close": "not clear of the words' interval",
    "chance": "not above shuffled labels",
    "open": "no text baseline",
}

_TIME = (
    r"(instruction|image|prompt)$",
    r"last_prompt$",
    r"thought_first$",
    r"(thought\[:|step\[0|step_end\[0|thought@0(\.0*)?$)",
    r"(step\[\d|step_end\[\d|thought\[\d|thought@)",
    r"thought$",
    r"(step\[-|step_end\[-|thought\[-)",
    r"thought_last$",
    r"answer",
)


def in_time(column: str) -> tuple[int, float, str]:
    """Sorts spans by when they happen: prompt, start of the thought, steps, whole thought, its end, answer."""
    span = column.split(" · ")[0]
    rank = next((rank for rank, pattern in enumerate(_TIME) if re.match(pattern, span)), len(_TIME))
    number = re.search(r"-?\d+\.?\d*", span)
    return rank, float(number.group()) if number else 0.0, column


@remembered
def chosen(detection: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Residual stream, label harmful, logistic probe, test split: of each the named one if it is there, else the first in the table.

    Rows of hidden states over all prompts: text baselines (without a site), single subsets and held-out runs are not among
    them. Adds `column` (the span, with its pool where a span has several) and `reading` (model, and condition where it is not unsteered).
    """
    rows = complete(detection, "detection")
    rows = rows[(rows["site"] != "") & (rows["subset"] == ALL)]
    if rows.empty:
        raise TableProblem("The detection table has no row of a probe of hidden states. `thoughtlens probe RUN` makes it.")
    rows = rows.assign(stream=rows["site"].str.split(".").str[0])
    for column, choice in (("holdout", "given"), ("stream", "resid_post"), ("label", "harmful"), ("probe", "logistic"), ("split", split)):
        rows = prefer(rows, column, choice)
    several = rows.groupby("span")["pool"].transform("nunique") > 1
    steered = rows["condition"] != "unsteered"
    return rows.assign(
        column=rows["span"].where(~several, rows["span"] + " · " + rows["pool"].astype(str)),
        reading=rows["model"].where(~steered, rows["model"] + " @ " + rows["condition"].astype(str)),
    )


def columns_in_time(rows: pd.DataFrame) -> list[str]:
    return sorted(dict.fromkeys(rows["column"]), key=in_time)


@remembered
def best_layers(detection: pd.DataFrame) -> pd.DataFrame:
    """One row per reading and column: the row at the best layer; `picked`: the split it was picked on; `score` there; `verdict`."""
    rows = chosen(detection).dropna(subset=["auroc"])
    picked = "dev" if "dev" in set(detection["split"]) else rows["split"].iloc[0]
    where = ["reading", "column", "layer"]
    score = chosen(detection, split=picked).drop_duplicates(where).set_index(where)["auroc"].rename("score")
    rows = rows.drop_duplicates(where).join(score, on=where)
    rows["score"] = rows["score"].fillna(-1.0)
    rows = rows.join(_words_reach(detection, rows["split"].iloc[0]), on=["model", "condition", "span"])
    best = rows.loc[rows.groupby(["reading", "column"], sort=False)["score"].idxmax()]
    best = best.assign(picked=picked, verdict=[verdict(row) for _, row in best.iterrows()])
    return best.sort_values("column", key=lambda column: column.map(in_time), kind="stable").reset_index(drop=True)


def _words_reach(detection: pd.DataFrame, split: str) -> pd.Series:
    """The farthest bound of a baseline's interval, read forwards or backwards, by model, condition and span."""
    told = complete(detection, "detection")
    told = told[(told["site"] == "") & (told["split"] == split) & (told["subset"] == ALL)]
    told = told[~told["probe"].isin(OF_THE_WHOLE) | told["span"].isin(WHOLE)]
    reach = told["high"].where(told["high"] >= 1 - told["low"], 1 - told["low"])
    return told.assign(reach=reach).groupby(["model", "condition", "span"])["reach"].max()


def verdict(row: pd.Series) -> str:
    control = row["control_high"] if not math.isnan(row["control_high"]) else row["control_auroc"]
    if not math.isnan(control) and row["low"] <= control:
        return "chance"
    if math.isnan(row["text_auroc"]):
        return "open"
    if row["text_auroc"] - 0.5 >= WORDS_TELL * (row["auroc"] - 0.5):
        return "words"
    return "close" if row["low"] <= row.get("reach", math.nan) else "state"


def spoken_of(detection: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The best layers of the model that readings speak of: the reasoning model where there is one."""
    best = best_layers(detection)
    readings = theme.ordered(best["reading"].tolist())
    reading = "reasoning" if "reasoning" in readings else readings[0]
    return best[best["reading"] == reading], reading


def listed(mine: pd.DataFrame, kind: str) -> str:
    """The spans of one verdict as a sentence."""
    rows = mine[mine["verdict"] == kind]
    if rows.empty:
        return ""
    if kind == "words":
        said = ", ".join(
            f"{r['column']} (probe {theme.auroc(r['auroc'])}, words {theme.auroc(r['text_auroc'])})" for _, r in rows.iterrows()
        )
        return f"Words alone already tell at {said}: there the probe shows nothing hidden (hatched)."
    said = ", ".join(f"{r['column']} ({theme.aurocs(r['auroc'], r['low'], r['high'])})" for _, r in rows.iterrows())
    return {"chance": f"Not above the shuffled labels: {said}.", "close": f"Not clear of what the words may tell: {said}."}.get(
        kind, f"Without a text baseline, so undecided: {said}."
    )
