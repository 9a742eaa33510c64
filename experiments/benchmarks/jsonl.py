"""A user's own prompts: a JSON object a line, of which `id` and `text` are needed (hooks/records.py)."""

from __future__ import annotations

from pathlib import Path

from ...hooks.records import Prompt, read_prompts
from .benchmark import Root
from .choosing import choose


def load(root: Root | None, *, split: str | None = None, limit: int | None = None, seed: int | None = None) -> list[Prompt]:
    """The prompts of a file. ValueError without one, and for lines that are no prompts."""
    if not isinstance(root, str | Path):
        raise ValueError("own prompts lie in a file: give root=, a file with a JSON object a line that has id and text")
    return choose([prompt for prompt in read_prompts(root) if split in (None, prompt.split)], limit, seed)
