"""One state machine in three forms: split() on whole outputs, Stream token by token, Writing for a batch without leaving the device."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thoughtlens.hooks import DIALECTS, Kind, Markers, Split, Stream, bind, split
from thoughtlens.hooks.dialects import closing, output_kinds
from thoughtlens.hooks.writing import Writing
from torch import Tensor
from written import CUTTINGS, cutting, outputs, read

END, VOCABULARY = 0, 1000
NOTHING = torch.zeros(VOCABULARY, dtype=torch.bool)


@st.composite
def bound(draw: st.DrawFn) -> Markers:
    """Random markers of one to three tokens, some of them a beginning or an end of another, with merged and shared edge tokens."""
    spelling = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)
    some = st.lists(spelling, max_size=2).map(tuple)
    merged = st.dictionaries(st.integers(6, 10), st.integers(1, 5), max_size=3)
    heads, tails = draw(merged), draw(merged)
    shared = frozenset(heads.keys() & tails.keys()) if draw(st.booleans()) else frozenset()
    opens, closes, inners, answers, trailings = (draw(some) for _ in range(5))
    try:
        return Markers(
            DIALECTS["think"],
            opens,
            closes,
            NOTHING,
            NOTHING.index_fill(0, torch.tensor(draw(st.lists(st.integers(0, 12), max_size=3)), dtype=torch.int64), True),
            (END,),
            inners,
            answers,
            trailings,
            heads,
            tails,
            shared,
        )
    except ValueError:
        assume(False)
        raise


def late(parts: Split, opened: bool) -> set[int]:
    """Tokens of which is only known later what they are: those before the first marker that counts, and a marker's but for its last.

    A marker's last token, and the blanks after it, are known at once.
    """
    before = 0 if opened or parts.status == "absent" else parts.thought[0] or parts.thought[1]
    known = {*(stop - 1 for _, stop in parts.markers), *(i for part in parts.blanks for i in range(*part))}
    return {*range(before), *(i for start, stop in parts.markers for i in range(start, stop - 1))} - known


def streamed(ids: list[int], markers: Markers, opened: bool) -> list[int]:
    stream = Stream(markers, 1, opened)
    told = [int(stream.step(torch.tensor([token]))[0]) for token in ids]
    assert stream.kinds == [output_kinds(split(ids, markers, opened), len(ids))]
    return told


def written(
    rows: list[list[int]], markers: Markers, opened: bool, arrive: int, begins: list[int]
) -> tuple[Tensor, Tensor, Tensor, Writing]:
    """What Writing says of rows that begin at different columns: `arrive` columns in one forward, the rest one by one."""
    length = max((begin + len(row) for begin, row in zip(begins, rows, strict=True)), default=0)
    ids = torch.full((len(rows), length), markers.eos_ids[0])
    active = torch.zeros(len(rows), length, dtype=torch.bool)
    for n, (begin, row) in enumerate(zip(begins, rows, strict=True)):
        ids[n, begin : begin + len(row)] = torch.tensor(row, dtype=torch.int64)
        active[n, begin:] = True
    writing = Writing(markers, opened, VOCABULARY, torch.device("cpu"))
    writing.begin(len(rows))
    arrive = max(arrive, *begins)
    found = [writing.read(ids[:, :arrive], active[:, :arrive])]
    found += [writing.read(ids[:, n : n + 1]) for n in range(arrive, length)]
    kinds, closed, ended = (torch.cat([getattr(one, name) for one in found], 1) for name in ("kinds", "closing", "ended"))
    return kinds, closed, ended, writing


@settings(max_examples=150)
@given(ids=st.lists(st.integers(0, 12), max_size=16), opened=st.booleans(), markers=bound())
def test_the_stream_says_what_the_whole_says(ids: list[int], opened: bool, markers: Markers) -> None:
    parts = split(ids, markers, opened)
    expected, told = output_kinds(parts, len(ids)), streamed(ids, markers, opened)
    unknown = late(parts, opened)
    assert [kind for i, kind in enumerate(told) if i not in unknown] == [kind for i, kind in enumerate(expected) if i not in unknown]


@settings(max_examples=80)
@given(
    rows=st.lists(st.tuples(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(0, 4)), min_size=1, max_size=5),
    opened=st.booleans(),
    markers=bound(),
    arrive=st.integers(1, 12),
)
def test_writing_says_what_the_stream_says(rows: list[tuple[list[int], int]], opened: bool, markers: Markers, arrive: int) -> None:
    outputs, begins = [ids for ids, _ in rows], [begin for _, begin in rows]
    kinds, closed, ended, writing = written(outputs, markers, opened, arrive, begins)
    for row, (ids, begin) in enumerate(rows):
        stop = begin + len(ids)
        assert kinds[row, begin:stop].tolist() == streamed(ids, markers, opened)
        assert (kinds[row, :begin] == Kind.PAD).all() and (kinds[row, stop:] == Kind.TEMPLATE).all()
        assert ended[row, :begin].sum() == 0
        assert ended[row, begin:stop].tolist() == [END in ids[: n + 1] for n in range(len(ids))]
        last, parts = closing(ids, markers), split(ids, markers, opened)
        assert closed[row].nonzero()[:, 0].tolist() == ([] if last is None else [begin + last])
        assert bool(writing.closed[row]) == (last is not None) and bool(writing.marked[row]) == bool(parts.markers)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", CUTTINGS)
def test_all_forms_say_of_real_outputs_what_the_text_says(kind: str, name: str) -> None:
    dialect, tokenizer = DIALECTS[name], cutting(kind)
    markers = bind(dialect, tokenizer, [tokenizer.eos_token_id])
    texts = outputs(dialect, blanks=kind == "words").filter(str.strip)

    @settings(max_examples=15)
    @given(st.lists(texts, min_size=1, max_size=4), st.booleans(), st.integers(1, 20))
    def agree(texts: list[str], opened: bool, arrive: int) -> None:
        known = [read(text, dialect, tokenizer, opened) for text in texts]
        rows = [ids for ids, _, _ in known]
        kinds, _, _, _ = written(rows, markers, opened, arrive, [0] * len(rows))
        for row, (ids, expected, status) in enumerate(known):
            parts = split(ids, markers, opened)
            told, unknown = streamed(ids, markers, opened), late(parts, opened)
            assert parts.status == status
            assert [kind for i, kind in enumerate(told) if i not in unknown] == [
                kind for i, kind in enumerate(expected) if i not in unknown
            ]
            assert kinds[row, : len(ids)].tolist() == told

    agree()


def test_a_token_that_ends_one_marker_and_begins_the_next_counts_for_both() -> None:
    markers = Markers(
        DIALECTS["think"],
        ((1, 5, 3),),
        ((2, 5, 3),),
        NOTHING,
        NOTHING,
        (END,),
        answers=((1, 6, 3),),
        heads={8: 2, 9: 1},
        tails={7: 3, 9: 3},
        shared=frozenset({9}),
    )
    ids = [1, 5, 7, 4, 8, 5, 9, 6, 3, 4]  # <think>\n why .</think><answer> no
    assert split(ids, markers) == Split("closed", (3, 4), (7, 10), ((0, 3), (4, 7), (6, 9)), ((6, 9),))
    kinds, closed, _, _ = written([ids], markers, False, 1, [0])
    M, T, A = Kind.MARKER, Kind.THOUGHT, Kind.ANSWER
    assert output_kinds(split(ids, markers), 10) == [M, M, M, T, M, M, M, M, M, A]
    assert kinds[0].tolist() == [A, A, M, T, T, T, M, A, M, A] and closed[0].nonzero().tolist() == [[6]]


def test_rows_of_a_batch_do_not_touch_each_other() -> None:
    chance = random.Random(7)
    markers = bind("mulberry", cutting("pieces"), [END])
    pieces = [[i] for i in range(20, 40)] + [list(ids) for ids, _ in markers.patterns[:6]] * 3 + [[END]]
    rows = [[token for _ in range(30) for token in chance.choice(pieces)][:30] for _ in range(40)]
    kinds, closed, ended, _ = written(rows, markers, False, 12, [0] * 40)
    for n, row in enumerate(rows):
        alone = written([row], markers, False, 5, [0])
        assert [part[0].tolist() for part in alone[:3]] == [part[n].tolist() for part in (kinds, closed, ended)]
