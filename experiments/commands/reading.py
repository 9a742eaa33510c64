"""Hidden states: captured into a store, and stores looked into."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from .common import DTypeName, OnErrorName, PoolName, loader


def capture(
    model: str,
    *,
    prompts: str | None = None,
    sites: str = "resid_post",
    spans: str = "last_prompt,thought,thought@0.5,answer_first",
    pool: PoolName = "mean",
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    out: Path = Path("runs/capture"),
    transcripts: Path | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    device: str = "auto",
    dtype: DTypeName = "auto",
    adapter: Path | None = None,
    dialect: str | None = None,
    on_error: OnErrorName = "raise",
    allow_empty: bool = False,
    quiet: bool = False,
) -> None:
    """Let a model answer prompts and keep its hidden states; killed at any time, the same command goes on.

    Example: thoughtlens capture --model checkpoints/reasoning --prompts organism --spans last_prompt,thought --out runs/capture

    Args:
        model: Folder of a checkpoint, or hub id.
        prompts: A benchmark, NAME[@VARIANT][=FOLDER], or a .jsonl file (default: prompts of the transcripts given, else organism).
        sites: Names such as resid_post (every layer) or mlp_out.3, with commas.
        spans: Tokens to read, with commas: last_prompt, thought, thought[:16], thought@0.5, step_end[0], ...
        pool: How the tokens of a span become one vector; every keeps them apart.
        split: Only prompts of this split (default: test of a benchmark, all of a file).
        limit: At most so many prompts.
        seed: Draw them at random with this seed, instead of taking the first ones.
        out: Run folder: prompts.jsonl, transcripts/, activations/.
        transcripts: Read these again instead of letting the model answer, such as what another model of the trio wrote.
        max_new_tokens: Limit on what the model writes.
        batch_size: Prompts at a time.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: auto is float32 on the CPU, the checkpoint's own elsewhere.
        adapter: Folder of a PEFT adapter to put on the model.
        dialect: How the model writes its thought (default: by its name and tokenizer).
        on_error: What to do about prompts that cannot be used: raise names them all; skip leaves them out and notes them in skipped.jsonl.
        allow_empty: Leave out a span that no transcript has.
        quiet: No progress bars.
    """
    from ...hooks.select import Select, listed
    from ..capturing import Asked, capturing

    asked = Asked(
        Select(listed(sites), listed(spans), pool),
        prompts=prompts,
        transcripts=transcripts,
        split=split,
        limit=limit,
        seed=seed,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        on_error=on_error,
        allow_empty=allow_empty,
    )

    print(capturing(out, asked, loader(model, device, dtype, adapter, dialect), progress=not quiet))


def verify(store: Annotated[Path, tyro.conf.Positional]) -> None:
    """Compare every file of an activation store with what was written; exit code 1 and a line for each problem.

    Example: thoughtlens store verify runs/capture/activations/reasoning
    """
    from ...hooks.store import verify_store

    if problems := verify_store(store):
        print("\n".join(problems), file=sys.stderr)
        raise SystemExit(1)
    print(f"{store} is whole")


def show(store: Annotated[Path, tyro.conf.Positional]) -> None:
    """What an activation store holds: rows, sites, spans, bytes.

    Example: thoughtlens store show runs/capture/activations/reasoning
    """
    from ..capturing import contents

    print("\n".join(contents(store)))
