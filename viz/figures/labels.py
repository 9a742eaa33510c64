"""Names beside marks: each above and right of its mark, moved up where two would lie on each other, with a thin line to what it names.

And the room that the names of a legend take where the page is narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from .. import theme

LINE, RIGHT, OVER, FLOOR = 17, 16, 15, 26  # pixels of a line of text, right of and over the mark, over the bottom of the plot
LETTER, SYMBOL, NARROW = 7, 40, 310  # pixels of a letter of a legend, of what stands before it, and of a narrow plot


def beside_marks(figure: go.Figure, names: Sequence[str], x: Sequence[float], y: Sequence[float], *, bottom: float, top: float) -> None:
    """`bottom` and `top` are the ends of the vertical axis, so that places can be told in pixels."""
    plot = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    over, last = [plot * (value - bottom) / (top - bottom) for value in y], FLOOR - LINE
    for at in sorted(range(len(names)), key=over.__getitem__):
        last = max(over[at] + OVER, last + LINE)
        figure.add_annotation(
            x=x[at],
            y=y[at],
            ax=RIGHT,
            ay=over[at] - last,
            text=theme.plain(names[at]),
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=theme.MARKS["random"].color,
            standoff=7,
            xanchor="left",
            yanchor="middle",
        )


def wrapped_room(names: Sequence[str]) -> int:
    """Pixels of a legend whose entries stand one after the other, in as many lines as a narrow page needs."""
    lines, used = 1, 0
    for name in names:
        width = SYMBOL + LETTER * len(name)
        lines, used = (lines, used + width) if used + width <= NARROW or not used else (lines + 1, width)
    return 14 + 29 * lines - 9
