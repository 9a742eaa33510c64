"""One span, layer by layer: the probe's AUROC with its 95% interval, a line per model, between its two controls.

Dashed, the bag of words over the tokens up to the same place (`text_auroc`; it has no layer, so it is level); the short strokes below are
the same probe on shuffled labels, mean, with a bar up to the bound that 95% of shuffles stay under (`control_high`). What is picked where
no span is asked for: the span at which the model that is spoken of reads best beyond its words.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from .. import theme
from ..tables import TableProblem, highest, prefer
from .readable import VERDICTS, best_layers, chosen, columns_in_time, spoken_of
from .readings import bars, legend_room, marks, readings, with_reading

ASIDE = 0.1  # layers between models, so that their bars do not hide each other
CONTROL = theme.MARKS["control"]
LAST = 2000  # plotly ranks a trace without a word 1000
WORDS, SHUFFLED = "words alone", "shuffled labels, mean to 95%"
HOVER = (
    "<b>%{customdata[4]}</b> · layer %{customdata[0]} · %{customdata[5]}"
    "<br>AUROC %{y:.3f}  (95% interval %{customdata[6]} to %{customdata[7]})"
    "<br>TPR at 1% FPR %{customdata[8]}<br>n = %{customdata[9]} test, %{customdata[10]} train<extra></extra>"
)


def at_span(detection: pd.DataFrame, span: str = "") -> pd.DataFrame:
    """The rows of one span (a span, or a span with its pool as in "thought · max"), one per reading and layer."""
    rows = chosen(detection)
    wanted = span or _best_span(detection)
    kept = rows[(rows["column"] == wanted) | (rows["span"] == wanted)]
    if kept.empty:
        raise TableProblem(f"No rows with span = {wanted!r}; the detection table has {', '.join(columns_in_time(rows))}.")
    one = prefer(kept, "column", *columns_in_time(kept))
    return with_reading(one).drop_duplicates(["reading", "layer"]).sort_values(["reading", "layer"], kind="stable")


def _best_span(detection: pd.DataFrame) -> str:
    best, _ = spoken_of(detection)
    state = best[best["verdict"] == "state"]
    return str(highest(best if state.empty else state, "score")["column"])


def auroc_over_layers(detection: pd.DataFrame, span: str = "") -> go.Figure:
    """A line per reading. Customdata begins with layer, span, model, condition. Columns: CONTRIBUTING.md, `detection`."""
    rows = at_span(detection, span)
    names, look = readings(rows), marks(rows)
    first = rows.iloc[0]
    note = f"{first['probe']} probe on {first['stream']} · {first['split']} split · 95% intervals"
    figure = theme.figure(f"AUROC over layers at {first['column']}", note, plot=300, above=legend_room([*names, WORDS, SHUFFLED]))
    for index, name in enumerate(names):
        aside = ASIDE * (index - (len(names) - 1) / 2)
        mine = rows[rows["reading"] == name]
        size = 9 if len(mine) <= 16 else 4
        controls = [_shuffled(mine, aside, size, first_of_all=index == 0), _words(mine, name, look[name])]
        figure.add_traces([*controls, _line(mine, name, look[name], aside, size)])
    figure.add_scatter(
        x=[None], y=[None], mode="lines", line={"color": CONTROL.color, "dash": "dash", "width": 1.4}, name=WORDS, legendrank=LAST
    )
    layers = sorted(int(layer) for layer in rows["layer"].unique())
    every = max(1, math.ceil(len(layers) / 16))
    floor = float(rows[["auroc", "low", "control_auroc", "text_auroc"]].min().min())
    floor = 0.45 if math.isnan(floor) else min(0.45, floor - 0.03)
    figure.update_xaxes(title_text="layer", tickvals=layers[::every], range=[layers[0] - 0.5, layers[-1] + 0.5], showgrid=False)
    figure.update_yaxes(title_text="AUROC", range=[floor, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", ".25", ".5", ".75", "1"])
    return figure.update_layout(showlegend=True, legend={"traceorder": "normal"})


def _line(mine: pd.DataFrame, name: str, mark: theme.Mark, aside: float, size: int) -> go.Scatter:
    return go.Scatter(
        x=[layer + aside for layer in mine["layer"]],
        y=_gaps(mine["auroc"]),
        error_y=bars(mine, mark.color, value="auroc"),
        mode="lines+markers",
        line={"color": mark.color, "width": 2},
        marker={"color": mark.color, "symbol": mark.symbol, "size": size},
        name=theme.plain(name),
        legendgroup=theme.plain(name),
        customdata=[_told(row) for _, row in mine.iterrows()],
        hovertemplate=HOVER,
        cliponaxis=False,
    )


def _told(row: pd.Series) -> list[object]:
    link = [int(row["layer"]), str(row["span"]), str(row["model"]), str(row["condition"])]
    names = [theme.plain(row["column"]), theme.plain(row["reading"])]
    sizes = [theme.count(row["n_test"]), theme.count(row["n_train"])]
    return [*link, *names, theme.auroc(row["low"]), theme.auroc(row["high"]), theme.percent(row["tpr_at_1fpr"]), *sizes]


def _words(mine: pd.DataFrame, name: str, mark: theme.Mark) -> go.Scatter:
    """Level from the first layer to the last, half a layer farther at both ends."""
    level = [float(value) for value in mine["text_auroc"].dropna().head(1)]
    ends = [float(mine["layer"].min()) - 0.5, float(mine["layer"].max()) + 0.5] if level else []
    return go.Scatter(
        x=ends,
        y=level * len(ends),
        mode="lines",
        line={"color": mark.color, "dash": "dash", "width": 1.4},
        name=f"{theme.plain(name)}, {WORDS}",
        legendgroup=theme.plain(name),
        showlegend=False,
        hovertemplate="%{fullData.name}: AUROC %{y:.3f}<extra></extra>",
    )


def _shuffled(mine: pd.DataFrame, aside: float, size: int, *, first_of_all: bool) -> go.Scatter:
    flat = mine.assign(low=mine["control_auroc"])
    return go.Scatter(
        x=[layer + aside for layer in mine["layer"]],
        y=_gaps(mine["control_auroc"]),
        error_y=bars(flat, CONTROL.color, value="control_auroc", high="control_high"),
        mode="markers",
        marker={"color": CONTROL.color, "symbol": "line-ew-open", "size": size, "line": {"width": 2}},
        name=SHUFFLED,
        legendgroup=SHUFFLED,
        legendrank=LAST,
        showlegend=first_of_all,
        customdata=[
            [theme.plain(reading), int(layer), theme.auroc(high)]
            for reading, layer, high in zip(mine["reading"], mine["layer"], mine["control_high"], strict=True)
        ],
        hovertemplate=(
            "%{customdata[0]}, layer %{customdata[1]}<br>shuffled labels: AUROC %{y:.3f}, 95% below %{customdata[2]}<extra></extra>"
        ),
    )


def _gaps(values: pd.Series) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]


def read_lines(detection: pd.DataFrame, span: str = "") -> str:
    """Per reading the best layer at this span (picked as everywhere, on dev where there is one), with its controls and what they say."""
    rows, best = at_span(detection, span), best_layers(detection)
    column = str(rows["column"].iloc[0])
    told = []
    for name in readings(rows):
        mine = best[(best["column"] == column) & (best["reading"] == name)]
        told.append(_read(name, mine.iloc[0]) if len(mine) else f"{name}: no AUROC at any layer")
    return f"At {column}: {'. '.join(told)}."


def _read(name: str, row: pd.Series) -> str:
    return (
        f"{name} best at layer {row['layer']:.0f}, AUROC {theme.aurocs(row['auroc'], row['low'], row['high'])} (n = {row['n_test']:.0f}), "
        f"words {theme.auroc(row['text_auroc'])}, shuffled labels {theme.auroc(row['control_auroc'])}: {VERDICTS[row['verdict']]}"
    )
