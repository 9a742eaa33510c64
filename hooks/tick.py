"""The tokens of one forward, and which of them lie in a span that is known while they arrive.

Shapes: `b` rows, `p` tokens of this forward, padding included.
"""

from __future__ import annotations

import functools
import threading

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from .kinds import Kind
from .spans import Span, parse_span, streamable
from .writing import Told

LIVE = (
    "all",
    "marker",
    "thought",
    "answer",
    "thought_first",
    "thought_last",
    "answer_first",
    "step",
    "step_end",
    "step_ends",
    "decision",
)  # of a token just written


class Tick:
    """The tokens of one forward.

    start      whether a new batch begins
    regrown    whether it is the last one and one token more, run without a cache
    packed     whether the tokens are those of many requests side by side
    ids        [b, p]
    thread     which thread runs it
    decoding   whether every token here is one that the model has just written

    Looked up when asked for:

    kinds      [b, p] codes of Kind; prompt tokens are told apart only where a span asks for it, else all are `template`
    position   [b, p] index in the row's own sequence, padding not counted
    output     [b, p] index among the output tokens; negative in the prompt
    index      [b, p] index among the tokens of the same kind
    step       [b, p] how many steps of the thought have ended before this token
    section    [b, p] how many headings of the thought stand before this token
    step_end   [b, p] the last token of a step
    heading    [b, p] the last token of a heading inside the thought
    closing    [b, p] the last token of the marker that closes the thought
    live       [b, p] neither padding, nor the end token, nor after it
    """

    def __init__(
        self,
        ids: Int64[Tensor, "b p"],
        told: Told,
        place: tuple[Tensor, Tensor | int, Tensor],
        *,
        start: bool = False,
        regrown: bool = False,
        packed: bool = False,
        real: Bool[Tensor, "b p"] | None = None,
        prompt: Int64[Tensor, "b p"] | None = None,
    ) -> None:
        self.ids, self.start, self.regrown, self.packed, self.thread = ids, start, regrown, packed, threading.get_ident()
        self.decoding = not (start or packed) and ids.shape[1] == 1
        self._told, self._real, self._prompt = told, real, prompt
        self._counters: dict[str, Int64[Tensor, "b p"]] = {}
        self._base, self._by, self._lengths = place

    @functools.cached_property
    def kinds(self) -> Int64[Tensor, "b p"]:
        return self._told.kinds if self._prompt is None else torch.where(self._prompt >= 0, self._prompt, self._told.kinds)

    @functools.cached_property
    def position(self) -> Int64[Tensor, "b p"]:
        return self._base + self._by

    @functools.cached_property
    def output(self) -> Int64[Tensor, "b p"]:
        return self.position - self._lengths

    @property
    def new(self) -> slice:
        """The columns that no forward before has run."""
        return slice(-1, None) if self.regrown else slice(None)

    @property
    def index(self) -> Int64[Tensor, "b p"]:
        return self._counters["index"]

    @property
    def step(self) -> Int64[Tensor, "b p"]:
        return self._counters["step"]

    @property
    def section(self) -> Int64[Tensor, "b p"]:
        return self._counters["section"]

    @property
    def step_end(self) -> Bool[Tensor, "b p"]:
        return self._told.step_end

    @property
    def heading(self) -> Bool[Tensor, "b p"]:
        return self._told.heading

    @property
    def closing(self) -> Bool[Tensor, "b p"]:
        return self._told.closing

    @functools.cached_property
    def live(self) -> Bool[Tensor, "b p"]:
        return self._told.live if self._real is None else self._real & ~self._told.ended


@functools.cache
def on_time(span: Span | str) -> bool:
    """Whether the clock can tell, when a token arrives, if it lies in the span.

    step[i] counts from its first token on, though it is a step only once it has ended.
    """
    span = parse_span(span)
    return streamable(span) or (span.base == "step" and (span.index or 0) >= 0)


def arriving(span: Span, tick: Tick, totals: Int64[Tensor, "b kind"]) -> Bool[Tensor, "b p"]:
    """Tokens of a span that is known as tokens arrive; `totals` counts the kinds of the prefill, in which the prompt is whole."""
    match span.base:
        case "last_prompt":
            return tick.output == -1
        case "thought_last":
            return tick.closing
        case "thought_first":
            return (tick.kinds == Kind.THOUGHT) & (tick.index == 0)
        case "answer_first":
            return (tick.kinds == Kind.ANSWER) & (tick.index == 0)
        case "step":
            return (tick.kinds == Kind.THOUGHT) & (tick.step == span.index)
        case "step_end":
            return tick.step_end & (tick.step == span.index)
        case "step_ends" | "decision" if span.window is None:  # a decision is told by the gate beside it: Edit asks for one
            return tick.step_end
        case "step_ends":
            inside, number, total = tick.step_end, tick.step, tick.step[:, :1] * 0
        case "all" if span.window is None and span.fraction is None:
            return tick.live
        case "prompt" | "all" as base:
            inside = tick.output < 0 if base == "prompt" else tick.live
            number, total = tick.position, (tick.position - tick.output)[:, :1]
        case base:
            kind = Kind[base.upper()]
            inside = tick.kinds == kind
            if span.window is None and span.fraction is None:
                return inside
            number, total = tick.index, totals[:, kind, None]
    if span.window is not None:
        start, stop = (None if end is None else end + total if end < 0 else end for end in span.window)
        inside = inside if start is None else inside & (number >= start)
        inside = inside if stop is None else inside & (number < stop)
    if span.fraction is not None:
        inside = inside & (number == (span.fraction * (total - 1).double() + 0.5).floor())
    return inside
