"""The clock: what the tokens of the forward pass now running are, while they arrive.

`model.generate` runs one forward over the prompt and one over each new token; no position reaches the decoder layers. A forward-pre-hook on
the model without its head does see every forward: the token ids, and how many tokens the cache holds. From these the clock keeps, per row,
the position, the kind of every token (the thought's markers are found as they come), the step of the thought, and whether the row has
ended. All of it is done for the whole batch at once: this runs in every decoding step.

    prefill     [b, p]  prompt, and after it the output tokens that are replayed, if `expect` said where the prompt ends
    decoding    [b, 1]  the token written last

A row has ended at its end token. That token and the padding other rows keep it company with are never part of a span: no output
is begun from them.

Shapes: `b` rows, `p` tokens of this forward, padding included.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .frame import prompt_kinds, token_kinds
from .kinds import KINDS, Kind
from .spans import Span, parse_span, resolve, streamable
from .writing import Writing

if TYPE_CHECKING:
    from .model import LensModel

_OF_PROMPT = ("template", "image", "instruction")


@dataclass(frozen=True)
class Tick:
    """The tokens of one forward.

    start       whether a new batch begins
    ids         [b, p]
    kinds       [b, p] codes of Kind; prompt tokens are told apart only where a span asks for it, else all are `template`
    position    [b, p] index in the row's own sequence, padding not counted
    output      [b, p] index among the output tokens; negative in the prompt
    index       [b, p] index among the tokens of the same kind
    step        [b, p] how many steps of the thought have ended before this token
    step_end    [b, p] the last token of a step
    closing     [b, p] the last token of the marker that closes the thought
    live        [b, p] neither padding, nor the end token, nor after it
    """

    start: bool
    ids: Int64[Tensor, "b p"]
    kinds: Int64[Tensor, "b p"]
    position: Int64[Tensor, "b p"]
    output: Int64[Tensor, "b p"]
    index: Int64[Tensor, "b p"]
    step: Int64[Tensor, "b p"]
    step_end: Bool[Tensor, "b p"]
    closing: Bool[Tensor, "b p"]
    live: Bool[Tensor, "b p"]


@functools.cache
def on_time(span: Span | str) -> bool:
    """Whether the clock can tell, when a token arrives, if it lies in the span.

    step[i] counts from its first token on, though it is a step only once it has ended.
    """
    span = parse_span(span)
    return streamable(span) or (span.base == "step" and (span.index or 0) >= 0)


class Clock:
    """Follows one batch after another through `lens.inner`; a forward with an empty cache begins one.

    spans   what mask() will be asked for
    """

    def __init__(self, lens: LensModel, spans: Sequence[Span | str]) -> None:
        self.lens = lens
        self.prompt_lengths: Int64[Tensor, " b"] | None = None
        self.tick: Tick | None = None
        self._whole: Sequence[Sequence[int]] | None = None
        self._held = 0
        self._kinds_wanted = any(parse_span(span).base in _OF_PROMPT for span in spans)
        # a model's vocabulary may be longer than its tokenizer's
        vocabulary = max(len(lens.markers.step_end), lens.model.config.get_text_config().vocab_size)
        self._ends_step, self._blank = torch.zeros(2, vocabulary, dtype=torch.bool, device=lens.device)
        self._ends_step[: len(lens.markers.step_end)] = lens.markers.step_end.to(lens.device)
        self._blank[: len(lens.markers.blank)] = lens.markers.blank.to(lens.device)
        self.writing = Writing(lens.markers, lens.opened, vocabulary, lens.device)

    def attach(self) -> RemovableHandle:
        """Start following; the handle's remove() ends it."""
        return self.lens.inner.register_forward_pre_hook(lambda _, args, kwargs: self._advance(args, kwargs), with_kwargs=True)

    def expect(self, prompt_lengths: Int64[Tensor, " b"] | None, whole: Sequence[Sequence[int]] | None = None) -> None:
        """Say where the prompts of the coming batches end (None: a prefill is a prompt), until said otherwise.

        whole   per row the finished sequence without padding, of which the coming single forward runs a beginning: lets spans that are only
                known at the end (thought[-8:], thought@0.5) be resolved.
        """
        self.prompt_lengths, self._whole = prompt_lengths, whole

    @property
    def now(self) -> Tick:
        """The tokens of the forward that runs, or ran last."""
        if self.tick is None:
            raise RuntimeError("the clock has seen no forward yet. Run the model first.")
        return self.tick

    def mask(self, span: Span | str) -> Bool[Tensor, "b p"]:
        """Which live tokens of this forward lie in the span."""
        span = parse_span(span)
        if on_time(span):
            return _arriving(span, self.now, self._totals) & self.now.live
        if self._whole is None:
            raise ValueError(
                f"span {str(span)!r} is only known once the output is whole, so it cannot be steered while tokens are generated. Steer at "
                "a span that is known when a token arrives (last_prompt, thought, thought_last, step_end[0], thought[:16]), or use "
                "forced() on transcripts."
            )
        return self._resolved(span, self._whole) & self.now.live

    def _advance(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise ValueError("steering follows token ids, and this forward was given inputs_embeds alone. Pass input_ids.")
        cache = kwargs.get("past_key_values")
        held = 0 if cache is None else int(cache.get_seq_length())
        start = held == 0
        if start:
            self._begin(ids, _real(kwargs.get("attention_mask"), 0, ids))
        elif self.tick is None or held != self._held or len(ids) != len(self._seen):
            raise ValueError(
                f"the cache holds {held} tokens of {len(ids)} rows, but steering has followed {self._held} of "
                f"{0 if self.tick is None else len(self._seen)}: the cache was filled before steering began, cropped or reordered. "
                "Begin with an empty cache inside steer(), greedy or sampled with num_beams=1."
            )
        elif ids.shape[1] > 1 and (self.prompt_lengths is None or bool((self._seen < self._prompt_lengths).any())):
            raise ValueError("a prompt that arrives in several pieces has no known end. Leave prefill_chunk_size unset.")
        self._held = held + ids.shape[1]
        self.tick = self._tick(ids, start, _real(kwargs.get("attention_mask"), held, ids))

    def _begin(self, ids: Int64[Tensor, "b p"], real: Bool[Tensor, "b p"]) -> None:
        if self._regrown(ids):
            raise ValueError("this generation runs without a cache, so no forward can be told from the next. Pass use_cache=True.")
        rows, device = len(ids), ids.device
        length = real.sum(1)
        if self.prompt_lengths is not None and len(self.prompt_lengths) != rows:
            raise ValueError(
                f"{len(self.prompt_lengths)} prompt lengths were expected for a batch of {rows} rows. "
                "Set num_beams and num_return_sequences to 1."
            )
        self._prompt_lengths = length if self.prompt_lengths is None else self.prompt_lengths.to(device)
        self._seen = torch.zeros(rows, dtype=torch.int64, device=device)
        self._steps = torch.zeros(rows, dtype=torch.int64, device=device)
        self._begun = torch.zeros(rows, dtype=torch.bool, device=device)
        self._counts = torch.zeros(rows, len(KINDS), dtype=torch.int64, device=device)
        self._totals = self._counts
        self.writing.begin(rows)

    def _regrown(self, ids: Int64[Tensor, "b p"]) -> bool:
        """Whether this batch is the last one plus one token: generation without a cache."""
        last = self.tick
        return (
            last is not None
            and self.prompt_lengths is None
            and ids.shape == (len(last.ids), last.ids.shape[1] + 1)
            and torch.equal(ids[:, :-1], last.ids)
        )

    def _tick(self, ids: Int64[Tensor, "b p"], start: bool, real: Bool[Tensor, "b p"]) -> Tick:
        position = self._seen[:, None] + real.cumsum(1) - 1
        output = position - self._prompt_lengths[:, None]
        kinds, closing, ended = self.writing.read(ids, real & (output >= 0), all_rows=not start and ids.shape[1] == 1)
        if start:
            kinds = torch.where(real & (output < 0), self._kinds_of_prompts(ids, real), kinds)
        upto = self._counts[:, None] + nn.functional.one_hot(kinds, len(KINDS)).cumsum(1)
        if start:
            self._totals = upto[:, -1]
        step_end = self._step_ends(ids, kinds == Kind.THOUGHT)
        steps = self._steps[:, None] + step_end.cumsum(1)
        self._seen, self._counts, self._steps = position[:, -1] + 1, upto[:, -1], steps[:, -1]
        index = upto.gather(2, kinds[..., None]).squeeze(2) - 1
        return Tick(start, ids, kinds, position, output, index, steps - step_end.long(), step_end, closing, real & ~ended)

    def _step_ends(self, ids: Int64[Tensor, "b p"], thought: Bool[Tensor, "b p"]) -> Bool[Tensor, "b p"]:
        """Which tokens end a step, as Markers.ends() says: they may, and since the last one that might came a token that is not blank."""
        may = thought & self._ends_step[ids]
        words = self._begun[:, None].long() + (thought & ~self._blank[ids]).cumsum(1)
        spent = (words * may).cummax(1).values
        self._begun = words[:, -1] > spent[:, -1]
        return may & (words > nn.functional.pad(spent[:, :-1], (1, 0)))

    def _kinds_of_prompts(self, ids: Int64[Tensor, "b p"], real: Bool[Tensor, "b p"]) -> Int64[Tensor, "b p"]:
        kinds = torch.full_like(ids, int(Kind.TEMPLATE))
        if self._kinds_wanted:
            for row, (tokens, there, length) in enumerate(zip(ids, real, self._prompt_lengths.tolist(), strict=True)):
                places = there.nonzero()[:length, 0]
                kinds[row, places] = torch.tensor(prompt_kinds(tokens[places].tolist(), self.lens.frame), device=ids.device)
        return kinds

    def _resolved(self, span: Span, whole: Sequence[Sequence[int]]) -> Bool[Tensor, "b p"]:
        chosen = torch.zeros(len(whole), max(map(len, whole)), dtype=torch.bool)
        for row, (ids, length) in enumerate(zip(whole, self._prompt_lengths.tolist(), strict=True)):
            kinds = token_kinds(ids, length, self.lens.frame, self.lens.markers)
            chosen[row, resolve(span, kinds, ids, self.lens.markers, prompt_end=length)] = True
        return chosen.to(self.now.ids.device).gather(1, self.now.position.clamp(0, chosen.shape[1] - 1))


def _real(mask: Any, held: int, ids: Int64[Tensor, "b p"]) -> Bool[Tensor, "b p"]:
    """Which of the tokens are no padding. A static cache brings its mask ready for attention, [b, 1, p, kv], per kind of layer."""
    if isinstance(mask, Mapping):
        mask = mask["full_attention"]
    if mask is None or (held and mask.ndim == 4):
        return torch.ones_like(ids, dtype=torch.bool)
    if mask.ndim == 4:
        mask = mask[:, 0, -1] if mask.dtype == torch.bool else mask[:, 0, -1] == 0
    return mask[:, held : held + ids.shape[1]].bool()


def _arriving(span: Span, tick: Tick, totals: Int64[Tensor, "b kind"]) -> Bool[Tensor, "b p"]:
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
        case "prompt" | "all" as base:
            inside = tick.output < 0 if base == "prompt" else torch.ones_like(tick.live)
            number, total = tick.position, (tick.position - tick.output)[:, :1]
        case base:
            kind = Kind[base.upper()]
            inside, number, total = tick.kinds == kind, tick.index, totals[:, kind, None]
    if span.window is not None:
        start, stop = (None if end is None else end + total if end < 0 else end for end in span.window)
        inside = inside if start is None else inside & (number >= start)
        inside = inside if stop is None else inside & (number < stop)
    if span.fraction is not None:
        inside = inside & (number == (span.fraction * (total - 1).double() + 0.5).floor())
    return inside
