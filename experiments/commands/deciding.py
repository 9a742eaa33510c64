"""Decision points of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import tyro

from .common import device_of


def decide(
    run: Annotated[Path, tyro.conf.Positional],
    *,
    also: tuple[Path, ...] = (),
    followed: int = 40,
    sites: str | None = None,
    ahead: int = 4,
    strengths: str = "1,2",
    draws: int = 2,
    counts: float = 0.1,
    checkpoints: tuple[Path, ...] = (),
    resampled: int = 1000,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Where thoughts are decided: ends of steps ranked by divergence, probe margin and the effect of one steered token, and an anchor.

    Tables go to the run's tables/, the anchor to probes/decision.safetensors: a gate for steering, and a span for capture.

    Example: thoughtlens decide runs/demo

    Example: thoughtlens decide runs/demo --also runs/seed1 runs/seed2 --checkpoints checkpoints trios/seed1 trios/seed2

    Args:
        run: Run folder with what the reasoning model wrote, read in it and in the safe model; demo writes one.
        also: Further runs, of other seeds or trios: does the same moment come first in all of them?
        followed: Harmful prompts of each split, and as many benign ones.
        sites: Residual sites that are read and edited, with commas (default: those of up to six layers, without the last).
        ahead: Words along which the two models are compared.
        strengths: Of the edits, in measured differences, with commas.
        draws: Random directions beside each vector.
        counts: Nats that patching one token has to close for its boundary to be a decision.
        checkpoints: Folder with a checkpoint per model, one for all runs or one a run (default: the shipped trio, where it was captured).
        resampled: Bootstrap resamples of an interval.
        seed: Everything random follows from it.
        device: auto, cpu, cuda, cuda:1, ...
        quiet: No progress bars.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ...hooks.select import listed
    from ..deciding import Deciding
    from ..deciding import decide as answer

    asked = Deciding(
        followed=followed,
        sites=() if sites is None else tuple(listed(sites)),
        ahead=ahead,
        strengths=tuple(float(strength) for strength in listed(strengths)),
        draws=draws,
        counts=counts,
        resampled=resampled,
        seed=seed,
    )
    answer(run, asked, also=also, checkpoints=checkpoints, device=device_of(device), progress=not quiet)
