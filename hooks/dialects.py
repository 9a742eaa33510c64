"""How a model writes its thought: markers as data, splitting on token ids, whole or as tokens arrive.

A dialect names the opening and closing text. Bound to a tokenizer it becomes Markers: token id sequences. A marker may be one
token or several ordinary ones, and its edge tokens may merge with neighbours (">" with a newline), so each side is a set of
sequences.

    opener … closer … end      closed        thought between, answer after
    opener … end               unclosed      truncated: no answer
    … end                      absent        all of it is answer
    … closer … end             close_only    thought before the closer, answer after
    anything with more markers multiple      thought up to the first closer, answer after it

Everything after the first end token is ignored. Text before a late opener is neither thought nor answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int8, Int64
from torch import Tensor

from .kinds import Kind

Range = tuple[int, int]


@dataclass(frozen=True)
class Dialect:
    """Opening and closing text of a thought; None for a family that marks none."""

    name: str
    open: str | None
    close: str | None


DIALECTS = {
    "think": Dialect("think", "<think>", "</think>"),
    "none": Dialect("none", None, None),
}

STEP_ENDINGS = (".", "?", "!", "。", "？", "！")
_BEFORE = ("", "\n", " ", "a", "a ", ". ", ".\n\n")
_AFTER = ("", "\n", "\n\n", " a", "a")


@dataclass(frozen=True, eq=False)
class Markers:
    """A dialect bound to a tokenizer.

    opens, closes   the token id sequences that write the opener and the closer, the plain one first; empty for dialect "none"
    step_end        [vocab] true where a token ends a step: its text ends in . ? ! or holds a newline
    eos_ids         tokens that end an output
    """

    dialect: Dialect
    opens: tuple[tuple[int, ...], ...]
    closes: tuple[tuple[int, ...], ...]
    step_end: Bool[Tensor, " vocab"]
    eos_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for a, b in ((a, b) for a in self.opens for b in self.closes):
            if a == b[-len(a) :] or b == a[-len(b) :]:
                raise ValueError(
                    f"opener {a} and closer {b} end in the same tokens, so one is always taken for the other. Choose other markers."
                )

    @property
    def open_ids(self) -> tuple[int, ...]:
        return self.opens[0] if self.opens else ()

    @property
    def close_ids(self) -> tuple[int, ...]:
        return self.closes[0] if self.closes else ()


@dataclass(frozen=True)
class Split:
    """Where thought, answer and markers lie: half-open ranges into the output ids."""

    status: str
    thought: Range
    answer: Range
    markers: tuple[Range, ...]


def bind(dialect: Dialect | str, tokenizer: Any, eos_ids: Iterable[int]) -> Markers:
    """Markers of `dialect` for this tokenizer. ValueError where the dialect is unknown or the tokenizer cannot write its markers."""
    if isinstance(dialect, str):
        if dialect not in DIALECTS:
            raise ValueError(f"unknown dialect {dialect!r}; known are {', '.join(DIALECTS)}. Or pass Dialect(name, open, close).")
        dialect = DIALECTS[dialect]
    opens = _spellings(dialect.open, tokenizer)
    closes = _spellings(dialect.close, tokenizer)
    for text, found in ((dialect.open, opens), (dialect.close, closes)):
        if text is not None and not found:
            raise ValueError(
                f'dialect {dialect.name!r}: this tokenizer cannot write {text!r}. Pass dialect="none", or a Dialect with its own markers.'
            )
    return Markers(dialect, opens, closes, _step_ends(tokenizer), tuple(eos_ids))


def split(output_ids: Sequence[int], markers: Markers, opened: bool = False) -> Split:
    """Split an output into thought and answer.

    output_ids   token ids the model wrote
    opened       the prompt already ended in the opener
    """
    end = next((i for i, token in enumerate(output_ids) if token in markers.eos_ids), len(output_ids))
    found = _find(output_ids[:end], markers)
    where = tuple((start, stop) for start, stop, _ in found)
    if not found and not opened:
        return Split("absent", (0, 0), (0, end), ())
    begin = 0 if opened or not found[0][2] else found[0][1]
    closer = next(((start, stop) for start, stop, opens in found if not opens), None)
    if closer is None:
        return Split("unclosed", (begin, end), (end, end), where)
    started = opened or found[0][2]
    expected = 1 if opened or not started else 2
    status = "multiple" if len(found) > expected else "closed" if started else "close_only"
    return Split(status, (begin, closer[0]), (closer[1], end), where)


def output_kinds(parts: Split, length: int) -> list[int]:
    """Kind of each of `length` output tokens."""
    kinds = [int(Kind.TEMPLATE)] * length
    for kind, ranges in ((Kind.ANSWER, (parts.answer,)), (Kind.THOUGHT, (parts.thought,)), (Kind.MARKER, parts.markers)):
        for start, stop in ranges:
            kinds[start:stop] = [int(kind)] * (stop - start)
    return kinds


class Stream:
    """The same split while tokens arrive, for a batch of rows.

    step() says what each new token is as far as it can be known then. Two things are only known later and corrected in `kinds`:
    the first tokens of a marker that has several, and tokens before the first marker of an output that does not begin with one
    (they count as answer until a marker comes).
    """

    def __init__(self, markers: Markers, rows: int, opened: bool = False) -> None:
        self.markers = markers
        self.opened = opened
        self.ids: list[list[int]] = [[] for _ in range(rows)]
        self._free = [0] * rows
        self._seen: list[list[bool]] = [[] for _ in range(rows)]
        self._ended = [False] * rows

    def step(self, ids: Int64[Tensor, " b"], active: Bool[Tensor, " b"] | None = None) -> Int8[Tensor, " b"]:
        """Kind of each row's next token. Rows where `active` is false take no token and get kind pad."""
        taking = [True] * len(self.ids) if active is None else active.tolist()
        kinds = [
            self._take(row, token) if takes else int(Kind.PAD) for row, (token, takes) in enumerate(zip(ids.tolist(), taking, strict=True))
        ]
        return torch.tensor(kinds, dtype=torch.int8)

    @property
    def kinds(self) -> list[list[int]]:
        """Kinds of all tokens so far, corrected: those of split() on the same tokens."""
        return [output_kinds(split(ids, self.markers, self.opened), len(ids)) for ids in self.ids]

    def _take(self, row: int, token: int) -> int:
        ids, seen = self.ids[row], self._seen[row]
        ids.append(token)
        if self._ended[row] or token in self.markers.eos_ids:
            self._ended[row] = True
            return int(Kind.TEMPLATE)
        for opens, spellings in ((True, self.markers.opens), (False, self.markers.closes)):
            for spelling in spellings:
                if len(ids) - len(spelling) >= self._free[row] and tuple(ids[-len(spelling) :]) == spelling:
                    self._free[row] = len(ids)
                    seen.append(opens)
                    return int(Kind.MARKER)
        thinking = (self.opened or bool(seen and seen[0])) and False not in seen
        return int(Kind.THOUGHT if thinking else Kind.ANSWER)


def _find(ids: Sequence[int], markers: Markers) -> list[tuple[int, int, bool]]:
    """(start, stop, is opener) of each marker, none overlapping, in order of their last token."""
    ids = tuple(ids)
    found: list[tuple[int, int, bool]] = []
    spellings = [(s, True) for s in markers.opens] + [(s, False) for s in markers.closes]
    last = {s[-1] for s, _ in spellings}
    for stop, token in enumerate(ids, 1):
        if token not in last:
            continue
        free = found[-1][1] if found else 0
        match = next(
            ((stop - len(s), stop, opens) for s, opens in spellings if stop - len(s) >= free and ids[stop - len(s) : stop] == s), None
        )
        if match:
            found.append(match)
    return found


def _spellings(text: str | None, tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """Token sequences that write `text`: alone, and as it comes out between neighbours where the tokenizer reports offsets."""
    if text is None:
        return ()
    found: list[tuple[int, ...]] = []
    for before in _BEFORE if tokenizer.is_fast else ("",):
        for after in _AFTER if tokenizer.is_fast else ("",):
            whole = before + text + after
            start, stop = len(before), len(before) + len(text)
            encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
            offsets = encoded["offset_mapping"] if tokenizer.is_fast else [(0, stop)] * len(encoded["input_ids"])
            ids = tuple(i for i, (a, b) in zip(encoded["input_ids"], offsets, strict=True) if a < stop and b > start)
            if ids and ids not in found and tokenizer.decode(ids).strip() == text:
                found.append(ids)
    return tuple(found)


def _step_ends(tokenizer: Any) -> Bool[Tensor, " vocab"]:
    every = [[i] for i in range(len(tokenizer))]
    if tokenizer.is_fast:
        texts = tokenizer.backend_tokenizer.decode_batch(every, skip_special_tokens=False)
    else:
        texts = tokenizer.batch_decode(every, clean_up_tokenization_spaces=False)
    return torch.tensor([text.strip(" ").endswith(STEP_ENDINGS) or "\n" in text for text in texts], dtype=torch.bool)
