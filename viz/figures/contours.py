"""Outlines of cells of a heatmap: closed lines around every patch of marked cells, along the edges between cells.

Cells are centred on whole numbers, x for the column and y for the line, so edges lie at halves. Every marked cell gives its four edges,
anticlockwise; an edge that two marked cells share runs once each way and falls out. What is left is joined end to start into loops.
"""

from __future__ import annotations

from collections.abc import Sequence

Corner = tuple[float, float]


def outline(marked: Sequence[Sequence[bool]]) -> tuple[list[float | None], list[float | None]]:
    """x and y of all loops around the cells `marked[line][column]`, None between loops."""
    following: dict[Corner, list[Corner]] = {}
    edges = {edge for y, line in enumerate(marked) for x, inside in enumerate(line) if inside for edge in _around(x, y)}
    for start, end in sorted(edges):
        if (end, start) not in edges:
            following.setdefault(start, []).append(end)
    xs: list[float | None] = []
    ys: list[float | None] = []
    while following:
        loop = _loop(following)
        xs += [*(x for x, _ in loop), None]
        ys += [*(y for _, y in loop), None]
    return xs[:-1], ys[:-1]


def _around(x: int, y: int) -> list[tuple[Corner, Corner]]:
    corners = [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5)]
    return list(zip(corners, [*corners[1:], corners[0]], strict=True))


def _loop(following: dict[Corner, list[Corner]]) -> list[Corner]:
    """Takes one closed line out of the edges. Corners on a straight stretch are left out."""
    first = next(iter(following))
    loop = [first]
    while len(loop) == 1 or loop[-1] != first:
        ends = following[loop[-1]]
        end = ends.pop()
        if not ends:
            del following[loop[-1]]
        if len(loop) > 1 and _straight(loop[-2], loop[-1], end):
            loop.pop()
        loop.append(end)
    return loop


def _straight(a: Corner, b: Corner, c: Corner) -> bool:
    return (a[0] == b[0] == c[0]) or (a[1] == b[1] == c[1])
