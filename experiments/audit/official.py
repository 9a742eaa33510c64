"""Rates by a paper's own rule, faults included: to compare with published numbers, not to believe. The rules are in official_rules.py.

An output that a rule says nothing of (an answer that is not there, a rating that could not be had, a reply that could not be read) is in no
rate; how many there are has a row of its own. Where the paper counts a reply that it cannot read as something, one more row counts it so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import nan
from types import MappingProxyType
from typing import Any

from ...hooks.records import Prompt, Transcript
from .official_rules import AMONG, OFFICIAL, TELLS, Rule
from .official_scores import Marks, Numbers, Score
from .score import Row, over_groups, rate
from .significance import unvaried
from .verdicts import Verdict

Pair = tuple[Transcript, Verdict | None]
NONE: Mapping[str, Numbers] = MappingProxyType({})


def official(
    name: str,
    transcripts: Sequence[Transcript],
    verdicts: Sequence[Verdict] | None = None,
    *,
    numbers: Mapping[str, Numbers] = NONE,
    by: str = "",
    grouped: bool = False,
    **columns: object,
) -> tuple[list[Row], str]:
    """The rates of a rule in the shape of score.rate, benchmark by benchmark and channel by channel; and a sentence on the rule's fault.

    The metric is "official: <name>"; behind it stand the kind of prompts, of a rule over several, a further rate of the rule, and the
    category, of a rule that is told by category. Where the rule leaves outputs out, a row "…, not scored" tells how many; where its paper
    counts unreadable replies as something, a row "…, unread as N" counts them so.

    verdicts   on the same transcripts, in their order, where the rule needs a judge
    numbers    by prompt id what a language model said of an output, or somebody elsewhere (official_asking.py, marked()); by: who that was
    grouped    intervals over the prompts' groups as well, as in score.rates

    ValueError for an unknown rule, one that cannot be followed here, or not with what is given, a judge that does not tell what is needed,
    and no prompts to score.
    """
    rule = rule_of(name)
    if not rule.scores:
        raise ValueError(f"the rule of {name} ({rule.paper}) cannot be followed here, it takes {rule.needs}: {rule.about}")
    if verdicts is not None and [v.prompt_id for v in verdicts] != [t.id for t in transcripts]:
        raise ValueError(f"{len(verdicts)} verdicts are not on these {len(transcripts)} transcripts in their order. Judge these.")
    if not any(AMONG[kind](t.prompt) for kind in rule.among for t in transcripts):
        raise ValueError(f"{name} scores prompts that are {' or '.join(rule.among)}; none of the {len(transcripts)} outputs answers one")
    if (rule.questions or rule.marks) and not numbers:
        raise ValueError(takes(name))
    beside: Sequence[Verdict | None] = [None] * len(transcripts) if verdicts is None else verdicts
    rows: list[Row] = []
    for benchmark, kind in product(dict.fromkeys(t.prompt.benchmark for t in transcripts), rule.among):
        pairs = [(t, v) for t, v in zip(transcripts, beside, strict=True) if t.prompt.benchmark == benchmark and AMONG[kind](t.prompt)]
        judge = _judge(name, rule, pairs) or by
        for part, scores in {"": rule.scores, **rule.more}.items():
            metric = ", ".join([f"official: {name}", *([kind] if len(rule.among) > 1 else []), *([part] if part else [])])
            for channel, score in scores.items():
                about = {"benchmark": benchmark, "channel": channel, "judge": judge, "threshold": rule.threshold or nan, **columns}
                for where, its in _apart(rule, pairs):
                    rows += _rows(metric + where, rule, channel, score, its, numbers, grouped, about)
    return [row for row in rows if row["n"]], told(name)


def told(name: str) -> str:
    """What a reader must know beside the rates of a rule."""
    rule = rule_of(name)
    return f"official: {name} is a paper's own rule ({rule.paper}), faults included: {rule.about} What is wrong with it: {rule.fault}"


def takes(name: str) -> str:
    """What must be given with a rule that asks a language model, or takes what somebody else has said, in a sentence."""
    rule, ways = rule_of(name), []
    if rule.questions:
        texts = [(f"{question.name}.txt", " ".join(f"{{{place}}}" for place in question.places)) for question in rule.questions]
        places = list(dict.fromkeys(holds for _, holds in texts))
        if len(texts) == 1:
            inside = f"FILE, a text with {places[0]}"
        elif len(places) == 1:
            inside = f"FOLDER with those of {', '.join(file for file, _ in texts)} that these prompts need, each with {places[0]}"
        else:
            inside = f"FOLDER with {' and '.join(f'{file} ({holds})' for file, holds in texts)}"
        ways.append(f"--official {name}={inside} where they go (the paper's words are in {rule.source})")
    if rule.marks:
        made = "" if rule.questions else f", as {rule.source} makes them"
        ways.append(f"--official {name}=MARKS.jsonl with prompt_id, {', '.join(rule.marks)} and, where several answered, model{made}")
    asks = "asks a language model in the paper's words, which do not come with this package" if rule.questions else "takes marks"
    return f"{name} {asks}: give {', or '.join(ways)}"


def marked(name: str, marks: Mapping[str, Marks | None]) -> dict[str, Numbers]:
    """The numbers that marks make, by prompt id: of strongreject refusal (0 or 1), convincingness and specificity (1 to 5).

    None: no mark could be had of this output. ValueError for marks that are not all there, or lie outside their scale.
    """
    rule, found = rule_of(name), dict[str, Numbers]()
    if not rule.marks:
        raise ValueError(f"{name} takes no marks: {rule.about}")
    key = ("answer", rule.questions[0].name if rule.questions else rule.marks[0])
    for prompt_id, its in marks.items():
        if its is not None and (lacking := [mark for mark in rule.marks if mark not in its]):
            raise ValueError(f"{name} needs {', '.join(lacking)} of {prompt_id!r}; its marks are {', '.join(its) or 'none'}")
        try:
            found[prompt_id] = {key: None if its is None else rule.marked(*(its[mark] for mark in rule.marks))}
        except ValueError as problem:
            raise ValueError(f"the marks of {prompt_id!r}: {problem}") from problem
    return found


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


def _apart(rule: Rule, pairs: Sequence[Pair]) -> Iterator[tuple[str, Sequence[Pair]]]:
    """All outputs, and those of each category where the paper tells them apart and there are several."""
    yield "", pairs
    categories = sorted({t.prompt.category for t, _ in pairs})
    if rule.apart and len(categories) > 1:
        for category in categories:
            yield f", {category}", [(t, v) for t, v in pairs if t.prompt.category == category]


def _rows(
    metric: str,
    rule: Rule,
    channel: str,
    score: Score,
    pairs: Sequence[Pair],
    numbers: Mapping[str, Numbers],
    grouped: bool,
    about: Mapping[str, object],
) -> list[Row]:
    """The rate of one channel, how many outputs are not in it, and the rate in which unread replies count as the paper counts them."""
    if numbers and not any(key[0] == channel for t, _ in pairs for key in numbers.get(t.id, {})):
        return []  # marks are of answers alone
    scored = [(t.prompt, score(t, v, numbers.get(t.id, {}))) for t, v in pairs]
    rows = [_row(metric, rule, [(p, float(s)) for p, s in scored if s is not None], grouped, about)]
    if any(left := [s is None for _, s in scored]):
        rows.append(_rate(f"{metric}, not scored", left, None, about))
    unread = [s is None and any(key[0] == channel for key in numbers.get(p.id, {})) for p, s in scored]
    if rule.unread is not None and any(unread):
        counted = [(p, rule.unread if s is None else s) for (p, s), there in zip(scored, unread, strict=True) if there or s is not None]
        rows.append(_row(f"{metric}, unread as {rule.unread:g}", rule, counted, grouped, about))
    return rows


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
