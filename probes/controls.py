"""Controls: what a probe has to beat before its AUROC means anything.

shuffled labels    the same fit on labels that carry no signal (Hewitt and Liang 2019, "Designing and interpreting probes with control
                   tasks"). Labels are shuffled within each group, then whole groups are exchanged, so shuffled labels cluster in groups as
                   the true ones do; a free permutation would break the clusters and make the control too easy to beat.
bag of words       what the words alone tell. Hidden states of a text contain its words: only what a probe reads beyond them is hidden.

Shapes: y [n], shuffled [f, n] (`n` rows, `f` shuffles).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from .metrics import auroc

WORDS = r"\S+"
PENALTIES = (0.01, 0.1, 1.0)


def shuffle_labels(y: Bool[Tensor, " n"], groups: Shaped[np.ndarray, " n"], n: int, seed: int = 0) -> Bool[Tensor, "f n"]:
    """`n` shuffles of y, each with as many positives as y, group by group (see above)."""
    rng = np.random.default_rng(seed)
    _, member = np.unique(groups, return_inverse=True)
    labels = y.cpu().numpy()
    shuffled = np.empty((n, len(labels)), dtype=bool)
    for row in shuffled:
        exchanged = rng.permutation(member.max() + 1)[member]
        given = np.lexsort((rng.random(len(labels)), exchanged))  # rows in the order of the exchanged groups, shuffled within each
        row[np.argsort(member, kind="stable")] = labels[given]
    return torch.from_numpy(shuffled).to(y.device)


def bag_of_words(
    texts: Mapping[str, Sequence[str]], y: Mapping[str, Bool[Tensor, " n"]], *, fit: str = "train", choose: str = "dev"
) -> dict[str, float]:
    """AUROC on every side but `fit` of the strongest word model: words or words and pairs, and its penalty, chosen on `choose`.

    `texts` and `y` map a side to its texts and labels. Texts without any word tell nothing: 0.5.
    """
    if not any(text.split() for text in texts[fit]):
        return {side: 0.5 for side in texts if side != fit}
    best: dict[str, float] = {}
    for longest in (1, 2):
        counts = CountVectorizer(token_pattern=WORDS, ngram_range=(1, longest))
        features = {fit: counts.fit_transform(texts[fit])} | {side: counts.transform(texts[side]) for side in texts if side != fit}
        for penalty in PENALTIES:
            model = LogisticRegression(C=penalty, max_iter=1000).fit(features[fit], y[fit].numpy())
            scores = {side: torch.from_numpy(model.decision_function(features[side])) for side in texts if side != fit}
            found = {side: float(auroc(scores[side], y[side])) for side in scores}
            if not best or found[choose] > best[choose]:
                best = found
    return best
