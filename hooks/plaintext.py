"""Splitting text that comes without token ids, from an endpoint or a transcript made elsewhere, by the rules of dialects.split.

Each character is taken for a token, its code point for the token's id: the markers are the same, and so is the state machine. A text and
the token ids that a tokenizer made of it part in one thing only: where a marker merged with its neighbour into one token, as in `ok.</`,
the full stop is part of the thought here and of the marker there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from .dialects import DIALECTS, pieces, split
from .markers import Dialect, Ids, Markers, Role

__all__ = ["PlainSplit", "split_text"]

NOTHING = torch.zeros(0, dtype=torch.bool)  # ends of steps are not asked for, and blanks are stripped from both parts


@dataclass(frozen=True)
class PlainSplit:
    """As in Transcript: split status, and the words of thought and answer without markers, headings, and blanks around."""

    status: str
    thought: str
    answer: str


def split_text(text: str, dialect: Dialect | str, opened: bool = False) -> PlainSplit:
    """Split an output into thought and answer.

    text     what the model wrote: markers kept, end token removed
    opened   the prompt already ended in the opener
    ValueError: the dialect is unknown, or has markers that cannot be told apart.
    """
    if isinstance(dialect, str):
        if dialect not in DIALECTS:
            raise ValueError(f"unknown dialect {dialect!r}; known are {', '.join(DIALECTS)}. Or pass Dialect(name, open, close).")
        dialect = DIALECTS[dialect]
    ids = _ids(text)
    parts = split(ids, _markers(dialect), opened)
    thought, answer = ("".join(map(chr, part)).strip() for part in pieces(ids, parts))
    return PlainSplit(parts.status, thought, answer)


@functools.cache
def _markers(dialect: Dialect) -> Markers:
    """The dialect as sequences of characters."""
    opens, inners, closes, answers, trailings = (tuple(_ids(text) for its, text in dialect.markers if its == role) for role in Role)
    try:
        return Markers(dialect, opens, closes, NOTHING, NOTHING, (), inners, answers, trailings)
    except ValueError as error:  # it names them by code points
        texts = ", ".join(repr(text) for _, text in dialect.markers)
        raise ValueError(
            f"dialect {dialect.name!r} has markers of different roles that end alike, so one is always taken for the other: {texts}. "
            "Choose other markers."
        ) from error


def _ids(text: str) -> Ids:
    return tuple(map(ord, text))
