"""Hidden states in two dimensions: a point is what one model read in one prompt, at one layer and span; a click opens its thought."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from dash.development.base_component import Component

from ...figures.projected import read_points
from ...figures.projection import point_map
from ...figures.readable import in_time
from ...tables import TableProblem
from .. import source as rows
from ..drawing import Drawn, Sketch, draw, sheet
from ..filters import chooser, slider
from ..kept import Kept, stamps
from ..opened import is_harmful
from ..state import CHOICES
from ..views import View
from .tab import BY_KEY, title

HIDDEN = "(hidden)"
MOST_DRAWN = 500  # points that a click draws in a moment; the reading is of all that the source gives
READINGS: Kept[str] = Kept(32)
METHODS = {"pca": "PCA", "lda": "LDA"}
CLICK = "a click opens the thought"


def controls(views: Sequence[View]) -> list[Component]:
    """Span, layer, method and colour; span and layer start at what is drawn."""
    state = views[0].state
    return [
        *_spans_and_layers(views),
        chooser("method", "Method", [(one, METHODS[one]) for one in CHOICES["method"]], state.method),
        _color(state.color),
    ]


def _color(chosen: str) -> Component:
    return chooser("color", "Colour", [(one, one) for one in CHOICES["color"]], chosen)


def _spans_and_layers(views: Sequence[View]) -> list[Component]:
    """Choices among the places that were projected, in any of the runs; none where no run has any."""
    there = sorted({(span, layer) for view in views for method, span, layer in _places(view) if method == view.state.method})
    if not there:
        return []
    span, layer = _drawn(views)
    spans = list(dict.fromkeys(one for one, _ in there))
    layers = sorted({number for one, number in there if one == span} or {number for _, number in there})
    return [
        chooser("span", "Span", [(one, one) for one in sorted(spans, key=in_time)], span),
        slider("layer", "Layer", layers, min(layers, key=lambda one: abs(one - layer))),
    ]


def _places(view: View) -> tuple[tuple[str, str, int], ...]:
    try:
        return rows.places(view.source)
    except TableProblem:
        return ()  # told where the figure would be


def _drawn(views: Sequence[View]) -> tuple[str, int]:
    for view in views:
        try:
            return rows.place(view.source, view.state)
        except TableProblem:
            continue  # told where the figure would be
    return views[0].state.span, views[0].state.layer or 0


def content(view: View) -> list[Component]:
    """The heading of the report; in place of its figure, which has a slider, the one at the chosen place."""
    return [title(BY_KEY["projection"]), sheet(view, "points", _points(view), link="point", remark=CLICK)]


def _points(view: View) -> Sketch:
    state, tables = view.state, ("projection", "prompts", "answers")

    def make() -> Drawn:
        found = rows.points(view.source, state)
        if not state.shown:
            found["text"] = found["text"].mask(found["harmful"].map(is_harmful).astype(bool), HIDDEN)
        read_from = view.source, replace(state, color="harmful", shown=False, prompt="", page=0), stamps(view.source.run, *tables)
        drawn = found.head(MOST_DRAWN)  # sorted by a hash of the prompt: the same prompts of every model
        sample = f" Drawn are {len(drawn):,} of {found.attrs['of']:,} points, the same prompts of every model."
        with ThreadPoolExecutor(1) as beside:
            reading = beside.submit(lambda: READINGS.get(read_from) or READINGS.put(read_from, read_points(found)))
            figure = point_map(drawn, color=state.color)
        return draw(figure, reading.result() + (sample if len(drawn) < found.attrs["of"] else ""))

    return Sketch(("points", state), tables, make, kept=False)
