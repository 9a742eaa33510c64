"""Edits: one change to a running model each, as it is asked for. Which vector, by which operator, how strongly, where and when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .attach import place
from .gates import Always, AtSteps, Gate, ProbeGate, leaves
from .operators import UNITS, LowRank
from .spans import DECISION, parse_span
from .vector import Vector

if TYPE_CHECKING:
    from .model import LensModel

Strength = float | Sequence[float] | Tensor
Unit = Literal["measured", "local"]


@dataclass(frozen=True, eq=False)
class Edit:
    """One way to steer.

    vector     a vector, or several directions (see Vector)
    strength   one number, or one per row (in generate: per prompt). Left out: what the vector recommends for this operator and unit, else 1
    operator   add | ablate | affine | rotate | subspace | transport (operators.py)
    spans      one or several, steered where any holds; left out, those the vector recommends likewise, else the span it was read at
    gate       see gates.py; left out, always open
    unit       "measured": strength 1 is the difference of the two classes. "local": of add, the length of the hidden state itself

    Raises ValueError for an operator, unit, span or strength that does not exist, and for a vector that lacks what the operator needs.
    """

    vector: Vector
    strength: Strength | None = None
    operator: str = "add"
    spans: str | Sequence[str] | None = None
    gate: Gate = Always()
    unit: Unit = "measured"

    def __post_init__(self) -> None:
        if not isinstance(self.vector, Vector):
            raise TypeError(f"an Edit is made of a Vector, not of {type(self.vector).__name__}. Vector.load(file) reads one.")
        if not isinstance(self.gate, Gate):
            raise TypeError(f"gate is a gate, such as AtSteps() or FirstTokens(16), not {self.gate!r}")
        if self.unit not in UNITS:
            raise ValueError(
                f'unknown unit {self.unit!r}; "measured" counts strength in differences of the two classes, "local" in lengths of the '
                "hidden state"
            )
        if self.operator not in UNITS["measured"]:
            raise ValueError(f"unknown operator {self.operator!r}; known are {', '.join(UNITS['measured'])}")
        if self.operator not in UNITS[self.unit]:
            raise ValueError(f'the unit {self.unit!r} is one of {", ".join(UNITS[self.unit])}; {self.operator} counts in "measured"')
        told = {"operator": "add", "unit": "measured", "strength": 1.0, "spans": self.vector.span, **self.vector.recommended}
        if (told["operator"], told["unit"]) != (self.operator, self.unit):
            told = {"strength": 1.0, "spans": self.vector.span}
        spans = told["spans"] if self.spans is None else self.spans
        if not isinstance(spans, str | Sequence):
            raise TypeError(f'spans is the name of a span or several, as in "thought", not {spans!r}')
        given = (spans,) if isinstance(spans, str) else tuple(spans)
        if not given:
            raise ValueError("spans=() steers nothing; name at least one, or leave it out for the vector's own span")
        object.__setattr__(self, "spans", tuple(str(parse_span(span)) for span in given))
        object.__setattr__(self, "strength", checked_strength(told["strength"] if self.strength is None else self.strength))
        if DECISION in self.where and not any(isinstance(leaf, ProbeGate) for leaf in leaves(self.gate)):
            raise ValueError(
                f'the span "{DECISION}" is where an anchor finds one, and the gate {self.gate} holds no anchor. Pass gate=anchor.gate(), '
                'or steer at the ends of all steps with spans="step_ends".'
            )
        if _apart(self.where, self.gate):
            raise ValueError(
                f"the gate {self.gate} is closed at {', '.join(self.where)}, so nothing would ever be steered. Change one of them."
            )
        for site in self.vector.sites:
            UNITS[self.unit][self.operator](self.vector, site)

    @property
    def strengths(self) -> Float[Tensor, "*n"]:
        """The strength as a tensor, [] or one per row."""
        assert isinstance(self.strength, Tensor)
        return self.strength

    @property
    def where(self) -> tuple[str, ...]:
        """The spans, one or several."""
        assert isinstance(self.spans, tuple)
        return self.spans

    def change(self, lens: LensModel, site: str) -> LowRank:
        """What it does at one of its sites, which share what `add` adds."""
        made = UNITS[self.unit][self.operator](self.vector, site)
        if self.operator != "add":
            return made
        return replace(made, basis=made.basis / math.sqrt(len(lens.expand(self.vector.sites))))

    def __str__(self) -> str:
        told = self.strengths.tolist()
        strength = f"{told:g}" if isinstance(told, float) else "per row"
        unit = "" if self.unit == "measured" else f" {self.unit}"
        return (
            f"{self.vector.source} {self.operator} {strength}{unit} at {','.join(self.vector.sites)}, {','.join(self.where)}, {self.gate}"
        )

    def facts(self) -> dict[str, Any]:
        """What it is, JSON-able."""
        return {
            "vector": self.vector.source,
            "sites": list(self.vector.sites),
            "spans": list(self.where),
            "operator": self.operator,
            "unit": self.unit,
            "strength": self.strengths.tolist(),
            "gate": str(self.gate),
        }


def edits_of(given: Vector | Edit | Iterable[Edit], how: Mapping[str, Any]) -> tuple[Edit, ...]:
    """What steer() was asked for as edits: a vector with keywords, or edits that say everything themselves. ValueError for both at once."""
    if isinstance(given, Vector):
        return (Edit(given, **{name: value for name, value in how.items() if value is not None}),)
    if named := [name for name, value in how.items() if value is not None]:
        raise ValueError(f"an Edit says its own {named[0]}: write Edit(vector, {named[0]}=…), and leave it out of steer()")
    edits = (given,) if isinstance(given, Edit) else tuple(given)
    if strange := [one for one in edits if not isinstance(one, Edit)]:
        raise TypeError(f"steer() takes a Vector, an Edit or several, not {type(strange[0]).__name__}")
    return edits


def _apart(spans: Sequence[str], gate: Gate) -> bool:
    """Whether a gate at certain steps never opens where a step ends that is named."""
    named = [parse_span(span) for span in spans]
    if not isinstance(gate, AtSteps) or gate.headings or any(span.base != "step_end" or (span.index or 0) < 0 for span in named):
        return False
    open_at = [gate.only is None or span.index in gate.only for span in named]
    return not any(on and (gate.first is None or (span.index or 0) < gate.first) for on, span in zip(open_at, named, strict=True))


def checked_strength(strength: Strength) -> Float[Tensor, "*n"]:
    try:
        given = torch.as_tensor(strength, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"strength is a number or one per row, not {strength!r}") from error
    if given.ndim > 1 or not bool(given.isfinite().all()):
        raise ValueError(f"strength is one finite number or one per row, not {strength!r}")
    return given


def check_fits(lens: LensModel, edit: Edit) -> None:
    """ValueError for a vector of another width, or of sites that this model does not have or that cannot be changed."""
    if edit.vector.width != lens.width:
        raise ValueError(
            f"the vector {edit.vector.source!r} has width {edit.vector.width}, {lens.name} has {lens.width}. "
            "Make it with models of this family."
        )
    for site in lens.expand(edit.vector.sites):
        place(site)
