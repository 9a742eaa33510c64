"""Gates: whether a token that lies in the steered span is steered.

    Always()          every one
    AtSteps()         only the last token of a step (sentence, line) of the thought, or of a heading in it: the states that the next step or
                      section is begun from; all of them, the first so many, or those that are named
    FirstTokens(k)    until k output tokens were written; tokens of the prompt always pass
    InSpans(…)        in any of these spans
    ProbeGate(…)      rows whose hidden state reads above a threshold:  w · h + b > threshold

`a & b`, `a | b` and `~a` combine them. A gate is a frozen value; what a run has decided so far is kept by gating.py.

A probe gate reads at its own site and span. Its decision holds for the tokens after the one it was read at and, where the gate's site
comes no later in the forward pass than the steered site, for that token too. Latched, it stays open for the rest of the sequence once
it opened; not latched, the latest reading decides. Before the first reading it is closed.

Gated steering: Lee et al. 2024, "Programming refusal with conditional activation steering" (CAST).
Shapes: weight [d]; masks [b, p] (`b` rows, `p` tokens of one forward pass).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from .sites import parse_site
from .spans import DECISION, Span, parse_span


class Gate:
    """What all gates share: being combined with &, | and ~."""

    def __and__(self, other: Gate) -> Gate:
        return And(self, other) if isinstance(other, Gate) else NotImplemented

    def __or__(self, other: Gate) -> Gate:
        return Or(self, other) if isinstance(other, Gate) else NotImplemented

    def __invert__(self) -> Gate:
        return Not(self)

    def __bool__(self) -> bool:
        """Python's own and, or, not would take one of two gates without a word."""
        raise TypeError(f"gates are combined with &, | and ~, not with and, or, not: ({self}) & …")


@dataclass(frozen=True)
class Always(Gate):
    """Every token of the span."""

    def __str__(self) -> str:
        return "always"


@dataclass(frozen=True)
class AtSteps(Gate):
    """The last token of each step of the thought; or of each heading in it.

    first      only the first so many
    only       only these, numbered from 0
    headings   the last token of a heading, in place of a step
    """

    first: int | None = None
    only: tuple[int, ...] | None = None
    headings: bool = False

    def __post_init__(self) -> None:
        if self.first is not None and self.only is not None:
            raise ValueError(f"AtSteps takes the first {self.first} steps, or only the steps {self.only}: pass one of them")
        if self.first is not None and self.first < 1:
            raise ValueError(f"AtSteps(first={self.first}) never opens; first is a number of steps, at least 1")
        if self.only is not None:
            object.__setattr__(self, "only", tuple(self.only))
            if not self.only or min(self.only) < 0:
                raise ValueError(f"AtSteps(only={self.only}): name at least one step, numbered from 0 as in step_end[0]")

    @classmethod
    def named(cls, anchors: Sequence[str | Span]) -> AtSteps:
        """At the decision points that were found, such as ["step_end[4]"]. ValueError for an anchor that is no step's end."""
        spans = [parse_span(anchor) for anchor in anchors]
        if strange := [span for span in spans if span.base != "step_end" or (span.index or 0) < 0]:
            raise ValueError(f"{str(strange[0])!r} is no step's end counted from the first. Steer there with spans={str(strange[0])!r}.")
        return cls(only=tuple(span.index or 0 for span in spans))

    @property
    def counts(self) -> str:
        """What of the clock tells how many there were before: "step" or "section"; empty where all of them count."""
        return "" if self.first is None and self.only is None else "section" if self.headings else "step"

    def __str__(self) -> str:
        which = "" if not self.counts else f"[:{self.first}]" if self.first is not None else f"[{','.join(map(str, self.only or ()))}]"
        return f"{'headings' if self.headings else 'steps'}{which}"


@dataclass(frozen=True)
class FirstTokens(Gate):
    """Open until `k` output tokens were written; prompt tokens pass."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"FirstTokens({self.k}) never opens; k is a number of output tokens, at least 1")

    def __str__(self) -> str:
        return f"first_tokens({self.k})"


@dataclass(frozen=True)
class InSpans(Gate):
    """Tokens in any of these spans."""

    spans: tuple[str, ...]

    def __init__(self, *spans: str | Span) -> None:
        if not spans:
            raise ValueError("InSpans() holds no token; name at least one span")
        object.__setattr__(self, "spans", tuple(str(_plain(span)) for span in spans))

    def __str__(self) -> str:
        return f"in {'|'.join(self.spans)}"


@dataclass(frozen=True, eq=False)
class ProbeGate(Gate):
    """Opens for a row where weight · h + bias > threshold at `site`, read at the tokens of `span`.

    weight      [d], in the model's own space (scaling folded back)
    site        a site with its layer, such as "resid_post.4"
    span        any span that can be decided as tokens arrive
    latched     True: once open, open for the rest of the sequence. False: the latest reading decides
    made_for    facts of the model it was fitted on (provenance.py), as far as they are known
    """

    weight: Float[Tensor, " d"]
    bias: float
    site: str
    threshold: float
    latched: bool = True
    span: str = "last_prompt"
    made_for: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.weight.ndim != 1:
            raise ValueError(f"a probe gate's weight is one direction [d], not {list(self.weight.shape)}; make one gate per direction")
        if not (bool(self.weight.isfinite().all()) and math.isfinite(self.bias) and math.isfinite(self.threshold)):
            raise ValueError(f"the weight, bias or threshold of the probe gate at {self.site!r} is nan or inf; fit the probe again")
        name, layer = parse_site(self.site)
        if layer is None:
            raise ValueError(f"a probe gate reads at one site, not at every {name}: write the layer, as in {name}.4")
        _plain(self.span)

    def __str__(self) -> str:
        return f"probe({self.site}, {self.span}, >{self.threshold:g}{', latched' if self.latched else ''})"


@dataclass(frozen=True)
class And(Gate):
    left: Gate
    right: Gate

    def __str__(self) -> str:
        return f"({self.left} and {self.right})"


@dataclass(frozen=True)
class Or(Gate):
    left: Gate
    right: Gate

    def __str__(self) -> str:
        return f"({self.left} or {self.right})"


@dataclass(frozen=True)
class Not(Gate):
    gate: Gate

    def __str__(self) -> str:
        return f"not {self.gate}"


def _plain(span: str | Span) -> Span:
    """A span that needs no gate to be told. ValueError for a decision, which a gate is to find."""
    if (parsed := parse_span(span)).base == DECISION:
        raise ValueError(f'a gate at the span "{DECISION}" is what an anchor makes: anchor.gate(). At the ends of all steps: "step_ends".')
    return parsed


def leaves(gate: Gate) -> Iterator[Gate]:
    """The gates a combination is made of, left to right."""
    match gate:
        case And(left, right) | Or(left, right):
            yield from leaves(left)
            yield from leaves(right)
        case Not(inner):
            yield from leaves(inner)
        case _:
            yield gate


def mapped(gate: Gate, to: Callable[[Gate], Gate]) -> Gate:
    """The same combination of other leaves."""
    match gate:
        case And(left, right):
            return And(mapped(left, to), mapped(right, to))
        case Or(left, right):
            return Or(mapped(left, to), mapped(right, to))
        case Not(inner):
            return Not(mapped(inner, to))
        case _:
            return to(gate)


def evaluate(gate: Gate, opened: Callable[[Gate], Bool[Tensor, "b p"]]) -> Bool[Tensor, "b p"]:
    """Where a combination is open, `opened` telling it for each leaf."""
    match gate:
        case And(left, right):
            return evaluate(left, opened) & evaluate(right, opened)
        case Or(left, right):
            return evaluate(left, opened) | evaluate(right, opened)
        case Not(inner):
            return ~evaluate(inner, opened)
        case _:
            return opened(gate)
