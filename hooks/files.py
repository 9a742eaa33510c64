"""Files that are either whole or absent, in a folder that one process writes at a time.

Every file this toolkit writes is written under a temporary name in the same folder, flushed to disk, and then renamed.
A killed process leaves at most a file whose name ends in `.part`, which nobody reads, and a `.lock` that holds nobody up.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCK = ".lock"
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow that large here (ulimit -f)",
}


class DiskFull(OSError):
    """There was no room for a file. Nothing of it is left; what was written before is whole."""


def writable_folder(folder: str | Path) -> Path:
    """Make `folder` if need be and return it; an error names what stands in the way."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"cannot write into {folder}: a file with that name is there. Choose another folder.") from None
    except OSError as error:
        raise PermissionError(f"cannot make the folder {folder}: {error.strerror}. Choose a folder you may write to.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into {folder}: no write permission. Choose another folder, or change its permissions.")
    return folder


@contextmanager
def atomic(path: str | Path, *, size: int = 0) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it is flushed and renamed to `path`, on failure removed.

    size    how many bytes it will have, if known: the error says so when they do not fit (DiskFull)
    """
    path = Path(path)
    writable_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        flush(part)
        os.replace(part, path)
    except OSError as error:
        if error.errno not in FULL or isinstance(error, DiskFull):
            raise
        needed = in_words(size) if size else f"more than {in_words(part.stat().st_size if part.exists() else 0)}"
        part.unlink(missing_ok=True)
        free = in_words(shutil.disk_usage(path.parent).free)
        raise DiskFull(
            f"{FULL[error.errno]}: {path.name} needs {needed}, {free} are free in {path.parent}. "
            "Make room there and run the same call again: everything written before is whole."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    flush(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` as its only writer. The operating system lets go when the process ends, however it ends.

    BlockingIOError when somebody else holds it. The lock's file is removed at the end, so one may get the lock of a file that is gone: look
    again then.
    """
    file = folder / LOCK
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(descriptor, file):
                break
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(
                f"somebody else is writing into {folder}: another process, or another `with` block of this one. "
                "Wait until it is done, or choose another folder."
            ) from None
        os.close(descriptor)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may hold a copy of the descriptor
        os.close(descriptor)


def short(value: Any, limit: int = 60) -> str:
    """A value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "…"


def write_text(path: str | Path, text: str) -> None:
    with atomic(path, size=len(text.encode())) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_safetensors(file: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its payload starts.

    ValueError unless the file is whole: 8 bytes of header length, a JSON header, then exactly the bytes the header names.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 + length:
            raise ValueError(f"{file} is cut short: {size} bytes, its header alone needs {8 + length}. Copy or download it again.")
        try:
            header = json.loads(stream.read(length))
            entries = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not a safetensors file: its header is not the JSON of one. Copy or download it again.") from error
    wanted = 8 + length + max(entries, default=0)
    if size != wanted:
        raise ValueError(
            f"{file} is {'cut short' if size < wanted else 'too long'}: {size} bytes where its header names {wanted}. "
            "Copy or download it again."
        )
    return header, 8 + length


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def in_words(size: int) -> str:
    """A number of bytes as a sentence shows it, in steps of 1024."""
    for unit, step in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"
