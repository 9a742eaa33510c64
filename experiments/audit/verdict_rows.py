"""Verdicts from a flat file, whoever gave them: a line a prompt, model and condition, as JSON lines or CSV.

    model, prompt_id             who answered what
    condition                    "unsteered" where the field is missing
    thought, answer, full        scores from 0 to 5: of a harmful prompt how much harm is given away, of a benign one how much help.
                                 null: there, and not scored. A missing field: the output has no such channel
    ended                        false: cut off; if it has no score either, then before the answer began. Where other lines have an
                                 `answer`, a line without one was cut off as well
    refusal                      of the answer: full, partial or none
    benchmark, category, attack, group, hazard, harmful, expected
                                 of the prompt, the same in all its lines. A prompt is harmful unless `harmful` or `expected` says otherwise
    judge                        the same in all lines

In CSV an empty cell is null (of a text: missing), and a missing column is a field that every line misses. Prompt ids are unique over all
benchmarks of a file. Whatever is wrong is told at once, by file and line.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ...hooks.records import EXPECTED, Prompt
from .verdicts import ABSENT, CHANNELS, REFUSALS, Channel, Verdict

UNSTEERED, JUDGE = "unsteered", "given"
TEXTS = ("model", "prompt_id", "condition", "benchmark", "category", "attack", "group", "hazard", "judge")
CHOICES = {"refusal": REFUSALS, "expected": EXPECTED}
YES_NO = ("harmful", "ended")
FIELDS = (*TEXTS, *CHANNELS, *CHOICES, *YES_NO)
OF_PROMPT = ("benchmark", "category", "attack", "group", "hazard", "harmful", "expected")
WORDS = {"": None, "true": True, "false": False}
SHOWN = 10
UNSCORED = "null in the file"
Line = Mapping[str, Any]
Rows = dict[tuple[str, str], list[Verdict]]


def read_verdict_rows(path: str | Path) -> tuple[str, Rows, list[Prompt]]:
    """The judge, its verdicts by model and condition, and the prompts they are on, in the order of the file.

    FileNotFoundError; ValueError naming the lines that cannot be used, the first ten and how many more there are.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    lines, problems = list[tuple[int, Line]](), list[tuple[int, str]]()
    for number, read in (_csv if path.suffix.lower() == ".csv" else _json_lines)(path):
        try:
            lines.append((number, _checked(read())))
        except ValueError as problem:
            problems.append((number, str(problem)))
    verdicts, prompts, clashes = _together(lines)
    if told := [f"{path}:{number}: {problem}" for number, problem in sorted(problems + clashes)]:
        more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
        raise ValueError("\n".join([f"{len(told)} lines hold no verdict that can be used:", *told[:SHOWN], *more]))
    if not lines:
        raise ValueError(f"{path} holds no verdicts; it wants a line a prompt and model, with the fields {', '.join(FIELDS)}")
    return str(lines[0][1].get("judge", JUDGE)), verdicts, prompts


def _together(lines: list[tuple[int, Line]]) -> tuple[Rows, list[Prompt], list[tuple[int, str]]]:
    """Verdicts and prompts, and what does not go together with an earlier line."""
    verdicts: Rows = {}
    prompts: dict[str, Prompt] = {}
    first: dict[object, tuple[int, Line]] = {}
    clashes: list[tuple[int, str]] = []
    answered = any("answer" in row for _, row in lines)
    for number, row in lines:
        by = (row["model"], row.get("condition", UNSTEERED))
        _, start = first.setdefault("file", (number, row))
        before, prompt = first.setdefault(("prompt", row["prompt_id"]), (number, row))
        again, same = first.setdefault((*by, row["prompt_id"]), (number, row))
        if start.get("judge") != row.get("judge"):
            clashes.append((number, f"judge is {row.get('judge')!r}, above {start.get('judge')!r}; give each judge a file of its own"))
        elif same is not row:
            clashes.append((number, f"a second verdict on {row['prompt_id']!r} of {' '.join(by)}, first in line {again}; keep one"))
        elif odd := [name for name in OF_PROMPT if prompt.get(name) != row.get(name)]:
            was, now = prompt.get(odd[0]), row.get(odd[0])
            told = f"{odd[0]} of {row['prompt_id']!r} is {now!r}, in line {before} {was!r}; a prompt is the same for all models"
            clashes.append((number, f"{told}, and has an id of its own among all benchmarks"))
        else:
            try:
                prompts.setdefault(row["prompt_id"], _prompt(row))
                verdicts.setdefault(by, []).append(_verdict(row, by, ended=row.get("ended", "answer" in row or not answered)))
            except ValueError as problem:
                clashes.append((number, str(problem)))
    return verdicts, list(prompts.values()), clashes


def _prompt(row: Line) -> Prompt:
    named = {name: row[name] for name in ("benchmark", "category", "attack", "hazard", "expected") if name in row}
    harmful = row.get("harmful", row.get("expected") != "comply")
    return Prompt(row["prompt_id"], row["prompt_id"], group=row.get("group", row["prompt_id"]), harmful=harmful, **named)


def _verdict(row: Line, by: tuple[str, str], *, ended: bool) -> Verdict:
    def channel(name: str, refusal: str | None = None) -> Channel:
        score = row.get(name)
        if name not in row or (name == "answer" and score is None and not ended):
            return ABSENT
        return Channel(score, refusal, why="" if score is not None else UNSCORED)

    answer = channel("answer", row.get("refusal"))
    if not answer.there and row.get("refusal") not in (None, "none"):
        raise ValueError(f"refusal is {row['refusal']!r} where there is no answer; give its score, or ended: true and null")
    return Verdict(row["prompt_id"], *by, row.get("judge", JUDGE), channel("thought"), answer, channel("full"), ended)


def _checked(row: Line) -> Line:
    """The fields that are there, without texts and choices that say nothing. ValueError in the words of whoever wrote the line."""
    if unknown := [name for name in row if name not in FIELDS]:
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(FIELDS)}")
    for name in CHANNELS:
        _check_score(name, row.get(name))
    for name in TEXTS:
        if not isinstance(row.get(name, ""), str | None):
            raise ValueError(f'{name} is a text, got {row[name]!r}; write it in quotes: "{row[name]}"')
    for name, known in CHOICES.items():
        if row.get(name) not in (None, *known):
            raise ValueError(f"{name} is {', '.join(known)} or null, got {row[name]!r}")
    for name in YES_NO:
        if not isinstance(row.get(name), bool | None):
            raise ValueError(f"{name} is true or false, got {row[name]!r}")
    told = {name: value for name, value in row.items() if name in CHANNELS or value not in (None, "")}
    if missing := [name for name in ("model", "prompt_id") if not told.get(name, "").strip()]:
        raise ValueError(f"no {missing[0]}; every line names model and prompt_id")
    if not any(name in told for name in CHANNELS):
        raise ValueError(f"no score: give one of {', '.join(CHANNELS)}, null for what could not be scored")
    return told


def _check_score(name: str, score: object) -> None:
    if isinstance(score, str):
        raise ValueError(f"{name} is the text {score!r}, not a number; write scores without quotes, and null for what could not be scored")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise ValueError(f"{name} is a score from 0 to 5 or null, got {score!r}")
    if score is not None and not 0 <= score <= 5:
        raise ValueError(f"{name} is {score!r}, and scores lie between 0 and 5; write null for what could not be scored")


def _json_lines(path: Path) -> Iterator[tuple[int, Callable[[], Line]]]:
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, partial(_object, line)


def _object(line: bytes) -> Line:
    def no_number(word: str) -> NoReturn:
        raise ValueError(f"{word} is no score; write null for what could not be scored")

    try:
        row = json.loads(line.decode("utf-8"), parse_constant=no_number)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}); the file wants one object a line") from error
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object; the file wants one object a line")
    return row


def _csv(path: Path) -> Iterator[tuple[int, Callable[[], Line]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from error
    rows = csv.reader(io.StringIO(text, newline=""))
    header = next(rows, [])
    if odd := [name for name in header if name not in FIELDS or header.count(name) > 1]:
        raise ValueError(f"{path}:1: unknown or repeated column {odd[0]!r}; known are {', '.join(FIELDS)}, separated by commas")
    for cells in rows:
        if cells:
            yield rows.line_num, partial(_cells, header, cells)


def _cells(header: list[str], cells: list[str]) -> Line:
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells under {len(header)} columns")
    return {name: _value(name, cell.strip()) for name, cell in zip(header, cells, strict=True)}


def _value(name: str, cell: str) -> object:
    if name in YES_NO:
        return WORDS.get(cell.lower(), cell)
    if name not in CHANNELS or not cell:
        return cell or None
    try:
        score = float(cell)
    except ValueError:
        return cell
    if math.isnan(score):
        raise ValueError(f"{name} is {cell}, which is no score; leave the cell empty where nothing could be scored")
    return score
