"""Files that are either whole or absent.

Every file this toolkit writes is written under a temporary name in the same folder, flushed to disk, and then renamed.
A killed process leaves at most a file whose name ends in `.part`, which nobody reads.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it is flushed and renamed to `path`, on failure removed."""
    path = Path(path)
    writable_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        _flush(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _flush(path.parent)


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_safetensors(file: Path) -> None:
    """Raise ValueError unless the file is whole: 8 bytes of header length, a JSON header, then exactly the bytes the header names."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 + length:
            raise ValueError(f"{file} is cut short: {size} bytes, its header alone needs {8 + length}. Copy or download it again.")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise ValueError(f"{file} is not a safetensors file: its header is not JSON. Copy or download it again.") from error
    wanted = 8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    if size != wanted:
        raise ValueError(
            f"{file} is {'cut short' if size < wanted else 'too long'}: {size} bytes where its header names {wanted}. "
            "Copy or download it again."
        )


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
