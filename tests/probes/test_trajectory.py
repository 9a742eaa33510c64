"""The readout at every token against plain transformers, and where a thought names a word."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from thoughtlens.hooks.capture import capture
from thoughtlens.hooks.records import Transcript
from thoughtlens.hooks.select import Select
from thoughtlens.probes.probe import SCORES, Probe
from thoughtlens.probes.trajectory import _steps, named, trajectory
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

SITE = "resid_post.1"


def a_probe(width: int) -> Probe:
    weight = torch.randn(width, generator=torch.Generator().manual_seed(0))
    return Probe(weight, 0.5, SITE, "thought", "mean", "logistic", "harmful", "m", dict.fromkeys(SCORES, torch.zeros(1)))


def followed(folder: Path, transcripts: list[Transcript], *spans: str) -> pd.DataFrame:
    lens = tiny_lens()
    store = capture(lens, transcripts, Select(SITE, spans, "every"), into=folder, progress=False)
    return trajectory(store, transcripts, a_probe(lens.width), lens)


def test_the_readout_along_the_thought_is_a_dot_product_per_token(tmp_path: Path) -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(3))
    probe, table = a_probe(lens.width), followed(tmp_path / "store", transcripts, "thought", "answer")
    for one in transcripts:
        rows = table[table.prompt_id == one.id]
        words = lens.tokenizer.convert_ids_to_tokens(one.output_ids)
        close = words.index("</think>")
        assert rows.token.tolist() == [word for word in words[:-1] if word not in ("<think>", "</think>")]
        assert rows.kind.tolist() == ["thought"] * (close - 1) + ["answer"] * (len(words) - close - 2)
        assert rows.step.tolist() == [words[1:i].count(".") for i in range(1, close)] + [-1] * (len(words) - close - 2)
        assert rows.boundary.tolist() == [word == "." for word in words[1:close]] + [False] * (len(words) - close - 2)
        assert set(rows.harmful) == {one.prompt.harmful} and set(rows.group) == {one.prompt.group} and set(rows.split) == {one.prompt.split}
        states: list[torch.Tensor] = []
        handle = lens.layers[1].register_forward_hook(lambda module, args, output, states=states: states.append(output))
        ids = torch.tensor([one.prompt_ids + one.output_ids])
        content = [{"type": "image", "image": picture} for picture in one.prompt.images] + [{"type": "text", "text": one.prompt.text}]
        inputs = lens.processor.apply_chat_template(
            [[{"role": "user", "content": content}]], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        kinds = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, len(one.output_ids), dtype=torch.long)], 1)
        with torch.no_grad():
            lens.model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds})
        handle.remove()
        by_hand = states[0][0, [len(one.prompt_ids) + position for position in rows.position]] @ probe.weight + probe.bias
        torch.testing.assert_close(torch.tensor(rows.score.tolist()), by_hand, atol=1e-4, rtol=1e-4)


def test_a_boundary_is_the_token_that_the_span_step_end_names(tmp_path: Path) -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(4))
    table = followed(tmp_path / "all", transcripts, "thought")
    for step in (0, 1):
        store = capture(lens, transcripts, Select(SITE, f"step_end[{step}]", "every"), into=tmp_path / f"end{step}", progress=False)
        begun = {t.id: len(t.prompt_ids) for t in transcripts}
        at = {row.prompt_id: row.start - begun[row.prompt_id] for row in store.index.itertuples()}
        found = table[table.boundary & (table.step == step)].set_index("prompt_id")
        assert found.position.to_dict() == at


def test_the_state_before_the_thought_and_the_marker_that_closes_it_are_no_steps_of_it(tmp_path: Path) -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(4), statuses=("closed", "unclosed"))
    table = followed(tmp_path / "store", transcripts, "last_prompt", "thought", "thought_last", "answer")
    for one in transcripts:
        rows = table[table.prompt_id == one.id]
        assert rows.position.is_monotonic_increasing and rows.position.is_unique
        assert rows.kind.iloc[0] == "template" and rows.position.iloc[0] == -1 and rows.step.isna().iloc[0]
        markers = rows[rows.kind == "marker"]
        assert markers.token.tolist() == (["</think>"] if one.status == "closed" else []) and markers.step.isna().all()
        assert (rows.kind == "answer").any() == (one.status == "closed")


def test_a_newline_alone_is_no_step_and_a_token_beyond_the_tokenizer_is_one_like_others() -> None:
    plain = tiny_lens()
    line, dot, word = (int(plain.tokenizer.convert_tokens_to_ids(text)) for text in ("the", ".", "door"))
    newline = torch.arange(len(plain.markers.step_end)) == line
    lens = replace(plain, markers=replace(plain.markers, blank=newline, step_end=plain.markers.step_end | newline))
    (transcript,) = tiny_transcripts(lens, tiny_prompts(1))
    thought = [line, word, dot, line, 10**6, line, line, word]
    written = replace(transcript, output_ids=[*lens.markers.open_ids, *thought, *lens.markers.close_ids, line, word])
    steps = _steps(written, lens)
    assert [step for step, _ in steps] == [-1, -1, 0, 0, 1, 1, 1, 2, 2, -1, -1, -1]
    assert [at for at, (_, boundary) in enumerate(steps) if boundary] == [3, 6]


def test_a_heading_inside_the_thought_ends_no_step() -> None:
    plain = tiny_lens()
    ok, dot, word = (int(plain.tokenizer.convert_tokens_to_ids(text)) for text in ("ok", ".", "door"))
    lens = replace(plain, markers=replace(plain.markers, inners=((ok, dot),)))
    (transcript,) = tiny_transcripts(plain, tiny_prompts(1))
    written = replace(transcript, output_ids=[*lens.markers.open_ids, word, ok, dot, word, dot, *lens.markers.close_ids])
    assert _steps(written, lens) == [(-1, False), (0, False), (0, False), (0, False), (0, False), (0, True), (-1, False)]


def test_what_cannot_be_followed_is_named(tmp_path: Path) -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(3))
    with pytest.raises(ValueError, match="the store has no span 'thought', only answer. Capture"):
        followed(tmp_path / "answer", transcripts, "answer")
    store = capture(lens, transcripts, Select(SITE, "thought", "every"), into=tmp_path / "thought", progress=False)
    with pytest.raises(ValueError, match="1 prompts of the store have no transcript here, the first is 'p2'"):
        trajectory(store, transcripts[:2], a_probe(lens.width), lens)
    pooled = capture(lens, transcripts, Select(SITE, "thought", "mean"), into=tmp_path / "pooled", progress=False)
    with pytest.raises(ValueError, match="'thought' was pooled .mean., and a trajectory has single tokens"):
        trajectory(pooled, transcripts, a_probe(lens.width), lens)


def thinking(kind: str, text: str, *, answer: str = "ok") -> Transcript:
    """A transcript whose thought is `text`."""
    lens = tiny_lens(kind)
    (one,) = tiny_transcripts(lens, tiny_prompts(1))[:1] if kind == "words" else tiny_transcripts(lens, tiny_prompts(1, images=(0,)))
    spelled = [lens.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (f" {text}", f" {answer}")]
    return replace(one, output_ids=[*lens.markers.open_ids, *spelled[0], *lens.markers.close_ids, *spelled[1], *lens.markers.eos_ids[:1]])


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_a_thing_is_named_where_its_word_is_complete(kind: str) -> None:
    lens = tiny_lens(kind)
    one = thinking(kind, "first take the lock . then turn the lock slowly", answer="the box")
    position = named([one], {one.id: "lock"}, lens)[one.id]
    assert position is not None
    text = [lens.tokenizer.decode(one.output_ids[:stop]) for stop in (position, position + 1)]
    assert not text[0].rstrip().endswith("lock") and text[1].rstrip().endswith("lock") and text[1].count("lock") == 1
    assert named([one], {one.id: "LOCK"}, lens) == {one.id: position}
    assert named([one], {one.id: "box"}, lens) == {one.id: None}, "a mention in the answer is none in the thought"
    assert named([one], {one.id: "loc"}, lens) == named([one], {one.id: "ock"}, lens) == {one.id: None}, "part of a word is no mention"
    phrase = named([one], {one.id: "turn the lock"}, lens)[one.id]
    assert phrase is not None and phrase > position


def test_a_word_is_found_in_any_spelling_into_tokens() -> None:
    lens, chance = tiny_lens("pieces"), random.Random(0)
    for _ in range(40):
        some = [chance.choice("lock locks box open the old safe harmless".split()) for _ in range(12)]
        one = thinking("pieces", " ".join(some))
        position = named([one], {one.id: "lock"}, lens)[one.id]
        if "lock" not in some:
            assert position is None
        else:
            before, upto = (lens.tokenizer.decode(one.output_ids[len(lens.markers.open_ids) : stop]) for stop in (position, position + 1))
            assert upto.split() == some[: some.index("lock") + 1] and before.split() != upto.split()


def test_prompts_without_a_word_are_left_out_and_words_without_a_transcript_are_named() -> None:
    one = thinking("words", "the lock")
    assert named([one], {}, tiny_lens()) == {}
    with pytest.raises(ValueError, match="1 prompts of `words` have no transcript here, the first is 'p9'"):
        named([one], {"p9": "lock"}, tiny_lens())
