"""What `thoughtlens decide` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from rich.console import RenderableType

from .probing_tables import listed, value
from .rereading_tables import agreements

MOST = 8  # steps that are told of one by one


def findings(tables: Mapping[str, pd.DataFrame], run: Path, pace: float | None) -> Iterator[RenderableType]:
    yield from ranks(tables["decision_ranks"])
    yield from agreements(tables["decision_agreement"])
    yield from recognised(tables["decision_readout"])
    yield where(tables["decision_boundaries"])
    if "decision_key" in tables:
        yield key(tables["decision_key"])
    yield short(tables, run, pace)


def ranks(table: pd.DataFrame) -> Iterator[RenderableType]:
    for (split, decides), part in table.groupby(["split", "decides"], sort=False):
        lines = [
            [row.anchor, value(row, "gap"), value(row, "margin", 2), value(row, "effect"), _number(row.closed_benign, 3)]
            + [_number(row.random_effect, 3), *(_rank(row[f"rank{by}"]) for by in ("_gap", "_margin", "_effect", ""))]
            + [f"{row['first']:.2f}", f"{row.n} ({row.n_harmful})"]
            for _, row in part.iterrows()
        ]
        yield listed(
            f"where {part.model_b.iloc[0]} decides, beside {part.model_a.iloc[0]}: {split}, which {'decides' if decides else 'confirms'}",
            ["moment", "divergence: harmful − benign", "probe margin (sd)", "one token closes (nats)", "on benign", "random", "rank: div."]
            + ["margin", "effect", "all", "first in draws", "n (harmful)"],
            lines,
            "one token closes: what steering it takes of the divergence on harmful prompts; random: the most of any random direction",
        )


def recognised(table: pd.DataFrame) -> Iterator[RenderableType]:
    lines = [
        [row.site, row.split, value(row), f"{row.control_auroc:.2f}", f"{row.number_auroc:.3f}", f"{row.token_auroc:.3f}"]
        + [_number(row.precision, 2), _number(row.recall, 2), f"{row.n} ({row.n_decisions}) of {row.groups}"]
        for _, row in table.iterrows()
    ]
    yield listed(
        "can a decision be recognised by its own hidden state? boundaries at which patching one token closes enough, from the others",
        ["site", "side", "AUROC", "shuffled", "by step number", "by last token", "precision", "recall", "n (decisions) of goals"],
        lines,
        "precision and recall: of the site that was chosen, at the threshold set on dev",
        words=2,
    )


def where(table: pd.DataFrame) -> RenderableType:
    """Of the test thoughts, which share is decided at each step, measured and recognised."""
    test = table[table["split"] == "test"]
    lines = []
    for step, part in list(test.groupby("step"))[:MOST]:
        harmful = part["harmful"].fillna(False).astype(bool)
        shares = [
            f"{some[name].mean():.2f}" if len(some) else "" for some in (part[harmful], part[~harmful]) for name in ("decision", "found")
        ]
        lines.append([f"step_end[{step}]", *shares, f"{len(part)} ({int(harmful.sum())})"])
    return listed(
        "where thoughts are decided (test): the share of boundaries at which it is measured, and recognised",
        ["moment", "harmful: measured", "recognised", "benign: measured", "recognised", "n (harmful)"],
        lines,
    )


def key(table: pd.DataFrame) -> RenderableType:
    lines = [
        [row.split, row.prompts, row.metric, value(row, "value", 2), f"{row.numerator} of {row.n}", f"{row.thoughts} of {row.groups}"]
        for _, row in table.assign(value_low=table["low"], value_high=table["high"]).iterrows()
    ]
    return listed(
        "the answer key of the made-up world, by which nothing was chosen",
        ["side", "prompts", "measure", "recognised decisions", "boundaries", "thoughts of goals"],
        lines,
        words=3,
    )


def stable(table: pd.DataFrame) -> RenderableType:
    lines = [[row.ranking, row["first"], f"{row.times} of {row.runs}", f"{row.tau:.2f} ({row.tau_low:.2f})"] for _, row in table.iterrows()]
    return listed("does it hold in other runs?", ["ranking", "first", "in runs", "Kendall's tau, mean (lowest)"], lines, words=2)


def short(tables: Mapping[str, pd.DataFrame], run: Path, pace: float | None) -> str:
    ranked, readout = tables["decision_ranks"], tables["decision_readout"]
    first = ranked[ranked["decides"]].sort_values("rank", kind="stable").iloc[0]
    site = readout[readout["chosen"]].iloc[0]["site"]
    told = (
        f"{run}: {first.anchor} comes first on {first.split}, in {first['first']:.0%} of draws; one token there closes {first.effect:.2f} "
        f"of {first.before_harmful:.2f} nats ({first.source} at {first.site}, strength {first.strength:g}). The anchor reads {site}: "
        f"{run / 'probes' / 'decision.safetensors'}"
    )
    return told + ("" if pace is None else f". {pace:,.0f} edits of one token a minute, everything counted")


def _rank(rank: float) -> str:
    return "" if pd.isna(rank) else f"{rank:.0f}"


def _number(number: float, digits: int) -> str:
    return "" if pd.isna(number) else f"{number:.{digits}f}"
