"""Rows out of published files: CSV, JSON, JSON lines (also where they are called .json), Parquet, and Arrow as `datasets` saves it.

Text is UTF-8, with or without a byte order mark, with any line ends. What is text in the file stays text: "007" and "None" are no numbers.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

Row = Mapping[str, Any]
LARGEST = 2**31  # bytes of one file that are read at once


class Unreadable(ValueError):
    """A file that is not what its name says."""


def files_of(root: Path, pattern: str) -> list[Path]:
    """The files that a pattern matches, in order of their names: directly below the root, else at any depth.

    A root that is a file itself is matched by its name.
    """
    if root.is_file():
        return [root] if fnmatch.fnmatch(root.name, pattern.rsplit("/", 1)[-1]) else []
    for where in (pattern, f"**/{pattern}"):
        if files := sorted(file for file in root.glob(where) if file.is_file()):
            return files
    return []


def read_rows(file: Path, root: Path) -> list[Row]:
    """All rows of a file, as numbered() tells. Unreadable names the file and what is wrong with it."""
    name = file.name if root.is_file() else file.relative_to(root).as_posix()
    if (size := file.stat().st_size) > LARGEST:
        raise Unreadable(f"{file} has {size:,} bytes, more than the {LARGEST:,} that are read at once. Split it.")
    try:
        return numbered(_READERS.get(file.suffix.lower(), _json)(file), name)
    except (ValueError, OSError, pyarrow.ArrowException) as problem:
        raise Unreadable(f"{file} cannot be read: {problem}. Copy or download it again.") from problem


def numbered(rows: Iterable[Row], name: str) -> list[Row]:
    """Rows with where they stand: `_file`, `_stem`, `_folder`, `_number` from 1, and an empty `_key` unless they have one."""
    place = Path(name)
    where = {"_file": name, "_stem": place.stem, "_folder": place.parent.name, "_key": ""}
    return [{**where, **row, "_number": number} for number, row in enumerate(rows, 1)]


def _csv(file: Path) -> list[Row]:
    separator = "\t" if file.suffix == ".tsv" else ","
    table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=False)
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _json(file: Path) -> list[Row]:
    text = file.read_text(encoding="utf-8-sig")
    try:
        return list(_records(json.loads(text)))
    except json.JSONDecodeError as problem:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise
        try:
            return list(_records([json.loads(line) for _, line in lines]))
        except json.JSONDecodeError:
            raise problem from None


def _records(whole: Any) -> Iterator[Row]:
    """A list of objects; an object of objects or of lists, whose names become `_key`."""
    if isinstance(whole, Mapping):
        for key, part in whole.items():
            for row in part if isinstance(part, list) else [part]:
                yield {"_key": str(key), **_object(row)}
    elif isinstance(whole, list):
        yield from map(_object, whole)
    else:
        raise ValueError(f"it holds a {type(whole).__name__}, not a list of objects")


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"a record in it is a {type(row).__name__}, not an object")
    return row


def _parquet(file: Path) -> list[Row]:
    return pyarrow.parquet.read_table(file).to_pylist()


def _arrow(file: Path) -> list[Row]:
    with pyarrow.memory_map(str(file)) as source:
        return pyarrow.ipc.open_stream(source).read_all().to_pylist()


_READERS = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".arrow": _arrow}
