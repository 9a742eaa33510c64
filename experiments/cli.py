"""Find unsafe intent inside the thought of a multimodal reasoning model, and steer its refusals back. `COMMAND --help` has examples."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

StageName = Literal["language", "base", "reasoning", "safe"]


def demo(out: Path = Path("runs/demo"), *, device: str = "auto", checkpoints: Path | None = None, sweep: bool = False) -> None:
    """Audit, detection and restoration on the shipped trio, in minutes; writes a run folder and report.html.

    Example: thoughtlens demo --out runs/demo

    Args:
        out: Run folder. A second start reuses finished stages.
        device: auto, cpu, cuda, cuda:1, ...
        checkpoints: Folder with base/, reasoning/ and safe/ (default: the shipped trio).
        sweep: Choose the steering setting on dev again instead of using the shipped one.
    """
    from ..checkpoints import CHECKPOINTS
    from .demo import demo as run

    run(out, device=_device(device), checkpoints=checkpoints or CHECKPOINTS, sweep=sweep)


def report(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write report.html of a run folder again.

    Example: thoughtlens report runs/demo
    """
    from ..viz.report import report as write

    if not (run / "tables").is_dir():
        raise FileNotFoundError(f"{run} is no run folder: it has no tables/. `thoughtlens demo --out {run}` makes one")
    print(write(run))


def doctor(model: Annotated[str | None, tyro.conf.Positional] = None) -> None:
    """Versions, devices, threads, free disk and extras; with a model, how it will be read.

    Example: thoughtlens doctor checkpoints/reasoning
    """
    from .doctor import doctor as examine

    print("\n".join(examine(model)))


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
    from .organism.build import build as train

    print(train(out, seed=seed, stages=stage, quick=quick))


def card(*, checkpoints: Path = Path("checkpoints"), run: Path = Path("runs/demo")) -> None:
    """Measure the trio on test and rewrite the cards beside its weights.

    Example: thoughtlens organism card --checkpoints checkpoints --run runs/demo

    Args:
        checkpoints: Folder with base/, reasoning/ and safe/.
        run: Run folder of the study; measured there first if it is new.
    """
    from .organism.card import write_cards

    for path in write_cards(checkpoints, run):
        print(path)


def _device(name: str) -> str | None:
    """None for auto. Raises ValueError for a device that torch does not know or this machine does not have."""
    if name == "auto":
        return None
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here; `thoughtlens doctor` lists devices, auto chooses") from error
    return name


ORGANISM = {"build": build, "card": card}


def organism() -> None:
    """The small trio: `thoughtlens organism build` trains it from nothing, `thoughtlens organism card` measures it."""
    raise ValueError(f"say what to do: thoughtlens organism {' | '.join(ORGANISM)}")


COMMANDS = {"demo": demo, "report": report, "doctor": doctor, "organism": organism}


def main() -> None:
    """Entry point. Errors a user can mend are one sentence on standard error; Ctrl-C keeps what is finished."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    nested = sys.argv[1:2] == ["organism"] and len(sys.argv) > 2
    commands, prog, args = (ORGANISM, "thoughtlens organism", sys.argv[2:]) if nested else (COMMANDS, "thoughtlens", sys.argv[1:])
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog=prog, description=__doc__, args=args)
    except KeyboardInterrupt:
        print("interrupted; finished stages are kept, the same command goes on from there", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, ImportError) as error:
        print(f"thoughtlens: {error}", file=sys.stderr)
        raise SystemExit(2) from error
