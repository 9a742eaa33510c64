"""The clock: what it says while tokens arrive is what spans.resolve says of the finished sequence."""

from __future__ import annotations

import contextlib
import dataclasses
import random

import pytest
import torch
from replay import begin, replay
from thoughtlens.hooks.clock import Clock
from thoughtlens.hooks.dialects import split
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.frame import token_kinds
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.records import Transcript
from thoughtlens.hooks.spans import resolve
from thoughtlens.hooks.tick import on_time
from tiny import tiny_lens, tiny_prompts, tiny_transcripts
from transformers import DynamicCache
from zoo import FAMILIES_TINY, zoo_lens, zoo_prompts

SPANS = (
    *("last_prompt", "thought", "thought_first", "thought_last", "answer_first", "answer", "all"),
    *("prompt", "image", "instruction", "template"),
    *("step_end[0]", "step_end[1]", "step[0]", "step[1]", "thought[:3]", "thought[2:5]", "thought[1:]", "answer[:2]", "all[3:9]", "marker"),
    *("prompt[-2:]", "prompt[:-3]", "image[-1:]", "instruction@0.5", "image@1.0"),
)


def streamed(
    lens: LensModel, transcripts: list[Transcript], written: int, side: str, spans: tuple[str, ...] = SPANS
) -> list[dict[str, list[int]]]:
    """Positions of each span in each row: a prefill of the prompt and `written` output tokens, then one token after another."""
    batch = begin(lens, transcripts, written, side)
    found: list[dict[str, list[int]]] = [{span: [] for span in spans} for _ in transcripts]
    clock = Clock(lens, spans)
    clock.expect(batch.prompt_lengths)

    def look(*_: object) -> None:
        for span in spans:
            for row, column in clock.mask(span).nonzero().tolist():
                found[row][span].append(int(clock.now.position[row, column]))

    handles = [clock.attach(), lens.inner.register_forward_pre_hook(look)]
    try:
        replay(lens, transcripts, batch, written)
    finally:
        for handle in handles:
            handle.remove()
    return found


def resolved(lens: LensModel, transcript: Transcript, span: str) -> list[int]:
    """The same from the finished sequence, without the end token."""
    ids, length = [*transcript.prompt_ids, *transcript.output_ids], len(transcript.prompt_ids)
    kinds = token_kinds(ids, length, lens.frame, lens.markers)
    positions: list[int] = resolve(span, kinds, ids, lens.markers, prompt_end=length).tolist()
    return [p for p in positions if not (p >= length and ids[p] in lens.markers.eos_ids)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("written", [0, 4])
def test_spans_of_arriving_tokens_are_those_of_the_whole(side: str, written: int) -> None:
    lens = tiny_lens()
    prompts = tiny_prompts(5, images=(0, 1, 2, 0, 0), seed=3)
    transcripts = tiny_transcripts(lens, prompts, statuses=("closed", "absent", "closed", "multiple", "closed"), seed=written)
    found = streamed(lens, transcripts, written, side)
    for transcript, spans in zip(transcripts, found, strict=True):
        for span in SPANS:
            assert spans[span] == resolved(lens, transcript, span), (transcript.id, transcript.status, span)
    assert all(any(spans[span] for spans in found) for span in SPANS)  # nothing agreed by being empty everywhere


@pytest.mark.parametrize("family", FAMILIES_TINY)
def test_every_family_tells_the_clock_where_it_is(family: str) -> None:
    lens, prompts = zoo_lens(family), zoo_prompts(family, 4, seed=3)
    prompts = prompts if lens.family.mixes else prompts[1::2]
    transcripts = tiny_transcripts(lens, prompts, statuses=("closed", "multiple", "absent", "closed"), seed=1)
    spans = (
        "last_prompt",
        "thought",
        "thought_last",
        "step_end[0]",
        "answer",
        "image",
        "instruction",
        "template",
        "image[-1:]",
        "prompt[-2:]",
    )
    for transcript, found in zip(transcripts, streamed(lens, transcripts, 4, "left", spans), strict=True):
        for span in spans:
            assert found[span] == resolved(lens, transcript, span), (transcript.id, transcript.status, span)


def test_headings_and_tags_are_no_thought_while_they_arrive_either() -> None:
    plain = tiny_lens()
    heading, tag, last = ((int(plain.tokenizer.convert_tokens_to_ids(word)),) for word in ("take", "sorry", "slowly"))
    lens = dataclasses.replace(plain, markers=dataclasses.replace(plain.markers, inners=(heading,), answers=(tag,), trailings=(last,)))
    transcripts = tiny_transcripts(lens, tiny_prompts(24), statuses=("closed", "absent", "multiple"), seed=5)
    assert {*heading, *tag, *last} <= {token for t in transcripts for token in t.output_ids}
    found = streamed(lens, transcripts, 0, "left")
    # where the first marker comes late, what lies before it is only told later
    known = [split(t.output_ids, lens.markers).thought[0] == 1 for t in transcripts]
    assert sum(known) > 10
    for transcript, spans in ((t, spans) for t, spans, early in zip(transcripts, found, known, strict=True) if early):
        for span in (span for span in SPANS if not span.startswith("step[")):  # a tag may end the thought before the step has ended
            assert spans[span] == resolved(lens, transcript, span), (transcript.id, transcript.status, span)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("written", [0, 4])
def test_blanks_begin_no_thought_and_end_no_empty_step_while_they_arrive_either(side: str, written: int) -> None:
    plain = tiny_lens()
    names = ("the", "box", "ok", "sorry", "first")
    line, *others = (int(plain.tokenizer.convert_tokens_to_ids(word)) for word in names)
    blank, ends = plain.markers.blank.clone(), plain.markers.step_end.clone()
    blank[[line, others[0]]] = ends[[line, others[1]]] = True
    lens = dataclasses.replace(plain, markers=dataclasses.replace(plain.markers, blank=blank, step_end=ends))
    chance = random.Random(3)
    dot, word = (int(plain.tokenizer.convert_tokens_to_ids(text)) for text in (".", "door"))
    transcripts = []
    for transcript in tiny_transcripts(lens, tiny_prompts(16), statuses=("closed",), seed=7):
        pieces = [[chance.choice([line, line, others[0], others[1], dot, word]) for _ in range(chance.randint(0, 9))] for _ in range(2)]
        output = [*lens.markers.open_ids, *pieces[0], *lens.markers.close_ids, *pieces[1], lens.markers.eos_ids[0]]
        transcripts.append(dataclasses.replace(transcript, output_ids=output))
    found = streamed(lens, transcripts, written, side)
    for transcript, spans in zip(transcripts, found, strict=True):
        for span in SPANS:
            theirs = resolved(lens, transcript, span)
            if span.startswith("step["):  # words of a step that never ends are told while they arrive
                theirs = theirs or spans[span]
            assert spans[span] == theirs, (transcript.output_ids, span)
        for span in ("thought_first", "answer_first"):
            assert not any(lens.markers.blank[[*transcript.prompt_ids, *transcript.output_ids][at]] for at in spans[span])
    assert all(any(spans[span] for spans in found) for span in ("step[1]", "step_end[1]", "thought_first", "answer_first"))


def test_a_row_that_has_ended_is_in_no_span() -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(2), statuses=("absent", "multiple"))
    short, long = (len(t.prompt_ids) + len(t.output_ids) for t in transcripts)
    assert short < long
    rows = streamed(lens, transcripts, 0, "left", ("all", "answer"))
    assert rows[0]["all"] == list(range(short - 1))  # the end token, and the padding after it, are not there
    assert rows[0]["answer"] == list(range(len(transcripts[0].prompt_ids), short - 1))


def test_an_open_thought_holds_what_was_written_so_far() -> None:
    lens = tiny_lens()
    (transcript,) = tiny_transcripts(lens, tiny_prompts(1), statuses=("unclosed",))
    (spans,) = streamed(lens, [transcript], 0, "left", ("thought", "thought_last", "answer"))
    assert spans["thought"] == resolved(lens, transcript, "thought")[:-1] != []  # the last token of all is written, and never run
    assert spans["thought_last"] == spans["answer"] == []


@pytest.mark.parametrize("span", ["thought[-8:]", "thought@0.5", "step_end[-1]", "answer[:-1]"])
def test_a_span_known_only_at_the_end_is_refused_while_tokens_arrive(span: str) -> None:
    lens = tiny_lens()
    assert not on_time(span)
    with pytest.raises(ValueError, match=r"only known once the output is whole.*thought\[:16\].*forced"):
        streamed(lens, tiny_transcripts(lens, tiny_prompts(1)), 0, "left", (span,))


def run(lens: LensModel, **inputs: object) -> Clock:
    clock = Clock(lens, ["all"])
    handle = clock.attach()
    try:
        lens.model(**inputs)
        for _ in range(2):
            lens.model.generate(**inputs, max_new_tokens=2)
    finally:
        handle.remove()
    return clock


def test_a_cache_filled_before_is_refused() -> None:
    lens = tiny_lens()
    cache = DynamicCache(config=lens.model.config.get_text_config())
    lens.model(input_ids=torch.tensor([[8, 9, 10]]), past_key_values=cache, use_cache=True)
    with pytest.raises(ValueError, match="the cache holds 3 tokens .* has followed 0.*Begin with an empty cache"):
        run(lens, input_ids=torch.tensor([[11]]), past_key_values=cache)


def test_a_cache_cut_or_reordered_under_way_is_refused() -> None:
    lens = tiny_lens()
    clock = Clock(lens, ["all"])
    handle = clock.attach()
    try:
        for change in (lambda cache: cache.crop(-1), lambda cache: cache.batch_select_indices(torch.tensor([0]))):
            cache = DynamicCache(config=lens.model.config.get_text_config())
            lens.model(input_ids=torch.tensor([[8, 9, 10], [8, 9, 11]]), past_key_values=cache, use_cache=True)
            change(cache)
            rows = cache.layers[0].keys.shape[0]
            with pytest.raises(ValueError, match="cropped or reordered"):
                lens.model(input_ids=torch.full((rows, 1), 12), past_key_values=cache, use_cache=True)
    finally:
        handle.remove()


def test_embeddings_without_ids_are_refused() -> None:
    lens = tiny_lens()
    with pytest.raises(ValueError, match="Pass input_ids"):
        run(lens, inputs_embeds=torch.zeros(1, 3, lens.width))


@pytest.mark.parametrize("side", ["left", "right"])
def test_generation_without_a_cache_is_followed(side: str) -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(3, images=(0,), seed=2), statuses=("closed", "absent", "multiple"))
    batch = begin(lens, transcripts, 0, side)
    clock = Clock(lens, SPANS)
    found: list[dict[str, set[int]]] = [{span: set() for span in SPANS} for _ in transcripts]

    def look(*_: object) -> None:
        assert clock.now.start and clock.now.regrown == (clock.now.ids.shape[1] > batch.inputs["input_ids"].shape[1])
        for span in SPANS:
            for row, column in clock.mask(span).nonzero().tolist():
                found[row][span].add(int(clock.now.position[row, column]))

    handles = [clock.attach(), lens.inner.register_forward_pre_hook(look)]
    try:
        replay(lens, transcripts, batch, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    for transcript, spans in zip(transcripts, found, strict=True):
        for span in SPANS:
            assert sorted(spans[span]) == resolved(lens, transcript, span), (transcript.id, span)


def test_a_prompt_in_pieces_is_refused() -> None:
    with pytest.raises(ValueError, match="prefill_chunk_size"):
        run(tiny_lens(), input_ids=torch.tensor([[8, 9, 10, 11]]), prefill_chunk_size=2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_static_cache_tells_the_padding_too(side: str) -> None:
    lens = tiny_lens()
    batch = encode(lens, tiny_prompts(3, images=(0,)), side=side)
    clock = Clock(lens, ["last_prompt"])
    seen = []
    handles = [clock.attach(), lens.inner.register_forward_pre_hook(lambda *_: seen.append(clock.mask("last_prompt")))]
    try:
        lens.model.generate(**batch.inputs, max_new_tokens=3, cache_implementation="static")
    finally:
        for handle in handles:
            handle.remove()
    assert [mask.shape[1] for mask in seen] == [batch.inputs["input_ids"].shape[1], 1, 1]
    assert seen[0].nonzero().tolist() == [[row, int(at)] for row, at in enumerate(batch.offsets + batch.lengths - 1)]
    assert not seen[1].any()


def test_a_mask_ready_for_attention_tells_the_padding_however_far_a_layer_sees() -> None:
    """[b, 1, p, kv], by kind of layer: with sliding windows a token far back is not seen, and yet no padding."""
    lens, ids = tiny_lens(), torch.tensor([[0, 0, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17]])
    there, causal = ids != 0, torch.ones(6, 6, dtype=torch.bool).tril()
    whole = (causal[None] & there[:, None])[:, None]
    sliding = whole & ~torch.ones(6, 6, dtype=torch.bool).tril(-2)
    added = torch.zeros(whole.shape).masked_fill(~sliding, torch.finfo(torch.float32).min)
    for mask in ({"sliding_attention": sliding, "full_attention": whole}, {"sliding_attention": sliding}, {"chunked_attention": added}):
        clock = Clock(lens, ["all"])
        handle = clock.attach()
        try:
            with contextlib.suppress(Exception):  # this family takes no such masks; the clock has looked by then
                lens.model(input_ids=ids, attention_mask=mask)
        finally:
            handle.remove()
        assert torch.equal(clock.mask("all"), there)
