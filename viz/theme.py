"""One look for every figure: two templates (light, dark), one mark per model and condition, one way to write numbers.

Colours are Okabe and Ito's, which stay apart under the common colour-vision deficiencies
(https://jfly.uni-koeln.de/color/); every colour also has its own symbol, so a grey print can still be read.
The colours are the same in both templates (each has contrast >= 3 on both papers); only ink, grid and the heat scale change.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import plotly.graph_objects as go

Mode = Literal["light", "dark"]

TITLE_ROOM, BELOW = 62, 56
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Ink:
    """Everything that differs between the two papers. `heat` runs from chance to perfect."""

    paper: str
    text: str
    muted: str
    grid: str
    line: str
    heat: tuple[str, ...]


INK: dict[Mode, Ink] = {
    "light": Ink("#ffffff", "#1d2329", "#5c6670", "#e8eaec", "#aeb5bb", ("#f3f4f5", "#c9dcec", "#86b4d8", "#3a80b9", "#0f4c81")),
    "dark": Ink("#171b20", "#e6e9ec", "#9aa4ad", "#2a3037", "#59636d", ("#20262c", "#1d3f5a", "#1f5d8c", "#2474ae", "#2f8bd0")),
}


@dataclass(frozen=True)
class Mark:
    color: str
    symbol: str
    dash: str = "solid"


MARKS = {
    "base": Mark("#0072B2", "circle"),
    "reasoning": Mark("#D55E00", "diamond"),
    "safe": Mark("#009E73", "square"),
    "unsteered": Mark("#D55E00", "diamond"),
    "steered": Mark("#B8578F", "star"),
    "shuffled": Mark("#A17400", "x-thin-open"),
    "random": Mark("#7D868F", "circle-open"),
    "harmful": Mark("#D55E00", "diamond"),
    "benign": Mark("#0072B2", "circle", "dot"),
    "words": Mark("#A17400", "diamond-open"),
    "control": Mark("#7D868F", "line-ns-open"),
}
OTHERS = (
    Mark("#B8578F", "triangle-up"),
    Mark("#A17400", "triangle-down"),
    Mark("#7D868F", "hexagon"),
    Mark("#3F8FC4", "pentagon"),
    Mark("#6B4C9A", "cross"),
    Mark("#8C5E3C", "bowtie"),
)

STARS = ("hexagram", "star-triangle-up", "star-square", "star-diamond", "star-triangle-down")

MODEL_ORDER = ("base", "reasoning", "safe")


def mark(name: str, among: Sequence[str] = ()) -> Mark:
    """The mark of a model or condition; names outside the vocabulary take the spare marks in the order of `among`."""
    if name in MARKS:
        return MARKS[name]
    strangers = [other for other in among if other not in MARKS]
    return OTHERS[strangers.index(name) % len(OTHERS)] if name in strangers else OTHERS[0]


def variant(first: Mark, index: int) -> Mark:
    """The same colour with another star, for further settings of one condition."""
    return first if index == 0 else replace(first, symbol=STARS[(index - 1) % len(STARS)])


def ordered(names: Sequence[str], first: Sequence[str] = MODEL_ORDER) -> list[str]:
    """Distinct names: those of the vocabulary in its order, then the others as they came."""
    seen = list(dict.fromkeys(names))
    return [name for name in first if name in seen] + [name for name in seen if name not in first]


def look(mode: Mode) -> dict[str, Any]:
    """The template as JSON values, for pages."""
    ink = INK[mode]
    heat = [[i / (len(ink.heat) - 1), color] for i, color in enumerate(ink.heat)]
    axis = {
        "gridcolor": ink.grid,
        "linecolor": ink.line,
        "tickcolor": ink.line,
        "zeroline": False,
        "automargin": True,
        "title": {"font": {"size": 12, "color": ink.muted}, "standoff": 10},
        "tickfont": {"size": 12, "color": ink.text},
    }
    layout = {
        "font": {"family": FONT, "size": 13, "color": ink.text},
        "paper_bgcolor": ink.paper,
        "plot_bgcolor": ink.paper,
        "title": {
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"l": 12, "t": 14},
            "font": {"size": 16},
            "subtitle": {"font": {"size": 12, "color": ink.muted}},
        },
        "xaxis": axis,
        "yaxis": axis,
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "font": {"size": 12},
            "itemsizing": "constant",
        },
        "hoverlabel": {
            "bgcolor": ink.paper,
            "bordercolor": ink.line,
            "font": {"family": FONT, "size": 12, "color": ink.text},
            "align": "left",
        },
        "hovermode": "closest",
        "coloraxis": {
            "colorscale": heat,
            "colorbar": {
                "outlinewidth": 0,
                "thickness": 10,
                "tickfont": {"size": 11, "color": ink.muted},
                "title": {"font": {"size": 11, "color": ink.muted}},
            },
        },
        "annotationdefaults": {"font": {"size": 12, "color": ink.muted}, "showarrow": False},
        "shapedefaults": {"line": {"color": ink.line, "width": 1}},
        "updatemenudefaults": {"bgcolor": ink.paper, "bordercolor": ink.line, "font": {"color": ink.text, "size": 12}},
    }
    return {"layout": layout, "data": {"scatter": [{"type": "scatter", "textfont": {"color": ink.text}}]}}


def template(mode: Mode) -> go.layout.Template:
    import plotly.graph_objects as go

    return go.layout.Template(look(mode))


def figure(title: str, note: str, *, plot: int, above: int = 40) -> go.Figure:
    """An empty figure with its title and a line saying which rows it shows. Pixels: `plot` for the plot, `above` for legend or menu."""
    import plotly.graph_objects as go

    margin = {"l": 12, "r": 26, "t": TITLE_ROOM + above, "b": BELOW}
    size = {"height": TITLE_ROOM + above + plot + BELOW, "margin": margin}
    told = {"text": plain(title), "subtitle": {"text": plain(note)}}
    return go.Figure(layout={"template": look("light"), "title": told, **size})  # without one, plotly would read its own template


def untitled(figure: go.Figure) -> tuple[dict[str, Any], str, str]:
    """For a page that has its own titles and themes: the figure as JSON values without either, its title, and the line under it."""
    spec = json.loads(figure.to_json())
    layout, title = spec["layout"], spec["layout"].pop("title")
    layout.pop("template")
    layout["height"] -= TITLE_ROOM
    layout["margin"]["t"] -= TITLE_ROOM
    return spec, html.unescape(title["text"]), html.unescape(title["subtitle"]["text"])


def legend_over(figure: go.Figure, pixels: int) -> go.Figure:
    """Lifts the legend so far above the plot, over the titles of panels, and writes those in the size of text."""
    plot = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    return figure.update_annotations(font_size=13).update_layout(legend={"y": 1 + pixels / plot})


def dress(figure: go.Figure, mode: Mode) -> go.Figure:
    """A copy of the figure on the other paper."""
    import plotly.graph_objects as go

    return go.Figure(figure).update_layout(template=template(mode))


def plain(value: object) -> str:
    """Text from data as plotly must get it: plotly reads a little HTML in labels, so `<` must arrive as an entity."""
    return html.escape(str(value), quote=False)


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{round(100 * value)}%"


def auroc(value: float) -> str:
    """.97; .998 from .995 on; 1 only when it is exactly one, else >.999."""
    if math.isnan(value) or value == 1:
        return "–" if math.isnan(value) else "1"
    if value >= 0.9995:
        return ">.999"
    return f"{value:.{3 if value >= 0.995 else 2}f}".removeprefix("0")


def count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}"


def percents(value: float, low: float, high: float) -> str:
    """83% [76–88]: a rate with its 95% interval."""
    return f"{percent(value)} [{round(100 * low)}–{round(100 * high)}]" if not math.isnan(low + high) else percent(value)


def rate(row: Any) -> str:
    """83% [76–88], n = 162: a row of `tables.rates`."""
    return f"{percents(row['value'], row['low'], row['high'])}, n = {row['n']:.0f}"


def from_to(before: Any, after: Any) -> str:
    """83% [76–88] to 5% [3–9], n = 162 each: two rows of `tables.rates`."""
    if before["n"] != after["n"]:
        return f"{rate(before)}, to {rate(after)}"
    first, second = (percents(row["value"], row["low"], row["high"]) for row in (before, after))
    return f"{first} to {second}, n = {after['n']:.0f} each"


def span(values: Any) -> str:
    """77% to 87%: lowest to highest of some rates, one number where they round to the same."""
    ends = [percent(float(values.min())), percent(float(values.max()))]
    return " to ".join(dict.fromkeys(ends))


def points(value: float, low: float, high: float) -> str:
    """+71 points [62 to 79]: a difference of two rates with its 95% interval."""
    return f"{signed(value)} points [{signed(low)} to {signed(high)}]"


def signed(share: float) -> str:
    """+71 or −4: hundredths, with a true minus and no sign at zero."""
    return f"{round(100 * share):+d}".replace("-", "−") if round(100 * share) else "0"


def aurocs(value: float, low: float, high: float) -> str:
    return f"{auroc(value)} [{auroc(low)}–{auroc(high)}]" if not math.isnan(low + high) else auroc(value)
