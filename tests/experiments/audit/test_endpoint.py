"""Asking an endpoint: what is tried again and what is not, every bound, every broken reply, and stopping in the middle."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from fake_endpoint import (
    BROKEN,
    BUSY,
    DROPS,
    EMPTY,
    FOREVER,
    GARBAGE,
    HANGS,
    HUGE,
    STREAMS,
    Answer,
    fake,
    limited,
    question,
    says,
    sends,
)
from thoughtlens.experiments.audit import chatting
from thoughtlens.experiments.audit.chatting import chat, chats
from thoughtlens.experiments.audit.endpoint import Cost, Endpoint, EndpointError, Reply, parse_endpoint

NESTED = Answer(b"[" * 100_000)
HELLO = [{"role": "user", "content": "florp the wug"}]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def waits(endpoint: Endpoint) -> list[float]:
    """The seconds that are waited between tries; nobody waits."""

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            told.append(timeout or 0.0)
            return False

    told: list[float] = []
    with chatting._client(endpoint) as http, suppress(EndpointError):
        chatting._tried(endpoint, chatting.body_of(endpoint, HELLO, 9), http, Stop())
    return told


def test_what_is_sent_and_what_comes_back() -> None:
    with fake(says("hi", reasoning="hm", spent=(11, 5))) as server:
        endpoint = server.endpoint(extra={"top_k": 1, "temperature": None})
        assert chat(endpoint, HELLO, max_tokens=9, seed=3) == Reply("hi", "hm", True, 11, 5)
        assert server.asked == [{"model": "wug-1", "messages": HELLO, "max_tokens": 9, "seed": 3, "top_k": 1}]
        assert "Authorization" not in server.headers[0]
    with fake(says("hi")) as server:
        chat(server.endpoint(), HELLO, max_tokens=9)
        assert server.asked == [{"model": "wug-1", "messages": HELLO, "max_tokens": 9, "temperature": 0.0}]


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (says(None), Reply("", tokens_in=7, tokens_out=3)),
        (says("a", reasoning="b", field_name="reasoning"), Reply("a", "b", True, 7, 3)),
        (says(None, reasoning="b", finish="length"), Reply("", "b", False, 7, 3)),
        (says("a", finish="length"), Reply("a", "", False, 7, 3)),
        (says("a", finish="content_filter"), Reply("a", "", False, 7, 3)),
        (says("a", finish=None), Reply("a", "", True, 7, 3)),
        (sends({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": None}), Reply("a")),
        (sends({"choices": [{"message": {"content": None, "refusal": "no"}}]}), Reply("no")),
        (sends({"choices": [{"message": {"content": "half \ud800 a pair, \U0001f600"}}]}), Reply("half \ufffd a pair, \U0001f600")),
    ],
)
def test_replies_are_read(answer: Answer, reply: Reply) -> None:
    with fake(answer) as server:
        assert chat(server.endpoint(), HELLO, max_tokens=9) == reply


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (BUSY, "HTTP 429: .*too many"),
        (BROKEN, "HTTP 500: '<html>oh dear</html>'"),
        (Answer(status=503), "HTTP 503"),
        (HANGS, "ReadTimeout"),
        (DROPS, "RemoteProtocolError"),
        (GARBAGE, "no JSON: .*not json at all"),
        (STREAMS, "no JSON: .*data: "),
        (EMPTY, r"without a message: .*choices"),
        (sends({"error": "busy"}), "without a message: .*busy"),
        (sends([1]), "without a message"),
        (sends({"choices": [{"message": "hi"}]}), "without a message"),
        (sends({"choices": [{"message": {"content": ["hi"]}}]}), "is no text"),
        (HUGE, "more than 1,000 bytes"),
        (NESTED, "no JSON"),
    ],
)
def test_what_may_pass_is_tried_again_and_no_oftener_than_asked(bad: Answer, why: str) -> None:
    patient = {"max_bytes": 10**6 if bad is NESTED else 1_000, "timeout": 0.2 if bad is HANGS else 5.0}
    with fake(bad, bad, says("hi")) as server:
        assert chat(server.endpoint(retries=2, **patient), HELLO, max_tokens=9).text == "hi"
        assert len(server.asked) == 3
    with fake(bad) as server:
        with pytest.raises(EndpointError, match=rf"(?s)wug-1 at {server.url}: .*{why}.*\(tried 2 times\)"):
            chat(server.endpoint(retries=1, **patient), HELLO, max_tokens=9)
        assert len(server.asked) == 2


def test_nobody_there_is_an_error_too() -> None:
    with fake(says("hi")) as server:
        gone = server.endpoint(retries=1)
    with pytest.raises(EndpointError, match="ConnectError") as raised:
        chat(gone, HELLO, max_tokens=9)
    assert raised.value.down


@pytest.mark.parametrize(
    ("status", "down", "advice"),
    [(400, False, ""), (401, True, "Check the key"), (404, True, "Check the URL"), (422, False, ""), (302, False, "")],
)
def test_other_statuses_are_final(status: int, down: bool, advice: str) -> None:
    with fake(Answer(b"no " * 5_000, status=status), says("hi")) as server:
        with pytest.raises(EndpointError, match=f"HTTP {status}: 'no no.*{advice}") as raised:
            chat(server.endpoint(retries=5, max_bytes=5_000), HELLO, max_tokens=9)
        assert (len(server.asked), raised.value.down) == (1, down) and len(str(raised.value)) < 400


def test_a_body_that_drips_is_cut_off_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1_000, 4))
    monkeypatch.setattr(chatting, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with fake(says("x" * 900_000)) as server, pytest.raises(EndpointError, match="still arriving after 5 s"):
        chat(server.endpoint(), HELLO, max_tokens=9)


def test_waits_double_within_bounds() -> None:
    with fake(BROKEN) as server:
        told = waits(server.endpoint(retries=6, backoff=1, longest_wait=10))
    due = [1, 2, 4, 8, 16, 32]
    assert len(told) == 6 and all(min(whole / 2, 10) <= wait <= min(whole, 10) for wait, whole in zip(told, due, strict=True))
    assert len({wait / whole for wait, whole in zip(told, due, strict=True)}) > 3  # drawn, not set


@pytest.mark.parametrize("answer", [limited("7"), dataclasses.replace(BROKEN, headers={"Retry-After": " 7.0 "}), None])
def test_retry_after_is_honoured_within_bounds(answer: Answer | None) -> None:
    dated = limited(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    for longest, least, most in ((60, 7, 30), (3, 3, 3)):
        with fake(answer or dated, says("hi")) as server:
            (waited,) = waits(server.endpoint(retries=1, backoff=0.001, longest_wait=longest))
        assert least <= waited <= most and (answer is None or waited == min(7, longest))


@pytest.mark.parametrize("header", ["", "soon", "-3", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 -0000", "nan"])
def test_a_retry_after_that_says_nothing_is_none(header: str) -> None:
    assert chatting._after(header) == 0


def test_many_are_asked_at_once_and_each_comes_back_under_its_number() -> None:
    def answer(body: dict[str, object]) -> Answer:
        text = question(body)
        return Answer(b"{}", status=400) if text == "5" else dataclasses.replace(says(text), wait=0.02)

    cost = Cost()
    with fake(answer) as server:
        found = dict(chats(server.endpoint(concurrency=4), [str(i) for i in range(20)], user, max_tokens=9))
    assert sorted(found) == list(range(20)) and server.most == 4 and len(server.asked) == 20
    assert {i: result.text for i, result in found.items() if isinstance(result, Reply)} == {i: str(i) for i in range(20) if i != 5}
    for result in found.values():
        cost.count(result)
    assert cost == Cost(19, 1, 0, 19 * 7, 19 * 3)
    assert str(cost) == "19 calls (1 failed, 0 known before), 133 tokens in, 57 out"


def test_a_slow_request_holds_up_nothing_but_itself() -> None:
    with fake(lambda body: dataclasses.replace(says(question(body)), wait=FOREVER if question(body) == "0" else 0.0)) as server:
        found = chats(server.endpoint(concurrency=2), list("0123"), user, max_tokens=9)
        assert [next(found)[0] for _ in range(3)] == [1, 2, 3]
        found.close()
    assert list(chats(server.endpoint(), [], user, max_tokens=9)) == []


def test_an_item_that_cannot_be_written_is_lost_alone_and_a_mistake_is_raised() -> None:
    def write(text: str) -> list[dict[str, str]]:
        if text == "b":
            raise EndpointError("its picture is broken")
        return user({}[text] if text == "mistake" else text)

    with fake(says("hi")) as server:
        found = dict(chats(server.endpoint(), ["a", "b"], write, max_tokens=9))
        assert (found[0], str(found[1])) == (Reply("hi", "", True, 7, 3), "its picture is broken")
        with pytest.raises(KeyError):
            list(chats(server.endpoint(), ["mistake"], write, max_tokens=9))


def test_where_nothing_answers_the_rest_is_not_asked() -> None:
    with fake(BROKEN) as server:
        found = dict(chats(server.endpoint(concurrency=1, give_up=3), list("abcdefghi"), user, max_tokens=9))
        assert len(found) == 9 and 3 <= len(server.asked) <= 5
        assert "not asked, since the 3 requests before it all failed. The last: wug-1 at" in str(found[8]) and "HTTP 500" in str(found[8])
    with fake(*[BROKEN, BROKEN, says("hi")] * 2, *[Answer(status=400)] * 6, says("hi")) as server:
        found = dict(chats(server.endpoint(concurrency=1, give_up=3), list("abcdefghijklm"), user, max_tokens=9))
        assert len(server.asked) == 13 and isinstance(
            found[12], Reply
        )  # never three in a row; a refused request says nothing of the server


def test_ctrl_c_gives_what_is_there_and_waits_for_nobody() -> None:
    code = """
        import signal, sys
        from thoughtlens.experiments.audit.chatting import chats
        from thoughtlens.experiments.audit.endpoint import Endpoint
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        endpoint = Endpoint(sys.argv[1], "wug-1", concurrency=4)
        kept = []
        try:
            for index, result in chats(endpoint, list("0123"), lambda text: [{"role": "user", "content": text}], max_tokens=9):
                kept.append(index)
                print(index, flush=True)
        except KeyboardInterrupt:
            print("stopped with", sorted(kept), flush=True)
    """
    with fake(lambda body: dataclasses.replace(says("hi"), wait=FOREVER if question(body) in "13" else 0.0)) as server:
        run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), server.url], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        assert {run.stdout.readline(), run.stdout.readline()} == {"0\n", "2\n"}
        run.send_signal(signal.SIGINT)
        told, _ = run.communicate(timeout=FOREVER / 2)
    assert (told, run.returncode) == ("stopped with [0, 2]\n", 0)


def test_what_finished_before_ctrl_c_and_was_not_yet_taken_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(SimpleQueue):  # type: ignore[type-arg]
        def get(self, *args: object) -> object:
            while self.qsize() < 3:
                time.sleep(0.001)
            raise KeyboardInterrupt

    monkeypatch.setattr(chatting, "SimpleQueue", Interrupted)
    monkeypatch.setattr(Interrupted, "get_nowait", lambda self: SimpleQueue.get(self, block=False))
    kept = []
    with fake(says("hi")) as server, pytest.raises(KeyboardInterrupt):
        for index, _ in chats(server.endpoint(), list("abc"), user, max_tokens=9):
            kept.append(index)
    assert sorted(kept) == [0, 1, 2]


def test_an_endpoint_is_written_model_at_url() -> None:
    assert parse_endpoint("qwen3-vl@http://127.0.0.1:8000/v1") == Endpoint("http://127.0.0.1:8000/v1", "qwen3-vl")
    named = parse_endpoint(" org/a@b@https://host.example/v1/chat/completions/ ", retries=1)
    assert (named.model, named.url, named.retries, str(named)) == (
        "org/a@b",
        "https://host.example/v1",
        1,
        "org/a@b at https://host.example/v1",
    )
    for spec in ("qwen", "@http://h/v1", "qwen@h:8000", "qwen@ftp://h/v1", ""):
        with pytest.raises(ValueError, match="an endpoint is MODEL@URL, as in"):
            parse_endpoint(spec)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/v1",
        "h/v1",
        "http://",
        "http:///v1",
        "http://h:port/v1",
        "http://h/v1?key=a",
        "http://h/v1#a",
        "http://h /v1",
        "http://h\n/v1",
        "",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="the URL of an endpoint is http:// or https://"):
        Endpoint(url, "m")


def test_secrets_do_not_belong_into_urls_and_limits_are_limits() -> None:
    with pytest.raises(ValueError, match="put the key into a file") as raised:
        Endpoint("http://me:florp@h/v1", "m")
    assert "florp" not in str(raised.value)
    for wrong in ({"timeout": 0}, {"retries": -1}, {"retries": 10**6}, {"concurrency": 0}, {"backoff": float("nan")}, {"max_bytes": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} of an endpoint lies between .* got {next(iter(wrong.values()))}"):
            Endpoint("http://h/v1", "m", **wrong)
    with pytest.raises(ValueError, match="needs the name of a model"):
        Endpoint("http://h/v1", " ")


def test_a_key_is_read_from_where_the_user_says_and_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("sk-florp\n")
    monkeypatch.setenv("WUG_KEY", "sk-florp")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    for place in ({"key_file": file}, {"key_env": "WUG_KEY"}):
        with fake(sends({"error": "wrong key sk-florp"}, status=401)) as server:
            endpoint = server.endpoint(**place)
            with pytest.raises(EndpointError, match=r"wrong key \[key\]") as raised:
                chat(endpoint, HELLO, max_tokens=9)
            assert server.headers[0]["Authorization"] == "Bearer sk-florp"
            assert "sk-florp" not in f"{raised.value} {endpoint!r} {dataclasses.asdict(endpoint)}"
    with pytest.raises(ValueError, match="got both"):
        Endpoint("http://h/v1", "m", key_file=file, key_env="WUG_KEY")
    with pytest.raises(FileNotFoundError, match="there is no key file"):
        Endpoint("http://h/v1", "m", key_file=tmp_path / "none")
    with pytest.raises(ValueError, match="the environment variable NO_KEY holds no key"):
        Endpoint("http://h/v1", "m", key_env="NO_KEY")
    file.write_text("two words")
    with pytest.raises(ValueError, match="holds no key: one word"):
        Endpoint("http://h/v1", "m", key_file=file)


def test_no_proxy_is_asked_on_the_way_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with fake(says("hi")) as server:
        assert chat(server.endpoint(), HELLO, max_tokens=9).text == "hi"
