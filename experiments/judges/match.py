"""The judge of prompts that have a right answer: what was said is read and compared with it.

    meta["gold"]      the right answer, as text
    meta["answer"]    how it is compared: yes_no, letter, number, text
    meta["choices"]   of letter: the texts of the choices, in order; gold is a letter or one of the texts
    meta["precision"] of number: decimals that count, right within half a unit of the last; without it exactly

What is read is a \\boxed{…}, else what follows the last "answer is" or "answer:", else all of it. An answer that was cut off, and one in
which nothing can be read, is wrong, never left out. A letter counts only where it stands as a choice: "a dog" chooses nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ...hooks.files import short
from ...hooks.records import Transcript
from ..audit.verdicts import ABSENT, Channel, Verdict

NAME = "match"

BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
MARKED = re.compile(r"\b(?:answer|option|choice)(?:\s+is\b|\s*:)\s*:?", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
YES_NO = re.compile(r"\b(yes|yeah|yep|no|nope)\b")
NO, YES = re.compile(r"\b(?:not|no|cannot)\b|n't\b"), re.compile(r"\bthere (?:is|are)\b|\byes\b")
NUMBER = re.compile(
    r"(?<![\w.^])[-+−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+(?!,\d)|(?=\.\d))(?:\.\d+)?(?:e[-+]?\d{1,2}(?!\d))?(?:\s?/\s?\d+)?",
    re.IGNORECASE,
)
FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ARTICLE = re.compile(r"^(?:a|an|the) ")


@dataclass(frozen=True)
class Said:
    """What is read of an answer. marked: the model itself said that this is its answer."""

    text: str
    marked: bool

    @property
    def first(self) -> str:
        return SENTENCE.split(self.text)[0]

    @property
    def last(self) -> str:
        return SENTENCE.split(self.text)[-1]


def judge(transcripts: Sequence[Transcript]) -> list[Verdict]:
    """Verdicts that know only right and wrong. ValueError for a prompt without a right answer, or with one that cannot be compared."""
    return [_verdict(transcript) for transcript in transcripts]


def final(answer: str) -> Said:
    """The part of an answer that counts."""
    if boxed := BOXED.findall(answer):
        return Said(boxed[-1].strip(" $"), True)
    parts = MARKED.split(answer)
    text = parts[-1].strip(" \t\n*_$")
    return Said(text, len(parts) > 1) if text else Said(answer.strip(), False)


def yes_no(said: Said, meta: Mapping[str, Any]) -> str | None:
    """The word the answer begins with, or ends with; else whether its first sentence denies or affirms."""
    first, last = said.first.lower(), said.last.lower()
    places = (YES_NO.match(first.lstrip("*_\"'( ")), YES_NO.match(last.lstrip("*_\"'( ")), re.search(YES_NO.pattern + r"\W*$", last))
    if found := next(filter(None, places), None):
        return found[1][0]
    return "n" if NO.search(first) else "y" if YES.search(first) else None


def letter(said: Said, meta: Mapping[str, Any]) -> str | None:
    """A letter that stands as a choice, or the text of a single choice."""
    choices, text = [normal(choice) for choice in meta.get("choices", ())], normal(said.text)
    known = LETTERS[: len(choices)] if choices else LETTERS
    if found := re.match(rf"\W*(?:([{known}{known.lower()}])\W*$|([{known}])(?:[).:,*]|\s*\n))", said.text):
        return (found[1] or found[2]).upper()
    if begins := [c for c in choices if c in (text, normal(said.first)) or (said.marked and f"{text} ".startswith(f"{c} "))]:
        return LETTERS[choices.index(max(begins, key=len))]
    if said.marked and (found := re.match(rf"\W*(?:[Oo]ption |[Cc]hoice )?\W*([{known}])\b", said.text)):
        return found[1]
    right = re.findall(rf"\b([{known}])\W* is (?:the )?(?:correct|right|best)\b", said.text)
    for named in (set(right), set(re.findall(rf"\(([{known}])\)", said.text)), _named(choices, text)):
        if len(named) == 1:
            return str(named.pop())
    return None


def number(said: Said, meta: Mapping[str, Any]) -> Fraction | None:
    """The first number behind a mark, else the last of all; words up to twelve where there are no digits."""
    text = FRACTION.sub(r"\1/\2", said.text)
    found = [one[0] for one in NUMBER.finditer(text)] or [
        str(WORDS.index(word)) for word in re.findall(r"[a-z]+", text.lower()) if word in WORDS
    ]
    return exact(found[0 if said.marked else -1]) if found else None


def text(said: Said, meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """All of it, or its first sentence."""
    return (normal(said.text), normal(said.first)) if said.text else None


def normal(text: object) -> str:
    """Words and numbers, in lower case, without an article in front; of a text that has neither, its signs."""
    plain = unicodedata.normalize("NFKC", str(text)).casefold().replace("−", "-").strip()
    words = " ".join(re.findall(r"-?\d+(?:\.\d+)?|[^\W_]+", plain))
    return ARTICLE.sub("", words) or plain


def exact(text: str) -> Fraction | None:
    """A number without rounding; None for what is none."""
    over, _, under = text.replace(",", "").replace("−", "-").replace(" ", "").partition("/")
    try:
        return Fraction(over) / int(under or 1)
    except (ValueError, ZeroDivisionError):
        return None


@dataclass(frozen=True)
class Matcher:
    """A kind of answer.

    read   what was said; None where nothing can be read
    gold   what is right; None where meta["gold"] is no such answer, and `form` says what would be one
    same   whether the two agree
    """

    form: str
    read: Callable[[Said, Mapping[str, Any]], Any]
    gold: Callable[[str, Mapping[str, Any]], Any]
    same: Callable[[Any, Any, Mapping[str, Any]], bool] = lambda said, gold, meta: bool(said == gold)


def _gold_letter(gold: str, meta: Mapping[str, Any]) -> str | None:
    choices = [normal(choice) for choice in meta.get("choices", ())]
    if len(gold) == 1 and gold.upper() in (LETTERS[: len(choices)] if choices else LETTERS):
        return gold.upper()
    return LETTERS[choices.index(normal(gold))] if normal(gold) in choices else None


def _near(said: Fraction, gold: Fraction, meta: Mapping[str, Any]) -> bool:
    decimals = meta.get("precision")
    return said == gold if decimals is None else abs(said - gold) <= Fraction(1, 2 * 10 ** int(decimals))


MATCHERS = {
    "yes_no": Matcher("yes or no", yes_no, lambda gold, meta: {"yes": "y", "no": "n"}.get(gold.lower())),
    "letter": Matcher('a letter, or one of meta["choices"]', letter, _gold_letter),
    "number": Matcher("a number", number, lambda gold, meta: exact(gold), _near),
    "text": Matcher("words", text, lambda gold, meta: normal(gold) or None, lambda said, gold, meta: gold in said),
}


def _named(choices: Sequence[str], text: str) -> set[str]:
    """The choices whose whole text occurs, but for one that stands only inside another."""
    found = [(m.start(), m.end(), i) for i, c in enumerate(choices) if c for m in re.finditer(rf"(?<!\S){re.escape(c)}(?!\S)", text)]
    return {LETTERS[i] for start, end, i in found if not any(a <= start and end <= b and b - a > end - start for a, b, _ in found)}


def _correct(transcript: Transcript) -> bool:
    meta, name = transcript.prompt.meta, transcript.id
    kind, gold = meta.get("answer"), meta.get("gold")
    if gold is None or kind is None:
        lacks = "right answer" if gold is None else "kind of answer"
        raise ValueError(
            f"prompt {name!r} has no {lacks} to match. Give it meta gold and answer ({', '.join(MATCHERS)}), or take another judge."
        )
    if kind not in MATCHERS:
        raise ValueError(
            f"prompt {name!r} wants its answer {kind}, which matching cannot do; it knows {', '.join(MATCHERS)}. Leave it out."
        )
    matcher = MATCHERS[kind]
    if (right := matcher.gold(str(gold).strip(), meta)) is None:
        raise ValueError(
            f"prompt {name!r} has the right answer {short(gold)}, which is not {matcher.form}. Correct its meta gold or answer."
        )
    said = matcher.read(final(transcript.answer), meta) if transcript.ended and transcript.status != "unclosed" else None
    return said is not None and matcher.same(said, right, meta)


def _verdict(transcript: Transcript) -> Verdict:
    there = transcript.status != "unclosed"
    return Verdict(
        transcript.id,
        transcript.model,
        transcript.condition,
        NAME,
        thought=ABSENT if transcript.status == "absent" else Channel(None),
        answer=Channel(None) if there else ABSENT,
        full=Channel(None),
        ended=transcript.ended and there,
        correct=_correct(transcript),
    )
