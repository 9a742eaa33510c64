"""Outputs as text, tokenizers that cut them up in different ways, and what text alone says about each token.

    tokenizer = cutting("merging")               words | bytes | pieces | merging | special
    text = TEXTS[dialect].example()              hypothesis strategy: markers in any order, with and without blanks and full stops around
    ids, kinds, status = read(text, dialect, tokenizer)

`read` looks for the markers in the text with a regular expression and lays the tokens' offsets over it: no token id is compared. A token of
white space alone that follows a marker token belongs to it.
"""

from __future__ import annotations

import functools
import random
import re

from hypothesis import strategies as st
from thoughtlens.hooks.dialects import DIALECTS, Dialect, Role
from thoughtlens.hooks.kinds import Kind
from tiny import QWEN_PIECES, WORDS
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CUTTINGS = ("words", "bytes", "pieces", "merging", "chunks", "special")
END = "<|im_end|>"
GLUE = ("", " ", "\n", "\n\n", ".", ". ", ".\n", ".\n\n", "?", "!", ":", "*", " **", ")", '"')
PLAIN = ("open it", "the box", "turn slowly", "why", "no", "2 + 2 = 4", "harm", "ok .", "Schloss", "锁", "a < b", "x > y", "# one")


@functools.cache
def cutting(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer.

    words     whole words between blanks; a marker with blanks in it is several
    bytes     one token a byte
    pieces    byte pairs, learned where markers stand on lines of their own
    merging   byte pairs, learned where markers touch words, full stops and each other
    chunks    byte pairs over everything between two blanks, as sentencepiece has them: merges cross from letters to signs
    special   each marker a token of its own
    """
    markers = sorted({text for dialect in DIALECTS.values() for _, text in dialect.markers})
    if kind == "words":
        words = sorted({word for text in (*markers, *PLAIN, *GLUE, *WORDS) for word in text.split()})
        inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([END, "<unk>", *words])}, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, unk_token="<unk>")
    inner = Tokenizer(models.BPE())
    if kind == "chunks":
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(prepend_scheme="never"), decoders.Metaspace(prepend_scheme="never")
    else:
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(QWEN_PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        inner.decoder = decoders.ByteLevel()
    between = ("\n\n", " ") if kind == "pieces" else ("", *GLUE)
    chance = random.Random(0)
    order = [chance.choice(pool) for _ in range(5000) for pool in (PLAIN, between, markers, between, markers, between)]
    text = ["".join(order[at : at + 6]) for at in range(0, len(order), 6)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = {"bytes": 257}.get(kind, 700)
    inner.train_from_iterator(text, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END)
    if kind == "special":
        tokenizer.add_tokens(markers)
    return tokenizer


def outputs(dialect: Dialect, *, blanks: bool) -> st.SearchStrategy[str]:
    """Texts of words and of the dialect's markers, in the order they belong or in any; `blanks` keeps blanks around every piece."""
    markers = [text for _, text in dialect.markers] or ["<think>"]
    some = st.lists(st.sampled_from(markers[:8]), max_size=5)
    ordered = st.sampled_from(sorted({tuple(t for t in markers[:8] if t != left) for left in (None, *markers[:8])}))
    order = {text: n for n, (_, text) in enumerate(sorted(dialect.markers, key=lambda pair: _RANK[pair[0]]))}
    pieces = st.one_of(some, ordered.map(lambda texts: sorted(texts, key=lambda text: order.get(text, 0))))
    glue = st.sampled_from([" ", "\n", "\n\n"] if blanks else GLUE)

    @st.composite
    def text(draw: st.DrawFn) -> str:
        words = st.lists(st.sampled_from(PLAIN), max_size=2).map(" ".join)
        parts = [draw(words)]
        for marker in draw(pieces):
            parts += [draw(glue), marker, draw(glue), draw(words)]
        return "".join(parts)

    return text()


_RANK = {Role.OPEN: 0, Role.INNER: 1, Role.CLOSE: 2, Role.ANSWER: 3, Role.TRAILING: 4}
_LETTER = {Role.OPEN: "o", Role.INNER: "i", Role.CLOSE: "c", Role.ANSWER: "a", Role.TRAILING: "t"}


def read(text: str, dialect: Dialect, tokenizer: PreTrainedTokenizerFast, opened: bool = False) -> tuple[list[int], list[int], str]:
    """Token ids, their kinds, and the split status, as the text has them."""
    role = {marker: its for its, marker in dialect.markers}
    found = [(m.start(), m.end(), role[m[0]]) for m in re.finditer("|".join(map(re.escape, role)) or "(?!)", text)]
    order = "O" * opened + "".join(_LETTER[its] for _, _, its in found if its != Role.TRAILING)
    places = [(start, stop) for start, stop, its in found if its != Role.TRAILING]
    places = [(0, 0)] * opened + places
    if not order:
        status, thought, answer = "absent", (0, 0), (0, len(text))
    elif not (closer := re.search("[ca]", order)):
        status, thought, answer = "unclosed", (places[0][1], len(text)), (len(text), len(text))
    else:
        at = closer.start()
        begun = bool(re.match("[Ooi]", order))
        extra = re.search("^.[^ca]*o", order[: at + 1]) or re.search("[oic]", order[at + 1 :])
        status = "multiple" if extra else "closed" if begun else "close_only"
        thought, answer = (places[0][1] if begun else 0, places[at][0]), (places[at][1], len(text))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    kinds: list[int] = []
    for a, b in encoded["offset_mapping"]:
        fresh = kinds[-1] == Kind.MARKER if kinds else opened
        if any(a < stop and b > start for start, stop, _ in found) or (fresh and text[a:b].isspace()):
            kinds.append(int(Kind.MARKER))
        else:
            inside = [kind for kind, (start, stop) in ((Kind.THOUGHT, thought), (Kind.ANSWER, answer)) if start <= a and b <= stop]
            kinds.append(int(inside[0]) if inside else int(Kind.TEMPLATE))
    return encoded["input_ids"], kinds, status
