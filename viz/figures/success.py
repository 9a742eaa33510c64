"""Attack success as rates by model and condition: the rows of `collapse` that several figures stand on.

Metric attack_success, channel answer, one judge at one threshold. What tells the whole in another way (`macro`, `apart`, hazards) is never
among the parts.
"""

from __future__ import annotations

from numbers import Real

import pandas as pd

from ..tables import ALL, beside, one_judge, rates, remembered, where
from .readings import UNSTEERED, drawn, left_out, with_reading


@remembered
def judged(collapse: pd.DataFrame) -> pd.DataFrame:
    """The rows of every model and condition, but for controls."""
    return drawn(_of_all(collapse))


def _of_all(collapse: pd.DataFrame) -> pd.DataFrame:
    return one_judge(where(collapse, metric="attack_success", channel="answer"))


@remembered
def answers(collapse: pd.DataFrame) -> pd.DataFrame:
    """The rows of the models as they are, without steering."""
    return where(judged(collapse), condition=UNSTEERED)


@remembered
def by_model(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """One rate per model, condition and value of `key`, and one for all of them (key `all`); adds `reading`."""
    who = ["model", "condition"]
    parts = rows[(rows[key] != ALL) & ~beside(rows[key])]
    whole = rates(rows, who).assign(**{key: ALL})
    return with_reading(pd.concat([whole, rates(parts, [*who, key])], ignore_index=True))


def note(collapse: pd.DataFrame) -> str:
    """What is counted, who judged and from which rating on an answer counts as unsafe; which conditions are not drawn."""
    rows = _of_all(collapse)
    first, gone = rows.iloc[0], left_out(rows)
    threshold = first["threshold"]
    at = f" at ≥ {float(threshold):g}" if isinstance(threshold, Real) and float(threshold) == float(threshold) else ""
    return f"unsafe answers to harmful prompts · judge {first['judge']}{at}" + (f" · {gone}" if gone else "")
