"""Pictures of published rows: a path below the root, several of which one is there, bytes, or what `datasets` makes of a picture."""

from __future__ import annotations

import io
import os.path
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from ...hooks.records import Picture
from .reading import Row, homes

BESIDE = ("", "images", "imgs", "image")
POINTER = b"version https://git-lfs"


class Missing(ValueError):
    """A picture that is not there: where it should be."""


def pictures(cell: Any, root: Any, row: Row) -> tuple[Picture, ...]:
    """The picture of a row, or all pictures that a path with a star names ("image_3_split_*.png"), in order of their numbers.

    Paths are looked for below the root, beside the row's file, and in a folder of pictures there.
    The files found are told by their full paths. Missing says what was looked for first; ValueError for bytes that are no picture.
    """
    if isinstance(cell, Image.Image):
        return (cell,)
    if isinstance(cell, Mapping):  # `datasets`: {"bytes": …, "path": …}
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        try:
            return (Image.open(io.BytesIO(cell)),)
        except OSError as problem:
            raise ValueError(f"its picture is damaged: {problem}") from problem
    names = [cell] if isinstance(cell, str) else list(cell or ())
    for name in filter(None, names):
        for found in _candidates(name, root, row):
            return _fetched(found, name)
    raise Missing(names[0] if names and names[0] else f"row {row['_number']} names none")


def _candidates(name: str, root: Any, row: Row) -> Iterator[tuple[Path, ...]]:
    if not isinstance(root, str | Path):
        return
    for home in _homes(os.path.abspath(os.path.expanduser(root)), row["_file"]):
        for folder in BESIDE:
            file = os.path.normpath(os.path.join(home, folder, name))
            if not file.startswith(home):
                continue  # a row may not name a file outside the benchmark's own folder; a link that the user has put there may lead out
            if "*" in name and (found := sorted(Path(file).parent.glob(os.path.basename(file)), key=_by_number)):
                yield tuple(found)
            elif os.path.isfile(file):
                yield (Path(file),)


@lru_cache(maxsize=64)
def _homes(root: str, file: str) -> tuple[str, ...]:
    """The root, and the folders on the way from it to the row's file; each with a slash at its end."""
    top = Path(root)
    folders = homes(top)
    if not top.is_file():
        below = (top / file).parent
        folders += [folder for folder in [below, *below.parents] if folder != top and folder.is_relative_to(top)]
    return tuple(os.path.join(folder, "") for folder in folders)


def _by_number(file: Path) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name))


def _fetched(files: tuple[Path, ...], name: str) -> tuple[Path, ...]:
    """Those files; Missing where one is empty, or what git puts in place of a large file that was not fetched."""
    for file in files:
        if file.stat().st_size < 200 and ((content := file.read_bytes()).startswith(POINTER) or not content):
            raise Missing(f"{name} ({'a pointer of Git LFS: fetch the file itself' if content else 'an empty file'})")
    return files
