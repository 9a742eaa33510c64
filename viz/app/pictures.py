"""The pictures of prompts, by number and never by path: /picture?run=0&prompt=ID&index=0."""

from __future__ import annotations

from dash import Dash
from flask import Response, request

from .runs import Runs


def serve_pictures(app: Dash, runs: Runs) -> None:
    """404 with a sentence for what is not there."""

    def picture() -> Response:
        from ..tables import TableProblem  # imported while the page loads (runs.py)
        from . import source as rows

        columns = runs.columns()
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
