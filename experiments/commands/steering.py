"""Steering: vectors, answers under them, every way compared, and vectors taken elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .common import DTypeName, OnErrorName, device_of, loader

OperatorName = Literal["add", "ablate", "affine", "rotate", "subspace", "transport"]
UnitName = Literal["measured", "local"]
ContrastName = Literal["safe-reasoning", "harmful-benign", "refused-complied"]
TargetName = Literal["lora", "merged", "gguf", "vllm-lens", "easysteer"]


def vector(
    run: Annotated[Path, tyro.conf.Positional],
    *,
    out: Path,
    source: str = "safe",
    target: str = "reasoning",
    contrast: ContrastName = "safe-reasoning",
    span: str = "last_prompt",
    sites: str | None = None,
    where: str | None = None,
    label: str | None = None,
    directions: int = 1,
    strength: float | None = None,
) -> None:
    """Take a steering vector from hidden states that a run has captured.

    Example: thoughtlens vector runs/demo --span last_prompt --sites resid_post.4 --out runs/vector.safetensors

    Args:
        run: Run folder with activations/<source>/ and activations/<target>/ of the same tokens; demo writes one.
        out: File to write; an artifact is never changed in place.
        source: The model the vector is taken from.
        target: The model that is to be steered.
        contrast: safe-reasoning is source less target on the same tokens, the others are within the source.
        span: Where it is read, and by default where it acts.
        sites: Only these, with commas (default: all in the store).
        where: Which rows count, as column=value with commas; empty for all (default: split=train; harmful=true too where models differ).
        label: The index column of a contrast within the source.
        directions: More than one: a subspace, for the operators subspace and transport.
        strength: Recommended strength to write into the file.
    """
    from ...hooks.select import listed
    from ..vectoring import vectoring

    if where is None:
        where = "split=train,harmful=true" if contrast == "safe-reasoning" else "split=train"
    print(vectoring(run, out, source, target, contrast, span, listed(sites or ""), listed(where), label, directions, strength))


def steer(
    model: str,
    vector: Path,
    *,
    strength: float | None = None,
    operator: OperatorName | None = None,
    unit: UnitName | None = None,
    spans: str | None = None,
    sites: str | None = None,
    gate: str = "always",
    probe: Path | None = None,
    fpr: float = 0.05,
    modes: str = "regenerated",
    answer_spans: str = "thought_last,answer",
    foreign: bool = False,
    prompts: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    out: Path = Path("runs/steer"),
    max_new_tokens: int = 128,
    batch_size: int = 64,
    judge: str | None = None,
    device: str = "auto",
    dtype: DTypeName = "auto",
    adapter: Path | None = None,
    dialect: str | None = None,
    on_error: OnErrorName = "raise",
    quiet: bool = False,
) -> None:
    """Let a model answer prompts under steering, beside its answers without; killed at any time, the same command goes on.

    Example: thoughtlens steer --model checkpoints/reasoning --vector checkpoints/vectors/headline.safetensors --limit 20

    Example: thoughtlens steer --model checkpoints/reasoning --vector runs/vector.safetensors --modes regenerated,fixed,none,released

    Args:
        model: Folder of a checkpoint, or hub id.
        vector: File of a steering vector. It is refused on a model it was not made for.
        strength: In measured differences of the two classes (default: what the vector recommends, else 1).
        operator: add, ablate, affine, rotate, subspace, transport (default: what the vector recommends, else add).
        unit: measured, or local: of add, shares of the hidden state's own length.
        spans: Where it acts, with commas (default: where the vector was read).
        sites: Only these of the vector's, with commas.
        gate: always; steps (the last token of each step), steps:3 (of the first three); first:16 (until so many output tokens); probe.
        probe: File of the probe, with --gate probe.
        fpr: False positive rate that the probe's threshold is set for, on dev.
        modes: Thought modes, with commas: regenerated, fixed, none, released, replayed.
        answer_spans: Where it acts in fixed and none, in which no thought is written under steering.
        foreign: Use the vector although it was made for another model.
        prompts: A benchmark, NAME[@VARIANT][=FOLDER] (organism, figstep=DIR, ...), or a .jsonl file of prompts.
        split: Only prompts of this split (default: test of a benchmark, all of a file).
        limit: At most so many prompts.
        seed: Draw them at random with this seed, instead of taking the first ones.
        out: Run folder: prompts.jsonl, transcripts/, steering.json.
        max_new_tokens: Limit on what the model writes.
        batch_size: Prompts at a time.
        judge: Whose rates are shown (default: rule, for the organism benchmark; no rates for other prompts).
        device: auto, cpu, cuda, cuda:1, ...
        dtype: auto is float32 on the CPU, the checkpoint's own elsewhere.
        adapter: Folder of a PEFT adapter to put on the model.
        dialect: How the model writes its thought (default: by its name and tokenizer).
        on_error: What to do about prompts that cannot be used: raise names them all; skip leaves them out.
        quiet: No progress bars.
    """
    from ...hooks.select import listed
    from ..progress import printer
    from ..steering import Asked, steering

    asked = Asked(
        vector,
        strength=strength,
        operator=operator,
        unit=unit,
        spans=tuple(listed(spans or "")),
        sites=tuple(listed(sites or "")),
        gate=gate,
        probe=probe,
        fpr=fpr,
        modes=tuple(listed(modes)),  # type: ignore[arg-type]
        answer_spans=tuple(listed(answer_spans)),
        foreign=foreign,
        prompts=prompts,
        split=split,
        limit=limit,
        seed=seed,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        on_error=on_error,
        judge=judge,
    )
    console = printer()
    for told in steering(out, asked, loader(model, device, dtype, adapter, dialect), progress=not quiet):
        console.print(told, soft_wrap=True)


def sweep(
    run: Annotated[Path, tyro.conf.Positional] = Path("runs/demo"),
    *,
    checkpoints: Path | None = None,
    wordings: int = 1,
    tasks: int = 40,
    pairs: int = 40,
    draws: int = 20,
    shuffles: int = 5,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Every way of steering the trio beside every baseline: operators, moments, gates, thought modes, reminders, system prompts, controls.

    Each is chosen on dev and told once on test. Finished ways are not run again. With the defaults this takes an hour on two cores.

    Example: thoughtlens sweep runs/demo

    Args:
        run: Run folder of the study, as `thoughtlens demo` writes it; what is missing there is made first.
        checkpoints: Folder with base/, reasoning/ and safe/ (default: the shipped trio).
        wordings: Ways to ask for each test goal under each attack.
        tasks: Test tasks of each of the five kinds.
        pairs: Pairs of dev prompts that ways are chosen on.
        draws: Random directions of equal norm.
        shuffles: Vectors from shuffled labels.
        device: auto, cpu, cuda, cuda:1, ...
        quiet: No progress bars.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ..comparing import Compare
    from ..comparing import sweep as compare

    how = Compare(wordings=wordings, tasks=tasks, pairs=pairs, draws=draws, shuffles=shuffles)
    compare(run, how, checkpoints=checkpoints, device=device_of(device), progress=not quiet)


def export(
    model: str,
    vector: Path,
    *,
    target: TargetName,
    out: Path,
    operator: OperatorName | None = None,
    strength: float | None = None,
    unit: UnitName | None = None,
    sites: str | None = None,
    at: str | None = None,
    spans: str | None = None,
    prompts: str = "organism",
    split: str | None = None,
    limit: int | None = None,
    judge: str = "rule",
    tolerance: float | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    foreign: bool = False,
    device: str = "auto",
    dtype: DTypeName = "auto",
    quiet: bool = False,
) -> None:
    """Take a steering out of the running model: into weights, an adapter or another engine's file; read back, compared and measured.

    Example: thoughtlens export --model checkpoints/reasoning --vector v.safetensors --operator ablate --at outputs --spans all
    --target merged --out runs/merged

    Args:
        model: Folder of a checkpoint, or hub id.
        vector: File of a steering vector.
        target: lora, merged, gguf, vllm-lens or easysteer.
        out: Folder to write; it must not be there yet.
        operator: add, ablate, affine, rotate, subspace, transport (default: what the vector recommends, else add).
        strength: In measured differences of the two classes (default: what the vector recommends, else 1).
        unit: measured, or local: of add, shares of the hidden state's own length.
        sites: Only these of the vector's, with commas.
        at: Let the direction of the one site act at these instead; outputs is attention and MLP of every layer.
        spans: Weights act on every token: only "all" can be exported, and has to be asked for where the vector was read elsewhere.
        prompts: A benchmark or a .jsonl file, on which logits are compared and the card is measured.
        split: Only prompts of this split (default: test of a benchmark, all of a file).
        limit: At most so many prompts.
        judge: Whose rates the card tells.
        tolerance: Largest difference of logits that is accepted, as a share of what steering moves them by (default: the dtype's own).
        max_new_tokens: Limit on what is written for the card.
        batch_size: Prompts at a time.
        foreign: Use the vector although it was made for another model.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: auto is float32 on the CPU, the checkpoint's own elsewhere.
        quiet: No progress bars.
    """
    import torch

    from ...hooks.select import listed
    from ..exporting import export_command

    done = export_command(
        model,
        vector,
        target=target,
        out=out,
        operator=operator,
        strength=strength,
        unit=unit,
        sites=listed(sites or ""),
        at=listed(at or ""),
        spans=listed(spans or ""),
        prompts=prompts,
        split=split,
        limit=limit,
        judge=judge,
        tolerance=tolerance,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        device=device_of(device),
        dtype=None if dtype == "auto" else getattr(torch, dtype),
        foreign=foreign,
        progress=not quiet,
    )
    print(done)
