"""Generation: plain transformers when unsteered, in the order given, replaying what was written, and telling what ended."""

from __future__ import annotations

import copy
import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from replay import begin
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.gates import FirstTokens, ProbeGate
from thoughtlens.hooks.generate import forced, generate
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.records import Prompt
from thoughtlens.hooks.select import Select
from thoughtlens.hooks.steer import Vector, monitor, steer
from tiny import tiny_lens, tiny_prompts, tiny_transcripts


@pytest.fixture
def lens() -> LensModel:
    return tiny_lens()


def vector(site: str = "resid_post.1", span: str = "last_prompt") -> Vector:
    return Vector({site: torch.randn(32, generator=torch.Generator().manual_seed(0))}, span=span, source="test", scale={site: 3.0})


def ended_early(lens: LensModel) -> LensModel:
    """The same model with a word it often writes as its end token."""
    outputs = [t.output_ids for t in generate(lens, tiny_prompts(6), max_new_tokens=10, progress=False)]
    words = [token for output in outputs for token in set(output[1:8])]
    end = max(set(words), key=lambda token: (words.count(token), token))
    return dataclasses.replace(lens, markers=dataclasses.replace(lens.markers, eos_ids=(end,)))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_unsteered_it_is_transformers_greedy(kind: str, batch_size: int) -> None:
    lens, prompts = tiny_lens(kind), tiny_prompts(5, images=(0, 1, 2), systems=(None, "you are kind"))
    ours = generate(lens, prompts, max_new_tokens=6, batch_size=batch_size, progress=False)
    for prompt, transcript in zip(prompts, ours, strict=True):
        inputs = encode(lens, [prompt]).inputs
        ids = lens.model.generate(**inputs, max_new_tokens=6, do_sample=False, suppress_tokens=[lens.frame.image_token_id])[0].tolist()
        length = inputs["input_ids"].shape[1]
        assert transcript.prompt == prompt and transcript.model == lens.name and transcript.condition == "unsteered"
        assert [*transcript.prompt_ids, *transcript.output_ids] == ids
        assert transcript.text == lens.tokenizer.decode(ids[length:])
        assert (transcript.ended, transcript.fired) == (False, 0)


def test_ended_and_truncated_are_told_apart(lens: LensModel) -> None:
    early = ended_early(lens)
    prompts = tiny_prompts(6)
    written = generate(early, prompts, max_new_tokens=10, batch_size=3, progress=False)
    (end,) = early.markers.eos_ids
    assert {t.ended for t in written} == {True, False}
    for transcript in written:
        assert transcript.ended == (end in transcript.output_ids)
        assert len(transcript.output_ids) == (transcript.output_ids.index(end) + 1 if transcript.ended else 10)
        assert lens.tokenizer.decode([end]) not in transcript.text.split()
    assert written == [generate(early, [prompt], max_new_tokens=10, progress=False)[0] for prompt in prompts]


def test_thought_and_answer_are_split_on_token_ids(lens: LensModel) -> None:
    given = tiny_transcripts(lens, tiny_prompts(3), statuses=("closed", "unclosed", "absent"))
    prefixes = [t.output_ids[:-1] for t in given]
    written = generate(lens, [t.prompt for t in given], prefixes=prefixes, max_new_tokens=1, progress=False)
    for before, after in zip(given, written, strict=True):
        assert after.output_ids[:-1] == before.output_ids[:-1] and len(after.output_ids) == len(before.output_ids)
        if lens.tokenizer.decode(after.output_ids[-1]) != "</think>":
            assert after.status == before.status
            assert after.thought.startswith(before.thought if before.status == "closed" else before.thought[:-2])
            assert (after.answer == "") == (before.status == "unclosed")


@pytest.mark.parametrize("steered", [False, True])
def test_a_replayed_beginning_is_gone_on_with(lens: LensModel, steered: bool) -> None:
    prompts = tiny_prompts(5, images=(0, 1))
    with steer(lens, vector(), spans=["last_prompt", "answer"], strength=float(steered)):
        whole = generate(lens, prompts, max_new_tokens=9, progress=False)
        cut = [0, 1, 3, 5, 8]
        prefixes = [t.output_ids[:n] for t, n in zip(whole, cut, strict=True)]
        again = [
            generate(lens, [prompt], prefixes=[prefix], max_new_tokens=9 - n, progress=False)[0]
            for prompt, prefix, n in zip(prompts, prefixes, cut, strict=True)
        ]
        together = generate(lens, prompts, prefixes=prefixes, max_new_tokens=1, progress=False)
    assert again == whole  # fires inside the replayed part count too
    assert [t.output_ids for t in together] == [t.output_ids[: n + 1] for t, n in zip(whole, cut, strict=True)]


def test_transcripts_keep_the_order_and_prompts_their_strengths(lens: LensModel) -> None:
    prompts = tiny_prompts(7, images=(0, 2, 1), seed=2)
    strengths = [0.0, 2.0, 0.0, -2.0, 1.0, 0.0, 3.0]
    with steer(lens, vector(), strength=strengths, spans="all") as steering:
        together = generate(lens, prompts, max_new_tokens=5, batch_size=2, progress=False)
        assert steering.report()["rows_fired"] == 4
        again = forced(lens, together, batch_size=3)
    assert [t.prompt for t in together] == prompts
    assert [t.fired > 0 for t in together] == [strength != 0 for strength in strengths]
    for prompt, strength, transcript, logits in zip(prompts, strengths, together, again, strict=True):
        with steer(lens, vector(), strength=strength, spans="all"):
            (alone,) = generate(lens, [prompt], max_new_tokens=5, progress=False, condition=transcript.condition)
            assert alone == transcript
            torch.testing.assert_close(forced(lens, [alone])[0], logits, atol=2e-4, rtol=1e-4)


def test_rows_are_picked_per_prompt(lens: LensModel) -> None:
    prompts = tiny_prompts(5)
    on = torch.tensor([False, True, False, False, True])
    with steer(lens, vector(), spans=["last_prompt", "thought", "answer", "marker"], gate=FirstTokens(2)) as steering:
        steering.rows = on
        fired = [t.fired for t in generate(lens, prompts, max_new_tokens=4, batch_size=2, progress=False)]
    assert fired == [0, 3, 0, 0, 3]


def test_after_generating_a_forward_by_hand_is_a_prompt_again(lens: LensModel) -> None:
    prompts = tiny_prompts(2, images=(0,))
    with steer(lens, vector()) as steering, torch.no_grad():
        generate(lens, prompts, prefixes=[[9, 10], [9, 10]], max_new_tokens=2, progress=False)
        batch = encode(lens, prompts, prefixes=[[9, 10], [9, 10]])
        lens.model(**batch.inputs)
        assert steering.clock.mask("last_prompt").nonzero().tolist() == [[row, batch.inputs["input_ids"].shape[1] - 1] for row in range(2)]


def test_sampling_repeats_with_its_seed(lens: LensModel) -> None:
    def sample(seed: int) -> list[tuple[int, ...]]:
        torch.manual_seed(seed)
        return [t.output_ids for t in generate(lens, tiny_prompts(3), max_new_tokens=8, temperature=2.0, progress=False)]

    assert sample(0) == sample(0) != sample(1)


def test_the_checkpoints_generation_config_neither_acts_nor_changes(lens: LensModel) -> None:
    plain = generate(lens, tiny_prompts(3), max_new_tokens=6, progress=False)
    kept = lens.model.generation_config
    lens.model.generation_config = copy.deepcopy(kept)
    lens.model.generation_config.update(repetition_penalty=3.0, do_sample=True, temperature=5.0, top_k=3)
    before = lens.model.generation_config.to_dict()
    try:
        assert generate(lens, tiny_prompts(3), max_new_tokens=6, progress=False) == plain
        assert lens.model.generation_config.to_dict() == before
    finally:
        lens.model.generation_config = kept


def test_the_condition_names_what_is_steered(lens: LensModel) -> None:
    with steer(lens, vector(), strength=0.5):
        (one,) = generate(lens, tiny_prompts(1), max_new_tokens=2, progress=False)
        (two,) = generate(lens, tiny_prompts(1), max_new_tokens=2, progress=False, condition="mine")
    assert one.condition == "test add 0.5 at resid_post.1, last_prompt, always" and two.condition == "mine"


def test_the_progress_bar_comes_on_request(lens: LensModel, capsys: pytest.CaptureFixture[str]) -> None:
    generate(lens, tiny_prompts(2), max_new_tokens=1, progress=False)
    assert not capsys.readouterr().err
    generate(lens, tiny_prompts(2), max_new_tokens=1)
    shown = capsys.readouterr()
    assert "2/2" in shown.err and not shown.out  # standard output belongs to what came out


def test_no_prompts_give_no_transcripts(lens: LensModel) -> None:
    assert generate(lens, [], progress=False) == [] == forced(lens, [])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"max_new_tokens": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"prefixes": [[9]]}, "1 prefixes for 2 prompts"),
        ({"prefixes": [[9], [9, 2, 9]]}, "prefix of 'p1' holds the end token"),
        ({"temperature": 0.0}, "greedy"),
    ],
)
def test_what_cannot_be_generated_is_refused(lens: LensModel, asked: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        generate(lens, tiny_prompts(2), progress=False, **asked)  # type: ignore[arg-type]


def test_beams_are_refused(lens: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens.model.generation_config, "num_beams", 4)
    with pytest.raises(ValueError, match="4 beams.*num_beams = 1"):
        generate(lens, tiny_prompts(1), progress=False)


def test_beams_of_a_call_by_hand_are_refused_too(lens: LensModel) -> None:
    prompts = tiny_prompts(2, images=(0,))
    batch = encode(lens, prompts)
    with pytest.raises(ValueError, match="num_beams"):
        with steer(lens, vector()) as steering:
            steering.expect(batch.prompt_lengths)
            lens.model.generate(**batch.inputs, num_beams=2, max_new_tokens=3)


def test_forced_wants_the_prompt_ids_of_this_template(lens: LensModel) -> None:
    (transcript,) = tiny_transcripts(lens, tiny_prompts(1))
    other = dataclasses.replace(transcript, prompt=Prompt("p0", "open the door"))
    with pytest.raises(ValueError, match="transcript 'p0' was written by .* from other prompt tokens"):
        forced(lens, [other])
    with pytest.raises(ValueError, match="no output to force"):
        forced(lens, [dataclasses.replace(transcript, output_ids=())])


def test_forced_is_a_plain_forward(lens: LensModel) -> None:
    transcripts = tiny_transcripts(lens, tiny_prompts(4, images=(1, 0)), statuses=("closed", "unclosed", "absent"))
    for transcript, logits in zip(transcripts, forced(lens, transcripts, batch_size=2), strict=True):
        with torch.no_grad():
            plain = lens.model(**begin(lens, [transcript], 100).inputs, use_cache=False).logits[0]
        start = len(transcript.prompt_ids) - 1
        torch.testing.assert_close(logits, plain[start:-1], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("temperature", [None, 2.0])
def test_no_field_of_the_generation_config_leaks_in(lens: LensModel, recorded: bool, temperature: float | None, tmp_path: Path) -> None:
    """transformers fills what a call leaves open with the checkpoint's own config."""
    prompts = tiny_prompts(3, images=(0, 1))

    def written(number: int) -> list[tuple[int, ...]]:
        torch.manual_seed(0)
        kept: Any = {"where": Select("resid_post.0", "last_prompt"), "into": tmp_path / str(number)} if recorded else {}
        made = generate(lens, prompts, max_new_tokens=12, temperature=temperature, progress=False, **kept)
        return [transcript.output_ids for transcript in made]

    plain, own = written(0), lens.model.generation_config
    first = plain[0][0]
    asks: tuple[dict[str, Any], ...] = (
        {"no_repeat_ngram_size": 1, "min_p": 0.9},
        {"bad_words_ids": [[first]], "typical_p": 0.1},
        {"begin_suppress_tokens": [first]},
        {"sequence_bias": [[[first], -50.0]], "epsilon_cutoff": 0.2},
        {"stop_strings": ["e"]},
    )
    try:
        for number, fields in enumerate(asks, 1):
            lens.model.generation_config = copy.deepcopy(own)
            for field, value in fields.items():
                setattr(lens.model.generation_config, field, value)
            kept = lens.model.generation_config
            assert written(number) == plain, fields
            assert lens.model.generation_config is kept
    finally:
        lens.model.generation_config = own


def test_forced_says_where_another_rendering_differs(lens: LensModel) -> None:
    (transcript,) = tiny_transcripts(lens, [Prompt("p0", "open the old box")])
    other = dataclasses.replace(transcript, prompt=Prompt("p0", "open the old door"))
    ids = encode(lens, [other.prompt]).ids[0]
    at = next(i for i, (a, b) in enumerate(zip(transcript.prompt_ids, ids, strict=True)) if a != b)
    with pytest.raises(ValueError, match=f"from token {at} on, around '.*old box.*' there and '.*old door.*' here.*the date"):
        forced(lens, [other])


@pytest.mark.parametrize("steered", [False, True])
def test_forced_token_by_token_is_forced_at_once(lens: LensModel, steered: bool) -> None:
    transcripts = tiny_transcripts(lens, tiny_prompts(5, images=(0, 1, 0)), statuses=("closed", "absent", "unclosed"), seed=4)
    with steer(lens, vector(span="all")) if steered else nullcontext() as steering:
        once = forced(lens, transcripts)
        again = forced(lens, transcripts, batch_size=2, stepwise=True)
        assert not steered or steering.fired_total > 0
    for a, b in zip(once, again, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-4)


def test_a_gate_that_reads_after_the_steered_site_is_followed_token_by_token(lens: LensModel) -> None:
    weight = torch.randn(32, generator=torch.Generator().manual_seed(3))
    prompts = tiny_prompts(6, images=(0,))
    probe = ProbeGate(weight, 0.0, "resid_post.2", 0.0)
    with monitor(lens, {"p": probe}) as watching:
        generate(lens, prompts, max_new_tokens=1, progress=False)
    read = sorted(float(held.scores["p"][0]) for held in watching.watched)
    gate = dataclasses.replace(probe, threshold=(read[2] + read[3]) / 2)
    with steer(lens, vector("resid_post.0", "answer"), gate=gate):
        written = generate(lens, prompts, max_new_tokens=6, progress=False)
        logits = forced(lens, written, stepwise=True)
        with pytest.raises(ValueError, match="cannot wait for it"):
            forced(lens, written)
    assert sum(t.fired > 0 for t in written) == 3
    for transcript, row in zip(written, logits, strict=True):
        row[:, lens.frame.image_token_id] = -torch.inf
        assert row.argmax(-1).tolist() == list(transcript.output_ids)
