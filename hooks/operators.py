"""Operators: what happens to a hidden state, as pure tensor mathematics.

    add      h' = h + α v                 activation addition: Turner et al. 2023 (ActAdd), Rimsky et al. 2023 (CAA)
    ablate   h' = h − α (h · û) û         α = 1 removes the direction: Arditi et al. 2024, "Refusal in language models is
                                          mediated by a single direction", eq. 4; 0 < α < 1 weakens it

Both compute in float32 (or wider) and round once to the dtype of h. Where α is 0 the very bits of h come back: a select, since
h + 0·v is not h for a v with inf or nan, nor for h = −0. Nothing is edited in place.

Shapes: h [..., d]; vector, direction [d]; strength α a number or one per hidden state [...].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

Operator = Callable[[Tensor, Tensor, Tensor | float], Tensor]


def add(h: Float[Tensor, "*n d"], vector: Float[Tensor, " d"], strength: Float[Tensor, "*n"] | float = 1.0) -> Float[Tensor, "*n d"]:
    """h + strength · vector. Strength 0 returns h bit for bit."""
    amount = _column(h, strength)
    return _where_acting(h, wide(h) + amount * vector, amount)


def ablate(h: Float[Tensor, "*n d"], direction: Float[Tensor, " d"], strength: Float[Tensor, "*n"] | float = 1.0) -> Float[Tensor, "*n d"]:
    """h with its component along `direction` (of any length but zero) scaled by 1 − strength. Strength 0 returns h bit for bit."""
    amount = _column(h, strength)
    unit = wide(direction) / wide(direction).norm()
    along = einsum(wide(h), unit.to(wide(h).dtype), "... d, d -> ...")
    return _where_acting(h, wide(h) - amount * along[..., None] * unit, amount)


def wide(x: Tensor) -> Tensor:
    """x in the dtype arithmetic is done in: float32, or float64 if x already is. No copy where nothing changes."""
    return x if x.dtype == torch.float64 else x.float()


def _column(h: Tensor, strength: Tensor | float) -> Tensor:
    return torch.as_tensor(strength, dtype=wide(h).dtype, device=h.device)[..., None]


def _where_acting(h: Tensor, changed: Tensor, amount: Tensor) -> Tensor:
    return torch.where(amount != 0, changed.to(h.dtype), h)


OPERATORS: Mapping[str, Operator] = MappingProxyType({"add": add, "ablate": ablate})
