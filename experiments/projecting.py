"""The `projection` table: every prompt as a point, at every moment and layer, along two axes (probes/projection.py).

The axes of a moment and layer are fitted on the train rows of all models together, so that models are comparable, and the test rows are
drawn (dev, where there is no test). Rows without a label are drawn too, and help to fit axes only where there are not both labels.

share_x and share_y are shares of variance for `pca`; for `lda` share_x is the AUROC of x on the rows drawn, of all models together, and
share_y is nan.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..hooks.sites import parse_site
from ..hooks.store import Store
from ..probes.dataset import as_stores, select_rows
from ..probes.metrics import auroc
from ..probes.projection import FEWEST, discriminant, principal
from .asked import Unanswered

log = logging.getLogger(__name__)

SITE = "resid_post"
DRAWN = ("test", "dev")  # the first that there is
ORDER = ["span", "layer", "method", "model", "prompt_id"]
COLUMNS = ("model", "condition", "site", "layer", "span", "method", "prompt_id", "split", "x", "y", "share_x", "share_y")
ROW_GROUP = 5000
BYTES = 2**28  # hidden states that are read at a time


def projection(stores: Mapping[str, Store], spans: Sequence[str]) -> pd.DataFrame:
    """The points of some moments, at the layers of resid_post. A model that lacks a moment is not drawn there.

    Unanswered: no train rows to fit axes on, none to draw, no such site. Without both labels among the train rows there is no `lda`.
    """
    several = as_stores(list(stores.values()))
    sites = [site for site in several[0].sites if parse_site(site)[0] == SITE]
    splits = {split for store in several for split in store.index["split"].unique()}
    drawn = next((split for split in DRAWN if split in splits), "")
    if not sites:
        raise Unanswered(f"the stores hold no {SITE}, only {', '.join(several[0].sites)}; capture --sites {SITE}")
    if "train" not in splits or not drawn:
        there = ", ".join(sorted(filter(None, splits))) or "none"
        raise Unanswered(f"axes are fitted on train prompts and test prompts are drawn, and the splits are {there}; split before capturing")
    parts = [part for span in spans for part in _of_span(several, span, sites, drawn)]
    if not parts:
        raise Unanswered(f"no moment of {', '.join(spans)} has {FEWEST} train prompts and one to draw; capture more prompts")
    return pd.concat(parts, ignore_index=True).sort_values(ORDER, ignore_index=True, kind="stable")[list(COLUMNS)]


def _of_span(stores: Sequence[Store], span: str, sites: Sequence[str], drawn: str) -> Iterator[pd.DataFrame]:
    counts = [sum(store.arrow({"split": split, "span": span}).num_rows for store in stores) for split in ("train", drawn)]
    if counts[0] < FEWEST or not counts[1]:
        log.warning("nothing is drawn at %s: %d train and %d %s prompts", span, counts[0], counts[1], drawn)
        return
    step = max(1, BYTES // (4 * stores[0].width * sum(counts)))
    for start in range(0, len(sites), step):
        some = sites[start : start + step]
        fitted, of_train = select_rows(stores, span=span, where={"split": "train"}, sites=some)
        shown, of_drawn = select_rows(stores, span=span, where={"split": drawn}, sites=some)
        told = [
            {"site": site, "layer": parse_site(site)[1], "method": method, **columns}
            for i, site in enumerate(some)
            if _varies(fitted[:, i], span, site)
            for method, columns in _drawn(fitted[:, i].numpy(), of_train["harmful"], shown[:, i].numpy(), of_drawn["harmful"])
        ]
        about = of_drawn[["model", "condition", "span", "prompt_id", "split"]]
        if told:
            yield pd.concat([about] * len(told), ignore_index=True).assign(
                **{name: np.concatenate([np.broadcast_to(one[name], len(about)) for one in told]) for name in told[0]}
            )


def _varies(fitted: Float[Tensor, "n d"], span: str, site: str) -> bool:
    """Whether rows differ at all: at a token that is always the same, before it has seen another, they do not."""
    varies = bool((fitted != fitted[0]).any())
    if not varies:
        log.warning("nothing is drawn at %s, %s: all train prompts are alike there", span, site)
    return varies


def _drawn(
    fitted: Float[np.ndarray, "n d"], of_train: pd.Series[Any], shown: Float[np.ndarray, "m d"], of_drawn: pd.Series[Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where the drawn rows of one moment and site lie, by each method; given their labels and those of the rows that axes are fitted on."""
    known = of_train.notna().to_numpy(dtype=bool)
    y = of_train[known].to_numpy(dtype=bool)
    if y.any() and not y.all():
        found = {"pca": principal(fitted[known], y), "lda": discriminant(fitted[known], y)}
    else:
        found = {"pca": principal(fitted)}
    for method, axes in found.items():
        x, across = axes.points(shown).astype(np.float32).T
        share_x, share_y = axes.share if method == "pca" else (_auroc(x, of_drawn), math.nan)
        yield method, {"x": x, "y": across, "share_x": share_x, "share_y": share_y}


def _auroc(along: Float[np.ndarray, " m"], harmful: pd.Series[Any]) -> float:
    """nan where the drawn rows have one label."""
    known = harmful.notna().to_numpy(dtype=bool)
    return float(auroc(torch.from_numpy(along[known]), torch.from_numpy(harmful[known].to_numpy(dtype=bool))))
