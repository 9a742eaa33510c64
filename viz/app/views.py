"""What one column of the page shows, and links from it to other views.

An address is the part of the URL after the question mark: the state, and the two outputs that are read side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote, urlencode

from .kept import Budget
from .source import Source
from .state import MOST_QUERY, MOST_TEXT, State, change

SIDES = ("left", "right")
LISTED = (
    "model",
    "condition",
    "benchmark",
    "attack",
    "category",
    "verdict",
    "search",
)  # a change of these starts the list at its first page


@dataclass(frozen=True)
class Address:
    """The state, and the outputs at the left and right of the reader ("reasoning @ steered"); empty: what the app starts with."""

    state: State = field(default_factory=State)
    left: str = ""
    right: str = ""

    @classmethod
    def read(cls, query: str) -> Address:
        """Never raises, as State.from_query."""
        pairs = dict(parse_qsl(query.removeprefix("?")[:MOST_QUERY], keep_blank_values=True, errors="replace"))
        left, right = (pairs.get(side, "")[:MOST_TEXT] for side in SIDES)
        return cls(State.from_query(query), left, right)

    def href(self, **changes: object) -> str:
        """The link to this view with some values changed; a change of what is listed starts again at the first page."""
        sides = {side: str(changes.pop(side, getattr(self, side))) for side in SIDES}
        if any(name in changes for name in LISTED):
            changes.setdefault("page", 0)
        state = change(self.state, **changes)
        beside = urlencode([(side, value) for side, value in sides.items() if value], quote_via=quote, safe="")
        return "?" + "&".join(part for part in (state.query(), beside) if part)


@dataclass(frozen=True)
class View:
    """One run beside others: its place among them, its name, its rows, what the URL asks, how long an answer may take, and the traces of
    its figures by their names, as they are drawn."""

    index: int
    name: str
    source: Source
    address: Address
    budget: Budget = field(default_factory=lambda: Budget(math.inf))
    traces: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> State:
        return self.address.state

    def href(self, **changes: object) -> str:
        return self.address.href(**changes)

    def narrowed(self, **changes: object) -> View:
        """The same view of another state."""
        return replace(self, address=replace(self.address, state=change(self.state, **changes)))
