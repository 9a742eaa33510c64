"""The firing record: which tokens were steered, by which edit, and what probes read there. Copied from the device once, when asked for.

Shapes: `b` rows, `p` tokens of one forward, `e` edits, `k` probes, `t` triggers; `m` tokens of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .tick import Tick


@dataclass(frozen=True, eq=False)
class RowRecord:
    """What happened in one row of a batch.

    fired       [m, e] per token that was steered, by which edits; fired_at [m] its position in the row's own sequence
    scores      [n, k] what the probes read at each token from the last of the prompt on; read_at [n] their positions
    triggered   [m', t] per token at which a trigger fired, which; triggered_at [m'] its position
    """

    fired: Bool[np.ndarray, "m e"]
    fired_at: Int64[np.ndarray, " m"]
    scores: Float[np.ndarray, "n k"]
    read_at: Int64[np.ndarray, " n"]
    triggered: Bool[np.ndarray, "m2 t"]
    triggered_at: Int64[np.ndarray, " m2"]


@dataclass
class Firing:
    """The record of the batch that runs, and counts over all before it. A forward adds what it knows; nothing is copied then.

    rows, total, rows_fired   of the batches before: rows, tokens steered, rows with at least one
    """

    width: int = 0
    total: int = 0
    rows: int = 0
    rows_fired: int = 0
    _fired: list[tuple[Tick, Bool[Tensor, "b p e"]]] = field(default_factory=list)
    _scores: list[tuple[Tick, Bool[Tensor, "b p"], Float[Tensor, "b p k"]]] = field(default_factory=list)
    _triggered: list[tuple[Int64[Tensor, "b 1"], Bool[Tensor, "b 1 t"]]] = field(default_factory=list)

    def begin(self, rows: int) -> None:
        """A batch of `rows` begins."""
        counts = self.fired
        self.total, self.rows, self.rows_fired = (
            self.total + int(counts.sum()),
            self.rows + self.width,
            self.rows_fired + int((counts > 0).sum()),
        )
        self.width = rows
        self._fired, self._scores, self._triggered = [], [], []

    def add(self, tick: Tick, acted: Bool[Tensor, "b p e"]) -> None:
        self._fired.append((tick, acted))

    def add_scores(self, tick: Tick, there: Bool[Tensor, "b p"], scores: Float[Tensor, "b p k"]) -> None:
        self._scores.append((tick, there, scores))

    def add_triggers(self, position: Int64[Tensor, "b 1"], fired: Bool[Tensor, "b 1 t"]) -> None:
        self._triggered.append((position, fired))

    @property
    def fired(self) -> Int64[Tensor, " b"]:
        """Tokens steered in each row of the running batch; a token counts once, at however many sites and by however many edits."""
        if not self._fired:
            return torch.zeros(self.width, dtype=torch.int64)
        return torch.cat([acted.any(2)[:, tick.new] for tick, acted in self._fired], 1).sum(1)

    @property
    def totals(self) -> tuple[int, int, int]:
        """Tokens, rows, and rows with a steered token, of all batches with the running one."""
        counts = self.fired
        return self.total + int(counts.sum()), self.rows + self.width, self.rows_fired + int((counts > 0).sum())

    def by_row(self, edits: int, probes: Sequence[int], triggers: int) -> list[RowRecord]:
        """The record of each row of the running batch; `probes` are the columns of the scores to be told."""
        fired = _gathered([_new(tick, acted.any(2), acted) for tick, acted in self._fired], self.width, edits)
        scores = _gathered([_new(tick, there, read[..., probes]) for tick, there, read in self._scores], self.width, len(probes))
        triggered = _gathered([(position, hit.any(2), hit) for position, hit in self._triggered], self.width, triggers)
        return [RowRecord(f, fa, s, sa, t, ta) for (fa, f), (sa, s), (ta, t) in zip(fired, scores, triggered, strict=True)]


def _new(tick: Tick, there: Bool[Tensor, "b p"], values: Tensor) -> tuple[Int64[Tensor, "b n"], Bool[Tensor, "b n"], Tensor]:
    """Positions, and what is known of them, of the tokens that no forward before has run."""
    return tick.position[:, tick.new], there[:, tick.new], values[:, tick.new]


def _gathered(
    parts: Sequence[tuple[Int64[Tensor, "b p"], Bool[Tensor, "b p"], Tensor]], rows: int, width: int
) -> list[tuple[Int64[np.ndarray, " m"], np.ndarray]]:
    """Per row the positions that are there and what stands at them, in one copy from the device."""
    if not parts:
        return [(np.zeros(0, dtype=np.int64), np.zeros((0, width), dtype=bool))] * rows
    position, there, values = (torch.cat([part[i] for part in parts], 1).cpu().numpy() for i in range(3))
    return [(position[row][there[row]], values[row][there[row]]) for row in range(rows)]
