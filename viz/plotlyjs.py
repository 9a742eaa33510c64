"""plotly.js for pages: the published bundle of plots with axes, a third of the whole (vendor/README.md)."""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).parent / "vendor" / "plotly-cartesian.min.js"


def plotlyjs() -> str:
    return PATH.read_text(encoding="utf-8")
