"""The shipped trio: base, reasoning and safe, each a folder that plain transformers loads, and the steering setting chosen on dev."""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = Path(__file__).parent
