"""Where unsafe intent is readable: layers and spans, one span layer by layer, transfer, directions, heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dash.development.base_component import Component

from ... import theme
from ...sections import Drawing
from .. import source as rows
from ..drawing import Asked, Drawn, of_tables, sheet
from ..filters import chooser
from ..views import View
from .tab import sections

FILTERS = ("model", "condition")
CLICK = "click a cell to choose its layer and span"
CHOSEN = {"color": theme.MARKS["steered"].color, "width": 3}


def controls(views: Sequence[View]) -> list[Component]:
    """Layer and span, as a click on a cell sets them."""
    found = [rows.facets(view.source) for view in views]
    state = views[0].state
    layers = sorted({int(layer) for facets in found for layer in facets["layer"]})
    spans = list(dict.fromkeys(span for facets in found for span in facets["span"]))
    return [
        chooser(
            "layer", "Layer", [("", "any"), *((str(one), str(one)) for one in layers)], "" if state.layer is None else str(state.layer)
        ),
        chooser("span", "Span", [("", "the best read"), *((one, one) for one in spans)], state.span),
    ]


def content(view: View) -> list[Component]:
    state = view.state
    kept = tuple((name, getattr(state, name)) for name in FILTERS if getattr(state, name))

    def heat(drawing: Drawing) -> Component:
        sketch = of_tables(view, Asked(drawing.make, drawing.read, drawing.tables, kept=kept))
        return sheet(
            view, drawing.name, sketch, link="cell", remark=CLICK, marked=lambda drawn: cell_marked(drawn, state.layer, state.span)
        )

    def line(drawing: Drawing) -> Component:
        sketch = of_tables(view, Asked(drawing.make, drawing.read, drawing.tables, (("span", state.span),), kept))
        return sheet(view, drawing.name, sketch, link="cell", marked=lambda drawn: layer_marked(drawn, state.layer))

    def best(drawing: Drawing) -> Component:
        return sheet(view, drawing.name, of_tables(view, Asked(drawing.make, drawing.read, drawing.tables, kept=kept)))

    special = {"auroc_by_layer_and_span": heat, "auroc_over_layers": line, "best_layer_by_span": best}
    return sections(view, "layers", special=special)


def cell_marked(drawn: Drawn, layer: int | None, span: str) -> Drawn:
    """A frame around the chosen cell; around a line or a column where only one of the two is chosen."""
    if layer is None and not span:
        return drawn
    for cells in (trace for trace in drawn.spec["data"] if trace.get("name") == "probe"):
        at = [
            (x, y)
            for y, line in enumerate(cells["customdata"])
            for x, told in enumerate(line)
            if (layer is None or told[0] == layer) and (not span or told[1] == span)
        ]
        if at:
            (left, right), (low, high) = ((min(side), max(side)) for side in zip(*at, strict=True))
            frame = {"x0": left - 0.5, "x1": right + 0.5, "y0": low - 0.5, "y1": high + 0.5, "line": CHOSEN, "type": "rect"}
            return with_shape(drawn, {**frame, "xref": cells.get("xaxis", "x"), "yref": cells.get("yaxis", "y")})
    return drawn


def layer_marked(drawn: Drawn, layer: int | None) -> Drawn:
    """An upright line at the chosen layer."""
    if layer is None:
        return drawn
    line = {"type": "line", "x0": layer, "x1": layer, "xref": "x", "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
    return with_shape(drawn, {**line, "line": {**CHOSEN, "width": 2, "dash": "dot"}})


def with_shape(drawn: Drawn, shape: dict[str, Any]) -> Drawn:
    layout = drawn.spec["layout"]
    return replace(drawn, spec={**drawn.spec, "layout": {**layout, "shapes": [*layout.get("shapes", ()), shape]}})
