"""What several commands share: kinds of arguments, and the device that is meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ...hooks.model import LensModel

DTypeName = Literal["auto", "float32", "bfloat16", "float16"]
PoolName = Literal["mean", "max", "first", "last", "every"]
OnErrorName = Literal["raise", "skip"]


def device_of(name: str) -> str | None:
    """None for auto. Raises ValueError for a device that torch does not know or this machine does not have."""
    if name == "auto":
        return None
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here; `thoughtlens doctor` lists devices, auto chooses") from error
    return name


def loader(
    model: str, device: str, dtype: DTypeName = "auto", adapter: Path | None = None, dialect: str | None = None
) -> Callable[[], LensModel]:
    """How a model is loaded, once it is needed."""

    def loaded() -> LensModel:
        import torch

        from ...hooks.model import load

        kind = None if dtype == "auto" else getattr(torch, dtype)
        return load(model, device=device_of(device), dtype=kind, adapter=adapter, dialect=dialect)

    return loaded
