"""The same tokens through a trio: base, reasoning and safety-tuned model in lock-step, and their rows side by side.

Each batch is encoded once and run through every model before the next, so pictures and texts are prepared once and all stores hold the same
rows. What the models must share for that is checked first: without it a difference between their hidden states could be one of tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from .capture import SHARD_BYTES, check_unsteered, fill, meta
from .files import short
from .model import LensModel
from .planning import Decisions, Labels, make_plan
from .records import Transcript
from .select import Select
from .shards import writing
from .store import Store

SHARED: Mapping[str, Callable[[LensModel], Any]] = {
    "tokenizer (vocabulary)": lambda lens: lens.tokenizer.get_vocab(),
    "chat template (what it writes around the prompt)": lambda lens: (lens.frame, lens.template),
    "dialect (markers of the thought, end tokens)": lambda lens: lens.markers,
    "picture processing": lambda lens: lens.processor.image_processor.to_dict() if lens.family.image_token else {},
    "width": lambda lens: lens.width,
    "layers": lambda lens: lens.blocks,
}
ROW = ("prompt_id", "condition", "span", "start", "stop", "ids_sha")


def capture_trio(
    models: Mapping[str, LensModel],
    transcripts: Sequence[Transcript],
    where: Select,
    *,
    into: str | Path,
    batch_size: int = 32,
    labels: Labels | None = None,
    progress: bool = True,
    allow_empty: bool = False,
    decisions: Decisions | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Store]:
    """Read `where` in every transcript with every model; one store per model, in the folders `into`/<name>, with the same rows.

    models   name -> model; a name is a folder too
    The rest as in capture(), of which each store is what it would have written. What was killed is resumed, what is finished is not run.
    Raises ValueError for models that differ in what they must share (SHARED), and as capture().
    """
    check_alike(models)
    for lens in models.values():
        check_unsteered(lens)
    first = next(iter(models.values()))
    plan = make_plan(
        first,
        transcripts,
        where,
        batch_size=batch_size,
        shard_bytes=shard_bytes,
        labels=labels,
        allow_empty=allow_empty,
        decisions=decisions,
    )
    job = {**plan.job, "batch_size": batch_size, "shard_bytes": shard_bytes}
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(writing(Path(into) / name, meta(lens, where, plan.sites, plan.width, job)))
            for name, lens in models.items()
        }
        unread = {name: lens for name, lens in models.items() if not writers[name].finished}
        if unread:
            fill(unread, writers, plan, batch_size=batch_size, progress=progress)
        return {name: writer.finish() for name, writer in writers.items()}


def check_alike(models: Mapping[str, LensModel]) -> None:
    """Raise ValueError unless the models read the same tokens in the same way and have the same shape."""
    if not models:
        raise ValueError('there is no model to read with. Pass models={"base": …, "reasoning": …, "safe": …}.')
    (one, first), *others = models.items()
    for what, fact in SHARED.items():
        for name, lens in others:
            if difference := _difference(fact(first), fact(lens)):
                raise ValueError(
                    f"{one!r} and {name!r} cannot be read in lock-step, they differ in their {what}: {difference}. "
                    "Take models of one family, loaded alike (load(…, dialect=…, template=…) where their names differ), "
                    "or capture() each by itself."
                )


def aligned(
    stores: Mapping[str, Store], where: Mapping[str, Any] | None = None, *, sites: Sequence[str] | None = None
) -> tuple[dict[str, Float[Tensor, "rows sites d"]], pd.DataFrame]:
    """The rows of several stores side by side: row i of each is the same tokens of the same transcript. And what they are, from the index.

    where, sites   as in Store.rows; the sites default to all, which must then be the same
    Raises ValueError where the stores do not hold the same rows.
    """
    if not stores:
        raise ValueError("there is no store to align. Pass several, by name.")
    (one, first), *_ = stores.items()
    found: dict[str, Tensor] = {}
    told: dict[str, pd.DataFrame] = {}
    for name, store in stores.items():
        if sites is None and store.sites != first.sites:
            raise ValueError(f"{name!r} holds other sites than {one!r}: {', '.join(store.sites)}. Name the common ones with sites=.")
        vectors, index = store.rows(where, sites=first.sites if sites is None else sites)
        order = index.sort_values(list(ROW), kind="stable").index.to_numpy()
        found[name], told[name] = vectors[torch.tensor(order)], index.loc[order].reset_index(drop=True)
        if not told[name][list(ROW)].equals(told[one][list(ROW)]):
            both = told[one][list(ROW)].merge(told[name][list(ROW)], how="outer", indicator=True)
            lone = both[both["_merge"] != "both"]
            raise ValueError(
                f"{one!r} and {name!r} do not hold the same rows: {len(lone)} are in one of them only, the first of prompt "
                f"{lone['prompt_id'].iloc[0]!r}, span {lone['span'].iloc[0]!r}. Capture the same transcripts with both (capture_trio)."
            )
    return found, told[one].drop(columns=["model", "shard", "offset", "shard_sha"])


def _difference(one: Any, other: Any) -> str:
    """Where two values part, in words; empty when they are the same."""
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        pairs = {field.name: (getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one)}
        return next((f"{name} {said}" for name, (a, b) in pairs.items() if (said := _difference(a, b))), "")
    if isinstance(one, Tensor):
        return "" if one.shape == other.shape and bool((one == other).all()) else "not the same tokens"
    if isinstance(one, dict):
        key = next((key for key in {**one, **other} if one.get(key) != other.get(key)), None)
        return "" if key is None else f"{key!r} is {short(one.get(key))} and {short(other.get(key))}"
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return next((said for a, b in zip(one, other, strict=True) if (said := _difference(a, b))), "")
    return "" if one == other else f"{short(one)} and {short(other)}"
