"""Where the app listens: at this machine alone, at a port that is free, and what it says where it cannot."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from thoughtlens.viz.app import Runs, serve, serving


def test_an_address_that_others_reach_must_be_allowed(made):
    with pytest.raises(ValueError, match=r"0\.0\.0\.0 can be reached from other machines.*--allow-remote"):
        serving.bound(Runs([made]), host="0.0.0.0", port=0)
    serving.bound(Runs([made]), host="0.0.0.0", port=0, allow_remote=True).server_close()


def test_a_taken_port_is_told_with_the_next_free_one(made):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"port {port} of 127\.0\.0\.1 is taken; pass --port \d+") as told:
            serving.bound(Runs([made]), host="127.0.0.1", port=port)
    other = int(str(told.value).split("--port ")[1].split()[0])
    assert port < other < port + serving.LOOKED_AT


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nothing. `thoughtlens demo` makes a run folder\.; .* is no run folder: it has no tables/"
    ):
        serving.bound(Runs([tmp_path / "nothing", tmp_path]), host="127.0.0.1", port=0)


def test_serve_prints_the_address_opens_it_and_stops_when_interrupted(made, monkeypatch, capsys):
    opened, looked = threading.Event(), []

    def look(address: str) -> None:
        looked.append((address, urllib.request.urlopen(address, timeout=10).status))
        opened.set()

    def until_opened(columns, asked) -> None:
        assert opened.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(serving.webbrowser, "open", look)
    monkeypatch.setattr("thoughtlens.viz.app.ahead.draw_ahead", until_opened)
    serve(Runs([made]), port=0)
    address, status = looked[0]
    assert status == 200 and address in capsys.readouterr().out
    with pytest.raises(OSError):
        urllib.request.urlopen(address, timeout=10)


def test_what_is_wrong_with_a_run_ends_the_app(made, monkeypatch):
    def prepare(run: Path) -> None:
        raise ValueError(f"{run.name}: line 3 is no JSON")

    monkeypatch.setattr(serving.webbrowser, "open", lambda address: None)
    with pytest.raises(ValueError, match="made: line 3 is no JSON"):
        serve(Runs([made], prepare), port=0)


def test_the_page_is_served_before_anything_that_reads_or_draws_is_imported():
    code = "import sys, thoughtlens.viz.app; print({'pandas', 'duckdb', 'pyarrow', 'thoughtlens.viz.figures'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_pictures_are_served_by_number_and_told_where_they_are_not(address, made):
    def asked(query: str) -> tuple[int, str, bytes]:
        try:
            answer = urllib.request.urlopen(f"{address}picture?{query}", timeout=10)
        except HTTPError as error:
            answer = error
        return answer.status, answer.headers["Content-Type"], answer.read()

    status, kind, content = asked("run=0&prompt=made%2F000002&index=0")
    assert (status, kind) == (200, "image/png") and content in {path.read_bytes() for path in Path(made / "images").iterdir()}
    for query in ("run=0&prompt=made%2F000002&index=7", "run=9&prompt=made%2F000002&index=0", "run=0&prompt=..%2F..&index=0", "run=x", ""):
        status, kind, content = asked(query)
        assert status == 404 and kind.startswith("text/plain") and content
