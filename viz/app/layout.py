"""The frame of the page: what is there before any row was read, and the tab that goes into it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dash import dcc, html
from dash.development.base_component import Component

from .. import reader, theme
from ..page import DESK, STYLE
from .columns import Column, facets_of
from .filters import filter_row
from .pieces import says

TITLE = "thoughtlens"
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Ccircle cx='14' cy='14' r='9' fill='none' "
    "stroke='%230072B2' stroke-width='4'/%3E%3Cpath d='M21 21l8 8' stroke='%23D55E00' stroke-width='5' stroke-linecap='round'/%3E%3C/svg%3E"
)


def index(title: str) -> str:
    """The document that Dash fills in: its language, its colours (one source with the report), and no icon from elsewhere.

    Dash asks for plotly.js only when the first figure comes; here it is fetched, and run, while that is still being made.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
{{%metas%}}
<link rel="preload" as="script" href="/_dash-component-suites/dash/dcc/async-graph.js">
<script async src="/_dash-component-suites/plotly/package_data/plotly.min.js"></script>
<title>{escape(title)}</title>
<link rel="icon" href="{ICON}">
<style>{colors()}{STYLE}{reader.STYLE}</style>
{{%css%}}
</head>
<body>
<noscript><p class="notice">This page draws its figures with JavaScript, which is switched off in this browser.</p></noscript>
{{%app_entry%}}
{{%config%}}
{{%scripts%}}
{{%renderer%}}
</body>
</html>
"""


def colors() -> str:
    """The theme's inks and marks as CSS variables; what the system prefers, unless the button says otherwise."""
    dark = _variables("dark")
    unless_light = f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {dark} }} }}"
    return f":root {{ {_variables('light')} }} {unless_light} :root[data-theme=dark] {{ {dark} }}"


def _variables(mode: theme.Mode) -> str:
    ink = theme.INK[mode]
    names = {"desk": DESK[mode], "paper": ink.paper, "text": ink.text, "muted": ink.muted, "grid": ink.grid, "line": ink.line}
    marks = {f"mark-{name}": theme.MARKS[name].color for name in ("harmful", "benign", "safe", "steered", "words", "control")}
    focus = {"focus": theme.OTHERS[3].color}
    return f"color-scheme: {mode}; " + " ".join(f"--{name}: {color};" for name, color in {**names, **marks, **focus}.items())


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
