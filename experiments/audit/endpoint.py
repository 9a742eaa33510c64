"""An endpoint that speaks the OpenAI chat protocol (vLLM, SGLang, llama.cpp, hosted ones), what it replies, and what that costs.

    parse_endpoint("qwen3-vl@http://127.0.0.1:8000/v1")

A key is never a field: it stands in a file, or in an environment variable that the user names. chatting.py does the asking.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

LIMITS = {
    "timeout": (0.01, 86_400),
    "retries": (0, 20),
    "backoff": (0, 3_600),
    "longest_wait": (0, 3_600),
    "concurrency": (1, 256),
    "give_up": (1, 1_000_000),
    "max_bytes": (1_000, 2**30),
}


class EndpointError(RuntimeError):
    """A request that got no reply. down: it looks as if no other would get one either (no connection, key refused, server errors)."""

    def __init__(self, message: str, *, down: bool = False) -> None:
        super().__init__(message)
        self.down = down


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers, and how patiently it is asked.

    url            up to and without /chat/completions: http://127.0.0.1:8000/v1
    key_file, key_env   a file that holds the key, or the name of an environment variable that does; at most one
    timeout        seconds a request may take
    retries        further tries of a request; backoff: seconds before the second; longest_wait: seconds before any
    concurrency    requests under way at once
    give_up        so many requests lost in a row, as by a server that is down, and the rest is not sent
    max_bytes      of a reply
    extra          further fields of every request, over those made here; None leaves one out: {"chat_template_kwargs": {"enable_thinking":
                   False}}, {"max_tokens": None, "max_completion_tokens": 512}
    """

    url: str
    model: str
    key_file: Path | None = None
    key_env: str | None = None
    timeout: float = 300.0
    retries: int = 5
    backoff: float = 1.0
    longest_wait: float = 60.0
    concurrency: int = 8
    give_up: int = 20
    max_bytes: int = 2**24
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/").removesuffix("/chat/completions"))
        _check_url(self.url)
        if not self.model.strip():
            raise ValueError(f"the endpoint {self.url} needs the name of a model, as its /models lists them")
        for name, (least, most) in LIMITS.items():
            if not least <= (given := getattr(self, name)) <= most:
                raise ValueError(f"{name} of an endpoint lies between {least:g} and {most:g}, got {given}")
        key_of(self)

    def __str__(self) -> str:
        return f"{self.model} at {self.url}"


@dataclass(frozen=True)
class Reply:
    """What came back.

    reasoning            the thought, where the server parts it from the text (reasoning_content, or reasoning); else empty
    finished             the model ended by itself: not cut off by max_tokens, a filter or an abort
    tokens_in, tokens_out   as the server counts them; 0 where it does not
    """

    text: str
    reasoning: str = ""
    finished: bool = True
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass
class Cost:
    """What was spent: requests that got a reply, requests that got none, replies that were already there, tokens."""

    calls: int = 0
    failed: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def count(self, result: Reply | EndpointError) -> None:
        if isinstance(result, EndpointError):
            self.failed += 1
            return
        self.calls += 1
        self.tokens_in += result.tokens_in
        self.tokens_out += result.tokens_out

    def __str__(self) -> str:
        return (
            f"{self.calls:,} calls ({self.failed:,} failed, {self.cached:,} known before), "
            f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out"
        )


def parse_endpoint(spec: str, **options: Any) -> Endpoint:
    """An endpoint from MODEL@URL; options are its other fields."""
    found = re.fullmatch(r"(.+)@(https?://.+)", spec.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"an endpoint is MODEL@URL, as in qwen3-vl@http://127.0.0.1:8000/v1; got {spec!r}")
    return Endpoint(found[2], found[1], **options)


def key_of(endpoint: Endpoint) -> str | None:
    """The key; None where neither place is named. ValueError, FileNotFoundError: it is not there, or is none."""
    if endpoint.key_file is not None and endpoint.key_env is not None:
        raise ValueError(f"the key of {endpoint} is in a file or in an environment variable; got both key_file and key_env")
    if endpoint.key_file is not None:
        if not Path(endpoint.key_file).is_file():
            raise FileNotFoundError(f"there is no key file {endpoint.key_file}; write the key of {endpoint} into it, alone")
        key, where = Path(endpoint.key_file).read_text(encoding="utf-8").strip(), f"the file {endpoint.key_file}"
    elif endpoint.key_env is not None:
        key, where = os.environ.get(endpoint.key_env, "").strip(), f"the environment variable {endpoint.key_env}"
    else:
        return None
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError(f"{where} holds no key: one word of printable ASCII. Put the key of {endpoint} there, alone")
    return key


def _check_url(url: str) -> None:
    if re.search("//[^/]*@", url):
        raise ValueError("the URL of an endpoint holds a user or a password; put the key into a file and pass key_file")
    try:
        parts = httpx.URL(url)
        whole = parts.scheme in ("http", "https") and parts.host and not parts.query and not parts.fragment
    except httpx.InvalidURL:
        whole = False
    if not whole or " " in url:
        raise ValueError(f"the URL of an endpoint is http:// or https://, a host and a path, as in http://127.0.0.1:8000/v1; got {url!r}")
