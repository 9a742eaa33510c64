"""Replies of an endpoint on disk, so that no request is paid twice: one JSON object a line, only ever appended.

    {"key": sha256 of everything that was sent, "text", "reasoning", "finished", "tokens_in", "tokens_out"}

A line is with the operating system as soon as it is written, so a killed process loses none. What a kill or a full disk left of a line is
passed over with a warning, and its request is sent again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...hooks.files import writable_folder
from .endpoint import Reply

log = logging.getLogger(__name__)


def key_of(body: Mapping[str, Any]) -> str:
    """sha256 of what is sent, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_replies(file: Path | None) -> dict[str, Reply]:
    """The replies kept so far, by key; none where there is no file."""
    found: dict[str, Reply] = {}
    if file is None or not file.exists():
        return found
    torn = 0
    for line in file.read_bytes().split(b"\n"):
        if line:
            try:
                row = json.loads(line)
                key = row.pop("key")
                found[key] = Reply(**row)
            except (ValueError, TypeError, KeyError, AttributeError):
                torn += 1
    if torn:
        log.warning("%s has %d lines that cannot be read; their requests are sent again.", file, torn)
    return found


@contextmanager
def keeping(file: Path | None) -> Iterator[Callable[[str, Reply], None]]:
    """Yield a function (key, reply) that keeps a reply; without a file it does nothing."""
    if file is None:
        yield lambda key, reply: None
        return
    writable_folder(file.parent)
    torn = file.exists() and file.read_bytes()[-1:] not in (b"", b"\n")
    with file.open("ab") as lines:
        if torn:
            lines.write(b"\n")

        def keep(key: str, reply: Reply) -> None:
            lines.write((json.dumps({"key": key, **asdict(reply)}) + "\n").encode())
            lines.flush()

        yield keep
