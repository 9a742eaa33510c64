"""What steering bought and what it cost, under every setting that was tried."""

from __future__ import annotations

from dash.development.base_component import Component

from ..views import View
from .tab import sections


def content(view: View) -> list[Component]:
    return sections(view, "steering")
