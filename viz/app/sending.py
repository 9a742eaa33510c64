"""The parts of the page that follow from its URL: tabs, chips, count, the active tab of every run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from dash import html
from dash.development.base_component import Component

from .. import theme
from ..tables import TableProblem
from .columns import Column, facets_of
from .document import TITLE
from .filters import chips, choices, counted
from .kept import Budget
from .parts import parts_of
from .pieces import notice, says
from .tabs import TABS
from .views import Address, View

TAKES = 0.03  # seconds that one answer may draw figures for; what is left is drawn by the next
LOG = logging.getLogger(__name__)
FAILED = "This could not be shown; the log of `thoughtlens view` says why. The other tabs are not affected."


def sent(columns: Sequence[Column], address: Address, mode: theme.Mode) -> dict[str, Any]:
    """All parts of the page that follow from the URL."""
    budget = Budget(TAKES)
    open_ones = [(index, column, column.source) for index, column in enumerate(columns)]
    views = [View(index, column.name, source, address, mode, budget) for index, column, source in open_ones if source is not None]
    panel = _panel(columns, views)  # first: what is read beside it is there by then (draw_first)
    parts = parts_of(_tabs(views[0]), choices([facets_of(column) for column in columns]), *_chosen(views), panel)
    names = " · ".join(column.name for column in columns)
    pending = any("data-pending" in part["props"] for part in parts["parts"].values())
    return {**parts, "title": f"{TABS[address.state.tab].label} · {names} · {TITLE}", "pending": pending}


def draw_first(columns: Sequence[Column]) -> None:
    """Draws what the app starts with, and reads meanwhile what there is to choose from, so that it is there when a browser asks."""
    threading.Thread(target=lambda: [facets_of(column) for column in columns], daemon=True).start()
    while sent(columns, Address(), "light")["pending"]:
        pass


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


def _chosen(views: Sequence[View]) -> list[Component]:
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
    return [
        html.P(safely(lambda: counted(views), "counting"), id="count"),
        html.Ul(chips(view), id="chips"),
        html.Div(switch, id="veil-switch"),
    ]


def _panel(columns: Sequence[Column], views: Sequence[View]) -> Component:
    tab = TABS[views[0].state.tab]
    asked = {view.index: view for view in views}
    above = safely(lambda: tab.controls(views), "the choices of the tab")
    aside = tab.aside(views[0])
    shown = [_column(column, asked.get(index), index, several=len(columns) > 1) for index, column in enumerate(columns)]
    parts = [
        *([html.P(aside, className="aside")] if aside else []),
        *([html.Div(above, className="controls", id="controls")] if above else []),
        html.Div(shown, className="columns", id="columns"),
    ]
    return html.Div(parts, id="panel", **says(aria_labelledby=f"tab-{views[0].state.tab}"))


def _column(column: Column, view: View | None, index: int, *, several: bool) -> Component:
    name = [html.H1(column.name)] if several else [html.H1(column.name, className="unseen")]
    content = [notice(column.problem)] if view is None else safely(lambda: TABS[view.state.tab].content(view), column.name)
    return html.Section([*name, *content], id=f"column-{index}", className="column", **says(aria_label=column.name))


def safely(make: Callable[[], Any], what: str) -> Any:
    """What `make` gives; in place of a problem the reason, and of a failure a notice, whose cause goes to the log."""
    try:
        return make()
    except TableProblem as problem:
        return [notice(str(problem))]
    except Exception:
        LOG.exception("showing %s", what)
        return [notice(FAILED, role="alert")]
