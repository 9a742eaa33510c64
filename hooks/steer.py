"""Steering: changing hidden states at chosen sites and tokens while the model runs.

    h'_t = operator(h_t, u_site, α_row)   for every token t in the spans where the gate is open

Hooks are installed once. Before each forward the clock says what its tokens are, and one buffer is written: `amount` [b, p], the row's
strength at tokens to be steered and 0 elsewhere. The hooks on the layers only read buffers, so that strengths, rows and the switch are
in-place writes, which a compiled layer sees too. A probe gate adds a hook that reads at its site and writes `amount` anew for the sites
after it.

Where α is 0 the hidden state keeps its bits. Rows that have ended and padding are neither steered nor counted.

Turner et al. 2023, "Steering language models with activation engineering"; Zou et al. 2023, "Representation engineering".
Shapes: `b` rows, `p` tokens of this forward, `d` width, `s` sites.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .attach import Change, attach, place
from .buffers import Buffers
from .clock import Clock
from .firing import Firing
from .gates import Always, Gate
from .gating import Gating, Opening
from .operators import OPERATORS, wide
from .spans import parse_span
from .vector import Vector

if TYPE_CHECKING:
    from .model import LensModel

__all__ = ["Steering", "Vector", "steer"]

log = logging.getLogger(__name__)


def steer(
    lens: LensModel,
    vector: Vector,
    *,
    strength: float | Sequence[float] | Tensor = 1.0,
    spans: str | Sequence[str] | None = None,
    gate: Gate | None = None,
    operator: str = "add",
    unit: Literal["norm", "raw"] = "norm",
) -> AbstractContextManager[Steering]:
    """Steer `lens` inside a with-block.

    strength   one number, or one per row (in generate: per prompt). With unit "norm" a share of the mean residual length at the site,
               shared over the sites (see Vector); with "raw" a multiple of the vector. For ablate the share that is removed.
    spans      one or several, steered where any holds; left out, the span the vector was read at
    gate       see gates.py; left out, always open
    operator   add | ablate

    Raises ValueError for a vector of another width, a site this model does not have, a span or gate that cannot be followed, and on
    leaving when steering was on, tokens went by and not one was steered. RuntimeError if the model is being steered already.
    """
    if operator not in OPERATORS:
        raise ValueError(f"unknown operator {operator!r}; known are {', '.join(OPERATORS)}")
    if unit not in ("norm", "raw"):
        raise ValueError(f'unknown unit {unit!r}; "norm" counts strength in mean residual lengths, "raw" in multiples of the vector')
    chosen = (vector.span,) if spans is None else (spans,) if isinstance(spans, str) else tuple(spans)
    if not chosen:
        raise ValueError("spans=() steers nothing; name at least one, or leave it out for the vector's own span")
    for span in chosen:
        parse_span(span)
    scaled = vector.natural() if operator == "add" and unit == "norm" else vector
    return _installed(Steering(lens, scaled, chosen, Always() if gate is None else gate, operator, unit, strength))


@contextmanager
def _installed(steering: Steering) -> Iterator[Steering]:
    with ExitStack() as undo:
        steering._install(undo)
        yield steering
        steering._check_fired()


class Steering:
    """One active steering: what steer() yields, and `lens.steering` while it lasts.

    rows     which rows are steered at all, [b] or, in generate, one per prompt; None: every row. Read when a batch begins
    clock    what the tokens of the running forward are
    """

    def __init__(
        self,
        lens: LensModel,
        vector: Vector,
        spans: tuple[str, ...],
        gate: Gate,
        operator: str,
        unit: str,
        strength: float | Sequence[float] | Tensor,
    ) -> None:
        if vector.width != lens.width:
            raise ValueError(
                f"the vector {vector.source!r} has width {vector.width}, {lens.name} has {lens.width}. Make it with models of this family."
            )
        self.lens, self.vector, self.spans, self.gate, self.operator, self.unit = lens, vector, spans, gate, operator, unit
        self.sites = tuple(lens.expand(vector.sites))
        self.rows: Bool[Tensor, " n"] | None = None
        self.forwards = 0
        self._places = [place(site) for site in self.sites]
        self._gating = Gating(gate, lens)
        self._spans = [parse_span(span) for span in spans]
        self.clock = Clock(lens, [*self._spans, *(opening.span for opening in self._gating.openings)])
        self._strength = _checked(strength)
        self._strength_changed = True
        self._was_on = False
        self._pick: Int64[Tensor, " b"] | None = None
        self._firing = Firing.none()
        self._buffers = Buffers(lens.inner)

    @property
    def strength(self) -> float | list[float]:
        """As it was set: one number, or one per row."""
        given: float | list[float] = self._strength.tolist()
        return given

    def set_strength(self, strength: float | Sequence[float] | Tensor) -> None:
        """Change the strength from the next forward on, in place: one number, or one per row (in generate: per prompt)."""
        self._strength = _checked(strength)
        self._strength_changed = True
        if "strength" in self._buffers and len(self._buffers["strength"]):
            self._buffers["strength"] = self._per_row(len(self._buffers["strength"]))

    @property
    def fired(self) -> Int64[Tensor, " b"]:
        """Tokens steered in each row of the batch that ran last; a token counts once, at however many sites it is steered."""
        return self._firing.fired.clone()

    @property
    def fired_total(self) -> int:
        """Tokens steered in all rows of all batches."""
        return self._firing.summed().total

    def report(self) -> dict[str, Any]:
        """What was steered and how often it acted, JSON-able."""
        counts = self._firing.summed()
        return {
            "vector": self.vector.source,
            "sites": [str(site) for site in self.sites],
            "spans": list(self.spans),
            "operator": self.operator,
            "unit": self.unit,
            "strength": self.strength,
            "gate": str(self.gate),
            "forwards": self.forwards,
            "rows": counts.rows,
            "rows_fired": counts.rows_fired,
            "fired": counts.total,
        }

    def expect(
        self,
        prompt_lengths: Int64[Tensor, " b"] | None,
        *,
        rows: Int64[Tensor, " b"] | None = None,
        whole: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Announce the coming batch; None takes it back.

        prompt_lengths   where its prompts end
        rows             where its rows stand among the strengths and `rows` that were given one by one
        whole            as in Clock.expect
        """
        self.clock.expect(prompt_lengths, whole)
        self._pick = rows

    def check_rows(self, n: int) -> None:
        """ValueError unless strengths and `rows`, where given one by one, are `n`."""
        for what, given in (("strengths", self._strength), ("rows", self.rows)):
            if given is not None and given.ndim and len(given) != n:
                raise ValueError(f"{len(given)} {what} for {n} rows; give one for each, or a single one for all")

    # installing

    def _install(self, undo: ExitStack) -> None:
        lens = self.lens
        if lens.steering is not None:
            raise RuntimeError(
                f"{lens.name} is being steered already, with {lens.steering.vector.source!r}. Leave that with-block first, or put all "
                "sites and spans into one steer()."
            )
        undo.callback(setattr, lens, "steering", None)
        lens.steering = self
        vectors = torch.stack([wide(value) for value in self.vector.values.values()]).to(lens.device)
        empty, calls = torch.zeros(0, device=lens.device), torch.zeros(len(self.sites), dtype=torch.int64, device=lens.device)
        undo.callback(self._buffers.remove)
        for name, value in (("vectors", vectors), ("strength", empty), ("amount", empty), ("calls", calls)):
            self._buffers.add(name, value)
        undo.callback(self.clock.attach().remove)
        undo.callback(lens.inner.register_forward_pre_hook(lambda *_: self._before()).remove)
        undo.callback(lens.inner.register_forward_hook(lambda *_: self._after()).remove)
        # probes ahead of changes, so that a gate at a steered site reads what the model itself wrote there
        for opening in self._gating.openings:
            undo.callback(attach(lens, opening.site, self._reading(opening)).remove)
        for number, site in enumerate(self.sites):
            undo.callback(attach(lens, site, self._changing(number)).remove)

    def _changing(self, number: int) -> Change:
        buffers, operator = self._buffers, OPERATORS[self.operator]

        def change(h: Tensor) -> Tensor:
            buffers["calls"][number].add_(1)
            return operator(h, buffers["vectors"][number], buffers["amount"])

        return change

    def _reading(self, opening: Opening) -> Change:
        stage = self._gating.stage(opening)

        def read(h: Tensor) -> Tensor:
            opening.read(h)
            if stage is not None:
                self._decide(stage)
            return h

        return read

    # running

    def _before(self) -> None:
        tick = self.clock.now
        self.forwards += 1
        if tick.start:
            self._begin(len(tick.ids))
        self._candidates = self.clock.mask(self._spans[0])
        for span in self._spans[1:]:
            self._candidates = self._candidates | self.clock.mask(span)
        if self._steered_rows is not None:
            self._candidates = self._candidates & self._steered_rows[:, None]
        if self._strength_changed:
            strength = self._buffers["strength"] if self._steered_rows is None else self._buffers["strength"] * self._steered_rows
            self._was_on, self._strength_changed = self._was_on or bool(strength.any()), False
        self._gating.begin(self.clock)
        if tick.ids.shape[1] > 1:
            self._check_order()
        self._acted = torch.zeros_like(self._candidates)
        self._decide(0)

    def _begin(self, rows: int) -> None:
        if self._pick is None:
            self.check_rows(rows)
        self._firing = self._firing.next(rows, self.lens.device)
        self._buffers["strength"] = self._per_row(rows)
        self._steered_rows = None if self.rows is None else self._picked(self.rows).to(self.lens.device)
        self._strength_changed = True

    def _decide(self, stage: int) -> None:
        """Write `amount` for the sites of a stage of the forward (see gating.py)."""
        mask = self._candidates & self._gating.open(self.clock.now)
        self._buffers["amount"] = mask * self._buffers["strength"][:, None]
        if self._gating.covers(stage, self._places):
            self._acted = self._acted | (self._buffers["amount"] != 0)

    def _after(self) -> None:
        self._firing.fired += self._acted.sum(1)

    def _check_order(self) -> None:
        first = min(range(len(self.sites)), key=self._places.__getitem__)
        for opening in self._gating.openings:
            if self._places[first] < opening.place and bool((self._candidates & opening.undecided()).any()):
                raise ValueError(
                    f"the gate reads at {opening.site}, after {self.sites[first]} is steered, and this forward holds both the token it "
                    f"reads and later tokens to steer, which cannot wait for it. Let the gate read at {self.sites[first]} or before."
                )

    def _per_row(self, rows: int) -> Float[Tensor, " b"]:
        return self._strength.expand(rows) if self._strength.ndim == 0 else self._picked(self._strength)

    def _picked(self, given: Tensor) -> Tensor:
        return given if self._pick is None else given[self._pick]

    # leaving

    def _check_fired(self) -> None:
        if not self._was_on:
            return
        ran = self._buffers["calls"].tolist()
        if idle := [str(site) for site, calls in zip(self.sites, ran, strict=True) if calls == 0]:
            raise ValueError(
                f"nothing was steered at {idle[0]}: {self.forwards} forwards began, but the hook there never ran. A model compiled before "
                "steer() does not see its hooks: enter steer() first, or call torch._dynamo.reset()."
            )
        if self.fired_total:
            return
        rows, writing = self._firing.summed().rows, self.clock.writing
        text = (
            f"no hidden state was steered in {rows} rows: the spans {', '.join(self.spans)} under the gate {self.gate} held no token. "
            f'Dialect "{self.lens.dialect.name}": of the {len(writing.marked)} outputs of the last batch {int(writing.marked.sum())} wrote '
            f"a marker, {int(writing.closed.sum())} closed a thought."
        )
        if self._gating.openings:
            log.warning("%s The probe gate may have stayed closed: lower its threshold if it should have opened.", text)
            return
        raise ValueError(f'{text} Generate longer, load the model with the dialect it writes, or steer at "last_prompt".')


def _checked(strength: float | Sequence[float] | Tensor) -> Float[Tensor, "*n"]:
    given = torch.as_tensor(strength, dtype=torch.float32).detach().cpu()
    if given.ndim > 1 or not bool(given.isfinite().all()):
        raise ValueError(f"strength is one finite number or one per row, not {strength!r}")
    return given
