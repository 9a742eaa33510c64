"""What the served page may do, and who may ask for it.

The page fetches nothing from elsewhere and runs no script but Dash's own, this folder's, and the one line that starts them (by its sha256),
so text out of a run cannot become code even where it were to slip through unescaped. A name that some other site lets point to this
machine (DNS rebinding) is refused: only the served host, a loopback name, or, where strangers may connect, a plain address gets an answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from dash import Dash
from flask import Response, abort, request

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_SENT = 2**20  # bytes of a request
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def secure(app: Dash, host: str) -> None:
    """Sets the headers of every answer and refuses (403) what was not sent to `host`. Call it when every callback is there."""
    policy = content_policy(app.csp_hashes())

    def refuse_strangers() -> None:
        if not welcome(request.host, host):
            abort(403, "This page is served to the machine it runs on; ask for it by the address that thoughtlens printed.")

    def say_what_is_allowed(response: Response) -> Response:
        response.headers.update({**HEADERS, "Content-Security-Policy": policy})
        return response

    app.server.before_request(refuse_strangers)
    app.server.after_request(say_what_is_allowed)
    app.server.config["MAX_CONTENT_LENGTH"] = MOST_SENT


def content_policy(hashes: Sequence[str]) -> str:
    """Styles may stand in the page: Dash's components and plotly write them there."""
    rules = {
        "default-src": "'self'",
        "script-src": " ".join(["'self'", *hashes]),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        **dict.fromkeys(("object-src", "base-uri", "form-action", "frame-ancestors"), "'none'"),
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def welcome(asked: str, host: str) -> bool:
    """Whether a request with this Host header may be answered by an app served at `host`."""
    try:
        name = urlsplit(f"//{asked}").hostname or ""
    except ValueError:
        return False
    if name in LOOPBACK or name == host.lower():
        return True
    return not is_loopback(host) and _is_address(name)


def is_loopback(host: str) -> bool:
    return host.lower() in LOOPBACK or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
