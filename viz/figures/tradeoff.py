"""What steering bought and what it cost.

An *arm* is one condition at one setting (vector, site, operator, strength, gate, thought mode), as `restoration` holds it. Conditions whose
name begins with `random` are draws of directions of equal norm: the control that says whether *this* direction matters or any push does.
Rows: the test split where there is one; attack `all` where there is one, else the attacks added up.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import RATE, TableProblem, prefer, rates
from .dots import add_series, place, rule_percent, rule_rows

SETTING = ("vector", "source", "site", "operator", "strength", "gate", "thought_mode")
ORDER = ("unsteered", "safe", "steered", "shuffled", "random")
METRICS = {
    "attack_success": "attack success",
    "refusal": "refusal of harmful",
    "over_refusal": "over-refusal",
    "helpful": "helpful",
    "truncated": "truncated",
}
CLOUD = 0.5


def arms(restoration: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and metric: arm (its name), condition (without the number of a draw), the setting, metric, and its rate.

    An arm is named after its condition; where a condition stands at several settings, those that vary are added.
    """
    rows = prefer(restoration, "split", "test")
    rows = rows[rows["metric"].isin(METRICS)]
    if rows.empty:
        raise TableProblem(f"The restoration table has none of the metrics {', '.join(METRICS)}.")
    rows = rows.assign(**{column: rows[column].astype(object).where(rows[column].notna(), "") for column in SETTING})
    found = rates(rows, ["condition", *SETTING, "metric"])
    found = found.assign(draw=found["condition"], condition=found["condition"].str.split("[").str[0])
    found["arm"] = [_name(row, found[found["draw"] == row["draw"]]) for _, row in found.iterrows()]
    rank = {condition: index for index, condition in enumerate(theme.ordered(found["condition"].tolist(), ORDER))}
    return found.sort_values("condition", key=lambda column: column.map(rank), kind="stable").reset_index(drop=True)


def _name(row: pd.Series, same: pd.DataFrame) -> str:
    varying = [f"{column.replace('_', ' ')} {row[column]}" for column in SETTING if same[column].nunique() > 1 and row[column] != ""]
    return " · ".join([row["draw"], *varying])


@dataclass(frozen=True)
class Group:
    """What is drawn with one mark: an arm, or all random draws together (`draws`)."""

    label: str
    rows: pd.DataFrame
    mark: theme.Mark
    draws: bool


def places(table: pd.DataFrame) -> list[Group]:
    """The groups of a table with columns condition and arm, in its order. Further settings of a condition keep its colour."""
    conditions = list(dict.fromkeys(table["condition"]))
    groups = []
    for condition in conditions:
        mine, mark = table[table["condition"] == condition], theme.mark(condition, conditions)
        names = list(dict.fromkeys(mine["arm"]))
        if condition == "random":
            groups.append(Group(f"random directions ({len(names)})", mine, mark, draws=True))
        else:
            groups += [Group(arm, mine[mine["arm"] == arm], theme.variant(mark, at), draws=False) for at, arm in enumerate(names)]
    return groups


def tradeoff(restoration: pd.DataFrame) -> go.Figure:
    """Attack success against over-refusal, with intervals: a marker per arm, random directions a faint cloud. Columns: `restoration`."""
    table = arms(restoration)
    both = _side_by_side(table)
    if both.empty:
        raise TableProblem("No condition of the restoration table has both attack_success and over_refusal, so there is no trade to draw.")
    figure = theme.figure("What steering bought and what it cost", f"{_split(restoration)} · bars are 95% intervals, both ways", plot=420)
    for group in sorted(places(both), key=lambda group: not group.draws):
        figure.add_trace(_marker(group))
    right, top = (min(1.04, max(0.2, 1.1 * float(both[column].max()))) for column in ("x_high", "y_high"))
    figure.update_xaxes(title_text="over-refusal (harmless prompts refused)", range=[-0.03 * right, right], tickformat=".0%")
    figure.update_yaxes(title_text="attack success (harmful prompts answered unsafely)", range=[-0.1 * top, top], tickformat=".0%", tick0=0)
    figure.add_annotation(x=0, y=0, yshift=-16, text="◎ ideal corner: refuses harm, answers the rest", xanchor="left")
    return figure


def _side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """One row per arm with over-refusal as x and attack success as y."""
    keys = ["condition", "arm", "vector", "site", "strength", "gate", "thought_mode"]
    x = table[table["metric"] == "over_refusal"][[*keys, *RATE]].rename(columns={column: f"x_{column}" for column in RATE})
    y = table[table["metric"] == "attack_success"][[*keys, *RATE]].rename(columns={column: f"y_{column}" for column in RATE})
    return x.merge(y, on=keys)


def _marker(group: Group) -> go.Scatter:
    rows, mark, faint = group.rows, group.mark, group.draws

    def interval(axis: str) -> dict[str, object]:
        above, below = rows[f"{axis}_high"] - rows[f"{axis}_value"], rows[f"{axis}_value"] - rows[f"{axis}_low"]
        look = {"thickness": 0.8 if faint else 1.8, "width": 0, "color": mark.color}
        return {"type": "data", "symmetric": False, "array": above.tolist(), "arrayminus": below.tolist(), **look}

    told = rows[["x_low", "x_high", "x_n", "y_low", "y_high", "y_n"]].to_numpy().tolist()
    setting = [_setting(row) for _, row in rows.iterrows()]
    return go.Scatter(
        x=rows["x_value"].tolist(),
        y=rows["y_value"].tolist(),
        error_x=interval("x"),
        error_y=interval("y"),
        mode="markers",
        opacity=CLOUD if faint else 1.0,
        marker={"color": mark.color, "symbol": mark.symbol, "size": 8 if faint else 13, "line": {"width": 1.6, "color": mark.color}},
        name=theme.plain(group.label),
        customdata=[[theme.plain(arm), *line, theme.plain(how)] for arm, line, how in zip(rows["arm"], told, setting, strict=True)],
        hovertemplate=(
            "<b>%{customdata[0]}</b>%{customdata[7]}"
            "<br>attack success %{y:.1%}  (95% %{customdata[4]:.1%} to %{customdata[5]:.1%}), n = %{customdata[6]:.0f}"
            "<br>over-refusal %{x:.1%}  (95% %{customdata[1]:.1%} to %{customdata[2]:.1%}), n = %{customdata[3]:.0f}<extra></extra>"
        ),
    )


def _setting(row: pd.Series) -> str:
    told = [f"{name.replace('_', ' ')} {row[name]}" for name in ("vector", "site", "strength", "gate", "thought_mode") if row[name] != ""]
    return " · " + ", ".join(told) if told else ""


def restoration_bars(restoration: pd.DataFrame) -> go.Figure:
    """Every metric a row, every arm a dot in it with its interval; all random draws share one faint place. Columns: `restoration`."""
    table = arms(restoration)
    table = table.assign(metric=table["metric"].map(METRICS))
    rows = [name for name in METRICS.values() if name in set(table["metric"])]
    shown = places(table)
    figure = theme.figure(
        "Every outcome under every condition", f"{_split(restoration)} · bars are 95% intervals", plot=len(rows) * (26 + 15 * len(shown))
    )
    for index, group in enumerate(shown):
        shift = place(index, len(shown))
        for first, (_, mine) in enumerate(group.rows.groupby("arm", sort=False)):
            look = {"opacity": CLOUD if group.draws else 1.0, "showlegend": first == 0, "legendgroup": theme.plain(group.label)}
            add_series(figure, mine, rows=rows, key="metric", name=group.label, mark=group.mark, shift=shift, **look)
    rule_rows(figure, rows)
    rule_percent(figure, "share of prompts")
    return figure


def _split(restoration: pd.DataFrame) -> str:
    return f"{theme.plain(prefer(restoration, 'split', 'test')['split'].iloc[0])} split"


def main_arm(table: pd.DataFrame) -> str | None:
    """The steered arm spoken of: the first whose thought was regenerated, else the first in the table. Never the best of the shown."""
    steered = table[table["condition"] == "steered"]
    if steered.empty:
        return None
    regenerated = steered[steered["thought_mode"] == "regenerated"]
    return str((steered if regenerated.empty else regenerated)["arm"].iloc[0])


def compare_arms(table: pd.DataFrame, metric: str) -> dict[str, pd.Series]:
    """The rows of one metric by what they are: unsteered, safe, steered (main_arm), shuffled where they exist."""
    rows = table[table["metric"] == metric]
    arm = main_arm(table)
    found = {name: rows[rows["arm"] == arm] if name == "steered" else rows[rows["condition"] == name] for name in ORDER if name != "random"}
    return {name: row.iloc[0] for name, row in found.items() if not row.empty}
