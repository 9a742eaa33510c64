"""The frame of the page: what stands around the tab. Nothing in it is read from a run, so that it is there at once."""

from __future__ import annotations

from collections.abc import Sequence

from dash import dcc, html
from dash.development.base_component import Component

from .document import TITLE
from .pieces import says
from .state import MOST_TEXT


def frame(names: Sequence[str]) -> Component:
    """Everything around the tab, for runs of these names."""
    wide = f"runs-{min(len(names), 3)}"
    return html.Div(
        [
            html.A("Skip to the figures", href="#panel", className="skip"),
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="paper"),
            dcc.Store(id="sent"),
            dcc.Store(id="again"),
            dcc.Store(id="there"),
            html.Header(
                [
                    html.Div(
                        [
                            html.Span([html.B(TITLE), html.Span(" · ".join(names), className="runs")], className="brand"),
                            html.Button("Dark", id="mode", type="button", disable_n_clicks=True, **says(aria_label="Light or dark")),
                        ],
                        className="top",
                    ),
                    html.Div(html.Div(id="tabs", role="tablist", **says(aria_label="Views")), className="tabs"),
                ]
            ),
            html.Main(
                [
                    html.Section(
                        [
                            _filters(),
                            html.Div(
                                [
                                    html.P(id="count", role="status", **says(aria_live="polite")),
                                    html.Ul(id="chips", **says(aria_label="Chosen filters")),
                                    html.Div(id="veil-switch"),
                                ],
                                className="chosen",
                            ),
                        ],
                        className="filters",
                        **says(aria_label="Filters"),
                    ),
                    html.Div(id="panel", role="tabpanel", tabIndex=-1),
                ]
            ),
        ],
        className=f"app {wide}",
    )


def _filters() -> Component:
    """The row of filters; what there is to choose from follows (filters.py)."""
    search = html.Div(
        [
            html.Label("Search", htmlFor="filter-search"),
            dcc.Input(id="filter-search", type="search", maxLength=MOST_TEXT, placeholder="in prompts and outputs", autoComplete="off"),
        ],
        className="control search",
    )
    row = html.Div([html.Div(id="filter-choices"), search], className="controls")
    return html.Details([html.Summary("Filters"), row], id="filters", open=True)
