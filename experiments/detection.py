"""Where and when unsafe intent is linearly readable: probes over layers and moments of the thought, beside what the words alone tell.

The words a probe is compared with are those the model had written (or read) when the probed moment came: the user's text for
`last_prompt`, the thought up to and including the span for moments of the thought.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..hooks.model import LensModel
from ..hooks.records import Transcript
from ..hooks.store import Store
from ..probes.fit import Texts
from ..probes.sweep import ranked
from ..probes.trajectory import trajectory

__all__ = ["texts_at", "trajectory", "wordless"]


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


def wordless(table: pd.DataFrame, model: str, *, at_most: float = 0.6) -> pd.DataFrame:
    """Dev rows of a model's logistic probes inside the thought, best first, at moments where bag-of-words stays at `at_most` on dev.

    What a linear probe reads there the model has computed: it is not linearly in the words. ValueError if there is no such moment.
    """
    best = ranked(table[(table.model == model) & (table.probe == "logistic")])
    inside = best[best.span.str.startswith(("step", "thought")) & ((best.text_auroc - 0.5).abs() <= at_most - 0.5)]
    if inside.empty:
        raise ValueError(f"in the thought of {model} there is no moment where bag-of-words stays at {at_most}; the words tell everywhere")
    return inside
