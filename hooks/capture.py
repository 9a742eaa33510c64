"""Reading hidden states: transcripts in, an activation store out.

The tokens a model wrote, or another model of the trio wrote, are run through it again in one teacher-forced forward without the output
head (reading.py), and go to disk shard by shard (store.py). Everything that can be wrong with what is asked is found before the first
forward: spans are resolved on token ids alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.progress import Progress
from torch import Tensor

from .encode import Side, encode
from .frame import token_kinds
from .model import LensModel
from .reading import out_projection, read
from .records import Transcript
from .select import Pool, Select
from .sites import Site, expand
from .spans import resolve
from .store import Store, begin, finish, finished, open_store, shards_done, write_shard

log = logging.getLogger(__name__)

SHARD_BYTES = 512 * 2**20


@dataclass(frozen=True)
class _Wanted:
    """One span of one transcript: the tokens a vector is made of (positions in the unpadded sequence)."""

    transcript: int
    span: str
    positions: tuple[int, ...]


def capture(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    into: str | Path,
    batch_size: int = 32,
    labels: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool = True,
    allow_empty: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Store:
    """Read `where` in every transcript and store it in the folder `into`.

    labels        prompt id -> further columns for the index
    allow_empty   leave out a span that is empty in every transcript, instead of raising
    shard_bytes   a shard is closed when it holds this much

    A transcript in which a span is empty has no row for it; the log says how many. A capture that was killed is resumed by the same call
    and ends with the same bytes; one that is finished is opened. ValueError: a span empty everywhere, transcripts this model's template and
    tokenizer did not make, labels that do not cover them, a folder that holds another capture, a capture while steering is active.
    """
    into = Path(into)
    _check_asked(lens, transcripts, labels)
    sites = expand(where.sites, lens.n_layers)
    width = _width(lens, sites)
    wanted = _resolve_all(lens, transcripts, where, allow_empty)
    shards = _plan(transcripts, wanted, batch_size, max(1, shard_bytes // (4 * width * len(sites))))
    index = _index(lens, transcripts, where, shards, labels or {})
    begin(
        into,
        {
            "model": lens.name,
            "fingerprint": lens.fingerprint,
            "dialect": lens.dialect.name,
            "select": where.to_dict(),
            "sites": [str(s) for s in sites],
            "width": width,
            "dtype": "float32",
            "model_dtype": str(lens.dtype),
            "rows": len(index),
            "shards": len(shards),
            "batch_size": batch_size,
            "shard_bytes": shard_bytes,
            "transcripts_and_labels_sha": hashlib.sha256(index.to_json(orient="split").encode()).hexdigest(),
        },
    )
    if finished(into):
        log.info("%s is finished already, nothing was run", into)
        return open_store(into)
    done = shards_done(into)
    with Progress(disable=not progress) as bar:
        task = bar.add_task(f"capture {lens.name}", total=sum(len(batches) for batches in shards))
        for number, batches in enumerate(shards):
            if number not in done:
                vectors = []
                for batch in batches:
                    vectors.append(_forward(lens, transcripts, batch, sites, where.pool))
                    bar.advance(task)
                done[number] = write_shard(into, number, torch.cat(vectors))
            else:
                bar.advance(task, len(batches))
    return finish(into, index.sort_values("order", kind="stable").drop(columns="order").reset_index(drop=True), done)


def _forward(
    lens: LensModel, transcripts: Sequence[Transcript], wanted: Sequence[_Wanted], sites: Sequence[Site], pool: Pool, side: Side = "left"
) -> Tensor:
    numbers = list(dict.fromkeys(one.transcript for one in wanted))
    rows = [transcripts[number] for number in numbers]
    batch = encode(lens, [t.prompt for t in rows], prefixes=[t.output_ids for t in rows], side=side)
    for transcript, ids in zip(rows, batch.ids, strict=True):
        if tuple(ids) != transcript.prompt_ids + transcript.output_ids:
            raise ValueError(
                f"transcript {transcript.id!r} was written by {transcript.model!r} from other prompt tokens than {lens.name!r} makes "
                "of the same prompt: "
                f"{len(transcript.prompt_ids)} tokens there, {len(ids) - len(transcript.output_ids)} here. "
                "Tokenizer, chat template, picture size or the prompt "
                "differ: read transcripts with a model of the same trio, and with the prompts they were made from."
            )
    width, row_of = int(batch.inputs["input_ids"].shape[1]), {number: row for row, number in enumerate(numbers)}
    starts = [row_of[one.transcript] * width + int(batch.offsets[row_of[one.transcript]]) for one in wanted]
    at = torch.tensor([start + position for start, one in zip(starts, wanted, strict=True) for position in one.positions])
    return read(lens, batch, sites, at, torch.tensor([len(one.positions) for one in wanted]), pool)


def _check_asked(lens: LensModel, transcripts: Sequence[Transcript], labels: Mapping[str, Mapping[str, Any]] | None) -> None:
    if lens.steering is not None:
        raise ValueError("capture reads the model as it is, and steering is active. Leave the `with steer(…)` block first.")
    if not transcripts:
        raise ValueError("there is no transcript to read. Pass what generate() returned.")
    twice = [key for key, count in Counter((t.id, t.model, t.condition) for t in transcripts).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} transcripts occur twice, first prompt {twice[0][0]!r} of {twice[0][1]!r} ({twice[0][2]}). Pass each once."
        )
    if bare := [t.id for t in transcripts if not t.prompt_ids]:
        raise ValueError(
            f"{len(bare)} transcripts carry no prompt_ids, first {bare[0]!r}. Make them with generate(), which records token ids."
        )
    if labels is not None and (lacking := [t.id for t in transcripts if t.id not in labels]):
        raise ValueError(
            f"labels do not cover {len(lacking)} of {len(transcripts)} transcripts, first prompt {lacking[0]!r}. "
            "Give every prompt id its columns."
        )


def _width(lens: LensModel, sites: Sequence[Site]) -> int:
    widths = {str(site): lens.width if site.name != "head_out" else out_projection(lens, site).in_features for site in sites}
    first = widths[str(sites[0])]
    if other := [site for site, width in widths.items() if width != first]:
        raise ValueError(
            f"site {other[0]!r} has another width than {sites[0]}, and a store holds one width. Capture head_out into a store of its own."
        )
    return first


def _resolve_all(lens: LensModel, transcripts: Sequence[Transcript], where: Select, allow_empty: bool) -> list[list[_Wanted]]:
    """Per transcript the spans it has. Done before any forward, so that what cannot work fails at once."""
    wanted: list[list[_Wanted]] = []
    empty: Counter[str] = Counter()
    for number, transcript in enumerate(transcripts):
        ids, end = transcript.prompt_ids + transcript.output_ids, len(transcript.prompt_ids)
        kinds = token_kinds(ids, end, lens.frame, lens.markers)
        found = {span: tuple(resolve(span, kinds, ids, lens.markers, prompt_end=end).tolist()) for span in where.spans}
        empty.update(span for span, positions in found.items() if not positions)
        wanted.append(
            [
                _Wanted(number, span, part)
                for span, positions in found.items()
                if positions
                for part in (((p,) for p in positions) if where.pool == "every" else (positions,))
            ]
        )
    statuses = ", ".join(f"{status} {count}" for status, count in Counter(t.status for t in transcripts).most_common())
    for span, count in empty.items():
        if count == len(transcripts) and not (allow_empty and any(wanted)):
            raise ValueError(
                "no hidden state was captured: "
                f'span "{span}" is empty in {count} of {count} transcripts (dialect "{lens.dialect.name}", split status: {statuses}). '
                'Load the model with the dialect it writes, choose a span its outputs have, such as "last_prompt", '
                "or pass allow_empty=True."
            )
        log.info(
            'span "%s" is empty in %d of %d transcripts (split status: %s): they have no row for it',
            span,
            count,
            len(transcripts),
            statuses,
        )
    return wanted


def _plan(
    transcripts: Sequence[Transcript], wanted: Sequence[Sequence[_Wanted]], batch_size: int, shard_rows: int
) -> list[list[list[_Wanted]]]:
    """Shards of batches of vectors: transcripts of like length together, a shard closed once it holds `shard_rows` vectors."""
    lengths = [len(t.prompt_ids) + len(t.output_ids) for t in transcripts]
    numbers = sorted((n for n in range(len(transcripts)) if wanted[n]), key=lambda n: (-lengths[n], n))
    shards: list[list[list[_Wanted]]] = [[]]
    held = 0
    for start in range(0, len(numbers), batch_size):
        if held >= shard_rows:
            shards.append([])
            held = 0
        batch = [one for number in numbers[start : start + batch_size] for one in wanted[number]]
        shards[-1].append(batch)
        held += len(batch)
    return shards


def _index(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    shards: Sequence[Sequence[Sequence[_Wanted]]],
    labels: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """One row per vector in the order it is written; `order` sorts them as the transcripts and spans were given."""
    spans = {span: i for i, span in enumerate(where.spans)}
    shas = [_ids_sha(t.prompt_ids + t.output_ids) for t in transcripts]
    rows = []
    for shard, batches in enumerate(shards):
        for offset, one in enumerate(one for batch in batches for one in batch):
            transcript = transcripts[one.transcript]
            prompt = transcript.prompt
            rows.append(
                {
                    "prompt_id": prompt.id,
                    "model": lens.name,
                    "written_by": transcript.model,
                    "condition": transcript.condition,
                    "status": transcript.status,
                    "benchmark": prompt.benchmark,
                    "split": prompt.split,
                    "group": prompt.group or prompt.id,
                    "category": prompt.category,
                    "attack": prompt.attack,
                    "harmful": prompt.harmful,
                    "span": one.span,
                    "pool": where.pool,
                    "start": one.positions[0],
                    "stop": one.positions[-1] + 1,
                    "n_tokens": len(one.positions),
                    "ids_sha": shas[one.transcript],
                    "shard": shard,
                    "offset": offset,
                    "order": (one.transcript * len(spans) + spans[one.span]),
                }
            )
    index = pd.DataFrame(rows).astype({"harmful": "boolean"})
    extra = {key: None for prompt_id in dict.fromkeys(index["prompt_id"]) for key in labels.get(prompt_id, {})}
    if taken := [key for key in extra if key in index.columns or key == "shard_sha"]:
        raise ValueError(f"labels use the column {taken[0]!r}, which the index has already. Give it another name.")
    for key in extra:
        index[key] = [labels[prompt_id].get(key) for prompt_id in index["prompt_id"]]
    return index


def _ids_sha(ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()
