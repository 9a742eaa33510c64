"""The thoughts: which prompts match, and the one that is open; below, what the probe reads along all thoughts on average."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from dash import html
from dash.development.base_component import Component

from ... import theme
from ...tables import TableProblem
from .. import source as rows
from ..opened import is_harmful, name_of, reader
from ..pieces import badge, heading, notice, says, veiled
from ..views import View
from .tab import sections

PER_PAGE, MOST_TEXT = 20, 160
LEDE = "What the models were asked, thought and answered. Tokens are coloured by what the probe reads at the chosen layer."


def content(view: View) -> list[Component]:
    return [
        heading("Read the thoughts", LEDE),
        html.Div([_list(view), html.Div(reader(view), className="open", id=f"reader-{view.index}", tabIndex=-1)], className="thoughts"),
        *sections(view, "thoughts"),
    ]


def _list(view: View) -> Component:
    place = f"list-{view.index}"
    try:
        found, count = rows.matching(view.source, view.state, limit=PER_PAGE)
    except TableProblem as problem:
        return html.Div(notice(str(problem)), id=place)
    if found.empty:
        told = "No answer matches. Take a filter back." if not count else "This page is past the last one."
        return html.Div([notice(told), *_pages(view, count)], id=place)
    answers = groupby(found.to_dict("records"), key=itemgetter("prompt_id"))
    entries = [_entry(view, list(group)) for _, group in answers]
    return html.Div([html.Ul(entries, className="prompts"), *_pages(view, count)], id=place, className="listed")


def _entry(view: View, answers: Sequence[Mapping[Hashable, Any]]) -> Component:
    """A prompt with the verdicts on its answers."""
    first = answers[0]
    prompt, harmful = str(first["prompt_id"]), is_harmful(first["harmful"])
    text = str(first["text"])
    text = text if len(text) <= MOST_TEXT else text[:MOST_TEXT].rsplit(" ", 1)[0] + " …"
    models = theme.ordered([str(row["model"]) for row in answers])
    order = sorted(answers, key=lambda row: (models.index(str(row["model"])), row["condition"] != "unsteered"))
    verdicts = [
        part
        for row in order
        for part in (html.Span(name_of(row["model"], row["condition"]), className="who"), badge(str(row["verdict"]), str(row["verdict"])))
    ]
    return html.Li(
        html.A(
            [
                html.Span([html.Span(prompt, className="id"), html.Span(f"{first['category']} · {first['attack']}")], className="about"),
                html.Span(veiled(text, hidden=harmful and not view.state.shown, what="text"), className="text"),
                html.Span(verdicts, className="verdicts"),
            ],
            href=view.href(prompt=prompt),
            id=f"open-{view.index}-{prompt}",
            **says(data_then=f"reader-{view.index}", aria_current="true" if prompt == view.state.prompt else None),
        )
    )


def _pages(view: View, count: int) -> list[Component]:
    """Links to the pages before and after."""
    page, last = view.state.page, max(0, math.ceil(count / PER_PAGE) - 1)
    if not last and page <= last:
        return []

    def step(label: str, to: int, name: str) -> Component:
        there = 0 <= to <= last and to != page
        inactive = html.Span(label, className="step off", **says(aria_disabled="true"))
        return html.A(label, href=view.href(page=to), className="step", id=f"{name}-{view.index}") if there else inactive

    told = html.Span(f"{min(page, last) + 1:,} of {last + 1:,}", className="at")
    steps = [step("First", 0, "first"), step("Previous", min(page, last + 1) - 1, "previous"), told]
    steps += [step("Next", page + 1, "next"), step("Last", last, "last")]
    return [html.Nav(steps, className="pages", **says(aria_label="Pages of prompts"))]
