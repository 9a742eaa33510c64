"""Gates at work: where a gate is open at the tokens of the forward pass now running.

All gates but probes are known when the forward begins. A probe is known once the forward has come to its site, and so a forward falls into
stages: stage 0 until the first probe has read, and one after each place at which probes read. A site is steered by what is known then.

What a probe decides is decided inside the forward and in place, on buffers: it may be compiled.

Shapes: `b` rows, `p` tokens of this forward, `g` gates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from .buffers import Buffers
from .clock import Clock
from .gates import Always, AtSteps, FirstTokens, Gate, InSpans, ProbeGate, leaves
from .spans import Span, parse_span
from .tick import Tick, on_time


class Openings:
    """The probe gates of a steering, and where each is open.

    gates     each once
    columns   where the readouts of each stand in the buffer "scores"
    places    ranks of their sites in the forward pass
    reads     whether each may read a token of this forward
    """

    def __init__(self, gates: Sequence[ProbeGate], columns: Sequence[int], places: Sequence[int], buffers: Buffers) -> None:
        for gate in gates:
            if not on_time(gate.span):
                raise ValueError(
                    f"the gate at {gate.site} reads at {gate.span!r}, which is only known once the output is whole. "
                    "Read at last_prompt, thought or step_end[0]."
                )
        self.gates, self.columns, self.places = tuple(gates), tuple(columns), tuple(places)
        self.spans = [parse_span(gate.span) for gate in gates]
        self.reads = [True] * len(gates)
        self._buffers = buffers

    def lay_out(self, device: torch.device) -> None:
        for name in ("read", "carried", "open") if self.gates else ():
            self._buffers.lay_out(name, len(self.gates), dtype=torch.bool, device=device, tokens=name != "carried")

    def begin(self, clock: Clock, last: tuple[int, int] | None) -> None:
        """A forward begins: what is open stays open until it is read. `last`: shape of the one before it; None where a batch begins."""
        if not self.gates:
            return
        rows, tokens = clock.now.ids.shape
        reads = [clock.holds(span) for span in self.spans]
        if not any(reads) and not any(self.reads) and last == (rows, 1) == (rows, tokens):
            return  # as it was in the forward before
        self.reads = reads
        carried = self._buffers.view("carried", rows, 1)
        open_, read = (self._buffers.view(name, rows, tokens) for name in ("open", "read"))
        if last is None:
            carried.zero_()
        else:
            carried.copy_(self._buffers.view("open", *last)[:, -1:])
        open_.copy_(carried)
        for number, (span, reads_here) in enumerate(zip(self.spans, reads, strict=True)):
            if reads_here:
                read[..., number] = clock.mask(span)
            else:
                read[..., number].zero_()

    def decide(self, numbers: Sequence[int], shape: tuple[int, int]) -> None:
        """The readouts of some gates are there: where are they open?"""
        carried = self._buffers.view("carried", shape[0], 1)
        open_, read, scores = (self._buffers.view(name, *shape) for name in ("open", "read", "scores"))
        for number in numbers:
            gate = self.gates[number]
            here, before = read[..., number], carried[..., number]
            above = scores[..., self.columns[number]] > gate.threshold
            if gate.latched:
                now = before | (here & above).cumsum(1).bool()
            else:
                latest = torch.where(here, torch.arange(shape[1], device=here.device), -1).cummax(1).values
                now = torch.where(latest >= 0, above.gather(1, latest.clamp(min=0)), before)
            open_[..., number].copy_(now)

    def open(self, gate: ProbeGate, shape: tuple[int, int]) -> Bool[Tensor, "b p"]:
        """Where a gate is open, as far as it is known at this point of the forward."""
        return self._buffers.view("open", *shape)[..., self.gates.index(gate)]

    def reorder(self, rows: Int64[Tensor, " b"], shape: tuple[int, int]) -> None:
        if self.gates:
            open_ = self._buffers.view("open", *shape)
            open_.copy_(open_[rows])

    def undecided(self, number: int, clock: Clock) -> Bool[Tensor, "b p"]:
        """Tokens after one that is read in this same forward, in rows where that still matters."""
        rows, tokens = clock.now.ids.shape
        read, carried = self._buffers.view("read", rows, tokens)[..., number], self._buffers.view("carried", rows, 1)[..., number]
        after = read.cumsum(1) - read.long() > 0
        return after & ~carried if self.gates[number].latched else after


def known(gate: Gate, clock: Clock) -> Bool[Tensor, "b p"]:
    """Where a gate that is no probe is open."""
    tick = clock.now
    match gate:
        case Always():
            return tick.live
        case AtSteps():
            return _at_steps(gate, tick)
        case FirstTokens(k):
            return tick.output < k
        case InSpans(spans):
            there = [clock.mask(span) for span in spans if clock.holds(span)]
            return torch.stack(there).any(0) if there else torch.zeros_like(tick.live)
    raise TypeError(f"{gate!r} is no gate; known are Always, AtSteps, FirstTokens, InSpans, ProbeGate and their combinations with & | ~")


def counting(gates: Sequence[Gate]) -> list[str]:
    """What the clock has to count for some gates."""
    return sorted({leaf.counts for gate in gates for leaf in leaves(gate) if isinstance(leaf, AtSteps)} - {""})


def spans_asked(gates: Sequence[Gate]) -> list[Span]:
    """The spans that some gates ask the clock for."""
    parts = [leaf for gate in gates for leaf in leaves(gate)]
    inside = [parse_span(span) for leaf in parts if isinstance(leaf, InSpans) for span in leaf.spans]
    return inside + [parse_span(leaf.span) for leaf in parts if isinstance(leaf, ProbeGate)]


def _at_steps(gate: AtSteps, tick: Tick) -> Bool[Tensor, "b p"]:
    ends = tick.heading if gate.headings else tick.step_end
    if not gate.counts:
        return ends
    number = tick.section if gate.headings else tick.step
    if gate.first is not None:
        return ends & (number < gate.first)
    return ends & torch.stack([number == only for only in gate.only or ()]).any(0)
