"""Answers written elsewhere become the transcripts that were written here; every bad line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from thoughtlens.experiments.audit.importing import read_answers
from thoughtlens.hooks.records import Prompt

PROMPTS = [Prompt(f"p{i}", "florp the wug") for i in range(4)]


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_texts_are_split_and_joined_to_their_prompts(tmp_path: Path) -> None:
    file = written(
        tmp_path / "answers.jsonl",
        {"prompt_id": "p2", "text": "<think>well , so</think>the wug is florped", "model": "whatever it was called"},
        {"id": "p0", "response": "<think>well", "finish_reason": "length"},
        {"id": "p1", "output": "at once", "ended": True},
        {"id": "p3", "completion": "florped", "reasoning_content": "hm", "finish_reason": "stop"},
    )
    found = read_answers(file, PROMPTS, model="mine")
    assert [t.id for t in found] == ["p0", "p1", "p2", "p3"] and {t.model for t in found} == {"mine"}
    assert [(t.status, t.thought, t.answer, t.ended) for t in found] == [
        ("unclosed", "well", "", False),
        ("absent", "", "at once", True),
        ("closed", "well , so", "the wug is florped", True),
        ("closed", "hm", "florped", True),
    ]


def test_another_dialect_reads_other_markers(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", {"id": "p0", "text": "◁think▷well◁/think▷florped"})
    assert read_answers(file, PROMPTS, model="m", dialect="kimi")[0].answer == "florped"
    assert read_answers(file, PROMPTS, model="m")[0].status == "absent"
    with pytest.raises(ValueError, match="unknown dialect 'thunk'; known are think"):
        read_answers(file, PROMPTS, model="m", dialect="thunk")


def test_a_byte_order_mark_crlf_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b'{"id": "p0", "text": "so"}\r\n\r\n{"id": "p1", "text": "and so"}\r\n')
    assert [t.answer for t in read_answers(file, PROMPTS, model="m")] == ["so", "and so"]


def test_every_line_that_is_no_answer_is_named_at_once(tmp_path: Path) -> None:
    rows = [
        {"id": "p0", "text": "so"},
        {"id": "p0", "text": "again"},
        {"id": "p9", "text": "so"},
        {"text": "so"},
        {"id": "p1"},
        ["p1", "so"],
    ]
    file = written(tmp_path / "a.jsonl", *rows, {"id": "p2", "text": "so", "ended": "yes"})
    with file.open("a") as more:
        more.write("no json\n")
    with pytest.raises(ValueError) as told:
        read_answers(file, PROMPTS, model="m")
    assert str(told.value).startswith("7 lines are no answers")
    for words in (":2: answers 'p0' a second time", ":3: answers 'p9', which is not among the prompts (the first of them is 'p0')", ":4: no id",
                  ":5: no text", ":6: a list, not an object", ":7: ended is true or false", ":8: "):  # fmt: skip
        assert f"a.jsonl{words}" in str(told.value)


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file of answers"):
        read_answers(tmp_path / "absent.jsonl", PROMPTS, model="m")
