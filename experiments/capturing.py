"""From prompts to hidden states on disk, in a run folder, with one command that can be killed at any time.

    prompts.jsonl            what is asked, each prompt checked: its pictures can be read, it fits the context
    skipped.jsonl            what cannot be used and why, with --on-error skip
    transcripts/<model>.jsonl    what the model wrote, appended chunk by chunk; or a copy of transcripts made before
    activations/<model>/     the store

Which prompts make up a chunk is settled before the first forward, and a chunk is there wholly or made again, so a run that was killed ends
with the same bytes as one that was not. What cannot be used is found before anything is generated.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from ..hooks.capture import capture
from ..hooks.files import in_words, locked, sha256_of, short, writable_folder
from ..hooks.generate import generate
from ..hooks.model import LensModel
from ..hooks.planning import check_pictures, sites_and_width, spans_of
from ..hooks.records import (
    Prompt,
    Skipped,
    Transcript,
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
from .benchmarks.spec import is_benchmark
from .progress import Track, track
from .prompting import OnError, Work, in_files, pictures_of, read, refuse, source_of, usable, write
from .run import Run, open_run

STAGE = "capture"
CONFIG, PROMPTS = "config.yaml", "prompts.jsonl"


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

        def say(chunk: Sequence[Prompt]) -> list[list[Transcript]]:
            return [generate(lens, chunk, max_new_tokens=asked.max_new_tokens, batch_size=asked.batch_size, progress=False)]

        tokens = write(work.prompts, [file], asked.batch_size, say, advance)
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
        "prompts": source if is_benchmark(source) else sha256_of(source),
        "transcripts": sha256_of(asked.transcripts) if asked.transcripts else None,
        "split": asked.split,
        "limit": asked.limit,
        "seed": asked.seed,
        "max_new_tokens": asked.max_new_tokens,
        "batch_size": asked.batch_size,
        "select": asked.where.to_dict(),
        "pictures": pictures_of(prompts),
    }


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
