"""Judges by name, one a file: `judge(transcripts) -> verdicts`, same length, same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...hooks.records import Transcript
from ..verdicts import Verdict
from . import rule

JUDGES: dict[str, Callable[[Sequence[Transcript]], list[Verdict]]] = {"rule": rule.judge}
