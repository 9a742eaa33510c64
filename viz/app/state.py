"""What the URL of the app carries: which tab, which layer and span, which rows, whose thought.

    tab=thoughts&layer=4&search=florp  ⇄  State(tab="thoughts", layer=4, search="florp")

A link may come from anywhere, so reading one never fails: a key nobody knows, a number that is none and a text that is too long are as
if they had not been there. Writing leaves out what is as it was at the start; both together give back the same State.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeGuard, get_args
from urllib.parse import parse_qsl, quote, urlencode

Tab = Literal["collapse", "layers", "thoughts", "geometry", "steering", "provenance"]
Method = Literal["pca", "lda"]
Color = Literal["harmful", "verdict", "attack", "category", "model"]

CHOICES: dict[str, tuple[str, ...]] = {"tab": get_args(Tab), "method": get_args(Method), "color": get_args(Color)}
NUMBERS = ("layer", "page")
MOST_TYPED, MOST_TEXT, MOST_NUMBER, MOST_QUERY = 200, 2_000, 999_999, 65_536  # characters typed, and of a name in a run
NUMBER = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True)
class State:
    """Everything that a link to a view holds. An empty text means all of them, or what the app starts with.

    layer, span    where hidden states are read; None and "": what a table has first
    model, condition, benchmark, attack, category, verdict    rows that are kept
    search         a substring of prompt, goal, thought or answer, upper and lower case alike
    prompt, page   the prompt that is open; the page of the list, from 0
    method, color  how points are projected, and what colours them
    shown          blurred text was asked for

    ValueError for a value outside its choices, a search over 200 or another text over 2,000 characters, a number below 0 or over 999999.
    """

    tab: Tab = "collapse"
    layer: int | None = None
    span: str = ""
    model: str = ""
    condition: str = ""
    benchmark: str = ""
    attack: str = ""
    category: str = ""
    verdict: str = ""
    search: str = ""
    prompt: str = ""
    page: int = 0
    method: Method = "pca"
    color: Color = "harmful"
    shown: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not _allowed(field.name, value):
                raise ValueError(f"{field.name} = {str(value)[:60]!r} is no state of the app; give {_what(field.name)}.")

    @classmethod
    def from_query(cls, query: str) -> State:
        """The state a link holds, with or without its question mark. Never raises."""
        pairs = parse_qsl(query.removeprefix("?")[:MOST_QUERY], keep_blank_values=True, errors="replace")
        return change(cls(), **{name: _read(name, value) for name, value in pairs if name in DEFAULTS})

    def query(self) -> str:
        """The link's part after the question mark: what differs from the start, percent-encoded."""
        there = ((name, getattr(self, name)) for name in DEFAULTS)
        return urlencode([(name, _written(value)) for name, value in there if value != DEFAULTS[name]], quote_via=quote, safe="")


def change(state: State, **values: object) -> State:
    """The state with those values that are allowed; the others, and names it does not know, are left as they were."""
    allowed: dict[str, object] = {name: value for name, value in values.items() if name in DEFAULTS and _allowed(name, value)}
    return replace(state, **allowed)  # type: ignore[arg-type]


def filters(state: State) -> Mapping[str, str]:
    """Column -> value of the rows that are kept, in the order of the fields; no entry where all are."""
    names = ("model", "condition", "benchmark", "attack", "category", "verdict")
    return {name: getattr(state, name) for name in names if getattr(state, name)}


def _allowed(name: str, value: object) -> bool:
    if name in CHOICES:
        return isinstance(value, str) and value in CHOICES[name]
    if name in NUMBERS:
        return (name == "layer" and value is None) or (_whole(value) and 0 <= value <= MOST_NUMBER)
    if name == "shown":
        return isinstance(value, bool)
    return isinstance(value, str) and len(value) <= (MOST_TYPED if name == "search" else MOST_TEXT) and _sendable(value)


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _sendable(text: str) -> bool:
    """Whether UTF-8 can say it: half a surrogate pair cannot be put into a link."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _read(name: str, text: str) -> object:
    if name in NUMBERS:
        return int(text) if NUMBER.fullmatch(text) else None if name == "layer" else 0
    return text == "1" if name == "shown" else text


def _written(value: object) -> str:
    return "1" if value is True else str(value)


def _what(name: str) -> str:
    if name in CHOICES:
        return f"one of {', '.join(CHOICES[name])}"
    if name in NUMBERS:
        return f"a whole number from 0 to {MOST_NUMBER}" + (" or None" if name == "layer" else "")
    return (
        "True or False"
        if name == "shown"
        else f"a text of at most {MOST_TYPED if name == 'search' else MOST_TEXT} characters, without half surrogate pairs"
    )


DEFAULTS: dict[str, object] = {field.name: field.default for field in fields(State)}
