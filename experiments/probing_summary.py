"""What came out of `thoughtlens probe`, in a sentence per question, each figure with its interval and n.

A sentence about one cell is about the one that dev likes best; where a column of figures is summed up, its worst and its middle are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isinf
from types import MappingProxyType

import pandas as pd

from ..probes.sweep import COMPLIED, ranked
from .probing_tables import baselines, best_rows, short, told, value, verdict

Tables = Mapping[str, pd.DataFrame]


def sentences(tables: Tables) -> Iterator[str]:
    """Everything that can be said of the tables that are there."""
    for name, say in SAY.items():
        if name in tables:
            yield from say(tables[name])


def detection(table: pd.DataFrame) -> Iterator[str]:
    for model, part in table.groupby("model", sort=False):
        best = best_rows(part, "span")
        verdicts = {row.span: verdict(row, baselines(of_span)) for row, of_span in best}
        at = {found: ", ".join(span for span in verdicts if verdicts[span] == found) for found in ("yes", "not shown", "no words")}
        yield (
            f"{model}: {part.label.iloc[0]} is shown beyond the words and lengths known at that moment at {at['yes'] or 'no moment'}"
            + (f"; not shown at {at['not shown']}" if at["not shown"] else "")
            + (f"; no words to compare with at {at['no words']}." if at["no words"] else ".")
        )
        top = told(part, ranked(part).iloc[0])
        yield f"  best on dev: {top.span}, {top.site}, {top.probe}: AUROC {value(top)} n={top.n_test}, {_threshold(top)}."
        if (part.subset == COMPLIED).any():
            only = told(part, top, COMPLIED)
            yield f"  only the {only.n_positive} harmful prompts the writer complied with: AUROC {value(only)} n={only.n_test}."


def _threshold(row: pd.Series) -> str:
    passed = f"{row.fpr_reached:.1%} of the {row.n_test - row.n_positive} negative test prompts"
    return f"TPR at 1% FPR {short(row, 'tpr_at_1fpr')}; dev's threshold for 1% lets {passed} pass"


def holdouts(table: pd.DataFrame) -> Iterator[str]:
    for span, part in table.groupby("span", sort=False):
        rows = pd.DataFrame([row for row, _ in best_rows(part, "holdout")])
        left, carried = rows[rows.holdout.str.startswith("without ")], rows[~rows.holdout.str.startswith("without ")]
        if len(left):
            worst = left.loc[left.auroc.idxmin()]
            middle = f"{left.auroc.median():.3f} (median of {len(left)})"
            yield (
                f"{span}: with one category or attack left out of training, AUROC on it is {middle}, "
                f"at worst {value(worst)} n={worst.n_test} ({worst.holdout})."
            )
        for _, row in carried.iterrows():
            yield f"{span}: {row.holdout}, AUROC {value(row)} n={row.n_test}."


def earliest(table: pd.DataFrame) -> Iterator[str]:
    for _, row in table[table.by == "boundary"].iterrows():
        where = "at no end of a sentence" if isinf(row["at"]) else f"at step_end[{row['at']:g}]"
        yield (
            f"{row.model}: {row.bar:.0%} of the harmful prompts read above {1 - row.fpr:.0%} of the benign ones first {where}: "
            f"{value(row, 'tpr', 2)} n={row.n_positive + row.n_negative}."
        )


def delay(table: pd.DataFrame) -> Iterator[str]:
    for _, row in table[table.side == "harmful"].iterrows():
        median = "no median delay, since fewer than half are" if isinf(row["median"]) else f"median delay {row['median']:g} tokens"
        yield f"{row.model}: after the object is named {value(row, 'share', 2)} of n={row.n} harmful prompts are detected; {median}."


def cliff(table: pd.DataFrame) -> Iterator[str]:
    for _, row in table[table.side == "difference"].iterrows():
        fall = "falls" if row.low > 0 else "rises" if row.high < 0 else "is not shown to fall"
        yield (
            f"{row.model}: at the end of the thought the gap between harmful and benign readouts {fall}: drop {value(row, 'drop', 2)} "
            f"(from {row.plateau:.2f}; sd among prompts {row.scale:.2f}) n={row.n}."
        )


def decision(table: pd.DataFrame) -> Iterator[str]:
    decided, confirmed = (table[(table.decides == decides) & table["rank"].notna()] for decides in (True, False))
    first = decided.sort_values("rank").iloc[0]
    again = confirmed[confirmed.anchor == first.anchor]
    pair, gap = f"{first.model_a} and {first.model_b}", value(first, "gap")
    yield (
        f"decision point, chosen on {first.split}: {first.anchor}. {pair} part there by JS {gap} nats more on harmful than on benign "
        f"prompts, the probe's margin is {value(first, 'margin', 2)} sd, n={first.n}."
    )
    for _, row in again.iterrows():
        measured = f"{value(row, 'gap')} nats, {value(row, 'margin', 2)} sd, n={row.n}"
        yield f"  on {row.split} it ranks {row['rank']:.0f} of {len(confirmed)}: {measured}."


def ablation(table: pd.DataFrame) -> Iterator[str]:
    whole, top = (table[table.ablated == name].iloc[0] for name in ("none", "top"))
    drawn = table[table.ablated == "random"]
    yield (
        f"{top.model}: with heads {top.heads} held at their mean the probe's AUROC goes from {whole.auroc:.3f} to {top.auroc:.3f} "
        f"[{top.auroc_low:.3f}, {top.auroc_high:.3f}] n={top.n}; "
        f"with as many other heads it is {drawn.auroc.min():.3f} to {drawn.auroc.max():.3f} ({len(drawn)} draws)."
    )


SAY: Mapping[str, Callable[[pd.DataFrame], Iterator[str]]] = MappingProxyType(
    {
        "detection": detection,
        "holdouts": holdouts,
        "earliest": earliest,
        "delay": delay,
        "cliff": cliff,
        "decision": decision,
        "ablation": ablation,
    }
)
