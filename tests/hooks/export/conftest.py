"""What the tests of exporting share: edits with everything an operator needs, and what plain hooks make of an edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from thoughtlens.hooks.edits import Edit
from thoughtlens.hooks.vector import Vector

Make = Callable[..., Edit]


def _made(operator: str, *sites: str, seed: int = 0, strength: Any = 0.7, spans: str = "all", width: int = 32, **how: Any) -> Edit:
    chance = torch.Generator().manual_seed(seed)

    def rows(n: int) -> torch.Tensor:
        return torch.randn(n, width, generator=chance)

    several = operator in ("subspace", "transport")
    values = {site: torch.linalg.qr(rows(2).T).Q.T if several else rows(1)[0] for site in sites}
    means = {site: rows(2) for site in sites}
    carried = {site: torch.eye(2) + 0.3 * torch.randn(2, 2, generator=chance) for site in sites} if several else {}
    vector = Vector(values, span="all", source="test", means=means, transport=carried)
    return Edit(vector, strength=strength, operator=operator, spans=spans, **how)


@pytest.fixture
def edit() -> Make:
    """edit("ablate", "attn_out.1", "mlp_out.0", seed=, strength=, …): random directions, means and transport of width 32; at every token."""
    return _made
