"""The probe against its controls at the best layer of each span: interval beside the bag of words and the shuffled labels.

Rows: `readable.best_layers`; the layer is picked on the dev split where the table has one.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import highest
from .readable import VERDICTS, best_layers, columns_in_time, listed, spoken_of

WORDS, CONTROL = theme.MARKS["words"], theme.MARKS["control"]


def best_layer_by_span(detection: pd.DataFrame) -> go.Figure:
    """Per model a panel: spans in the order they happen, the probe at its best layer with its interval, and both controls beside it."""
    best = best_layers(detection)
    readings = theme.ordered(best["reading"].tolist())
    columns = columns_in_time(best)
    at = {column: index for index, column in enumerate(columns)}
    note = (
        f"best layer picked on the {best['picked'].iloc[0]} split, numbers from the {best['split'].iloc[0]} split · bars are 95% intervals"
    )
    blank = theme.figure("The probe against its controls, at the best layer of each span", note, plot=34 * len(columns), above=64)
    titles = [f"<b>{theme.plain(reading)}</b>" for reading in readings]
    figure = make_subplots(rows=1, cols=len(readings), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=titles, figure=blank)
    for panel, reading in enumerate(readings, start=1):
        mine = best[best["reading"] == reading]
        for trace in _against_controls(mine, [at[column] for column in mine["column"]], theme.mark(reading, readings)):
            figure.add_trace(trace.update(legendgroup=trace.name, showlegend=panel == 1), row=1, col=panel)
    floor = min(0.42, float(best[["low", "text_auroc", "control_auroc"]].min().min()) - 0.03)
    figure.update_xaxes(range=[floor, 1.04], tickvals=[0.5, 0.75, 1], ticktext=[".5", ".75", "1"])
    figure.update_xaxes(title_text="AUROC", col=(len(readings) + 1) // 2)
    labels = [theme.plain(column) for column in columns]
    figure.update_yaxes(tickvals=list(at.values()), ticktext=labels, range=[len(columns) - 0.5, -0.5], showgrid=True, ticks="")
    theme.legend_over(figure, 26)
    return figure


def _against_controls(mine: pd.DataFrame, y: list[int], mark: theme.Mark) -> list[go.Scatter]:
    """Probe, bag of words and shuffled labels of one model; the probe comes last, so that it lies on top."""
    names = [theme.plain(column) for column in mine["column"]]
    told = [
        [
            theme.plain(row["column"]),
            theme.count(row["layer"]),
            *(
                theme.auroc(row["low"]),
                theme.auroc(row["high"]),
                theme.percent(row["tpr_at_1fpr"]),
                theme.count(row["n_test"]),
                VERDICTS[row["verdict"]],
            ),
        ]
        for _, row in mine.iterrows()
    ]
    probe = go.Scatter(
        x=mine["auroc"].tolist(),
        y=y,
        error_x=_interval((mine["high"] - mine["auroc"]).tolist(), (mine["auroc"] - mine["low"]).tolist(), mark.color),
        mode="lines+markers",
        line={"color": mark.color, "width": 1, "dash": "dot"},
        marker={"color": mark.color, "symbol": mark.symbol, "size": 9},
        name="probe at its best layer",
        customdata=told,
        cliponaxis=False,
        hovertemplate=(
            "<b>%{customdata[0]}</b> · layer %{customdata[1]}<br>AUROC %{x:.3f}  (95% interval %{customdata[2]} to %{customdata[3]})"
            "<br>TPR at 1% FPR %{customdata[4]}<br>n = %{customdata[5]} test<br>%{customdata[6]}<extra></extra>"
        ),
    )
    words = go.Scatter(
        x=mine["text_auroc"].tolist(),
        y=y,
        mode="markers",
        marker={"color": WORDS.color, "symbol": WORDS.symbol, "size": 10, "line": {"width": 2}},
        name="words alone",
        customdata=[[name] for name in names],
        hovertemplate="<b>%{customdata[0]}</b><br>bag of words up to here: AUROC %{x:.3f}<extra></extra>",
    )
    above = (mine["control_high"] - mine["control_auroc"]).fillna(0.0).tolist()
    shuffled = go.Scatter(
        x=mine["control_auroc"].tolist(),
        y=y,
        error_x=_interval(above, [0.0] * len(above), CONTROL.color),
        mode="markers",
        marker={"color": CONTROL.color, "symbol": CONTROL.symbol, "size": 11, "line": {"width": 2}},
        name="shuffled labels, mean to 95%",
        customdata=[[name, theme.auroc(high)] for name, high in zip(names, mine["control_high"], strict=True)],
        hovertemplate="<b>%{customdata[0]}</b><br>shuffled labels: AUROC %{x:.3f}, 95% below %{customdata[1]}<extra></extra>",
    )
    return [shuffled, words, probe]


def _interval(above: list[float], below: list[float], color: str) -> dict[str, object]:
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.6, "width": 0, "color": color}


def read_detection(detection: pd.DataFrame) -> str:
    """The best layers in words: where the probe reads beyond the words, and where nothing is read."""
    best, reading = spoken_of(detection)
    told = [_beyond(best[best["verdict"] == "state"], reading), listed(best, "close"), listed(best, "chance"), listed(best, "open")]
    if best["picked"].iloc[0] == best["split"].iloc[0]:
        told.append("The best layer was picked on the numbers shown here, so they are a little optimistic.")
    return " ".join(part for part in told if part)


def _beyond(mine: pd.DataFrame, reading: str) -> str:
    if mine.empty:
        return f"In the {reading} model no span's probe reads more than the words already tell: this run shows no hidden reading."
    top = highest(mine, "score")
    rest = [f"{r['column']} ({theme.auroc(r['auroc'])})" for _, r in mine.drop(index=top.name).iterrows()]
    return (
        f"In the {reading} model, unsafe intent is read beyond the words best at {top['column']}, layer {top['layer']:.0f}: "
        f"AUROC {theme.aurocs(top['auroc'], top['low'], top['high'])}, {theme.percent(top['tpr_at_1fpr'])} caught at 1% false alarms, "
        f"n = {top['n_test']:.0f}; the words up to there reach {theme.auroc(top['text_auroc'])}, "
        f"shuffled labels {theme.auroc(top['control_auroc'])}." + (f" Also beyond the words: {', '.join(rest)}." if rest else "")
    )
