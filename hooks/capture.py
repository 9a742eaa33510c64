"""Reading hidden states: transcripts in, an activation store out.

The tokens a model wrote, or another model of the trio wrote, are run through it again in one teacher-forced forward that ends at the last
wanted site (reading.py), and go to disk shard by shard (shards.py). Everything that can be wrong with what is asked is found before the
first forward (planning.py).

While one shard is written the next is read, so two shards are held at most, however many prompts there are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from .buffers import taken
from .encode import Batch, Side, difference, encode
from .model import LensModel
from .planning import Decisions, Labels, Plan, Wanted, make_plan, places, without
from .provenance import facts_of
from .reading import Landing, Reader, reader
from .records import Transcript
from .select import Select
from .shards import Writer, writing
from .sites import Site
from .store import Store, open_store

log = logging.getLogger(__name__)

SHARD_BYTES = 256 * 2**20  # while one is written the next is read


def capture(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    into: str | Path,
    batch_size: int = 32,
    labels: Labels | None = None,
    progress: bool = True,
    allow_empty: bool = False,
    decisions: Decisions | None = None,
    append: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Store:
    """Read `where` in every transcript and store it in the folder `into`.

    labels        prompt id -> further columns for the index, each of one kind: str, bool, int or float; None where there is no value
    allow_empty   leave out a span that is empty in every transcript, instead of raising
    decisions     prompt id -> output positions, as anchor.find() tells them: what the span "decision" stands for
    append        add to a finished store of the same model and selection the rows it does not have yet
    batch_size    most transcripts to a forward; halved when the device runs out of memory
    shard_bytes   a shard holds at most this much, or one transcript; smaller batches are made where one would be more

    A transcript in which a span is empty has no row for it; the log says how many. A capture that was killed is resumed by the same call
    and ends with the same bytes; one that is finished is opened. ValueError: a span empty everywhere, transcripts this model's template and
    tokenizer did not make, labels that do not cover them, a folder that holds another capture, a capture while steering is active.
    """
    into = Path(into)
    check_unsteered(lens)
    plan = make_plan(
        lens,
        transcripts,
        where,
        batch_size=batch_size,
        shard_bytes=shard_bytes,
        labels=labels,
        allow_empty=allow_empty,
        decisions=decisions,
    )
    job = {**plan.job, "batch_size": batch_size, "shard_bytes": shard_bytes}
    with writing(into, meta(lens, where, plan.sites, plan.width, job), append=append) as writer:
        if writer.finished:
            log.info("%s is finished already, nothing was run", into)
            return open_store(into)
        if append:
            plan = without(plan, writer.present, lens.name)
        fill({lens.name: lens}, {lens.name: writer}, plan, batch_size=batch_size, progress=progress)
        return writer.finish()


def check_unsteered(lens: LensModel) -> None:
    if lens.steering is not None or taken(lens.inner):
        raise ValueError("capture reads the model as it is, and steering is active. Leave the `with steer(…)` block first.")


def meta(lens: LensModel, where: Select, sites: Sequence[Site], width: int, job: Mapping[str, Any]) -> dict[str, Any]:
    """What a store says of itself: what kind of capture it is, and under `job` which piece of work."""
    return {
        "model": lens.name,
        "fingerprint": lens.fingerprint,
        "dialect": lens.dialect.name,
        "template": dict(lens.template),
        "read_from": facts_of(lens),
        "select": where.to_dict(),
        "sites": [str(site) for site in sites],
        "width": width,
        "dtype": "float32",
        "model_dtype": str(lens.dtype),
        "job": dict(job),
    }


def fill(lenses: Mapping[str, LensModel], writers: Mapping[str, Writer], plan: Plan, *, batch_size: int, progress: bool) -> None:
    """Read every shard of a plan that a writer does not have yet. Each batch is encoded once, by the first model, and run through all."""
    with Progress(console=Console(stderr=True), disable=not progress) as bar, ExitStack() as stack:
        task = bar.add_task(f"capture {', '.join(lenses)}", total=sum(len(batches) for batches in plan.shards))
        readers = {name: stack.enter_context(reader(lens, plan.sites)) for name, lens in lenses.items()}
        rooms = {name: _rooms(plan) for name in lenses}
        done = 0
        for number, batches in enumerate(plan.shards):
            unread = {name: one for name, one in readers.items() if number not in writers[name].done}
            vectors = {name: next(rooms[name])[: plan.size(number)] for name in unread}
            coming: list[Landing] = []
            stop = 0
            for some in batches if unread else ():
                begin, stop = stop, stop + sum(one.vectors(plan.where.pool) for one in some)
                started, batch_size = read_spans(
                    list(unread.values()), plan, some, [all_[begin:stop] for all_ in vectors.values()], batch_size
                )
                for landing in coming:  # those of the batch before: a device has been computing this one meanwhile
                    landing.wait()
                coming = started
                bar.advance(task)
            for landing in coming:
                landing.wait()
            for name in unread:
                writers[name].write(number, vectors[name], plan.rows(lenses[name].name, number))
            done += len(batches)
            bar.update(task, completed=done)


def _rooms(plan: Plan) -> Iterator[Float[Tensor, "v site D"]]:
    """Room for one shard after another. Two take turns: a writer has written the last but one when it takes the next."""
    most = max((plan.size(shard) for shard in range(len(plan.shards))), default=0)
    return cycle([torch.empty(most, len(plan.sites), plan.width) for _ in plan.shards[:2]])


def read_spans(
    readers: Sequence[Reader], plan: Plan, some: Sequence[Wanted], outs: Sequence[Float[Tensor, "v site D"]], size: int
) -> tuple[list[Landing], int]:
    """Start the forwards that read some spans, at most `size` transcripts to each; and the size that fitted into memory."""
    numbers = list(dict.fromkeys(one.transcript for one in some))
    started: list[Landing] = []
    done = begin = 0
    while done < len(numbers):
        chosen = set(numbers[done : done + size])
        these = [one for one in some if one.transcript in chosen]
        stop = begin + sum(one.vectors(plan.where.pool) for one in these)
        landings = _forward(readers, plan, these, [out[begin:stop] for out in outs])
        if landings is None:
            for landing in started:
                landing.wait()
            torch.cuda.empty_cache()
            size = _halved(plan, these)
        else:
            started += landings
            done, begin = done + len(chosen), stop
    return started, size


def _forward(
    readers: Sequence[Reader], plan: Plan, some: Sequence[Wanted], outs: Sequence[Float[Tensor, "v site D"]]
) -> list[Landing] | None:
    """One forward of each model; None where a device ran out of memory."""
    numbers = list(dict.fromkeys(one.transcript for one in some))
    try:
        batch = encode_transcripts(readers[0].lens, [plan.transcripts[number] for number in numbers])
        width = batch.inputs["input_ids"].shape[1]
        starts = [row * width + offset for row, offset in enumerate(batch.offsets.tolist())]
        at, counts = places(some, dict(zip(numbers, starts, strict=True)))
        return [one.start(moved(batch, one.lens), at, counts, plan.where.pool, out) for one, out in zip(readers, outs, strict=True)]
    except torch.OutOfMemoryError:
        return None  # by returning, what the traceback holds is let go before the next try


def _halved(plan: Plan, some: Sequence[Wanted]) -> int:
    numbers = set(one.transcript for one in some)
    first = plan.transcripts[some[0].transcript]
    if len(numbers) == 1:
        length = len(first.prompt_ids) + len(first.output_ids)
        raise MemoryError(
            f"the device ran out of memory with the transcript of {first.id!r} alone ({length} tokens). Load the model in a smaller "
            "dtype, spread it over devices (device_map), read fewer sites at once, or leave this transcript out."
        )
    half = len(numbers) // 2
    log.warning("the device ran out of memory with %d transcripts to a forward; going on with %d", len(numbers), half)
    return half


def encode_transcripts(lens: LensModel, transcripts: Sequence[Transcript], *, side: Side = "left") -> Batch:
    """Prompts and outputs as one batch. ValueError where this model renders a prompt to other ids than the transcript holds."""
    batch = encode(lens, [t.prompt for t in transcripts], prefixes=[t.output_ids for t in transcripts], side=side)
    check_prompt_ids(lens, transcripts, batch)
    return batch


def check_prompt_ids(lens: LensModel, transcripts: Sequence[Transcript], batch: Batch) -> None:
    """ValueError where a batch, encoded by this model, holds other prompt ids than its transcripts."""
    for transcript, ids, length in zip(transcripts, batch.ids, batch.prompt_lengths.tolist(), strict=True):
        if tuple(ids[:length]) != transcript.prompt_ids:
            raise ValueError(
                f"transcript {transcript.id!r} was written by {transcript.model!r} from other prompt tokens than {lens.name!r} makes "
                f"of the same prompt: {difference(lens, transcript.prompt_ids, ids[:length])}. "
                "Read transcripts with a model of the same trio, and with the prompts and template they were made from."
            )


def moved(batch: Batch, lens: LensModel) -> Batch:
    """The batch on another model's device."""
    return replace(batch, inputs={key: value.to(lens.device) for key, value in batch.inputs.items()})
