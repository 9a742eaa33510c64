"""Who is measured: a model under a condition is one reading, with one name, one place in the order and one mark in every figure.

Unsteered, the name is the model's; else it is "model @ condition". Beside it, what long names need: labels in short lines, and how much
room a legend takes where the page is narrow.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import pandas as pd

from .. import theme

UNSTEERED = "unsteered"
NARROW = 270  # pixels right of the names, on a narrow page
LETTER, SYMBOL = 7, 42  # pixels of a letter of a legend, and of what stands before it
STEERED = theme.MARKS["steered"]
CONTROLS = {name: theme.MARKS[name] for name in ("random", "shuffled")}


def with_reading(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the column `reading`."""
    model, condition = table["model"].astype(str), table["condition"].astype(str)
    return table.assign(reading=model.where(condition == UNSTEERED, model + " @ " + condition))


def drawn(table: pd.DataFrame) -> pd.DataFrame:
    """The rows without controls (random directions, shuffled labels), of which a run may have dozens; all, where there is nothing else."""
    kept = table[[_place(str(condition))[0] < 2 for condition in table["condition"]]]
    return kept if len(kept) else table


def left_out(table: pd.DataFrame) -> str:
    """What drawn() leaves out, in words; empty if nothing."""
    gone = len(table[["model", "condition"]].drop_duplicates()) - len(drawn(table)[["model", "condition"]].drop_duplicates())
    return f"{gone} control{'s' if gone > 1 else ''} not drawn" if gone else ""


def readings(table: pd.DataFrame) -> list[str]:
    """The distinct readings of a table that has the column: model by model, each unsteered before its conditions."""
    return [name for _, _, name in _distinct(table)]


def marks(table: pd.DataFrame) -> dict[str, theme.Mark]:
    """A mark per reading: unsteered the model's, steered stars of one colour, the controls their own."""
    models = theme.ordered(table["model"].astype(str).tolist())
    found: dict[str, theme.Mark] = {}
    for model, condition, name in _distinct(table):
        kind = condition.split("[")[0]
        steered = sum(mark.color == STEERED.color for mark in found.values())
        found[name] = theme.mark(model, models) if condition == UNSTEERED else CONTROLS.get(kind, theme.variant(STEERED, steered))
    return found


def _distinct(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    once = table.drop_duplicates("reading")
    found = [(str(row["model"]), str(row["condition"]), str(row["reading"])) for _, row in once.iterrows()]
    models = theme.ordered([model for model, _, _ in found])
    return sorted(found, key=lambda one: (models.index(one[0]), *_place(one[1])))


def _place(condition: str) -> tuple[int, str, int]:
    """Unsteered, then what was steered as it comes, then the controls, draw by draw."""
    kind, _, draw = condition.partition("[")
    if kind not in CONTROLS:
        return int(condition != UNSTEERED), "", 0
    return 2, kind, int(draw.rstrip("]")) if draw.rstrip("]").isdigit() else 0


def label(name: object, *, width: int = 22, lines: int = 2) -> str:
    """A name as text of an axis: in lines of so many letters, cut with … where it has more. Where it is cut, the hover has it whole."""
    told = textwrap.wrap(str(name), width) or [""]
    if len(told) > lines:
        told = [*told[: lines - 1], told[lines - 1][: width - 1].rstrip() + "…"]
    return "<br>".join(theme.plain(line) for line in told)


def legend_room(names: Sequence[str]) -> int:
    """Pixels that a legend over the plot needs on a narrow page, where it stands in columns as wide as the longest name."""
    columns = max(1, NARROW // (SYMBOL + LETTER * max((len(name) for name in names), default=1)))
    return 12 + 20 * math.ceil(len(names) / columns)


def points(value: float, low: float, high: float) -> str:
    """+71 points [+62 to +79], without an interval that is not known; – where nothing is."""
    if math.isnan(value):
        return "–"
    return f"{theme.signed(value)} points" if math.isnan(low + high) else theme.points(value, low, high)


def bars(table: pd.DataFrame, color: str, *, value: str = "value", low: str = "low", high: str = "high") -> dict[str, object]:
    """Error bars to the bounds of 95% intervals; none where the table has no interval."""
    above, below = (table[high] - table[value]).tolist(), (table[value] - table[low]).tolist()
    shown = {"array": [_length(one) for one in above], "arrayminus": [_length(one) for one in below]}
    return {"type": "data", "symmetric": False, **shown, "thickness": 1.6, "width": 0, "color": color}


def _length(one: float) -> float | None:
    return None if math.isnan(one) else max(0.0, float(one))
