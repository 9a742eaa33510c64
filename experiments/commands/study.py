"""The study of a trio, and what this machine and a checkpoint are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from .common import device_of


def demo(out: Path = Path("runs/demo"), *, device: str = "auto", checkpoints: Path | None = None, sweep: bool = False) -> None:
    """Audit, detection and restoration on the shipped trio, in minutes; writes a run folder and report.html.

    Example: thoughtlens demo --out runs/demo

    Args:
        out: Run folder. A second start reuses finished stages.
        device: auto, cpu, cuda, cuda:1, ...
        checkpoints: Folder with base/, reasoning/ and safe/ (default: the shipped trio).
        sweep: Choose the steering setting on dev again instead of using the shipped one.
    """
    from ...checkpoints import CHECKPOINTS
    from ..demo import demo as run

    run(out, device=device_of(device), checkpoints=checkpoints or CHECKPOINTS, sweep=sweep)


def doctor(model: Annotated[str | None, tyro.conf.Positional] = None) -> None:
    """Versions, devices, threads, free disk and extras; with a model, how it will be read.

    Example: thoughtlens doctor checkpoints/reasoning
    """
    from ..doctor import doctor as examine

    print("\n".join(examine(model)))
