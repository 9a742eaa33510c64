"""What somebody else has said of outputs in the place of a paper's judge: JSON lines with a prompt's id and the marks of one rule.

    {"prompt_id": "strongreject/full/1", "model": "base", "refusal": 0, "convincingness": 4, "specificity": 5}

`prompt_id` may be called id. `model` and `condition` say whose output it is: needed where several have answered; without a condition the
unsteered output is meant. A mark that is null could not be had, and its output is counted as not scored, as is one without a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...hooks.records import Prompt
from .official import marked, rule_of
from .official_scores import Numbers

TOLD = 10
UNSTEERED = "unsteered"
By = tuple[str, str]  # model, condition


@dataclass(frozen=True)
class Mark:
    """What one line says. model: None where it does not tell. numbers: as official() takes them."""

    prompt_id: str
    model: str | None
    condition: str
    numbers: Numbers


def read_marks(path: Path, rule: str, prompts: Sequence[Prompt]) -> tuple[Mark, ...]:
    """The marks of a file. ValueError naming every line that cannot be used."""
    asked, found, wrong = {p.id for p in prompts}, dict[tuple[str, str | None, str], Mark](), list[str]()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path} is not UTF-8 ({problem}). Save it as UTF-8.") from problem
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            mark = _mark(json.loads(line), rule, asked)
            if (whose := (mark.prompt_id, mark.model, mark.condition)) in found:
                raise ValueError(f"marks {mark.prompt_id!r} a second time")
            found[whose] = mark
        except (ValueError, TypeError, RecursionError) as problem:
            wrong.append(f"{path}:{number}: {problem}")
    if wrong:
        more = f"\n… and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""
        raise ValueError("\n".join([f"{len(wrong)} lines of marks cannot be used:", *wrong[:TOLD]]) + more)
    if not found:
        raise ValueError(f"{path} holds no marks. Write a line for each output, with prompt_id, {', '.join(rule_of(rule).marks)}.")
    return tuple(found.values())


def marks_of(marks: Sequence[Mark], who: By, everybody: Sequence[By]) -> dict[str, Numbers]:
    """The marks of one model and condition, by prompt id. ValueError where a line does not tell whose it is, or tells of nobody here."""
    names = ", ".join(" ".join(one) for one in everybody)
    if len(everybody) > 1 and (nobody := [mark for mark in marks if mark.model is None]):
        raise ValueError(f"the mark of {nobody[0].prompt_id!r} does not say whose output it is; here are {names}. Give every line a model.")
    meant = [everybody[0] if mark.model is None else (mark.model, mark.condition) for mark in marks]
    if strangers := [one for one in meant if one not in everybody]:
        raise ValueError(f"there are marks of {' '.join(strangers[0])}, who did not answer here; here are {names}")
    return {mark.prompt_id: mark.numbers for mark, one in zip(marks, meant, strict=True) if one == who}


def _mark(row: object, rule: str, asked: set[str]) -> Mark:
    if not isinstance(row, Mapping):
        raise ValueError("is no JSON object")
    prompt_id, model, condition = row.get("prompt_id", row.get("id")), row.get("model"), row.get("condition", UNSTEERED)
    if not isinstance(prompt_id, str) or prompt_id not in asked:
        raise ValueError(f"marks {prompt_id!r}, which is not among the prompts (one of them is {min(asked, default=None)!r})")
    if not isinstance(model, str | None) or not isinstance(condition, str):
        raise ValueError(f"model and condition are names, got {model!r} and {condition!r}")
    if model is None and "condition" in row:
        raise ValueError("has a condition and no model")
    its = {name: row[name] for name in rule_of(rule).marks if name in row}
    if bad := [name for name, value in its.items() if not isinstance(value, int | float | None)]:
        raise ValueError(f"{bad[0]} is a number or null, got {its[bad[0]]!r}")
    numbers = marked(rule, {prompt_id: None if its and None in its.values() else its})
    return Mark(prompt_id, model, condition, numbers[prompt_id])
