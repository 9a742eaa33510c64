"""A tree of components taken apart, so that the page can be brought up to date by what differs (assets/apply.js).

A part is a component with an id. In the tree it is replaced by its name, `{"part": name, "type": type}`; its own properties, with nested
parts named in the same way, stand under that name. Dash itself would mount all of a tab anew after every click: figures would flicker, and
the element with the focus would lose it.
"""

from __future__ import annotations

import json
from typing import Any

from dash.development.base_component import Component

Parts = dict[str, dict[str, Any]]


def parts_of(*roots: Component) -> dict[str, Any]:
    """What the page is sent: the names of the roots, and every part by its name."""
    found: Parts = {}
    return {"roots": [_taken(root, found)["part"] for root in roots], "parts": found}


def name(identity: str | dict[str, Any]) -> str:
    return identity if isinstance(identity, str) else json.dumps(identity, sort_keys=True)


def _taken(value: Any, found: Parts) -> Any:
    if isinstance(value, list | tuple):
        return [_taken(one, found) for one in value]
    if not isinstance(value, Component):
        return value
    written: Any = value.to_plotly_json  # Dash gives it no type
    told: dict[str, Any] = written()
    if "children" in told["props"]:
        told["props"] = {**told["props"], "children": _taken(told["props"]["children"], found)}
    identity = told["props"].get("id")
    if identity is None:
        return told
    key = name(identity)
    if key in found:
        raise ValueError(f"two parts of the page are called {key}; ids are names, give each its own")
    found[key] = told
    return {"part": key, "type": told["type"]}
