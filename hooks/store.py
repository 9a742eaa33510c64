"""An activation store: a folder of hidden states that a killed capture can finish.

    meta.json              what was captured: format_version, select, sites, width, model fingerprint, …
    shards/00000.safetensors   `vectors` float32 [rows, sites, d]
    index.parquet          one row per vector; written last, so a folder without it is unfinished
    parts/00000.json       sha256 of a finished shard, while the capture runs

Which vector goes to which shard is settled before the first forward, so a resumed capture ends with the same bytes. Nothing in the folder
carries a time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .files import atomic, check_safetensors, sha256_of, writable_folder, write_text

FORMAT = "thoughtlens-activations"
FORMAT_VERSION = 1
META, INDEX = "meta.json", "index.parquet"


@dataclass(frozen=True, eq=False)
class Store:
    """A finished activation store.

    path    its folder
    meta    what was captured, from meta.json
    index   one row per vector: prompt_id, model, condition, span, pool, start, stop, n_tokens, labels, shard, offset, shard_sha, …
    """

    path: Path
    meta: Mapping[str, Any]
    index: pd.DataFrame

    @property
    def sites(self) -> list[str]:
        return list(self.meta["sites"])

    @property
    def width(self) -> int:
        return int(self.meta["width"])

    def __len__(self) -> int:
        return len(self.index)

    def rows(
        self, where: Mapping[str, Any] | None = None, *, sites: Sequence[str] | None = None
    ) -> tuple[Float[Tensor, "rows sites d"], pd.DataFrame]:
        """The vectors whose index columns have the given values (one value, or several in a list), and their index rows.

        sites   only these, in this order; default all
        ValueError for an unknown column or site, and when nothing matches.
        """
        found = self.index[self._matching(where or {})]
        if found.empty:
            raise ValueError(f"{self.path}: no vector with {_said(where or {})}. There are {self._values(where or {})}.")
        at = [self._site(site) for site in (self.sites if sites is None else sites)]
        vectors = torch.empty(len(found), len(at), self.width)
        for shard, rows in found.reset_index(drop=True).groupby("shard"):
            with safe_open(shard_file(self.path, int(str(shard))), framework="pt") as file:
                whole = file.get_tensor("vectors")
            vectors[torch.tensor(rows.index.to_numpy())] = whole[torch.tensor(rows["offset"].to_numpy())][:, at]
        return vectors, found.reset_index(drop=True)

    def _matching(self, where: Mapping[str, Any]) -> pd.Series:
        keep = pd.Series(True, index=self.index.index)
        for column, value in where.items():
            if column not in self.index.columns:
                raise ValueError(f"{self.path}: the index has no column {column!r}; it has {', '.join(self.index.columns)}")
            values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
            keep &= self.index[column].isin(values).fillna(False).astype(bool)
        return keep

    def _site(self, site: str) -> int:
        if site not in self.sites:
            raise ValueError(f"{self.path} holds no site {site!r}; it holds {', '.join(self.sites)}. Capture it, or choose one of these.")
        return self.sites.index(site)

    def _values(self, where: Mapping[str, Any]) -> str:
        return (
            "; ".join(f"{column}: {', '.join(str(v) for v in self.index[column].drop_duplicates().head(12))}" for column in where)
            or "none at all"
        )


def open_store(path: str | Path, *, verify: bool = False) -> Store:
    """Open a finished store. `verify` compares the sha256 of every shard with the index; without it a file is only checked to be whole."""
    path = Path(path)
    meta = _meta(path)
    if not (path / INDEX).is_file():
        raise FileNotFoundError(f"{path} is an unfinished capture: it has no {INDEX}. Run the same capture() again to finish it.")
    index = pd.read_parquet(path / INDEX)
    for shard, sha in index[["shard", "shard_sha"]].drop_duplicates().itertuples(index=False):
        file = shard_file(path, shard)
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} lacks {file.relative_to(path)}, which its index names. Copy it, or delete the folder and capture again."
            )
        check_safetensors(file)
        if verify and sha256_of(file) != sha:
            raise ValueError(
                f"{file} is not what was written: its sha256 differs from the index. Copy it again, or delete the folder and capture again."
            )
    return Store(path, meta, index)


def begin(path: Path, meta: Mapping[str, Any]) -> None:
    """Start or resume a store. ValueError when the folder holds a capture of something else, or other files."""
    path = writable_folder(path)
    meta = {"format": FORMAT, "format_version": FORMAT_VERSION, **meta}
    if not (path / META).exists():
        if strangers := sorted(p.name for p in path.iterdir() if not p.name.endswith(".part")):
            raise ValueError(f"{path} holds other files, such as {strangers[0]!r}, and no capture. Choose an empty or new folder.")
        write_text(path / META, json.dumps(meta, ensure_ascii=False, indent=1))
        return
    there = _meta(path)
    if differing := [key for key in meta.keys() | there.keys() if there.get(key) != meta.get(key)]:
        key = sorted(differing)[0]
        raise ValueError(
            f"{path} holds a different capture, so it can be neither resumed nor reused: {key} is {_short(there.get(key))} there and "
            f"{_short(meta.get(key))} now ({len(differing)} settings differ: {', '.join(sorted(differing))}). "
            "Choose another folder, or delete this one."
        )


def finished(path: Path) -> bool:
    return (path / INDEX).is_file()


def shards_done(path: Path) -> dict[int, str]:
    """sha256 of each shard that is already whole in an unfinished store."""
    found = {}
    for part in sorted((path / "parts").glob("*.json")):
        number = int(part.stem)
        if shard_file(path, number).is_file():
            check_safetensors(shard_file(path, number))
            found[number] = str(json.loads(part.read_text(encoding="utf-8"))["sha256"])
    return found


def write_shard(path: Path, number: int, vectors: Float[Tensor, "rows sites d"]) -> str:
    """Write one shard and note its sha256, which is returned."""
    file = shard_file(path, number)
    with atomic(file) as part:
        save_file({"vectors": vectors.contiguous()}, part)
        sha = sha256_of(part)
    write_text(path / "parts" / f"{number:05d}.json", json.dumps({"sha256": sha}))
    return sha


def finish(path: Path, index: pd.DataFrame, shas: Mapping[int, str]) -> Store:
    """Write the index, which makes the store whole, and clear what only an unfinished one needs."""
    index = index.assign(shard_sha=index["shard"].map(dict(shas)))
    with atomic(path / INDEX) as part:
        index.to_parquet(part, engine="pyarrow", index=False)
    shutil.rmtree(path / "parts", ignore_errors=True)
    for left in _leftovers(path):
        left.unlink(missing_ok=True)
    return open_store(path)


def shard_file(path: Path, number: int) -> Path:
    return path / "shards" / f"{number:05d}.safetensors"


def _leftovers(path: Path) -> Iterator[Path]:
    yield from path.glob(".*.part")
    yield from (path / "shards").glob(".*.part")


def _meta(path: Path) -> dict[str, Any]:
    if not (path / META).is_file():
        raise FileNotFoundError(f"{path} is no activation store: it has no {META}. Give the folder passed to capture(into=…).")
    meta: dict[str, Any] = json.loads((path / META).read_text(encoding="utf-8"))
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path / META} does not describe an activation store. Give the folder passed to capture(into=…).")
    if meta["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {meta['format_version']}, this toolkit reads up to {FORMAT_VERSION}. Update thoughtlens."
        )
    return meta


def _said(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{column}={value!r}" for column, value in where.items()) or "any value"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
