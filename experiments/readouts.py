"""The `readouts` table: what a probe for `harmful` reads at every token and every layer of a few test prompts, unsteered and steered.

At each layer of resid_post it is the logistic probe of the detection sweep at ONE moment, that of the trajectory's probe, and it is applied
to every token: layers are comparable, and so are tokens. A score is the probe's own logit, w · h + b, the log-odds of harmful as they were
at the moment it was fitted at; at other tokens it says how far along the same direction the hidden state lies, and no probability.

    unsteered    the writer, and the other models on the writer's tokens, each read with probes of its own
    steered      the writer, run over what it wrote under steering with the steering switched on, and read after it has acted

Shapes: b rows, n padded length, l layers, t tokens from the last of the prompt on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..hooks.capture import check_unsteered, encode_transcripts
from ..hooks.divergence import numbered
from ..hooks.edits import Edit
from ..hooks.encode import Batch
from ..hooks.frame import token_kinds
from ..hooks.gates import AtSteps
from ..hooks.kinds import KINDS
from ..hooks.model import LensModel
from ..hooks.planning import batched, check_transcripts
from ..hooks.reading import reading
from ..hooks.records import Transcript
from ..hooks.sites import Site, parse_site
from ..hooks.steer import steer
from ..hooks.steering import Steering
from ..hooks.store import Store
from ..hooks.vector import Vector
from ..probes.fit import fit_probes
from ..probes.probe import Probe
from .run import Run

SITE = "resid_post"
ROW_GROUP = 20_000  # a prompt is read by itself: few of its rows lie beside those of others
ORDER = ["prompt_id", "model", "condition", "layer", "position"]
COLUMNS = (*("prompt_id", "model", "condition", "written_by", "span", "layer", "position", "kind", "token", "step", "score", "fired"),)


@dataclass(frozen=True, eq=False)
class Steered:
    """What was written under steering, and the edit that was active."""

    transcripts: Sequence[Transcript]
    edit: Edit


def readouts(
    lenses: Mapping[str, LensModel], stores: Mapping[str, Store], said: Sequence[Transcript], span: str, steered: Steered | None = None
) -> pd.DataFrame:
    """The table: all models on the same tokens and, if it was steered, the writer of `said` on what it wrote then.

    lenses    by the name of their store
    span      where the probes are fitted
    """
    writer = said[0].model
    probes = {model: layer_probes(stores[model], span) for model in lenses}
    parts = [read_tokens(lens, said, probes[model]) for model, lens in lenses.items()]
    if steered is not None and writer in lenses:
        parts.append(read_tokens(lenses[writer], steered.transcripts, probes[writer], edit=steered.edit))
    table = pd.concat(parts, ignore_index=True).assign(span=span)
    return table.sort_values(ORDER, ignore_index=True, kind="stable")[list(COLUMNS)]


def layer_probes(store: Store, span: str) -> list[Probe]:
    """The logistic probe of every layer at one moment, as the detection sweep fits it."""
    sites = [site for site in store.sites if parse_site(site)[0] == SITE]
    if not sites:
        raise ValueError(f"{store.path} holds no {SITE}, only {', '.join(store.sites)}. Capture --sites {SITE}")
    sweep = fit_probes(store, spans=[span], sites=sites, kinds=["logistic"], shuffles=0, directions=0, resampled=0, progress=False)
    return [sweep.probes[site, span, "logistic"] for site in sites]


def headline(run: Run, written: Sequence[Transcript]) -> Steered | None:
    """What was written under the headline's vector, with its edit; None where the run has no such vector or nothing was written.

    The gate of a probe is not needed: it had decided when that was written.
    """
    file = run.path("vectors", "headline.safetensors")
    if not written or not file.is_file():
        return None
    vector = Vector.load(file)
    how, steps = vector.recommended.get("operator", "add"), vector.recommended.get("gate") == "steps"
    edit = Edit(vector, operator=how, spans="thought", gate=AtSteps()) if steps else Edit(vector, operator=how)
    return Steered(written, edit)


@torch.no_grad()
def read_tokens(
    lens: LensModel, transcripts: Sequence[Transcript], probes: Sequence[Probe], *, edit: Edit | None = None, batch_size: int = 32
) -> pd.DataFrame:
    """What probes read at the last prompt token (position -1) and at every token of the output, in one teacher-forced forward.

    probes    one a layer
    edit      active meanwhile, in those transcripts in which it acted; a hidden state that it changes is read as changed. ValueError where
              it acts at other tokens than it did when they were written
    """
    check_transcripts(transcripts)
    check_unsteered(lens)
    pictures = [len(t.prompt.images) for t in transcripts]
    lengths = [len(t.prompt_ids) + len(t.output_ids) for t in transcripts]
    order = sorted(range(len(transcripts)), key=lambda i: (0 if lens.family.mixes else pictures[i], -lengths[i]))
    found: dict[int, pd.DataFrame] = {}
    with ExitStack() as stack:
        steering = None
        if edit is not None:
            steering = stack.enter_context(steer(lens, edit, rows=[bool(t.fired_at) for t in transcripts]))
            steering.check([t.prompt for t in transcripts])
        for some in batched(lens, order, pictures, batch_size):
            these = [transcripts[i] for i in some]
            batch = encode_transcripts(lens, these)
            for i, scores in zip(some, _scores(lens, batch, some, these, probes, steering), strict=True):
                found[i] = _rows(lens, transcripts[i], probes, scores)
    return pd.concat([found[i] for i in range(len(transcripts))], ignore_index=True)


def _scores(
    lens: LensModel, batch: Batch, some: Sequence[int], these: Sequence[Transcript], probes: Sequence[Probe], steering: Steering | None
) -> Iterator[Float[Tensor, "l t"]]:
    """One forward: per transcript what each probe reads from the last prompt token on."""
    read: dict[Site, Float[Tensor, "b n"]] = {}
    at = {lens.expand(probe.site)[0]: probe for probe in probes}

    def take(site: Site, hidden: Float[Tensor, "b n d"]) -> None:
        read[site] = at[site].readout(hidden).cpu()

    if steering is not None:
        steering.expect(batch.prompt_lengths, rows=torch.tensor(some), whole=[[*t.prompt_ids, *t.output_ids] for t in these])
    try:
        with reading(lens, list(at), take):
            lens.inner(**batch.inputs, use_cache=False)
    finally:
        if steering is not None:
            steering.expect(None)
    if steering is not None:
        _check_fired(steering, these)
    scores = torch.stack([read[site] for site in at], 1)
    for row, (offset, begun, length) in enumerate(
        zip(batch.offsets.tolist(), batch.prompt_lengths.tolist(), batch.lengths.tolist(), strict=True)
    ):
        yield scores[row, :, offset + begun - 1 : offset + length]


def _check_fired(steering: Steering, these: Sequence[Transcript]) -> None:
    """ValueError unless the edit acted where it had acted. The token written last was never run then."""
    for record, transcript in zip(steering.record(), these, strict=True):
        last = len(transcript.prompt_ids) + len(transcript.output_ids) - 1
        if (now := set(record.fired_at.tolist()) - {last}) != set(transcript.fired_at) - {last}:
            raise ValueError(
                f"{steering} acts at {len(now)} tokens of {transcript.id!r}, and acted at {len(transcript.fired_at)} when it was written "
                f"({transcript.condition}). Pass the edit that was active then."
            )


def _rows(lens: LensModel, transcript: Transcript, probes: Sequence[Probe], scores: Float[Tensor, "l t"]) -> pd.DataFrame:
    ids, begun = (*transcript.prompt_ids, *transcript.output_ids), len(transcript.prompt_ids)
    kinds = token_kinds(ids, begun, lens.frame, lens.markers).tolist()
    steps, _ = numbered(kinds, ids, lens.markers)
    there, (layers, tokens) = slice(begun - 1, len(ids)), scores.shape
    of_token = {
        "position": np.arange(-1, len(ids) - begun, dtype=np.int32),
        "kind": np.array([KINDS[kind] for kind in kinds[there]], dtype=object),
        "token": np.array(lens.tokenizer.convert_ids_to_tokens(list(ids[there])), dtype=object),
        "step": np.array(steps[there], dtype=np.int32),
        "fired": np.isin(np.arange(begun - 1, len(ids)), transcript.fired_at),
    }
    layer = np.array([parse_site(probe.site)[1] for probe in probes], dtype=np.int32)
    return pd.DataFrame(
        {
            **{"model": lens.name, "condition": transcript.condition, "written_by": transcript.model, "prompt_id": transcript.id},
            **{name: np.tile(column, layers) for name, column in of_token.items()},
            **{"layer": layer.repeat(tokens), "score": scores.flatten().float().numpy()},
        }
    )
