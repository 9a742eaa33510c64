"""Token kinds from ids, and spans resolved to positions: by hand, on both padding sides, and under random outputs."""

import random
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thoughtlens.hooks import (
    DIALECTS,
    KINDS,
    Kind,
    Markers,
    Prompt,
    encode,
    is_span,
    kinds_of,
    parse_span,
    resolve,
    split,
    streamable,
    token_kinds,
)
from thoughtlens.hooks.dialects import Stream, output_kinds
from thoughtlens.hooks.spans import ANCHORS, SPANS, STRETCHES
from tiny import tiny_image, tiny_lens, tiny_output, tiny_prompts, tiny_transcripts

LENSES = ("words", "pieces")
OPEN, CLOSE, END, DOT = 1, 2, 0, 3
ENDS = torch.zeros(20, dtype=torch.bool).index_fill(0, torch.tensor([DOT]), True)
MARKERS = Markers(DIALECTS["think"], ((OPEN,),), ((CLOSE,),), ENDS, torch.zeros(20, dtype=torch.bool), (END,))
LINE = 6
LINES = replace(MARKERS, step_end=ENDS.index_fill(0, torch.tensor([LINE]), True), blank=(torch.arange(20) == LINE))
IDS = [9, 8, 8, 7, 7, 9] + [OPEN, 10, DOT, 11, 12, DOT, 13, CLOSE, 14, 15, END]
CODES = [0, 1, 1, 2, 2, 0] + [3, 4, 4, 4, 4, 4, 4, 3, 5, 5, 0]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("template", [0, 5, 16]),
        ("image", [1, 2]),
        ("instruction", [3, 4]),
        ("marker", [6, 13]),
        ("thought", [7, 8, 9, 10, 11, 12]),
        ("answer", [14, 15]),
        ("prompt", [0, 1, 2, 3, 4, 5]),
        ("all", list(range(17))),
        ("last_prompt", [5]),
        ("thought_first", [7]),
        ("thought_last", [13]),
        ("answer_first", [14]),
        ("step[0]", [7, 8]),
        ("step[1]", [9, 10, 11]),
        ("step[2]", []),
        ("step[-1]", [9, 10, 11]),
        ("step[-2]", [7, 8]),
        ("step[-3]", []),
        ("step_end[0]", [8]),
        ("step_end[-1]", [11]),
        ("thought[:2]", [7, 8]),
        ("thought[-2:]", [11, 12]),
        ("thought[1:3]", [8, 9]),
        ("thought[:-4]", [7, 8]),
        ("thought[9:]", []),
        ("thought@0", [7]),
        ("thought@0.5", [10]),
        ("thought@1", [12]),
        ("answer@0.25", [14]),
        ("prompt[-1:]", [5]),
    ],
)
@pytest.mark.parametrize("pads", [(0, 0), (3, 0), (0, 3)])
@pytest.mark.parametrize("told", [True, False])
def test_every_span_by_hand(span: str, expected: list[int], pads: tuple[int, int], told: bool) -> None:
    left, right = pads
    kinds = torch.tensor([6] * left + CODES + [6] * right, dtype=torch.int8)
    ids = [END] * left + IDS + [END] * right
    found = resolve(span, kinds, ids, MARKERS, prompt_end=6 + left if told else None)
    assert (found - left).tolist() == expected
    assert resolve(span, kinds, torch.tensor(ids), MARKERS, prompt_end=6 + left).tolist() == found.tolist()


@pytest.mark.parametrize(
    ("thought", "steps"),
    [
        ([10, DOT, LINE, 11, DOT], [[10, DOT], [LINE, 11, DOT]]),
        ([10, LINE, LINE, 11, LINE], [[10, LINE], [LINE, 11, LINE]]),
        ([10, DOT, LINE, LINE], [[10, DOT]]),
        ([DOT, DOT, LINE, DOT], [[DOT], [DOT], [LINE, DOT]]),
        ([LINE, LINE], []),
        ([99, DOT, LINE, 99, LINE], [[99, DOT], [LINE, 99, LINE]]),  # the model's vocabulary is longer than the tokenizer's
    ],
)
def test_a_step_has_a_word(thought: list[int], steps: list[list[int]]) -> None:
    ids = [9, OPEN, *thought, CLOSE]
    kinds = torch.tensor([Kind.TEMPLATE, Kind.MARKER, *[Kind.THOUGHT] * len(thought), Kind.MARKER])
    found = [[ids[at] for at in resolve(f"step[{i}]", kinds, ids, LINES)] for i in range(len(steps) + 1)]
    assert found == [*steps, []]
    assert [[ids[at] for at in resolve(f"step_end[{i}]", kinds, ids, LINES)] for i in range(len(steps))] == [step[-1:] for step in steps]


def test_an_unclosed_thought_has_no_end_and_no_answer() -> None:
    kinds = torch.tensor(CODES[:12], dtype=torch.int8)
    for span in ("thought_last", "answer", "answer_first"):
        assert resolve(span, kinds, IDS[:12], MARKERS).tolist() == []
    assert resolve("thought[-1:]", kinds, IDS[:12], MARKERS).tolist() == [11]


def test_the_end_token_alone_is_not_the_prompt() -> None:
    kinds = torch.tensor([0, 2, 0, 0], dtype=torch.int8)
    assert resolve("last_prompt", kinds, [9, 7, 9, END], MARKERS).tolist() == [2]
    assert resolve("last_prompt", kinds, [9, 7, 9, END], MARKERS, prompt_end=3).tolist() == [2]


SPAN = st.one_of(
    st.sampled_from([*STRETCHES, *ANCHORS]),
    st.builds("{}[{}]".format, st.sampled_from(["step", "step_end"]), st.integers(-9, 99)),
    st.builds("{}[{}:{}]".format, st.sampled_from(STRETCHES), st.integers(-9, 99), st.one_of(st.just(""), st.integers(-9, 99))),
    st.builds("{}@{}".format, st.sampled_from(STRETCHES), st.sampled_from(["0", "0.5", "0.25", "1", ".5", "1.0", "0.1234567", "0.00001"])),
)


@given(SPAN)
def test_spans_survive_being_written(text: str) -> None:
    span = parse_span(text)
    assert is_span(text) and parse_span(str(span)) == span


@pytest.mark.parametrize(
    "text",
    [
        "thoughts",
        "thought[",
        "thought[:]",
        "thought[1]",
        "step",
        "step[1:2]",
        "last_prompt[:3]",
        "thought@1.5",
        "thought@",
        "",
        "pad",
        "step@0.5",
    ],
)
def test_what_is_no_span_is_named_with_what_is(text: str) -> None:
    assert not is_span(text)
    with pytest.raises(ValueError, match="unknown span|takes|needs|empty window|outside") as error:
        parse_span(text)
    if "unknown" in str(error.value):
        assert all(span in str(error.value) for span in SPANS)


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("systems", [(None,), ("you are safe .", None)])
def test_kinds_of_prompts_say_who_wrote_each_token(kind: str, side: str, systems: tuple[str | None, ...]) -> None:
    lens = tiny_lens(kind)
    prompts = tiny_prompts(6, images=(0, 1, 2), systems=systems, seed=2)
    batch = encode(lens, prompts, side=side)
    kinds = kinds_of(lens, batch)
    assert ((kinds == Kind.PAD) == (batch.inputs["attention_mask"] == 0)).all()
    for row, prompt in enumerate(prompts):
        ids = batch.inputs["input_ids"][row]
        mine = lens.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        assert ids[kinds[row] == Kind.INSTRUCTION].tolist() == mine
        assert ((ids == lens.frame.image_token_id) == (kinds[row] == Kind.IMAGE)).all()
        template = lens.tokenizer.decode(ids[kinds[row] == Kind.TEMPLATE])
        assert (prompt.system or "user") in template and "assistant" in template


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize(
    "text",
    [
        "assistant user assistant",
        "<|im_end|> <|im_start|> assistant ok",
        "<|im_start|> user ok <|im_start|> user",
        "no <|im_end|>\n<|im_start|>user\nok",
        "<|vision_start|> open it <|vision_end|>",
        "\n\nopen it",
        "open it\n",
        "ok <|im_end|>\n<|im_start|>assistant\n",
    ],
)
@pytest.mark.parametrize("pictures", [0, 1])
@pytest.mark.parametrize("system", [None, "you are safe ."])
def test_template_words_in_the_instruction_stay_instruction(kind: str, text: str, pictures: int, system: str | None) -> None:
    lens = tiny_lens(kind)
    batch = encode(lens, [Prompt("p", text, (tiny_image(),) * pictures, system=system)])
    kinds = kinds_of(lens, batch)[0]
    mine = batch.inputs["input_ids"][0][kinds == Kind.INSTRUCTION]
    assert "".join(lens.tokenizer.decode(mine).split()) == "".join(text.split())


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_kinds_of_outputs_equal_those_of_a_stream_and_padding_changes_nothing(kind: str, side: str) -> None:
    lens = tiny_lens(kind)
    statuses = ("closed", "unclosed", "absent", "close_only", "multiple")
    transcripts = tiny_transcripts(lens, tiny_prompts(10), statuses=statuses, seed=4)
    assert [t.status for t in transcripts] == list(statuses) * 2
    batch = encode(lens, [t.prompt for t in transcripts], prefixes=[t.output_ids for t in transcripts], side=side)
    kinds = kinds_of(lens, batch)
    for row, transcript in enumerate(transcripts):
        alone = token_kinds(batch.ids[row], len(transcript.prompt_ids), lens.frame, lens.markers)
        start, length = int(batch.offsets[row]), int(batch.lengths[row])
        assert kinds[row, start : start + length].tolist() == alone.tolist()
        stream = Stream(lens.markers, 1)
        for token in transcript.output_ids:
            stream.step(torch.tensor([token]))
        assert alone[len(transcript.prompt_ids) :].tolist() == stream.kinds[0]
        names = [KINDS[code] for code in alone.tolist()]
        for name, text in (("thought", transcript.thought), ("answer", transcript.answer)):
            mine = [token for token, other in zip(batch.ids[row], names, strict=True) if other == name]
            if transcript.status != "multiple" or name == "thought":
                assert lens.tokenizer.decode(mine) == text


@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(LENSES),
    status=st.sampled_from(["closed", "unclosed", "absent", "close_only", "multiple"]),
)
def test_streamable_spans_are_decided_by_what_has_arrived(seed: int, kind: str, status: str) -> None:
    lens = tiny_lens(kind)
    output = tiny_output(lens, status, random.Random(seed))
    prompt = encode(lens, [Prompt("p", "open the box")]).ids[0]
    if status in ("close_only",):
        return
    for span in ("thought", "thought[:3]", "thought[2:]", "thought_first", "answer_first", "step_end[1]", "last_prompt", "prompt[-2:]"):
        assert streamable(span)
        whole = [*prompt, *output]
        last = resolve(
            span, token_kinds(whole, len(prompt), lens.frame, lens.markers), whole, lens.markers, prompt_end=len(prompt)
        ).tolist()
        for stop in range(len(prompt), len(whole) + 1):
            now = resolve(
                span, token_kinds(whole[:stop], len(prompt), lens.frame, lens.markers), whole[:stop], lens.markers, prompt_end=len(prompt)
            )
            if len(lens.markers.open_ids) == 1:
                assert now.tolist() == [position for position in last if position < stop]
    for span in ("thought[-8:]", "thought@0.5", "step_end[-1]", "step[0]", "step[-1]", "answer[:-1]"):
        assert not streamable(span)


def test_a_foreign_template_is_refused() -> None:
    lens = tiny_lens("words")
    with pytest.raises(ValueError, match="were not written by this model's chat template"):
        token_kinds([20, 21, 22, 23], 4, lens.frame, lens.markers)


ROLES = replace(LINES, inners=((18,),), answers=((19, 16),), trailings=((17,),))


@st.composite
def chats(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Ids, kinds and prompt length of a random conversation: turns of template, pictures and words, then an output of any shape."""
    codes: list[int] = []
    for _ in range(draw(st.integers(1, 3))):
        for kind in (Kind.TEMPLATE, Kind.IMAGE, Kind.INSTRUCTION, Kind.TEMPLATE):
            codes += [int(kind)] * draw(st.integers(0, 3))
    codes.append(int(Kind.TEMPLATE))
    ids = draw(st.lists(st.integers(4, 15), min_size=len(codes), max_size=len(codes)))
    output = draw(st.lists(st.sampled_from([OPEN, CLOSE, END, DOT, DOT, LINE, LINE, 7, 8, 9, 16, 17, 18, 19]), max_size=14))
    parts = split(output, ROLES, draw(st.booleans()))
    return ids + output, codes + output_kinds(parts, len(output)), len(codes)


@settings(max_examples=200)
@given(chats(), st.integers(0, 3), st.integers(0, 3))
def test_spans_of_any_conversation_fit_together(chat: tuple[list[int], list[int], int], left: int, right: int) -> None:
    ids, codes, prompt = chat
    length = len(ids)
    ids, kinds = [END] * left + ids + [END] * right, torch.tensor([Kind.PAD] * left + codes + [Kind.PAD] * right, dtype=torch.int8)

    def of(span: str) -> list[int]:
        found: list[int] = (resolve(span, kinds, ids, ROLES, prompt_end=prompt + left) - left).tolist()
        alone = resolve(span, torch.tensor(codes, dtype=torch.int8), ids[left : left + length], ROLES, prompt_end=prompt).tolist()
        assert found == alone == sorted(set(found)) and set(found) <= set(range(length))  # padding changes nothing; ascending, each once
        return found

    kind = {name: of(name) for name in STRETCHES if name not in ("prompt", "all")}
    assert sorted(position for some in kind.values() for position in some) == of("all") == list(range(length))  # each token is of one kind
    assert of("prompt") == list(range(prompt)) and of("last_prompt") == [prompt - 1]
    thought, answer, last = kind["thought"], kind["answer"], of("thought_last")
    assert of("thought_first") == thought[:1] == of("thought[:1]") and of("answer_first") == answer[:1]
    assert all(position >= prompt for position in (*thought, *answer, *kind["marker"]))
    assert last or not (thought and answer)
    for closer in last:
        assert closer in kind["marker"] and all(t < closer for t in thought) and all(a > closer for a in answer)
    for name in ("thought", "answer", "all", "template"):
        whole = of(name)
        assert of(f"{name}[:2]") + of(f"{name}[2:]") == whole and of(f"{name}[-3:]") == whole[-3:] and of(f"{name}[1:-1]") == whole[1:-1]
        fractions = [of(f"{name}@{f}") for f in (0, 0.2, 0.5, 1)]
        assert fractions == sorted(fractions) and all(len(f) == bool(whole) and set(f) <= set(whole) for f in fractions)
        assert fractions[0] == whole[:1] and fractions[-1] == whole[-1:]
    letters = "".join({DOT: ".", LINE: "n"}.get(ids[left + position], "w") for position in thought)
    written = re.findall(r"n*(?:w+[.n]|\.)", letters)  # blanks, then words up to a full stop or a newline, or a full stop alone
    count = len(written)
    steps = [of(f"step[{i}]") for i in range(count)]
    assert [len(step) for step in steps] == [len(step) for step in written]
    assert sum(steps, []) == thought[: sum(map(len, steps))] and of(f"step[{count}]") == of(f"step_end[{-count - 1}]") == []
    for i, step in enumerate(steps):
        assert step and of(f"step_end[{i}]") == step[-1:] == of(f"step_end[{i - count}]") and of(f"step[{i - count}]") == step


@settings(max_examples=60)
@given(chats())
def test_where_the_output_begins_is_seen_from_its_kinds(chat: tuple[list[int], list[int], int]) -> None:
    ids, codes, prompt = chat
    kinds = torch.tensor(codes, dtype=torch.int8)
    if codes[prompt:] and codes[prompt] in (Kind.MARKER, Kind.THOUGHT, Kind.ANSWER):
        for span in ("last_prompt", "prompt", "thought_last"):
            assert resolve(span, kinds, ids, ROLES).tolist() == resolve(span, kinds, ids, ROLES, prompt_end=prompt).tolist()


@settings(max_examples=30)
@given(
    st.sampled_from(LENSES),
    st.integers(0, 2),
    st.sampled_from([None, "you are safe ."]),
    st.lists(st.sampled_from(["open", "the", "box", ".", "?", "user", "assistant", "\n", "<think>"]), min_size=1, max_size=6)
    .map(" ".join)
    .filter(str.strip),
    st.sampled_from(["closed", "unclosed", "absent", "close_only", "multiple"]),
    st.integers(0, 10**6),
)
def test_kinds_of_any_rendered_chat(kind: str, pictures: int, system: str | None, text: str, status: str, seed: int) -> None:
    lens = tiny_lens(kind)
    prompt = Prompt("p", text, (tiny_image(seed),) * pictures, system=system)
    output = tiny_output(lens, status, random.Random(seed))
    batch = encode(lens, [prompt], prefixes=[output])
    ids, length = batch.ids[0], int(batch.prompt_lengths[0])
    kinds = token_kinds(ids, length, lens.frame, lens.markers)
    said = "".join(lens.tokenizer.decode([i for i, code in zip(ids, kinds.tolist(), strict=True) if code == Kind.INSTRUCTION]).split())
    assert said == "".join(text.split())
    assert [i for i, code in enumerate(kinds.tolist()) if code == Kind.IMAGE] == [
        i for i, token in enumerate(ids[:length]) if token == lens.frame.image_token_id
    ]
    assert kinds[length:].tolist() == output_kinds(split(output, lens.markers), len(output))
    assert resolve("last_prompt", kinds, ids, lens.markers, prompt_end=length).tolist() == [length - 1]
