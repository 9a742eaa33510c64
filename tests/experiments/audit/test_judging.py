"""Judging goes on where it was killed, judges nothing twice, and ends with the same verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from thoughtlens.experiments.audit import judging
from thoughtlens.experiments.audit.judging import judged
from thoughtlens.experiments.audit.verdicts import Channel, Verdict
from thoughtlens.experiments.benchmarks import prompts
from thoughtlens.experiments.judges import Judge
from thoughtlens.experiments.progress import track
from thoughtlens.experiments.run import Run, open_run
from thoughtlens.hooks.records import Prompt, Transcript, write_transcripts

SAID = [Transcript(Prompt(f"p{i}", "florp", goal="florp", harmful=True), "m", text="so", answer="so", ended=True) for i in range(10)]
TASK = Transcript(Prompt("t", "how many ?", meta={"gold": "3", "answer": "number"}), "m", text="3", answer="3", ended=True)


class Counting:
    """A judge that counts whom it judged, and falls over at one of them the first time it is called so often."""

    def __init__(self, falls_at: str | None = None) -> None:
        self.seen: Counter[str] = Counter()
        self.falls_at = falls_at

    def __call__(self, transcripts: Sequence[Transcript]) -> list[Verdict]:
        if self.falls_at in [t.id for t in transcripts]:
            self.falls_at = None
            raise KeyboardInterrupt
        self.seen.update(t.id for t in transcripts)
        said = [Channel(float(i % 6), "none") for i, _ in enumerate(transcripts)]
        return [Verdict(t.id, t.model, t.condition, "count", c, c, c, True) for t, c in zip(transcripts, said, strict=True)]


def judge(counting: Counting) -> Judge:
    return Judge("count", counting, frozenset({"rating"}))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(judging, "CHUNK", 3)
    run = open_run(tmp_path / "run", {})
    write_transcripts(run.path("transcripts", "m.jsonl"), SAID)
    return run


def test_killed_it_goes_on_and_judges_nobody_twice(run: Run, tmp_path: Path) -> None:
    whole = open_run(tmp_path / "whole", {})
    write_transcripts(whole.path("transcripts", "m.jsonl"), SAID)
    counting = Counting(falls_at="p7")
    with track(False) as bars:
        with pytest.raises(KeyboardInterrupt):
            judged(run, judge(counting), "m", SAID, bars)
        assert not run.path("verdicts", "count", "m.jsonl").exists()
        partial = run.path("verdicts", "count", "m.partial")
        partial.write_bytes(partial.read_bytes()[:-9])  # torn in the middle of a line
        found = judged(run, judge(counting), "m", SAID, bars)
        assert [v.prompt_id for v in found] == [t.id for t in SAID]
        assert counting.seen == Counter({t.id: 1 + (t.id == "p5") for t in SAID})  # p5 was in the line that was torn
        assert judged(run, judge(counting), "m", SAID, bars) == found and counting.seen.total() == 11
        judged(whole, judge(Counting()), "m", SAID, bars)
    assert not list(run.folder.rglob("*.partial"))


def test_other_transcripts_are_judged_anew(run: Run) -> None:
    counting = Counting(falls_at="p7")
    with track(False) as bars:
        with pytest.raises(KeyboardInterrupt):
            judged(run, judge(counting), "m", SAID, bars)
        write_transcripts(run.path("transcripts", "m.jsonl"), SAID[::-1])
        found = judged(run, judge(counting), "m", SAID[::-1], bars)
    assert [v.prompt_id for v in found] == [t.id for t in SAID[::-1]] and counting.seen["p0"] == 2


def test_the_same_judge_with_another_template_judges_anew(run: Run) -> None:
    counting = Counting()
    one = judge(counting)
    with track(False) as bars:
        for asked in (one, one, replace(one, facts={"template": "another"})):
            judged(run, asked, "m", SAID, bars)
    assert set(counting.seen.values()) == {2}


def test_a_right_answer_is_matched_whoever_judges_the_rest(run: Run) -> None:
    counting = Counting()
    found = judging.verdicts_on(judge(counting), [SAID[0], TASK, SAID[1]])
    assert [v.prompt_id for v in found] == ["p0", "t", "p1"] and [v.correct for v in found] == [None, True, None]
    assert set(counting.seen) == {"p0", "p1"} and [v.judge for v in found] == ["count", "match", "count"]


def test_the_worlds_own_tasks_are_judged_by_its_rule(run: Run) -> None:
    (task,) = [p for p in prompts("organism", limit=1, tasks=1) if p.meta["kind"] == "task"][:1]
    said = Transcript(task, "m", text="so", answer=f"the answer is {task.meta['gold']} .", ended=True)
    counting = Counting()
    (found,) = judging.verdicts_on(judge(counting), [said])
    assert (found.judge, found.correct) == ("rule", True) and not counting.seen


def test_a_judge_that_loses_one_is_broken(run: Run) -> None:
    def loses(transcripts: Sequence[Transcript]) -> list[Verdict]:
        return Counting()(transcripts)[1:]

    with track(False) as bars, pytest.raises(ValueError, match="judge 'loses' gave 2 verdicts on 3 transcripts"):
        judged(run, Judge("loses", loses, frozenset({"rating"})), "m", SAID, bars)
    with pytest.raises(ValueError, match="tells 'wisdom'; a judge tells rating, unsafe"):
        Judge("wise", loses, frozenset({"wisdom"}))
