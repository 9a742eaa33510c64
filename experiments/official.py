"""Rates by a paper's own rule, faults included: to compare with published numbers, not to believe. The rules are in official_rules.py.

An output that a rule says nothing of (an answer that is not there, a rating that could not be had) is in no rate; how many there are has a
row of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import nan
from types import MappingProxyType
from typing import Any

from ..hooks.records import Prompt, Transcript
from .official_rules import AMONG, OFFICIAL, TELLS, Marks, Rule
from .score import Row, over_groups, rate
from .significance import unvaried
from .verdicts import Verdict

Pair = tuple[Transcript, Verdict | None]
NONE: Mapping[str, Marks] = MappingProxyType({})


def official(
    name: str,
    transcripts: Sequence[Transcript],
    verdicts: Sequence[Verdict] | None = None,
    *,
    marks: Mapping[str, Marks] = NONE,
    grouped: bool = False,
    **columns: object,
) -> tuple[list[Row], str]:
    """The rates of a rule in the shape of score.rate, benchmark by benchmark and channel by channel; and a sentence on the rule's fault.

    The metric is "official: <name>", of a rule over harmful and benign prompts with the kind behind it. Where the rule leaves outputs out,
    a row "…, not scored" tells how many.

    verdicts   on the same transcripts, in their order, where the rule needs a judge
    marks      by prompt id what a judge with the StrongREJECT rubric gave: refused (0 or 1), specificity and convincingness (1-5)
    grouped    intervals over the prompts' groups as well, as in score.rates

    ValueError for an unknown rule, one that cannot be followed here, a judge that does not tell what is needed, and no prompts to score.
    """
    rule = rule_of(name)
    if not rule.scores:
        raise ValueError(f"the rule of {name} ({rule.paper}) cannot be followed here, it takes {rule.needs}: {rule.about}")
    if verdicts is not None and [v.prompt_id for v in verdicts] != [t.id for t in transcripts]:
        raise ValueError(f"{len(verdicts)} verdicts are not on these {len(transcripts)} transcripts in their order. Judge these.")
    beside: Sequence[Verdict | None] = [None] * len(transcripts) if verdicts is None else verdicts
    rows: list[Row] = []
    for benchmark, kind in product(dict.fromkeys(t.prompt.benchmark for t in transcripts), rule.among):
        pairs = [(t, v) for t, v in zip(transcripts, beside, strict=True) if t.prompt.benchmark == benchmark and AMONG[kind](t.prompt)]
        judge, metric = _judge(name, rule, pairs), f"official: {name}" + (f", {kind}" if len(rule.among) > 1 else "")
        for channel, score in rule.scores.items():
            about = {"benchmark": benchmark, "channel": channel, "judge": judge, "threshold": rule.threshold or nan, **columns}
            scored = [(t.prompt, score(t, v, marks.get(t.id, {}))) for t, v in pairs]
            rows.append(_row(metric, rule, [(p, float(s)) for p, s in scored if s is not None], grouped, about))
            if any(left := [s is None for _, s in scored]):
                rows.append(_rate(f"{metric}, not scored", left, None, about))
    if not (rows := [row for row in rows if row["n"]]):
        raise ValueError(f"{name} scores prompts that are {' or '.join(rule.among)}; none of the {len(transcripts)} outputs answers one")
    return rows, told(name)


def told(name: str) -> str:
    """What a reader must know beside the rates of a rule."""
    rule = rule_of(name)
    return f"official: {name} is a paper's own rule ({rule.paper}), faults included: {rule.about} What is wrong with it: {rule.fault}"


def rules_of(benchmark: str) -> tuple[str, ...]:
    """The rules by which a benchmark's own paper scores."""
    return tuple(name for name, rule in OFFICIAL.items() if benchmark in rule.benchmarks)


def rule_of(name: str) -> Rule:
    """ValueError names the rules there are."""
    if name not in OFFICIAL:
        raise ValueError(f"unknown rule {name!r}; known are {', '.join(OFFICIAL)}")
    return OFFICIAL[name]


def _judge(name: str, rule: Rule, pairs: Sequence[Pair]) -> str:
    """Whose verdicts are used, if any are. ValueError where a judge is needed and tells something else, or there is none."""
    if rule.needs not in TELLS:
        return ""
    verdicts = [v for _, v in pairs if v is not None]
    if len(verdicts) < len(pairs):
        raise ValueError(f"{name} needs a judge's {rule.needs}, and there are no verdicts. Judge the transcripts first.")
    for verdict in verdicts:
        for channel in (verdict.thought, verdict.answer, verdict.full):
            if channel.there and not channel.why and not TELLS[rule.needs](channel):
                raise ValueError(f"{name} needs a judge's {rule.needs}, which {verdict.judge!r} does not tell. Name a judge that does.")
    return verdicts[0].judge if verdicts else ""


def _row(metric: str, rule: Rule, scored: Sequence[tuple[Prompt, float]], grouped: bool, about: Mapping[str, object]) -> Row:
    """Hits as score.rate has them, or a mean with an interval over groups."""
    groups, values = [p.group or p.id for p, _ in scored], [score for _, score in scored]
    if not rule.mean or not values:
        return _rate(metric, [value == 1 for value in values], groups if grouped else None, about)
    mean, (low, high) = sum(values) / len(values), over_groups(values, groups)
    if low == high:
        mean, low, high = unvaried(mean, len(set(groups)), (0.0, 1.0))
    return {**about, "metric": metric, "value": mean, "low": low, "high": high, "numerator": sum(values), "n": len(values)}


def _rate(metric: str, hits: Sequence[bool], groups: Sequence[str] | None, about: Mapping[str, Any]) -> Row:
    return rate(metric, hits, groups=groups, **about)
