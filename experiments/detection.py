"""Where and when unsafe intent is linearly readable: probes over layers and moments of the thought, beside what the words alone tell.

The words a probe is compared with are those the model had written (or read) when the probed moment came: the user's text for
`last_prompt`, the thought up to and including the span for moments of the thought.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..hooks.dialects import output_kinds, split
from ..hooks.kinds import Kind
from ..hooks.model import LensModel
from ..hooks.records import Transcript
from ..hooks.store import Store
from ..probes.fit import Texts
from ..probes.probe import Probe


def texts_at(store: Store, transcripts: Sequence[Transcript], lens: LensModel) -> Texts:
    """span -> prompt id -> the words up to that span's end, for the bag of words."""
    by_id = {t.id: t for t in transcripts}
    found: dict[str, dict[str, str]] = {}
    for row in store.index.itertuples():
        transcript = by_id[row.prompt_id]
        begun = len(transcript.prompt_ids)
        words = transcript.prompt.text if row.stop <= begun else str(lens.tokenizer.decode(transcript.output_ids[: row.stop - begun]))
        found.setdefault(row.span, {})[row.prompt_id] = words
    return found


def trajectory(store: Store, transcripts: Sequence[Transcript], probe: Probe, lens: LensModel) -> pd.DataFrame:
    """The `trajectory` table: the probe's readout at every token of thought and answer, from a store captured with pool "every".

    position counts output tokens from 0; step counts the sentences of the thought, -1 in the answer; harmful is the prompt's label.
    """
    hidden, index = store.rows({"span": ["thought", "answer"]}, sites=[probe.site])
    steps = {t.id: _steps(t, lens) for t in transcripts}
    written = {t.id: t.output_ids for t in transcripts}
    begun = {t.id: len(t.prompt_ids) for t in transcripts}
    rows = []
    for row, score in zip(index.itertuples(), probe.readout(hidden[:, 0]).tolist(), strict=True):
        at = row.start - begun[row.prompt_id]
        place = {
            "position": at,
            "kind": row.span,
            "token": lens.tokenizer.convert_ids_to_tokens(written[row.prompt_id][at]),
            "step": steps[row.prompt_id][at],
        }
        rows.append(
            {"model": row.model, "condition": row.condition, "prompt_id": row.prompt_id, **place, "score": score, "harmful": row.harmful}
        )
    return pd.DataFrame(rows).sort_values(["prompt_id", "position"], ignore_index=True)


def _steps(transcript: Transcript, lens: LensModel) -> list[int]:
    """For every output token the number of thought sentences finished before it; -1 outside the thought."""
    ids = transcript.output_ids
    parts = split(ids, lens.markers, lens.opened)
    kinds = output_kinds(parts, len(ids))
    thought = [at for at in range(*parts.thought) if kinds[at] == Kind.THOUGHT]  # headings inside the thought end no step
    ended = {at for at, end in zip(thought, lens.markers.ends(ids[at] for at in thought), strict=True) if end}
    steps, number = [-1] * len(ids), 0
    for at in range(*parts.thought):
        steps[at] = number
        number += at in ended
    return steps


def wordless(table: pd.DataFrame, model: str, *, at_most: float = 0.6) -> pd.DataFrame:
    """Dev rows of a model's logistic probes inside the thought, best first, at moments where bag-of-words stays at `at_most` on dev.

    What a linear probe reads there the model has computed: it is not linearly in the words. ValueError if there is no such moment.
    """
    dev = table[
        (table.model == model) & (table.probe == "logistic") & (table.split == "dev") & ((table.text_auroc - 0.5).abs() <= at_most - 0.5)
    ]
    inside = dev[dev.span.str.startswith(("step", "thought"))].sort_values(["auroc", "layer"], ascending=[False, True], kind="stable")
    if inside.empty:
        raise ValueError(f"in the thought of {model} there is no moment where bag-of-words stays at {at_most}; the words tell everywhere")
    return inside
