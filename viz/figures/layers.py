"""Where in the model, and when in the thought, unsafe intent is linearly readable: AUROC over layer × span.

The controls stand above on the same colours: where a column is as dark above as below, the words alone already tell, and the column is
hatched. What "already tell" means is defined in readable.py; the best layer of each span with its interval is in best_layer.py.

Contours enclose the cells that beat a control with their whole 95% interval: `low` above the upper bound of shuffled labels
(`control_high`; the mean where there is no bound), and `low` above the bag of words up to the same place (`text_auroc`). A cell whose
control was not run is outside.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType
from plotly.subplots import make_subplots

from .. import theme
from ..tables import highest
from .contours import outline
from .readable import best_layers, chosen, columns_in_time, listed, spoken_of
from .readings import label, legend_room

SHOWN_AT_MOST = 16
NEAR = 0.02
WORDS, CONTROL = theme.MARKS["words"], theme.MARKS["control"]
BEAT = {  # contour -> its line; drawn in this order, so that the narrow one lies on the wide one where they run together
    "above shuffled labels": {"color": CONTROL.color, "width": 4.5, "dash": "solid"},
    "above the words, too": {"color": theme.MARKS["reasoning"].color, "width": 2, "dash": "solid"},
}
GIVEN_AWAY = "words alone already tell"
LINK = ("layer", "span", "model", "condition")  # what a cell's customdata begins with, as the table has it; then text for the hover


def auroc_by_layer_and_span(detection: pd.DataFrame) -> go.Figure:
    """Heatmap layer × span, one model at a time; above it, on the same colours, what words alone and shuffled labels reach.

    A cell's customdata begins with LINK, so that a click on it can be followed. Columns: CONTRIBUTING.md, `detection`.
    """
    rows, best = chosen(detection), best_layers(detection)
    readings = theme.ordered(rows["reading"].tolist())
    columns = columns_in_time(rows)
    layers = sorted(int(layer) for layer in rows["layer"].unique())
    first = rows.iloc[0]
    note = f"{first['probe']} on {first['stream']} · {first['label']} · {first['split']} split · bold: best layer"
    strip, cells = 54, max(150, (28 if len(layers) <= SHOWN_AT_MOST else 14) * len(layers))
    given_away = [GIVEN_AWAY] if (best["verdict"] == "words").any() else []
    menu, legend = 44 if len(readings) > 1 else 0, legend_room([*BEAT, *given_away])
    title = "Where unsafe intent is readable, AUROC"
    blank = theme.figure(title, note, plot=strip + cells + 14, above=menu + legend)
    figure = make_subplots(
        rows=2, cols=1, row_heights=[strip, cells], vertical_spacing=14 / (strip + cells), shared_xaxes=True, figure=blank
    )
    shown = readings.index("reasoning") if "reasoning" in readings else 0
    drawn: list[int] = []
    for index, reading in enumerate(readings):
        mine = rows[rows["reading"] == reading]
        judged = best[best["reading"] == reading].set_index("column")
        over: list[BaseTraceType] = [_hatching(judged, columns, layers), *_contours(mine, columns, layers)]
        for trace, row in ((_controls(mine, columns), 1), (_cells(mine, judged, columns, layers), 2), *((trace, 2) for trace in over)):
            figure.add_trace(trace.update(visible=index == shown, meta=theme.plain(reading)), row=row, col=1)
            drawn.append(index)
    labels = [label(column, lines=1) for column in columns]
    figure.update_xaxes(
        showgrid=False, range=[-0.5, len(columns) - 0.5], tickvals=list(range(len(columns))), ticktext=labels, tickangle=-40
    )
    figure.update_yaxes(showgrid=False, ticks="")
    every = max(1, math.ceil(len(layers) / SHOWN_AT_MOST))
    there = list(range(0, len(layers), every))
    figure.update_yaxes(
        row=2, col=1, title_text="layer", tickvals=there, ticktext=[str(layers[at]) for at in there], range=[-0.5, len(layers) - 0.5]
    )
    figure.update_xaxes(row=1, col=1, ticks="")
    figure.update_yaxes(row=1, col=1, tickvals=[0, 1], ticktext=["shuffled", "words alone"], range=[-0.5, 1.5])
    figure.update_layout(
        coloraxis={"cmin": 0.5, "cmax": 1, "colorbar": {"title": {"text": "AUROC"}, "tickvals": [0.5, 0.75, 1], "len": 0.8}},
        barmode="overlay",
        legend={"traceorder": "normal"},
    )
    if len(readings) > 1:
        figure.update_layout(updatemenus=[_dropdown(readings, shown, drawn, over=legend / (strip + cells + 14))])
    return figure


def _dropdown(readings: list[str], shown: int, drawn: list[int], *, over: float) -> dict[str, object]:
    """One button per reading; `drawn`: whose each trace is; `over`: the room of the legend below the menu."""
    buttons = [
        {"label": theme.plain(reading), "method": "restyle", "args": [{"visible": [at == index for at in drawn]}]}
        for index, reading in enumerate(readings)
    ]
    place = {"x": 0, "xanchor": "left", "y": 1 + over, "yanchor": "bottom", "pad": {"b": 4}}
    return {"buttons": buttons, "active": shown, **place, "showactive": True}


def _controls(mine: pd.DataFrame, columns: list[str]) -> go.Heatmap:
    """Two rows: shuffled labels (the highest over layers, as the probe may also choose its layer) and the bag of words."""
    by = mine.groupby("column")
    shuffled = by["control_auroc"].max().reindex(columns)
    words = by["text_auroc"].max().reindex(columns)
    z = [shuffled.tolist(), words.tolist()]
    return go.Heatmap(
        z=_gaps(z),
        x=list(range(len(columns))),
        y=[0, 1],
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        text=[[_cell(value, False) for value in line] for line in z],
        texttemplate="%{text}",
        textfont={"size": 11},
        customdata=[
            [[theme.plain(c), told] for c in columns] for told in ("shuffled labels, highest over layers", "bag of words up to here")
        ],
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}: AUROC %{z:.3f}<extra></extra>",
        hoverongaps=False,
        name="controls",
    )


def _cells(mine: pd.DataFrame, judged: pd.DataFrame, columns: list[str], layers: list[int]) -> go.Heatmap:
    """The AUROCs, that of the best layer of each column in bold."""
    rows = _by_place(mine)
    grid = [[rows.get((layer, column)) for column in columns] for layer in layers]
    z = [[math.nan if row is None else float(row["auroc"]) for row in line] for line in grid]
    best = judged["layer"].to_dict()
    return go.Heatmap(
        z=_gaps(z),
        x=list(range(len(columns))),
        y=list(range(len(layers))),
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        text=[
            [_cell(value, best.get(column) == layer) for value, column in zip(line, columns, strict=True)]
            for line, layer in zip(z, layers, strict=True)
        ],
        texttemplate="%{text}" if len(layers) <= SHOWN_AT_MOST else None,
        textfont={"size": 11},
        customdata=[[[layer, *_told(row, mine)] for row in line] for layer, line in zip(layers, grid, strict=True)],
        hovertemplate=(
            "<b>%{customdata[4]}</b> · layer %{customdata[0]} · %{customdata[5]}<br>AUROC %{z:.3f}"
            "  (95% interval %{customdata[6]} to %{customdata[7]})<br>TPR at 1% FPR %{customdata[8]}"
            "<br>n = %{customdata[9]} test, %{customdata[10]} train"
            "<br>shuffled labels %{customdata[11]}, 95% below %{customdata[12]}<br>bag of words %{customdata[13]}<extra></extra>"
        ),
        hoverongaps=False,
        name="probe",
    )


def _by_place(mine: pd.DataFrame) -> dict[tuple[int, str], pd.Series]:
    """The rows of one reading by layer and column."""
    return {(int(row["layer"]), str(row["column"])): row for _, row in mine.drop_duplicates(["layer", "column"]).iterrows()}


def _told(row: pd.Series | None, mine: pd.DataFrame) -> list[str]:
    """What follows the layer: the rest of LINK, then text for the hover, where a control that was not run is a dash, never a zero."""
    if row is None:
        return ["", *mine.iloc[0][list(LINK[2:])].astype(str), *["–"] * 10]
    link = [str(row[name]) for name in LINK[1:]]
    sizes = [theme.count(row["n_test"]), theme.count(row["n_train"])]
    controls = [theme.auroc(row[name]) for name in ("control_auroc", "control_high", "text_auroc")]
    names = [theme.plain(row["column"]), theme.plain(row["reading"])]
    return [*link, *names, theme.auroc(row["low"]), theme.auroc(row["high"]), theme.percent(row["tpr_at_1fpr"]), *sizes, *controls]


def _cell(value: float, bold: bool) -> str:
    text = "" if math.isnan(value) else theme.auroc(value)
    return f"<b>{text}</b>" if bold else text


def _gaps(z: list[list[float]]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in line] for line in z]


def _hatching(judged: pd.DataFrame, columns: list[str], layers: list[int]) -> go.Bar:
    """Hatches over the columns whose words already tell."""
    hatched = [index for index, column in enumerate(columns) if column in judged.index and judged.loc[column, "verdict"] == "words"]
    clear = "rgba(0,0,0,0)"
    return go.Bar(
        x=hatched,
        y=[len(layers)] * len(hatched),
        base=[-0.5] * len(hatched),
        width=0.96,
        marker={
            "color": clear,
            "line": {"width": 1.5, "color": WORDS.color},
            "pattern": {"shape": "/", "fgcolor": WORDS.color, "bgcolor": clear, "size": 11, "solidity": 0.12},
        },
        hoverinfo="skip",
        name=GIVEN_AWAY,
    )


def beats(row: pd.Series | None) -> dict[str, bool]:
    """Inside which contours a cell is."""
    if row is None:
        return dict.fromkeys(BEAT, False)
    control = row["control_auroc"] if math.isnan(row["control_high"]) else row["control_high"]
    shuffled = bool(row["low"] > control)
    return dict(zip(BEAT, (shuffled, shuffled and bool(row["low"] > row["text_auroc"])), strict=True))


def _contours(mine: pd.DataFrame, columns: list[str], layers: list[int]) -> list[go.Scatter]:
    rows = _by_place(mine)
    inside = [[beats(rows.get((layer, column))) for column in columns] for layer in layers]
    found = []
    for name, line in BEAT.items():
        x, y = outline([[cell[name] for cell in cells] for cells in inside])
        found.append(go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", name=name, cliponaxis=False))
    return found


def read_layers(detection: pd.DataFrame) -> str:
    """The heatmap in words: from which layer intent is readable where it is read best, and which spans the words give away."""
    best, reading = spoken_of(detection)
    state = best[best["verdict"] == "state"]
    top = highest(best if state.empty else state, "score")
    rows = chosen(detection)
    along = rows[(rows["reading"] == reading) & (rows["column"] == top["column"])].drop_duplicates("layer").sort_values("layer")
    clear = along["low"] > along["control_high"].fillna(along["control_auroc"])
    since = along["layer"][clear[::-1].cummin()[::-1]]  # this layer and all above it
    close = along[along["auroc"] >= top["auroc"] - NEAR].iloc[0]
    first = along.iloc[0]
    told = f"At {top['column']} in the {reading} model the probe starts from AUROC {theme.auroc(first['auroc'])} at layer {first['layer']}"
    told += f", clears the shuffled labels from layer {since.iloc[0]} on" if len(since) else _some(along["layer"][clear])
    told += f" and is first within {theme.auroc(NEAR)} of its best ({theme.auroc(top['auroc'])}) at layer {close['layer']}"
    told += f"; n = {top['n_test']:.0f}. "
    return (told + listed(best, "words")).strip()


def _some(clear: pd.Series) -> str:
    """Where a probe clears the control in some layers, but not in the last."""
    layers = ", ".join(str(layer) for layer in clear)
    return (
        f", clears the shuffled labels in layer{'s' * (len(clear) > 1)} {layers} alone" if layers else ", never clears the shuffled labels"
    )
