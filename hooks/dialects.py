"""How a model writes its thought: markers as data, splitting on token ids, whole or as tokens arrive.

A dialect gives marker texts a role. Bound to a tokenizer it becomes Markers: token id sequences (markers.py, spelling.py).

    open       begins the thought                                               <think>
    inner      a heading or tag inside it; as first marker it begins it too     ### Step 2:
    close      ends it                                                          </think>
    answer     ends it if nothing has yet, else only a tag                      <answer>
    trailing   only ever a tag                                                  </answer>

An output runs through three phases, and each marker moves it on (NEXT). That gives the split status:

    opener … closer … end      closed        thought between, answer after
    opener … end               unclosed      truncated: no answer
    … end                      absent        all of it is answer
    … closer … end             close_only    thought before the closer, answer after
    … and a marker too many    multiple      thought up to the first closer, answer after it

Everything after the first end token is ignored. Text before a late opener is neither thought nor answer. A token in which a marker has
merged with its neighbour is a marker token. So is a blank token directly after a marker, and at the beginning of an output whose opener
the prompt wrote: whether `<think>` and a newline are one token or two, the thought begins with its first word.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from jaxtyping import Bool, Int8, Int64
from torch import Tensor

from .kinds import Kind
from .markers import Dialect, Ids, Markers, Role
from .spelling import Spelling, blanks, merges, spellings, step_ends, token_texts

__all__ = [
    "CHECKPOINTS",
    "DIALECTS",
    "NEXT",
    "STRAY",
    "Dialect",
    "Markers",
    "Phase",
    "Role",
    "Split",
    "Stream",
    "bind",
    "choose",
    "closing",
    "output_kinds",
    "pieces",
    "split",
]

Range = tuple[int, int]

log = logging.getLogger(__name__)


class Phase(IntEnum):
    """BEFORE any marker that counts, inside the thought, after it."""

    BEFORE = 0
    THINKING = 1
    ANSWERING = 2


_B, _T, _A = Phase
# fmt: off
#               open  inner close answer trailing
NEXT = {
    _B:         (_T,   _T,   _A,   _A,   _B),
    _T:         (_T,   _T,   _A,   _A,   _T),
    _A:         (_A,   _A,   _A,   _A,   _A),
}
STRAY = {       # a marker too many: with a closed thought it makes the status `multiple`
    _B:         (False, False, False, False, False),
    _T:         (True,  False, False, False, False),
    _A:         (True,  True,  True,  False, False),
}
# fmt: on


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("think", "<think>", "</think>"),
        Dialect("think_answer", "<think>", "</think>", answer=("<answer>",), trailing=("</answer>",)),
        Dialect(
            "mulberry",
            "### Image Description:",
            "### The final answer is:",
            inner=("### Rationales:", "### Let's think step by step.", *(f"### Step {n}:" for n in range(1, 21))),
        ),
        Dialect(
            "llava_cot",
            "<SUMMARY>",
            "<CONCLUSION>",
            inner=("</SUMMARY>", "<CAPTION>", "</CAPTION>", "<REASONING>", "</REASONING>"),
            trailing=("</CONCLUSION>",),
        ),
        Dialect(
            "virgo",
            "<|begin_of_thought|>",
            "<|end_of_thought|>",
            answer=("<|begin_of_solution|>",),
            trailing=("<|end_of_solution|>",),
        ),
        Dialect("kimi", "◁think▷", "◁/think▷"),
        Dialect("magistral", "[THINK]", "[/THINK]"),
        Dialect("llamav_o1", None, None),  # no markers: four turns of a conversation
        Dialect("none", None, None),
    )
}

# what a checkpoint's name or path holds (in any case, within one part of it), model types ("" any), and the dialect it was trained to
# write; the first row that fits
CHECKPOINTS = (
    (r"r1[-_]?onevision", "qwen2_5_vl", "think"),
    (r"mm[-_]?eureka", "qwen2_5_vl internvl", "think_answer"),
    (r"mulberry", "qwen2_vl llava_next mllama", "mulberry"),
    (r"llamav[-_]?o1", "mllama", "llamav_o1"),
    (r"llava[-_]?(cot|o1)|llama-3\.2v[^/ ]*cot", "mllama", "llava_cot"),
    (r"virgo", "qwen2_vl", "virgo"),
    (r"kimi[-_]?vl[^/ ]*thinking", "", "kimi"),
    (r"qwen3[-_]?vl[^/ ]*thinking", "qwen3_vl qwen3_vl_moe", "think"),
    (r"glm[-_]?4\.1v[^/ ]*thinking", "glm4v", "think_answer"),
    (r"magistral", "mistral3", "magistral"),
)


@dataclass(frozen=True)
class Split:
    """Where thought, answer and markers lie: half-open ranges into the output ids.

    markers   all of them, also inside thought and answer
    tags      those of the roles inner, answer and trailing, which are no part of the text of a thought or an answer
    blanks    blank tokens directly after a marker
    """

    status: str
    thought: Range
    answer: Range
    markers: tuple[Range, ...]
    tags: tuple[Range, ...] = ()
    blanks: tuple[Range, ...] = ()


def bind(dialect: Dialect | str, tokenizer: Any, eos_ids: Iterable[int]) -> Markers:
    """Markers of `dialect` for this tokenizer.

    ValueError where the dialect is unknown or the tokenizer cannot write an opener, closer or answer marker. A heading or trailing tag
    that it cannot write is left out: no output can hold it.
    """
    if isinstance(dialect, str):
        if dialect not in DIALECTS:
            raise ValueError(f"unknown dialect {dialect!r}; known are {', '.join(DIALECTS)}. Or pass Dialect(name, open, close).")
        dialect = DIALECTS[dialect]
    return _bound(dialect, tokenizer, tuple(eos_ids), token_texts(tokenizer))


def choose(model_type: str, name: str, tokenizer: Any, eos_ids: Iterable[int], dialect: Dialect | str | None = None) -> Markers:
    """Markers of the dialect given; else of the one that CHECKPOINTS knows for this checkpoint; else of the only one whose opener and
    closer are tokens of their own; else "think", and a warning that it is only assumed; or "none" for a tokenizer that cannot write it.

    model_type   as in the config
    name         of the checkpoint: hub id or path, or several joined by spaces
    """
    if dialect is not None:
        return bind(dialect, tokenizer, eos_ids)
    texts, eos_ids = token_texts(tokenizer), tuple(eos_ids)
    for pattern, types, known in CHECKPOINTS:
        if re.search(pattern, name, re.IGNORECASE) and model_type in (types.split() or [model_type]):
            try:
                return _bound(DIALECTS[known], tokenizer, eos_ids, texts)
            except ValueError as error:
                log.warning("%s is known to write dialect %r, but %s Going on as if it were not known.", name, known, error)
                break
    own = _of_own_tokens(texts)
    for likely in (*(own if len(own) == 1 else ()), DIALECTS["think"]):
        try:
            markers = _bound(likely, tokenizer, eos_ids, texts)
        except ValueError:
            continue
        if likely not in own:
            log.warning(
                "how %s marks its thought is not known: dialect %r is only assumed. For other markers pass dialect=… (known are %s).",
                name,
                likely.name,
                ", ".join(DIALECTS),
            )
        return markers
    return _bound(DIALECTS["none"], tokenizer, eos_ids, texts)


def _of_own_tokens(texts: Sequence[str]) -> list[Dialect]:
    """The dialects whose opener and closer are one token each, the plainest of those that share both."""
    tokens = set(texts)
    pairs: dict[tuple[str | None, str | None], Dialect] = {}
    for dialect in DIALECTS.values():
        pairs.setdefault((dialect.open, dialect.close), dialect)
    return [dialect for pair, dialect in pairs.items() if tokens.issuperset(pair)]


def _bound(dialect: Dialect, tokenizer: Any, eos_ids: Ids, texts: Sequence[str]) -> Markers:
    found: list[tuple[Role, list[Spelling]]] = []
    joined = "\n".join(texts)
    taken: set[int] = set()  # tokens that hold one marker and more; the first marker in them counts
    for role, text in dialect.markers:
        ways = [way for way in spellings(text, tokenizer, texts, joined) if len(way.ids) > 1 or way.ids[0] not in taken]
        taken.update(way.ids[0] for way in ways if len(way.ids) == 1 and texts[way.ids[0]].strip() != text)
        found.append((role, ways))
        if not ways and role in (Role.OPEN, Role.CLOSE, Role.ANSWER):
            raise ValueError(
                f'dialect {dialect.name!r}: this tokenizer cannot write {text!r}. Pass dialect="none", or a Dialect with its own markers.'
            )
    merged = merges((way for _, ways in found for way in ways), texts)
    opens, inners, closes, answers, trailings = (tuple(way.ids for its, ways in found if its == role for way in ways) for role in Role)
    return Markers(
        dialect,
        opens,
        closes,
        step_ends(texts),
        blanks(texts, tokenizer),
        eos_ids,
        inners,
        answers,
        trailings,
        merged.heads,
        merged.tails,
        merged.shared,
    )


def split(output_ids: Sequence[int], markers: Markers, opened: bool = False) -> Split:
    """Split an output into thought and answer.

    output_ids   token ids the model wrote
    opened       the prompt already ended in the opener
    """
    end = next((i for i, token in enumerate(output_ids) if token in markers.eos_ids), len(output_ids))
    written = output_ids[:end]
    found = list(_find(written, markers))
    begin = markers.after(written, 0) if opened else 0
    phase, closer, stray = Phase.THINKING if opened else Phase.BEFORE, (end, end), False
    started = opened
    for start, stop, role in found:
        after = NEXT[phase][role]
        stray |= STRAY[phase][role]
        if (phase, after) == (Phase.BEFORE, Phase.THINKING):
            begin, started = markers.after(written, stop), True
        if after == Phase.ANSWERING != phase:
            closer = (start, markers.after(written, stop))
        phase = after
    where = tuple((start, stop) for start, stop, _ in found)
    stops = (*((0,) if opened else ()), *(stop for _, stop in where))
    spaces = tuple((stop, word) for stop in stops if (word := markers.after(written, stop)) > stop)
    tags = tuple((start, stop) for start, stop, role in found if role not in (Role.OPEN, Role.CLOSE))
    if phase == Phase.BEFORE:
        return Split("absent", (0, 0), (0, end), where, tags, spaces)
    thought = (begin, max(begin, closer[0]))  # opener and closer may share a token
    if phase == Phase.THINKING:
        return Split("unclosed", thought, (end, end), where, tags, spaces)
    return Split("multiple" if stray else "closed" if started else "close_only", thought, (closer[1], end), where, tags, spaces)


def output_kinds(parts: Split, length: int) -> list[int]:
    """Kind of each of `length` output tokens."""
    kinds = [int(Kind.TEMPLATE)] * length
    for kind, ranges in ((Kind.ANSWER, (parts.answer,)), (Kind.THOUGHT, (parts.thought,)), (Kind.MARKER, (*parts.markers, *parts.blanks))):
        for start, stop in ranges:
            kinds[start:stop] = [int(kind)] * (stop - start)
    return kinds


def pieces(output_ids: Sequence[int], parts: Split) -> tuple[list[int], list[int]]:
    """The tokens of the thought and of the answer, to be decoded: without headings and tags, which are not their words.

    A second opener or closer stays, so that no text hides that there were two; and so do blanks, except at the beginning.
    """
    tags, blanks = ({at for start, stop in ranges for at in range(start, stop)} for ranges in (parts.tags, parts.blanks))
    words: list[list[int]] = []
    for part in (parts.thought, parts.answer):
        places = itertools.dropwhile(lambda at: at in tags or at in blanks, range(*part))
        words.append([output_ids[at] for at in places if at not in tags])
    thought, answer = words
    return thought, answer


def closing(output_ids: Sequence[int], markers: Markers) -> int | None:
    """Index of the last token of the marker that ends the thought; None where nothing ends one."""
    end = next((i for i, token in enumerate(output_ids) if token in markers.eos_ids), len(output_ids))
    ends = (stop - 1 for _, stop, role in _find(output_ids[:end], markers) if NEXT[Phase.THINKING][role] == Phase.ANSWERING)
    return next(ends, None)


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
        self._fresh = [opened] * rows  # nothing but blanks since a marker
        self._phase = [Phase.THINKING if opened else Phase.BEFORE] * rows
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
        ids = self.ids[row]
        ids.append(token)
        if self._ended[row] or token in self.markers.eos_ids:
            self._ended[row] = True
            return int(Kind.TEMPLATE)
        marker = self.markers.ending(ids, len(ids), self._free[row])
        if marker is not None:
            self._free[row] = self.markers.free(ids, len(ids))
            self._fresh[row] = True
            self._phase[row] = NEXT[self._phase[row]][marker[1]]
            return int(Kind.MARKER)
        self._fresh[row] = self._fresh[row] and token in self.markers.blanks
        if self._fresh[row]:
            return int(Kind.MARKER)
        return int(Kind.THOUGHT if self._phase[row] == Phase.THINKING else Kind.ANSWER)


def _find(ids: Sequence[int], markers: Markers) -> Iterator[tuple[int, int, Role]]:
    """(start, stop, role) of each marker in order of their last token; two overlap in no more than a shared token."""
    free = 0
    for stop in range(1, len(ids) + 1):
        marker = markers.ending(ids, stop, free)
        if marker is not None:
            free = markers.free(ids, stop)
            yield marker[0], stop, marker[1]
