"""What is drawn before it is asked for, while nobody is answered: what every tab starts with, then a step of every slider that is seen."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from .columns import Column, facets_of
from .kept import Asked
from .sending import Answer, answer, answer_ahead
from .state import State, change
from .tabs import TABS
from .views import Address

LOG = logging.getLogger(__name__)
REST, PAUSE = 0.4, 0.05  # seconds without a question before more of another tab is drawn, or a step
MOST = 30  # spans, categories, attacks
AT_ONCE = 0.0  # one figure an answer, the others by the next


def draw_ahead(columns: Sequence[Column], asked: Asked[str]) -> None:
    """What the app starts with at once; when there is time what the other tabs start with, every span over layers, and the rates of every
    category and attack."""
    try:
        while answer(columns, Address(), AT_ONCE).pending:
            pass  # each answer draws one figure more
        for state in _likely(columns):
            asked.quiet(REST)
            while answer(columns, Address(state), AT_ONCE).pending:
                asked.quiet(REST)
    except Exception:  # the app goes on; who asks is told what is wrong
        LOG.exception("drawing ahead")


def _likely(columns: Sequence[Column]) -> list[State]:
    """One click away from what the app starts with."""
    found = [facets_of(column) for column in columns]
    spans, categories, attacks = (
        list(dict.fromkeys(value for one in found for value in one.get(name, ())))[:MOST] for name in ("span", "category", "attack")
    )
    return [
        *(change(State(), tab=tab) for tab in TABS),
        *(State(tab="layers", span=span) for span in spans),
        *(State(category=category) for category in categories),
        *(State(attack=attack) for attack in attacks),
    ]


def step_ahead(columns: Sequence[Column], asked: Asked[str]) -> None:
    """One step of every slider of the page that was asked for last, again and again."""
    while True:
        address = Address.read(asked.take())
        asked.quiet(PAUSE)
        try:
            for step in steps(answer(columns, address, math.inf), address):
                if asked.more:
                    break
                answer_ahead(columns, step)
        except Exception:
            LOG.exception("drawing ahead of %s", address.href())


def steps(found: Answer, address: Address) -> list[Address]:
    """The addresses that are one step of a slider away."""
    parts = found.parts["parts"]
    sliders = {name: part["props"] for name, part in parts.items() if "data-values" in part["props"]}
    near = []
    for name, slider in sliders.items():
        values, at = slider["data-values"].split(" "), int(parts[name.replace("-control", "-rail")]["props"]["data-at"])
        there = [int(values[to]) for to in (at + 1, at - 1) if 0 <= to < len(values)]
        near += [Address.read(address.href(**{slider["data-key"]: value})) for value in there]
    return list(dict.fromkeys(near))
