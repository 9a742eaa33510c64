"""The pictures of prompts, by number and never by path: /picture?run=0&prompt=ID&index=0."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dash import Dash
from flask import Response, request

from ..tables import TableProblem
from . import source as rows
from .columns import Column

LOG = logging.getLogger(__name__)


def serve_pictures(app: Dash, columns: Sequence[Column]) -> None:
    """404 with a sentence for what is not there."""

    def picture() -> Response:
        run, index = (request.args.get(name, type=int) for name in ("run", "index"))
        if run is None or index is None or not 0 <= run < len(columns):
            return _absent("no such run or picture")
        source = columns[run].source
        if source is None:
            return _absent(columns[run].problem)
        try:
            content, kind = rows.picture(source, request.args.get("prompt", ""), index)
        except TableProblem as problem:
            return _absent(str(problem))
        return Response(content, mimetype=kind, headers={"Cache-Control": "private, max-age=60"})

    app.server.add_url_rule("/picture", view_func=picture)


def _absent(why: str) -> Response:
    return Response(why, status=404, mimetype="text/plain")
