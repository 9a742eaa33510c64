"""Kinds of output tokens as they arrive: what dialects.Stream says, for all rows at once and without leaving the device.

Every token is looked up in tables that are made once, so that a decoding step costs a handful of small operations whatever the dialect.
Two automata follow one another:

    finding    tokens that may begin a marker, and this one                                  →  the marker that ends here, if one does
    phase      before, in or after the thought, and this one's marker, blank, full stop, end   →  what this token is

`finding` is the automaton of Aho and Corasick 1975 over the spellings of the markers, with two things of its own: the first and the last
token of a spelling may have merged with their neighbours (spelling.py), and a token that belonged to one marker is free for the next only
where it is shared. Where every marker is one token it has a single node. `phase` moves by the same table as everywhere (dialects.NEXT):

    before the first marker      answer, or thought where the prompt wrote the opener
    opener, if the first marker  thought from here on
    first closer                 answer from here on; this token closes the thought
    heading                      opens a section of the thought; this token is where the section is begun from
    end token, and after it      template; nothing counts any more
    blank tokens after a marker  marker, also at the beginning where the prompt wrote the opener
    . ? ! or a line's end        ends a step of the thought, unless nothing but blanks stand in it

Shapes: `b` rows, `p` tokens of this forward.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from .dialects import NEXT, Phase, Role
from .kinds import Kind
from .markers import Markers

_NO_MARKER = len(Role)
_FLAGS = tuple(product((False, True), repeat=3))  # blank, may end a step, end token
_Memory = tuple[Phase, bool, bool, bool, bool]  # phase; nothing but blanks since a marker; words since the last step; a marker; the end
_MEMORIES: tuple[_Memory, ...] = tuple(product(Phase, *((False, True),) * 4))
Path = tuple[int, ...]
_EVENTS = (_NO_MARKER + 1) * len(_FLAGS)


class Told:
    """What the tokens of a forward are, each [b, p]; looked up when asked for.

    kinds      codes of Kind; pad where no token was written
    closing    the last token of the marker that closes the thought
    ended      the end token, or one after it; live: neither
    step_end   the last token of a step of the thought
    heading    the last token of a heading inside the thought
    """

    def __init__(self, tables: Mapping[str, Tensor], moves: Int64[Tensor, "b p"], written: Bool[Tensor, "b p"] | None) -> None:
        self._tables, self._moves, self._written = tables, moves, written

    @functools.cached_property
    def kinds(self) -> Int64[Tensor, "b p"]:
        kinds = self._tables["kind"].take(self._moves)
        return kinds if self._written is None else torch.where(self._written, kinds, int(Kind.PAD))

    @functools.cached_property
    def closing(self) -> Bool[Tensor, "b p"]:
        return self._look("closing")

    @functools.cached_property
    def ended(self) -> Bool[Tensor, "b p"]:
        return self._look("ended")

    @functools.cached_property
    def live(self) -> Bool[Tensor, "b p"]:
        return self._look("live")

    @functools.cached_property
    def step_end(self) -> Bool[Tensor, "b p"]:
        return self._look("step_end")

    @functools.cached_property
    def heading(self) -> Bool[Tensor, "b p"]:
        return self._look("heading")

    def _look(self, name: str) -> Bool[Tensor, "b p"]:
        there = self._tables[name].take(self._moves)
        return there if self._written is None else there & self._written


class Writing:
    """The state of a batch of outputs. begin() for each batch, then read() for each forward.

    marked   [b] a marker was written
    closed   [b] the thought was closed
    """

    def __init__(self, markers: Markers, opened: bool, vocabulary: int, device: torch.device) -> None:
        finding, phases = _finding(markers), _phases()

        def table(values: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        self._class = torch.zeros(vocabulary, dtype=torch.int64, device=device)
        if finding.classes:
            self._class[table(list(finding.classes))] = table(list(finding.classes.values()))
        self._width, self._nodes, self._found = finding.width, table(finding.next), table(finding.found) * len(_FLAGS)
        flags = (markers.blanks, markers.step_end.nonzero()[:, 0].tolist(), markers.eos_ids)
        self._event = sum((_among(ids, vocabulary, device) << 2 - bit for bit, ids in enumerate(flags)), torch.zeros_like(self._class))
        self._single = len(finding.next) == finding.width  # one node: the token alone tells the marker
        if self._single:
            self._event += self._found[self._class]
        self._tables = {name: values.to(device) for name, values in phases.items()}
        self._next = self._tables["next"]
        self._phase = table([memory[0] for memory in _MEMORIES])
        self._has_marked = table([memory[3] for memory in _MEMORIES], torch.bool)
        self._start = _MEMORIES.index((Phase.THINKING if opened else Phase.BEFORE, opened, False, False, False))

    def begin(self, rows: int) -> None:
        self._memory = torch.full((rows, 1), self._start, device=self._next.device)
        self._node = torch.zeros_like(self._memory)

    def reorder(self, rows: Int64[Tensor, " b"]) -> None:
        """Row i goes on from what row rows[i] was."""
        self._memory, self._node = self._memory[rows], self._node[rows]

    @property
    def marked(self) -> Bool[Tensor, " b"]:
        return self._has_marked[self._memory[:, 0]]

    @property
    def closed(self) -> Bool[Tensor, " b"]:
        return self._phase[self._memory[:, 0]] == Phase.ANSWERING

    @property
    def thinking(self) -> Bool[Tensor, " b"]:
        """[b] the next token will stand in an open thought."""
        return self._phase[self._memory[:, 0]] == Phase.THINKING

    def read(self, ids: Int64[Tensor, "b p"], written: Bool[Tensor, "b p"] | None = None) -> Told:
        """What tokens are. `written` says which of them belong to an output; left out, all do."""
        if ids.shape[1] == 1 and written is None:
            return Told(self._tables, self._take(ids), None)
        moves, written = torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool) if written is None else written
        for column in written.any(0).nonzero()[:, 0].tolist():
            at = slice(column, column + 1)
            here, before = written[:, at], (self._memory, self._node)
            moves[:, at] = self._take(ids[:, at])
            self._memory, self._node = (torch.where(here, now, was) for now, was in zip((self._memory, self._node), before, strict=True))
        return Told(self._tables, moves, written)

    def _take(self, ids: Int64[Tensor, "b 1"]) -> Int64[Tensor, "b 1"]:
        """One token of every row: which move of the phase automaton it is."""
        event = self._event.take(ids)
        if not self._single:
            place = torch.add(self._class.take(ids), self._node, alpha=self._width)
            event = event + self._found.take(place)
            self._node = self._nodes.take(place)
        move = torch.add(event, self._memory, alpha=_EVENTS)
        self._memory = self._next.take(move)
        return move


@functools.cache
def _phases() -> dict[str, Tensor]:
    """The phase automaton: per memory and event the next memory, and what the token is."""
    tables: dict[str, list[int]] = {name: [] for name in ("next", "kind", "closing", "ended", "live", "step_end", "heading")}
    for memory in _MEMORIES:
        for role in (*Role, None):
            for blank, may_end, end in _FLAGS:
                phase, fresh, words, marked, ended = memory
                ended = ended or end
                marker = role is not None and not ended
                after = NEXT[phase][role] if role is not None and marker else phase
                fresh = marker or (fresh and blank)
                if ended:
                    kind = Kind.TEMPLATE
                else:
                    kind = Kind.MARKER if fresh else Kind.THOUGHT if after == Phase.THINKING else Kind.ANSWER
                thought = kind == Kind.THOUGHT
                words = words or (thought and not blank)
                step_end = thought and may_end and words
                tables["next"].append(_MEMORIES.index((after, fresh, words and not step_end, marked or marker, ended)))
                tables["kind"].append(int(kind))
                tables["closing"].append(after == Phase.ANSWERING and phase != Phase.ANSWERING)
                tables["ended"].append(ended)
                tables["live"].append(not ended)
                tables["step_end"].append(step_end)
                tables["heading"].append(marker and role == Role.INNER and after == Phase.THINKING)
    return {name: torch.tensor(values) for name, values in tables.items()}


@dataclass(frozen=True)
class _Finding:
    """The finding automaton.

    classes   token -> class; 0 for one that is not here
    width     how many classes there are
    next      per node and class the next node
    found     per node and class the role of the marker that ends there, or _NO_MARKER
    """

    classes: dict[int, int]
    width: int
    next: list[int]
    found: list[int]


@functools.lru_cache(maxsize=16)
def _finding(markers: Markers) -> _Finding:
    order = {ids: n for n, (ids, _) in reversed(list(enumerate(markers.patterns)))}  # of two spellings alike the first counts
    lengths = sorted({len(ids) for ids in order})
    beginnings = {ids[:n] for ids in order for n in range(1, len(ids))}
    exact = {token for ids in order for token in ids}

    def member(token: int) -> tuple[int, int, int, bool]:
        """What of a token matters: itself, what it stands for as the first and as the last of a marker, whether the next may use it."""
        kept = token if token in exact else -1
        return kept, markers.heads.get(token, kept), markers.tails.get(token, kept), token in markers.shared

    tokens = sorted(exact | markers.heads.keys() | markers.tails.keys() | markers.shared)
    members = list(dict.fromkeys([(-1, -1, -1, False), *map(member, tokens)]))

    def beginning(path: Path) -> tuple[int, ...]:
        return (members[path[0]][1], *(members[one][0] for one in path[1:]))

    def whole(path: Path) -> tuple[int, ...]:
        return (members[path[0]][0],) if len(path) == 1 else (*beginning(path[:-1]), members[path[-1]][2])

    def kept(path: Path) -> Path:
        """The longest end of a path that may still become a marker."""
        return next((path[n:] for n in range(len(path)) if beginning(path[n:]) in beginnings), ())

    nodes: list[Path] = [()]
    number: dict[Path, int] = {(): 0}
    following, found = [], []
    for node in nodes:  # grows on the way
        for one in range(len(members)):
            path = (*node, one)
            hits = [order[ids] for n in lengths if n <= len(path) and (ids := whole(path[-n:])) in order]
            after = kept(path if not hits else (one,) if members[one][3] else ())
            if after not in number:
                number[after] = len(nodes)
                nodes.append(after)
            following.append(number[after])
            found.append(int(markers.patterns[min(hits)][1]) if hits else _NO_MARKER)
    return _Finding({token: members.index(member(token)) for token in tokens}, len(members), following, found)


def _among(ids: Iterable[int], vocabulary: int, device: torch.device) -> Int64[Tensor, " vocabulary"]:
    table = torch.zeros(vocabulary, dtype=torch.int64, device=device)
    table[[i for i in ids if i < vocabulary]] = 1
    return table
