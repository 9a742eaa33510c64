"""Writing an activation store, shard by shard: a kill at any moment costs at most the shards that were under way.

    .lock                held by the one writer
    parts/job.json       the piece of work that is being done
    parts/00000.parquet  the index rows of a shard that is whole

A shard is written and hashed at the same time, flushed and renamed; then its index rows are. The index comes last and replaces the one
before in a single step. Which vector belongs into which shard is the caller's plan, settled beforehand, rows are sorted by the caller's
`order`, and no file carries a time: so a capture that was stopped and run again ends with the same bytes as one that was not.

Shapes: `rows` vectors of a shard, `sites` as in meta.json, `d` the width.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from .files import LOCK, atomic, check_safetensors, locked, short, writable_folder, write_text
from .store import FACTS, FORMAT, FORMAT_VERSION, INDEX, META, PARTS, Store, open_store, read_meta, shard_file

JOB = "job.json"
ROWS_AT_ONCE = 2**14  # of the index that are written in one piece
ADDED = ("shard", "offset", "shard_sha")  # index columns the writer adds
KEYS = ("prompt_id", "model", "condition", "ids_sha", "span")

Job = Mapping[str, Any]


@dataclass(eq=False)
class Writer:
    """A store while it is written; what `writing` yields.

    path      its folder
    meta      what is captured, and the job: the piece of work that is being done
    before    the finished store that is there already, if any
    finished  the job is part of it: nothing needs to be written
    done      numbers of the job's shards that are whole, written now or before a stop
    """

    path: Path
    meta: Mapping[str, Any]
    job: Job
    before: Store | None
    finished: bool
    done: set[int]
    _columns: pa.Schema
    _background: ThreadPoolExecutor
    _pending: Future[int] | None = None

    @property
    def present(self) -> pd.DataFrame:
        """Which rows the finished store has already: prompt_id, model, condition, ids_sha, span."""
        if self.before is None:
            return pd.DataFrame(columns=list(KEYS))
        return self.before.index[[key for key in KEYS if key in self.before.index.columns]]

    def write(self, number: int, vectors: Float[Tensor, "rows sites d"] | Sequence[Float[Tensor, "_ sites d"]], rows: pd.DataFrame) -> None:
        """Write one shard: its vectors as float32 (one tensor, or several to be joined) and their index rows, which have a column `order`.

        number    0, 1, … within this job
        Writing goes on in the background, one shard at a time: hand over tensors that nobody changes afterwards. What goes wrong there,
        such as DiskFull, comes up at the next write(), at finish() or at the end of the `with` block.
        """
        self.settle()
        pieces = [vectors] if isinstance(vectors, Tensor) else list(vectors)
        table = pa.Table.from_pandas(rows, preserve_index=False)
        self._check(number, pieces, table)
        self._pending = self._background.submit(_write_shard, self.path, number, _base(self.before) + number, pieces, table)

    def settle(self) -> None:
        """Wait for the shard that is being written in the background."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.done.add(pending.result())

    def finish(self) -> Store:
        """Write the index, which makes the job part of the store, clear what only unfinished work needs, and open the store."""
        self.settle()
        if not self.finished:
            if self.done != set(range(len(self.done))) or (not self.done and self.before is None):
                there = ", ".join(map(str, sorted(self.done))) or "none"
                raise ValueError(f"{self.path} cannot be finished: its shards are numbered 0, 1, … without a gap, and there are: {there}.")
            _write_index(self.path, self.before, self.job, len(self.done))
            shutil.rmtree(self.path / PARTS)
            self.finished = True
        return open_store(self.path)

    def _check(self, number: int, pieces: Sequence[Tensor], rows: pa.Table) -> None:
        if self.finished or number in self.done:
            raise ValueError(f"shard {number} of {self.path} is there already: write only what is not in `writer.done`.")
        wanted = (len(self.meta["sites"]), int(self.meta["width"]))
        if odd := [tuple(piece.shape) for piece in pieces if tuple(piece.shape[1:]) != wanted]:
            raise ValueError(f"vectors of {self.path} are [rows, {wanted[0]} sites, {wanted[1]} wide], got {list(odd[0])}.")
        if (count := sum(len(piece) for piece in pieces)) != rows.num_rows or not count:
            raise ValueError(f"shard {number} of {self.path} has {count} vectors and {rows.num_rows} index rows: give one row per vector.")
        if "order" not in rows.column_names or set(ADDED) & set(rows.column_names):
            raise ValueError(
                f"index rows need a column 'order' to sort them by, and no {', '.join(ADDED)}, which the writer adds; "
                f"they have {', '.join(rows.column_names)}."
            )
        try:
            self._columns = _joined([self._columns, rows.schema])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(f"a column of the index of {self.path} changed its kind: {error}. Give it one kind throughout.") from error


@contextmanager
def writing(path: str | Path, meta: Mapping[str, Any], *, append: bool = False) -> Iterator[Writer]:
    """Hold the folder `path` as its only writer, and start a store there or go on with one.

    meta      what is captured, with `sites` and `width`; under "job" what describes this piece of work alone (which rows, which batches)
    append    add to a finished store: `meta` must agree in everything but "job"; shards are numbered on, and rows that are there stay

    ValueError when the folder holds a capture of something else, or other files; BlockingIOError when somebody else is writing there.
    """
    path = writable_folder(path)
    asked: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **meta}))
    job = asked.pop("job", {})
    if append and not job:
        raise ValueError(f"nothing tells the work to be added to {path} from what is there: describe it in meta['job'].")
    with locked(path), ThreadPoolExecutor(1, "shard") as background:
        before, finished = _begin(path, asked, job, append)
        done = {} if finished else _done(path, _base(before))
        columns = _joined([*([] if before is None else [pq.read_schema(path / INDEX)]), *done.values()])
        writer = Writer(path, asked, job, before, finished, set(done), columns, background)
        yield writer
        writer.settle()


def save(file: Path, pieces: Sequence[Float[Tensor, "_ sites d"]]) -> str:
    """Write the pieces, joined, as the float32 tensor `vectors` of a safetensors file; return the sha256, taken while the bytes go out.

    The bytes are those of safetensors.torch.save_file, which needs the pieces in one tensor and the sha256 in a second pass.
    """
    flat = [piece.detach().to("cpu", torch.float32).contiguous().numpy() for piece in pieces]
    size = sum(piece.nbytes for piece in flat)
    shape = [sum(len(piece) for piece in flat), *flat[0].shape[1:]]
    header = json.dumps({"vectors": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    blocks: list[bytes | memoryview] = [
        len(header).to_bytes(8, "little"),
        header,
        *(piece.reshape(-1).view(np.uint8).data for piece in flat),
    ]
    with atomic(file, size=8 + len(header) + size) as part, ThreadPoolExecutor(1, "sha256") as beside:
        sha = beside.submit(_sha256, blocks)
        with part.open("wb") as stream:
            stream.writelines(blocks)
            stream.flush()
            os.fsync(stream.fileno())
        return sha.result()


def _sha256(blocks: Iterable[bytes | memoryview]) -> str:
    sha = hashlib.sha256()
    for block in blocks:
        sha.update(block)
    return sha.hexdigest()


def _begin(path: Path, meta: Mapping[str, Any], job: Job, append: bool) -> tuple[Store | None, bool]:
    """The finished store that is in the folder, if any, and whether it holds the job. If it does not, the job is begun or goes on."""
    for left in [*path.glob(".*.part"), *path.glob("*/.*.part")]:
        left.unlink()
    if not (path / META).exists():
        if strangers := sorted(p.name for p in path.iterdir() if p.name != LOCK):
            raise ValueError(f"{path} holds other files, such as {strangers[0]!r}, and no capture. Choose an empty or new folder.")
        write_text(path / META, json.dumps(meta, ensure_ascii=False, indent=1))
    there, note = read_meta(path), path / PARTS / JOB
    before = open_store(path) if (path / INDEX).is_file() else None
    jobs = () if before is None else before.jobs
    stopped = json.loads(note.read_text(encoding="utf-8")) if note.exists() else None
    if stopped in jobs:
        stopped = None  # killed when its index was written and its parts were not yet cleared
    if there != meta:
        raise ValueError(_different(path, {**there, **(stopped or {})}, {**meta, **job}, "Choose another folder, or delete this one"))
    if rivals := [other for other in jobs if other != job and not append]:
        way = "Choose another folder, or delete this one, or add to it with append=True"
        raise ValueError(_different(path, {**there, **rivals[0]}, {**meta, **job}, way))
    if job in jobs:
        if stopped is None:
            shutil.rmtree(path / PARTS, ignore_errors=True)
        return before, True
    if stopped is None:
        shutil.rmtree(path / PARTS, ignore_errors=True)
        write_text(note, json.dumps(job, ensure_ascii=False, indent=1))
    elif stopped != job:
        way = "Run that one again to finish it, or choose another folder, or delete this one"
        raise ValueError(_different(path, {**there, **stopped}, {**meta, **job}, way))
    return before, False


def _done(path: Path, base: int) -> dict[int, pa.Schema]:
    """The shards of the job that are whole, with the columns of their index rows. A shard without rows is removed."""
    found = {}
    for file in sorted((path / "shards").glob("*.safetensors")):
        number = int(file.stem) - base
        if number >= 0 and _part(path, number).exists():
            check_safetensors(file)
            found[number] = pq.read_schema(_part(path, number))
        elif number >= 0:
            file.unlink()
    return found


def _write_shard(path: Path, number: int, shard: int, pieces: Sequence[Tensor], rows: pa.Table) -> int:
    """Write one shard, then its index rows; return its number within the job."""
    sha = save(shard_file(path, shard), pieces)
    for name, column in zip(ADDED, (np.full(len(rows), shard), np.arange(len(rows)), [sha] * len(rows)), strict=True):
        rows = rows.append_column(name, pa.array(column))
    with atomic(_part(path, number)) as part:
        pq.write_table(rows, part)
    return number


def _write_index(path: Path, before: Store | None, job: Job, count: int) -> None:
    parts = [_texts_once(_part(path, number)) for number in range(count)]
    tables = [] if before is None else [_texts_once(path / INDEX)]
    if parts:  # a job may find that all its rows are there already
        tables.append(pa.concat_tables(parts, promote_options="permissive").sort_by("order").drop_columns("order"))
    index = pa.concat_tables(tables, promote_options="permissive")
    shards = [] if before is None else [[shard.sha, shard.rows] for shard in before.shards]
    shards += [[part["shard_sha"][0].as_py(), part.num_rows] for part in parts]
    facts = json.dumps({"shards": shards, "jobs": [*(() if before is None else before.jobs), job]}, ensure_ascii=False)
    schema = _joined([pq.read_schema(_part(path, number)) for number in range(count)] + ([pq.read_schema(path / INDEX)] if before else []))
    schema = pa.schema([schema.field(name) for name in index.column_names], {**index.schema.metadata, FACTS: facts})
    with atomic(path / INDEX) as part, pq.ParquetWriter(part, schema, write_page_checksum=True) as file:
        for start in range(0, len(index), ROWS_AT_ONCE):
            file.write_table(index.slice(start, ROWS_AT_ONCE).cast(schema))


def _texts_once(file: Path) -> pa.Table:
    """A parquet file in memory, each different text held once: an index repeats few of them millions of times."""
    texts = [field.name for field in pq.read_schema(file) if pa.types.is_large_string(field.type) or pa.types.is_string(field.type)]
    return pq.ParquetFile(file, read_dictionary=texts).read()


def _part(path: Path, number: int) -> Path:
    return path / PARTS / f"{number:05d}.parquet"


def _base(before: Store | None) -> int:
    return 0 if before is None else len(before.shards)


def _joined(schemas: Iterable[pa.Schema]) -> pa.Schema:
    return pa.unify_schemas([pa.schema([]), *schemas], promote_options="permissive")


def _different(path: Path, there: Mapping[str, Any], now: Mapping[str, Any], way: str) -> str:
    differing = sorted(key for key in there.keys() | now.keys() if there.get(key) != now.get(key))
    then, wanted = (short(asked.get(differing[0])) for asked in (there, now))
    return (
        f"{path} holds a different capture, so it can be neither resumed nor reused: {differing[0]} is {then} there and {wanted} now "
        f"({len(differing)} settings differ: {', '.join(differing)}). {way}."
    )
