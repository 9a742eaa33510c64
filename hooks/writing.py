"""Kinds of output tokens as they arrive: what dialects.Stream says, for all rows at once and without leaving the device.

A marker is one token or several, in one of several spellings (dialects.Markers). Each row keeps as many recent tokens as the longest
spelling has, as they are and as the token that stands for them at a marker's beginning; and its phase, which markers move on by the same
table as everywhere (dialects.NEXT).

    before the first marker      answer, or thought where the prompt wrote the opener
    opener, if the first marker  thought from here on
    first closer                 answer from here on; this token closes the thought
    end token, and after it      template; nothing counts any more
    blank tokens after a marker  marker, also at the beginning where the prompt wrote the opener

Shapes: `b` rows, `p` tokens of this forward, `s` spellings of markers, `k` tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from .dialects import NEXT, Markers, Phase, Role
from .kinds import Kind

_ANY, _BEFORE_ALL, _NEVER = -1, -2, -3  # in a pattern: any token; in a row: no token yet; in a pattern: no token


class Writing:
    """The state of a batch of outputs. begin() for each batch, then read() for each forward.

    marked   [b] a marker was written
    closed   [b] the thought was closed
    """

    def __init__(self, markers: Markers, opened: bool, vocabulary: int, device: torch.device) -> None:
        patterns = [ids for ids, _ in markers.patterns] or [(_NEVER,)]
        roles = [role for _, role in markers.patterns] or [Role.TRAILING]
        self._opened = opened
        self._width = max(map(len, patterns))

        def table(rows: list[list[int]], dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.tensor(rows, dtype=dtype, device=device)

        self._patterns = table([[_ANY] * (self._width - len(ids)) + list(ids) for ids in patterns])
        self._lengths = table([[len(ids) for ids in patterns]])[0]
        self._roles = table([[int(role) for role in roles]])[0]
        several = self._lengths[:, None] > 1
        places = torch.arange(self._width, device=device)
        self._first = several & (places == self._width - self._lengths[:, None])
        self._last = several & (places == self._width - 1)
        self._next = table([[int(NEXT[phase][role]) for role in Role] for phase in Phase])
        self._heads = _replacing(markers.heads, vocabulary, device)
        self._tails = _replacing(markers.tails, vocabulary, device)
        self._shared = _among(markers.shared, vocabulary, device)
        self._ends = _among(markers.eos_ids, vocabulary, device)
        self._blank = _among(markers.blanks, vocabulary, device)

    def begin(self, rows: int) -> None:
        device = self._ends.device
        self._recent = torch.full((rows, self._width), _BEFORE_ALL, device=device)
        self._recent_heads = self._recent.clone()
        self._free = torch.zeros(rows, dtype=torch.int64, device=device)
        self._phase = torch.full((rows,), int(Phase.THINKING if self._opened else Phase.BEFORE), device=device)
        self.marked, self._ended = (torch.zeros(rows, dtype=torch.bool, device=device) for _ in range(2))
        self._fresh = torch.full((rows,), self._opened, device=device)  # nothing but blanks since a marker

    @property
    def closed(self) -> Bool[Tensor, " b"]:
        return self._phase == Phase.ANSWERING

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
        return self._recent, self._recent_heads, self._free, self._phase, self._fresh, self.marked, self._ended

    @_state.setter
    def _state(self, state: tuple[Tensor, ...]) -> None:
        self._recent, self._recent_heads, self._free, self._phase, self._fresh, self.marked, self._ended = state

    def _take(self, ids: Int64[Tensor, " b"]) -> tuple[Int64[Tensor, " b"], Bool[Tensor, " b"]]:
        self._ended = self._ended | self._ends[ids]
        self._recent = torch.cat([self._recent[:, 1:], ids[:, None]], 1)
        self._recent_heads = torch.cat([self._recent_heads[:, 1:], self._heads[ids][:, None]], 1)
        free = self._free + 1
        seen = torch.where(self._first, self._recent_heads[:, None], self._recent[:, None])
        seen = torch.where(self._last, self._tails[ids][:, None, None], seen)
        hit = ((seen == self._patterns) | (self._patterns == _ANY)).all(2) & (free[:, None] >= self._lengths) & ~self._ended[:, None]
        marker = hit.any(1)
        role = self._roles[hit.int().argmax(1)]
        phase = torch.where(marker, self._next[self._phase, role], self._phase)
        closing = (phase == Phase.ANSWERING) & (self._phase != Phase.ANSWERING)
        self._free = torch.where(marker, self._shared[ids].long(), free)  # tokens that the next marker may use
        self._fresh = marker | (self._fresh & self._blank[ids])
        self._phase, self.marked = phase, self.marked | marker
        kinds = torch.where(phase == Phase.THINKING, int(Kind.THOUGHT), int(Kind.ANSWER)).masked_fill(self._fresh, int(Kind.MARKER))
        return kinds.masked_fill(self._ended, int(Kind.TEMPLATE)), closing


def _replacing(pairs: Mapping[int, int], vocabulary: int, device: torch.device) -> Int64[Tensor, " vocabulary"]:
    table = torch.arange(vocabulary, device=device)
    table[torch.tensor(list(pairs.keys()), dtype=torch.int64, device=device)] = torch.tensor(
        list(pairs.values()), dtype=torch.int64, device=device
    )
    return table


def _among(ids: frozenset[int] | tuple[int, ...], vocabulary: int, device: torch.device) -> Bool[Tensor, " vocabulary"]:
    table = torch.zeros(vocabulary, dtype=torch.bool, device=device)
    table[[i for i in ids if i < vocabulary]] = True
    return table
