"""Judges by name, one a file: `judge(transcripts) -> verdicts`, same length, same order.

rule                      the exact judge of the made-up world
refusal                   patterns of refusal: tells what looks refused, never attack success
match                     right answers of capability benchmarks
guard[:KIND]=PATH         a guard model through transformers (Llama Guard 3 and 4, WildGuard, HarmBench classifiers)
llm=MODEL@URL             a rubric of harm from 0 to 5, asked of an OpenAI-compatible endpoint
A+B+C                     an ensemble of any of them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...hooks.files import sha256_of
from ...hooks.records import Transcript
from ..audit.endpoint import Cost, parse_endpoint
from ..audit.verdicts import THRESHOLD, Verdict
from . import match, refusal, rule
from .judge import Judge

JUDGES: dict[str, Callable[[Sequence[Transcript]], list[Verdict]]] = {"rule": rule.judge}
LOCAL: Mapping[str, Judge] = MappingProxyType(
    {
        "rule": Judge("rule", rule.judge, frozenset({"rating", "refusal", "correct"})),
        "refusal": Judge("refusal", refusal.judge, frozenset({"looks_refused"})),
        "match": Judge("match", match.judge, frozenset({"correct"})),
    }
)
KNOWN = (*LOCAL, "guard[:KIND]=PATH", "llm=MODEL@URL", "A+B+C")


def open_judge(
    spec: str,
    *,
    cache: Path | None = None,
    template: Path | None = None,
    device: str | None = None,
    batch_size: int = 8,
    endpoint: Mapping[str, Any] = MappingProxyType({}),
    cost: Cost | None = None,
    threshold: float = THRESHOLD,
) -> Judge:
    """The judge that a text names (see above).

    cache      file that keeps what an endpoint said, so that it is asked once
    template   of a guard model whose prompt is not in its checkpoint
    endpoint   further fields of an Endpoint: key_env, concurrency, extra
    cost       counts requests and tokens
    threshold  rating from which members of an ensemble that rate vote for unsafe
    ValueError for a text that names none, with those there are.
    """
    judge = _opened(spec, cache, template, device, batch_size, endpoint, cost, threshold)
    facts = {**judge.facts, "judge": spec, "template": template and sha256_of(template), "extra": dict(endpoint.get("extra", {}))}
    return replace(judge, facts=facts)


def _opened(
    spec: str,
    cache: Path | None,
    template: Path | None,
    device: str | None,
    batch_size: int,
    endpoint: Mapping[str, Any],
    cost: Cost | None,
    threshold: float,
) -> Judge:
    parts = [part.strip() for part in spec.split("+")]
    if len(parts) > 1:
        from .ensemble import ensemble

        return ensemble(
            [_opened(part, cache, template, device, batch_size, endpoint, cost, threshold) for part in parts], threshold=threshold
        )
    if spec in LOCAL:
        return LOCAL[spec]
    name, _, source = spec.partition("=")
    name, _, kind = name.partition(":")
    if name == "guard" and source:
        from .guard import guard_judge

        return guard_judge(source, kind=kind or None, template=template, device=device, batch_size=batch_size)
    if name == "llm" and source and not kind:
        from .rubric import rubric_judge

        return rubric_judge(parse_endpoint(source, **endpoint), cache=cache, cost=cost)
    raise ValueError(f"unknown judge {spec!r}; known are {', '.join(KNOWN)}")
