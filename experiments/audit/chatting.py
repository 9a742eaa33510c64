"""Asking a chat endpoint once, or many times at once, patiently and within bounds.

    POST {url}/chat/completions   {"model", "messages", "max_tokens", "temperature", "seed", …}

What may pass is tried again, at most `retries` times: time-outs, broken connections, 429, 5xx, and a body that is no reply (not JSON, an
event stream, no choices, too large). Any other status is final. After try n there is a wait of backoff × 2ⁿ⁻¹ s, drawn between half and
all of it so that many clients do not come back at once (Brooker 2015, "Exponential Backoff and Jitter": equal jitter); Retry-After makes
it longer. No wait is longer than `longest_wait`.
"""

from __future__ import annotations

import functools
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import httpx

from .endpoint import Endpoint, EndpointError, Reply, key_of

Messages = Sequence[Mapping[str, Any]]
Item = TypeVar("Item")

ENDED = (None, "stop", "eos", "eos_token", "end_turn", "stop_sequence")  # some servers name no reason; any other cut the output off
ADVICE = {
    401: " Check the key.",
    403: " Check the key and what it may do.",
    404: " Check the URL (most end in /v1) and the model's name.",
}


def chat(endpoint: Endpoint, messages: Messages, *, max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> Reply:
    """Ask once. Raises EndpointError."""
    with _client(endpoint) as http:
        return _tried(endpoint, body_of(endpoint, messages, max_tokens, temperature, seed), http, threading.Event())


def chats(
    endpoint: Endpoint,
    items: Sequence[Item],
    messages: Callable[[Item], Messages],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int | None = None,
) -> Iterator[tuple[int, Reply | EndpointError]]:
    """Ask for every item, `concurrency` at once. Yields the item's index and what came of it, each as soon as it is there.

    messages    what to send for an item; called when its turn comes, on another thread, so that few pictures are in memory. It may raise
                EndpointError
    Ctrl-C yields what has finished, then goes on as KeyboardInterrupt; nobody waits for requests under way (their threads are daemons,
    which a ThreadPoolExecutor's are not).
    """
    if not items:
        return
    todo: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, Reply | Exception]] = SimpleQueue()
    stop, http = threading.Event(), _client(endpoint)
    for index in range(len(items)):
        todo.put(index)

    def work() -> None:
        for index in _rest(todo):
            if stop.is_set():
                return
            try:
                body = body_of(endpoint, messages(items[index]), max_tokens, temperature, seed)
                done.put((index, _tried(endpoint, body, http, stop)))
            except Exception as error:  # of any kind: it is raised where somebody looks
                done.put((index, error))

    for _ in range(min(endpoint.concurrency, len(items))):
        threading.Thread(target=work, daemon=True).start()
    lost = 0
    try:
        for _ in range(len(items)):
            index, result = done.get()
            if isinstance(result, Exception) and not isinstance(result, EndpointError):
                raise result
            lost = lost + 1 if isinstance(result, EndpointError) and result.down else 0
            if lost == endpoint.give_up:
                why = EndpointError(f"not asked, since the {lost} requests before it all failed. The last: {result}", down=True)
                for unasked in _rest(todo):
                    done.put((unasked, why))
            yield index, result
        http.close()
    except KeyboardInterrupt:
        yield from ((index, result) for index, result in _rest(done) if isinstance(result, Reply | EndpointError))
        raise
    finally:
        stop.set()


def body_of(endpoint: Endpoint, messages: Messages, max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> dict[str, Any]:
    """Everything that is sent but the key."""
    made = {"model": endpoint.model, "messages": messages, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    return {name: value for name, value in {**made, **endpoint.extra}.items() if value is not None}


class _Failed(Exception):
    """One try that got no reply. again: the next may; after: seconds the server asks to wait."""

    def __init__(self, why: str, *, again: bool = True, after: float = 0.0, down: bool = False) -> None:
        super().__init__(why)
        self.again, self.after, self.down = again, after, down


def _tried(endpoint: Endpoint, body: Mapping[str, Any], http: httpx.Client, stop: threading.Event) -> Reply:
    for tries in range(1, endpoint.retries + 2):
        try:
            return _once(endpoint, body, http)
        except _Failed as failed:
            last = failed
        wait = min(endpoint.longest_wait, max(endpoint.backoff * 2 ** (tries - 1) * random.uniform(0.5, 1), last.after))
        if not last.again or tries > endpoint.retries or stop.wait(wait):
            break
    raise EndpointError(f"{endpoint}: {last}" + (f" (tried {tries} times)" if tries > 1 else ""), down=last.down)


def _once(endpoint: Endpoint, body: Mapping[str, Any], http: httpx.Client) -> Reply:
    started, got = time.monotonic(), bytearray()
    try:
        with http.stream("POST", f"{endpoint.url}/chat/completions", json=body) as response:
            status = response.status_code
            for chunk in response.iter_bytes():
                got += chunk
                if status != 200 and len(got) > 1_000:
                    break  # enough of it to tell
                if len(got) > endpoint.max_bytes:
                    raise _Failed(f"a reply of more than {endpoint.max_bytes:,} bytes")
                if time.monotonic() - started > endpoint.timeout:
                    raise _Failed(f"the reply was still arriving after {endpoint.timeout:g} s", down=True)
    except httpx.HTTPError as error:
        raise _Failed(f"{type(error).__name__} {error}".strip(), down=True) from error
    told = _told(bytes(got[:1_000]), http.headers.get("authorization", "").removeprefix("Bearer "))
    if status == 200:
        return _reply(bytes(got), told)
    busy = status == 429 or status >= 500
    why = f"HTTP {status}: {told}{ADVICE.get(status, '')}"
    raise _Failed(why, again=busy, after=_after(response.headers.get("retry-after", "")), down=busy or status in ADVICE)


def _reply(body: bytes, told: str) -> Reply:
    try:
        whole = json.loads(body)
        choice = whole["choices"][0]
        message, usage = choice["message"], whole.get("usage") or {}
        texts = [message.get("content") or message.get("refusal"), message.get("reasoning_content") or message.get("reasoning")]
        finish, spent = choice.get("finish_reason"), [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    except (ValueError, RecursionError) as error:
        raise _Failed(f"a reply that is no JSON: {told}") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise _Failed(f"a reply without a message: {told}") from error
    if not all(text is None or isinstance(text, str) for text in texts):
        raise _Failed(f"a reply whose message is no text: {told}")
    text, reasoning = (re.sub("[\ud800-\udfff]", "\ufffd", one or "") for one in texts)  # half a surrogate pair cannot be written as UTF-8
    tokens_in, tokens_out = (count if isinstance(count, int) else 0 for count in spent)
    return Reply(text, reasoning, finish in ENDED, tokens_in, tokens_out)


def _after(header: str) -> float:
    """Seconds of a Retry-After header: a number, or a date. 0 for what is neither."""
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", header):
        return float(header)
    try:
        return max((parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


def _told(body: bytes, key: str) -> str:
    """The beginning of a body as an error shows it, the key taken out."""
    text = body.decode("utf-8", "replace")
    text = text.replace(key, "[key]") if key else text
    return repr(" ".join(text.split())[:200])


def _client(endpoint: Endpoint) -> httpx.Client:
    key = key_of(endpoint)
    return httpx.Client(
        headers={} if key is None else {"Authorization": f"Bearer {key}"},
        timeout=endpoint.timeout,
        limits=httpx.Limits(max_connections=endpoint.concurrency),
        verify=_certificates(),
        trust_env=httpx.URL(endpoint.url).host not in ("localhost", "127.0.0.1", "::1"),  # no proxy lies before this machine
    )


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes longer than a reply from this machine."""
    return httpx.create_ssl_context()


def _rest(queue: SimpleQueue[Item]) -> Iterator[Item]:
    """What is in a queue now, taken out of it."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return
