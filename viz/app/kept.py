"""What was made lately, so that a click makes only what is new: the last values by what they were made from."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
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


class Asked(Generic[Value]):
    """What was asked for last, and when. Threads may share it."""

    def __init__(self) -> None:
        self._when, self._what, self._more = 0.0, list[Value](), threading.Condition()

    def now(self, what: Value) -> None:
        with self._more:
            self._when, self._what = time.monotonic(), [what]
            self._more.notify_all()

    def noticed(self) -> None:
        """Something else was asked for."""
        self._when = time.monotonic()

    def quiet(self, seconds: float) -> None:
        """Waits until nothing was asked for so many seconds."""
        while (left := self._when + seconds - time.monotonic()) > 0:
            time.sleep(left)

    def take(self) -> Value:
        """What was asked for last, once; waits for it."""
        with self._more:
            while not self._what:
                self._more.wait(1.0)  # so that Ctrl-C is heard everywhere
            return self._what.pop()

    @property
    def more(self) -> bool:
        """Whether something was asked for since the last was taken."""
        return bool(self._what)


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
    return tuple((_stat(run / "tables" / f"{name}.parquet") or (0, 0))[0] for name in tables)


def folder_stamp(run: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes when a file of the run or one of its tables does."""
    paths = [path for folder in (run, run / "tables") if folder.is_dir() for path in sorted(folder.iterdir())]
    return tuple((str(path), *found) for path in paths if (found := _stat(path)))


def _stat(path: Path) -> tuple[int, int] | None:
    """Time and size of a file; None where there is none, or none any more: tables are replaced while they are looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if S_ISREG(found.st_mode) else None
