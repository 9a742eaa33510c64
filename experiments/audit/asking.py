"""Generation over a chat endpoint: prompts in, transcripts out; a request that failed is noted, and no transcript is made up for it.

Pictures go as data URLs, PNG: upright, 8-bit RGB, as a local model gets them. What comes back is one of two things:

    reasoning and text   a server that parts them itself. Both are joined again with the dialect's markers, which is what the model wrote
                         as far as anyone can tell, and split by the same rules as everything else
    text alone           the thought is still in it, with its markers, or there is none

There are no token ids: prompt_ids and output_ids stay empty.
"""

from __future__ import annotations

import base64
import functools
import io
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...hooks.dialects import DIALECTS, Dialect
from ...hooks.encode import PromptError, open_picture
from ...hooks.plaintext import PlainSplit, split_text
from ...hooks.records import Picture, Prompt, Skipped, Transcript
from .chatting import chats
from .endpoint import Cost, Endpoint, EndpointError, Reply

MAX_PICTURE = 20 * 2**20  # bytes of a PNG; hosted endpoints take about as much

log = logging.getLogger(__name__)


def ask(
    endpoint: Endpoint,
    prompts: Sequence[Prompt],
    *,
    name: str,
    dialect: Dialect | str,
    condition: str = "unsteered",
    max_new_tokens: int = 1024,
    temperature: float = 0.0,
    seed: int | None = None,
    opened: bool = False,
    max_picture: int = MAX_PICTURE,
    cost: Cost | None = None,
    each: Callable[[Transcript | Skipped], None] = lambda one: None,
) -> Iterator[Transcript | Skipped]:
    """Let the model behind an endpoint write an output for each prompt. Yields one for each, in their order.

    name         of the model in transcripts and tables
    opened       the chat template writes the opener itself, and the server leaves the thought in the text: text begins inside the thought.
                 A server that parts them itself needs no opened
    max_picture  bytes of a picture as PNG; a prompt with a larger one is skipped
    cost         counts requests and tokens
    each         called with each as soon as it is there, in whatever order they finish: what it keeps, no Ctrl-C loses
    ValueError: an unknown dialect, or a limit below 1.
    """
    split_text("", dialect)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
    written = functools.partial(transcript_of, name=name, dialect=dialect, condition=condition, opened=opened)
    one_at_a_time = threading.Lock()  # a picture in memory may be that of several prompts

    def messages(prompt: Prompt) -> list[dict[str, Any]]:
        with one_at_a_time:
            try:
                return messages_of(prompt, max_picture)
            except PromptError as error:
                raise EndpointError(str(error)) from error

    def answers() -> Iterator[Transcript | Skipped]:
        arrived: dict[int, Transcript | Skipped] = {}
        following, seen = 0, Counter[str]()
        for index, result in chats(endpoint, prompts, messages, max_tokens=max_new_tokens, temperature=temperature, seed=seed):
            if cost is not None:
                cost.count(result)
            one: Transcript | Skipped
            if isinstance(result, EndpointError):
                one = Skipped(prompts[index].id, None, str(result))
            else:
                one = written(prompts[index], result)
            arrived[index] = one
            each(one)
            if isinstance(one, Transcript):
                seen[one.status if one.ended or one.status != "absent" else "cut off"] += 1
            while following in arrived:
                yield arrived.pop(following)
                following += 1
        warn_unopened(seen, name)

    return answers()


def warn_unopened(seen: Mapping[str, int], name: str) -> None:
    """Say so where thoughts seem to begin in the prompt: some are closed that nobody opened, others cut off without a marker.

    seen   how many outputs have each split status; "cut off": how many without a marker never ended
    """
    if seen.get("close_only") and seen.get("cut off"):
        log.warning(
            "%d outputs of %s close a thought that they never opened, and %d were cut off without any marker: those count as answers, "
            "and are probably thoughts. If the chat template opens the thought, say so: --opened, or opened=True.",
            *(seen["close_only"], name, seen["cut off"]),
        )


def messages_of(prompt: Prompt, max_picture: int = MAX_PICTURE) -> list[dict[str, Any]]:
    """The conversation a prompt stands for. Raises PromptError for a picture that cannot be read, or is too large."""
    shown = [{"type": "image_url", "image_url": {"url": _data_url(prompt.id, picture, max_picture)}} for picture in prompt.images]
    content = [*shown, {"type": "text", "text": prompt.text}] if shown else prompt.text
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    return [*system, {"role": "user", "content": content}]


def transcript_of(
    prompt: Prompt, reply: Reply, *, name: str, dialect: Dialect | str, condition: str = "unsteered", opened: bool = False
) -> Transcript:
    """A reply as a transcript."""
    text, parts = _parted(reply, DIALECTS[dialect] if isinstance(dialect, str) else dialect, opened)
    return Transcript(
        prompt=prompt,
        model=name,
        condition=condition,
        text=text,
        ended=reply.finished,
        status=parts.status,
        thought=parts.thought,
        answer=parts.answer,
    )


def _parted(reply: Reply, dialect: Dialect, opened: bool) -> tuple[str, PlainSplit]:
    """The output with its markers, and its parts."""
    if not reply.reasoning.strip():
        return reply.text, split_text(reply.text, dialect, opened)
    writes = dialect if dialect.open and dialect.close else DIALECTS["think"]  # a dialect without markers cannot write a thought
    thought = f"{'' if opened else writes.open}\n{reply.reasoning}\n"
    cut = not reply.text.strip() and not reply.finished
    text = thought if cut else f"{thought}{writes.close}\n{reply.text}"
    if split_text(thought, writes, opened).status == "unclosed":
        return text, split_text(text, writes, opened)
    # the thought holds a marker that would end it, as one about markers does: the server knew better
    return text, PlainSplit("unclosed" if cut else "multiple", reply.reasoning.strip(), reply.text.strip())


def _data_url(prompt_id: str, picture: Picture, most: int) -> str:
    written = io.BytesIO()
    open_picture(prompt_id, picture).save(written, format="PNG", compress_level=1)
    if (size := written.tell()) > most:
        raise PromptError(
            f"a picture of prompt {prompt_id!r} has {size:,} bytes as PNG, more than {most:,} (max_picture). Make it smaller.", prompt_id
        )
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
