"""The clock: what the tokens of the forward pass now running are, while they arrive.

`model.generate` runs one forward over the prompt and one over each new token; no position reaches the decoder layers. A forward-pre-hook on
the model without its head does see every forward: the token ids, and how many tokens the cache holds. From these the clock keeps, per row,
the position, the kind of every token (the thought's markers are found as they come), the step of the thought, and whether the row has
ended. All of it is done for the whole batch at once, and only what somebody asks for: this runs in every decoding step.

    prefill     [b, p]  prompt, and after it the output tokens that are replayed, if `expect` said where the prompt ends
    decoding    [b, 1]  the token written last
    regrown     [b, p]  generation without a cache: the last forward once more, and one token; beams may have changed places
    packed      [1, p]  generate_batch: tokens of many requests side by side, of which no more is known

A row has ended at its end token. That token and the padding other rows keep it company with are never part of a span: no output
is begun from them. Beam search lets rows change places between two forwards: the clock changes with them.

The clock itself is never compiled: under torch.compile it runs between two graphs.

Shapes: `b` rows, `p` tokens of this forward, padding included.
"""

from __future__ import annotations

import copy
import threading
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache

from .frame import prompt_kinds, token_kinds
from .kinds import KINDS, Kind
from .spans import Span, parse_span, resolve
from .tick import LIVE, Tick, arriving, on_time
from .writing import Writing

if TYPE_CHECKING:
    from .model import LensModel

_OF_PROMPT = ("template", "image", "instruction")
_BEFORE_OUTPUT = ("last_prompt", "prompt", "image", "instruction")
_STEPS = ("step", "step_end", "step_ends", "decision")
_COUNTED = ("thought_first", "answer_first")
WHY_NOT_COMPILED = "the clock of thoughtlens reads which tokens are running; compile with fullgraph=False, or only the layers"


class _Reordering:
    """Stands in for the reorder_cache of one cache, and lets somebody hear of it. A copy of the cache gets its own again."""

    def __init__(self, cache: Cache, hear: Callable[[Tensor], None]) -> None:
        self.own: Any = vars(cache).get("reorder_cache")  # what the caller had put there
        self._cache, self._hear = weakref.ref(cache), hear  # a strong one would keep a finished batch in memory

    def __call__(self, beam_idx: Any) -> None:
        cache: Any = self._cache()
        if self.own is None:
            type(cache).reorder_cache(cache, beam_idx)
        else:
            self.own(beam_idx)
        self._hear(beam_idx)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.own is not None:
            return copy.deepcopy(self.own, memo)
        copied = memo[id(self._cache())]
        return types.MethodType(type(copied).reorder_cache, copied)


class Clock:
    """Follows one batch after another through `lens.inner`; a forward with an empty cache begins one.

    spans      what mask() will be asked for
    counting   what Tick will be asked for besides: "step", "section"
    reorder    called with the rows that go on, where beams change places; what is kept per row has to follow
    """

    def __init__(
        self,
        lens: LensModel,
        spans: Sequence[Span | str],
        *,
        counting: Sequence[str] = (),
        reorder: Callable[[Tensor], None] = lambda rows: None,
    ) -> None:
        self.lens = lens
        self.prompt_lengths: Int64[Tensor, " b"] | None = None
        self.tick: Tick | None = None
        self.pictures: Tensor | None = None  # what the batch that runs was begun with
        asked = [parse_span(span) for span in spans]
        self._whole: Sequence[Sequence[int]] | None = None
        self._held = 0
        self._lengths: Int64[Tensor, "b 1"]
        self._off: Tensor | None = None  # set on the device where a cache there held another number of tokens
        self._kinds_wanted = any(span.base in _OF_PROMPT for span in asked)
        self._counts_wanted = any(span.base in _COUNTED or span.window or span.fraction is not None for span in asked)
        self._wanted = {*counting, *(["step"] if any(span.base in _STEPS for span in asked) else [])}
        self._reorder = reorder
        self._announced = False
        self._cache: Callable[[], Any] = lambda: None
        # a model's vocabulary may be longer than its tokenizer's
        vocabulary = max(len(lens.markers.step_end), lens.model.config.get_text_config().vocab_size)
        self.writing = Writing(lens.markers, lens.opened, vocabulary, lens.device)

    def attach(self) -> RemovableHandle:
        """Start following; the handle's remove() ends it. A cache that is followed keeps a wrapper until let_go()."""
        disable: Any = torch.compiler.disable
        advance = disable(lambda _, args, kwargs: self._advance(args, kwargs), reason=WHY_NOT_COMPILED)
        return self.lens.inner.register_forward_pre_hook(advance, with_kwargs=True)

    def let_go(self) -> None:
        """Take back what was put on the cache of the last batch."""
        cache = self._cache()
        if isinstance(cache, Cache):
            ours = vars(cache).pop("reorder_cache")
            if ours.own is not None:
                vars(cache)["reorder_cache"] = ours.own
        self._cache = lambda: None

    def expect(self, prompt_lengths: Int64[Tensor, " b"] | None, whole: Sequence[Sequence[int]] | None = None) -> None:
        """Say where the prompts of the coming batches end (None: a prefill is a prompt), until said otherwise.

        whole   per row the finished sequence without padding, of which the coming single forward runs a beginning: lets spans that are only
                known at the end (thought[-8:], thought@0.5) be resolved.
        """
        self.prompt_lengths, self._whole, self._announced = prompt_lengths, whole, True

    @property
    def now(self) -> Tick:
        """The tokens of the forward that runs, or ran last."""
        if self.tick is None:
            raise RuntimeError("the clock has seen no forward yet. Run the model first.")
        return self.tick

    def keep(self, cache: Any) -> None:
        """The cache that the forward which began the batch has made, where it was given none."""
        if self.now.start and cache is not None and self._cache() is None:
            self._follow(cache)

    def holds(self, span: Span | str) -> bool:
        """Whether the span may hold a token of this forward: False where that is known without looking at one."""
        return not (self.now.decoding and parse_span(span).base in _BEFORE_OUTPUT)

    def mask(self, span: Span | str) -> Bool[Tensor, "b p"]:
        """Which live tokens of this forward lie in the span."""
        span = parse_span(span)
        if on_time(span):
            inside = arriving(span, self.now, self._totals)
            return inside if self.now.decoding and span.base in LIVE else inside & self.now.live
        if self._whole is None:
            raise ValueError(
                f"span {str(span)!r} is only known once the output is whole, so it cannot be steered while tokens are generated. Steer at "
                "a span that is known when a token arrives (last_prompt, thought, thought_last, step_end[0], thought[:16]), or use "
                "forced() on transcripts."
            )
        return self._resolved(span, self._whole) & self.now.live

    def check(self) -> None:
        """ValueError where a cache on the device was not what the clock had followed. Waits for the device."""
        if self._off is not None and bool(self._off):
            self._off = None
            raise ValueError(_wrong_cache("another number of tokens", len(self._base), self._held))

    def _advance(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise ValueError("steering follows token ids, and this forward was given inputs_embeds alone. Pass input_ids.")
        if "cu_seq_lens_q" in kwargs:
            return self._pack(ids, kwargs["cu_seq_lens_q"])
        cache = kwargs.get("past_key_values")
        held = 0 if cache is None else self._length(cache, ids)
        if held == 0:
            self.check()
            self.pictures = kwargs.get("pixel_values")
            before = None if cache is not None or self._announced else self._regrown(ids)
            self._announced = False
            self.tick = self._begin(ids, _real(kwargs.get("attention_mask"), ids), before)
            self._follow(cache)
        else:
            self._check_goes_on(ids, held, cache)
            self.tick = self._go_on(ids, kwargs.get("attention_mask"))
        self._held = held + ids.shape[1]

    def _length(self, cache: Any, ids: Int64[Tensor, "b p"]) -> int:
        """Tokens in the cache. A static cache keeps the number on its device, where asking in every step would keep the host waiting."""
        told = cache.get_seq_length()
        if not isinstance(told, Tensor) or told.device.type == "cpu" or self.tick is None or ids.shape[1] > 1:
            return int(told)
        wrong = told != self._held
        self._off = wrong if self._off is None else self._off | wrong
        return self._held

    def _check_goes_on(self, ids: Int64[Tensor, "b p"], held: int, cache: Any) -> None:
        if self.tick is not None and self.tick.thread != threading.get_ident():
            raise RuntimeError(
                f"another thread began a batch on {self.lens.name} while this one was being written, and steering follows one at a time. "
                "Let one thread run the model, or hold a lock while it generates."
            )
        followed = self._cache()
        if followed is not None and followed is not cache:
            raise ValueError(
                "two batches are written at the same time, each with a cache of its own, and steering follows one at a time. Let one end "
                "before the next begins, and leave guidance_scale unset."
            )
        if self.tick is None or held != self._held or len(ids) != len(self._base):
            raise ValueError(_wrong_cache(f"{held} tokens of {len(ids)} rows", 0 if self.tick is None else len(self._base), self._held))
        if ids.shape[1] > 1 and (self.prompt_lengths is None or bool((self._base + self._steps_done < self._lengths).any())):
            raise ValueError(
                "several tokens arrive at once behind a cache: a prompt in pieces, whose end is not known, or candidates of assisted "
                "generation. Leave prefill_chunk_size, assistant_model and prompt_lookup_num_tokens unset."
            )

    def _begin(self, ids: Int64[Tensor, "b p"], real: Bool[Tensor, "b p"], before: Int64[Tensor, " b"] | None) -> Tick:
        """A batch begins; or it is the last one and a token more, whose rows are those `before`."""
        rows, device = len(ids), ids.device
        length = real.sum(1, keepdim=True)
        if self.prompt_lengths is not None and len(self.prompt_lengths) != rows:
            raise ValueError(
                f"{len(self.prompt_lengths)} prompt lengths were expected for a batch of {rows} rows. "
                "Set num_beams and num_return_sequences to 1."
            )
        if before is not None:
            self._lengths = self._lengths[before]
        elif self.prompt_lengths is not None:
            self._lengths = self.prompt_lengths.to(device)[:, None]
        else:
            self._lengths = length
        self._base, self._steps_done = length, 0
        self._counted = dict.fromkeys(self._wanted, torch.zeros_like(length))
        self._counts = torch.zeros(rows, len(KINDS), dtype=torch.int64, device=device)
        self._totals = self._counts
        self.writing.begin(rows)
        position = real.cumsum(1) - 1
        output = position - self._lengths
        prompt = torch.where(real & (output < 0), self._kinds_of_prompts(ids, real), -1)
        told, place = self.writing.read(ids, real & (output >= 0)), (position, 0, self._lengths)
        tick = Tick(ids, told, place, start=True, regrown=before is not None, real=real, prompt=prompt)
        self._count(tick)
        self._totals = self._counts
        return tick

    def _go_on(self, ids: Int64[Tensor, "b p"], mask: Any) -> Tick:
        """The next token of every row; or several, of an output that is replayed behind a cached prompt."""
        real = _real(mask, ids, self._held) if ids.shape[1] > 1 else None
        base, done = self._base, self._steps_done
        place: tuple[Tensor, Tensor | int, Tensor] = (base, done, self._lengths)
        if real is None:
            self._steps_done += 1
        else:
            by = done + real.cumsum(1) - 1
            place = (base, by, self._lengths)
            self._base = base + by[:, -1:] + 1 - done
        tick = Tick(ids, self.writing.read(ids, real), place, real=real)
        self._count(tick)
        return tick

    def _pack(self, ids: Int64[Tensor, "1 p"], ends: Int64[Tensor, " requests"]) -> None:
        if ids.is_cuda and torch.cuda.is_current_stream_capturing():
            raise ValueError(
                "generate_batch is capturing CUDA graphs, in which steering could not be changed or switched off any more. Pass "
                "continuous_batching_config=ContinuousBatchingConfig(use_cuda_graph=False)."
            )
        ids = ids.long()
        real = torch.arange(ids.shape[1], device=ids.device)[None] < ends[-1]
        self.writing.begin(1)
        self._base = self._lengths = ids.new_zeros(1, 1)
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        told = self.writing.read(ids, torch.zeros_like(real))
        tick = Tick(ids, told, (places, 0, ids.new_zeros(1, 1)), start=True, packed=True, real=real)
        self._totals, self.tick, self._held = torch.zeros(1, len(KINDS), dtype=torch.int64, device=ids.device), tick, 0

    def _count(self, tick: Tick) -> None:
        """The counters asked for, at every token of this forward and for the next."""
        if self._counts_wanted:
            kinds = tick.kinds
            upto = self._counts[:, None] + nn.functional.one_hot(kinds, len(KINDS)).cumsum(1)
            tick._counters["index"] = upto.gather(2, kinds[..., None]).squeeze(2) - 1
            self._counts = upto[:, -1]
        for name in self._wanted:
            ends, before = tick.step_end if name == "step" else tick.heading, self._counted[name]
            if tick.decoding:
                tick._counters[name], self._counted[name] = before, before + ends
            else:
                upto = before + ends.cumsum(1)
                tick._counters[name], self._counted[name] = upto - ends.long(), upto[:, -1:]

    def _regrown(self, ids: Int64[Tensor, "b p"]) -> Int64[Tensor, " b"] | None:
        """Which row of the last batch each row goes on with by one token, where all do: generation without a cache."""
        last = self.tick
        if last is None or not last.start or last.packed or ids.shape != (len(last.ids), last.ids.shape[1] + 1):
            return None
        same = (ids[:, None, :-1] == last.ids).all(2)
        if not bool(same.any(1).all()):
            return None
        before = torch.where(same.diagonal(), torch.arange(len(ids), device=ids.device), same.long().argmax(1))
        if not bool(same.diagonal().all()):
            self._reorder(before)
        return before

    def _follow(self, cache: Any) -> None:
        """Hear of it when beam search lets the rows of this batch's cache change places."""
        self.let_go()
        if cache is None:
            return
        self._cache = weakref.ref(cache)
        if isinstance(cache, Cache):
            vars(cache)["reorder_cache"] = _Reordering(cache, self._follow_rows)

    def _follow_rows(self, rows: Tensor) -> None:
        self.writing.reorder(rows)
        self._base, self._lengths = self._base[rows], self._lengths[rows]
        self._counts, self._totals = self._counts[rows], self._totals[rows]
        self._counted = {name: count[rows] for name, count in self._counted.items()}
        self._reorder(rows)

    def _kinds_of_prompts(self, ids: Int64[Tensor, "b p"], real: Bool[Tensor, "b p"]) -> Int64[Tensor, "b p"]:
        kinds = torch.full_like(ids, int(Kind.TEMPLATE))
        if self._kinds_wanted:
            for row, (tokens, there, length) in enumerate(zip(ids, real, self._lengths[:, 0].tolist(), strict=True)):
                places = there.nonzero()[:length, 0]
                kinds[row, places] = torch.tensor(prompt_kinds(tokens[places].tolist(), self.lens.frame), device=ids.device)
        return kinds

    def _resolved(self, span: Span, whole: Sequence[Sequence[int]]) -> Bool[Tensor, "b p"]:
        chosen = torch.zeros(len(whole), max(map(len, whole)), dtype=torch.bool)
        for row, (ids, length) in enumerate(zip(whole, self._lengths[:, 0].tolist(), strict=True)):
            kinds = token_kinds(ids, length, self.lens.frame, self.lens.markers)
            chosen[row, resolve(span, kinds, ids, self.lens.markers, prompt_end=length)] = True
        return chosen.to(self.now.ids.device).gather(1, self.now.position.clamp(0, chosen.shape[1] - 1))


def _wrong_cache(found: str, rows: int, held: int) -> str:
    return (
        f"the cache holds {found}, but steering has followed {held} of {rows}: the cache was filled before steering began, cropped or "
        "reordered by hand. Begin with an empty cache inside steer(), and let model.generate write the tokens."
    )


def _real(mask: Any, ids: Int64[Tensor, "b p"], held: int = 0) -> Bool[Tensor, "b p"]:
    """Which of the tokens are no padding. A static cache brings its mask ready for attention, [b, 1, p, kv], per kind of layer."""
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values())))
    if mask is None or (held and mask.ndim == 4):
        return torch.ones_like(ids, dtype=torch.bool)
    if mask.ndim == 4:  # what is no padding sees itself, however far it sees
        itself = mask[:, 0].diagonal(dim1=1, dim2=2)
        mask = itself if itself.dtype == torch.bool else itself == 0
    return mask[:, held : held + ids.shape[1]].bool()
