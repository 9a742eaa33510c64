"""The parts of the page that follow from its URL: tabs, chips, count, the active tab of every run."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from dash import html
from dash.development.base_component import Component

from .. import theme
from ..tables import TableProblem
from . import source as rows
from .columns import Column, facets_of
from .document import TITLE
from .filters import CHOICES, chips, choices, count_known, counted
from .kept import Budget, Kept, folder_stamp
from .parts import parts_of
from .pieces import notice, says
from .tabs import TABS
from .views import Address, View

TAKES = 0.03  # seconds that one answer may draw figures for; what is left is drawn by the next
LOG = logging.getLogger(__name__)
FAILED = "This could not be shown; the log of `thoughtlens view` says why. The other tabs are not affected."


@dataclass(frozen=True)
class Answer:
    """What the page is sent for an address, with all traces of its figures; `whole`: nothing failed and nothing is left to draw."""

    parts: dict[str, Any]
    traces: Mapping[str, str]
    title: str
    pending: bool
    whole: bool


ANSWERS: Kept[Answer] = Kept(32)
AHEAD: Kept[threading.RLock] = Kept(16)  # held while an answer is made that nobody has asked for


def sent(columns: Sequence[Column], address: Address, mode: theme.Mode, there: Sequence[str] = ()) -> dict[str, Any]:
    """All parts of the page that follow from the URL. there: names of the traces that the page has."""
    found = answer(columns, address, TAKES)
    traces = {name: told for name, told in found.traces.items() if name not in there}
    return {**found.parts, "traces": traces, "look": theme.look(mode), "title": found.title, "pending": found.pending}


def answer(columns: Sequence[Column], address: Address, takes: float) -> Answer:
    """What was answered lately, while no file of the runs has changed; else made now. takes: seconds that figures may be drawn."""
    key = _key(columns, address)
    busy = AHEAD.get(key)
    with busy or nullcontext():
        known = ANSWERS.get(key)
        if known is not None:
            return known
    made = _answer(columns, address, takes)
    return ANSWERS.put(key, made) if made.whole else made


def answer_ahead(columns: Sequence[Column], address: Address) -> None:
    """Makes the whole answer; who asks for it meanwhile waits, and does not make it, too."""
    with AHEAD.put(_key(columns, address), threading.RLock()):
        answer(columns, address, math.inf)


def _key(columns: Sequence[Column], address: Address) -> Hashable:
    return tuple((column.name, column.source and folder_stamp(column.source.run)) for column in columns), address


def _answer(columns: Sequence[Column], address: Address, takes: float) -> Answer:
    budget, traces, failed = Budget(takes), dict[str, str](), list[str]()
    open_ones = [(index, column, column.source) for index, column in enumerate(columns)]
    views = [View(index, column.name, source, address, budget, traces) for index, column, source in open_ones if source is not None]
    panel = _panel(columns, views, failed)  # first, as the budget is for figures
    parts = parts_of(_tabs(views[0]), _filters(columns, budget), *_chosen(views, failed, budget), panel)
    names = " · ".join(column.name for column in columns)
    pending = any("data-pending" in part["props"] for part in parts["parts"].values())
    return Answer(parts, traces, f"{TABS[address.state.tab].label} · {names} · {TITLE}", pending, not pending and not failed)


def _tabs(view: View) -> Component:
    """Links, so that a tab can be opened beside this one; arrows move along them (assets/keyboard.js)."""
    active = view.state.tab
    links = [
        html.A(
            tab.label,
            href=view.href(tab=name),
            id=f"tab-{name}",
            role="tab",
            tabIndex=0 if name == active else -1,
            **says(aria_selected="true" if name == active else "false", aria_controls="panel"),
        )
        for name, tab in TABS.items()
    ]
    return html.Div(links, id="tabs", **says(data_tab=active))


def _filters(columns: Sequence[Column], budget: Budget) -> Component:
    """What there is to choose from; at the start the first figure comes before it."""
    if all(column.source is None or rows.facets_known(column.source) for column in columns) or budget.allows():
        return choices([facets_of(column) for column in columns])
    return html.Div(id=CHOICES, **says(data_pending="filters"))


def _chosen(views: Sequence[View], failed: list[str], budget: Budget) -> list[Component]:
    """How many answers match, what is chosen, and whether harmful text is shown."""
    view = views[0]
    shown = view.state.shown
    switch = html.A(
        [html.Span(className="knob", **says(aria_hidden="true")), "Show harmful text"],
        href=view.href(shown=not shown),
        id="shown",
        role="switch",
        className="switch",
        **says(aria_checked="true" if shown else "false"),
    )
    later = not chips(view) and not count_known(views) and not budget.allows()
    return [
        html.P(
            None if later else safely(lambda: counted(views), "counting", failed),
            id="count",
            **says(data_pending="count" if later else None),
        ),
        html.Ul(chips(view), id="chips"),
        html.Div(switch, id="veil-switch"),
    ]


def _panel(columns: Sequence[Column], views: Sequence[View], failed: list[str]) -> Component:
    tab = TABS[views[0].state.tab]
    asked = {view.index: view for view in views}
    above = safely(lambda: tab.controls(views), "the choices of the tab", failed)
    aside = tab.aside(views[0])
    shown = [_column(column, asked.get(index), index, failed, several=len(columns) > 1) for index, column in enumerate(columns)]
    parts = [
        *([html.P(aside, className="aside")] if aside else []),
        *([html.Div(above, className="controls", id="controls")] if above else []),
        html.Div(shown, className="columns", id="columns"),
    ]
    return html.Div(parts, id="panel", **says(aria_labelledby=f"tab-{views[0].state.tab}"))


def _column(column: Column, view: View | None, index: int, failed: list[str], *, several: bool) -> Component:
    name = [html.H1(column.name)] if several else [html.H1(column.name, className="unseen")]
    content = [notice(column.problem)] if view is None else safely(lambda: TABS[view.state.tab].content(view), column.name, failed)
    return html.Section([*name, *content], id=f"column-{index}", className="column", **says(aria_label=column.name))


def safely(make: Callable[[], Any], what: str, failed: list[str]) -> Any:
    """What `make` gives; in place of a problem the reason, of a failure a notice: its cause goes to the log, and `what` to `failed`."""
    try:
        return make()
    except TableProblem as problem:
        return [notice(str(problem))]
    except Exception:
        LOG.exception("showing %s", what)
        failed.append(what)
        return [notice(FAILED, role="alert")]
