"""From what was asked for to prompts a model can take, and to its answers chunk by chunk: shared by every command that lets a model write.

What cannot be used is found before anything is generated: lines that are no prompts, pictures that cannot be read, prompts that do not fit.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Protocol

import torch

from ..hooks.encode import encode
from ..hooks.model import LensModel
from ..hooks.planning import pictures_sha
from ..hooks.records import (
    Prompt,
    Skipped,
    Transcript,
    append_transcripts,
    cut_transcripts,
    read_prompts,
    read_transcripts,
    write_transcripts,
)
from .benchmarks import BENCHMARKS
from .benchmarks import prompts as load_prompts
from .benchmarks.spec import asked_for, is_benchmark
from .progress import Advance

OnError = Literal["raise", "skip"]
Say = Callable[[Sequence[Prompt]], Sequence[Sequence[Transcript]]]
TOLD = 10


class Source(Protocol):
    """Which prompts are asked for.

    prompts       a benchmark's name or a file of prompts; None: those beside the transcripts, else "organism"
    transcripts   a file of transcripts made before; None: the model writes them
    split         only prompts of this split; None: "test" of a benchmark, all of a file
    limit         at most so many
    seed          draw them at random with this seed; None: the first ones
    """

    @property
    def prompts(self) -> str | None: ...

    @property
    def transcripts(self) -> Path | None: ...

    @property
    def split(self) -> str | None: ...

    @property
    def limit(self) -> int | None: ...

    @property
    def seed(self) -> int | None: ...


@dataclass(frozen=True)
class Work:
    """Prompts to be used, their transcripts by id where those were given, and what was left out."""

    prompts: list[Prompt]
    given: Mapping[str, Transcript]
    skipped: list[Skipped]


def read(asked: Source) -> Work:
    """The prompts asked for, as far as their lines can be read."""
    source, skipped = source_of(asked), list[Skipped]()
    prompts = prompts_from(source, asked.split, skipped)
    given: dict[str, Transcript] = {}
    if asked.transcripts:
        given = {t.id: t for t in read_transcripts(asked.transcripts, prompts, skipped=skipped)}
        prompts = [t.prompt for t in given.values()]
    splits = sorted({p.split for p in prompts})
    prompts = [p for p in prompts if asked.split in (None, p.split)]
    if splits and not prompts:
        raise ValueError(f"{source} has no prompt of the split {asked.split!r}; its splits are {', '.join(map(repr, splits))}")
    if not prompts and not skipped:
        raise ValueError(f"{asked.transcripts or source} is empty: there is nothing to do. Give at least one prompt.")
    if asked.limit is not None and asked.limit < len(prompts):
        chosen = range(asked.limit) if asked.seed is None else sorted(random.Random(asked.seed).sample(range(len(prompts)), asked.limit))
        prompts = [prompts[i] for i in chosen]
    return Work(prompts, given, skipped)


def prompts_from(source: str, split: str | None, skipped: list[Skipped] | None = None) -> list[Prompt]:
    """The prompts of a file, or of a benchmark as spec.py names it: of the made-up world those of a split, without its tasks.

    skipped   notes lines of a file that are no prompts; without it they are an error
    """
    if source == "organism":
        return load_prompts(source, split=split or "test")
    if Path(source).is_file():
        return read_prompts(source, skipped=skipped)
    if not is_benchmark(source):
        raise FileNotFoundError(f"there is no file of prompts {source}, and no benchmark of that name; known are {', '.join(BENCHMARKS)}")
    return asked_for([source])


def source_of(asked: Source) -> str:
    """Where the prompts come from: what was said; else the file of the run that the transcripts are part of; else the made-up world."""
    if asked.prompts is not None:
        return asked.prompts
    beside = asked.transcripts.resolve().parent.parent / "prompts.jsonl" if asked.transcripts else None
    return str(beside) if beside and beside.is_file() else "organism"


def usable(lens: LensModel, work: Work, max_new_tokens: int, advance: Advance) -> Work:
    """Without the prompts that the model cannot take with what is, or may be, written after them."""
    kept, skipped = [], list(work.skipped)
    for prompt in work.prompts:
        try:
            check_prompt(lens, prompt, work.given.get(prompt.id), max_new_tokens)
            kept.append(prompt)
        except (ValueError, OSError) as error:
            named = repr(prompt.id) in str(error)  # the operating system's errors name files alone
            skipped.append(Skipped(prompt.id, None, str(error) if named else f"prompt {prompt.id!r}: {error}"))
        advance("", 1)
    return Work(kept, work.given, skipped)


def check_prompt(lens: LensModel, prompt: Prompt, transcript: Transcript | None, max_new_tokens: int) -> None:
    """ValueError or OSError where the model cannot take the prompt, or makes other tokens of it than the transcript has."""
    batch = encode(lens, [prompt], prefixes=[transcript.output_ids if transcript else ()])
    length = int(batch.lengths[0])
    if transcript is None and length + max_new_tokens > lens.context:
        raise ValueError(
            f"prompt {prompt.id!r} takes {length} tokens and up to {max_new_tokens} are to be written, the context of {lens.name} "
            f"is {lens.context}. Shorten it, make its pictures smaller, or ask for fewer tokens."
        )
    if transcript is not None and tuple(batch.ids[0]) != transcript.prompt_ids + transcript.output_ids:
        raise ValueError(
            f"the transcript of {prompt.id!r} by {transcript.model!r} has {len(transcript.prompt_ids)} prompt tokens, {lens.name!r} makes "
            f"{length - len(transcript.output_ids)} others of the same prompt: the tokenizer, the chat template or the pictures differ. "
            "Use a model of the same trio, and the prompts it was made from."
        )


def write(prompts: Sequence[Prompt], files: Sequence[Path], batch_size: int, say: Say, advance: Advance) -> int:
    """Let a model answer chunk by chunk, going on after the last chunk that is whole in every file. Returns the tokens written now.

    files   one for each way to answer
    say     a chunk of prompts -> for each file its transcripts
    """
    chunks = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    ids = [[p.id for p in chunk] for chunk in chunks]
    whole = [cut_transcripts(file, ids) for file in files]
    done = min(whole)
    for file, more in zip(files, whole, strict=True):
        if more > done:  # killed between two files of a chunk
            write_transcripts(file, read_transcripts(file, prompts)[: sum(map(len, chunks[:done]))])
    advance("", sum(map(len, chunks[:done])))
    tokens = 0
    for chunk in chunks[done:]:
        try:
            said = say(chunk)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(
                f"the device ran out of memory while {len(chunk)} prompts were answered at a time. "
                "Use a smaller --batch-size in a new folder, or fewer --max-new-tokens."
            ) from error
        for file, transcripts in zip(files, said, strict=True):
            append_transcripts(file, transcripts)
        tokens += sum(len(t.output_ids) for transcripts in said for t in transcripts)
        advance("", len(chunk))
    return tokens


def digest_of(prompts: Sequence[Prompt]) -> str:
    """One sha256 over everything that is asked and known of the prompts, but their pictures."""
    rows = [[getattr(p, field.name) for field in fields(Prompt) if field.name not in ("images", "meta")] + [dict(p.meta)] for p in prompts]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def pictures_of(prompts: Sequence[Prompt]) -> str:
    """One sha256 over the pictures of all prompts. One that cannot be read counts as such: usable() says what is wrong with it."""
    every = hashlib.sha256()
    for prompt in prompts:
        try:
            seen = pictures_sha(prompt)
        except (ValueError, OSError):
            seen = "unreadable"
        every.update(f"{prompt.id} {seen}\n".encode())
    return every.hexdigest()


def refuse(skipped: Sequence[Skipped], on_error: OnError) -> None:
    """ValueError that names what cannot be used, if there is anything and it is not to be left out."""
    if skipped and on_error == "raise":
        told = "; ".join(one.error.rstrip(".") for one in skipped[:TOLD])
        more = f"; and {len(skipped) - TOLD} more" if len(skipped) > TOLD else ""
        count = f"{len(skipped)} prompt{'s' * (len(skipped) > 1)}"
        raise ValueError(f"{count} cannot be used: {told}{more}. Mend them, or leave them out with --on-error skip.")


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out. On the CPU torch has no class of its own for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def in_files(lens: LensModel) -> str:
    """The model's name as it names files: a hub id without its owner."""
    return lens.name.split("/")[-1]
