"""How harmful, not only how often: harm ratings 0 to 5 as histograms, a panel per reading and channel.

Rows: `harm_histogram`, one judge, benchmarks added up. Bars are shares of all that were asked, so that panels can be compared; what has
no rating stands apart, with its counts: unscored (the judge gave none) and absent (nothing was written on that channel).
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import TableProblem, wilson
from .readings import drawn, label, left_out, marks, readings, with_reading

RATINGS = tuple(range(6))
APART = {"unscored": 6.6, "absent": 7.6}  # where they stand, away from the ratings
CHANNELS = ("thought", "answer", "full")
PANEL, BETWEEN, UPPER = 108, 18, 1.45
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]}<br>%{customdata[2]}: %{customdata[3]} of %{customdata[4]}"
    "<br>%{y:.1%}  (95% interval %{customdata[5]})<extra></extra>"
)


def counted(harm_histogram: pd.DataFrame) -> pd.DataFrame:
    """model, condition, reading, channel, what, rating (nan where apart) and n, of the first judge, over all benchmarks."""
    rows = harm_histogram[harm_histogram["judge"] == harm_histogram["judge"].iloc[0]] if len(harm_histogram) else harm_histogram
    if rows.empty or not rows["n"].sum():
        raise TableProblem("The harm_histogram table counts no output. `thoughtlens collapse` makes it from the verdicts of a judge.")
    by = ["model", "condition", "channel", "what", "rating"]
    summed: pd.DataFrame = rows.groupby(by, sort=False, dropna=False)["n"].sum().reset_index()
    return with_reading(drawn(summed))


def harm_ratings(harm_histogram: pd.DataFrame) -> go.Figure:
    """Readings down, channels across. Columns: CONTRIBUTING.md, `harm_histogram`."""
    rows = counted(harm_histogram)
    names, look, judge = readings(rows), marks(rows), harm_histogram["judge"].iloc[0]
    channels = theme.ordered(rows["channel"].tolist(), CHANNELS)
    plot = PANEL * len(names) + BETWEEN * (len(names) - 1)
    gone = left_out(harm_histogram)
    note = f"judge {judge} · – unscored, ∅ nothing written" + (f" · {gone}" if gone else "")
    blank = theme.figure("How harmful: ratings by channel", note, plot=plot, above=34)
    figure = make_subplots(
        rows=len(names),
        cols=len(channels),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=BETWEEN / plot if len(names) > 1 else 0.0,
        column_titles=[f"<b>{theme.plain(channel)}</b>" for channel in channels],
        figure=blank,
    )
    for line, name in enumerate(names, start=1):
        for column, channel in enumerate(channels, start=1):
            mine = rows[(rows["reading"] == name) & (rows["channel"] == channel)]
            traces = _bars(mine, look[name], name, channel)
            figure.add_traces(traces, rows=[line] * len(traces), cols=[column] * len(traces))
        figure.update_yaxes(title_text=label(name, width=15), row=line, col=1)
    figure.update_xaxes(
        tickvals=[*RATINGS, *APART.values()], ticktext=[*map(str, RATINGS), "–", "∅"], range=[-0.7, 8.2], showgrid=False, ticks=""
    )
    figure.update_yaxes(range=[0, UPPER], tickvals=[0, 0.5, 1], tickformat=".0%", tickfont={"size": 10})
    figure.update_xaxes(title_text="harm rating of harmful prompts", row=len(names), col=(len(channels) + 1) // 2)
    figure.update_annotations(font_size=13)
    return figure.update_layout(showlegend=False, bargap=0.15)


def _bars(mine: pd.DataFrame, mark: theme.Mark, name: str, channel: str) -> list[go.Bar | go.Scatter]:
    """The ratings, what is apart (hatched), and its counts in words above."""
    of = int(mine["n"].sum())
    if not of:
        return []
    rated = mine[mine["what"] == "rated"].sort_values("rating")
    apart = mine[mine["what"].isin(APART)]
    hatched = {"shape": "/", "fgcolor": theme.MARKS["random"].color, "bgcolor": "rgba(0,0,0,0)", "size": 6, "solidity": 0.25}
    gray: dict[str, object] = {"color": "rgba(0,0,0,0)", "line": {"color": theme.MARKS["random"].color, "width": 1}, "pattern": hatched}
    said = [f"rated {rating:.0f}" for rating in rated["rating"]]
    words = "<br>".join(f"{row['n']:.0f} {row['what']}" for _, row in apart.iterrows() if row["n"])
    return [
        _share(rated, rated["rating"].tolist(), said, of, name, channel, {"color": mark.color}),
        _share(apart, [APART[what] for what in apart["what"]], apart["what"].tolist(), of, name, channel, gray),
        go.Scatter(
            x=[8.1],
            y=[UPPER],
            mode="text",
            text=[words],
            textposition="bottom left",
            textfont={"size": 10},
            hoverinfo="skip",
            name=f"apart, {theme.plain(name)}, {theme.plain(channel)}",
        ),
    ]


def _share(rows: pd.DataFrame, x: list[float], said: list[str], of: int, name: str, channel: str, marker: dict[str, object]) -> go.Bar:
    bounds = [wilson(float(n), of) for n in rows["n"]]
    share = [float(n) / of for n in rows["n"]]
    told = [
        [theme.plain(name), theme.plain(channel), theme.plain(what), theme.count(n), str(of), f"{low:.1%} to {high:.1%}"]
        for what, n, (low, high) in zip(said, rows["n"], bounds, strict=True)
    ]
    above = [max(0.0, high - one) for one, (_, high) in zip(share, bounds, strict=True)]
    below = [max(0.0, one - low) for one, (low, _) in zip(share, bounds, strict=True)]
    error = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 0}
    return go.Bar(
        x=x,
        y=share,
        marker=marker,
        error_y={**error, "color": theme.MARKS["random"].color},
        customdata=told,
        hovertemplate=HOVER,
        name=f"{theme.plain(name)}, {theme.plain(channel)}",
    )


def read_histogram(harm_histogram: pd.DataFrame) -> str:
    """Per reading what share of answers got the highest rating and the lowest, and how many have none; the thought beside it."""
    rows = counted(harm_histogram)
    channels = [channel for channel in ("answer", "thought") if channel in set(rows["channel"])] or rows["channel"].unique().tolist()
    told = []
    for name in readings(rows):
        mine = rows[rows["reading"] == name]
        told.append(f"{name}: " + "; ".join(_read(mine[mine["channel"] == channel], channel) for channel in channels) + ".")
    return " ".join(told)


def _read(mine: pd.DataFrame, channel: str) -> str:
    of = int(mine["n"].sum())
    if not of:
        return f"no {channel} was asked for"
    rated = mine[mine["what"] == "rated"].groupby("rating")["n"].sum()
    parts = []
    for rating in (RATINGS[-1], RATINGS[0]):
        n = float(rated.get(float(rating), 0))
        parts.append(f"{theme.percents(n / of, *wilson(n, of))} of {channel}s rated {rating}")
    left = [f"{n:.0f} {what}" for what, n in mine[mine["what"].isin(APART)].groupby("what", sort=False)["n"].sum().items() if n]
    return ", ".join([*parts, *left]) + f" (n = {of})"
