"""A folder that is either whole or absent: written under a temporary name beside its place, flushed, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import FULL, DiskFull, flush, in_words, sha256_of, writable_folder


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder to write into; on success it is renamed to `path`, on failure or Ctrl-C it is removed.

    FileExistsError where `path` is there already: an export is never changed in place.
    """
    path = Path(path)
    check_free(path)
    writable_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        for file in sorted(part.rglob("*")):
            flush(file)
        flush(part)
        check_free(path)
        os.rename(part, path)
    except OSError as error:
        if error.errno not in FULL or isinstance(error, DiskFull):
            raise
        free = in_words(shutil.disk_usage(path.parent).free)
        raise DiskFull(
            f"{FULL[error.errno]}: {free} are free in {path.parent}. Make room there and export again; nothing was left."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    flush(path.parent)


def check_free(path: Path) -> None:
    """FileExistsError where `path` is there already."""
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} is there already, and an export is never changed in place. Choose another name, or delete it first.")


def sha256s(folder: Path) -> dict[str, str]:
    """sha256 of every file in a folder, by its path from there."""
    return {str(file.relative_to(folder)): sha256_of(file) for file in sorted(folder.rglob("*")) if file.is_file()}
