"""Gates at work: where a gate is open at the tokens of the forward pass now running.

All gates but probes are known when the forward begins. A probe is known once the forward has come to its site, and so a forward falls into
stages: stage 0 until the first probe has read, and one after each place at which probes read. A site is steered by what is known then.

Shapes: `b` rows, `p` tokens of this forward, `d` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .attach import place
from .clock import Clock, Tick, on_time
from .gates import Always, AtSteps, FirstTokens, Gate, ProbeGate, evaluate, leaves
from .operators import wide
from .spans import parse_span

if TYPE_CHECKING:
    from .model import LensModel


class Gating:
    """One gate, a combination perhaps, at work.

    openings   its probes, in the order they read
    """

    def __init__(self, gate: Gate, lens: LensModel) -> None:
        self.gate = gate
        probes = [Opening(leaf, lens) for leaf in dict.fromkeys(leaves(gate)) if isinstance(leaf, ProbeGate)]
        self.openings = sorted(probes, key=lambda opening: opening.place)
        self._stages = sorted({-1, *(opening.place for opening in probes)})

    def begin(self, clock: Clock) -> None:
        """A forward begins."""
        for opening in self.openings:
            opening.begin(clock.mask(opening.span), start=clock.now.start)

    def open(self, tick: Tick) -> Bool[Tensor, "b p"]:
        """Where the gate is open, by what is known at this point of the forward."""
        return evaluate(self.gate, lambda leaf: self._leaf(leaf, tick))

    def stage(self, opening: Opening) -> int | None:
        """The stage that begins once this probe has read; None if another reads at the same place after it."""
        last = [other for other in self.openings if other.place == opening.place][-1]
        return self._stages.index(opening.place) if opening is last else None

    def covers(self, stage: int, places: Sequence[int]) -> bool:
        """Whether any of the places comes in a stage."""
        begin, end = self._stages[stage], self._stages[stage + 1] if stage + 1 < len(self._stages) else max(places) + 1
        return any(begin <= at < end for at in places)

    def _leaf(self, leaf: Gate, tick: Tick) -> Bool[Tensor, "b p"]:
        match leaf:
            case Always():
                return tick.live
            case AtSteps():
                return tick.step_end
            case FirstTokens(k):
                return tick.output < k
            case ProbeGate():
                return next(opening.open for opening in self.openings if opening.gate is leaf)
        raise TypeError(f"{leaf!r} is no gate; known are Always, AtSteps, FirstTokens, ProbeGate and their combinations with & | ~")


class Opening:
    """One probe gate at work.

    place   rank of its site in the forward pass
    open    [b, p] where it is open at the tokens of this forward, as far as it is known by now
    """

    def __init__(self, gate: ProbeGate, lens: LensModel) -> None:
        (self.site,) = lens.expand(gate.site)
        if gate.weight.numel() != lens.width:
            raise ValueError(
                f"the gate at {gate.site} has a weight of width {gate.weight.numel()}, {lens.name} has {lens.width}. "
                "Fit the probe on this family."
            )
        if not on_time(gate.span):
            raise ValueError(
                f"the gate at {gate.site} reads at {gate.span!r}, which is only known once the output is whole. "
                "Read at last_prompt, thought or step_end[0]."
            )
        self.gate = gate
        self.span = parse_span(gate.span)
        self.place = place(self.site)
        self.open: Bool[Tensor, "b p"] = torch.zeros(0, 0, dtype=torch.bool)
        self._weight = wide(gate.weight).to(lens.device)

    def begin(self, here: Bool[Tensor, "b p"], *, start: bool) -> None:
        """A forward begins in which the gate reads at the tokens `here`; `start` where it is the first of a batch."""
        self._here = here
        self._carried = torch.zeros_like(here[:, 0]) if start else self.open[:, -1]
        self.open = self._carried[:, None].expand_as(here)

    def read(self, h: Float[Tensor, "b p d"]) -> None:
        """The forward has come to the gate's site."""
        above = (h.to(self._weight.dtype) @ self._weight + self.gate.bias) > self.gate.threshold
        if self.gate.latched:
            self.open = self._carried[:, None] | ((above & self._here).cumsum(1) > 0)
            return
        columns = torch.arange(self._here.shape[1], device=self._here.device)
        latest = torch.where(self._here, columns, -1).cummax(1).values
        self.open = torch.where(latest >= 0, above.gather(1, latest.clamp(min=0)), self._carried[:, None])

    def undecided(self) -> Bool[Tensor, "b p"]:
        """Tokens after one that is read in this same forward, in rows where that still matters."""
        after = self._here.cumsum(1) - self._here.long() > 0
        return after & ~self._carried[:, None] if self.gate.latched else after
