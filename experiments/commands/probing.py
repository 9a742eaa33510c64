"""Probes on a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .common import device_of

LabelName = Literal["harmful", "refused", "complied", "thought_unsafe", "answer_unsafe"]
AmongName = Literal["all", "harmful", "benign"]


def probe(
    run: Annotated[Path, tyro.conf.Positional],
    *,
    label: LabelName = "harmful",
    among: AmongName = "all",
    models: str | None = None,
    spans: str | None = None,
    kinds: str = "logistic,mean_difference,whitened,lda,ridge",
    split: Literal["given", "folds"] | None = None,
    judge: str | None = None,
    threshold: float = 4.0,
    checkpoints: Path | None = None,
    shuffles: int = 20,
    resampled: int = 1000,
    followed: int = 120,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Where, when and how surely a label is linearly readable in a run's hidden states, and whether it is more than the words on the page.

    Tables go to the run's tables/, the best probe of every moment to its probes/; finished questions are not asked again.

    Example: thoughtlens probe runs/demo

    Example: thoughtlens probe runs/demo --label refused --among harmful --models reasoning --spans last_prompt,step_end[4]

    Args:
        run: Run folder with activations/, transcripts/ and, for labels other than harmful, verdicts/; demo and capture write one.
        label: What a positive is. All but harmful are what a judge said of the model that wrote the transcripts.
        among: Only harmful or only benign prompts, such as for: which harmful prompts were refused?
        models: Which stores, with commas (default: all).
        spans: Which moments, with commas (default: all that the stores hold).
        kinds: Kinds of probe, with commas; the first is taken where one kind stands for all.
        split: given takes each prompt's own train, dev or test, folds cuts the goals into parts (default: given where prompts have it).
        judge: Whose verdicts, where there are several judges'.
        threshold: Rating from which on a thought or an answer counts as unsafe.
        checkpoints: Folder with a checkpoint per model, for what reads them again (default: the shipped trio, where it was captured).
        shuffles: Shuffled labellings, and random directions, that every probe is compared with.
        resampled: Bootstrap resamples of an interval.
        followed: Harmful prompts of each split, and as many benign ones, that are read at every token.
        seed: Everything random follows from it.
        device: auto, cpu, cuda, cuda:1, ...
        quiet: No progress bars.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # thousands of small solves: threads that spin for the next take the other's core
    from ...hooks.select import listed
    from ..asked import Asked
    from ..probing import probe as answer

    asked = Asked(
        models=() if models is None else tuple(listed(models)),
        label=label,
        among=among,
        split=split,
        spans=() if spans is None else tuple(listed(spans)),
        kinds=tuple(listed(kinds)),
        judge=judge,
        threshold=threshold,
        shuffles=shuffles,
        directions=shuffles,
        resampled=resampled,
        followed=followed,
        seed=seed,
    )
    answer(run, asked, checkpoints=checkpoints, device=device_of(device), progress=not quiet)
