"""`thoughtlens view`: the app at an address of this machine, until it is interrupted."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import webbrowser
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from .making import make_app
from .runs import Runs
from .security import is_loopback

SWITCH = 0.001  # seconds after which a thread that reads or draws lets another answer
LOOKED_AT = 20  # ports after one that is taken


class Quiet(WSGIRequestHandler):
    """Answers without a line for every request."""

    def log_request(self, *args: Any, **kwargs: Any) -> None:
        pass


def serve(runs: Runs, *, host: str = "127.0.0.1", port: int = 8050, open_browser: bool = True, allow_remote: bool = False) -> None:
    """Shows the runs until Ctrl-C. ValueError for an address that others reach, unless it is allowed; OSError for a port that is taken;
    what is wrong with the runs, as `Runs.columns` finds it.

    The server answers at once, and while a browser fetches its scripts the runs are opened and the first figures drawn.
    """
    server = bound(runs, host=host, port=port, allow_remote=allow_remote)
    address = url(host, server.server_address[1])
    print(f"{', '.join(runs.names)} at {address} (Ctrl-C to stop)", flush=True)
    sys.setswitchinterval(SWITCH)
    answering = threading.Thread(target=server.serve_forever, daemon=True)
    answering.start()
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        columns = runs.columns()
        from .ahead import draw_ahead, step_ahead  # imported while the page loads (runs.py)

        draw_ahead(columns, runs.asked)
        step_ahead(columns, runs.asked)
    except KeyboardInterrupt:
        pass
    finally:
        server.shutdown()
        server.server_close()


def bound(runs: Runs, *, host: str, port: int, allow_remote: bool = False) -> BaseWSGIServer:
    """A server that listens and answers as soon as `serve_forever` is called. Port 0 takes any that is free."""
    if not allow_remote and not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from other machines, and a run may hold harmful text. Serve at 127.0.0.1 and forward the port "
            f"(ssh -L {port}:127.0.0.1:{port}), or pass --allow-remote."
        )
    app = make_app(runs, host=host)
    listening = _listen(host, port)
    try:
        return make_server(host, port, app.server, threaded=True, request_handler=Quiet, fd=listening.fileno())
    finally:
        listening.close()  # the server has a copy of its own


def _listen(host: str, port: int) -> socket.socket:
    try:
        return _open(host, port)
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE:
            raise OSError(problem.errno, f"cannot serve at {url(host, port)}: {problem.strerror}") from problem
    free = next((other for other in range(port + 1, min(port + LOOKED_AT, 65_536)) if _is_free(host, other)), 0)
    raise OSError(errno.EADDRINUSE, f"port {port} of {host} is taken; pass --port {free}" + ("" if free else " for any that is free"))


def _open(host: str, port: int) -> socket.socket:
    found = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    found.set_inheritable(True)
    return found


def _is_free(host: str, port: int) -> bool:
    try:
        _open(host, port).close()
    except OSError:
        return False
    return True


def url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
