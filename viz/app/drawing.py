"""Figures on the page, each a sheet: its title, the rows it shows, the figure, the same in words.

A figure is kept until its tables change. What is not kept yet is drawn as long as the answer may take; the rest is pending, and the page
asks again at once, so that a tab of many figures fills from the top instead of waiting for the last (assets/apply.js).

A click on a figure is followed by what its `data-link` says (assets/address.js): `cell` sets layer and span, `category` and `attack`
filter, `point` opens a thought.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from dash import html
from dash.development.base_component import Component

from .. import theme
from ..tables import TableProblem, where
from . import source as rows
from .kept import Kept, stamps
from .pieces import notice, prose, says
from .views import View

LOG = logging.getLogger(__name__)
FAILED = "This figure could not be drawn; the log of `thoughtlens view` says why. The rest of the page is not affected."


@dataclass(frozen=True)
class Drawn:
    """A figure without its title and its paper, as JSON values, and what stands around it.

    data, print   its traces as JSON text, and what tells them from others
    """

    spec: dict[str, Any]
    title: str
    note: str
    reading: str
    data: str
    print: str


@dataclass(frozen=True)
class Undrawn:
    """Why there is no figure. `failed`: not for want of rows."""

    why: str
    failed: bool = False


@dataclass(frozen=True)
class Sketch:
    """A figure to draw: what tells it from others, the tables whose change makes it another, and how it is made."""

    key: Hashable
    tables: tuple[str, ...]
    make: Callable[[], Drawn]
    kept: bool = True


KEPT: Kept[Drawn | Undrawn] = Kept(400)
DRAWING = threading.RLock()  # a figure that two threads want is drawn once


@dataclass(frozen=True)
class Asked:
    """A figure and its reading out of small tables.

    options  further arguments of both
    kept     (column, value): the rows that are drawn, of tables that have the column
    """

    make: Callable[..., go.Figure]
    read: Callable[..., str]
    tables: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()
    kept: tuple[tuple[str, str], ...] = ()


def of_tables(view: View, asked: Asked) -> Sketch:
    def make() -> Drawn:
        tables = [rows.table(view.source, name) for name in asked.tables]
        tables = [where(table, **{column: value for column, value in asked.kept if column in table}) for table in tables]
        options = dict(asked.options)
        return draw(asked.make(*tables, **options), asked.read(*tables, **options))

    return Sketch(asked, asked.tables, make)


def draw(figure: go.Figure, reading: str) -> Drawn:
    spec, title, note = theme.untitled(figure)
    spec["layout"]["dragmode"] = False
    data = json.dumps(spec["data"], separators=(",", ":"))
    return Drawn(spec, title, note, reading, data, hashlib.blake2b(data.encode(), digest_size=12).hexdigest())


def sheet(
    view: View, key: str, sketch: Sketch, *, link: str = "", remark: str = "", marked: Callable[[Drawn], Drawn] = lambda drawn: drawn
) -> Component:
    """The figure with its title and reading, or the reason why it is not there.

    remark  stands under the title
    marked  adds what is chosen to the figure
    """
    place = f"sheet-{view.index}-{key}"
    found = _found(view, key, sketch)
    if found is None:
        return html.Div(html.P("drawing …", className="pending"), id=place, **says(data_pending=key))
    if isinstance(found, Undrawn):
        return html.Div(notice(found.why, role="alert" if found.failed else None), id=place)
    return html.Div(_figure(view, key, place, marked(found), link, remark), id=place)


def _found(view: View, key: str, sketch: Sketch) -> Drawn | Undrawn | None:
    """The figure, kept or drawn now; nothing where this answer has taken its time."""
    made_from = (view.source, sketch.key, stamps(view.source.run, *sketch.tables))
    known = KEPT.get(made_from) if sketch.kept else None
    if known is not None:
        return known
    if not sketch.kept:
        return _made(view, key, sketch)
    if not view.budget.allows():
        return None
    with DRAWING:
        return KEPT.get(made_from) or KEPT.put(made_from, _made(view, key, sketch))


def _made(view: View, key: str, sketch: Sketch) -> Drawn | Undrawn:
    try:
        return sketch.make()
    except TableProblem as problem:
        return Undrawn(str(problem))
    except Exception:
        LOG.exception("drawing %s of %s", key, view.name)
        return Undrawn(FAILED, failed=True)


def _figure(view: View, key: str, place: str, drawn: Drawn, link: str, remark: str) -> Component:
    """The figure as assets/figures.js draws it, out of its layout and the name of its traces, which are sent where the page lacks them."""
    view.traces[drawn.print] = drawn.data
    layout = drawn.spec["layout"]
    says_what = says(data_traces=drawn.print, data_layout=json.dumps(layout, separators=(",", ":")), data_link=link or None)
    graph = html.Div(id=f"{place}-figure", style={"height": f"{layout['height']}px"}, **says_what)
    told = says(aria_label=f"{drawn.title}. {drawn.reading}")
    return html.Figure(
        [
            html.H3(drawn.title, id=f"{place}-title"),
            html.P([drawn.note, *([html.Span(f" · {remark}")] if remark else [])], className="note", id=f"{place}-note"),
            html.Div(html.Div(graph, className=f"plot {link}".strip(), id=f"{place}-plot", role="img", **told), className="wide"),
            html.Figcaption(prose(drawn.reading), id=f"{place}-reading"),
        ]
    )
