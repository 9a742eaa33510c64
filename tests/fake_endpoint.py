"""A chat endpoint on 127.0.0.1 that does what it is told, well or badly.

    with fake(BUSY, says("hello")) as server:          one answer a request, in the order they arrive; the last one stays
        endpoint = server.endpoint(retries=2)
    with fake(lambda body: says(question(body))) …     or by what is asked

An answer is a status, headers and a body, and how they are sent: after a wait, or not to the end.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from thoughtlens.experiments.audit.endpoint import Endpoint

Body = dict[str, Any]
FOREVER = 60.0  # longer than any test may take


@dataclass(frozen=True)
class Answer:
    """wait: seconds before anything is sent, or until the server closes; missing: bytes that Content-Length promises and nobody sends."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    missing: int = 0


Script = Answer | Callable[[Body], Answer]


def says(text: str | None, *, reasoning: str | None = None, field_name: str = "reasoning_content", finish: str | None = "stop", spent: tuple[int, int] = (7, 3)) -> Answer:  # fmt: skip
    """A proper reply."""
    message = {"role": "assistant", "content": text, **({} if reasoning is None else {field_name: reasoning})}
    usage = {"prompt_tokens": spent[0], "completion_tokens": spent[1]}
    return sends({"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage})


def sends(value: Any, **options: Any) -> Answer:
    return Answer(json.dumps(value).encode(), **options)


def limited(after: str) -> Answer:
    return sends({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": after})


BUSY = sends({"error": {"message": "too many"}}, status=429)
BROKEN = Answer(b"<html>oh dear</html>", status=500)
HANGS = Answer(wait=FOREVER)
DROPS = Answer(b'{"choices": [', missing=100)
GARBAGE = Answer(b"\xff\xfe not json at all")
STREAMS = Answer(b'data: {"choices": [{"delta": {"content": "he"}}]}\n\ndata: [DONE]\n\n', headers={"Content-Type": "text/event-stream"})
EMPTY = sends({"choices": []})
HUGE = says("x" * 3_000)  # for an endpoint with max_bytes=1_000


def question(body: Body) -> str:
    """The text of the last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


@dataclass
class Server:
    """asked: the bodies it got; headers: theirs; most: requests under way at once, at most."""

    url: str
    asked: list[Body] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    most: int = 0

    def endpoint(self, **options: Any) -> Endpoint:
        """An endpoint that waits next to nothing."""
        return Endpoint(self.url, "wug-1", **{"timeout": 5.0, "retries": 0, "backoff": 0.001, "longest_wait": 0.01, **options})


@contextmanager
def fake(*script: Script) -> Iterator[Server]:
    lock, closing, under_way = threading.Lock(), threading.Event(), set[object]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else every reply waits 40 ms for an acknowledgement

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                turn = script[min(len(server.asked), len(script) - 1)]
                server.asked.append(body)
                server.headers.append(dict(self.headers.items()))
                under_way.add(self)
                server.most = max(server.most, len(under_way))
            answer = turn if isinstance(turn, Answer) else turn(body)
            closing.wait(answer.wait)
            with lock:
                under_way.discard(self)
            try:
                self.send_response(answer.status if self.path == "/v1/chat/completions" else 404)
                for name, value in {**answer.headers, "Content-Length": str(len(answer.body) + answer.missing)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
            except OSError:
                pass  # the client has gone
            self.close_connection = answer.missing > 0

        def log_message(self, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads, block_on_close = True, False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that has gone

    http = Quiet(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
    threading.Thread(target=http.serve_forever, args=(0.005,), daemon=True).start()
    try:
        yield server
    finally:
        closing.set()
        http.shutdown()
        http.server_close()
