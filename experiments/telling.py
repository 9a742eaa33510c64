"""What every study ends with: its prompts and answers as tables, and the report on all of its tables."""

from __future__ import annotations

from pathlib import Path

from ..viz.report import report
from .indexing import index


def tell(run: Path) -> Path:
    """Write `prompts` and `answers`, where the run has prompts of its own, and report.html; returns the report's path."""
    if (run / "prompts.jsonl").is_file():
        index(run)
    return report(run)
