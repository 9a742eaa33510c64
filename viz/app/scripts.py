"""plotly.js of the page, kept by the browser for as long as it is the same (the address names its time)."""

from __future__ import annotations

from dash import Dash
from flask import Response, send_file

from ..plotlyjs import PATH

ADDRESS = f"/plotly.js?m={PATH.stat().st_mtime_ns}"
YEAR = 365 * 24 * 3600


def serve_scripts(app: Dash) -> None:
    def plotlyjs() -> Response:
        return send_file(PATH, mimetype="text/javascript", max_age=YEAR)

    app.server.add_url_rule("/plotly.js", view_func=plotlyjs)
