"""Transfer: a probe fitted on one model, attack, category or moment, read on every other, as a matrix of AUROCs.

Down a column the test rows are the same, so what differs there is where the probe was fitted. A view is one matrix: of one model, unless
models are what is compared, at one moment, unless moments are, and at one site.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import lowest
from .readable import in_time

CELL = 34
PLURAL = {"model": "models", "attack": "attacks", "category": "categories", "span": "moments"}
HOVER = (
    "fitted on <b>%{customdata[0]}</b>, read on <b>%{customdata[1]}</b>"
    "<br>AUROC %{z:.3f}  (95% interval %{customdata[2]} to %{customdata[3]})<br>TPR at 1% FPR %{customdata[4]}"
    "<br>n = %{customdata[5]} test, %{customdata[6]} train<extra></extra>"
)


def views(transfer: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every matrix by its name, in the order of the table: "models · step_end[4] · resid_post.4", "attacks · reasoning · …"."""
    names = [_said(row) for _, row in transfer.iterrows()]
    return {str(name): rows for name, rows in transfer.groupby(names, sort=False)}


def _said(row: pd.Series) -> str:
    along = str(row["along"])
    return " · ".join([PLURAL.get(along, along), *(str(row[name]) for name in ("model", "span", "site") if name != along)])


def ends(rows: pd.DataFrame) -> list[str]:
    """The names of both axes: models in their order, moments in time, anything else by name."""
    names = sorted({*rows["source"], *rows["target"]})
    return sorted(names, key=in_time) if rows["along"].iloc[0] == "span" else theme.ordered(names)


def transfer_matrix(transfer: pd.DataFrame) -> go.Figure:
    """One matrix at a time, source × target, chosen from a menu. Columns: CONTRIBUTING.md, `transfer`."""
    found = views(transfer)
    most = max(len(ends(rows)) for rows in found.values())
    figure = theme.figure(
        "Does the probe transfer?", "row: fitted on · column: read on · AUROC on test rows", plot=max(170, CELL * most), above=56
    )
    for index, rows in enumerate(found.values()):
        figure.add_trace(_matrix(rows).update(visible=index == 0))
    first = _axes(ends(next(iter(found.values()))))
    figure.update_layout({name.replace(".", "_"): value for name, value in first.items()})
    figure.update_xaxes(title_text="read on", showgrid=False, ticks="", tickangle=-40)
    figure.update_yaxes(title_text="fitted on", showgrid=False, ticks="")
    figure.update_layout(
        coloraxis={"cmin": 0.5, "cmax": 1, "colorbar": {"title": {"text": "AUROC"}, "tickvals": [0.5, 0.75, 1], "len": 0.8}}
    )
    if len(found) > 1:
        figure.update_layout(updatemenus=[_menu(found)])
    return figure


def _matrix(rows: pd.DataFrame) -> go.Heatmap:
    names = ends(rows)
    cells = {(row["source"], row["target"]): row for _, row in rows.iterrows()}
    grid = [[cells.get((source, target)) for target in names] for source in names]
    z = [[None if cell is None or math.isnan(cell["auroc"]) else float(cell["auroc"]) for cell in line] for line in grid]
    return go.Heatmap(
        z=z,
        x=list(range(len(names))),
        y=list(range(len(names))),
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        text=[["" if value is None else theme.auroc(value) for value in line] for line in z],
        texttemplate="%{text}",
        textfont={"size": 11},
        customdata=[[_told(cell) for cell in line] for line in grid],
        hovertemplate=HOVER,
        hoverongaps=False,
        name=theme.plain(_said(rows.iloc[0])),
    )


def _told(cell: pd.Series | None) -> list[str]:
    if cell is None:
        return ["–"] * 7
    told = [theme.plain(cell["source"]), theme.plain(cell["target"]), theme.auroc(cell["low"]), theme.auroc(cell["high"])]
    return [*told, theme.percent(cell["tpr_at_1fpr"]), theme.count(cell["n_test"]), theme.count(cell["n_train"])]


def _axes(names: list[str]) -> dict[str, object]:
    """Both axes of a matrix, the first source on top, as flat layout keys: what plotly's menus take."""
    at, labels, last = list(range(len(names))), [theme.plain(name) for name in names], len(names) - 0.5
    found: dict[str, object] = {}
    for axis, ends_at in (("xaxis", [-0.5, last]), ("yaxis", [last, -0.5])):
        found |= {f"{axis}.tickvals": at, f"{axis}.ticktext": labels, f"{axis}.range": ends_at}
    return found


def _menu(found: dict[str, pd.DataFrame]) -> dict[str, object]:
    buttons = [
        {
            "label": theme.plain(name),
            "method": "update",
            "args": [{"visible": [at == index for at in range(len(found))]}, _axes(ends(rows))],
        }
        for index, (name, rows) in enumerate(found.items())
    ]
    return {"buttons": buttons, "active": 0, "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 12}, "showactive": True}


def read_transfer(transfer: pd.DataFrame) -> str:
    """Every matrix in a sentence: what the probe reaches at home, and where it does worst away."""
    return " ".join(_read(name, rows) for name, rows in views(transfer).items())


def _read(name: str, rows: pd.DataFrame) -> str:
    home, away = rows[rows["source"] == rows["target"]], rows[rows["source"] != rows["target"]].dropna(subset=["auroc"])
    if home.empty or away.empty:
        return f"{name.capitalize()}: nothing to compare."
    worst = lowest(away, "auroc")
    where = f"fitted on {worst['source']}, read on {worst['target']}"
    return (
        f"{name.capitalize()}: at home AUROC {_range(home['auroc'])}, away {_range(away['auroc'])}, "
        f"lowest {where}: {theme.aurocs(worst['auroc'], worst['low'], worst['high'])}, n = {worst['n_test']:.0f}."
    )


def _range(values: pd.Series) -> str:
    return " to ".join(dict.fromkeys([theme.auroc(float(values.min())), theme.auroc(float(values.max()))]))
