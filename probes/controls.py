"""Controls: what a probe has to beat before its AUROC means anything.

shuffled labels     the same fit on labels that carry no signal. Labels are shuffled within each group, then whole groups are exchanged, so
                    shuffled labels cluster in groups as the true ones do, and under no signal the two cannot be told apart.
random directions   no fit at all: directions drawn evenly on the sphere of the standardised hidden states, each turned so that the training
                    positives read higher. A class that fills the space is readable along many of them.
control task        the same fit on a task that can only be memorised: every type of prompt (an attack and a category) gets a random label,
                    the same on every side, dealt several times. Selectivity is the accuracy on the true task − the mean accuracy on the
                    deals of the control task; a probe that is good at both may have learned rather than read (Hewitt and Liang 2019,
                    "Designing and interpreting probes with control tasks").
words, tfidf        what the words alone tell: counts, or tf-idf (Spärck Jones 1972), under a logistic regression. Hidden states of a text
                    contain its words: only what a probe reads beyond them is hidden.
lengths             what the number of tokens tells, under a logistic regression on log(1 + count).

Baselines return scores, so that they are measured as probes are. Only `choose` sees a choice made, only `fit` a fit.

Shapes: y [n], shuffled [f, n], x [s, n, d] (`n` rows, `f` shuffles, `s` sites, `d` d_model, `r` random directions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Real, Shaped
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .metrics import auroc

WORDS = r"\S+"
PENALTIES = (0.01, 0.1, 1.0)  # of word counts
TFIDF_PENALTIES = (0.1, 1.0, 10.0, 100.0)  # rows of length 1 ask for larger ones
Texts = Mapping[str, Sequence[str]]
Labels = Mapping[str, Bool[Tensor, " n"]]


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


def permutation_p(found: Float[Tensor, "*s"], control: Float[Tensor, "*s f"]) -> Float[Tensor, "*s"]:
    """How rarely a shuffled labelling does as well: (1 + shuffles at least as high) / (1 + shuffles) (Phipson and Smyth 2010).

    Never 0: with 20 shuffles the smallest p is 1/21. nan without shuffles.
    """
    shuffles = control.shape[-1]
    return (1 + (control >= found[..., None]).double().sum(-1)) / (1 + shuffles) if shuffles else torch.full_like(found, torch.nan)


def random_directions(x: Float[Tensor, "s n d"], y: Bool[Tensor, " n"], n: int, seed: int = 0) -> Float[Tensor, "s r d"]:
    """`n` random directions per site, float64, in the space of x: isotropic once x is standardised, the mean of the positives above.

    Every site gets the same draws, so sites taken together or one by one have the same directions. A constant feature is not read.
    """
    drawn = torch.randn(n, x.shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(x.device)
    turned = []
    for site in x:
        h = site.double()
        scale = h.std(0, correction=0)
        weight = torch.where(scale > 1e-9 * h.abs().amax(0), drawn / scale, 0.0)
        turned.append(weight * torch.where(weight @ (h[y].mean(0) - h[~y].mean(0)) < 0, -1.0, 1.0)[:, None])
    return torch.stack(turned)


def prompt_types(index: pd.DataFrame, columns: Sequence[str] = ("attack", "category")) -> list[str]:
    """The type of each row of a store's index for the control task: the values of those `columns` that are there, joined."""
    there = index[[column for column in columns if column in index]]
    return ["|".join(row) for row in there.astype("string").fillna("").to_numpy()]


def control_task(types: Mapping[str, Sequence[str]], seed: int | Sequence[int] = 0, *, fit: str = "train") -> dict[str, Bool[Tensor, " n"]]:
    """A random label for every type, the same on each side; of the types on the `fit` side half are positive.

    `types` maps a side to the type of each of its rows. Only types that occur on `fit` can be known elsewhere. Each seed is another deal.
    Raises ValueError where `fit` has a single type: there is nothing to tell apart.
    """
    learned = sorted(set(types[fit]))
    if len(learned) < 2:
        raise ValueError(f"a control task needs rows of at least two types on {fit}, which has {learned}; name types that differ within it")
    others = sorted({name for side in types.values() for name in side} - set(learned))
    rng = np.random.default_rng(seed)
    dealt = [*rng.permutation(learned), *rng.permutation(others)]
    labels = {str(name): place % 2 == 0 for place, name in enumerate(dealt)}
    return {side: torch.tensor([labels[name] for name in rows]) for side, rows in types.items()}


def words(texts: Texts, y: Labels, *, fit: str = "train", choose: str = "dev") -> dict[str, Float[Tensor, " n"]]:
    """Scores on every side but `fit` of the strongest model on word counts: words or words and pairs, and its penalty, chosen on `choose`.

    `texts` and `y` map a side to its texts and labels. Texts without any word tell nothing: all zeros.
    """
    readers = [CountVectorizer(token_pattern=WORDS, ngram_range=(1, longest)) for longest in (1, 2)]
    return _strongest(readers, PENALTIES, texts, y, fit, choose)


def tfidf(texts: Texts, y: Labels, *, fit: str = "train", choose: str = "dev") -> dict[str, Float[Tensor, " n"]]:
    """As words(), on the tf-idf of words and pairs of words."""
    return _strongest([TfidfVectorizer(token_pattern=WORDS, ngram_range=(1, 2))], TFIDF_PENALTIES, texts, y, fit, choose)


def lengths(counts: Mapping[str, Real[np.ndarray, "n k"]], y: Labels, *, fit: str = "train") -> dict[str, Float[Tensor, " n"]]:
    """Scores on every side but `fit` of a logistic regression on log(1 + count), for one or several counts a row."""
    features = {side: np.log1p(np.asarray(rows, dtype=float).reshape(len(rows), -1)) for side, rows in counts.items()}
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[fit], y[fit].cpu().numpy())
    return {side: torch.from_numpy(model.decision_function(features[side])) for side in counts if side != fit}


def bag_of_words(texts: Texts, y: Labels, *, fit: str = "train", choose: str = "dev") -> dict[str, float]:
    """AUROC of words() on every side but `fit`: 0.5 for texts without any word."""
    return {side: float(auroc(scores, y[side].cpu())) for side, scores in words(texts, y, fit=fit, choose=choose).items()}


def _strongest(
    readers: Sequence[Any], penalties: Sequence[float], texts: Texts, y: Labels, fit: str, choose: str
) -> dict[str, Float[Tensor, " n"]]:
    best = {side: torch.zeros(len(rows), dtype=torch.float64) for side, rows in texts.items() if side != fit}
    if not any(text.split() for text in texts[fit]):
        return best
    highest = -1.0
    for reader in readers:
        features = {fit: reader.fit_transform(texts[fit])} | {side: reader.transform(texts[side]) for side in best}
        for penalty in penalties:
            model = LogisticRegression(C=penalty, max_iter=1000).fit(features[fit], y[fit].cpu().numpy())
            scores = {side: torch.from_numpy(model.decision_function(features[side])) for side in best}
            if (reached := float(auroc(scores[choose], y[choose].cpu()))) > highest:
                best, highest = scores, reached
    return best
