"""Where in the model, and when in the thought, unsafe intent is linearly readable: AUROC over layer × span.

The controls stand above on the same colours: where a column is as dark above as below, the words alone already tell, and the column is
hatched. What "already tell" means is defined in readable.py; the best layer of each span with its interval is in best_layer.py.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import highest
from .readable import best_layers, chosen, columns_in_time, listed, spoken_of

SHOWN_AT_MOST = 16
NEAR = 0.02
WORDS = theme.MARKS["words"]


def auroc_by_layer_and_span(detection: pd.DataFrame) -> go.Figure:
    """Heatmap layer × span, one model at a time; above it, on the same colours, what words alone and shuffled labels reach.

    A span whose words already tell is hatched. Columns: CONTRIBUTING.md, `detection`.
    """
    rows, best = chosen(detection), best_layers(detection)
    readings = theme.ordered(rows["reading"].tolist())
    columns = columns_in_time(rows)
    layers = sorted(int(layer) for layer in rows["layer"].unique())
    first = rows.iloc[0]
    shown_rows = f"{first['probe']} probe on {first['stream']} · label {first['label']} · {first['split']} split"
    note = f"{shown_rows} · bold: best layer · hatched: words alone already tell"
    strip, cells = 54, max(150, (28 if len(layers) <= SHOWN_AT_MOST else 14) * len(layers))
    blank = theme.figure("Where unsafe intent is readable: AUROC by layer and span", note, plot=strip + cells + 14, above=48)
    figure = make_subplots(
        rows=2, cols=1, row_heights=[strip, cells], vertical_spacing=14 / (strip + cells), shared_xaxes=True, figure=blank
    )
    shown = readings.index("reasoning") if "reasoning" in readings else 0
    for index, reading in enumerate(readings):
        mine = rows[rows["reading"] == reading]
        judged = best[best["reading"] == reading].set_index("column")
        for trace, row in (
            (_controls(mine, columns), 1),
            (_cells(mine, judged, columns, layers), 2),
            (_hatching(judged, columns, layers), 2),
        ):
            figure.add_trace(trace.update(visible=index == shown, name=theme.plain(reading)), row=row, col=1)
    labels = [theme.plain(column) for column in columns]
    figure.update_xaxes(
        showgrid=False, range=[-0.5, len(columns) - 0.5], tickvals=list(range(len(columns))), ticktext=labels, tickangle=-40
    )
    figure.update_yaxes(showgrid=False, ticks="")
    figure.update_yaxes(
        row=2,
        col=1,
        title_text="layer",
        tickvals=layers if len(layers) <= SHOWN_AT_MOST else None,
        range=[min(layers) - 0.5, max(layers) + 0.5],
    )
    figure.update_xaxes(row=1, col=1, ticks="")
    figure.update_yaxes(row=1, col=1, tickvals=[0, 1], ticktext=["shuffled", "words alone"], range=[-0.5, 1.5])
    figure.update_layout(
        coloraxis={"cmin": 0.5, "cmax": 1, "colorbar": {"title": {"text": "AUROC"}, "tickvals": [0.5, 0.75, 1], "len": 0.8}},
        barmode="overlay",
    )
    figure.update_layout(showlegend=False)
    if len(readings) > 1:
        figure.update_layout(updatemenus=[_dropdown(readings, shown)])
    return figure


def _dropdown(readings: list[str], shown: int) -> dict[str, object]:
    buttons = [
        {
            "label": theme.plain(reading),
            "method": "restyle",
            "args": [{"visible": [at == index for at in range(len(readings)) for _ in range(3)]}],
        }
        for index, reading in enumerate(readings)
    ]
    return {
        "buttons": buttons,
        "active": shown,
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": 12},
        "showactive": True,
    }


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
    )


def _cells(mine: pd.DataFrame, judged: pd.DataFrame, columns: list[str], layers: list[int]) -> go.Heatmap:
    """The AUROCs, that of the best layer of each column in bold."""
    once = mine.drop_duplicates(["layer", "column"])
    z = once.pivot(index="layer", columns="column", values="auroc").reindex(index=layers, columns=columns).to_numpy().tolist()
    rows = {(int(row["layer"]), str(row["column"])): row for _, row in once.iterrows()}
    best = judged["layer"].to_dict()
    hover = [[_told(column, rows.get((layer, column))) for column in columns] for layer in layers]
    return go.Heatmap(
        z=_gaps(z),
        x=list(range(len(columns))),
        y=layers,
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        text=[
            [_cell(value, best.get(column) == layer) for value, column in zip(line, columns, strict=True)]
            for line, layer in zip(z, layers, strict=True)
        ],
        texttemplate="%{text}" if len(layers) <= SHOWN_AT_MOST else None,
        textfont={"size": 11},
        customdata=hover,
        hovertemplate=(
            "<b>%{customdata[0]}</b> · layer %{y}<br>AUROC %{z:.3f}  (95% interval %{customdata[1]} to %{customdata[2]})"
            "<br>TPR at 1% FPR %{customdata[3]}<br>n = %{customdata[4]} test, %{customdata[5]} train"
            "<br>shuffled labels %{customdata[6]}, 95% below %{customdata[7]}<br>bag of words %{customdata[8]}<extra></extra>"
        ),
        hoverongaps=False,
    )


def _told(column: str, row: pd.Series | None) -> list[str]:
    """What the hover of a cell says, as text: a control that was not run is a dash, never a zero."""
    if row is None:
        return [theme.plain(column)] + ["–"] * 8
    sizes = [theme.count(row["n_test"]), theme.count(row["n_train"])]
    controls = [theme.auroc(row[name]) for name in ("control_auroc", "control_high", "text_auroc")]
    return [theme.plain(column), theme.auroc(row["low"]), theme.auroc(row["high"]), theme.percent(row["tpr_at_1fpr"]), *sizes, *controls]


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
        y=[max(layers) - min(layers) + 1] * len(hatched),
        base=[min(layers) - 0.5] * len(hatched),
        width=0.96,
        marker={
            "color": clear,
            "line": {"width": 1.5, "color": WORDS.color},
            "pattern": {"shape": "/", "fgcolor": WORDS.color, "bgcolor": clear, "size": 11, "solidity": 0.12},
        },
        hoverinfo="skip",
    )


def read_layers(detection: pd.DataFrame) -> str:
    """The heatmap in words: from which layer intent is readable where it is read best, and which spans the words give away."""
    best, reading = spoken_of(detection)
    state = best[best["verdict"] == "state"]
    top = highest(best if state.empty else state, "score")
    rows = chosen(detection)
    along = rows[(rows["reading"] == reading) & (rows["column"] == top["column"])].drop_duplicates("layer").sort_values("layer")
    clear = along[along["low"] > along["control_high"].fillna(along["control_auroc"])]
    close = along[along["auroc"] >= top["auroc"] - NEAR].iloc[0]
    first = along.iloc[0]
    told = f"At {top['column']} in the {reading} model the probe starts from AUROC {theme.auroc(first['auroc'])} at layer {first['layer']}"
    told += f", clears the shuffled labels from layer {clear['layer'].iloc[0]}" if len(clear) else ", never clears the shuffled labels"
    told += f" and is within {theme.auroc(NEAR)} of its best ({theme.auroc(top['auroc'])}) from layer {close['layer']}"
    told += f"; n = {top['n_test']:.0f}. "
    return (told + listed(best, "words")).strip()
