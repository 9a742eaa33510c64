"""How a tokenizer writes a marker: as one token, or as several ordinary ones whose edges may have merged with their neighbours.

A byte-level tokenizer writes `</think>` as `</ think >`, but `ok.</think>` and two newlines as `ok .</ think >\\n\\n`; and in
`</think><answer>` one token `><` belongs to both markers. So two things are kept of a marker:

    spellings      the token sequences that write it, found by rendering it alone and between neighbours, the plain one first; and
                   every token that holds all of it
    heads, tails   for the first and the last token of a spelling: every token of the vocabulary that ends, or begins, in the same piece
                   of the marker, and the one token that stands for them all
    shared         tokens that hold the last piece of one marker and the first piece of the next

So little depends on which neighbours were tried. All of this is made once; no output is decoded to find a marker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

Ids = tuple[int, ...]

STEP_ENDINGS = (".", "?", "!", "。", "？", "！")
_BEFORE = ("", "\n", " ", "a", "a ", ". ", ".\n\n")
_AFTER = ("", "\n", "\n\n", " a", "a")
_TOUCHING_BEFORE = (".", "?", "!", ",", ")", '"', "*", ">", ":", "。")  # may take the first token of a marker with them
_TOUCHING_AFTER = (".", ",", "<", "(", '"', "*", "$", "\\")  # … or the last


@dataclass(frozen=True)
class Spelling:
    """One way to write a marker.

    ids          the tokens
    left, right  the piece of the marker that the first token ends in, and that the last one begins with; "" where that is not known, and
                 for a marker that is one token
    """

    ids: Ids
    left: str = ""
    right: str = ""


@dataclass(frozen=True)
class Merges:
    """Tokens that write the edge of a marker together with its neighbour.

    heads    token -> the token that stands for all that end in the same first piece of a marker
    tails    the same for the last piece
    shared   tokens that are the last piece of one marker and the first of the next
    """

    heads: dict[int, int]
    tails: dict[int, int]
    shared: frozenset[int]


def token_texts(tokenizer: Any) -> list[str]:
    """The text of every token of the vocabulary, alone. Ids may have gaps: there it is empty."""
    known = sorted(set(tokenizer.get_vocab().values()))
    every = [[i] for i in known]
    if tokenizer.is_fast:
        told = tokenizer.backend_tokenizer.decode_batch(every, skip_special_tokens=False)
    else:
        told = tokenizer.batch_decode(every, clean_up_tokenization_spaces=False)
    texts = [""] * (known[-1] + 1 if known else 0)
    for i, text in zip(known, told, strict=True):
        texts[i] = text
    return texts


def step_ends(texts: Iterable[str]) -> Bool[Tensor, " vocab"]:
    """Which tokens end a step: their text ends in . ? ! or holds a newline."""
    return torch.tensor([text.strip(" ").endswith(STEP_ENDINGS) or "\n" in text for text in texts], dtype=torch.bool)


def blanks(texts: Sequence[str], tokenizer: Any) -> Bool[Tensor, " vocab"]:
    """Which tokens are white space and nothing else. Some tokenizers drop a leading blank, so that one blank alone has no text."""
    pieces = tokenizer.get_vocab().items()
    dropped = {i for piece, i in pieces if not texts[i] and piece.replace("▁", " ").isspace()}
    return torch.tensor([text.isspace() or i in dropped for i, text in enumerate(texts)], dtype=torch.bool)


def spellings(text: str, tokenizer: Any, texts: Sequence[str], joined: str) -> list[Spelling]:
    """The ways this tokenizer writes `text`, those without a neighbour first; none if it cannot.

    texts    of every token; joined: all of them in one string, searched first since few tokens hold a whole marker
    """
    plain: dict[Ids, Spelling] = {}
    merged: dict[Ids, Spelling] = {}
    for ids, crosses in _rendered(text, tokenizer):
        if not ids or ids in plain or ids in merged:
            continue
        if tokenizer.decode(ids).strip() == text:
            plain[ids] = _spelling(ids, text, texts, texts[ids[0]].strip(), texts[ids[-1]].strip())
        elif crosses is not None and len(ids) > 1:
            found = _spelling(ids, text, texts, *crosses)
            if found.left and found.right:
                merged[ids] = found
    whole = [(i,) for i, other in enumerate(texts) if text in other] if text in joined else []
    return [*plain.values(), *merged.values(), *(Spelling(ids) for ids in whole if ids not in plain)]


def merges(found: Iterable[Spelling], texts: Sequence[str]) -> Merges:
    """Which other tokens may stand at the edges of these spellings."""
    lefts: dict[str, int] = {}
    rights: dict[str, int] = {}
    for spelling in found:
        if spelling.left:
            lefts.setdefault(spelling.left, spelling.ids[0])
        if spelling.right:
            rights.setdefault(spelling.right, spelling.ids[-1])
    begins, ends = tuple(rights), tuple(lefts)
    heads = {i: max((piece for piece in lefts if text.endswith(piece)), key=len) for i, text in enumerate(texts) if text.endswith(ends)}
    tails = {
        i: max((piece for piece in rights if text.startswith(piece)), key=len) for i, text in enumerate(texts) if text.startswith(begins)
    }
    shared = frozenset(i for i in heads.keys() & tails.keys() if len(texts[i]) >= len(heads[i]) + len(tails[i]))
    return Merges({i: lefts[piece] for i, piece in heads.items()}, {i: rights[piece] for i, piece in tails.items()}, shared)


def _spelling(ids: Ids, text: str, texts: Sequence[str], left: str, right: str) -> Spelling:
    if len(ids) == 1:
        return Spelling(ids)
    known = text.startswith(left) and text.endswith(right) and texts[ids[0]].endswith(left) and texts[ids[-1]].startswith(right)
    return Spelling(ids, left, right) if known and left and right else Spelling(ids)


def _rendered(text: str, tokenizer: Any) -> Iterator[tuple[Ids, tuple[str, str] | None]]:
    """The tokens that write `text` between neighbours, and the pieces of it that its first and last token hold, where known."""
    if not tokenizer.is_fast:
        yield tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), None
        return
    around = [(before, after) for before in _BEFORE for after in _AFTER]
    around += [(before, "") for before in _TOUCHING_BEFORE] + [("", after) for after in _TOUCHING_AFTER]
    encoded = tokenizer([before + text + after for before, after in around], add_special_tokens=False, return_offsets_mapping=True)
    for (before, _), ids, offsets in zip(around, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        start, stop = len(before), len(before) + len(text)
        here = [(i, a, b) for i, (a, b) in zip(ids, offsets, strict=True) if a < stop and b > start]
        if here:
            yield tuple(i for i, _, _ in here), (text[: max(here[0][2] - start, 0)], text[max(here[-1][1] - start, 0) :])
