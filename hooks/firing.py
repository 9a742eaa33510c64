"""The firing record: how many tokens were steered, per row of the batch that runs and over all batches before it.

Shapes: `b` rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor


@dataclass
class Firing:
    """Counts.

    fired        [b] tokens steered in each row of the running batch
    total        tokens steered in the batches before
    rows         rows of the batches before; rows_fired: those with at least one token steered
    """

    fired: Int64[Tensor, " b"]
    total: int = 0
    rows: int = 0
    rows_fired: int = 0

    @classmethod
    def none(cls) -> Firing:
        return cls(torch.zeros(0, dtype=torch.int64))

    def summed(self) -> Firing:
        """The same with the running batch among those before."""
        fired = self.fired
        return Firing(fired[:0], self.total + int(fired.sum()), self.rows + len(fired), self.rows_fired + int((fired > 0).sum()))

    def next(self, rows: int, device: torch.device) -> Firing:
        """A batch of `rows` begins."""
        before = self.summed()
        return Firing(torch.zeros(rows, dtype=torch.int64, device=device), before.total, before.rows, before.rows_fired)
