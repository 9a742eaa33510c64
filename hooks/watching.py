"""Watching: probes read at every token, triggers that hear of it, and a callback, all after the forward that they look at.

Readouts stay on the device until they are asked for. The callback alone copies in every step.

Shapes: `b` rows, `p` tokens of this forward, `k` probes, `t` triggers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .amounts import Shape
from .buffers import Buffers
from .clock import Clock
from .firing import Firing, RowRecord
from .gates import Gate, ProbeGate, evaluate
from .gating import Openings, known
from .kinds import Kind
from .triggers import Acting


@dataclass(frozen=True)
class Seen:
    """What the callback is told after every forward.

    rows        numbers of the rows (in generate: of the prompts)
    tokens      [b] the token that was run last in each row: of the prompt at first, then the ones written; None for a row that has ended
    scores      per probe its readouts there, [b]
    triggered   per trigger whether it fired there, [b]
    """

    rows: Sequence[int]
    tokens: Sequence[int | None]
    scores: Mapping[str, Sequence[float]]
    triggered: Mapping[str, Sequence[bool]]


@dataclass(frozen=True, eq=False)
class Held:
    """The readouts of one prompt that was generated for.

    position   [n] in prompt and output together, from the last prompt token on
    scores     per probe its readouts there, [n]
    triggered  per trigger the positions at which it fired
    """

    prompt_id: str
    position: Int64[np.ndarray, " n"]
    scores: Mapping[str, Float[np.ndarray, " n"]]
    triggered: Mapping[str, tuple[int, ...]]


class Watching:
    """What is watched.

    probes    names, and the column of each in the buffer "scores"
    acting    the triggers at work
    """

    def __init__(
        self,
        probes: Mapping[str, int],
        acting: Acting,
        openings: Openings,
        buffers: Buffers,
        on_token: Callable[[Seen], None] | None,
    ) -> None:
        self.probes, self.acting, self._openings, self._buffers, self._on_token = dict(probes), acting, openings, buffers, on_token

    def look(self, clock: Clock, shape: Shape, counts: Bool[Tensor, "b p"] | None, firing: Firing, rows: Sequence[int] | None) -> None:
        """After a forward: keep the readouts from the last prompt token on, let triggers and the callback hear of the last token.

        counts   tokens of which notice is taken; None: all
        """
        tick = clock.now
        there = tick.live if tick.decoding else tick.live & (tick.output >= -1)
        there = there if counts is None else there & counts
        scores = self._buffers.view("scores", *shape)
        if self.probes:
            firing.add_scores(tick, there, scores.clone())
        if not self.acting.triggers and self._on_token is None:
            return
        end = _last(there)
        hit = torch.zeros(shape[0], 0, dtype=torch.bool, device=there.device)
        if self.acting.triggers:
            hit = self._hear(clock, shape, end, there.gather(1, end)[:, 0])
            firing.add_triggers(tick.position.gather(1, end), hit[:, None])
        if self._on_token is not None:
            live, tokens = there.gather(1, end)[:, 0].tolist(), tick.ids.gather(1, end)[:, 0].tolist()
            read = scores.gather(1, end[..., None].expand(-1, -1, scores.shape[-1]))[:, 0].T.tolist()
            self._on_token(
                Seen(
                    list(range(len(live))) if rows is None else rows,
                    [token if on else None for token, on in zip(tokens, live, strict=True)],
                    {name: read[column] for name, column in self.probes.items()},
                    {str(one): fired for one, fired in zip(self.acting.triggers, hit.T.tolist(), strict=True)},
                )
            )

    def held(self, prompt_id: str, record: RowRecord) -> Held:
        """What was read of a prompt, from the record of its row."""
        fired = {str(one): tuple(record.triggered_at[record.triggered[:, n]].tolist()) for n, one in enumerate(self.acting.triggers)}
        return Held(prompt_id, record.read_at, {name: record.scores[:, n] for n, name in enumerate(self.probes)}, fired)

    def _hear(self, clock: Clock, shape: Shape, end: Int64[Tensor, "b 1"], live: Bool[Tensor, " b"]) -> Bool[Tensor, "b t"]:
        tick = clock.now

        def at_end(values: Tensor) -> Tensor:
            return values.gather(1, end)[:, 0]

        def opened(leaf: Gate) -> Bool[Tensor, "b p"]:
            return self._openings.open(leaf, shape) if isinstance(leaf, ProbeGate) else known(leaf, clock)

        hit = torch.stack([at_end(evaluate(one.when, opened)) for one in self.acting.triggers], 1) & live[:, None]
        output = at_end(tick.output)
        boundary = at_end(tick.step_end) | (at_end(tick.kinds) == Kind.MARKER) | (output == -1)
        return self.acting.hear(hit, clock.writing.thinking & boundary & live, output)


def _last(there: Bool[Tensor, "b p"]) -> Int64[Tensor, "b 1"]:
    """The column of each row's last token, which is not the last column where padding is on the right."""
    if there.shape[1] == 1:
        return torch.zeros(len(there), 1, dtype=torch.int64, device=there.device)
    columns = torch.arange(there.shape[1], device=there.device)
    return torch.where(there, columns, -1).max(1, keepdim=True).values.clamp(min=0)
