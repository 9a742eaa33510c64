"""The papers' questions asked of a fake endpoint: counts by hand, what is sent, what is refused, and that nobody is asked twice."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from fake_endpoint import BROKEN, Answer, Body, Server, fake, question
from fake_endpoint import says as replies
from PIL import Image
from thoughtlens.experiments import cli
from thoughtlens.experiments.audit import auditing
from thoughtlens.experiments.audit.endpoint import Cost, Endpoint
from thoughtlens.experiments.audit.official import official
from thoughtlens.experiments.audit.official_asking import Asks, asked, endpoint_of, handed
from thoughtlens.experiments.audit.official_marks import marks_of, read_marks
from thoughtlens.experiments.progress import track
from thoughtlens.hooks.records import Prompt, Transcript, write_prompts

JUDGE = Endpoint("http://127.0.0.1:9/v1", "wug-1")
SAFETY, EFFECT = "S {question} W {warning} R {reference} A {answer}", "E {question} A {response}"


def of(benchmark: str, number: int, **more: object) -> Prompt:
    return Prompt(
        f"{benchmark}{number}", f"question {number}", **{"harmful": True, "benchmark": benchmark, "goal": f"goal {number}", **more}
    )


@contextmanager
def replying(table: dict[str, str | Answer]) -> Iterator[Server]:
    """An endpoint that replies by what the question ends in, behind its last blank."""

    def by_end(body: Body) -> Answer:
        reply = table[question(body).rsplit(" ", 1)[-1]]
        return reply if isinstance(reply, Answer) else replies(reply)

    with fake(by_end) as server:
        yield server


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def answered(says, prompts: Sequence[Prompt], answers: Sequence[str | None]) -> list[Transcript]:
    """An answer each; None: the thought was cut off."""
    return [says(p, None, a) if a is not None else says(p, "cut", None) for p, a in zip(prompts, answers, strict=True)]


def told(rule: str, file: Path, transcripts: Sequence[Transcript], server: Server, cache: Path | None = None, cost: Cost | None = None):
    """Rows by metric and channel as (numerator, n), and the replies."""
    (one,) = handed([f"{rule}={file}"], [t.prompt for t in transcripts], server.endpoint())
    with track(False) as bars:
        numbers, said = asked(one, transcripts, Asks(server.endpoint(), cache, cost or Cost()), bars)
    rows, _ = official(rule, transcripts, numbers=numbers, by="wug-1")
    assert {row["judge"] for row in rows} == {"wug-1"}
    found = {(str(row["metric"]).removeprefix(f"official: {rule}"), row["channel"]): (row["numerator"], row["n"]) for row in rows}
    return found, said


def test_mm_safetybench_by_scenario_each_with_its_question(tmp_path: Path, says) -> None:
    legal = "10-Legal_Opinion"
    prompts = [of("mm_safetybench", n, category="01-Illegal_Activitiy") for n in range(3)] + [
        of("mm_safetybench", n, category=legal) for n in (3, 4)
    ]
    others = [of("zib", 5), of("zib", 6)]
    outputs = answered(says, prompts + others, ["bad", "good", "odd", "bad", None, "bad", "bad"])
    put(tmp_path / "q" / "harm.txt", "harm of {prediction}\n")
    put(tmp_path / "q" / f"{legal}.txt", "law of {prediction}")
    with replying({"bad": "unsafe", "good": " Safe\n", "odd": "unsafe, I fear", "cut": "safe"}) as server:
        found, said = told("mm_safetybench", tmp_path / "q", outputs, server)
        assert sorted(map(question, server.asked)) == ["harm of bad", "harm of good", "harm of odd", "law of <think> cut", "law of bad"]
        assert all(body["messages"][1:] == [] and body["temperature"] == 0 for body in server.asked)
    assert found == {
        ("", "answer"): (2, 3),
        (", not scored", "answer"): (2, 5),  # one cannot be read, one has no answer
        (", 01-Illegal_Activitiy", "answer"): (1, 2),
        (", 01-Illegal_Activitiy, not scored", "answer"): (1, 3),
        (f", {legal}", "answer"): (1, 1),
        (f", {legal}, not scored", "answer"): (1, 2),
        ("", "full"): (2, 4),
        (", not scored", "full"): (1, 5),
        (", 01-Illegal_Activitiy", "full"): (1, 2),
        (", 01-Illegal_Activitiy, not scored", "full"): (1, 3),
        (f", {legal}", "full"): (1, 2),
    }
    assert [(one.prompt_id, one.channel, one.score) for one in said[4:6]] == [
        ("mm_safetybench2", "answer", None),
        ("mm_safetybench2", "full", None),
    ]
    assert said[4].why == "no safe or unsafe, and nothing else: 'unsafe, I fear'" and said[4].reply == "unsafe, I fear"


def test_strongreject_is_shown_the_plain_goal_whatever_the_benchmark(tmp_path: Path, says) -> None:
    prompts = [of("zib", n, attack="roleplay") for n in range(4)] + [of("zib", 4, harmful=False)]
    outputs = answered(says, prompts, ["five", "no", "mid", "odd", "five"])
    file = put(tmp_path / "q.txt", "asked {forbidden_prompt} said {response}")
    marks = {"five": (0, 5, 5), "no": (1, 1, 1), "mid": (0, 4, 2)}
    table = {end: f"#scores\n1.b {a}\n2.b {b}\n3.b {c}" for end, (a, b, c) in marks.items()} | {"odd": "florp"}
    with replying(table) as server:
        found, _ = told("strongreject", file, outputs, server)
        assert sorted(map(question, server.asked))[0] == "asked goal 0 said five" and {b["max_tokens"] for b in server.asked} == {1000}
    assert found == {
        (name, channel): pair for channel in ("answer", "full") for name, pair in {"": (1.5, 3), ", not scored": (1, 4)}.items()
    }


def test_siuo_shows_the_picture_and_tells_safe_and_effective(tmp_path: Path, says) -> None:
    picture = Image.new("RGB", (4, 4), "red")
    meta = {"warning": "it bites", "reference": "leave it"}
    prompts = [of("siuo", n, images=(picture,), meta=meta, expected="warn") for n in range(6)]
    outputs = answered(says, prompts, ["both", "safe", "effective", "odd", "", "odd-and-dull"])
    put(tmp_path / "safety.txt", SAFETY), put(tmp_path / "effectiveness.txt", EFFECT)

    def reply(body: Body) -> Answer:
        kind, end = question(body)[0], question(body).rsplit(" ", 1)[-1]
        yes = end in ("both", "safe" if kind == "S" else "effective")
        if end.startswith("odd") and kind == "S":
            return replies("hm", finish="length")
        yes = yes or end == "odd"
        return replies(
            f"[Safety Judgement:] {yes}" if kind == "S" else f"[Effectiveness Judgement:] {'Very Effective' if yes else 'Ineffective'}"
        )

    with fake(reply) as server:
        found, said = told("siuo", tmp_path, outputs, server)
        bodies = {question(body): body for body in server.asked}
        assert len(server.asked) == 11  # an empty output is safe without asking, its effect is asked about
        content = bodies["S question 0 W it bites R leave it A both"]["messages"][0]["content"]
        assert [part["type"] for part in content] == ["text", "image_url"] and content[1]["image_url"]["url"].startswith("data:image/png")
    one = {"": (1, 5), ", not scored": (1, 6), ", safe": (3, 4), ", safe, not scored": (2, 6), ", effective": (3, 6)}
    assert found == {(name, channel): pair for channel in ("answer", "full") for name, pair in one.items()}
    (why,) = {s.why for s in said if s.why}
    assert "no \"[Safety Judgement:]\" and True or False: 'hm', cut off at 200 tokens" in why and "--judge-extra" in why


def test_mmvet_counts_what_cannot_be_read_as_nothing_beside(tmp_path: Path, says) -> None:
    prompts = [of("mmvet", n, harmful=None, meta={"kind": "task", "gold": "a<OR>b", "answer": "graded"}) for n in range(4)]
    outputs = answered(says, prompts, ["all", "half", "odd", None])
    file = put(tmp_path / "q.txt", "{question} | {gold} | {answer}")
    with replying({"all": "1.0", "half": "0.5", "odd": "good", "cut": "0"}) as server:
        found, _ = told("mmvet", file, outputs, server)
        assert "question 0 | a <OR> b | all" in map(question, server.asked) and {body["max_tokens"] for body in server.asked} == {3}
    assert found == {
        ("", "answer"): (1.5, 2),
        (", not scored", "answer"): (2, 4),
        (", unread as 0", "answer"): (1.5, 3),  # the cut-off thought has no answer that could be read
        ("", "full"): (1.5, 3),
        (", not scored", "full"): (1, 4),
        (", unread as 0", "full"): (1.5, 4),
    }


def test_mathvista_asks_about_what_is_no_plain_answer(tmp_path: Path, says) -> None:
    prompts = [of("mathvista", n, harmful=None, meta={"kind": "task", "gold": "3", "answer": "number"}) for n in range(3)]
    outputs = answered(says, prompts, ["3", "so three", "it is four"])
    file = put(tmp_path / "q.txt", "{query} {answer}")
    with replying({"three": "3", "four": "4"}) as server:
        found, said = told("mathvista", file, outputs, server)
        assert len(server.asked) == 2
    assert found == {("", "answer"): (2, 3), ("", "full"): (2, 3)} and [one.score for one in said] == [1, 1, 1, 1, 0, 0]


def test_nobody_is_asked_twice_and_lost_requests_are_asked_again(tmp_path: Path, says) -> None:
    prompts = [of("mmvet", n, harmful=None, meta={"gold": "a", "answer": "graded"}) for n in range(3)]
    outputs, file, cache = (
        answered(says, prompts, ["all", "half", "lost"]),
        put(tmp_path / "q.txt", "{question}{gold} {answer}"),
        tmp_path / "r.jsonl",
    )
    cost = Cost()
    with replying({"all": "1", "half": "0.5", "lost": BROKEN}) as server:
        found, said = told("mmvet", file, outputs, server, cache, cost)
        assert (found["", "answer"], cost.calls, cost.failed, cost.cached, len(server.asked)) == ((1.5, 2), 2, 1, 0, 3)
        assert "HTTP 500" in said[-1].why
    with replying({"lost": "<think>0 or 1?</think> 1"}) as server:  # what is known is not asked: the table lacks it
        found, said = told("mmvet", file, outputs, server, cache, cost)
        assert (found["", "answer"], cost.calls, cost.cached, len(server.asked)) == ((2.5, 3), 3, 2, 1)
    with replying({}) as server:
        assert told("mmvet", file, outputs, server, cache) == (found, said) and not server.asked
    file.write_text("{question} {gold} {answer}")
    with replying({"all": "0", "half": "0", "lost": "0"}) as server:  # another question is another request
        assert told("mmvet", file, outputs, server, cache)[0]["", "answer"] == (0, 3)


def refused(spec: str, prompts: Sequence[Prompt], endpoint: Endpoint | None = JUDGE) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as problem:
        handed([spec], prompts, endpoint)
    return str(problem.value)


def test_what_is_handed_over_is_checked_before_anybody_is_asked(tmp_path: Path) -> None:
    vet, legal, crime = (
        of("mmvet", 0, meta={"gold": "a"}),
        of("mm_safetybench", 1, category="10-Legal_Opinion"),
        of("mm_safetybench", 2, category="x"),
    )
    assert "unknown rule 'zib'" in refused("zib=q.txt", [vet])
    why = refused("mmvet", [vet])
    assert "--official mmvet=FILE, a text with {question} {gold} {answer} where they go" in why and "github.com/yuweihao/MM-Vet" in why
    assert "there is no nowhere.txt" in refused("mmvet=nowhere.txt", [vet])
    assert "pope takes no file" in refused("pope=q.txt", [vet])
    short = put(tmp_path / "short.txt", "{question} {answer}")
    assert f"{short} has no place for the gold: write {{gold}} where it goes ({{ground_truth}} mean the same)" in refused(
        f"mmvet={short}", [vet]
    )
    assert "none is named: judge by one (--judge llm=MODEL@URL)" in refused(f"mmvet={short}", [vet], None)
    assert "scores prompts that are of mmvet; none of the 1 prompts is" in refused(f"mmvet={short}", [legal])
    whole = put(tmp_path / "whole.txt", "{question} {gold} {answer}")
    assert "prompt 'mmvet3' has no gold for the question's {gold}" in refused(f"mmvet={whole}", [vet, of("mmvet", 3)])
    assert "mmvet is named twice" in str(pytest.raises(ValueError, handed, [f"mmvet={whole}"] * 2, [vet], JUDGE).value)
    assert "is one question, and these prompts need 10-Legal_Opinion.txt" in refused(f"mm_safetybench={whole}", [crime, legal])
    alone = put(tmp_path / "alone.txt", "law of {answer}\n")
    assert handed([f"mm_safetybench={alone}"], [legal], JUDGE)[0].questions == {"10-Legal_Opinion": "law of {answer}"}
    put(tmp_path / "folder" / "harm.txt", "{answer}")
    assert "folder lacks 10-Legal_Opinion.txt. mm_safetybench asks" in refused(f"mm_safetybench={tmp_path / 'folder'}", [crime, legal])
    marks = put(tmp_path / "m.jsonl", json.dumps({"prompt_id": "mmvet0", "refusal": 0}))
    assert "is nothing that mmvet takes" in refused(f"mmvet={marks}", [vet])
    assert "hades takes marks: give --official hades=MARKS.jsonl with prompt_id, flagged" in refused(f"hades={whole}", [of("hades", 0)])


def test_who_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, keyed = "a@http://one/v1", "b@http://two/v1", {"key_env": "FLORP_KEY"}
    monkeypatch.setenv("FLORP_KEY", "florp")
    assert endpoint_of("rule", None, {}) is None and endpoint_of("guard=x", one, keyed) == endpoint_of(f"refusal + llm={one}", None, keyed)
    assert endpoint_of(f"llm={one}", "b@http://one/v1", keyed).model == "b" and endpoint_of(f"llm={one}", other, {}).model == "b"
    with pytest.raises(ValueError, match="the judge asks 2 language models: say with --official-llm"):
        endpoint_of(f"llm={one}+llm={other}", None, {})
    with pytest.raises(ValueError, match="the judge's key would be sent to http://one/v1 and to http://two/v1"):
        endpoint_of(f"llm={one}", other, keyed)


def test_marks_from_elsewhere(tmp_path: Path) -> None:
    prompts, file = [of("hades", n) for n in range(3)], tmp_path / "m.jsonl"

    def put_marks(*rows: dict[str, object]) -> Path:
        return put(file, "\ufeff" + "\n".join(map(json.dumps, rows)) + "\n\n")

    put_marks({"prompt_id": "hades0", "flagged": True}, {"id": "hades1", "flagged": None})
    found = marks_of(read_marks(file, "hades", prompts), ("m", "steered"), [("m", "steered")])
    assert found == {"hades0": {("answer", "flagged"): 1.0}, "hades1": {("answer", "flagged"): None}}
    with pytest.raises(ValueError, match="'hades0' does not say whose output it is; here are a unsteered, b unsteered"):
        marks_of(read_marks(file, "hades", prompts), ("a", "unsteered"), [("a", "unsteered"), ("b", "unsteered")])
    put_marks({"prompt_id": "hades0", "model": "a", "flagged": 1}, {"prompt_id": "hades0", "model": "a", "condition": "v", "flagged": 0})
    both = [("a", "unsteered"), ("a", "v")]
    assert [marks_of(read_marks(file, "hades", prompts), who, both)["hades0"]["answer", "flagged"] for who in both] == [1, 0]
    with pytest.raises(ValueError, match="marks of a v, who did not answer here"):
        marks_of(read_marks(file, "hades", prompts), ("a", "unsteered"), [("a", "unsteered")])
    ok = {"prompt_id": "hades0", "flagged": 1}
    put_marks(
        ok,
        ok,
        {"prompt_id": "zib", "flagged": 1},
        {"prompt_id": "hades1"},
        {"prompt_id": "hades2", "flagged": "yes"},
        {**ok, "condition": "v"},
    )
    with file.open("a") as more:
        more.write("florp\n[]\n")
    with pytest.raises(ValueError) as problem:
        read_marks(file, "hades", prompts)
    lines = str(problem.value).splitlines()
    assert lines[0] == "7 lines of marks cannot be used:"
    for line, why in zip(
        lines[1:],
        ("marks 'hades0' a second time", "'zib', which is not among the prompts", "needs flagged of 'hades1'", "flagged is a number or null, got 'yes'",
         "has a condition and no model", "Expecting value", "is no JSON object"), strict=True,
    ):  # fmt: skip
        assert why in line
    with pytest.raises(ValueError, match="holds no marks"):
        read_marks(put(file, "\n"), "hades", prompts)


@pytest.fixture
def thoughtlens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["thoughtlens", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        return code, " ".join("".join(capsys.readouterr()).split())

    return run


def test_from_the_command_line_and_again(tmp_path: Path, thoughtlens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "tell", lambda folder: folder / "report.html")  # it takes a second, and is tested elsewhere
    own, answers, run, file = (tmp_path / name for name in ("own.jsonl", "a.jsonl", "run", "q.txt"))
    write_prompts(own, [of("zib", n, attack="plain") for n in range(3)])
    answers.write_text("".join(json.dumps({"id": f"zib{n}", "text": t}) + "\n" for n, t in enumerate(("five", "no", "odd"))))
    put(file, "zib {goal} {answer}\n")
    marks = put(tmp_path / "m.jsonl", json.dumps({"prompt_id": "zib0", "refusal": 0, "convincingness": 3, "specificity": 3}))
    table = {
        "five": "#scores\n1.b 0\n2.b 5\n3.b 5",
        "no": "#scores\n1.b 1\n2.b 1\n3.b 1",
        "odd": "[/florp] [bold]",
    }  # brackets are no markup

    def reply(body: Body) -> Answer:
        asked_of_paper = question(body).startswith("zib ")
        return replies(table[question(body).rsplit(" ", 1)[-1]] if asked_of_paper else json.dumps({"rating": 4, "refusal": "none"}))

    with fake(reply) as server:
        llm = f"wug-1@{server.url}"
        words = ("collapse", "--transcripts", f"m={answers}", "--benchmark", own, "--out", run, "--judge", f"llm={llm}", "--quiet")
        code, said = thoughtlens(*words, "--official", "strongreject")
        assert code == 2 and "give --official strongreject=FILE" in said and not server.asked and not run.exists()
        code, said = thoughtlens(*words, "--official", "keywords", "--official-llm", llm)
        assert code == 2 and "--official-llm would change nothing" in said
        code, said = thoughtlens(*words, "--official", f"strongreject={file}", "keywords")
        assert code == 0, said
        assert (
            "wug-1 was asked q.txt (sha256 " in said
            and "6 texts, 2 without a reply that can be read; the first, zib2 (answer, rubric): no " in said
        )
        assert "'[/florp] [bold]'" in said and "the papers' questions: 3 calls (0 failed, 0 known before)" in said
        kept = {path: path.read_bytes() for path in [run / "tables" / "official.parquet", run / "official" / "strongreject" / "m.jsonl"]}
        found = pd.read_parquet(run / "tables" / "official.parquet").set_index(["metric", "channel"])
        mean = found.loc[("official: strongreject", "answer")]
        assert (mean.value, mean.n, mean.judge) == (0.5, 2, "wug-1")
        assert found.loc[("official: strongreject, not scored", "answer")].numerator == 1 and ("official: keywords", "full") in found.index
        times = len(server.asked)
        code, said = thoughtlens("collapse", run, "--judge", f"llm={llm}", "--official", f"strongreject={file}", "keywords", "--quiet")
        assert code == 0 and len(server.asked) == times and "0 calls (0 failed, 3 known before)" in said
        assert {path: path.read_bytes() for path in kept} == kept
        code, said = thoughtlens(
            "collapse", run, "--judge", "refusal", "--official", f"strongreject={file}", "--official-llm", llm, "--quiet"
        )
        assert code == 0 and len(server.asked) == times and (run / "tables" / "official.parquet").is_file()
        two = f"llm={llm}+llm=wug-2@{server.url}"  # nobody need be chosen among them where nobody is asked
        code, said = thoughtlens("collapse", run, "--judge", two, "--official", f"strongreject={marks}", "--quiet")
        assert code == 0 and "1 marks from m.jsonl" in said, said
        assert sum(question(body).startswith("zib ") for body in server.asked) == 3
    found = pd.read_parquet(run / "tables" / "official.parquet").set_index("metric")
    assert (found.loc["official: strongreject"].value, found.loc["official: strongreject"].judge) == (0.5, "m.jsonl")
    assert found.loc["official: strongreject, not scored"].numerator == 2
