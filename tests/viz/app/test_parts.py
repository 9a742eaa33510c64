"""A page taken apart: every component with an id stands under its name, and put together again it is the same page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dash import dcc, html
from thoughtlens.viz.app.parts import parts_of


def whole(value: Any, parts: dict[str, Any]) -> Any:
    """What assets/apply.js does."""
    if isinstance(value, list):
        return [whole(one, parts) for one in value]
    if isinstance(value, dict) and "part" in value:
        return whole(parts[value["part"]], parts)
    if isinstance(value, dict) and "props" in value:
        return {
            **value,
            "props": {**value["props"], **({"children": whole(value["props"]["children"], parts)} if "children" in value["props"] else {})},
        }
    return value


def page(text: str = "florp") -> html.Div:
    graph = dcc.Graph(id={"run": 0, "plot": "a"}, figure={"data": [], "layout": {}})
    return html.Div([html.P(text, id="told"), html.Section(html.Div(graph, id="sheet")), "plain"], id="panel")


def test_the_parts_put_together_are_the_page():
    sent = parts_of(page())
    assert sent["roots"] == ["panel"] and set(sent["parts"]) == {"panel", "told", "sheet", '{"plot": "a", "run": 0}'}
    assert whole({"part": "panel"}, sent["parts"]) == json.loads(json.dumps(page(), default=lambda one: one.to_plotly_json()))


def test_only_the_part_that_differs_differs():
    before, after = parts_of(page())["parts"], parts_of(page("wug"))["parts"]
    assert [name for name in after if after[name] != before[name]] == ["told"]


def test_an_element_of_another_type_is_another_part_for_the_one_around_it():
    one, other = (parts_of(html.Div(kind("florp", id="told"), id="panel"))["parts"] for kind in (html.P, html.Span))
    assert one["panel"] != other["panel"]


def test_two_parts_of_one_name_are_an_error():
    with pytest.raises(ValueError, match="two parts of the page are called told"):
        parts_of(html.Div([html.P("a", id="told"), html.P("b", id="told")], id="panel"))
