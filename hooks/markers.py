"""Markers: a dialect's texts, their roles (dialects.py), and the token ids that write them; finding the one that ends at a token.

Where a marker has several tokens, its first and last may have merged with their neighbours (spelling.py). They are then compared as the
token that stands for all that end, or begin, in the same piece of the marker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

from jaxtyping import Bool
from torch import Tensor

Ids = tuple[int, ...]


class Role(IntEnum):
    OPEN = 0
    INNER = 1
    CLOSE = 2
    ANSWER = 3
    TRAILING = 4


@dataclass(frozen=True)
class Dialect:
    """Marker texts by role; None and empty for a family that marks none."""

    name: str
    open: str | None
    close: str | None
    inner: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    trailing: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[tuple[Role, str], ...]:
        """Every marker text with its role."""
        single = ((Role.OPEN, self.open), (Role.CLOSE, self.close))
        several = ((Role.INNER, self.inner), (Role.ANSWER, self.answer), (Role.TRAILING, self.trailing))
        return (
            *((role, text) for role, text in single if text is not None),
            *((role, text) for role, texts in several for text in texts),
        )


@dataclass(frozen=True, eq=False)
class Markers:
    """A dialect bound to a tokenizer.

    opens, closes                the token id sequences that write the opener and the closer, the plain one first; empty if there is none
    step_end                     [vocab] true where a token may end a step (ends()): its text ends in . ? ! or holds a newline
    blank                        [vocab] true where a token is white space and nothing else
    eos_ids                      tokens that end an output
    inners, answers, trailings   the sequences that write the markers of these roles
    heads, tails, shared         tokens merged of a marker's edge and its neighbour, as in spelling.Merges
    """

    dialect: Dialect
    opens: tuple[Ids, ...]
    closes: tuple[Ids, ...]
    step_end: Bool[Tensor, " vocab"]
    blank: Bool[Tensor, " vocab"]
    eos_ids: Ids
    inners: tuple[Ids, ...] = ()
    answers: tuple[Ids, ...] = ()
    trailings: tuple[Ids, ...] = ()
    heads: Mapping[int, int] = field(default_factory=dict)
    tails: Mapping[int, int] = field(default_factory=dict)
    shared: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for n, (one, role) in enumerate(self.patterns):
            for other, its in self.patterns[:n]:
                if role != its and self._end_alike(one, other):
                    names = sorted(((role, one), (its, other)))
                    (a, x), (b, y) = ((_NAMES[role], ids) for role, ids in names)
                    raise ValueError(
                        f"{a} {x} and {b} {y} end in the same tokens, so one is always taken for the other. Choose other markers."
                    )

    @property
    def open_ids(self) -> Ids:
        return self.opens[0] if self.opens else ()

    @property
    def close_ids(self) -> Ids:
        return self.closes[0] if self.closes else ()

    @cached_property
    def blanks(self) -> frozenset[int]:
        """The tokens that are blank. A token the tokenizer has no text for is not."""
        return frozenset(self.blank.nonzero()[:, 0].tolist())

    @cached_property
    def _step_ends(self) -> frozenset[int]:
        return frozenset(self.step_end.nonzero()[:, 0].tolist())

    def ends(self, thought: Iterable[int]) -> Iterator[bool]:
        """For each token of a thought, without markers, whether a step ends there: not before the step has a token that is not blank."""
        begun = False
        for token in thought:
            begun = begun or token not in self.blanks
            end = begun and token in self._step_ends
            begun = begun and not end
            yield end

    def after(self, ids: Sequence[int], stop: int) -> int:
        """Where the blank tokens end that begin at `stop`."""
        while stop < len(ids) and ids[stop] in self.blanks:
            stop += 1
        return stop

    @cached_property
    def patterns(self) -> tuple[tuple[Ids, Role], ...]:
        """What is looked for at each token, in this order: spellings with heads and tails put for their edge tokens, each once."""
        by_role = (
            (Role.OPEN, self.opens),
            (Role.CLOSE, self.closes),
            (Role.INNER, self.inners),
            (Role.ANSWER, self.answers),
            (Role.TRAILING, self.trailings),
        )
        return tuple(dict.fromkeys((self._standing(spelling), role) for role, all_ids in by_role for spelling in all_ids))

    @cached_property
    def _ending_in(self) -> dict[int, list[tuple[Ids, Role]]]:
        """For each token the patterns that it may be the last of, in order."""
        standing_for: dict[int, list[int]] = {}
        for token, standing in self.tails.items():
            standing_for.setdefault(standing, []).append(token)
        found: dict[int, list[tuple[Ids, Role]]] = {}
        for ids, role in self.patterns:
            for token in dict.fromkeys((ids[-1], *(standing_for.get(ids[-1], ()) if len(ids) > 1 else ()))):
                found.setdefault(token, []).append((ids, role))
        return found

    def ending(self, ids: Sequence[int], stop: int, free: int) -> tuple[int, Role] | None:
        """Where the marker begins whose last token is ids[stop - 1], and its role. None of its tokens lies before `free`."""
        for pattern, role in self._ending_in.get(ids[stop - 1], ()):
            start = stop - len(pattern)
            if start >= free and self._standing(ids[start:stop]) == pattern:
                return start, role
        return None

    def free(self, ids: Sequence[int], stop: int) -> int:
        """Where the next marker may begin after one that ends at `stop`."""
        return stop - (ids[stop - 1] in self.shared)

    def _standing(self, ids: Sequence[int]) -> Ids:
        """A spelling with its edge tokens replaced by those that stand for them."""
        if len(ids) == 1:
            return tuple(ids)
        return (self.heads.get(ids[0], ids[0]), *ids[1:-1], self.tails.get(ids[-1], ids[-1]))

    def _end_alike(self, one: Ids, other: Ids) -> bool:
        short, long = sorted((one, other), key=len)
        end = long[-len(short) :]
        return end == short or (len(short) > 1 and self._standing(end) == short)


_NAMES = {
    Role.OPEN: "opener",
    Role.CLOSE: "closer",
    Role.INNER: "inner marker",
    Role.ANSWER: "answer marker",
    Role.TRAILING: "trailing marker",
}
