"""What undoes the collapse and what does not: conditions of the tests behind docs/trio.md, a row each, a panel an outcome."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from .ways import panels, shown

MADE = "`thoughtlens organism explain RUN`"


def explained_conditions(explained: pd.DataFrame) -> go.Figure:
    """A panel per outcome, a row per condition; draws of a control share a row. Columns: CONTRIBUTING.md, `explained`."""
    note = "test split · layers and strengths chosen on dev · bars are 95% intervals"
    return panels(once(explained), "What the mean shift, the weights' update and the thought do", note)


def once(explained: pd.DataFrame) -> pd.DataFrame:
    """Test rows over all attacks; the thought modes tell "unsteered" on more prompts once more, which is left out."""
    rows = shown(explained, "explained", MADE)
    return rows.drop_duplicates(["condition", "metric"])


def read_explained(explained: pd.DataFrame) -> str:
    """Attack success of every condition with the fewest and of the reasoning model left alone."""
    rows = once(explained)
    success = rows[(rows["metric"] == "attack_success") & ~rows["draw"]].set_index("row")
    told = [f"{name}: {theme.rate(success.loc[name])}" for name in ("unsteered", "base", "safe") if name in success.index]
    others = success.drop(index=[name for name in ("unsteered", "base", "safe") if name in success.index]).sort_values("value")
    told += [f"{name}: {theme.rate(row)}" for name, row in others.head(3).iterrows()]
    return "Attack success, " + "; ".join(told) + "."
