"""Amounts: how strongly each edit acts on each token of the forward that runs. One buffer, written before the hooks on the layers read it.

    amounts[b, p, e] = strength of edit e in row b, where token p lies in the edit's spans and its gate is open; else 0

Edits that share spans and gate share a mask and stand side by side. What probes decide is decided inside the forward, in stages
(gating.py): the amounts are then written anew for the sites after them, in place, so that it may be compiled.

Shapes: `b` rows, `p` tokens of this forward, `e` edits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .attach import place
from .buffers import Buffers
from .clock import Clock
from .edits import Edit
from .gates import Always, Gate, ProbeGate, evaluate, leaves, mapped
from .gating import Openings, known
from .spans import Span, parse_span

if TYPE_CHECKING:
    from .model import LensModel

Shape = tuple[int, int]


@dataclass(frozen=True)
class _Numbered(Gate):
    """A leaf of a gate by its number: among the probe gates, or among the leaves that are known when a forward begins."""

    number: int
    probe: bool


@dataclass(frozen=True, eq=False)
class Where:
    """Edits that act in the same spans under the same gate.

    numbered  the gate with its leaves by number, where there is a probe among them
    columns   theirs among the amounts
    probes    numbers of the probe gates in the gate
    places    ranks in the forward pass of the sites of each edit
    """

    spans: tuple[Span, ...]
    gate: Gate
    numbered: Gate
    columns: slice
    probes: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]


class Amounts:
    """The amounts of a steering.

    order   the edit of each column
    now     [b, p, e] those of the forward that runs; a compiled layer takes them from the buffer itself
    """

    def __init__(self, lens: LensModel, edits: Sequence[Edit], openings: Openings, buffers: Buffers) -> None:
        self._openings, self._buffers, self._count = openings, buffers, len(edits)
        alike: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for number, edit in enumerate(edits):
            gate_of = next(n for n, one in enumerate(edits) if one.gate == edit.gate)
            alike.setdefault((edit.where, gate_of), []).append(number)
        self.order = [number for numbers in alike.values() for number in numbers]
        gated = [leaf for edit in edits for leaf in leaves(edit.gate) if any(isinstance(one, ProbeGate) for one in leaves(edit.gate))]
        self._knowns = [leaf for leaf in dict.fromkeys(gated) if not isinstance(leaf, ProbeGate)]

        def numbered(leaf: Gate) -> Gate:
            if isinstance(leaf, ProbeGate):
                return _Numbered(openings.gates.index(leaf), True)
            return _Numbered(self._knowns.index(leaf), False) if leaf in self._knowns else leaf

        self.wheres: list[Where] = []
        for (spans, gate_of), numbers in alike.items():
            start = self.wheres[-1].columns.stop if self.wheres else 0
            gate = edits[gate_of].gate
            probes = tuple(openings.gates.index(leaf) for leaf in leaves(gate) if isinstance(leaf, ProbeGate))
            places = tuple(tuple(place(site) for site in lens.expand(edits[n].vector.sites)) for n in numbers)
            columns = slice(start, start + len(numbers))
            self.wheres.append(Where(tuple(map(parse_span, spans)), gate, mapped(gate, numbered), columns, probes, places))
        self._probes = sorted({number for where in self.wheres for number in where.probes})
        self.now: Float[Tensor, "b p e"] = torch.zeros(0, 0, len(edits))
        self._idle = self._every = self._dirty = False
        self._deciding = False  # whether a probe reads in this forward, so that amounts change under way

    @property
    def staged(self) -> bool:
        """Whether probes decide."""
        return bool(self._probes)

    def lay_out(self, device: torch.device) -> None:
        buffers, count = self._buffers, self._count
        buffers.lay_out("strength", count, dtype=torch.float32, device=device, tokens=False)
        buffers.lay_out("amounts", count, dtype=torch.float32, device=device)
        for name, behind in {"acted": count, "candidates": len(self.wheres), "known": len(self._knowns)}.items() if self.staged else ():
            buffers.lay_out(name, behind, dtype=torch.bool, device=device)

    def write_strengths(self, strengths: Float[Tensor, "b e"]) -> None:
        """Strengths by row and edit, the edits in the order they were given."""
        self._buffers.view("strength", len(strengths), 1).copy_(strengths[:, None, self.order])

    def begin(self, clock: Clock, shape: Shape, armed: Bool[Tensor, "b p"] | None) -> None:
        """A forward begins: write the amounts by what is known now. `armed` says at which tokens anything may act; None: at all."""
        on = [self.candidates(where, clock, armed) for where in self.wheres]
        if all(mask is None for mask in on):
            return self._rest()
        if self.staged:
            self._deciding = any(self._openings.reads[number] for number in self._probes)
            self._prepare_stages(on, clock, shape)
        strength, amounts = self._buffers.view("strength", shape[0], 1), self._buffers.view("amounts", *shape)
        for where, mask in zip(self.wheres, on, strict=True):
            whole = len(self.wheres) == 1
            part, its = (amounts, strength) if whole else (amounts[..., where.columns], strength[..., where.columns])
            if mask is None:
                part.zero_()
                continue
            if where.probes:
                mask = mask & self._open(where.numbered, shape)
            elif not isinstance(where.gate, Always):
                mask = mask & evaluate(where.gate, lambda leaf: known(leaf, clock))
            torch.mul(mask[..., None], its, out=part)
        self.now, self._dirty = amounts, True
        self._look()

    def candidates(self, where: Where, clock: Clock, armed: Bool[Tensor, "b p"] | None = None) -> Bool[Tensor, "b p"] | None:
        """Tokens in the spans of some edits; None where it is known without looking that there are none."""
        masks = [clock.mask(span) for span in where.spans if clock.holds(span)]
        if not masks:
            return None
        mask = masks[0] if len(masks) == 1 else torch.stack(masks).any(0)
        return mask if armed is None else mask & armed

    def redecide(self, numbers: Sequence[int], shape: Shape) -> None:
        """Some probe gates have read: write the amounts of the sites from there on. May run compiled."""
        if not set(numbers) & set(self._probes) or not (torch.compiler.is_compiling() or self._dirty):
            return
        strength = self._buffers.view("strength", shape[0], 1)
        amounts, candidates = (self._buffers.view(name, *shape) for name in ("amounts", "candidates"))
        for number, where in enumerate(self.wheres):
            if set(numbers) & set(where.probes):
                mask = candidates[..., number] & self._open(where.numbered, shape)
                amounts[..., where.columns].copy_(mask[..., None] * strength[..., where.columns])

    def at_site(self) -> tuple[bool, bool]:
        """For a site that is not compiled: is no amount here other than 0; has each token one? As far as it costs no waiting."""
        if self._deciding:
            self._look()
        return self._idle, self._every

    def note(self, columns: list[int] | None, amounts: Float[Tensor, "b p e"]) -> None:
        """A site was steered by these amounts, which may be others at the next. May run compiled."""
        if not (self.staged and (torch.compiler.is_compiling() or self._deciding)):
            return
        acted, on = self._buffers.view("acted", amounts.shape[0], amounts.shape[1]), amounts != 0
        if columns is None:
            acted.logical_or_(on)
        else:
            acted[..., columns] = acted[..., columns] | on

    def acted(self, shape: Shape) -> Bool[Tensor, "b p e"] | None:
        """Which edits acted on which tokens of the forward that ran, in the order they were given; None where it is known that none did."""
        if not self._dirty or (self._idle and not self._deciding):
            return None
        now = self._buffers.view("acted", *shape).clone() if self._deciding else self._buffers.view("amounts", *shape) != 0
        return now if self.order == list(range(self._count)) else now[..., [self.order.index(number) for number in range(self._count)]]

    def _rest(self) -> None:
        """Nothing is steered in this forward."""
        if self._dirty:
            self._buffers["amounts"].zero_()
            if self.staged:
                self._buffers["candidates"].zero_()
        self._idle, self._every, self._dirty, self._deciding = True, False, False, False

    def _look(self) -> None:
        """Where asking costs no waiting, ask whether anything is steered, or everything."""
        self._idle = self._every = False
        if self.now.device.type == "cpu":
            on = int(torch.count_nonzero(self.now))
            self._idle, self._every = on == 0, on == self.now.numel()

    def _prepare_stages(self, on: Sequence[Bool[Tensor, "b p"] | None], clock: Clock, shape: Shape) -> None:
        """Keep what the stages of this forward will need: they run inside it."""
        candidates, there = self._buffers.view("candidates", *shape), self._buffers.view("known", *shape)
        for number, mask in enumerate(on):
            candidates[..., number] = False if mask is None else mask
        for number, leaf in enumerate(self._knowns):
            there[..., number] = known(leaf, clock)
        self._buffers.view("acted", *shape).zero_()

    def _open(self, gate: Gate, shape: Shape) -> Bool[Tensor, "b p"]:
        """Where a gate whose leaves are numbered is open, by what is known at this point of the forward."""
        there, open_ = self._buffers.view("known", *shape), self._buffers.view("open", *shape)

        def opened(leaf: Gate) -> Bool[Tensor, "b p"]:
            assert isinstance(leaf, _Numbered)
            return (open_ if leaf.probe else there)[..., leaf.number]

        return evaluate(gate, opened)
