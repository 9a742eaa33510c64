"""Tokens put together are the text the model wrote, for every way of writing spaces; the tokenizers themselves are the oracle."""

from __future__ import annotations

import pytest
from thoughtlens.viz.words import BYTES, pieces
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = "okay , the wug florps — naïve ☃ 🙂 zimmel\n\nnext: dax(es) ."


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([TEXT[:20]] * 3, trainers.BpeTrainer(initial_alphabet=alphabet, vocab_size=290))
    return tokenizer


def test_byte_level_pieces_are_the_text_and_letters_of_several_tokens_stay_whole():
    tokens = byte_level().encode(TEXT).tokens
    found = pieces(tokens)
    assert "".join(found) == TEXT and len(found) == len(tokens)
    assert "🙂" in found and found[found.index("🙂") - 1] == ""
    assert set(BYTES) == set(pre_tokenizers.ByteLevel.alphabet()) and sorted(BYTES.values()) == list(range(256))


def test_added_tokens_of_other_letters_are_written_as_they_are():
    assert pieces(["<｜end▁of▁text｜>", "Ġwug", "Ċ"]) == ["<｜end▁of▁text｜>", " wug", "\n"]


def test_letters_cut_at_the_end_are_shown_and_not_dropped():
    tokens = byte_level().encode("a ☃").tokens[:-1]
    assert "".join(pieces(tokens)) == "a \ufffd"


def test_sentence_pieces():
    theirs = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokens = ["▁the", "▁w", "ug", "<0x0A>", "<0xE2>", "<0x98>", "<0x83>", "▁dax"]
    assert "".join(pieces(tokens)) == theirs.decode(tokens) == " the wug\n☃ dax"
    assert pieces(["<s▁end>", *tokens])[0] == "<s▁end>"


def test_tokens_that_are_text_already_are_left_alone():
    assert pieces([" the", " wug", "s", "\n"]) == [" the", " wug", "s", "\n"]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["okay", ".", "the", "wug", ",", "florp", "(", "dax", ")", "?"], "okay. the wug, florp (dax)?"),
        (["wug"], "wug"),
        (["1", "stir", "<b>"], "1 stir <b>"),
        ([], ""),
    ],
)
def test_whole_words_read_well(tokens, text):
    assert "".join(pieces(tokens)) == text
