"""Checkpoints and endpoints answer into a run folder; killed anywhere, nobody is asked twice, and nothing is taken for something else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments.audit import answering
from thoughtlens.experiments.audit.answering import Respondent, Writing, answers, limit_of, respondents
from thoughtlens.experiments.benchmarks import prompts
from thoughtlens.experiments.progress import track
from thoughtlens.experiments.run import Run, open_run
from thoughtlens.hooks.records import Prompt, Skipped, Transcript

ASKED = prompts("organism", limit=3)
SHORT = Writing(max_new_tokens=6, batch_size=2, device="cpu")
REASONING, VECTOR = f"reasoning={CHECKPOINTS / 'reasoning'}", f"reasoning={CHECKPOINTS / 'vectors' / 'headline.safetensors'}"
SERVED = Respondent("served", "toy@http://127.0.0.1:9/v1")


def answered(run: Run, who: Sequence[Respondent], how: Writing = SHORT, asked: Sequence[Prompt] = ASKED) -> dict[str, list[Transcript]]:
    with track(False) as bars:
        return answers(run, who, asked, how, bars)


def test_a_model_answers_alone_and_steered_and_a_second_start_generates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, who = open_run(tmp_path, {}), respondents([REASONING], [VECTOR])
    found = answered(run, who)
    assert {name: [t.id for t in said] for name, said in found.items()} == dict.fromkeys(
        ["reasoning", "reasoning@headline"], [p.id for p in ASKED]
    )
    assert {t.condition for t in found["reasoning"]} == {"unsteered"} and {t.condition for t in found["reasoning@headline"]} == {"headline"}
    assert sum(t.fired for t in found["reasoning"]) == 0 < sum(t.fired for t in found["reasoning@headline"])
    assert {t.model for said in found.values() for t in said} == {"reasoning"}
    monkeypatch.setattr(answering, "generate", None)
    assert answered(run, who) == found


def test_killed_between_chunks_it_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut, who = open_run(tmp_path / "whole", {}), open_run(tmp_path / "cut", {}), respondents([REASONING])
    answered(whole, who)
    real, calls = answering.generate, iter([True])

    def falls(*args: Any, **options: Any) -> list[Transcript]:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(answering, "generate", falls)
        with pytest.raises(KeyboardInterrupt):
            answered(cut, who)
    assert len((cut.folder / "transcripts" / "reasoning.jsonl").read_text().splitlines()) == 2
    answered(cut, who)
    assert (cut.folder / "transcripts" / "reasoning.jsonl").read_bytes() == (whole.folder / "transcripts" / "reasoning.jsonl").read_bytes()


def test_other_settings_or_another_model_under_the_same_name_are_refused(tmp_path: Path) -> None:
    run = open_run(tmp_path, {})
    answered(run, respondents([REASONING]))
    with pytest.raises(ValueError, match="was written with another max_new_tokens: 6 there, 7 now"):
        answered(run, respondents([REASONING]), Writing(max_new_tokens=7, batch_size=2, device="cpu"))
    with pytest.raises(ValueError, match="was written with another fingerprint"):
        answered(run, [Respondent("reasoning", str(CHECKPOINTS / "safe"))])
    (run.folder / answering.RESPONDENTS).unlink()
    with pytest.raises(ValueError, match="does not say who wrote it"):
        answered(run, respondents([REASONING]))


def test_a_prompt_that_does_not_fit_is_named_or_left_out_and_noted(tmp_path: Path) -> None:
    long = [Prompt("long", " ".join(["the"] * 5000)), *ASKED[:2]]
    run = open_run(tmp_path, {})
    with pytest.raises(ValueError, match="1 prompt cannot be used: .*'long'"):
        answered(run, respondents([REASONING]), asked=long)
    skips = Writing(max_new_tokens=6, batch_size=2, device="cpu", on_error="skip")
    assert [t.id for t in answered(run, respondents([REASONING]), skips, long)["reasoning"]] == [p.id for p in ASKED[:2]]
    assert json.loads((run.folder / "skipped" / "reasoning.jsonl").read_text())["prompt_id"] == "long"


def test_an_endpoint_is_asked_once_and_again_where_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def ask(endpoint: object, prompts: Sequence[Prompt], *, name: str, each: Any, **how: Any) -> Iterator[Transcript | Skipped]:
        asked.append([p.id for p in prompts])
        for i, prompt in enumerate(prompts):
            if len(asked) == 2 and i == 1:
                raise KeyboardInterrupt
            fails = len(asked) == 1 and prompt.id == ASKED[1].id
            one = Skipped(prompt.id, None, "busy") if fails else Transcript(prompt, name, text="so", answer="so", ended=True)
            each(one)
            if len(asked) == 1 and i == 2:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(answering, "ask", ask)
    run = open_run(tmp_path, {})
    for _ in range(2):  # killed after the third prompt, the second of which had failed; then after one more
        with pytest.raises(KeyboardInterrupt):
            answered(run, [SERVED])
    found = answered(run, [SERVED])["served"]
    ids = [p.id for p in ASKED]
    assert asked == [ids, [ids[1], *ids[3:]], ids[3:]]
    assert [t.id for t in found] == ids and {t.answer for t in found} == {"so"}


def test_a_torn_line_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ask(endpoint: object, prompts: Sequence[Prompt], *, name: str, each: Any, **how: Any) -> Iterator[Transcript]:
        asked.append(len(prompts))
        for prompt in prompts:
            each(one := Transcript(prompt, name, text="so", answer="so", ended=True))
            yield one

    monkeypatch.setattr(answering, "ask", ask)
    run = open_run(tmp_path, {})
    answered(run, [SERVED])
    file = run.path("transcripts", "served.jsonl")
    file.write_bytes(file.read_bytes()[:-20])
    assert len(answered(run, [SERVED])["served"]) == len(ASKED) and asked == [len(ASKED), 1]


def test_by_itself_a_model_may_write_as_much_as_its_context_holds_beside_the_prompt() -> None:
    assert limit_of(Writing(), SimpleNamespace(context=512)) == 256 and limit_of(Writing(), SimpleNamespace(context=10**6)) == 2048
    assert limit_of(Writing()) == 2048 and limit_of(Writing(7), SimpleNamespace(context=512)) == 7


def test_what_is_no_respondent_is_said() -> None:
    for models, steered, words in (
        (["checkpoints/base"], [], "has no name: write NAME="),
        (["a/b=checkpoints/base"], [], "a model's name is made of letters"),
        (["a=x", "a=y"], [], "'a' is named twice"),
        (["a=x"], ["b=v.safetensors"], "steers 'b', which is not among the models a"),
        (["a=m@http://127.0.0.1:9/v1"], ["a=v.safetensors"], "whose hidden states cannot be steered"),
    ):
        with pytest.raises(ValueError, match=words):
            respondents(models, steered)
    with pytest.raises(ValueError, match="unknown dialect 'thunk'"):
        Writing(dialect="thunk")
    assert [one.file for one in respondents(["a=x", "b=y"], ["a=up.safetensors"])] == ["a", "a@up", "b"]
