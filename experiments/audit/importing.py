"""Answers that were written elsewhere: JSON lines with a prompt's id and the raw text, split and kept as if written here.

    {"prompt_id": "figstep/full/1-1", "text": "<think> … </think> …"}

`prompt_id` may be called id, `text` also output, response or completion; `ended` (or `finish_reason`, where "length" means cut off) says
whether the model came to its end, and `reasoning` (or reasoning_content) holds the thought where a server has split it off. The text is
split by the dialect that is named, exactly as tokens would be (hooks/plaintext.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...hooks.dialects import DIALECTS
from ...hooks.records import Prompt, Transcript
from .asking import transcript_of, warn_unopened
from .endpoint import Reply

TOLD = 10
IDS, TEXTS, THOUGHTS = ("prompt_id", "id"), ("text", "output", "response", "completion"), ("reasoning", "reasoning_content")


def read_answers(
    path: Path, prompts: Sequence[Prompt], *, model: str, condition: str = "unsteered", dialect: str = "think", opened: bool = False
) -> list[Transcript]:
    """The transcripts of a file, in the order of the prompts they answer.

    dialect   how the text marks its thought: a row of hooks/dialects.py
    opened    the prompt wrote the opener: a text begins inside the thought
    ValueError naming every line that cannot be used: not JSON, no id or text, an id that is not among the prompts or occurs twice.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"unknown dialect {dialect!r}; known are {', '.join(DIALECTS)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of answers {path}")
    how = {"name": model, "condition": condition, "dialect": dialect, "opened": opened}
    by_id, found, wrong = {p.id: p for p in prompts}, dict[str, Transcript](), list[str]()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path} is not UTF-8 ({problem}). Save it as UTF-8.") from problem
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name = _first(row, IDS, "id")
            if name in found:
                raise ValueError(f"answers {name!r} a second time")
            if name not in by_id:
                raise ValueError(f"answers {name!r}, which is not among the prompts (the first of them is {prompts[0].id!r})")
            found[name] = _transcript(row, by_id[name], how)
        except (ValueError, TypeError, RecursionError) as problem:
            wrong.append(f"{path}:{number}: {problem}")
    seen = Counter(t.status if t.ended or t.status != "absent" else "cut off" for t in found.values())
    warn_unopened(seen, model)
    if wrong:
        more = f"; and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""
        raise ValueError(f"{len(wrong)} lines are no answers: {'; '.join(wrong[:TOLD])}{more}")
    return [found[p.id] for p in prompts if p.id in found]


def _transcript(row: Mapping[str, Any], prompt: Prompt, how: Mapping[str, Any]) -> Transcript:
    text = _first(row, TEXTS, "text")
    ended = row.get("ended", row.get("finish_reason", "stop") != "length")
    if not isinstance(ended, bool):
        raise ValueError(f"ended is true or false, got {ended!r}")
    thought = next((row[key] for key in THOUGHTS if row.get(key)), "")
    if not isinstance(thought, str):
        raise ValueError(f"{' or '.join(THOUGHTS)} is text, got {thought!r}")
    return transcript_of(prompt, Reply(text, thought, ended), **how)


def _first(row: Any, keys: Sequence[str], what: str) -> str:
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object")
    value = next((row[key] for key in keys if key in row), None)
    if not isinstance(value, str):
        raise ValueError(f"no {what}: {' or '.join(keys)} is text, got {value!r}")
    return value
