"""Splitting text alone says what splitting token ids says: every dialect, markers anywhere, and the shipped trio's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thoughtlens.hooks.dialects import DIALECTS, Dialect, bind, pieces, split
from thoughtlens.hooks.plaintext import PlainSplit, split_text
from transformers import PreTrainedTokenizerFast
from written import cutting, outputs, read

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "reasoning"


def by_tokens(text: str, dialect: str, tokenizer: PreTrainedTokenizerFast, opened: bool) -> PlainSplit:
    """The same as generate() makes it: ids, split, pieces, decoded, stripped."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    parts = split(ids, bind(dialect, tokenizer, [tokenizer.eos_token_id]), opened)
    thought, answer = (tokenizer.decode(part, skip_special_tokens=False).strip() for part in pieces(ids, parts))
    return PlainSplit(parts.status, thought, answer)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", ["bytes", "special"])  # of which no token is part of a marker and of its neighbour
def test_text_says_what_its_tokens_say(kind: str, name: str) -> None:
    dialect, tokenizer = DIALECTS[name], cutting(kind)

    @settings(max_examples=20)
    @given(outputs(dialect, blanks=False), st.booleans())
    def agree(text: str, opened: bool) -> None:
        found = split_text(text, name, opened)
        assert found == split_text(text, dialect, opened) == by_tokens(text, name, tokenizer, opened)
        assert found.status == read(text, dialect, tokenizer, opened)[2]  # by regular expression, without any of our code

    agree()


def test_what_the_shipped_tokenizer_writes_is_split_alike() -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(SHIPPED)
    words = ["okay", ".", "i", "must", "refuse", "sure", "the", "answer", "is", ":", "sorry", "<think>", "</think>"]

    @given(st.lists(st.sampled_from(words), max_size=14), st.booleans())
    def agree(written: list[str], opened: bool) -> None:
        text = tokenizer.decode(tokenizer(" ".join(written), add_special_tokens=False)["input_ids"], skip_special_tokens=False)
        assert text.split() == written
        found, theirs = split_text(text, "think", opened), by_tokens(text, "think", tokenizer, opened)
        assert (found.status, found.thought.split(), found.answer.split()) == (theirs.status, theirs.thought.split(), theirs.answer.split())

    agree()


@pytest.mark.parametrize(
    ("dialect", "text", "opened", "status", "thought", "answer"),
    [
        ("think", "<think>\nso.\n</think>\n\nyes ", False, "closed", "so.", "yes"),
        ("think", "so.</think>yes", True, "closed", "so.", "yes"),
        ("think", "so.</think>yes", False, "close_only", "so.", "yes"),
        ("think", "<think>so, and then", False, "unclosed", "so, and then", ""),
        ("think", "so, and then", True, "unclosed", "so, and then", ""),
        ("think", "so, and then", False, "absent", "", "so, and then"),
        ("think", "", False, "absent", "", ""),
        ("think", "", True, "unclosed", "", ""),
        ("think", "<think></think>", False, "closed", "", ""),
        ("think", "well <think>so</think>yes", False, "closed", "so", "yes"),
        ("think", "<think>a</think>b</think>c", False, "multiple", "a", "b</think>c"),
        ("think", "<think>a<think>b</think>c", False, "multiple", "a<think>b", "c"),
        ("think", "<think>a</ think>b< /think>", False, "unclosed", "a</ think>b< /think>", ""),
        ("think", "<THINK>a</THINK>b", False, "absent", "", "<THINK>a</THINK>b"),
        ("think_answer", "<think>a</think> <answer>b</answer>", False, "closed", "a", "b"),
        ("think_answer", "<think>why.</think><answer>no</answer>", False, "closed", "why.", "no"),  # tokens `.</` and `><` would merge
        ("think_answer", "<think>a <answer>b", False, "closed", "a", "b"),
        ("mulberry", "### Rationales:\na\n### Step 12:\nb\n### The final answer is: 5", False, "closed", "a\n\nb", "5"),
        ("llava_cot", "<SUMMARY> a </SUMMARY> <REASONING> b </REASONING> <CONCLUSION> c </CONCLUSION>", False, "closed", "a   b", "c"),
        ("virgo", "<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>b<|end_of_solution|>", False, "closed", "a", "b"),
        ("kimi", "◁think▷a◁/think▷b", False, "closed", "a", "b"),
        ("magistral", "[THINK]a[/THINK]b", False, "closed", "a", "b"),
        ("llamav_o1", "<think>a</think>b", False, "absent", "", "<think>a</think>b"),
        ("none", " a ", False, "absent", "", "a"),
        (Dialect("ponder", "(ponder)", "(done)"), "(ponder)\U0001f600(done)\ud800 é", False, "closed", "\U0001f600", "\ud800 é"),
    ],
)
def test_texts_and_their_parts(dialect: str | Dialect, text: str, opened: bool, status: str, thought: str, answer: str) -> None:
    assert split_text(text, dialect, opened) == PlainSplit(status, thought, answer)


def test_dialects_that_are_none_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="unknown dialect 'klingon'; known are think, .*none. Or pass Dialect"):
        split_text("a", "klingon")
    with pytest.raises(ValueError, match="dialect 'twins' has markers of different roles that end alike.*'<a>', 'x<a>'.*other markers"):
        split_text("a", Dialect("twins", "<a>", "x<a>"))
