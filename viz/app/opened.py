"""The reader: one prompt with its pictures, and two of its outputs beside each other, tokens coloured by what the probe reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pandas as pd
from dash import html
from dash.development.base_component import Component

from .. import theme
from ..reader import TokenSpan, legend, scale_of, token_spans
from ..tables import MADE_BY, TableProblem
from . import source as rows
from .filters import chooser, slider
from .pieces import badge, notice, says, veiled
from .views import View

UNREAD = f"No token of this output was read, so nothing is coloured. `{MADE_BY['readouts']}` reads tokens."


@dataclass(frozen=True)
class Output:
    """What one model wrote under one condition, and the layers at which its tokens were read."""

    name: str
    row: pd.Series
    layers: tuple[int, ...]


def reader(view: View) -> list[Component]:
    """The prompt that the URL names, or how to open one."""
    if not view.state.prompt:
        return [html.Div(notice("Choose a prompt to read what was thought and answered."), className="empty")]
    try:
        prompt, outputs = rows.prompt(view.source, view.state.prompt), _outputs(view)
    except TableProblem as problem:
        return [notice(str(problem))]
    hidden = is_harmful(prompt["harmful"]) and not view.state.shown
    left, right = _two(view, outputs)
    shown = [output for output in (left, right) if output is not None]
    layer = _layer(view, shown)
    texts = {output.name: _tokens(view, output, layer) for output in shown}
    read = [tokens for tokens in texts.values() if isinstance(tokens, pd.DataFrame)]
    full = scale_of(pd.concat(read)) if read else 0.0
    return [
        _asked(view, prompt, hidden),
        html.Div(_controls(view, outputs, left, right, layer), className="controls", id=f"reader-controls-{view.index}"),
        *([_shown(legend(-full, full), "tl-reader scale", **says(aria_label="Scale of the colours"))] if read else []),
        html.Div([_output(output, texts[output.name], full, hidden) for output in shown], className="sides", id=f"sides-{view.index}"),
    ]


def _asked(view: View, prompt: pd.Series, hidden: bool) -> Component:
    harmful = prompt["harmful"]
    label = "not labelled" if harmful is None or pd.isna(harmful) else "harmful" if harmful else "benign"
    about = [badge(str(prompt[name])) for name in ("category", "attack", "benchmark", "split") if prompt[name]]
    pictures = [_picture(view, index, hidden) for index in range(len(prompt["images"]))]
    return html.Section(
        [
            html.H3(str(prompt["prompt_id"])),
            html.P([badge(label, label.replace(" ", "-")), *about], className="badges"),
            veiled(html.P(str(prompt["text"]), className="prompt"), hidden=hidden, what="prompt", block=True),
            *([html.Div(pictures, className="pictures")] if pictures else []),
        ],
        className="asked",
        id=f"asked-{view.index}",
        **says(aria_label="Prompt"),
    )


def _picture(view: View, index: int, hidden: bool) -> Component:
    asked = urlencode({"run": view.index, "prompt": view.state.prompt, "index": index})
    alt = "" if hidden else f"picture {index + 1} of the prompt"
    return veiled(html.Img(src=f"/picture?{asked}", alt=alt), hidden=hidden, what="picture", block=True)


def _outputs(view: View) -> list[Output]:
    answers = rows.answers(view.source, view.state.prompt)
    try:
        read = rows.readable(view.source, view.state.prompt)
    except TableProblem:  # said under the outputs
        read = pd.DataFrame(columns=["model", "condition", "layer"])
    found = []
    for _, row in answers.iterrows():
        mine = read[(read["model"] == row["model"]) & (read["condition"] == row["condition"])]
        found.append(Output(name_of(row["model"], row["condition"]), row, tuple(int(layer) for layer in mine["layer"])))
    models = theme.ordered([str(output.row["model"]) for output in found])
    return sorted(found, key=lambda output: models.index(str(output.row["model"])))


def _two(view: View, outputs: Sequence[Output]) -> tuple[Output | None, Output | None]:
    """Those the URL names; else what the reasoning model wrote unsteered, and beside it steered."""
    named = {output.name: output for output in outputs}
    state = view.state
    wished = [view.address.left, name_of(state.model, state.condition or "unsteered"), "reasoning", *named]
    left = next((named[name] for name in wished if name in named), None)
    if left is None:
        return None, None
    model = left.row["model"]
    beside = [view.address.right, f"{model} @ steered", str(model), "safe", *named]
    return left, next((named[name] for name in beside if name in named and name != left.name), None)


def _layer(view: View, shown: Sequence[Output]) -> int | None:
    """The layer that is asked for, else the nearest that was read; the deepest where none is asked for."""
    layers = sorted({layer for output in shown for layer in output.layers})
    if not layers:
        return None
    asked = view.state.layer
    return layers[-1] if asked is None else min(layers, key=lambda layer: abs(layer - asked))


def _controls(view: View, outputs: Sequence[Output], left: Output | None, right: Output | None, layer: int | None) -> list[Component]:
    """Which two outputs, and the layer; each run has its own, as it may have other outputs."""
    if left is None:
        return []
    of = f"reader-{view.index}"
    found = [chooser("left", "Left", [(one.name, one.name) for one in outputs if one is not right], left.name, of=of)]
    if right is not None:
        found.append(chooser("right", "Right", [(one.name, one.name) for one in outputs if one is not left], right.name, of=of))
    layers = sorted({one for output in (left, right) if output is not None for one in output.layers})
    return [*found, slider("layer", "Layer", layers, layer, of=of)] if layer is not None else found


def _tokens(view: View, output: Output, layer: int | None) -> pd.DataFrame | str:
    """The scored tokens of an output, or why there are none."""
    if layer is None or not output.layers:
        return UNREAD
    row = output.row
    try:
        return rows.tokens(view.source, str(row["prompt_id"]), str(row["model"]), str(row["condition"]), layer)
    except TableProblem as problem:
        return str(problem)


def _shown(spans: Sequence[TokenSpan], css_class: str, **told: Any) -> Component:
    """Tokens, put in as elements whose text is text (assets/apply.js): for Dash one token is as much work as hundreds for a browser.

    White space stands between them, outside their colour.
    """
    tokens = json.dumps([[one.before, one.word, one.css_class, one.title] for one in spans])
    return html.Div(className=css_class, **told, **says(data_tokens=tokens))


def _output(output: Output, tokens: pd.DataFrame | str, full: float, hidden: bool) -> Component:
    row = output.row
    if isinstance(tokens, str):
        text: list[Component] = [notice(tokens), *_plain(row, hidden)]
    else:
        spans = token_spans(tokens, low=-full, high=full)
        writer = tokens.attrs.get("written_by", row["model"])
        read = veiled(_shown(spans, "tl-reader"), hidden=hidden, what="thought and answer", block=True)
        if writer == row["model"]:
            text = [read, *_beyond(row, spans, hidden)]
        else:  # the verdicts above are on its own words, so those come first
            text = [*_plain(row, hidden), html.H5(f"What {row['model']} reads in the words of {writer}"), read]
    head = html.Div([html.H4(output.name), badge(str(row["verdict"]), str(row["verdict"]))], className="who")
    verdicts = html.Dl([html.Div([html.Dt(name), html.Dd(value)]) for name, value in _verdicts(row)])
    return html.Article([head, verdicts, *text], className="side", **says(aria_label=f"Output of {output.name}"))


def _beyond(row: pd.Series, spans: Sequence[TokenSpan], hidden: bool) -> list[Component]:
    """The answer as it was written, where not all of its tokens were read."""
    read = "".join(span.text for span in spans if span.kind == "answer")
    whole = "".join(str(row["answer"] or "").split()) in "".join(read.split())
    return [] if whole else _plain(row, hidden, ("answer",))


def _plain(row: pd.Series, hidden: bool, channels: Sequence[str] = ("thought", "answer")) -> list[Component]:
    """Thought and answer as they were written."""
    found: list[Component] = []
    for channel in channels:
        written = str(row[channel] or "")
        text = (
            veiled(html.P(written, className="written"), hidden=hidden, what=channel, block=True)
            if written
            else html.P("none", className="note")
        )
        found += [html.H5(channel.capitalize()), text]
    return found


def _verdicts(row: pd.Series) -> list[tuple[str, str]]:
    told = {
        "judge": row["judge"],
        "harm of the answer": _rating(row["answer_rating"]),
        "of the thought": _rating(row["thought_rating"]),
        "refusal": row["refusal"],
        "thought": row["status"],
        "tokens": f"{row['n_tokens']:.0f}",
        "steered": f"{row['fired']:.0f}" if row["fired"] else "",
    }
    return [(name, str(value)) for name, value in told.items() if not _missing(value) and value != ""]


def _rating(value: Any) -> str:
    return "" if _missing(value) else f"{float(value):g} of 5"


def _missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))


def is_harmful(value: Any) -> bool:
    """What nobody labelled as harmless is hidden, too."""
    return _missing(value) or bool(value)


def name_of(model: object, condition: object) -> str:
    """reasoning, or reasoning @ steered: as figures call it."""
    return str(model) if condition == "unsteered" else f"{model} @ {condition}"
