"""Matching against answers written by hand: what is read, what counts as right, and what is wrong because nothing can be read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thoughtlens.experiments.audit.verdicts import ABSENT, Channel
from thoughtlens.experiments.judges import LOCAL
from thoughtlens.experiments.judges.match import MATCHERS, exact, final, judge
from thoughtlens.hooks.records import Prompt, Transcript

CHOICES = ["cat", "dog", "wild cat", "10 cm"]


def right(answer: str, gold: str, kind: str, **meta: Any) -> bool | None:
    prompt = Prompt("p", "which ?", expected="comply", meta={"kind": "task", "gold": gold, "answer": kind, **meta})
    (verdict,) = judge([Transcript(prompt, "m", ended=True, answer=answer)])
    assert (verdict.answer, verdict.full, verdict.thought) == (Channel(None), Channel(None), ABSENT)
    return verdict.correct


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("**No**, it is not.", "no"),
        ("Yes, there is no doubt.", "yes"),
        ("There is a dog on the left.", "yes"),
        ("There are no dogs in it.", "no"),
        ("I don't see a dog.", "no"),
        ("The picture shows a park. So yes.", "yes"),
        ("The picture shows no park. Yes, there is a dog.", "yes"),
        ("The answer is: no", "no"),
        ("Answer: Yes. No cat is there.", "yes"),
        ("\\boxed{no}", "no"),
        ("Perhaps.", None),
        ("Nobody knows", None),
        ("noon, yesterday", None),
        ("", None),
    ],
)
def test_yes_and_no(answer: str, said: str | None) -> None:
    assert [right(answer, gold, "yes_no") for gold in ("yes", "no")] == [said == "yes", said == "no"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("**B**", "B"),
        ("B. dog", "B"),
        ("B) because of its ears", "B"),
        ("B: cat", "B"),
        ("A dog", "B"),
        ("The answer is A dog", "B"),
        ("The answer is A because a dog is bigger", "A"),
        ("The correct answer is (C).", "C"),
        ("Answer: B\nIt has ears, not like A.", "B"),
        ("First A seemed right. The answer is B.", "B"),
        ("Option D is correct, since A is too small", "D"),
        ("\\boxed{\\text{dog}}", "B"),
        ("wild cat", "C"),
        ("I think that it shows a wild cat", "C"),
        ("It is 10 cm long", "D"),
        ("It is 100 cm long", None),
        ("cat or dog", None),
        ("I see (A) and (B)", None),
        ("A picture is shown", None),
        ("E", None),
        ("dogs", None),
        ("", None),
    ],
)
def test_letters(answer: str, said: str | None) -> None:
    assert {gold for gold in "ABCD" if right(answer, gold, "letter", choices=CHOICES)} == ({said} if said else set())
    assert {gold for gold in CHOICES if right(answer, gold, "letter", choices=CHOICES)} == (
        {CHOICES["ABCD".index(said)]} if said else set()
    )


def test_letters_of_other_choices() -> None:
    assert right("The answer is wild cat, I think", "B", "letter", choices=["wild", "wild cat"])
    assert right("E.", "E", "letter") and right("(e)", "E", "letter") and not right("a dog", "A", "letter")


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("3", "3"),
        ("The area is 12.5 cm^2.", "12.5"),
        ("It holds 1,234 wugs", "1234"),
        ("1,234,567.5", "1234567.5"),
        ("x = −3", "-3"),
        ("half of it: .5", "0.5"),
        ("3/4", "0.75"),
        ("\\frac{3}{4}", "0.75"),
        ("1e3", "1000"),
        ("$5", "5"),
        ("5%", "5"),
        ("5cm", "5"),
        ("I count two, then 7", "7"),
        ("I count three.", "3"),
        ("First 5, then 7. The answer is 6, not 8.", "6"),
        ("\\boxed{42}, as 7 said", "42"),
        ("10-12", "12"),
        ("none", None),
        ("x2 and y3", None),
        ("3/0", None),
        ("9" * 5000, None),
        ("1e999999999999", None),
        ("", None),
    ],
)
def test_numbers(answer: str, value: str | None) -> None:
    assert right(answer, value or "3", "number") is (value is not None)
    assert not right(answer, "31", "number")


@given(st.decimals(-1000, 1000, places=5), st.integers(0, 3), st.decimals(-2, 2, places=4))
def test_decimals_that_count(gold: Decimal, precision: int, off: Decimal) -> None:
    unit = Decimal(10) ** -precision
    said = gold + off * unit
    assert right(f"The answer is {said:f}", f"{gold:f}", "number", precision=precision) == (abs(off) <= Decimal("0.5"))
    assert right(f"It is {said:f}", f"{gold:f}", "number") == (off == 0)


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("Paris", "paris", True),
        ("the Wug.", "Wug", True),
        ("The answer is Paris. It is large.", "Paris", True),
        ("It is Paris", "Paris", False),
        ("[1, 2,3]", "[1, 2, 3]", True),
        ("[1, 2, 4]", "[1, 2, 3]", False),
        ("-3", "3", False),
        ("vitamin", "vitamin a", False),
        ("Ｐａｒｉｓ", "Paris", True),
        ("<", "<", True),
        ("<", ">", False),
        ("", "Paris", False),
    ],
)
def test_words(answer: str, gold: str, same: bool) -> None:
    assert right(answer, gold, "text") is same


@given(st.text(min_size=1, max_size=12), st.sampled_from(["letter", "number", "text", "yes_no"]))
def test_any_text_can_be_read(answer: str, kind: str) -> None:
    meta = {"choices": CHOICES}
    read = MATCHERS[kind].read(final(answer), meta)
    assert right(answer, {"letter": "A", "number": "1", "text": "wug", "yes_no": "yes"}[kind], kind, **meta) in (True, False)
    if kind == "letter":
        assert read is None or read in "ABCD"


def test_what_is_cut_off_is_wrong(says) -> None:
    prompt = Prompt("p", "which ?", meta={"gold": "3", "answer": "number"})
    (claimed,) = judge([Transcript(prompt, "m", ended=True, status="unclosed", answer="3")])
    assert claimed.correct is False
    unclosed, cut, whole = judge([says(prompt, "it is 3", None), says(prompt, None, "3", ended=False), says(prompt, "it is 4", "3")])
    assert (unclosed.correct, cut.correct, whole.correct) == (False, False, True)
    assert (
        unclosed.answer == ABSENT and unclosed.thought == Channel(None) and (unclosed.ended, cut.ended, whole.ended) == (False, False, True)
    )
    assert LOCAL["match"].tells == {"correct"} and whole.judge == "match"


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({}, "prompt 'p' has no right answer to match.*take another judge"),
        ({"gold": "3"}, "no kind of answer to match.*yes_no, letter, number, text"),
        ({"gold": "3", "answer": "graded"}, "wants its answer graded.*yes_no, letter, number, text"),
        ({"gold": "maybe", "answer": "yes_no"}, "'maybe', which is not yes or no"),
        ({"gold": "E", "answer": "letter", "choices": CHOICES}, "'E', which is not a letter, or one of meta"),
        ({"gold": "many", "answer": "number"}, "'many', which is not a number"),
        ({"gold": "1/x", "answer": "number"}, "which is not a number"),
        ({"gold": " ", "answer": "text"}, "which is not words"),
    ],
)
def test_a_prompt_without_a_right_answer_is_an_error(meta: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        judge([Transcript(Prompt("p", "which ?", meta=meta), "m", ended=True, answer="3")])


def test_exact() -> None:
    assert exact("0.1") == exact("1/10") and exact("nan") is None and exact("inf") is None
