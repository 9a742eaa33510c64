"""Pictures of published rows: a path below the root, several of which one is there, bytes, or what `datasets` makes of a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ...hooks.records import Picture
from .reading import Row

BESIDE = ("", "images", "imgs", "image")


class Missing(ValueError):
    """A picture that is not there: where it should be."""


def picture(cell: Any, root: Any, row: Row) -> Picture:
    """One picture of a row. Paths are looked for below the root, beside the row's file, and in a folder of pictures there.

    Missing says where it was looked for first; ValueError for bytes that are no picture.
    """
    if isinstance(cell, Image.Image):
        return cell
    if isinstance(cell, Mapping):  # `datasets`: {"bytes": …, "path": …}
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        try:
            return Image.open(io.BytesIO(cell))
        except OSError as problem:
            raise ValueError(f"the picture of row {row['_number']} is damaged: {problem}") from problem
    names = [cell] if isinstance(cell, str) else list(cell or ())
    homes = _homes(root, row)
    for name in names:
        for home in homes:
            for folder in BESIDE:
                if name and _inside(file := home / folder / name, home) and file.is_file():
                    return file
    raise Missing(names[0] if names and names[0] else f"row {row['_number']} names none")


def _homes(root: Any, row: Row) -> list[Path]:
    """The root, and the folders on the way from it to the row's file."""
    if not isinstance(root, str | Path):
        return []
    root = Path(root).expanduser()
    if root.is_file():
        return [root.parent]
    below = (root / row["_file"]).parent
    return [root, *(folder for folder in [below, *below.parents] if folder != root and folder.is_relative_to(root))]


def _inside(file: Path, home: Path) -> bool:
    """A row may not name a file outside the benchmark's own folder."""
    return file.resolve().is_relative_to(home.resolve())
