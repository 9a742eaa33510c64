"""What made these numbers, which tables there are, and what makes the others."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet as pq
from dash import html
from dash.development.base_component import Component

from ...report import flat
from ...tables import COLUMNS, MADE_BY
from ..pieces import Children, facts, heading, notice
from ..views import View


def content(view: View) -> list[Component]:
    return [
        heading("What made these numbers", "Versions, seeds, hashes and commands, as the run wrote them down."),
        _provenance(view),
        heading("Tables", "What the figures are drawn from. A table that is not there is made by the command beside it."),
        html.Div(facts([(name, _told(view, name)) for name in COLUMNS], head=("table", "rows")), className="sheet"),
    ]


def _provenance(view: View) -> Component:
    path = view.source.run / "provenance.json"
    if not path.is_file():
        return notice("This run has no provenance.json, so versions, seeds and hashes are unknown.")
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return notice("provenance.json is damaged and cannot be read.")
    return html.Div(facts(list(flat(written))), className="sheet")


def _told(view: View, name: str) -> Children:
    """Rows, or why there are none."""
    path = view.source.run / "tables" / f"{name}.parquet"
    makes: list[Component | str] = [" · ", html.Code(MADE_BY[name]), " makes it"]
    if not path.is_file():
        return [html.Span("not there", className="absent"), *makes]
    try:
        with pq.ParquetFile(path) as file:
            count = file.metadata.num_rows
    except (pyarrow.ArrowException, OSError):
        return [html.Span("damaged", className="absent"), ": delete it", *makes]
    return f"{count:,}" if count else ["0", *makes]
