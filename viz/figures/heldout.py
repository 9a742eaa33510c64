"""Held out: a probe that never saw a category, an attack, pictures or the tuned models, tested on exactly those.

Rows of `holdouts`: for each way of holding out the layer that is best on dev (of equals the one that catches more at 1% false alarms, then
the lower), told on test. Beside each stands what tf-idf over the prompt tells when the same rows are held out.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import theme
from ..tables import ALL, TableProblem, lowest, prefer
from .readable import in_time

PROBE, TEXT = theme.MARKS["reasoning"], theme.MARKS["words"]
CELL = ["span", "holdout"]
HOVER = (
    "<b>%{customdata[0]}</b> · %{customdata[1]}<br>AUROC %{x:.3f}  (95% interval %{customdata[2]} to %{customdata[3]})"
    "<br>layer %{customdata[4]} of %{customdata[5]}<br>n = %{customdata[6]} test, %{customdata[7]} train<extra></extra>"
)


def held_out(holdouts: pd.DataFrame) -> pd.DataFrame:
    """One test row per span and way of holding out, at the layer that is best on dev."""
    rows = holdouts[(holdouts["subset"] == ALL) & (holdouts["site"] != "")]
    rows = prefer(rows, "probe", "logistic") if len(rows) else rows
    dev, test = rows[rows["split"] == "dev"], rows[rows["split"] == "test"]
    if dev.empty or test.empty:
        raise TableProblem("The holdouts table has no probe with dev and test rows. `thoughtlens probe RUN` makes it.")
    best = dev.sort_values(["auroc", "tpr_at_1fpr", "layer"], ascending=[False, False, True], kind="stable").drop_duplicates(CELL)
    found = test.merge(best[[*CELL, "site"]], on=[*CELL, "site"])
    return found.drop_duplicates(CELL).dropna(subset=["auroc"])


def texts(holdouts: pd.DataFrame) -> pd.DataFrame:
    """The test rows of tf-idf over the prompt."""
    rows = holdouts[(holdouts["subset"] == ALL) & (holdouts["probe"] == "tfidf_prompt") & (holdouts["split"] == "test")]
    return rows.drop_duplicates(CELL).dropna(subset=["auroc"])


def probe_held_out(holdouts: pd.DataFrame) -> go.Figure:
    """A panel per moment, a row per way of holding out. Columns: CONTRIBUTING.md, `holdouts`."""
    probes, words = held_out(holdouts), texts(holdouts)
    spans, ways = sorted(dict.fromkeys(probes["span"]), key=in_time), list(dict.fromkeys(probes["holdout"]))
    at = {way: index for index, way in enumerate(ways)}
    note = "fitted without it, tested on it · layer chosen on dev · bars are 95% intervals over goals"
    blank = theme.figure("What the probe has never seen", note, plot=24 * len(ways), above=64)
    titles = [f"<b>{theme.plain(span)}</b>" for span in spans]
    figure = make_subplots(rows=1, cols=len(spans), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=titles, figure=blank)
    for panel, span in enumerate(spans, start=1):
        for rows, name, mark in ((words, "tf-idf over the prompt", TEXT), (probes, "probe", PROBE)):
            trace = _dots(rows[rows["span"] == span], at, name, mark)
            figure.add_trace(trace.update(legendgroup=name, showlegend=panel == 1), row=1, col=panel)
    floor = min(0.42, float(pd.concat([probes["low"], words["low"]]).min()) - 0.03)
    figure.update_xaxes(range=[floor, 1.04], tickvals=[0.5, 0.75, 1], ticktext=[".5", ".75", "1"])
    figure.update_xaxes(title_text="AUROC", col=(len(spans) + 1) // 2)
    labels = [theme.plain(way) for way in ways]
    figure.update_yaxes(tickvals=list(at.values()), ticktext=labels, range=[len(ways) - 0.5, -0.5], ticks="")
    theme.legend_over(figure, 26)
    return figure


def _dots(rows: pd.DataFrame, at: dict[str, int], name: str, mark: theme.Mark) -> go.Scatter:
    rows = rows[rows["holdout"].isin(at)]
    told = [
        [theme.plain(row["holdout"]), theme.plain(name), theme.auroc(row["low"]), theme.auroc(row["high"])]
        + [
            theme.count(row["layer"]) if row["layer"] >= 0 else "–",
            theme.plain(row["model"]),
            theme.count(row["n_test"]),
            theme.count(row["n_train"]),
        ]
        for _, row in rows.iterrows()
    ]
    bars = {"array": (rows["high"] - rows["auroc"]).tolist(), "arrayminus": (rows["auroc"] - rows["low"]).tolist()}
    return go.Scatter(
        x=rows["auroc"].tolist(),
        y=[at[way] for way in rows["holdout"]],
        error_x={"type": "data", "symmetric": False, **bars, "thickness": 1.6, "width": 0, "color": mark.color},
        mode="markers",
        marker={"color": mark.color, "symbol": mark.symbol, "size": 8},
        name=name,
        cliponaxis=False,
        customdata=told,
        hovertemplate=HOVER,
    )


def read_held_out(holdouts: pd.DataFrame) -> str:
    """Per moment the range over all ways of holding out, and the one the probe does worst on."""
    probes, words = held_out(holdouts), texts(holdouts)
    return " ".join(
        _read(span, probes[probes["span"] == span], words[words["span"] == span])
        for span in sorted(dict.fromkeys(probes["span"]), key=in_time)
    )


def _read(span: str, probes: pd.DataFrame, words: pd.DataFrame) -> str:
    worst = lowest(probes, "auroc")
    least, most = theme.auroc(float(probes["auroc"].min())), theme.auroc(float(probes["auroc"].max()))
    told = (
        f"At {span} the probe reaches AUROC {least} to {most} on what it has never seen ({len(probes)} ways), least on {worst['holdout']}: "
        f"{theme.aurocs(worst['auroc'], worst['low'], worst['high'])}, n = {worst['n_test']:.0f}"
    )
    if words.empty:
        return told + "."
    return told + f"; tf-idf over the prompt {theme.auroc(float(words['auroc'].min()))} to {theme.auroc(float(words['auroc'].max()))}."
