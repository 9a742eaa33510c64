"""What a tiny tree of a benchmark's published shape is, and hands that write one: tables of text, JSON, Parquet with pictures, pictures.

`made_a.py` and `made_b.py` hold `MADE`, "benchmark@variant" -> Made, or "benchmark@variant#shape" where it is published in another shape
too; `test_published.py` runs every case over all of them.
Words are made up and harmless ("florp the wug").
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Made:
    """A tiny tree of the shape in which a variant is published.

    write     writes it below a folder (the root) and gives its main data file: text (.csv, .tsv, .json, .jsonl) with two rows or more
    prompts   how many prompts the whole tree makes
    picture   a picture below the root (or a folder of them) that exactly one prompt needs; None where no prompt has a picture
    needs     a column of the main file without which no prompt can be made; None where there is none such
    doubled   whether the main file's first row, once more at its end, is an id that occurs twice. False where an object's keys are the
              ids, or where ids are numbers of rows
    alone     whether the main file as root makes the same prompts as its tree (False: other files give rows too)
    hub       writes the hub form (Parquet, pictures as bytes in it) below a folder; it makes prompts with the same texts as the tree.
              None where there is no hub form or it is not known
    """

    write: Callable[[Path], Path]
    prompts: int
    picture: str | None = None
    needs: str | None = None
    doubled: bool = True
    alone: bool = True
    hub: Callable[[Path], object] | None = None


def put_csv(file: Path, rows: Rows) -> Path:
    """Rows as a table with a head; tabs between cells where the file is called .tsv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _put(file, text.getvalue().encode())


def put_json(file: Path, whole: Any) -> Path:
    """A list of objects, or an object of them."""
    return _put(file, json.dumps(whole, indent=1, ensure_ascii=False).encode())


def put_jsonl(file: Path, rows: Rows) -> Path:
    """An object a line."""
    return _put(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def put_parquet(file: Path, rows: Rows) -> Path:
    """Rows as the hub keeps them; pictures are `shot()`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(list(rows)).to_parquet(file)
    return file


def put_pictures(root: Path, *names: str) -> None:
    """Pictures of 4 × 4, each of its own colour, below the root."""
    for number, name in enumerate(names):
        _put(root / name, pixels(number, name))


def shot(number: int = 0, name: str = "a.png") -> dict[str, Any]:
    """A picture as a cell of a hub's Parquet file."""
    return {"bytes": pixels(number, name), "path": name}


def pixels(number: int, name: str = "a.png") -> bytes:
    """The bytes of a picture of one colour, of the kind that its name says."""
    stream = io.BytesIO()
    kind = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(Path(name).suffix.lower(), "PNG")
    Image.new("RGB", (4, 4), (40 * number % 256, 90, 200)).save(stream, kind)
    return stream.getvalue()


def _put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file
