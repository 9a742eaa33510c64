"""Splitting a thought from an answer: every status, several spellings of a marker, and the stream against the whole."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from thoughtlens.hooks import DIALECTS, Dialect, Kind, Markers, Split, Stream, bind, split
from thoughtlens.hooks.dialects import output_kinds
from tiny import tiny_lens, tiny_tokenizer

OPEN, CLOSE, END = 1, 2, 0  # opener, closer, end; everything from 3 on is a word
ONE = Markers(DIALECTS["think"], ((OPEN,),), ((CLOSE,),), torch.zeros(12, dtype=torch.bool), (END,))
MANY = Markers(DIALECTS["think"], ((3, 4), (3, 5)), ((6, 3, 7), (6, 3, 8)), torch.zeros(12, dtype=torch.bool), (END, 11))


@pytest.mark.parametrize(
    ("ids", "opened", "expected"),
    [
        ([OPEN, 7, 8, CLOSE, 9, END], False, Split("closed", (1, 3), (4, 5), ((0, 1), (3, 4)))),
        ([OPEN, 7, 8, CLOSE, 9], False, Split("closed", (1, 3), (4, 5), ((0, 1), (3, 4)))),
        ([7, 8, CLOSE, 9, END], True, Split("closed", (0, 2), (3, 4), ((2, 3),))),
        ([OPEN, CLOSE, END], False, Split("closed", (1, 1), (2, 2), ((0, 1), (1, 2)))),
        ([OPEN, 7, 8], False, Split("unclosed", (1, 3), (3, 3), ((0, 1),))),
        ([OPEN, 7, 8, END], False, Split("unclosed", (1, 3), (3, 3), ((0, 1),))),
        ([7, 8, END], True, Split("unclosed", (0, 2), (2, 2), ())),
        ([OPEN, 7, OPEN, 8], False, Split("unclosed", (1, 4), (4, 4), ((0, 1), (2, 3)))),
        ([7, 8, END], False, Split("absent", (0, 0), (0, 2), ())),
        ([], False, Split("absent", (0, 0), (0, 0), ())),
        ([END], False, Split("absent", (0, 0), (0, 0), ())),
        ([7, CLOSE, 9, END], False, Split("close_only", (0, 1), (2, 3), ((1, 2),))),
        ([OPEN, 7, CLOSE, 8, CLOSE, 9, END], False, Split("multiple", (1, 2), (3, 6), ((0, 1), (2, 3), (4, 5)))),
        ([OPEN, 7, CLOSE, 8, OPEN, 9], False, Split("multiple", (1, 2), (3, 6), ((0, 1), (2, 3), (4, 5)))),
        ([OPEN, 7, CLOSE, 8, END], True, Split("multiple", (0, 2), (3, 4), ((0, 1), (2, 3)))),
        ([7, OPEN, 8, CLOSE, 9, END], False, Split("closed", (2, 3), (4, 5), ((1, 2), (3, 4)))),
        ([OPEN, 7, END, CLOSE, 9], False, Split("unclosed", (1, 2), (2, 2), ((0, 1),))),
    ],
)
def test_every_status(ids: list[int], opened: bool, expected: Split) -> None:
    assert split(ids, ONE, opened) == expected


def test_an_unclosed_thought_has_no_answer_token() -> None:
    ids = [OPEN, 7, 8, 9]
    assert Kind.ANSWER not in output_kinds(split(ids, ONE), len(ids))


def test_end_token_and_what_follows_belong_to_nothing() -> None:
    ids = [OPEN, 7, CLOSE, 8, END, 9, CLOSE]
    assert output_kinds(split(ids, ONE), len(ids)) == [Kind.MARKER, Kind.THOUGHT, Kind.MARKER, Kind.ANSWER, *[Kind.TEMPLATE] * 3]


def test_markers_of_several_tokens_and_half_markers() -> None:
    ids = [3, 5, 7, 6, 3, 9, 6, 3, 8, 9, 11]
    parts = split(ids, MANY)
    assert (parts.status, parts.thought, parts.answer) == ("closed", (2, 6), (9, 10))


@given(ids=st.lists(st.integers(0, 9), max_size=14), opened=st.booleans(), markers=st.sampled_from([ONE, MANY]))
def test_streaming_equals_batch(ids: list[int], opened: bool, markers: Markers) -> None:
    stream = Stream(markers, 1, opened)
    told = [int(stream.step(torch.tensor([token]))[0]) for token in ids]
    parts = split(ids, markers, opened)
    expected = output_kinds(parts, len(ids))
    assert stream.kinds == [expected]
    late = set(range(parts.markers[0][0])) if parts.markers and not opened else set()  # before the first marker nothing can be known
    late |= {i for start, stop in parts.markers for i in range(start, stop - 1)}  # a marker is known at its last token
    assert [kind for i, kind in enumerate(told) if i not in late] == [kind for i, kind in enumerate(expected) if i not in late]


@given(st.lists(st.integers(3, 9), max_size=6), st.lists(st.integers(3, 9), max_size=6), st.booleans())
def test_streaming_tells_each_token_at_once_when_a_marker_is_one_token(thought: list[int], answer: list[int], closed: bool) -> None:
    ids = [OPEN, *thought, *([CLOSE, *answer, END] if closed else [])]
    stream = Stream(ONE, 1)
    assert [int(stream.step(torch.tensor([token]))[0]) for token in ids] == output_kinds(split(ids, ONE), len(ids))


def test_rows_of_a_stream_do_not_touch_each_other() -> None:
    chance = random.Random(0)
    rows = [[chance.choice([OPEN, CLOSE, END, 7, 8]) for _ in range(chance.randint(1, 9))] for _ in range(20)]
    stream = Stream(ONE, len(rows))
    for at in range(9):
        ids = torch.tensor([row[at] if at < len(row) else 99 for row in rows])
        told = stream.step(ids, torch.tensor([at < len(row) for row in rows]))
        assert all(told[i] == Kind.PAD for i, row in enumerate(rows) if at >= len(row))
    assert stream.kinds == [output_kinds(split(row, ONE), len(row)) for row in rows]


@pytest.mark.parametrize("kind", ["words", "pieces"])
@pytest.mark.parametrize("opener", ["<think>", "<think>\n", "<think>\n\n"])
@pytest.mark.parametrize("closer", ["</think>", " </think> ", ".</think>\n\n", "\n</think>\n"])
def test_markers_are_found_whatever_the_tokenizer_merges_them_with(kind: str, opener: str, closer: str) -> None:
    lens = tiny_lens(kind)
    tokenizer = lens.tokenizer
    ids = tokenizer(f"{opener} first open it {closer} sorry no", add_special_tokens=False)["input_ids"]
    parts = split(ids, lens.markers)
    assert parts.status == "closed"
    assert "think" not in tokenizer.decode(ids[slice(*parts.thought)])
    assert tokenizer.decode(ids[slice(*parts.answer)]).split() == ["sorry", "no"]


def test_step_ends_are_read_from_token_text() -> None:
    for kind in ("words", "pieces"):
        lens = tiny_lens(kind)
        ids = lens.tokenizer("open . it ? no ! ok , yes", add_special_tokens=False)["input_ids"]
        ends = [lens.tokenizer.decode([i]).strip() for i in ids if lens.markers.step_end[i]]
        assert ends == [".", "?", "!"]
    newline = tiny_lens("pieces").tokenizer("why.\n\nso", add_special_tokens=False)["input_ids"]
    assert sum(bool(tiny_lens("pieces").markers.step_end[i]) for i in newline) == 1


def test_an_unknown_or_unwritable_dialect_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="unknown dialect 'klingon'; known are think, none"):
        bind("klingon", tiny_tokenizer(), [0])
    with pytest.raises(ValueError, match="cannot write '<ponder>'. Pass dialect=\"none\""):
        bind(Dialect("ponder", "<ponder>", "</ponder>"), tiny_tokenizer(), [0])
    assert bind("none", tiny_tokenizer(), [0]).opens == ()


def test_markers_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="end in the same tokens"):
        Markers(DIALECTS["think"], ((3, 4),), ((6, 3, 4),), torch.zeros(12, dtype=torch.bool), (END,))
