"""How tokens read as text: each token's own piece of it, so that the pieces put together are what the model wrote.

Vocabularies mark the spaces between words in different ways; which way is told by the tokens themselves, the first that fits:

    byte level    a token begins with Ġ or Ċ: every character stands for a byte (the table of GPT-2), Ġ for a space
    sentence      a token begins with ▁, which is a space; `<0x0A>` is a byte
    as written    a token begins or ends with white space: the tokens are text already
    whole words   none of these: a space between two tokens, but not before , . ; : ? ! ) ] } and not after ( [ {

A character whose bytes are spread over several tokens stands with the last of them.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence

CLOSING, OPENING = frozenset(",.;:?!)]}%…"), frozenset("([{")
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_table() -> dict[str, int]:
    """The character that GPT-2's vocabulary writes for each byte, backwards: printable ones stand for themselves."""
    themselves = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in themselves]
    return {chr(byte): byte for byte in themselves} | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTES = _byte_table()


def pieces(tokens: Sequence[str]) -> list[str]:
    """The text of each token, with the white space that stands before or after it."""
    if any(token.startswith(("Ġ", "Ċ")) for token in tokens):
        return _decoded(tokens, _of_byte_level)
    if any(token.startswith("▁") for token in tokens):
        return _decoded(tokens, _of_sentence)
    if any(token != token.strip() for token in tokens):
        return list(tokens)
    return _spaced(tokens)


def _of_byte_level(token: str) -> bytes:
    """Added tokens may hold characters outside the table: those are written as they are."""
    return bytes(BYTES[letter] for letter in token) if all(letter in BYTES for letter in token) else token.encode()


def _of_sentence(token: str) -> bytes:
    byte = BYTE.fullmatch(token)
    if byte:
        return bytes([int(byte[1], 16)])
    return (token if token.startswith("<") else token.replace("▁", " ")).encode()


def _decoded(tokens: Sequence[str], of: Callable[[str], bytes]) -> list[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    found = [decoder.decode(of(token)) for token in tokens]
    return [*found[:-1], found[-1] + decoder.decode(b"", final=True)]


def _spaced(tokens: Sequence[str]) -> list[str]:
    before = ["", *tokens][: len(tokens)]
    return [token if not last or last in OPENING or token in CLOSING else f" {token}" for last, token in zip(before, tokens, strict=True)]
