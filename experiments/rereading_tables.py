"""What `thoughtlens probe` prints of questions for which transcripts were read again: tokens, decision points, heads."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf

import pandas as pd
from rich.console import RenderableType

from .probing_tables import listed, value

GONE = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
BY = {"start": "tokens since the thought began", "fraction": "share of the thought", "boundary": "ends of sentences, from 0"}
MOST = 8  # parts that are told of one by one


def sequence(table: pd.DataFrame) -> Iterator[RenderableType]:
    lines = [
        [row.model, row.site, row.over, value(row), value(row, "tpr_at_1fpr", 2), f"{row.control_auroc:.2f} ({row.control_high:.2f})"]
        + [f"{row.text_auroc:.2f}", _n(row.n_test, row.n_positive)]
        for _, row in table[table.split == "test"].iterrows()
    ]
    yield listed(
        "sequence probes: one direction that reads every token of the thought",
        ["model", "site", "over tokens", "AUROC", "TPR at 1% FPR", "shuffled labels (95%)", "words of the thought", "n (positive)"],
        lines,
        words=3,
    )


def curves(table: pd.DataFrame) -> Iterator[RenderableType]:
    """The mean readout at some shares of the thought; the whole curves are in the table."""
    for model, part in table[table.by == "fraction"].groupby("model", sort=False):
        lines = []
        for at in GONE:
            rows = part[(part["at"] - at).abs() < 1e-6].set_index("side")
            if {"harmful", "benign"} <= set(rows.index):
                harmful, benign = rows.loc["harmful"], rows.loc["benign"]
                lines.append([f"{at:.0%}", value(harmful, "mean", 2), value(benign, "mean", 2), f"{harmful.n} + {benign.n}"])
        title = f"{model}: mean readout by the share of the thought that is gone"
        yield listed(title, ["gone", "harmful", "benign", "n (harmful + benign)"], lines)


def earliest(table: pd.DataFrame) -> Iterator[RenderableType]:
    lines = [
        [row.model, BY[row.by], "never" if isinf(row["at"]) else f"{row['at']:g}", f"[{row.at_low:g}, {row.at_high:g}]"]
        + [value(row, "tpr", 2), f"{row.n_positive} + {row.n_negative}"]
        for _, row in table.iterrows()
    ]
    bar, fpr = table[["bar", "fpr"]].iloc[0]
    yield listed(
        f"when it is sure: the first point at which {bar:.0%} of the harmful prompts read above all but {fpr:.0%} of the benign ones",
        ["model", "counted in", "first", "95%", "share there", "n (harmful + benign)"],
        lines,
        "inf: there is no such point; the share is then the highest there is",
        words=2,
    )


def delays(table: pd.DataFrame) -> Iterator[RenderableType]:
    lines = [
        [row.model, row.side, value(row, "share", 2), f"{row['median']:g} [{row.median_low:g}, {row.median_high:g}]"]
        + [row.before, row.never_detected, row.never_named, row.n]
        for _, row in table.iterrows()
    ]
    yield listed(
        "how late it is: tokens from naming the object to the first readout above the threshold of an alarm",
        ["model", "prompts", "detected afterwards", "median delay", "detected before", "never detected", "never named", "n (named)"],
        lines,
        "threshold: at most 1% of the benign dev prompts ever read above it while thinking; a prompt never detected counts as inf",
        words=2,
    )


def cliffs(table: pd.DataFrame) -> Iterator[RenderableType]:
    lines = [
        [row.model, row.side, f"{row.plateau:.2f}", f"{row.end:.2f}", value(row, "drop", 2), f"{row.scale:.2f}", row.n, row.left_out]
        for _, row in table.iterrows()
    ]
    yield listed(
        "does it fall at the end? the readout from half to nine tenths of the thought, less that of its last token",
        ["model", "prompts", "before", "at the end", "drop", "sd among prompts", "n", "no end, or too short"],
        lines,
        words=2,
    )


def decisions(table: pd.DataFrame) -> Iterator[RenderableType]:
    for (split, decides), part in table.groupby(["split", "decides"], sort=False):
        lines = [
            [row.anchor, value(row, "js"), value(row, "gap"), value(row, "margin", 2)]
            + [_rank(row.rank_gap), _rank(row.rank_margin), _rank(row["rank"]), f"{row['first']:.2f}", _n(row.n, row.n_harmful)]
            for _, row in part.iterrows()
        ]
        pair = f"{part.model_a.iloc[0]} and {part.model_b.iloc[0]}"
        yield listed(
            f"where {pair} part on the same tokens: {split}, which {'decides' if decides else 'confirms'}",
            ["moment", "JS (nats)", "harmful − benign", "probe margin (sd)", "rank by JS", "by margin", "by both", "first in draws"]
            + ["n (harmful)"],
            lines,
        )


def agreements(table: pd.DataFrame) -> Iterator[RenderableType]:
    lines = [
        [row.one, row.other, f"{row.tau:.2f}", f"{row.p:.3f}", "yes" if row.same_first else "no", row.n] for _, row in table.iterrows()
    ]
    yield listed("do the rankings agree?", ["ranking", "with", "Kendall's tau", "p", "same first", "moments ranked"], lines, words=2)


def heads(table: pd.DataFrame) -> Iterator[RenderableType]:
    rows = table[table.split == "test"].sort_values("share", key=abs, ascending=False)
    lines = [[_part(row), value(row, "difference"), f"{row.share:+.0%}", _n(row.n, row.n_harmful)] for _, row in rows.head(MOST).iterrows()]
    first = rows.iloc[0]
    yield listed(
        f"{first.model}: what writes the direction at {first.span}, {first.site}: the {len(lines)} parts that write most, of {len(rows)}",
        ["part", "harmful − benign of the readout", "share", "n (harmful)"],
        lines,
        "a readout is the sum of what all parts write; their shares sum to 100%",
    )


def ablation(table: pd.DataFrame) -> Iterator[RenderableType]:
    drawn, named = table[table.ablated == "random"], table[table.ablated != "random"]
    lines = [
        [f"without {row.heads}" if row.heads else "all heads", value(row, "difference", 2), value(row, "change", 2), f"{row.predicted:.2f}"]
        + [f"{row.auroc:.3f} [{row.auroc_low:.3f}, {row.auroc_high:.3f}]", _n(row.n, row.n_harmful)]
        for _, row in named.iterrows()
    ]
    if len(drawn):
        spread = [f"{drawn[name].mean():.2f} ({drawn[name].min():.2f} to {drawn[name].max():.2f})" for name in ("difference", "change")]
        spread += [f"{drawn.predicted.mean():.2f}", f"{drawn.auroc.mean():.3f} ({drawn.auroc.min():.3f} to {drawn.auroc.max():.3f})"]
        size = _n(drawn.n.iloc[0], drawn.n_harmful.iloc[0])
        lines.append([f"without as many others, {len(drawn)} draws: mean (range)", *spread, size])
    yield listed(
        "does the readout go without them? heads held at their mean over dev prompts",
        ["heads", "harmful − benign", "change", "change if all were written directly", "AUROC", "n (harmful)"],
        lines,
    )


def readouts(table: pd.DataFrame) -> Iterator[RenderableType]:
    """How much there is to be read."""
    read = table[["model", "condition"]].drop_duplicates()
    told = ", ".join(f"{row.model} {row.condition}" for row in read.itertuples())
    sizes = f"{table.prompt_id.nunique()} prompts at {table.layer.nunique()} layers, by probes of {table.span.iloc[0]}"
    yield f"{sizes}: {told}. `thoughtlens view` shows every token"


def _part(row: pd.Series) -> str:
    return f"head {row.layer}.{row['head']}" if row.part == "head" else f"{row.part} {row.layer}" if row.layer >= 0 else str(row.part)


def _rank(rank: float) -> str:
    return "" if pd.isna(rank) else f"{rank:.0f}"


def _n(n: int, positive: int) -> str:
    return f"{n} ({positive})"
