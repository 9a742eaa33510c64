"""The Dash app over one or several runs, without a server."""

from __future__ import annotations

import logging
from pathlib import Path

from dash import Dash

from .document import TITLE, index
from .layout import frame
from .linking import link
from .pictures import serve_pictures
from .runs import Runs
from .scripts import serve_scripts
from .security import secure


def make_app(runs: Runs, *, host: str = "127.0.0.1") -> Dash:
    """An app that shows the runs beside each other and answers requests for `host` alone."""
    app = Dash(
        "thoughtlens",
        assets_folder=str(Path(__file__).parent / "assets"),
        title=TITLE,
        update_title="",
        index_string=index(TITLE),
        suppress_callback_exceptions=True,
        add_log_handler=False,
        enable_mcp=False,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    app.logger.setLevel(logging.WARNING)
    app.layout = frame(runs.names)
    link(app, runs)
    serve_pictures(app, runs)
    serve_scripts(app)
    app.server.before_request(runs.asked.noticed)
    secure(app, host)
    return app
