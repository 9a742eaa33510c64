"""The Dash app over one or several runs, without a server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from dash import Dash

from .columns import open_columns
from .layout import TITLE, frame, index
from .linking import draw_first, link
from .pictures import serve_pictures
from .security import secure


def make_app(runs: Sequence[Path], *, host: str = "127.0.0.1", early: bool = False) -> Dash:
    """An app that shows the runs beside each other and answers requests for `host` alone.

    early: start to draw the first tab at once, on a thread of its own

    FileNotFoundError where none of them is a run folder; a folder that is none beside others is told in its column.
    """
    columns = open_columns(runs)
    if early:
        threading.Thread(target=draw_first, args=(columns,), daemon=True).start()
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
    app.layout = lambda: frame(columns)
    link(app, columns)
    serve_pictures(app, columns)
    secure(app, host)
    return app
