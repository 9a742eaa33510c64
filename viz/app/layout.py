"""The frame of the page: what stands around the tab."""

from __future__ import annotations

from collections.abc import Sequence

from dash import dcc, html
from dash.development.base_component import Component

from .columns import Column, facets_of
from .document import TITLE
from .filters import filter_row
from .pieces import says


def frame(columns: Sequence[Column]) -> Component:
    """Everything around the tab. Its filters are read anew with every visit, as tables may have changed."""
    names = " · ".join(column.name for column in columns)
    wide = f"runs-{min(len(columns), 3)}"
    return html.Div(
        [
            html.A("Skip to the figures", href="#panel", className="skip"),
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="paper"),
            dcc.Store(id="sent"),
            dcc.Store(id="again"),
            html.Header(
                [
                    html.Div(
                        [
                            html.Span([html.B(TITLE), html.Span(names, className="runs")], className="brand"),
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
                            filter_row([facets_of(column) for column in columns]),
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
