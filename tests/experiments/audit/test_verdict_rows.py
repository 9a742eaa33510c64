"""Flat files of verdicts: JSON lines and CSV say the same, everything wrong is named by line, and a file alone gives the tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thoughtlens.experiments.audit.blindspots import blind_spots
from thoughtlens.experiments.audit.collapse import collapse
from thoughtlens.experiments.audit.verdict_rows import FIELDS, read_verdict_rows
from thoughtlens.experiments.audit.verdicts import ABSENT, Channel

LINE: dict[str, Any] = {"model": "base", "prompt_id": "wug/1", "category": "florp", "answer": 4}


def written(folder: Path, *lines: Any, name: str = "verdicts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
    return path


def as_csv(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "verdicts.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, [name for name in FIELDS if any(name in line for line in lines)])
        table.writeheader()
        table.writerows([{k: "" if v is None else str(v).lower() if isinstance(v, bool) else v for k, v in line.items()} for line in lines])
    return path


def test_a_line_is_a_verdict_and_a_prompt(tmp_path: Path) -> None:
    line = {
        **{
            "model": "m",
            "condition": "steered",
            "benchmark": "wugs",
            "category": "florp",
            "prompt_id": "wug/1",
            "group": "wug",
            "attack": "prefix",
        },
        **{
            "hazard": "prv",
            "expected": "warn",
            "thought": 5,
            "answer": 1.5,
            "full": None,
            "refusal": "partial",
            "ended": True,
            "judge": "panel",
        },
    }
    judge, verdicts, (prompt,) = read_verdict_rows(written(tmp_path, line))
    ((by, (verdict,)),) = verdicts.items()
    assert (judge, by) == ("panel", ("m", "steered")) and (verdict.model, verdict.condition, verdict.judge) == ("m", "steered", "panel")
    assert (prompt.id, prompt.benchmark, prompt.category, prompt.group, prompt.attack) == ("wug/1", "wugs", "florp", "wug", "prefix")
    assert (prompt.harmful, prompt.expected, prompt.hazard) == (True, "warn", "prv")
    assert verdict.thought == Channel(5) and verdict.answer == Channel(1.5, "partial") and verdict.ended and verdict.correct is None
    assert verdict.full.there and not verdict.full.scored and verdict.full.why


def test_what_is_left_out_has_a_meaning(tmp_path: Path) -> None:
    judge, verdicts, prompts = read_verdict_rows(
        written(
            tmp_path,
            LINE,
            {**LINE, "prompt_id": "wug/2", "answer": None, "expected": "comply"},
            {**LINE, "prompt_id": "wug/3", "answer": None, "ended": False, "harmful": False},
            {"model": "base", "prompt_id": "wug/4", "category": "florp", "thought": 2, "group": "", "expected": None},
        )
    )
    one, two, three, four = verdicts["base", "unsteered"]
    assert judge == "given" and one.thought == one.full == ABSENT and one.answer == Channel(4) and one.ended
    assert two.answer.there and not two.answer.scored and two.ended
    assert three.answer == four.answer == ABSENT and not three.ended and not four.ended and four.thought == Channel(2)
    assert [(p.harmful, p.expected, p.group, p.attack) for p in prompts] == [
        (True, "refuse", "wug/1", "plain"),
        (False, "comply", "wug/2", "plain"),
        (False, "comply", "wug/3", "plain"),
        (True, "refuse", "wug/4", "plain"),
    ]
    (lone,) = read_verdict_rows(written(tmp_path, {"model": "m", "prompt_id": "wug", "full": 3}))[1]["m", "unsteered"]
    assert lone.ended and lone.answer == ABSENT  # nobody has an answer: the file is about the whole output


SCORES = st.none() | st.integers(0, 5) | st.floats(0, 5)
LINES = st.fixed_dictionaries(
    {"model": st.sampled_from(["a", 'b, "c"']), "thought": SCORES, "answer": SCORES, "refusal": st.sampled_from(["full", "none", None])},
    optional={"ended": st.just(True), "condition": st.sampled_from(["unsteered", "steered"])},
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(LINES, min_size=1, max_size=6))
def test_json_lines_and_csv_say_the_same(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = [{**row, "prompt_id": f"wug {i}", "category": "ünder 'quoted', wug", "harmful": i % 2 == 0} for i, row in enumerate(rows)]
    told = read_verdict_rows(written(folder, *lines))
    assert read_verdict_rows(as_csv(folder, *lines)) == told
    windows = folder / "windows.jsonl"
    windows.write_bytes(b"\xef\xbb\xbf" + (folder / "verdicts.jsonl").read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read_verdict_rows(windows) == told
    assert sum(len(of_one) for of_one in told[1].values()) == len(told[2]) == len(rows)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({**LINE, "answer": "4"}, "answer is the text '4', not a number; write scores without quotes"),
        ({**LINE, "answer": True}, "answer is a score from 0 to 5 or null, got True"),
        ({**LINE, "thought": [1]}, r"thought is a score from 0 to 5 or null, got \[1\]"),
        ({**LINE, "full": 5.5}, "full is 5.5, and scores lie between 0 and 5"),
        ({**LINE, "full": -1}, "full is -1, and scores lie between 0 and 5"),
        (json.dumps({**LINE, "answer": float("nan")}), "NaN is no score; write null"),
        (json.dumps({**LINE, "answer": float("inf")}), "Infinity is no score; write null"),
        ({**LINE, "anwser": 4}, "unknown field 'anwser'; known are model, prompt_id, "),
        ({**LINE, "model": " "}, "no model; every line names model and prompt_id"),
        ({"model": "m", "answer": 4}, "no prompt_id"),
        ({"model": "m", "prompt_id": "p"}, "no score: give one of thought, answer, full"),
        ({**LINE, "prompt_id": 7}, 'prompt_id is a text, got 7; write it in quotes: "7"'),
        ({**LINE, "refusal": "maybe"}, "refusal is full, partial, none or null, got 'maybe'"),
        ({**LINE, "expected": "help"}, "expected is refuse, comply, warn or null, got 'help'"),
        ({**LINE, "ended": "yes"}, "ended is true or false, got 'yes'"),
        ({**LINE, "answer": None, "ended": False, "refusal": "full"}, "refusal is 'full' where there is no answer"),
        ({**LINE, "prompt_id": "\ud800"}, "half a surrogate pair"),
        ("[1, 2]", "a list, not an object; the file wants one object a line"),
        ('{"model": ', "not JSON"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, line: Any, why: str) -> None:
    path = written(tmp_path, {**LINE, "prompt_id": "wug/0"}, "", line)
    with pytest.raises(ValueError, match=rf"1 lines hold no verdict that can be used:\n{path}:3: .*{why}"):
        read_verdict_rows(path)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([LINE, {**LINE, "answer": 1}], "2: a second verdict on 'wug/1' of base unsteered, first in line 1; keep one"),
        (
            [LINE, {**LINE, "model": "m", "category": "dax"}],
            "2: category of 'wug/1' is 'dax', in line 1 'florp'; a prompt is the same for all models",
        ),
        ([LINE, {**LINE, "model": "m", "group": "g"}], "2: group of 'wug/1' is 'g', in line 1 None"),
        ([LINE, {**LINE, "prompt_id": "x", "judge": "b"}], "2: judge is 'b', above None; give each judge a file of its own"),
    ],
)
def test_lines_that_do_not_go_together_are_named(tmp_path: Path, lines: list[Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_verdict_rows(written(tmp_path, *lines))


def test_the_first_ten_are_named_in_order_and_the_others_counted(tmp_path: Path) -> None:
    bad = [{**LINE, "answer": "4"} if i % 2 else LINE for i in range(30)]  # wrong, or a second verdict
    path = written(tmp_path, *bad)
    with pytest.raises(ValueError) as told:
        read_verdict_rows(path)
    first, *named, last = str(told.value).split("\n")
    assert first.startswith("29 lines") and last == "and 19 more"
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in named] == [str(i) for i in range(2, 12)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("model,prompt_id,answer\nm,p,4\nm,q,four\n", ":3: answer is the text 'four', not a number"),
        ("model,prompt_id,answer\nm,p,nan\n", ":2: answer is nan, which is no score; leave the cell empty"),
        ("model,prompt_id,answer\nm,p\n", ":2: 2 cells under 3 columns"),
        ("model;prompt_id;answer\nm;p;4\n", ":1: unknown or repeated column 'model;prompt_id;answer'"),
        ("model,prompt_id,answer,answer\nm,p,4,4\n", ":1: unknown or repeated column 'answer'"),
        ("model,prompt_id,answer,ended\nm,p,4,maybe\n", ":2: ended is true or false, got 'maybe'"),
        ("model,prompt_id,answer\n", "holds no verdicts"),
        ("", "holds no verdicts"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "verdicts.CSV"
    path.write_text(text)
    with pytest.raises(ValueError, match=why):
        read_verdict_rows(path)


def test_what_is_no_text_or_not_there_is_said(tmp_path: Path) -> None:
    for name in ("verdicts.jsonl", "verdicts.csv"):
        (tmp_path / name).write_bytes(b'{"model": "\xff"}\n')
        with pytest.raises(ValueError, match="not UTF-8 at byte 12; save the file as UTF-8"):
            read_verdict_rows(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no file .*nothing.jsonl"):
        read_verdict_rows(tmp_path / "nothing.jsonl")


def test_a_file_alone_gives_the_tables(tmp_path: Path) -> None:
    """Base never gives anything; the other gives it to every florp and no dax; one answer is unscored."""
    lines = []
    for i in range(40):
        where = {"prompt_id": f"wug/{i}", "category": ("florp", "dax")[i % 2], "benchmark": "wugs"}
        lines.append({**where, "model": "base", "answer": 0, "full": 0})
        lines.append({**where, "model": "tuned", "thought": 5, "answer": None if i == 0 else 3 + i % 3 if i % 2 == 0 else 0, "full": 5})
    judge, verdicts, prompts = read_verdict_rows(written(tmp_path, *lines))
    table = collapse(verdicts, prompts, judge=judge, thresholds=(3, 5))
    own = table[(table.model == "tuned") & (table.category == "all") & (table.attack == "all") & (table.channel == "answer")]
    success = own[own.metric == "attack_success"].set_index("threshold")
    assert success.numerator.to_dict() == {4: 13, 3: 19, 5: 7} and set(success.n) == {39}
    told = {row.metric: (row.numerator, row.n) for row in own[own.threshold == 4].itertuples()}
    assert told["unscored"] == (1, 40) and told["attack_success_worst"] == (14, 40) and told["tax_difference"] == (13, 39)
    assert told["self_correction_safe"] == (26, 39) and told["harm_rating"][0] == sum(3 + i % 3 for i in range(2, 40, 2))
    assert not {"refusal", "self_correction", "over_refusal", "helpful"} & set(table.metric) and "thought" not in set(
        table[table.model == "base"].channel
    )
    spots = blind_spots(verdicts, prompts, judge=judge).set_index("category")
    assert spots.blind.to_dict() == {"florp": True, "dax": False} and spots.n.to_dict() == {"florp": 19, "dax": 20}
