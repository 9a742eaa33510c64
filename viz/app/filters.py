"""The row of filters over every tab, the chips of what is chosen, and how many answers match.

What is chosen in the filters is no part of what the server sends, so they are drawn once and keep the focus; assets/address.js keeps them
at what the URL says.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from dash import html
from dash.development.base_component import Component

from ..tables import TableProblem
from . import source as rows
from .kept import Kept, stamps
from .pieces import says
from .state import State
from .views import LISTED, View

LABELS = {
    "model": "Model",
    "condition": "Condition",
    "benchmark": "Benchmark",
    "attack": "Attack",
    "category": "Category",
    "verdict": "Verdict",
}
CHIPS = {**LABELS, "search": "Search", "span": "Span", "layer": "Layer"}
EVERY = "all"
CHOICES = "filter-choices"
COUNTED: Kept[int] = Kept(256)


def chooser(key: str, label: str, options: Sequence[tuple[str, str]], chosen: str = "", *, of: str = "set") -> Component:
    """A labelled choice that writes `key` of the URL; options are (value, text)."""
    name = f"{of}-{key}"
    choices = [html.Option(text, value=value) for value, text in options]
    return html.Div(
        [html.Label(label, htmlFor=name), html.Select(choices, id=name, **says(data_key=key, data_chosen=chosen))],
        className="control",
        id=f"{name}-control",
    )


def slider(key: str, label: str, values: Sequence[int], chosen: int, *, of: str = "set") -> Component:
    """A labelled slider over the numbers there are; its position is their place in `values`.

    assets/address.js puts the input itself into the rail: Dash has none that is a plain slider of the browser.
    """
    name = f"{of}-{key}"
    rail = says(data_input=name, data_at=str(values.index(chosen)))
    return html.Div(
        [
            html.Label([label, " ", html.Span(str(chosen), className="told", id=f"{name}-told")], htmlFor=name),
            html.Div(className="rail", id=f"{name}-rail", **rail),
            html.Span([html.Span(str(values[0])), html.Span(str(values[-1]))], className="ends", **says(aria_hidden="true")),
        ],
        className="control slide",
        id=f"{name}-control",
        **says(data_key=key, data_values=" ".join(map(str, values))),
    )


def choices(found: Sequence[Mapping[str, Sequence[str]]]) -> Component:
    """Every filter with the values that any of the runs has."""
    fields = [
        chooser(key, label, [("", EVERY), *((value, value) for value in _union(found, key))], of="filter") for key, label in LABELS.items()
    ]
    return html.Div(fields, id=CHOICES)


def _union(found: Sequence[Mapping[str, Sequence[str]]], key: str) -> list[str]:
    return list(dict.fromkeys(value for facets in found for value in facets.get(key, ())))


def chips(view: View) -> list[Component]:
    """What is chosen, each with a link that takes it back, and one that takes back all."""
    chosen = [(key, label, getattr(view.state, key)) for key, label in CHIPS.items() if getattr(view.state, key) not in ("", None)]
    links: list[Component] = [
        html.Li(
            html.A(
                [html.Span(f"{label} "), html.B(str(value)), html.Span("×", className="cross", **says(aria_hidden="true"))],
                href=view.href(**{key: getattr(State(), key)}),
                className="chip",
                id=f"chip-{key}",
                **says(aria_label=f"Remove {label.lower()} {value}"),
            )
        )
        for key, label, value in chosen
    ]
    if links:
        cleared = {key: getattr(State(), key) for key in CHIPS}
        links.append(html.Li(html.A("Clear", href=view.href(**cleared), className="clear", id="chip-clear")))
    return links


def counted(views: Sequence[View]) -> str:
    """412 answers match; of several runs, each by name."""
    told = []
    for view in views:
        try:
            n = f"{_total(view):,} answers"
        except TableProblem:
            n = "no answers"
        told.append(f"{view.name}: {n}" if len(views) > 1 else n)
    return " · ".join(told) + (" match" if any(getattr(view.state, key) for view in views for key in LISTED) else "")


def count_known(views: Sequence[View]) -> bool:
    """Whether nothing need be counted."""
    return all(COUNTED.get(_asked(view)) is not None for view in views)


def _asked(view: View) -> Hashable:
    return view.source, tuple(getattr(view.state, key) for key in LISTED), stamps(view.source.run, "answers", "prompts")


def _total(view: View) -> int:
    known = COUNTED.get(_asked(view))
    return COUNTED.put(_asked(view), rows.matching(view.source, view.narrowed(page=0).state, limit=1)[1]) if known is None else known
