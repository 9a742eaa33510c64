"""Rows out of published files: CSV, JSON, JSON lines (also where they are called .json), Parquet, and Arrow as `datasets` saves it.

Text is UTF-8, with or without a byte order mark, with any line ends. What is text in the file stays text: "007" and "None" are no numbers.
Rows of Parquet and Arrow come a few at a time, so that of a large file with pictures only the rows that are wanted stay in memory.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

Row = Mapping[str, Any]
LARGEST = 2**31 - 1  # bytes of one file of text that are read at once
BATCH = 64  # rows of Parquet at a time


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


def homes(root: Path) -> list[Path]:
    """Where what belongs to a root lies: below it; of a root that is a file, beside it and in the two folders above.

    Published trees have questions in one folder and pictures in another: data/question/, data/images/.
    """
    return [root] if not root.is_file() else [root.parent, *root.absolute().parent.parents[:2]]


def files_near(root: Path, pattern: str) -> list[tuple[Path, Path]]:
    """The files that a pattern matches below a root; of a root that is a file, in its homes. Each with the home it was found in."""
    if not root.is_file():
        return [(file, root) for file in files_of(root, pattern)]
    return next((found for home in homes(root) if (found := [(file, home) for file in sorted(home.glob(pattern))])), [])


def read_rows(file: Path, root: Path) -> Iterator[Row]:
    """All rows of a file, as numbered() tells. Unreadable names the file and what is wrong with it."""
    name = file.name if root.is_file() else file.relative_to(root).as_posix()
    try:
        yield from numbered(_READERS.get(file.suffix.lower(), _json)(file), name, file.absolute().parent.name)
    except (ValueError, OSError, csv.Error, pyarrow.ArrowException) as problem:
        raise Unreadable(f"{file} cannot be read: {problem}. Copy or download it again.") from problem


def numbered(rows: Iterable[Row], name: str, folder: str = "") -> Iterator[Row]:
    """Rows with where they stand: `_file`, `_stem`, `_folder`, `_number` from 1, and an empty `_key` unless they have one."""
    where = {"_file": name, "_stem": Path(name).stem, "_folder": folder, "_key": ""}
    for number, row in enumerate(rows, 1):
        yield {**where, **row, "_number": number}


def _text(file: Path) -> str:
    if (size := file.stat().st_size) > LARGEST:
        raise ValueError(f"it has {size:,} bytes, more than the {LARGEST:,} that are read at once; split it")
    return file.read_bytes().decode("utf-8-sig")


def _csv(file: Path) -> Iterator[Row]:
    csv.field_size_limit(LARGEST)  # jailbreaks are long; Python allows cells of 131,072 letters
    table = csv.reader(io.StringIO(_text(file), newline=""), delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
    names = [name or f"column {place}" for place, name in enumerate(next(table, []), 1)]
    for cells in filter(None, table):
        if len(names) == 1:  # nothing is separated: a comma belongs to the text
            cells = [",".join(cells)]
        if len(cells) != len(names):
            raise ValueError(f"the row that ends in line {table.line_num} has {len(cells)} cells, the head {len(names)}")
        yield dict(zip(names, cells, strict=True))


def _json(file: Path) -> Iterator[Row]:
    text = _text(file)
    try:
        yield from _records(json.loads(text))
    except json.JSONDecodeError as problem:
        if "\n{" not in text:
            raise
        yield from _lines(text, problem)


def _jsonl(file: Path) -> Iterator[Row]:
    yield from _lines(_text(file), None)


def _lines(text: str, problem: json.JSONDecodeError | None) -> Iterator[Row]:
    """JSON lines; `problem` is what is wrong with the text as one JSON value, told where not even its first line is one."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield _object(json.loads(line))
            except json.JSONDecodeError as of_line:
                raise problem if problem and number == 1 else ValueError(f"line {number}: {of_line}") from None


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


def _parquet(file: Path) -> Iterator[Row]:
    with pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(BATCH):
            yield from batch.to_pylist()


def _arrow(file: Path) -> Iterator[Row]:
    with pyarrow.memory_map(str(file)) as source:
        for batch in pyarrow.ipc.open_stream(source):
            yield from batch.to_pylist()


_READERS = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet, ".arrow": _arrow}
