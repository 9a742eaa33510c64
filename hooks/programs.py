"""Programs: what happens at each site while the model runs. A probe reads there; edits change what goes on.

Probes come ahead of changes, so that one at a steered site reads what the model itself wrote there. Every program counts its calls, since
one that never runs would leave a model unsteered without a word.

Shapes: `b` rows, `p` tokens of this forward, `d` width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from .amounts import Amounts, Shape
from .attach import Change, attach, place
from .buffers import Buffers
from .edits import Edit
from .gating import Openings
from .operators import Changes, apply, stacked, wide
from .readouts import Reading, attach_reading
from .sites import Site

if TYPE_CHECKING:
    from .model import LensModel


@dataclass(eq=False)
class Program:
    """What is changed at one site. columns: the amounts that drive it, None for all of them in order."""

    site: Site
    changes: Changes
    columns: list[int] | None


class Programs:
    """The programs of a steering.

    changing   those that change, in the order of the forward pass; reading: likewise
    watched    columns of the scores that somebody wants at every token
    running    whether a forward of the model is under way
    """

    def __init__(
        self,
        lens: LensModel,
        edits: Sequence[Edit],
        reading: Sequence[Reading],
        watched: Collection[int],
        openings: Openings,
        amounts: Amounts,
        buffers: Buffers,
    ) -> None:
        self._lens, self._openings, self._amounts, self._buffers = lens, openings, amounts, buffers
        self.reading, self._watched, self.running = reading, watched, False
        self.changing = _changing(lens, edits, amounts.order)
        self._calls = [0] * (len(self.changing) + len(self.reading))

    @property
    def crossing(self) -> list[Site]:
        """Sites in layers that only a row with a picture runs."""
        sites = [*(program.site for program in self.changing), *(reading.site for reading in self.reading)]
        return [site for site in sites if self._lens.blocks[site.layer].site == "cross_attn_out"]

    def lay_out(self, device: torch.device) -> None:
        scores = sum(reading.columns.stop - reading.columns.start for reading in self.reading)
        self._buffers.add("calls", torch.zeros(max(1, len(self._calls)), dtype=torch.int64, device=device))
        self._buffers.lay_out("scores", scores, dtype=torch.float32, device=device)

    def attach(self) -> Iterator[RemovableHandle]:
        """Put the hooks on the layers, one after another."""
        for number, reading in enumerate(self.reading, len(self.changing)):
            unread, decide = self._unread(number, reading), self._deciding(number, reading.place)
            yield attach_reading(self._lens, reading, self._buffers, idle=unread, then=decide)
        for number, program in enumerate(self.changing):
            yield attach(self._lens, program.site, self._change(number, program))

    def silent(self, *, steered: bool) -> list[str]:
        """What never ran, of all that reads and, where something was to be steered, of all that changes."""
        told = [*(f"steered at {program.site}" for program in self.changing), *(f"read at {reading.site}" for reading in self.reading)]
        due = [steered] * len(self.changing) + [True] * len(self.reading)
        compiled = self._buffers["calls"].tolist()
        return [name for name, asked, *calls in zip(told, due, self._calls, compiled, strict=False) if asked and not any(calls)]

    def _change(self, number: int, program: Program) -> Change:
        amounts_of, buffers, calls, here, here_name = self._amounts, self._buffers, self._calls, self._lens.device, self._lens.name

        def change(h: Tensor) -> Tensor:
            if torch.compiler.is_compiling():
                buffers["calls"][number].add_(1)
                amounts, every = buffers.view("amounts", h.shape[0], h.shape[1]), False
            else:
                if not self.running and not torch.is_grad_enabled():  # a layer is run again where gradients are checkpointed
                    raise RuntimeError(
                        f"a layer of {here_name} runs outside a forward of the model, so steering cannot tell its tokens. Run lens.model."
                    )
                calls[number] += 1
                idle, every = amounts_of.at_site()
                if idle:
                    return h
                amounts, every = amounts_of.now, every and program.columns is None
            if program.columns is not None:
                amounts = amounts[..., program.columns]
            amounts_of.note(program.columns, amounts)
            if h.device != here:
                amounts = amounts.to(h.device)
                program.changes = program.changes.to(h.device, program.changes.basis.dtype)
            return apply(h, program.changes, amounts, every)

        return change

    def _unread(self, number: int, reading: Reading) -> Callable[[], bool]:
        """Whether nobody asks for what a reading would read in this forward: no monitored probe is among it, and no gate reads a token."""
        watched = any(reading.columns.start <= column < reading.columns.stop for column in self._watched)
        gates = [gate for gate, its in enumerate(self._openings.places) if its == reading.place]

        def unread() -> bool:
            self._calls[number] += 1
            return not watched and not any(self._openings.reads[gate] for gate in gates)

        return unread

    def _deciding(self, number: int, at: int) -> Callable[[Shape], None]:
        """What follows once the probes of a site have read: their gates open or close, and the amounts of later sites are written anew."""
        gates = [gate for gate, its in enumerate(self._openings.places) if its == at]

        def decide(shape: Shape) -> None:
            if torch.compiler.is_compiling():
                self._buffers["calls"][number].add_(1)
            if gates:
                self._openings.decide(gates, shape)
                self._amounts.redecide(gates, shape)

        return decide


def _changing(lens: LensModel, edits: Sequence[Edit], order: Sequence[int]) -> list[Program]:
    """What is changed at each site, in the order of the forward pass; `order` is the edit of each column of the amounts."""
    at = dict[Site, list[int]]()
    for column, number in enumerate(order):
        for site in lens.expand(edits[number].vector.sites):
            at.setdefault(site, []).append(column)
    dtype = wide(torch.empty(0, dtype=lens.dtype)).dtype
    programs = []
    for site in sorted(at, key=place):
        columns = at[site]
        made = stacked([edits[order[column]].change(lens, str(site)) for column in columns], range(len(columns)), len(columns))
        programs.append(Program(site, made.to(lens.device, dtype), None if len(columns) == len(order) else columns))
    return programs
