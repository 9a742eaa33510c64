"""From the URL to the page: one callback puts what a link asks for together; clicks and choices only ever write the URL.

    URL  →  Address  →  tabs, chips, count, the active tab of every run (sending.py)  →  parts that differ are put on the page

What happens in the browser is in assets/: address.js (clicks and choices → URL), apply.js (parts → page), figures.js (draws), theme.js,
keyboard.js.
"""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State
from dash.exceptions import PreventUpdate

from .. import theme
from .runs import Runs


def link(app: Dash, runs: Runs) -> None:
    """Every callback of the app."""

    @app.callback(
        Output("sent", "data"),
        Input("url", "search"),
        Input("paper", "data"),
        Input("again", "data"),
        State("there", "data"),
        running=[(Output("panel", "aria-busy"), "true", "false")],
    )
    def show(search: str | None, paper: str | None, again: int | None, there: list[str] | None) -> dict[str, Any]:
        if search is None or paper not in theme.INK:
            raise PreventUpdate
        from .sending import sent  # imported while the page loads (runs.py)
        from .views import Address

        runs.asked.now(search)
        return sent(runs.columns(), Address.read(search), paper, there or ())

    in_browser: Any = app.clientside_callback
    in_browser(ClientsideFunction("theme", "start"), Output("paper", "data"), Input("url", "pathname"))
    in_browser(ClientsideFunction("parts", "apply"), Input("sent", "data"))
    in_browser(ClientsideFunction("address", "arrived"), Input("url", "search"))
