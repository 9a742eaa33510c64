"""Kinds of output tokens as they arrive: what dialects.Stream says, for all rows at once and without leaving the device.

A marker is one token or several, in one of several spellings. Each row keeps as many recent tokens as the longest spelling has.

    before the first marker      answer, or thought where the prompt wrote the opener
    opener, if the first marker  thought from here on
    first closer                 answer from here on; this token closes the thought
    end token, and after it      template; nothing counts any more

Shapes: `b` rows, `p` tokens of this forward, `s` spellings of markers, `k` tokens of the longest.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from .dialects import Markers
from .kinds import Kind


class Writing:
    """The state of a batch of outputs. begin() for each batch, then read() for each forward.

    marked   [b] a marker was written
    closed   [b] the thought was closed
    """

    def __init__(self, markers: Markers, opened: bool, vocabulary: int, device: torch.device) -> None:
        spellings = [*markers.opens, *markers.closes]
        self._opened = opened
        self._width = max(map(len, spellings), default=1)
        self._openers = len(markers.opens)
        padded = [[-1] * (self._width - len(s)) + list(s) for s in spellings]
        self._patterns = torch.tensor(padded, dtype=torch.int64, device=device).reshape(-1, self._width)
        self._lengths = torch.tensor([len(s) for s in spellings], dtype=torch.int64, device=device)
        self._ends = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        self._ends[[i for i in markers.eos_ids if i < vocabulary]] = True

    def begin(self, rows: int) -> None:
        device = self._ends.device
        self._recent = torch.full((rows, self._width), -2, device=device)
        self._age = torch.zeros(rows, dtype=torch.int64, device=device)
        self._thinking = torch.full((rows,), self._opened, device=device)
        self.marked, self.closed, self._ended = (torch.zeros(rows, dtype=torch.bool, device=device) for _ in range(3))

    def read(
        self, ids: Int64[Tensor, "b p"], written: Bool[Tensor, "b p"], *, all_rows: bool
    ) -> tuple[Int64[Tensor, "b p"], Bool[Tensor, "b p"], Bool[Tensor, "b p"]]:
        """Kinds (pad where not `written`), where the thought is closed, and which tokens end their row or come after its end."""
        if all_rows:
            kinds, closing = self._take(ids[:, 0])
            return kinds[:, None], closing[:, None], self._ended[:, None]
        kinds = torch.full_like(ids, int(Kind.PAD))
        closing, ended = torch.zeros_like(written), torch.zeros_like(written)
        for column in written.any(0).nonzero()[:, 0].tolist():
            here = written[:, column]
            before = self._state
            kind, closes = self._take(ids[:, column])
            self._state = tuple(
                torch.where(here if now.ndim == 1 else here[:, None], now, was) for now, was in zip(self._state, before, strict=True)
            )
            kinds[:, column] = torch.where(here, kind, int(Kind.PAD))
            closing[:, column], ended[:, column] = closes & here, self._ended & here
        return kinds, closing, ended

    @property
    def _state(self) -> tuple[Tensor, ...]:
        return self._recent, self._age, self._thinking, self.marked, self.closed, self._ended

    @_state.setter
    def _state(self, state: tuple[Tensor, ...]) -> None:
        self._recent, self._age, self._thinking, self.marked, self.closed, self._ended = state

    def _take(self, ids: Int64[Tensor, " b"]) -> tuple[Int64[Tensor, " b"], Bool[Tensor, " b"]]:
        self._ended = self._ended | self._ends[ids]
        self._recent = torch.cat([self._recent[:, 1:], ids[:, None]], 1)
        age = self._age + 1
        hit = (
            ((self._recent[:, None] == self._patterns) | (self._patterns < 0)).all(2)
            & (age[:, None] >= self._lengths)
            & ~self._ended[:, None]
        )
        opens = hit[:, : self._openers].any(1)
        closes = hit[:, self._openers :].any(1) & ~opens
        marker, closing = opens | closes, closes & ~self.closed
        self._thinking = (self._thinking | (opens & ~self.marked)) & ~closes
        self._age, self.marked, self.closed = age.masked_fill(marker, 0), self.marked | marker, self.closed | closes
        kinds = torch.where(self._thinking, int(Kind.THOUGHT), int(Kind.ANSWER)).masked_fill(marker, int(Kind.MARKER))
        return kinds.masked_fill(self._ended, int(Kind.TEMPLATE)), closing
