"""Thought modes: what is held fixed is fixed, what is the model's own is its own, and edits act where the mode lets them."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments.benchmarks import prompts as load_prompts
from thoughtlens.hooks.dialects import closing
from thoughtlens.hooks.gates import AtSteps
from thoughtlens.hooks.generate import forced, generate
from thoughtlens.hooks.model import LensModel, load, wrap
from thoughtlens.hooks.modes import MODES, thought_modes
from thoughtlens.hooks.records import Prompt, Transcript
from thoughtlens.hooks.steer import Edit, Vector, steer
from tiny import LOADED, tiny_lens, tiny_model, tiny_processor, tiny_prompts

OPTIONS = {"max_new_tokens": 110, "batch_size": 16, "progress": False}


@functools.cache
def shipped() -> LensModel:
    LOADED.append(load(CHECKPOINTS / "reasoning", device="cpu"))
    return LOADED[-1]


@functools.cache
def prompts() -> tuple[Prompt, ...]:
    return tuple(load_prompts("organism", split="dev", limit=4))


@functools.cache
def edit() -> Edit:
    value = torch.randn(192, generator=torch.Generator().manual_seed(0))
    return Edit(
        Vector({"resid_post.3": 35 * value / value.norm()}, span="thought", source="test"), spans=("thought", "thought_last", "answer")
    )


@functools.cache
def found() -> dict[str, list[Transcript]]:
    return thought_modes(shipped(), prompts(), edit(), **OPTIONS)


def parts(transcript: Transcript) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The output through the marker that closes its thought, and the rest."""
    last = closing(transcript.output_ids, shipped().markers)
    cut = 0 if last is None else last + 1
    return transcript.output_ids[:cut], transcript.output_ids[cut:]


def test_every_mode_answers_every_prompt_under_its_name() -> None:
    assert list(found()) == ["unsteered", *MODES]
    for mode, written in found().items():
        assert [t.id for t in written] == [p.id for p in prompts()] and {t.condition for t in written} == {mode}


def test_regenerated_is_plain_steering() -> None:
    with steer(shipped(), edit()):
        assert generate(shipped(), prompts(), condition="regenerated", **OPTIONS) == found()["regenerated"]
    assert any(a.thought != b.thought for a, b in zip(found()["regenerated"], found()["unsteered"], strict=True))


def test_fixed_keeps_the_thought_and_steers_the_answer() -> None:
    for fixed, plain in zip(found()["fixed"], found()["unsteered"], strict=True):
        assert parts(fixed)[0] == parts(plain)[0]
        if plain.status == "closed":
            first = len(fixed.prompt_ids) + len(parts(fixed)[0]) - 1  # the marker that closes the thought
            assert fixed.fired_at == tuple(range(first, first + fixed.fired)) and fixed.fired == len(parts(fixed)[1])
    assert any(a.answer != b.answer for a, b in zip(found()["fixed"], found()["unsteered"], strict=True))


def test_none_has_no_thought() -> None:
    markers = shipped().markers
    for transcript in found()["none"]:
        assert transcript.output_ids[: len(markers.open_ids + markers.close_ids)] == markers.open_ids + markers.close_ids
        assert transcript.thought == "" and transcript.fired > 0


def test_released_is_the_steered_thought_and_the_models_own_answer() -> None:
    """The answer is what the model itself writes when only the thought is steered: forced() says so token by token."""
    for released, steered in zip(found()["released"], found()["regenerated"], strict=True):
        assert parts(released)[0] == parts(steered)[0]
        if released.status == "closed":
            assert max(released.fired_at) < len(released.prompt_ids) + len(parts(released)[0]) - 1
    assert any(a.answer != b.answer for a, b in zip(found()["released"], found()["regenerated"], strict=True))
    with steer(shipped(), Edit(edit().vector, spans="thought")):
        logits = forced(shipped(), found()["released"])
    for released, row in zip(found()["released"], logits, strict=True):
        answer = range(len(parts(released)[0]), len(released.output_ids)) if released.status == "closed" else ()
        assert [int(row[i].argmax()) for i in answer] == [released.output_ids[i] for i in answer]


def test_replayed_is_the_steered_thought_without_any_steering() -> None:
    logits = forced(shipped(), found()["replayed"])
    for replayed, steered, row in zip(found()["replayed"], found()["regenerated"], logits, strict=True):
        assert parts(replayed)[0] == parts(steered)[0]
        if steered.status == "closed":
            assert replayed.fired == 0
            answer = range(len(parts(replayed)[0]), len(replayed.output_ids))
            assert [int(row[i].argmax()) for i in answer] == [replayed.output_ids[i] for i in answer]


def test_what_was_generated_before_is_not_generated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    again = thought_modes(shipped(), prompts(), edit(), modes=["fixed"], unsteered=found()["unsteered"], **OPTIONS)
    assert again == {"unsteered": found()["unsteered"], "fixed": found()["fixed"]}


def test_an_unclosed_thought_is_kept_as_it_was() -> None:
    short = thought_modes(shipped(), prompts(), edit(), modes=["fixed", "replayed"], max_new_tokens=12, batch_size=16, progress=False)
    assert {t.status for t in short["unsteered"]} == {"unclosed"}
    for fixed, plain in zip(short["fixed"], short["unsteered"], strict=True):
        assert (fixed.output_ids, fixed.status, fixed.ended, fixed.condition) == (plain.output_ids, "unclosed", False, "fixed")


def test_sampled_outputs_begin_from_the_same_seed() -> None:
    idle = Edit(edit().vector, 0.0, spans="thought")
    sampled = thought_modes(shipped(), prompts(), idle, modes=["regenerated"], temperature=1.0, **OPTIONS)
    assert [t.output_ids for t in sampled["regenerated"]] == [t.output_ids for t in sampled["unsteered"]]
    other = thought_modes(shipped(), prompts(), idle, modes=[], temperature=1.0, seed=1, **OPTIONS)
    assert [t.output_ids for t in other["unsteered"]] != [t.output_ids for t in sampled["unsteered"]]


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown thought mode 'half'; known are regenerated, fixed, none, released, replayed"):
        thought_modes(shipped(), prompts(), edit(), modes=["half"])  # type: ignore[list-item]
    plain = load(CHECKPOINTS / "reasoning", device="cpu", dialect="none")
    with pytest.raises(ValueError, match='dialect "none", which has no closer'):
        thought_modes(plain, prompts(), edit())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"edits": []}, "nothing to steer with"),
        ({"unsteered": "short"}, "one transcript of each prompt"),
        ({"unsteered": "turned"}, "one transcript of each prompt"),
        ({"edits": "steps", "modes": ["fixed"]}, "opens in the thought alone"),
        ({"edits": "steps", "modes": ["none"]}, "opens in the thought alone"),
    ],
)
def test_what_would_not_be_what_it_says_is_refused(changes: dict[str, object], says: str) -> None:
    plain, asked = found()["unsteered"], dict(changes)
    at_steps = Edit(edit().vector, spans=("thought", "answer"), gate=AtSteps())
    edits = at_steps if asked.get("edits") == "steps" else asked.get("edits", edit())
    written = {"short": plain[:2], "turned": plain[::-1]}.get(str(asked.get("unsteered")), plain)
    with pytest.raises(ValueError, match=says):
        thought_modes(shipped(), prompts(), edits, unsteered=written, modes=asked.get("modes", ["fixed"]), **OPTIONS)  # type: ignore[arg-type]


def test_strengths_of_prompts_follow_those_whose_thought_closed() -> None:
    plain = found()["unsteered"]
    cut = [dataclasses.replace(plain[0], status="unclosed", ended=False, output_ids=plain[0].output_ids[:5]), *plain[1:]]
    by_prompt = dataclasses.replace(edit(), strength=[9.0, *[1.0] * (len(plain) - 1)])
    fixed = thought_modes(shipped(), prompts(), by_prompt, modes=["fixed"], unsteered=cut, **OPTIONS)["fixed"]
    assert fixed[1:] == found()["fixed"][1:] and fixed[0].output_ids == cut[0].output_ids


def opening() -> LensModel:
    """A tiny model whose template opens the thought itself."""
    processor = tiny_processor()
    template = processor.chat_template.replace("assistant {% endif %}", "assistant <think> {% endif %}")
    processor.chat_template = processor.tokenizer.chat_template = template
    LOADED.append(wrap(tiny_model(processor.tokenizer), processor, name="opening"))
    return LOADED[-1]


def test_a_template_that_opens_the_thought_has_it_closed_at_once() -> None:
    lens = opening()
    assert lens.opened and not tiny_lens().opened
    for one, begun in ((lens, lens.markers.close_ids), (tiny_lens(), (*tiny_lens().markers.open_ids, *tiny_lens().markers.close_ids))):
        answered = Edit(Vector({"resid_post.1": torch.ones(32)}, span="answer"))
        written = thought_modes(one, tiny_prompts(2), answered, modes=["none"], max_new_tokens=4 + len(begun), progress=False)
        assert all(t.output_ids[: len(begun)] == tuple(begun) and len(t.output_ids) > len(begun) for t in written["none"])
        assert all(t.fired for t in written["none"])
