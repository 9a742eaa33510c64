"""An activation store: a folder of hidden states with one table that says what each vector is.

    meta.json                  what was captured: format_version, select, sites, width, model fingerprint, …
    shards/00000.safetensors   `vectors` float32 [rows, sites, d]
    index.parquet              one row per vector; written last, so a folder without it is unfinished

This file reads; shards.py writes. Opening reads no vector and no index row: the index's own header names every shard with its sha256 and
number of rows. Vectors are read through a memory map, only the rows and sites that are asked for.

Shapes: `rows` vectors, `sites` as in meta.json, `d` the width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from .files import LOCK, check_safetensors, sha256_of

FORMAT = "thoughtlens-activations"
FORMAT_VERSION = 1
META, INDEX, PARTS = "meta.json", "index.parquet", "parts"
FACTS = b"thoughtlens"  # key of the index's own header: {"shards": [[sha256, rows], …], "jobs": [{…}, …]}
SAME_VALUE = ((pa.types.is_boolean, bool), (pa.types.is_integer, int), (pa.types.is_floating, float), (pa.types.is_string, str))


@dataclass(frozen=True)
class Shard:
    """One file of vectors: its number, its sha256, how many rows it has."""

    number: int
    sha: str
    rows: int


@dataclass(frozen=True, eq=False)
class Store:
    """A finished activation store.

    path    its folder
    meta    what was captured, from meta.json
    shards  its files of vectors
    jobs    the pieces of work it was put together from, in order; more than one after writing(…, append=True)
    """

    path: Path
    meta: Mapping[str, Any]
    shards: tuple[Shard, ...]
    jobs: tuple[Mapping[str, Any], ...]

    @property
    def sites(self) -> list[str]:
        return list(self.meta["sites"])

    @property
    def width(self) -> int:
        return int(self.meta["width"])

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per vector: prompt_id, model, condition, span, pool, start, stop, n_tokens, labels, shard, offset, shard_sha, …"""
        return _frame(self._table)

    def rows(
        self, where: Mapping[str, Any] | None = None, *, sites: Sequence[str] | None = None
    ) -> tuple[Float[Tensor, "rows sites d"], pd.DataFrame]:
        """The vectors whose index columns have the given values (one value, or several in a list), and their index rows.

        sites   only these, in this order; default all
        ValueError for an unknown column or site, and when nothing matches.
        """
        vectors, index = self.numpy(where, sites=sites)
        return torch.from_numpy(vectors), index

    def numpy(
        self, where: Mapping[str, Any] | None = None, *, sites: Sequence[str] | None = None
    ) -> tuple[Float[np.ndarray, "rows sites d"], pd.DataFrame]:
        """As rows(), the vectors as a float32 array."""
        found = self.arrow(where)
        if not found.num_rows:
            raise ValueError(f"{self.path}: no vector with {_said(where or {})}. There are {self._values(where or {})}.")
        at = [self._site(site) for site in (self.sites if sites is None else sites)]
        shards, offsets = found["shard"].to_numpy(), found["offset"].to_numpy()
        vectors = np.empty((found.num_rows, len(at), self.width), dtype=np.float32)
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            vectors[here] = _mapped(shard_file(self.path, shard))[np.ix_(offsets[here], at)]
        return vectors, _frame(found)

    def arrow(self, where: Mapping[str, Any] | None = None) -> pa.Table:
        """The index rows with the given values, as an Arrow table whose text columns are dictionary-encoded. It may be empty."""
        found = self._table
        for column, value in (where or {}).items():
            if column not in found.column_names:
                raise ValueError(f"{self.path}: the index has no column {column!r}; it has {', '.join(found.column_names)}")
            values = value if isinstance(value, list | tuple | set | frozenset) else [value]
            found = found.filter(_among(found[column], values))
        return found

    @cached_property
    def _table(self) -> pa.Table:
        return read_index(self.path)

    def _site(self, site: str) -> int:
        if site not in self.sites:
            raise ValueError(f"{self.path} holds no site {site!r}; it holds {', '.join(self.sites)}. Capture it, or choose one of these.")
        return self.sites.index(site)

    def _values(self, where: Mapping[str, Any]) -> str:
        values = {column: self._table[column].unique()[:12].to_pylist() for column in where}
        return "; ".join(f"{column}: {', '.join(map(str, there))}" for column, there in values.items()) or "none at all"


def open_store(path: str | Path, *, verify: bool = False) -> Store:
    """Open a finished store. `verify` compares the sha256 of every shard with the index; without it a file is only checked to be whole."""
    path = Path(path)
    meta = read_meta(path)
    if not (path / INDEX).is_file():
        raise FileNotFoundError(f"{path} is an unfinished capture: it has no {INDEX}. Run the same capture() again to finish it.")
    shards, jobs = _facts(path, meta)
    store = Store(path, meta, shards, jobs)
    for shard in shards:
        _check_shard(store, shard, verify)
    return store


def verify_store(path: str | Path) -> list[str]:
    """Every problem of a store in words; none means that it is what was written. Reads every byte.

    Unfinished; a shard that is missing, cut short, changed or of another store; a foreign file; an index that is damaged or does not fit.
    """
    path = Path(path)
    try:
        meta = read_meta(path)
        if not (path / INDEX).is_file():
            return [f"{path} is an unfinished capture: it has no {INDEX}. Run the same capture() again to finish it."]
        store = Store(path, meta, *_facts(path, meta))
        with _readable(path / INDEX):
            problems = list(_misfits(store))
    except (OSError, ValueError) as error:
        return [str(error)]
    for shard in store.shards:
        try:
            _check_shard(store, shard, verify=True)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return problems + list(_foreign(store))


def shard_file(path: Path, number: int) -> Path:
    return path / "shards" / f"{number:05d}.safetensors"


def read_meta(path: Path) -> dict[str, Any]:
    """What was captured. An error when the folder is no activation store, or one of a newer format."""
    if not (path / META).is_file():
        raise FileNotFoundError(f"{path} is no activation store: it has no {META}. Give the folder passed to capture(into=…).")
    with _readable(path / META):
        meta: dict[str, Any] = json.loads((path / META).read_text(encoding="utf-8"))
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path / META} does not describe an activation store. Give the folder passed to capture(into=…).")
    if meta["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {meta['format_version']}, this toolkit reads up to {FORMAT_VERSION}. Update thoughtlens."
        )
    return meta


def read_index(path: Path) -> pa.Table:
    """The whole index, its text columns dictionary-encoded. ValueError when the file is damaged."""
    file = path / INDEX
    with _readable(file):
        texts = [field.name for field in pq.read_schema(file) if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
        with pq.ParquetFile(file, memory_map=True, read_dictionary=texts, page_checksum_verification=True) as parquet:
            return parquet.read()


def _facts(path: Path, meta: Mapping[str, Any]) -> tuple[tuple[Shard, ...], tuple[Mapping[str, Any], ...]]:
    """The shards and the pieces of work that the index names in its header; an index of version 0.1 has them in its rows only."""
    with _readable(path / INDEX):
        header = pq.read_schema(path / INDEX).metadata or {}
        if FACTS in header:
            facts = json.loads(header[FACTS])
            return tuple(Shard(number, sha, rows) for number, (sha, rows) in enumerate(facts["shards"])), tuple(facts["jobs"])
    counted = read_index(path).group_by(["shard", "shard_sha"]).aggregate([([], "count_all")]).sort_by("shard").to_pylist()
    return tuple(Shard(one["shard"], one["shard_sha"], one["count_all"]) for one in counted), (meta.get("job", {}),)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
        raise ValueError(f"{file} is damaged: {error}. Copy it again, or delete the folder and capture again.") from error


def _check_shard(store: Store, shard: Shard, verify: bool) -> None:
    """Raise unless the shard is there, whole, and of the shape that index and meta.json tell."""
    file = shard_file(store.path, shard.number)
    if not file.is_file():
        raise FileNotFoundError(
            f"{store.path} lacks {file.relative_to(store.path)}, which its index names. Copy it, or delete the folder and capture again."
        )
    header, _ = check_safetensors(file)
    wanted = {"dtype": "F32", "shape": [shard.rows, len(store.sites), store.width]}
    if (there := {key: header.get("vectors", {}).get(key) for key in wanted}) != wanted:
        raise ValueError(
            f"{file} does not belong to this store: it holds {there}, the index names {wanted}. "
            "Copy it again, or delete the folder and capture again."
        )
    if verify and sha256_of(file) != shard.sha:
        raise ValueError(
            f"{file} is not what was written: its sha256 differs from the index. Copy it again, or delete the folder and capture again."
        )


def _misfits(store: Store) -> Iterator[str]:
    """Where the rows of the index disagree with the shards its header names."""
    file, told = store.path / INDEX, {shard.number: shard for shard in store.shards}
    rows: dict[Any, pd.DataFrame] = dict(list(store.index.groupby("shard")))
    if strange := sorted(rows.keys() ^ told.keys()):
        yield f"{file} names shard {strange[0]} in its rows or in its header, and not in both"
    for number in sorted(rows.keys() & told.keys()):
        shard, offsets = told[number], sorted(rows[number]["offset"])
        if offsets != list(range(shard.rows)):
            yield f"{file} has {len(offsets)} rows for the {shard.rows} vectors of shard {number}, or not one for each"
        if others := set(rows[number]["shard_sha"]) - {shard.sha}:
            yield f"{file} tells two sha256 for shard {number}: {shard.sha[:12]}… and {min(others)[:12]}…"


def _foreign(store: Store) -> Iterator[str]:
    ours = {store.path / META, store.path / INDEX, store.path / LOCK, *(shard_file(store.path, shard.number) for shard in store.shards)}
    underway = {store.path / PARTS, store.path / "shards"} if (store.path / PARTS).exists() else set()
    if underway:
        yield f"{store.path} holds unfinished work in {PARTS}/. Run the capture that was stopped again, or delete {PARTS}/ to give it up."
    for file in sorted(store.path.rglob("*")):
        if not file.is_dir() and file not in ours and file.parent not in underway:
            yield f"{store.path} holds {file.relative_to(store.path)}, which its index does not name. Delete it, or move it elsewhere."


def _mapped(file: Path) -> Float[np.ndarray, "rows sites d"]:
    header, start = check_safetensors(file)
    return np.memmap(file, dtype="<f4", mode="r", offset=start, shape=tuple(header["vectors"]["shape"]))


def _among(column: pa.ChunkedArray, values: Iterable[Any]) -> pa.ChunkedArray:
    """Which entries equal one of `values`. A value that this column cannot hold, such as a text among numbers, equals none."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    wanted = [same for value in values for same in _as(kind, value)]
    return pc.is_in(column, value_set=pa.array(wanted, kind))


def _as(kind: pa.DataType, value: Any) -> list[Any]:
    """`value` as the column's own type, if it can be: 1 is true, 2.0 is 2, "2" is not."""
    if value is None or value is pd.NA or value != value:
        return [None]
    for holds, make in SAME_VALUE:
        if holds(kind):
            try:
                return [made] if (made := make(value)) == value else []
            except (TypeError, ValueError, OverflowError):
                return []
    return [] if pa.types.is_null(kind) else [value]


def _frame(table: pa.Table) -> pd.DataFrame:
    """The table in pandas, texts as plain text."""
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(at, field.name, table.column(at).cast(field.type.value_type))
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _said(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{column}={value!r}" for column, value in where.items()) or "any value"
