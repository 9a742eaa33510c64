"""Hidden states of a generation, kept while the tokens are written: no second forward.

    prefill     columns 0 … n − 1     the padded prompts, and output that is replayed
    decoding    column n, n + 1, …    the token written last

Hooks fill one buffer per site, column by column. When a batch is written, its spans are known; they are pooled from the buffers and go to
the store in one piece. Columns that no span can reach (all of the prompt, for a selection of the thought) are never kept.

generate() stops before its last token has been through the model. Here it stops one token late: the last token is run, what is written
after it is dropped, and random numbers go on from where they were. So the outputs are the same with and without recording, and the hidden
states are those a teacher-forced forward of the same transcripts gives. Under steering they are the steered ones.

Shapes: b rows, n padded prompt length, c columns kept, d width.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from .capture import SHARD_BYTES, meta
from .encode import Batch
from .model import LensModel
from .planning import Labels, Wanted, about, check_labels, check_pictures, index_rows, pictures_sha, places, sites_and_width, spans_of
from .reading import Landing, never_ran, reading
from .records import Prompt, Transcript
from .select import Pool, Select
from .shards import Writer, writing
from .sites import Site
from .spans import DECISION, parse_span
from .store import META, PARTS

log = logging.getLogger(__name__)


@contextmanager
def recording(
    lens: LensModel, prompts: Sequence[Prompt], where: Select, into: str | Path, *, labels: Labels | None, job: Mapping[str, Any]
) -> Iterator[Recorder]:
    """A store at `into` that fills while batches are generated, finished when the block ends.

    job   what else tells this generation from another, JSON-able
    ValueError for what cannot be read, labels that do not cover the prompts, a folder that holds something. Where no output has any of the
    spans there is no store and a warning: what was written is not lost. What goes wrong while a shard is written, such as DiskFull, is
    raised, and the transcripts of that generation with it: generate without a store first where they are dear, and capture() them.
    """
    if late := [span for span in where.spans if parse_span(span).base == DECISION]:
        raise ValueError(
            f'the span "{late[0]}" is found in what was written. Generate first, then capture(lens, transcripts, where, '
            'decisions=anchor.find(lens, transcripts)); "step_ends" can be kept while the tokens are written.'
        )
    check_labels([prompt.id for prompt in prompts], labels)
    sites, width = sites_and_width(lens, where)
    check_pictures(lens, sites, [bool(prompt.images) for prompt in prompts])
    said = "\n".join(f"{prompt.id} {prompt.text} {prompt.system} {pictures_sha(prompt)}" for prompt in prompts)
    job = {"generated": dict(job), "prompts_sha": hashlib.sha256(said.encode()).hexdigest()}
    with writing(into, meta(lens, where, sites, width, job)) as writer:
        if writer.finished or writer.done:
            raise ValueError(
                f"{into} holds what a generation wrote before. A generation begins anew: choose another folder, or delete this one."
            )
        recorder = Recorder(lens, where, sites, width, writer, labels)
        yield recorder
        recorder.finish()


class Recorder:
    """What one generation has put into its store so far."""

    def __init__(self, lens: LensModel, where: Select, sites: Sequence[Site], width: int, writer: Writer, labels: Labels | None) -> None:
        self.lens, self.where, self.sites, self.width = lens, where, sites, width
        self._writer, self._labels = writer, labels
        self._vectors: list[Tensor] = []
        self._rows: list[pd.DataFrame] = []
        self._shards = self._transcripts = 0
        self._there: Counter[str] = Counter()

    def begin(self, batch: Batch, config: GenerationConfig) -> Kept:
        """Room for the hidden states of a batch."""
        return Kept(self.lens, self.sites, batch, _first_column(self.lens, batch, self.where), config)

    def store(self, kept: Kept, numbers: Sequence[int], transcripts: Sequence[Transcript]) -> None:
        """Pool the spans of a batch that was written; `numbers` are those of its rows among the prompts."""
        found = [spans_of(self.lens, n, t.prompt_ids, t.output_ids, self.where) for n, t in zip(numbers, transcripts, strict=True)]
        some = [one for spans in found for one in spans]
        self._transcripts += len(found)
        self._there.update(one.span for one in some)
        if not some:
            return
        vectors = torch.empty(sum(one.vectors(self.where.pool) for one in some), len(self.sites), self.width)
        self._vectors.append(kept.pooled(some, numbers, self.where.pool, vectors))
        self._rows.append(index_rows(about(transcripts, self._labels, numbers).assign(model=self.lens.name), self.where, some))
        if sum(vectors.nbytes for vectors in self._vectors) >= SHARD_BYTES:
            self._write()

    def finish(self) -> None:
        """Write what is left, and warn of a span that was found in no output. Where none was found, nothing is left in the folder."""
        lacking = [span for span in self.where.spans if not self._there[span]]
        if len(lacking) == len(self.where.spans):
            log.warning(
                'no hidden state was captured: span "%s" is empty in %d of %d outputs (dialect "%s"), so there is no store at %s. Generate '
                "longer, load the model with the dialect it writes, or capture() these transcripts with another span, such as "
                '"last_prompt".',
                *(lacking[0], self._transcripts, self._transcripts, self.lens.dialect.name, self._writer.path),
            )
            return clear(self._writer.path)
        for span in lacking:
            log.warning('span "%s" is empty in all %d outputs: the store has no row for it', span, self._transcripts)
        if self._vectors:
            self._write()
        self._writer.finish()

    def _write(self) -> None:
        self._writer.write(self._shards, self._vectors, pd.concat(self._rows, ignore_index=True))
        self._vectors, self._rows, self._shards = [], [], self._shards + 1


def clear(path: Path) -> None:
    """Remove what a generation began in the folder of a store and put nothing into."""
    (path / META).unlink()
    for folder in (path / PARTS, path / "shards"):
        shutil.rmtree(folder, ignore_errors=True)


class Kept:
    """The hidden states of one batch while it is generated.

    first    column of the padded batch from which on they are kept
    states   site -> [b, c, d] in the model's dtype, where the layer is
    """

    def __init__(self, lens: LensModel, sites: Sequence[Site], batch: Batch, first: int, config: GenerationConfig) -> None:
        self.lens, self.sites, self.batch, self.first, self._config = lens, sites, batch, first, config
        self.states: dict[Site, Tensor] = {}
        self._last = int(batch.inputs["input_ids"].shape[1]) + int(config.max_new_tokens or 0)
        self._start = self._stop = 0
        self._ids: list[Int64[Tensor, "b p"]] = []
        self._filled: dict[Site, int] = {}

    def generate(self, processors: LogitsProcessorList | None = None) -> Int64[Tensor, "b n"]:
        """model.generate for the batch, every token run. ValueError when what ran was not what was written, or a site did not run."""
        lens, config = self.lens, GenerationConfig.from_dict(self._config.to_dict())
        limit = int(config.max_new_tokens or 0)
        config.max_new_tokens = limit + 1
        config.eos_token_id = None  # the end is Late's
        late = _Late(lens.markers.eos_ids, limit, lens.device, self._over)
        watching = lens.inner.register_forward_pre_hook(lambda _, args, kwargs: self._forward(args, kwargs), with_kwargs=True)
        try:
            with reading(lens, self.sites, self._take):
                ids: Tensor = lens.model.generate(  # type: ignore[operator]
                    **self.batch.inputs,
                    generation_config=config,
                    stopping_criteria=StoppingCriteriaList([late]),
                    logits_processor=processors,
                )[:, :-1]
        finally:
            watching.remove()
        _set_random_state(lens.device, self._random)
        if not torch.equal(torch.cat(self._ids, 1)[:, : ids.shape[1]], ids):
            raise ValueError(
                f"{lens.name} ran other tokens than it wrote, so hidden states cannot be told apart. Leave prefill_chunk_size and assisted "
                "generation unset, or generate first and capture() the transcripts."
            )
        if idle := [site for site in self.sites if self._filled.get(site, 0) < ids.shape[1]]:
            raise ValueError(never_ran(lens, idle))
        return ids

    def pooled(
        self, some: Sequence[Wanted], numbers: Sequence[int], pool: Pool, out: Float[Tensor, "v site d"]
    ) -> Float[Tensor, "v site d"]:
        """The spans `some` of the rows, which are the transcripts `numbers`."""
        columns, offsets = self._last - self.first, self.batch.offsets.tolist()
        starts = {number: row * columns + offsets[row] - self.first for row, number in enumerate(numbers)}
        landing = Landing(self.sites, *places(some, starts), pool, out)
        for site in self.sites:
            landing.take(site, self.states[site])
        return landing.wait()

    def _forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise ValueError("hidden states are kept by token ids, and this forward was given inputs_embeds alone. Pass input_ids.")
        self._start, self._stop = self._stop, self._stop + ids.shape[1]
        self._ids.append(ids)

    def _take(self, site: Site, hidden: Float[Tensor, "b p *d"]) -> None:
        if site not in self.states:
            self.states[site] = hidden.new_empty(len(hidden), self._last - self.first, *hidden.shape[2:])
        start, stop = max(self._start, self.first), min(self._stop, self._last)
        if start < stop:
            self.states[site][:, start - self.first : stop - self.first] = hidden[:, start - self._start : stop - self._start]
        self._filled[site] = self._stop

    def _over(self) -> None:
        """Everything is written; what follows is the forward of the last token."""
        self._random = _random_state(self.lens.device)


class _Late(StoppingCriteria):
    """Ends a row one token after its end token, or after `limit` + 1 tokens; over() is called when the last one that counts is written."""

    def __init__(self, ends: Sequence[int], limit: int, device: torch.device, over: Callable[[], None]) -> None:
        self.eos_token_id = torch.tensor(
            list(ends), device=device
        )  # by this name generate() knows to go on with padding in a row that ended
        self._limit, self._over = limit, over
        self._written, self._ended = 0, torch.zeros(0, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Bool[Tensor, " b"]:
        before = self._ended if self._written else torch.zeros_like(input_ids[:, 0], dtype=torch.bool)
        self._ended = before | torch.isin(input_ids[:, -1], self.eos_token_id)
        self._written += 1
        if self._written > self._limit:
            return torch.ones_like(before)
        if not bool(before.all()) and (self._written == self._limit or bool(self._ended.all())):
            self._over()
        return before


def _first_column(lens: LensModel, batch: Batch, where: Select) -> int:
    """Where the first token stands that a span may hold: one that holds nothing of the prompt will not, however the output goes on."""
    prompts = [ids[:length] for ids, length in zip(batch.ids, batch.prompt_lengths.tolist(), strict=True)]
    found = [spans_of(lens, 0, ids, (), where) for ids in prompts]
    first = [min((int(one.positions[0]) for one in some), default=len(ids)) for some, ids in zip(found, prompts, strict=True)]
    return min(offset + start for offset, start in zip(batch.offsets.tolist(), first, strict=True))


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
