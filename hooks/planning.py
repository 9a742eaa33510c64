"""What a capture will read and write, settled before the first forward on token ids alone.

    wanted    which tokens each span of each transcript is made of
    Plan      batches of transcripts of like length, gathered into shards, and the index rows of each
    places    where those tokens stand in a padded batch

The same transcripts and selection always give the same plan, so that a capture that was killed ends with the same bytes, and another engine
(interop) can give the same rows in the same order.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Int64
from torch import Tensor

from .attach import site_width
from .encode import PromptError, open_picture
from .files import short
from .frame import token_kinds
from .model import LensModel
from .reading import never_ran
from .records import Prompt, Transcript
from .select import Pool, Select
from .sites import Site
from .spans import DECISION, resolve

log = logging.getLogger(__name__)

Labels = Mapping[str, Mapping[str, Any]]
Decisions = Mapping[str, Sequence[int]]  # prompt id -> output positions, ascending: what anchor.find() returns
KINDS: tuple[tuple[Any, str], ...] = (
    ((bool, np.bool_), "true or false"),
    (str, "text"),
    ((int, float, np.integer, np.floating), "a number"),  # after bool, which is an int
)
COLUMNS = (
    *("prompt_id", "model", "written_by", "condition", "status", "benchmark", "split", "group", "category", "attack", "harmful"),
    *("span", "pool", "start", "stop", "n_tokens", "ids_sha"),
)


@dataclass(frozen=True, eq=False)
class Wanted:
    """One span of one transcript.

    transcript   its number
    positions    [m] its tokens in the unpadded sequence, at least one
    """

    transcript: int
    span: str
    positions: Int64[np.ndarray, " m"]

    def vectors(self, pool: Pool) -> int:
        return len(self.positions) if pool == "every" else 1


@dataclass(frozen=True, eq=False)
class Plan:
    """What one capture reads.

    sites    in the order of the store; width: numbers per token at each
    shards   per shard its batches; a batch lists the spans to read, those of one transcript side by side
    about    a row per transcript: what the index says of it
    """

    transcripts: Sequence[Transcript]
    where: Select
    sites: tuple[Site, ...]
    width: int
    shards: tuple[tuple[tuple[Wanted, ...], ...], ...]
    about: pd.DataFrame

    def rows(self, model: str, shard: int) -> pd.DataFrame:
        """The index rows of a shard as read by the model of that name, in the order its vectors are written."""
        return index_rows(self.about.assign(model=model), self.where, [one for batch in self.shards[shard] for one in batch])

    def size(self, shard: int) -> int:
        """How many vectors a shard holds."""
        return sum(one.vectors(self.where.pool) for batch in self.shards[shard] for one in batch)

    @property
    def job(self) -> dict[str, Any]:
        """What tells this piece of work from another of the same kind, JSON-able."""
        return {
            "rows": sum(self.size(shard) for shard in range(len(self.shards))),
            "shards": len(self.shards),
            "transcripts_and_labels_sha": hashlib.sha256(self.about.to_json(orient="split").encode()).hexdigest(),
            **self._decisions,
        }

    @property
    def _decisions(self) -> dict[str, str]:
        """Where the decisions were found, which the transcripts alone do not tell; nothing where none are read."""
        every = (one for batches in self.shards for batch in batches for one in batch if one.span.startswith(DECISION))
        told = [[one.transcript, one.span, one.positions.tolist()] for one in every]
        return {"decisions_sha": hashlib.sha256(json.dumps(told).encode()).hexdigest()} if told else {}


def make_plan(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    batch_size: int,
    shard_bytes: int,
    labels: Labels | None = None,
    allow_empty: bool = False,
    decisions: Decisions | None = None,
) -> Plan:
    """Settle what will be read. ValueError for anything that cannot work (see capture)."""
    check_transcripts(transcripts)
    check_labels([t.id for t in transcripts], labels)
    sites, width = sites_and_width(lens, where)
    asked = wanted(lens, transcripts, where, allow_empty=allow_empty, decisions=decisions)
    check_pictures(lens, sites, [bool(t.prompt.images) for t, some in zip(transcripts, asked, strict=True) if some])
    shards = _shards(lens, transcripts, asked, where.pool, batch_size, max(1, shard_bytes // (4 * width * len(sites))))
    return Plan(transcripts, where, sites, width, shards, about(transcripts, labels))


def without(plan: Plan, present: pd.DataFrame, model: str) -> Plan:
    """What is left of a plan when a store holds the rows `present` already.

    prompt_id, model, condition, span and ids_sha, which is of the tokens and the pictures, tell one row from another.
    """
    keys = ["prompt_id", "condition", "ids_sha"]
    there = set(present.loc[present["model"] == model, [*keys, "span"]].itertuples(index=False, name=None))
    told = list(plan.about[keys].itertuples(index=False, name=None))
    shards = (
        tuple(left for batch in shard if (left := tuple(one for one in batch if (*told[one.transcript], one.span) not in there)))
        for shard in plan.shards
    )
    return replace(plan, shards=tuple(shard for shard in shards if shard))


def sites_and_width(lens: LensModel, where: Select) -> tuple[tuple[Site, ...], int]:
    """The sites of a selection and the width they share."""
    sites = tuple(lens.expand(where.sites))
    width = site_width(lens, sites[0])
    if other := [site for site in sites if site_width(lens, site) != width]:
        raise ValueError(
            f"site {str(other[0])!r} has another width than {sites[0]}, and a store holds one width. Capture it into a store of its own."
        )
    return sites, width


def check_transcripts(transcripts: Sequence[Transcript]) -> None:
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


def check_labels(prompt_ids: Sequence[str], labels: Labels | None) -> None:
    """ValueError unless each prompt has labels, under free names, and each column is of one kind.

    The kinds are str, bool, and int or float, which may be mixed; None, nan, and a column a prompt lacks, are no value in any of them.
    """
    if labels is None:
        return
    if lacking := [one for one in prompt_ids if one not in labels]:
        raise ValueError(
            f"labels do not cover {len(lacking)} of {len(prompt_ids)} transcripts, first prompt {lacking[0]!r}. "
            "Give every prompt id its columns."
        )
    if taken := [key for key in _extra(prompt_ids, labels) if key in (*COLUMNS, "shard", "offset", "shard_sha", "order")]:
        raise ValueError(f"labels use the column {taken[0]!r}, which the index has already. Give it another name.")
    for column in _extra(prompt_ids, labels):
        _check_kind(column, {one: labels[one].get(column) for one in prompt_ids})


def _check_kind(column: Any, values: Mapping[str, Any]) -> None:
    """ValueError unless the values, by prompt, are of one kind that the index can hold."""
    if not isinstance(column, str):
        raise ValueError(f"labels name a column {column!r}: a column's name is text. Write it as one.")
    lacking = {one for one, value in values.items() if value is None or value is pd.NA or (isinstance(value, float) and isnan(value))}
    there = {one: value for one, value in values.items() if one not in lacking}
    kinds = {one: next((word for kind, word in KINDS if isinstance(value, kind)), "") for one, value in there.items()}
    first = next(iter(kinds.values()), "")
    if odd := next((one for one, kind in kinds.items() if not kind or kind != first), None):
        mixed = f", where others have {first}" if first else ""
        raise ValueError(
            f"the label {column!r} of prompt {odd!r} is {short(there[odd])}{mixed}. A column holds text, numbers, or true and false, "
            "and None where there is no value: give it one kind throughout."
        )
    try:
        pa.array(list(there.values()))
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise ValueError(f"the label {column!r} cannot be written, first for prompt {next(iter(there))!r}: {error}.") from error


def check_pictures(lens: LensModel, sites: Sequence[Site], pictured: Sequence[bool]) -> None:
    """ValueError for sites in layers that only run where there is a picture, when some prompt has none."""
    crossing = [site for site in sites if lens.blocks[site.layer].site == "cross_attn_out"]
    if crossing and not all(pictured):
        raise ValueError(never_ran(lens, crossing))


def wanted(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    allow_empty: bool = False,
    decisions: Decisions | None = None,
) -> list[list[Wanted]]:
    """Per transcript the spans it has. ValueError for a span that no transcript has, unless `allow_empty` and there are others."""
    if decisions is not None and (unknown := [t.id for t in transcripts if t.id not in decisions]):
        raise ValueError(f"decisions= says nothing of {len(unknown)} transcripts, first {unknown[0]!r}. Let anchor.find() read them all.")
    told = [None if decisions is None else decisions[t.id] for t in transcripts]
    found = [spans_of(lens, number, t.prompt_ids, t.output_ids, where, told[number]) for number, t in enumerate(transcripts)]
    there = Counter(one.span for some in found for one in some)
    statuses = ", ".join(f"{status} {count}" for status, count in Counter(t.status for t in transcripts).most_common())
    for span in where.spans:
        empty = len(transcripts) - there[span]
        if not there[span] and not (allow_empty and there):
            raise ValueError(
                "no hidden state was captured: "
                f'span "{span}" is empty in {empty} of {empty} transcripts (dialect "{lens.dialect.name}", split status: {statuses}). '
                f"{'Take an anchor with a lower threshold' if span.startswith(DECISION) else 'Load the model with the dialect it writes'}, "
                "or read the transcripts again, into another folder, with a span they have, "
                f'such as "last_prompt"{", or pass allow_empty=True to leave this one out" if there else ""}.'
            )
        if empty:
            log.info(
                'span "%s" is empty in %d of %d transcripts (split status: %s): they have no row for it',
                *(span, empty, len(transcripts), statuses),
            )
    return found


def spans_of(
    lens: LensModel,
    number: int,
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    where: Select,
    decisions: Sequence[int] | None = None,
) -> list[Wanted]:
    """The spans one transcript has. ValueError when its prompt was not written by this model's template."""
    ids, end = (*prompt_ids, *output_ids), len(prompt_ids)
    kinds = token_kinds(ids, end, lens.frame, lens.markers)
    found = ((span, resolve(span, kinds, ids, lens.markers, prompt_end=end, decisions=decisions).numpy()) for span in where.spans)
    return [Wanted(number, span, positions) for span, positions in found if len(positions)]


def batched(lens: LensModel, numbers: Sequence[int], pictures: Sequence[int], size: int) -> Iterator[list[int]]:
    """Numbers in batches of at most `size`, in the order given; prompts with other numbers of pictures apart where the family wants it."""
    for _, run in groupby(numbers, lambda number: lens.family.mixes or pictures[number]):
        some = list(run)
        yield from (some[start : start + size] for start in range(0, len(some), size))


def places(some: Sequence[Wanted], starts: Mapping[int, int]) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " v"]]:
    """Where the tokens of spans stand among the b·n tokens of a padded batch, and how many each span has.

    starts   transcript -> where its first token stands
    """
    at = [one.positions + starts[one.transcript] for one in some]
    return torch.from_numpy(np.concatenate(at)), torch.tensor([len(one.positions) for one in some])


def index_rows(about: pd.DataFrame, where: Select, some: Sequence[Wanted]) -> pd.DataFrame:
    """One row per vector; `order` sorts the rows of all shards as transcripts and spans were given.

    about   a row per transcript, by number: see about(), and the column `model`
    """
    every, spans = where.pool == "every", {span: i for i, span in enumerate(where.spans)}
    lengths = [one.vectors(where.pool) for one in some]
    starts, last = (np.concatenate([one.positions if every else one.positions[end:][:1] for one in some]) for end in (0, -1))
    index = about.loc[np.repeat([one.transcript for one in some], lengths)].reset_index(drop=True)
    index = index.assign(
        span=np.repeat(np.array([one.span for one in some], dtype=object), lengths),
        pool=where.pool,
        start=starts,
        stop=last + 1,
        n_tokens=1 if every else [len(one.positions) for one in some],
        order=np.repeat([one.transcript * len(spans) + spans[one.span] for one in some], lengths),
    )
    return index[[*COLUMNS, *(column for column in index.columns if column not in COLUMNS)]]


def about(transcripts: Sequence[Transcript], labels: Labels | None, numbers: Sequence[int] | None = None) -> pd.DataFrame:
    """What the index says of each transcript, its labels included; by their numbers, by default 0, 1, …"""
    index = pd.RangeIndex(len(transcripts)) if numbers is None else pd.Index(numbers)
    rows = pd.DataFrame([_about(transcript) for transcript in transcripts], index=index).astype({"harmful": "boolean"})
    for key in _extra([t.id for t in transcripts], labels or {}):
        rows[key] = [(labels or {})[transcript.id].get(key) for transcript in transcripts]
    return rows


def pictures_sha(prompt: Prompt) -> str:
    """sha256 of what the model is shown with a prompt; empty without pictures.

    Of the decoded pixels: a picture in memory and the file it was saved to are the same. One that cannot be opened counts as such;
    encode() tells what is wrong with it.
    """
    if not prompt.images:
        return ""
    sha = hashlib.sha256()
    for picture in prompt.images:
        try:
            shown = open_picture(prompt.id, picture)
            sha.update(f"{shown.mode} {shown.size} ".encode() + shown.tobytes())
        except PromptError:
            sha.update(b"unreadable ")
    return sha.hexdigest()


def _about(transcript: Transcript) -> dict[str, Any]:
    """`ids_sha` is of the token ids and, where there are any, of the pictures: those of one size have the same ids."""
    prompt = transcript.prompt
    ids = json.dumps([*transcript.prompt_ids, *transcript.output_ids])
    return {
        "prompt_id": prompt.id,
        "written_by": transcript.model,
        "condition": transcript.condition,
        "status": transcript.status,
        "benchmark": prompt.benchmark,
        "split": prompt.split,
        "group": prompt.group or prompt.id,
        "category": prompt.category,
        "attack": prompt.attack,
        "harmful": prompt.harmful,
        "ids_sha": hashlib.sha256((ids + pictures_sha(prompt)).encode()).hexdigest(),
    }


def _extra(prompt_ids: Sequence[str], labels: Labels) -> list[str]:
    return list(dict.fromkeys(key for prompt_id in dict.fromkeys(prompt_ids) for key in labels[prompt_id])) if labels else []


def _shards(
    lens: LensModel, transcripts: Sequence[Transcript], asked: Sequence[Sequence[Wanted]], pool: Pool, batch_size: int, shard_rows: int
) -> tuple[tuple[tuple[Wanted, ...], ...], ...]:
    """Transcripts of like length together, the longest first.

    Neither a batch nor a shard holds more than `shard_rows` vectors, unless a single transcript does.
    """
    lengths = [len(t.prompt_ids) + len(t.output_ids) for t in transcripts]
    pictures = [len(t.prompt.images) for t in transcripts]
    apart = [0 if lens.family.mixes else shown for shown in pictures]
    numbers = sorted((n for n in range(len(transcripts)) if asked[n]), key=lambda n: (apart[n], -lengths[n], n))
    shards: list[list[tuple[Wanted, ...]]] = [[]]
    held = 0
    vectors = {number: sum(one.vectors(pool) for one in asked[number]) for number in numbers}
    for chosen in (part for some in batched(lens, numbers, pictures, batch_size) for part in _cut(some, vectors, shard_rows)):
        size = sum(vectors[number] for number in chosen)
        if held and held + size > shard_rows:
            shards.append([])
            held = 0
        shards[-1].append(tuple(one for number in chosen for one in asked[number]))
        held += size
    return tuple(map(tuple, shards))


def _cut(numbers: Sequence[int], vectors: Mapping[int, int], most: int) -> Iterator[list[int]]:
    """The same in pieces of at most so many vectors, or of one transcript."""
    part, held = list[int](), 0
    for number in numbers:
        if part and held + vectors[number] > most:
            yield part
            part, held = [], 0
        part.append(number)
        held += vectors[number]
    yield part
