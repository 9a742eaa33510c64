"""Gates: whether a token that lies in the steered span is steered.

    Always()          every one
    AtSteps()         only the last token of a step (sentence, line) of the thought: the states a next step is begun from
    FirstTokens(k)    until k output tokens were written; tokens of the prompt always pass
    ProbeGate(…)      rows whose hidden state reads above a threshold:  w · h + b > threshold

`a & b`, `a | b` and `~a` combine them. A gate is a frozen value; what a run has decided so far is kept by gating.py.

A probe gate reads at its own site and span. Its decision holds for the tokens after the one it was read at and, where the gate's site
comes no later in the forward pass than the steered site, for that token too. Latched, it stays open for the rest of the sequence once
it opened; not latched, the latest reading decides. Before the first reading it is closed.

Gated steering: Lee et al. 2024, "Programming refusal with conditional activation steering" (CAST).
Shapes: weight [d]; masks [b, p] (`b` rows, `p` tokens of one forward pass).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from .sites import parse_site
from .spans import parse_span


class Gate:
    """What all gates share: being combined with &, | and ~."""

    def __and__(self, other: Gate) -> Gate:
        return And(self, other)

    def __or__(self, other: Gate) -> Gate:
        return Or(self, other)

    def __invert__(self) -> Gate:
        return Not(self)


@dataclass(frozen=True)
class Always(Gate):
    """Every token of the span."""

    def __str__(self) -> str:
        return "always"


@dataclass(frozen=True)
class AtSteps(Gate):
    """The last token of each step of the thought."""

    def __str__(self) -> str:
        return "steps"


@dataclass(frozen=True)
class FirstTokens(Gate):
    """Open until `k` output tokens were written; prompt tokens pass."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"FirstTokens({self.k}) never opens; k is a number of output tokens, at least 1")

    def __str__(self) -> str:
        return f"first_tokens({self.k})"


@dataclass(frozen=True, eq=False)
class ProbeGate(Gate):
    """Opens for a row where weight · h + bias > threshold at `site`, read at the tokens of `span`.

    weight      [d], in the model's own space (scaling folded back)
    site        a site with its layer, such as "resid_post.4"
    span        any span that can be decided as tokens arrive
    latched     True: once open, open for the rest of the sequence. False: the latest reading decides
    """

    weight: Float[Tensor, " d"]
    bias: float
    site: str
    threshold: float
    latched: bool = True
    span: str = "last_prompt"

    def __post_init__(self) -> None:
        if self.weight.ndim != 1:
            raise ValueError(f"a probe gate's weight is one direction [d], not {list(self.weight.shape)}; make one gate per direction")
        if not bool(self.weight.isfinite().all()):
            raise ValueError(f"the weight of the probe gate at {self.site!r} holds nan or inf; fit the probe again")
        name, layer = parse_site(self.site)
        if layer is None:
            raise ValueError(f"a probe gate reads at one site, not at every {name}: write the layer, as in {name}.4")
        parse_span(self.span)

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
