"""Triggers: what happens when a gate opens while the model writes.

    flag      it is noted in the record, and the callback hears of it
    steer     from the next token on the edits act in this row; before that they do not
    stop      the output ends here, cut off: it is neither an answer nor a refusal
    remind    a short text is written into the thought, at the next boundary between steps (or where the thought begins)

`remind` is also the text-level baseline that steering is compared with: a safety reminder in the first one to three steps of the thought,
`Trigger(AtSteps(), "remind", "…", times=3)`. What it writes are tokens like any others: the model reads them, they count towards the limit,
and in a transcript they are marked (`inserted`). A step that the reminder itself ends triggers nothing.

A trigger looks at the last token of every forward, from the last prompt token on: what it sets off comes with the next token.
Tokens are written by a logits processor, which generate() passes on; in a generate of your own pass `steering.logits_processor`.

Shapes: `b` rows, `t` triggers, `r` tokens of a reminder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import LogitsProcessor

from .dialects import split
from .gates import Gate

if TYPE_CHECKING:
    from .model import LensModel

Do = Literal["flag", "steer", "stop", "remind"]
_NOTHING = -1
_NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Trigger:
    """When a gate opens, something is done.

    when    any gate; a ProbeGate that is to be asked at every token is one with span="thought" (or "all") and latched=False
    do      flag | steer | stop | remind
    text    what remind writes, as it stands in the thought
    times   remind at most so often in one output
    name    how it is called in records
    """

    when: Gate
    do: Do = "flag"
    text: str = ""
    times: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        if self.do not in get_args(Do):
            raise ValueError(f"unknown action {self.do!r}; known are {', '.join(get_args(Do))}")
        if (self.do == "remind") != bool(self.text.strip()):
            raise ValueError('a trigger that reminds needs its text, and no other has one: Trigger(gate, "remind", "is this safe ?")')
        if self.times < 1:
            raise ValueError(f"times={self.times} reminds never; it is at least 1")

    def __str__(self) -> str:
        return self.name or f"{self.do}{f' ×{self.times}' if self.do == 'remind' else ''} when {self.when}"


def reminder_ids(lens: LensModel, trigger: Trigger) -> list[int]:
    """The tokens a reminder is written with. ValueError for a text with markers or end tokens in it, or with none the model knows."""
    ids: list[int] = lens.tokenizer(trigger.text, add_special_tokens=False)["input_ids"]
    unknown = lens.tokenizer.unk_token_id
    if not ids or (unknown is not None and unknown in ids):
        raise ValueError(f"{lens.name} has no tokens for all of the reminder {trigger.text!r}. Use words of its vocabulary.")
    if set(ids) & {*lens.markers.eos_ids, lens.frame.image_token_id} or split(ids, lens.markers, opened=True).markers:
        raise ValueError(f"the reminder {trigger.text!r} holds a marker of the thought, an end token or a picture. Leave it out.")
    return ids


class Acting:
    """Triggers at work on a batch.

    stopped    [b] a trigger has ended this row
    """

    def __init__(self, lens: LensModel, triggers: tuple[Trigger, ...]) -> None:
        self._lens, self.triggers = lens, triggers
        self.waits = any(one.do == "steer" for one in triggers)
        self.writes = any(one.do in ("stop", "remind") for one in triggers)
        texts = [reminder_ids(lens, one) if one.do == "remind" else [] for one in triggers]
        longest = max(map(len, texts), default=0)
        device = lens.device
        self._texts = torch.tensor([text + [_NOTHING] * (longest + 1 - len(text)) for text in texts], device=device).reshape(
            -1, longest + 1
        )
        self.lengths = [len(text) for text in texts]
        self._times = torch.tensor([one.times for one in triggers], device=device)
        self.processor = _Writer(self)
        self.begin(0)

    def begin(self, rows: int) -> None:
        device, count = self._lens.device, len(self.triggers)
        self._set_off = torch.full((rows,), _NEVER, device=device)  # the output token at which a trigger set steering off
        self.stopped = torch.zeros(rows, dtype=torch.bool, device=device)
        self._waiting = torch.zeros(rows, count, dtype=torch.bool, device=device)
        self._done = torch.zeros(rows, count, dtype=torch.int64, device=device)
        self._which = torch.zeros(rows, dtype=torch.int64, device=device)
        self._next = torch.full((rows,), _NOTHING, device=device)  # the token of the reminder that comes next
        self.forced = torch.zeros_like(self.stopped)
        self.begun: list[tuple[Int64[Tensor, " b"], Bool[Tensor, " b"], Int64[Tensor, " b"]]] = []
        self.processor.calls = 0

    def hear(self, hit: Bool[Tensor, "b t"], place: Bool[Tensor, " b"], output: Int64[Tensor, " b"]) -> Bool[Tensor, "b t"]:
        """Triggers whose gates are open at the token that was just run; returns those that count.

        place    [b] where a reminder may be written next
        output   [b] index of that token among the output tokens
        """
        hit = hit & ~self.forced[:, None] & ~self.stopped[:, None]
        for number, trigger in enumerate(self.triggers):
            if trigger.do == "stop":
                self.stopped |= hit[:, number]
        busy = (self._next >= 0) | self.stopped
        for number, trigger in enumerate(self.triggers):
            now = hit[:, number]
            match trigger.do:
                case "steer":
                    self._set_off = torch.where(now, output.minimum(self._set_off), self._set_off)
                case "remind":
                    left = self._done[:, number] < self._times[number]
                    waiting = (self._waiting[:, number] | now) & left
                    starts = waiting & place & ~busy & ~self.forced
                    self._which = torch.where(starts, number, self._which)
                    self._next = torch.where(starts, 0, self._next)
                    self._done[:, number] += starts
                    self._waiting[:, number] = waiting & ~starts
                    busy = busy | starts
                    self.begun.append((output + 1, starts, torch.full_like(output, number)))
        return hit

    def armed(self, output: Int64[Tensor, "b p"]) -> Bool[Tensor, "b p"]:
        """Which tokens come after one at which a trigger set steering off; `output` is their index among the output tokens."""
        return output > self._set_off[:, None]

    def reorder(self, rows: Int64[Tensor, " b"]) -> None:
        """Rows change places, of triggers that write nothing."""
        self._set_off = self._set_off[rows]

    def write(self, scores: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        """The scores of the next token, left as they are in rows where nothing has to be written."""
        writing, place = self._next >= 0, self._next.clamp(min=0)
        token = torch.where(writing, self._texts[self._which, place], _NOTHING)
        token = torch.where(self.stopped, self._lens.markers.eos_ids[0], token)
        more = writing & (self._texts[self._which, torch.where(writing, place + 1, 0)] >= 0)
        self._next = torch.where(more, place + 1, _NOTHING)
        self.forced = token >= 0
        only = torch.full_like(scores, -torch.inf).scatter_(1, token.clamp(min=0)[:, None], 0.0)
        return torch.where(self.forced[:, None], only, scores)

    def inserted(self) -> list[list[tuple[int, int]]]:
        """Per row where reminders were written: ranges of output tokens."""
        rows: list[list[tuple[int, int]]] = [[] for _ in range(len(self.stopped))]
        for start, begun, which in self.begun:
            for row in begun.nonzero()[:, 0].tolist():
                rows[row].append((int(start[row]), int(start[row]) + self.lengths[int(which[row])]))
        return rows


class _Writer(LogitsProcessor):
    """Puts the tokens that triggers write in place of the model's."""

    def __init__(self, acting: Acting) -> None:
        self._acting = acting
        self.calls = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.calls += 1
        return self._acting.write(scores)
