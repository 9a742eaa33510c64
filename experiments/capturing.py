"""From prompts to hidden states on disk, in a run folder, with one command that can be killed at any time.

    prompts.jsonl            what is asked, each prompt checked: its pictures can be read, it fits the context
    skipped.jsonl            what cannot be used and why, with --on-error skip
    transcripts/<model>.jsonl    what the model wrote, appended chunk by chunk; or a copy of transcripts made before
    activations/<model>/     the store

Which prompts make up a chunk is settled before the first forward, and a chunk is there wholly or made again, so a run that was killed ends
with the same bytes as one that was not. What cannot be used is found before anything is generated.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.utils.logging import disable_progress_bar

from ..hooks.capture import capture
from ..hooks.encode import encode
from ..hooks.files import in_words, locked, sha256_of, short, writable_folder
from ..hooks.generate import generate
from ..hooks.model import LensModel
from ..hooks.planning import check_pictures, pictures_sha, sites_and_width, spans_of
from ..hooks.records import (
    Prompt,
    Skipped,
    Transcript,
    append_transcripts,
    cut_transcripts,
    read_prompts,
    read_skipped,
    read_transcripts,
    write_prompts,
    write_skipped,
    write_transcripts,
)
from ..hooks.select import Select
from ..hooks.spans import parse_span
from ..hooks.store import Store, open_store
from .benchmarks import BENCHMARKS
from .benchmarks import prompts as load_prompts
from .progress import Advance, Track, track
from .run import Run, open_run

OnError = Literal["raise", "skip"]
STAGE = "capture"
CONFIG, PROMPTS = "config.yaml", "prompts.jsonl"
TOLD = 10


@dataclass(frozen=True)
class Asked:
    """What is to be captured.

    where            sites × spans, pooled
    prompts          a benchmark's name or a file of prompts; None: those beside the transcripts, else "organism"
    transcripts      a file of transcripts made before; None: the model writes them
    split            only prompts of this split; None: "test" of a benchmark, all of a file
    limit            at most so many
    seed             draw them at random with this seed; None: the first ones
    max_new_tokens, batch_size   of generation; batch_size is also that of the capture
    on_error         what is done about prompts that cannot be used
    allow_empty      leave out a span that no transcript has
    """

    where: Select
    prompts: str | None = None
    transcripts: Path | None = None
    split: str | None = None
    limit: int | None = None
    seed: int | None = None
    max_new_tokens: int = 128
    batch_size: int = 64
    on_error: OnError = "raise"
    allow_empty: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "max_new_tokens", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is at least 1, got {value}")


@dataclass(frozen=True)
class Work:
    """Prompts to capture, their transcripts by id where those were given, and what was left out."""

    prompts: list[Prompt]
    given: Mapping[str, Transcript]
    skipped: list[Skipped]


@dataclass(frozen=True)
class Captured:
    """What came out. `speed` is tokens a second of what this start did, by stage: "wrote" and "read"; what was there already has none."""

    store: Store
    transcripts: Sequence[Transcript]
    skipped: Sequence[Skipped]
    speed: Mapping[str, float]

    def __str__(self) -> str:
        status = Counter(t.status for t in self.transcripts)
        speed = ", ".join(f"{stage} {rate:,.0f} tokens/s" for stage, rate in self.speed.items())
        return (
            f"{self.store.path}: {len(self.store):,} rows of {len(self.store.sites)} sites, {in_words(size_of(self.store.path))}; "
            f"{len(self.transcripts):,} prompts, {status['unclosed']} thoughts unclosed, {status['absent']} absent, "
            f"{len(self.skipped)} skipped; {speed or 'all of it was there'}"
        )


def capturing(out: str | Path, asked: Asked, model: Callable[[], LensModel], *, progress: bool = True) -> Captured:
    """Do what is asked in the run folder `out`, or go on with it.

    model   gives the loaded model; called once the prompts have been read
    ValueError naming the prompts and lines that cannot be used (on_error "raise"), and for a folder in which something else was captured.
    """
    work = read(asked)
    refuse(work.skipped, asked.on_error)
    disable_progress_bar()  # transformers' own, which would break ours
    lens = model()
    check_sites(lens, asked.where, work.prompts)
    config = settings(asked, lens, work.prompts)
    with locked(writable_folder(out)):
        check_folder(Path(out), config)
        sweep(Path(out))
        with track(progress) as bars:
            run, work = settled(Path(out), config, asked, lens, work, bars)
            transcripts, wrote = answers(run, asked, lens, work, bars)
        store, read_speed = activations(run, asked, lens, transcripts, progress)
        run.finish(STAGE, config)
    return Captured(store, transcripts, work.skipped, {**wrote, **read_speed})


def read(asked: Asked) -> Work:
    """The prompts asked for, as far as their lines can be read."""
    source, skipped = source_of(asked), list[Skipped]()
    if source in BENCHMARKS:
        prompts = load_prompts(source, split=asked.split or "test")
    elif Path(source).is_file():
        prompts = read_prompts(source, skipped=skipped)
    else:
        raise FileNotFoundError(f"there is no file of prompts {source}, and no benchmark of that name; known are {', '.join(BENCHMARKS)}")
    given: dict[str, Transcript] = {}
    if asked.transcripts:
        given = {t.id: t for t in read_transcripts(asked.transcripts, prompts, skipped=skipped)}
        prompts = [t.prompt for t in given.values()]
    splits = sorted({p.split for p in prompts})
    prompts = [p for p in prompts if asked.split in (None, p.split)]
    if splits and not prompts:
        raise ValueError(f"{source} has no prompt of the split {asked.split!r}; its splits are {', '.join(map(repr, splits))}")
    if not prompts and not skipped:
        raise ValueError(f"{asked.transcripts or source} is empty: there is nothing to capture. Give at least one prompt.")
    if asked.limit is not None and asked.limit < len(prompts):
        chosen = range(asked.limit) if asked.seed is None else sorted(random.Random(asked.seed).sample(range(len(prompts)), asked.limit))
        prompts = [prompts[i] for i in chosen]
    return Work(prompts, given, skipped)


def source_of(asked: Asked) -> str:
    """Where the prompts come from: what was said; else the file of the run that the transcripts are part of; else the made-up world."""
    if asked.prompts is not None:
        return asked.prompts
    beside = asked.transcripts.resolve().parent.parent / "prompts.jsonl" if asked.transcripts else None
    return str(beside) if beside and beside.is_file() else "organism"


def settled(out: Path, config: Mapping[str, Any], asked: Asked, lens: LensModel, work: Work, bars: Track) -> tuple[Run, Work]:
    """The prompts of the run and what was left out, checked once and written down; from then on taken from there."""
    file, left_out = out / PROMPTS, out / "skipped.jsonl"
    if not file.is_file():
        with bars(f"check for {lens.name}", len(work.prompts)) as advance:
            work = usable(lens, work, asked.max_new_tokens, advance)
        refuse(work.skipped, asked.on_error if work.prompts else "raise")
        open_run(out, config)
        write_skipped(left_out, work.skipped)
        write_prompts(file, work.prompts)
    work = Work(read_prompts(file), work.given, read_skipped(left_out))
    refuse(work.skipped, asked.on_error)
    return open_run(out, config), work


def answers(run: Run, asked: Asked, lens: LensModel, work: Work, bars: Track) -> tuple[list[Transcript], dict[str, float]]:
    """What was written: a copy of the transcripts given, else by the model; and how fast, if it was now."""
    if asked.transcripts:
        copy = write_transcripts(run.path("transcripts", asked.transcripts.name), [work.given[p.id] for p in work.prompts])
        return read_transcripts(copy, work.prompts), {}
    file, start = run.path("transcripts", f"{in_files(lens)}.jsonl"), time.perf_counter()
    with bars(f"{lens.name} answers", len(work.prompts)) as advance:
        tokens = write(lens, work.prompts, file, asked.max_new_tokens, asked.batch_size, advance)
    return read_transcripts(file, work.prompts), {"wrote": tokens / (time.perf_counter() - start)} if tokens else {}


def activations(
    run: Run, asked: Asked, lens: LensModel, transcripts: Sequence[Transcript], progress: bool
) -> tuple[Store, dict[str, float]]:
    """The store, and how fast the transcripts were read, if all of it was now."""
    folder = run.path("activations", in_files(lens))
    begun, start = folder.exists(), time.perf_counter()
    if not begun:
        check_spans(lens, transcripts, asked)
    store = capture(
        lens, transcripts, asked.where, into=folder, batch_size=asked.batch_size, progress=progress, allow_empty=asked.allow_empty
    )
    here = set(store.index["prompt_id"])
    tokens = sum(len(t.prompt_ids) + len(t.output_ids) for t in transcripts if t.id in here)
    return store, {} if begun else {"read": tokens / (time.perf_counter() - start)}


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


def write(lens: LensModel, prompts: Sequence[Prompt], file: Path, max_new_tokens: int, batch_size: int, advance: Advance) -> int:
    """Let the model answer chunk by chunk, going on after the last whole one in the file. Returns how many tokens were written now."""
    chunks = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    done = cut_transcripts(file, [[p.id for p in chunk] for chunk in chunks])
    advance("", sum(map(len, chunks[:done])))
    tokens = 0
    for chunk in chunks[done:]:
        try:
            said = generate(lens, chunk, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=False)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(
                f"{lens.device} ran out of memory while {lens.name} answered {len(chunk)} prompts at a time. "
                "Use a smaller --batch-size in a new folder, or fewer --max-new-tokens."
            ) from error
        append_transcripts(file, said)
        tokens += sum(len(t.output_ids) for t in said)
        advance("", len(chunk))
    return tokens


def settings(asked: Asked, lens: LensModel, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Everything the bytes follow from, JSON-able."""
    source = source_of(asked)
    return {
        "stage": STAGE,
        "model": lens.name,
        "fingerprint": lens.fingerprint,
        "dialect": lens.dialect.name,
        "template": dict(lens.template),
        "device": str(lens.device),
        "dtype": str(lens.dtype),
        "prompts": source if source in BENCHMARKS else sha256_of(source),
        "transcripts": sha256_of(asked.transcripts) if asked.transcripts else None,
        "split": asked.split,
        "limit": asked.limit,
        "seed": asked.seed,
        "max_new_tokens": asked.max_new_tokens,
        "batch_size": asked.batch_size,
        "select": asked.where.to_dict(),
        "pictures": pictures_of(prompts),
    }


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


def check_sites(lens: LensModel, where: Select, prompts: Sequence[Prompt]) -> None:
    """ValueError for sites the model does not have, of several widths, or in layers that do not run for every prompt that is read there."""
    sites, _ = sites_and_width(lens, where)
    if any(parse_span(span).base != "image" for span in where.spans):
        check_pictures(lens, sites, [bool(p.images) for p in prompts])


def check_spans(lens: LensModel, transcripts: Sequence[Transcript], asked: Asked) -> None:
    """ValueError for a span that no transcript has, unless it is to be left out and there are others."""
    spans, found = asked.where.spans, set[str]()
    for number, t in enumerate(transcripts):
        found |= {one.span for one in spans_of(lens, number, t.prompt_ids, t.output_ids, asked.where)}
        if len(found) == len(spans):
            return
    if found and asked.allow_empty:
        return
    lacking = next(span for span in spans if span not in found)
    status = ", ".join(f"{status} {count}" for status, count in Counter(t.status for t in transcripts).most_common())
    raise ValueError(
        f'span "{lacking}" is empty in all {len(transcripts)} transcripts (dialect "{lens.dialect.name}", split status: {status}). The '
        "transcripts are kept: the same command with other --spans, such as last_prompt, reads them"
        + (", and --allow-empty leaves the span out." if found else ".")
    )


def check_folder(out: Path, config: Mapping[str, Any]) -> None:
    """ValueError where the folder holds another run, or a capture with other settings.

    What is read may change until reading has begun: the transcripts do not follow from it.
    """
    if not (out / CONFIG).is_file():
        if strangers := [name for name in (PROMPTS, "transcripts", "activations") if (out / name).exists()]:
            raise ValueError(
                f"{out} holds {strangers[0]}, and no {CONFIG} of a capture that wrote it. Choose an empty or new folder with --out."
            )
        return
    try:
        there = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    except ValueError:  # YAML of its own, or no text
        there = None
    if not isinstance(there, Mapping) or there.get("stage") != STAGE:
        raise ValueError(f"{out} is the folder of something else: its {CONFIG} is not that of a capture. Choose another folder with --out.")
    other = [key for key in config if there.get(key) != json.loads(json.dumps(config[key]))]
    if other and (other != ["select"] or (out / "activations").exists()):
        key = other[0]
        pictures = ": a picture of its prompts was changed or is gone" if other == ["pictures"] else ""
        raise ValueError(
            f"{out} holds a capture with other settings, so it can be neither resumed nor reused{pictures}: {key} is "
            f"{short(there.get(key))} there and {short(config[key])} now (differing: {', '.join(other)}). Choose another folder with "
            "--out; what the model wrote can be read again with --transcripts."
        )


def sweep(out: Path) -> None:
    """Remove the half-written files of a killed start; the store does so itself."""
    for folder in (out, out / "images", out / "transcripts"):
        for left in folder.glob(".*.part"):
            left.unlink()


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


def size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def contents(path: str | Path) -> list[str]:
    """Lines that say what a store holds."""
    store = open_store(path)
    index, meta = store.index, store.meta
    spans = index["span"].value_counts(sort=False)
    statuses = index.drop_duplicates(["prompt_id", "written_by", "condition"])["status"].value_counts()
    return [
        f"store     {store.path}: {in_words(size_of(store.path))} in {index['shard'].nunique()} shards",
        f"rows      {len(store):,} of {len(store.sites)} sites, width {store.width}, {meta['dtype']}",
        f"sites     {', '.join(store.sites)}",
        f"spans     {', '.join(f'{span} {count:,}' for span, count in spans.items())}; pool {meta['select']['pool']}",
        f"prompts   {index['prompt_id'].nunique():,}: {', '.join(f'{status} {count:,}' for status, count in statuses.items())}",
        f"model     {meta['model']} ({meta['model_dtype']}, dialect {meta['dialect']}, fingerprint {meta['fingerprint'][:16]}); "
        f"written by {', '.join(index['written_by'].unique())}",
    ]
