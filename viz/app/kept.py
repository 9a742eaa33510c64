"""What was made lately, so that a click makes only what is new: the last values by what they were made from."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """At most `most` values; the one that was longest not asked for goes first. Threads may share it."""

    def __init__(self, most: int) -> None:
        self._most, self._values, self._lock = most, OrderedDict[Hashable, Value](), threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: Value) -> Value:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


@dataclass
class Budget:
    """How long one answer may go on making what is new. The first is always made, so that every answer gets further."""

    seconds: float
    since: float = 0.0
    used: bool = False

    def __post_init__(self) -> None:
        self.since = time.monotonic()

    def allows(self) -> bool:
        allowed = not self.used or time.monotonic() - self.since < self.seconds
        self.used = True
        return allowed


def stamps(run: Path, *tables: str) -> tuple[int, ...]:
    """Changes when one of the tables does; 0 for one that is not there."""
    paths = [run / "tables" / f"{name}.parquet" for name in tables]
    return tuple(path.stat().st_mtime_ns if path.is_file() else 0 for path in paths)
