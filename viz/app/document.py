"""The document that holds the page: its colours, its scripts, its icon. Nothing in it is read from a run."""

from __future__ import annotations

from html import escape

from .. import reader_style, theme
from ..page import DESK, STYLE
from . import scripts

TITLE = "thoughtlens"
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Ccircle cx='14' cy='14' r='9' fill='none' "
    "stroke='%230072B2' stroke-width='4'/%3E%3Cpath d='M21 21l8 8' stroke='%23D55E00' stroke-width='5' stroke-linecap='round'/%3E%3C/svg%3E"
)


def index(title: str) -> str:
    """The document that Dash fills in: its language, its colours (one source with the report), and no icon from elsewhere.

    plotly.js is fetched, and run, while the first figure is still being made (assets/figures.js waits for it).
    """
    return f"""<!doctype html>
<html lang="en">
<head>
{{%metas%}}
<script defer id="plotlyjs" src="{scripts.ADDRESS}"></script>
<title>{escape(title)}</title>
<link rel="icon" href="{ICON}">
<style>{colors()}{STYLE}{reader_style.STYLE}</style>
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
