"""What a token can be.

template      written by the chat template, or by the model outside thought and answer (the end token, text before a late opener)
image         a placeholder filled with picture features
instruction   the user's own words
marker        opens or closes a thought, is a heading in it, or a tag around the answer; and blank tokens directly after one of these
thought, answer
pad           fills a batch
"""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    TEMPLATE = 0
    IMAGE = 1
    INSTRUCTION = 2
    MARKER = 3
    THOUGHT = 4
    ANSWER = 5
    PAD = 6


KINDS = tuple(kind.name.lower() for kind in Kind)
