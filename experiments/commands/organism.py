"""The small trio: trained from nothing, and measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

StageName = Literal["language", "base", "reasoning", "safe"]


def build(
    *,
    seed: int = 7,
    out: Path = Path("runs/organism"),
    stage: tuple[StageName, ...] = ("language", "base", "reasoning", "safe"),
    quick: bool = False,
) -> None:
    """Train the trio from nothing; finished stages are kept.

    Example: thoughtlens organism build --seed 7 --out runs/organism

    Args:
        seed: Everything random follows from it.
        out: Folder that gets language/, base/, reasoning/ and safe/.
        stage: Only these stages.
        quick: A thirtieth of the steps: exercises everything in minutes, learns nothing.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin made steps ten times slower on a busy machine
    from ..organism.build import build as train

    print(train(out, seed=seed, stages=stage, quick=quick))


def card(*, checkpoints: Path = Path("checkpoints"), run: Path = Path("runs/demo")) -> None:
    """Measure the trio on test and rewrite the cards beside its weights.

    Example: thoughtlens organism card --checkpoints checkpoints --run runs/demo

    Args:
        checkpoints: Folder with base/, reasoning/ and safe/.
        run: Run folder of the study; measured there first if it is new.
    """
    from ..organism.card import write_cards

    for path in write_cards(checkpoints, run):
        print(path)
