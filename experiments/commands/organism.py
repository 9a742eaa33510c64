"""The small trio: trained from nothing, and measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .common import device_of

StageName = Literal["language", "base", "reasoning", "safe"]
SizeName = Literal["small", "large"]
VariantName = Literal[
    "no-refusing-thoughts",
    "no-harmless-refusals",
    "no-late-doubts",
    "reasoning-on-the-way",
    "safe-full",
    "safe-rank-1",
    "safe-rank-4",
    "safe-rank-8",
    "safe-rank-32",
]


def build(
    *,
    seed: int = 9,
    out: Path = Path("runs/organism"),
    stage: tuple[StageName, ...] = ("language", "base", "reasoning", "safe"),
    size: SizeName = "small",
    variant: VariantName | None = None,
    device: str = "auto",
    quick: bool = False,
) -> None:
    """Train the trio from nothing; finished stages are kept.

    Example: thoughtlens organism build --seed 7 --out runs/organism

    Args:
        seed: Everything random follows from it.
        out: Folder that gets language/, base/, reasoning/ and safe/.
        stage: Only these stages.
        size: small (3 million parameters) or large (33 million, for a GPU).
        variant: Another recipe, of which what differs goes to out/<variant>/.
        device: auto, cpu, cuda, cuda:1, ...
        quick: A hundredth of the steps: exercises everything in minutes, learns nothing.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin made steps ten times slower on a busy machine
    from ..organism.ablations import VARIANTS
    from ..organism.build import build as train

    chosen = None if variant is None else VARIANTS[variant]
    print(train(out, seed=seed, stages=stage, size=size, variant=chosen, device=device_of(device), quick=quick))


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


def measure(
    folder: Annotated[Path, tyro.conf.Positional],
    *,
    out: Path = Path("runs/measured.json"),
    device: str = "auto",
    limit: int | None = None,
    batch_size: int = 256,
    parts: str = "rates,probes,steering",
) -> None:
    """Measure one lineage: rates of every model on every set, probes before the decision, steering chosen on dev. Writes one small JSON.

    Example: thoughtlens organism measure runs/organism --out runs/measured/7.json

    Args:
        folder: Folder with base/, reasoning/ and safe/; those that are not there are left out.
        out: File to write.
        device: auto, cpu, cuda, cuda:1, ...
        limit: At most so many twin pairs of each set, and tasks of each kind.
        batch_size: Prompts to a batch.
        parts: Any of rates, probes, steering, with commas.
    """
    from ...hooks.select import listed
    from ..organism.measure import write_measured

    print(write_measured(folder, out, device=device_of(device), limit=limit, batch_size=batch_size, parts=listed(parts)))


def explain(
    run: Annotated[Path, tyro.conf.Positional] = Path("runs/demo"),
    *,
    seeds: str = "",
    ablations: str = "",
    out: Path = Path("docs/trio.md"),
    checkpoints: Path | None = None,
    device: str = "auto",
) -> None:
    """Test why steering works on a trio, in the run folder of its study, and write the page that tells it.

    Example: thoughtlens organism explain runs/demo --seeds runs/measured --ablations runs/ablations --out docs/trio.md

    Args:
        run: Run folder of the study; what it lacks is made first. Finished parts are kept.
        seeds: Files of `organism measure`, or folders of them, with commas: lineages that differ in their seed.
        ablations: The same, of lineages built otherwise; their file names say how.
        out: Page to write.
        checkpoints: Folder with base/, reasoning/ and safe/ (default: the shipped trio).
        device: auto, cpu, cuda, cuda:1, ...
    """
    from ...hooks.select import listed
    from ..explaining import write_page

    files = {name: [Path(file) for file in listed(text)] for name, text in (("seeds", seeds), ("ablations", ablations))}
    print(write_page(run, out, **files, checkpoints=checkpoints, device=device_of(device)))
