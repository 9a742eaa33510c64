"""Generation in batches, steered or not, and the same tokens once more in a single forward.

    generate   prompt [+ replayed output] -> new tokens, greedy by default, one forward per token with a KV cache
    forced     prompt + output -> the logits each output token was written from, one forward without a cache

Both run under the steering that is active on the model. What forced() computes for a transcript that was generated under a steering is what
generation computed: the same tokens are steered, and the logits agree to rounding.
Shapes: `o` output tokens, `v` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from .buffers import taken
from .capture import check_prompt_ids
from .dialects import pieces, split
from .encode import Batch, Side, encode
from .planning import Labels, batched
from .recording import Kept, Recorder, recording
from .records import Prompt, Transcript
from .select import Select

if TYPE_CHECKING:
    from .model import LensModel
    from .steering import Steering


@torch.no_grad()
def generate(
    lens: LensModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    prefixes: Sequence[Sequence[int]] | None = None,
    condition: str | None = None,
    progress: bool = True,
    temperature: float | None = None,
    where: Select | None = None,
    into: str | Path | None = None,
    labels: Labels | None = None,
) -> list[Transcript]:
    """Let the model write an output for each prompt; transcripts come in the order of the prompts.

    max_new_tokens   limit on new tokens, a replayed prefix not counted
    prefixes         per prompt output ids already written, replayed before going on (a fixed thought, say); part of the transcript's output
    condition        name of the run in tables; left out, "unsteered" or what is steered
    temperature      None is greedy; else sampling from the whole distribution (torch.manual_seed makes it repeatable)
    where, into      keep these hidden states as they are computed, in a store at the folder `into` (open_store reads it); see recording.py.
                     Where no output has any of the spans there is a warning and no store
    labels           prompt id -> further columns for the store's index

    Plain greedy or sampled decoding whatever the checkpoint's generation config says: no penalties, no top-k. That config is not changed.
    The image placeholder is never written, since no model can be run over it again.
    Raises ValueError for a prefix that has already ended, a config that asks for beams, prompts the model cannot take (see encode), and
    hidden states that cannot be kept.
    """
    given = [()] * len(prompts) if prefixes is None else [tuple(prefix) for prefix in prefixes]
    _check_steering(lens, prompts)
    config = _config(lens, prompts, given, max_new_tokens, batch_size, temperature)
    condition = _condition(lens) if condition is None else condition
    written: dict[int, Transcript] = {}
    with _recorder(lens, prompts, where, into, labels, config, condition) as recorder, _bar(progress) as bar:
        task = bar.add_task(f"generate {lens.name}", total=len(prompts))
        for chosen in _by_length(lens, prompts, given, batch_size):
            batch = encode(lens, [prompts[i] for i in chosen], prefixes=[given[i] for i in chosen])
            kept = recorder.begin(batch, config) if recorder is not None else None
            outputs, facts = _run(lens, batch, chosen, config, kept)
            for row, (i, output) in enumerate(zip(chosen, outputs, strict=True)):
                prompt_ids = batch.ids[row][: int(batch.prompt_lengths[row])]
                written[i] = _transcript(lens, prompts[i], condition, prompt_ids, (*given[i], *output), facts[row])
            _watch(lens, [prompts[i] for i in chosen])
            if recorder is not None and kept is not None:
                recorder.store(kept, chosen, [written[i] for i in chosen])
            bar.advance(task, len(chosen))
    return [written[i] for i in range(len(prompts))]


@torch.no_grad()
def forced(
    lens: LensModel, transcripts: Sequence[Transcript], *, batch_size: int = 32, side: Side = "left", stepwise: bool = False
) -> list[Float[Tensor, "o v"]]:
    """Logits from which each output token would be written, the tokens before it being those of the transcript; under the active steering.

    One forward per batch, no cache. Spans that are only known once the output is whole (thought[-8:], thought@0.5) can be steered here.
    The last token is not run, as in generation. ValueError where this model's template does not give the transcript's prompt ids.

    stepwise   token by token with a cache, as in generation: for a gate that reads at a site after one that is steered, whose decision
               about later tokens cannot be had within one forward
    """
    steering = lens.steering
    _check_steering(lens, [t.prompt for t in transcripts])
    if steering is not None and steering.waits and not stepwise:
        raise ValueError(
            "a trigger sets steering off while the output is written, which one forward over all of it cannot follow. Pass stepwise=True."
        )
    found: dict[int, Tensor] = {}
    for chosen in _by_length(lens, [t.prompt for t in transcripts], [t.output_ids for t in transcripts], batch_size):
        some = [transcripts[i] for i in chosen]
        if silent := [t.id for t in some if not t.output_ids]:
            raise ValueError(f"the transcript of {silent[0]!r} has no output to force. Leave it out.")
        batch = encode(lens, [t.prompt for t in some], prefixes=None if stepwise else [t.output_ids[:-1] for t in some], side=side)
        check_prompt_ids(lens, some, batch)
        if steering is not None:
            whole = None if stepwise else [[*t.prompt_ids, *t.output_ids] for t in some]
            steering.expect(batch.prompt_lengths, rows=torch.tensor(chosen), whole=whole)
        try:
            rows = _dictated(lens, some, batch) if stepwise else _at_once(lens, some, batch)
        finally:
            if steering is not None:
                steering.expect(None)
        found |= dict(zip(chosen, rows, strict=True))
    return [found[i] for i in range(len(transcripts))]


def _at_once(lens: LensModel, some: Sequence[Transcript], batch: Batch) -> list[Float[Tensor, "o v"]]:
    starts = (batch.offsets + batch.prompt_lengths - 1).tolist()
    kept = torch.arange(min(starts), batch.inputs["input_ids"].shape[1], device=lens.device)
    logits = lens.model(**batch.inputs, use_cache=False, logits_to_keep=kept).logits
    begins = [start - min(starts) for start in starts]
    return [logits[row, begin : begin + len(t.output_ids)].clone() for row, (t, begin) in enumerate(zip(some, begins, strict=True))]


def _dictated(lens: LensModel, some: Sequence[Transcript], batch: Batch) -> list[Float[Tensor, "o v"]]:
    longest = max(len(t.output_ids) for t in some)
    ended = lens.markers.eos_ids[0]
    tokens = torch.tensor([[*t.output_ids, *[ended] * (longest - len(t.output_ids))] for t in some], device=lens.device)
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=longest,
        do_sample=False,
        eos_token_id=list(lens.markers.eos_ids),
        pad_token_id=lens.pad_id,
        return_dict_in_generate=True,
        output_logits=True,
    )
    triggered = [] if lens.steering is None or not lens.steering.writes else [lens.steering.logits_processor]
    with _plain(lens.model):
        written = lens.model.generate(  # type: ignore[operator]
            **batch.inputs, generation_config=config, logits_processor=LogitsProcessorList([*triggered, _Dictation(tokens)])
        )
    logits = torch.stack(written.logits, 1)
    return [logits[row, : len(t.output_ids)].clone() for row, t in enumerate(some)]


class _Dictation(LogitsProcessor):
    """Lets the model write given tokens and no others."""

    def __init__(self, tokens: Int64[Tensor, "b o"]) -> None:
        self._tokens, self._written = tokens, 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        token = self._tokens[:, self._written, None]
        self._written += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def _config(
    lens: LensModel,
    prompts: Sequence[Prompt],
    prefixes: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    temperature: float | None,
) -> GenerationConfig:
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} and batch_size={batch_size} must be at least 1")
    if len(prefixes) != len(prompts):
        raise ValueError(f"{len(prefixes)} prefixes for {len(prompts)} prompts; give one for each, empty where nothing is replayed")
    if ended := [prompt.id for prompt, prefix in zip(prompts, prefixes, strict=True) if set(prefix) & set(lens.markers.eos_ids)]:
        raise ValueError(f"the prefix of {ended[0]!r} holds the end token: that output has ended. Cut the prefix before it.")
    if (lens.model.generation_config.num_beams or 1) > 1:
        raise ValueError(
            f"the generation config of {lens.name} asks for {lens.model.generation_config.num_beams} beams, whose rows change places while "
            "they are written. Set lens.model.generation_config.num_beams = 1."
        )
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature={temperature} is no temperature; leave it out for greedy decoding")
    sampling = {"do_sample": False} if temperature is None else {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        num_beams=1,
        suppress_tokens=[] if lens.frame.image_token_id is None else [lens.frame.image_token_id],
        num_return_sequences=1,
        repetition_penalty=1.0,
        use_cache=True,
        eos_token_id=list(lens.markers.eos_ids),
        pad_token_id=lens.pad_id,
        **sampling,
    )


def _by_length(lens: LensModel, prompts: Sequence[Prompt], prefixes: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Batches of indices in which rows need little padding: as many pictures each, and about as many tokens."""
    texts = lens.tokenizer([prompt.text for prompt in prompts], add_special_tokens=False)["input_ids"] if prompts else []
    sizes = [(len(prompt.images), len(text) + len(prefix)) for prompt, text, prefix in zip(prompts, texts, prefixes, strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: (sizes[i], i))
    return batched(lens, order, [len(prompt.images) for prompt in prompts], batch_size)


def _run(
    lens: LensModel, batch: Batch, chosen: Sequence[int], config: GenerationConfig, kept: Kept | None
) -> tuple[list[list[int]], list[dict[str, Any]]]:
    """New tokens of each row, through the end token if it came, and what steering did in it."""
    steering = lens.steering
    forwards = 0 if steering is None else steering.forwards
    writing = LogitsProcessorList([steering.logits_processor]) if steering is not None and steering.writes else None
    if steering is not None:
        last = batch.lengths - batch.prompt_lengths + int(config.max_new_tokens or 0) - 1  # the token that only a recording runs
        steering.expect(batch.prompt_lengths, rows=torch.tensor(chosen), counting=None if kept is None else last.to(lens.device))
    try:
        with _plain(lens.model):
            ids = (
                lens.model.generate(**batch.inputs, generation_config=config, logits_processor=writing)  # type: ignore[operator]
                if kept is None
                else kept.generate(writing)
            )
    finally:
        if steering is not None:
            steering.expect(None)
    ends = set(lens.markers.eos_ids)
    rows = [
        row[: next((n for n, token in enumerate(row, 1) if token in ends), len(row))]
        for row in ids[:, batch.inputs["input_ids"].shape[1] :].tolist()
    ]
    if steering is None:
        return rows, [{} for _ in rows]
    if steering.forwards == forwards:
        raise RuntimeError(
            f"{lens.name} wrote {len(rows)} outputs and steering saw none of its forwards, so they are not steered. Let the model's own "
            "modules run: nothing that replaces model.generate, no exported or captured graph."
        )
    return rows, _facts(steering, batch, rows)


def _check_steering(lens: LensModel, prompts: Sequence[Prompt]) -> None:
    """ValueError where the active steering cannot take these prompts, RuntimeError where the model is steered through another LensModel."""
    if lens.steering is not None:
        lens.steering.check(prompts)
    elif taken(lens.inner):
        raise RuntimeError(f"{lens.name} is being steered through another LensModel of the same weights. Generate through that one.")


def _facts(steering: Steering, batch: Batch, rows: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """What steering did in each row, as fields of its transcript."""
    inserted, stopped = steering.written()
    facts = []
    for row, record in enumerate(steering.record()):
        prefix = len(batch.ids[row]) - int(batch.prompt_lengths[row])
        fired_at = tuple(sorted(map(int, record.fired_at)))
        ranges = [(start, min(stop, prefix + len(rows[row]))) for start, stop in inserted[row] if start < prefix + len(rows[row])]
        facts.append({"fired": len(fired_at), "fired_at": fired_at, "inserted": tuple(ranges), "stopped": stopped[row]})
    return facts


def _watch(lens: LensModel, prompts: Sequence[Prompt]) -> None:
    """Leave the readouts of a batch with the steering."""
    if lens.steering is not None:
        for prompt, record in zip(prompts, lens.steering.record(), strict=True):
            lens.steering.watch(prompt.id, record)


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """Without the checkpoint's generation config: transformers fills what a call leaves open with it (min_p, bad_words_ids, …)."""
    own, model.generation_config = model.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = own


def _transcript(
    lens: LensModel, prompt: Prompt, condition: str, prompt_ids: Sequence[int], output_ids: tuple[int, ...], facts: Mapping[str, Any]
) -> Transcript:
    closed = output_ids[-1] in lens.markers.eos_ids
    parts = split(output_ids, lens.markers, lens.opened)
    thought, answer = pieces(output_ids, parts)

    def text(ids: Sequence[int]) -> str:
        return str(lens.tokenizer.decode(ids, skip_special_tokens=False))

    return Transcript(
        prompt=prompt,
        model=lens.name,
        condition=condition,
        prompt_ids=tuple(prompt_ids),
        output_ids=output_ids,
        text=text(output_ids[: len(output_ids) - closed]),
        ended=closed and not facts.get("stopped", False),
        status=parts.status,
        thought=text(thought).strip(),
        answer=text(answer).strip(),
        **facts,
    )


def _recorder(
    lens: LensModel,
    prompts: Sequence[Prompt],
    where: Select | None,
    into: str | Path | None,
    labels: Labels | None,
    config: GenerationConfig,
    condition: str,
) -> AbstractContextManager[Recorder | None]:
    if (where is None) != (into is None) or (where is None and labels is not None):
        raise ValueError(
            "where= says which hidden states to keep, into= in which folder, labels= with which columns: pass where and into, or none."
        )
    if where is None or into is None:
        return nullcontext()
    job = {"condition": condition, "max_new_tokens": config.max_new_tokens, "temperature": config.temperature}
    return recording(lens, prompts, where, into, labels=labels, job=job)


def _condition(lens: LensModel) -> str:
    steering = lens.steering
    if steering is None or not (steering.edits or steering.writes):
        return "unsteered"
    acting = [str(trigger) for trigger in steering.triggers if trigger.do != "flag"]
    return "; ".join([*([str(steering)] if steering.edits else []), *acting])


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)
