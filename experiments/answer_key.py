"""Decisions that were found beside an answer key: precision and recall over boundaries, with intervals over goals.

    precision = found and in the key / found            recall = found and in the key / in the key

Only a made-up world has a key. It is looked at when everything is decided, and nothing is chosen by it. Intervals draw whole groups (Field
and Welsh 2007); where no draw differs, as when all are hits, the bound is the exact binomial one for as many groups (Clopper and Pearson
1934), since that many goals cannot show more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..hooks.divergence import numbered
from ..hooks.frame import token_kinds
from ..hooks.model import LensModel
from ..hooks.records import Transcript
from ..probes.metrics import resamples
from .organism import thoughts

KEYS: Mapping[str, Callable[[str], list[int]]] = {"organism": thoughts.decisions}  # benchmark -> numbers of steps of a thought


def positions(
    transcripts: Sequence[Transcript], lens: LensModel, annotated: Callable[[str], Sequence[int]] | None = None
) -> dict[str, set[int]]:
    """Prompt id -> output positions of the decisions the key knows, of transcripts whose benchmark has one (or all, with `annotated`)."""
    found = {}
    for t in transcripts:
        key = annotated or KEYS.get(t.prompt.benchmark or "")
        if key is not None:
            ids, begun = (*t.prompt_ids, *t.output_ids), len(t.prompt_ids)
            _, boundaries = numbered(token_kinds(ids, begun, lens.frame, lens.markers).tolist(), ids, lens.markers)
            ends = [at - begun for at, end in enumerate(boundaries) if end]
            found[t.id] = {ends[step] for step in key(t.thought) if step < len(ends)}
    return found


def against_key(
    found: Mapping[str, Collection[int]],
    key: Mapping[str, Collection[int]],
    groups: Mapping[str, str],
    *,
    resampled: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Two rows, precision and recall: value, low, high (95%), numerator, n (boundaries), thoughts, groups.

    found, key   prompt id -> output positions; ValueError where the key knows a thought that was not looked at
    """
    if unseen := sorted(set(key) - set(found)):
        raise ValueError(
            f"the key knows {len(unseen)} thoughts that were not looked at, first {unseen[0]!r}. Find decisions in all of them."
        )
    names = np.array([groups[id_] for id_ in key], dtype=str)
    hits, claimed, true = (
        np.array([len(some) for some in sizes])
        for sizes in zip(*((set(found[id_]) & set(key[id_]), set(found[id_]), set(key[id_])) for id_ in key), strict=True)
    )
    weights = resamples(names, resampled, seed).double().numpy()
    about = {"thoughts": len(key), "groups": len(np.unique(names))}
    rows = [_rate("precision", hits, claimed, weights, about), _rate("recall", hits, true, weights, about)]
    return pd.DataFrame(rows)


def _rate(metric: str, hits: np.ndarray, of: np.ndarray, weights: np.ndarray, about: Mapping[str, int]) -> dict[str, Any]:
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn, value = (weights @ hits) / (weights @ of), hits.sum() / of.sum() if of.sum() else np.nan
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    bound = 0.025 ** (1 / max(about["groups"], 1))
    low, high = (bound if low == 1 else low), (1 - bound if high == 0 else high)
    return {"metric": metric, "value": value, "low": low, "high": high, "numerator": int(hits.sum()), "n": int(of.sum()), **about}
