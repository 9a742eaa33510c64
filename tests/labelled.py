"""Labelled rows that make a fit difficult, and what it means to agree with somebody else's fit."""

from __future__ import annotations

import numpy as np
import torch

CASES = (
    "few rows, some twice",
    "plain",
    "fewer rows than features",
    "constant and duplicated columns",
    "collinear",
    "one in twenty",
    "far from the origin",
    "apart",
)


def data(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """x [2, n, d] and two labellings."""
    torch.manual_seed(5)
    n, d = (40, 90) if case in ("fewer rows than features", "few rows, some twice") else (200, 20)
    x = torch.randn(2, n, d) @ torch.randn(d, d)
    y = x[0, :, 0] + torch.randn(n) * 2 > 0
    match case:
        case "few rows, some twice":
            x[:, 20:] = x[:, :20]
        case "constant and duplicated columns":
            x[..., 3], x[..., 5], x[..., 7] = 4.2, x[..., 6], -2 * x[..., 6]
        case "collinear":
            x = x[..., :8] @ torch.randn(8, 20)
        case "one in twenty":
            y = torch.arange(n) % 19 == 0
        case "far from the origin":
            x = x * torch.logspace(-3, 3, d) + 300
        case "apart":
            x = x + 40 * y[:, None]
    return x, torch.stack([y, y[torch.randperm(n)]])


def agree(weight: torch.Tensor, bias: torch.Tensor, read: torch.Tensor, expected: np.ndarray) -> None:
    """Decision values on `read`, to one part in a million of the largest."""
    ours = (read.double() @ weight + bias).numpy()
    assert np.abs(ours - expected).max() <= 1e-6 * np.abs(expected).max()
