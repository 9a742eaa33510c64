"""The small parts every tab is made of. Text from data is always a child of an element, never markup, so the browser shows it as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dash import html
from dash.development.base_component import Component

if TYPE_CHECKING:
    from ..headlines import Headline

Children = Sequence[Component | str] | Component | str | None
TOGETHER = re.compile(r"(\[[^\]]{1,24}\])")  # an interval is never broken over two lines


def says(**values: object) -> dict[str, Any]:
    """Attributes with a dash in their name: says(aria_label="…") is {"aria-label": "…"}; what is None is left out."""
    return {name.replace("_", "-"): value for name, value in values.items() if value is not None}


def prose(text: str) -> list[Component | str]:
    """A sentence with numbers: intervals and `n = 12` stay on one line, what stands between backticks is a command."""
    found: list[Component | str] = []
    for index, part in enumerate(text.replace(" = ", "\u00a0=\u00a0").split("`")):
        if index % 2:
            found.append(html.Code(part))
            continue
        pieces = TOGETHER.split(part)
        found += [html.Span(piece, className="whole") if at % 2 else piece for at, piece in enumerate(pieces) if piece]
    return found


def notice(text: str, *, role: str | None = None) -> Component:
    """What is shown where something cannot be: why, and what to do. `role` alert: something failed."""
    return html.P(prose(text), className="notice", role=role)


def note(text: str) -> Component:
    return html.P(prose(text), className="note")


def heading(title: str, lede: str = "") -> Component:
    return html.Div([html.H2(title), *([html.P(lede, className="lede")] if lede else [])], className="heading")


def badge(text: str, kind: str = "") -> Component:
    return html.Span(text, className=f"badge {kind}".strip())


def cards(found: Sequence[Headline]) -> Component:
    """Headline numbers, each with its question and its interval."""
    return html.Ul([_card(card) for card in found], className="cards")


def _card(card: Headline) -> Component:
    return html.Li(
        [
            html.P(card.question, className="question"),
            html.P(card.number, className="number"),
            html.P(prose(card.detail), className="detail"),
        ]
    )


def facts(rows: Sequence[tuple[str, Children]], *, head: tuple[str, ...] = ()) -> Component:
    """A table of names and what they are."""
    body = [html.Tr([html.Th(name, scope="row"), html.Td(value)]) for name, value in rows]
    top = [html.Thead(html.Tr([html.Th(name, scope="col") for name in head]))] if head else []
    return html.Div(html.Table([*top, html.Tbody(body)], className="facts"), className="wide")


def veiled(child: Children, *, hidden: bool, what: str, block: bool = False) -> Component:
    """Harmful content: blurred, and out of reach of selection and screen readers, until it is asked for; a label says what is there."""
    element = html.Div if block else html.Span
    if not hidden:
        return element(child, className="unveiled")
    blurred = element(child, className="veil", **says(aria_hidden="true"))
    return element([html.Span(f"{what} hidden", className="unseen"), blurred], className="veiled", title=f"{what} hidden")
