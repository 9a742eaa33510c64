"""What one token does: how much of the divergence between two models a single edit of the residual stream takes back.

At a boundary the safer model a would write w₁ … w_k (greedily). Along these words the writer b is compared with it, edited and not:

    D(δ)    = Σ_i JS( a(· | prefix, w_<i),  b(· | prefix with h ← h + δ at the boundary, w_<i) )       nats, i = 1 … k
    closed  = D(0) − D(δ)                       what the edit δ takes back; negative where it drives the models further apart

With KL in place of JS, D would be a one-sample estimate of the divergence over all k-token continuations (chain rule); JS keeps every term
below ln 2. A few words are looked at because a decision need not show in the first ("well , i …"). Edits, each at one site:

    patched              δ = h_a − h_b at this very token: an interchange, the causal mediation effect of the token
    safe - reasoning     δ = strength · mean over harmful training prompts of h_a − h_b at the same boundary
    harmful - benign     δ = strength · (mean h_a over harmful training prompts − mean over benign ones), likewise
    random               δ = a random direction as long as the last one: what any push of this size does

Vig et al. 2020 (causal mediation), Meng et al. 2022 (patching single states), Rimsky et al. 2023 (contrastive addition); JS: Lin 1991.
Shapes: s settings, k words ahead, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..hooks.capture import encode_transcripts
from ..hooks.divergence import LOGIT_BYTES, distances, output_head
from ..hooks.model import LensModel
from ..hooks.onetoken import Trial, greedy, prefixes, tried
from ..hooks.records import Transcript
from .boundaries import Boundaries

PATCHED, RANDOM = "patched", "random"
CONTRASTS = ("safe - reasoning", "harmful - benign")
STRENGTHS = (1.0, 2.0)
FEWEST = 8  # training prompts a mean is taken of
SETTING = ["source", "site", "strength", "draw"]


@dataclass(frozen=True, eq=False)
class Settings:
    """Edits to be tried at one boundary: facts [s] of each (source, site, strength, draw), and what it adds."""

    facts: pd.DataFrame
    deltas: Float[Tensor, "s d"]


def effects(
    a: LensModel,
    b: LensModel,
    transcripts: Sequence[Transcript],
    read: Boundaries,
    *,
    ahead: int = 4,
    strengths: Sequence[float] = STRENGTHS,
    draws: int = 2,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """A row per boundary and setting: before (D of the unedited token), closed, and what of it was written (a_writes).

    read       of the same transcripts: read_boundaries(a, b, transcripts)
    ahead      words the models are compared along, k
    strengths  of the contrasts and of random directions; vectors come from prompts of the split `train`, which themselves are only patched
    draws      random directions per site and boundary
    """
    if ahead < 1:
        raise ValueError(f"models are compared along at least one word, not {ahead}")
    vectors = steering_vectors(read)
    at = dict(tuple(read.rows.groupby("prompt_id", sort=False)))
    found = []
    for t in track(transcripts, f"effect {a.name}, {b.name}", console=Console(stderr=True), disable=not progress):
        rows = at[t.id]
        tries = [
            settings(read, int(number), vectors if t.prompt.split != "train" else {}, strengths, draws, seed + int(step) + 1)
            for number, step in zip(rows.index, rows["step"], strict=True)
        ]
        places = [len(t.prompt_ids) + position for position in rows["position"]]
        about: Iterable[dict[Any, Any]] = rows.drop(columns="token").to_dict("records")
        for row, tried_, told in zip(about, tries, closed(a, b, t, places, tries, ahead, batch_size), strict=True):
            found.append(tried_.facts.assign(**row, **told))
    return pd.concat(found, ignore_index=True).assign(model_a=a.name, model_b=b.name).astype({"harmful": "boolean"})


def steering_vectors(read: Boundaries) -> dict[tuple[str, str], Float[Tensor, "s d"]]:
    """(contrast, anchor) -> a vector per site, where enough training prompts of either class come to the anchor."""
    train, harmful = read.rows["split"] == "train", read.rows["harmful"]
    safe, own, found = read.a.double(), read.b.double(), {}
    for anchor in read.rows["anchor"].unique():
        here = train & (read.rows["anchor"] == anchor)
        of, other = ((here & (harmful == label).fillna(False)).to_numpy(dtype=bool) for label in (True, False))
        if min(of.sum(), other.sum()) >= FEWEST:
            found[CONTRASTS[0], anchor] = (safe[of] - own[of]).mean(0).float()
            found[CONTRASTS[1], anchor] = (safe[of].mean(0) - safe[other].mean(0)).float()
    return found


def settings(
    read: Boundaries,
    number: int,
    vectors: Mapping[tuple[str, str], Float[Tensor, "s d"]],
    strengths: Sequence[float],
    draws: int,
    seed: int,
) -> Settings:
    """Everything that is tried at a boundary: patched at every site, and what there are vectors for at every site and strength.

    Random directions depend on anchor, site and draw alone: every prompt is pushed the same way.
    """
    anchor = read.rows["anchor"].iloc[number]
    facts, deltas = [], []
    for i, site in enumerate(read.sites):
        facts.append((PATCHED, site, 1.0, 0))
        deltas.append(read.a[number, i] - read.b[number, i])
    chance = torch.Generator().manual_seed(seed)
    for source in (*CONTRASTS, *[RANDOM] * draws) if (CONTRASTS[1], anchor) in vectors else ():
        of = vectors[CONTRASTS[1] if source == RANDOM else source, anchor]
        draw = sum(one[0] == RANDOM for one in facts) // (len(read.sites) * len(strengths)) if source == RANDOM else 0
        if source == RANDOM:
            noise = torch.randn(of.shape, generator=chance)
            of = noise / noise.norm(dim=-1, keepdim=True) * of.norm(dim=-1, keepdim=True)
        for i, site in enumerate(read.sites):
            facts += [(source, site, float(strength), draw) for strength in strengths]
            deltas += [strength * of[i] for strength in strengths]
    return Settings(pd.DataFrame(facts, columns=SETTING), torch.stack(deltas))


@torch.no_grad()
def closed(
    a: LensModel, b: LensModel, transcript: Transcript, at: Sequence[int], tries: Sequence[Settings], ahead: int, batch_size: int
) -> Iterator[dict[str, Any]]:
    """For each place (among all tokens, ascending): before, closed [s], a_writes."""
    heads = [output_head(lens) for lens in (a, b)]
    lead = written(a, transcript, at, ahead)
    trials = [
        Trial(place, tuple(words[:-1]), (one.facts["site"].iloc[0], *one.facts["site"]), torch.cat([one.deltas[:1] * 0, one.deltas]))
        for place, (words, _), one in zip(at, lead, tries, strict=True)
    ]
    for (words, safe), hidden in zip(lead, tried(b, transcript, trials, batch_size=batch_size), strict=True):
        p = heads[0](safe).float().log_softmax(-1)
        step = max(1, LOGIT_BYTES // (4 * p.numel()))
        apart = (
            torch.cat([_apart(p, heads[1](part).float().log_softmax(-1).to(p.device)) for part in torch.split(hidden, step)]).double().cpu()
        )
        yield {"before": float(apart[0]), "closed": (apart[0] - apart[1:]).numpy(), "a_writes": a.tokenizer.decode(words)}


def written(lens: LensModel, transcript: Transcript, at: Sequence[int], ahead: int) -> list[tuple[list[int], Float[Tensor, "k d"]]]:
    """For each place what the model would write greedily behind it, and what its output head reads for each of these words.

    Mostly that is what the transcript has, which one forward over all of it tells; elsewhere it is decoded.
    """
    ids = (*transcript.prompt_ids, *transcript.output_ids)
    hidden: Tensor = lens.inner(**encode_transcripts(lens, [transcript]).inputs, use_cache=False).last_hidden_state[0, at[0] :]
    likeliest = output_head(lens)(hidden).argmax(-1).tolist()
    found: dict[int, tuple[list[int], Tensor]] = {}
    for place in at:
        words, first = likeliest[place - at[0] :][:ahead], place - at[0]
        if len(words) == ahead and words[:-1] == list(ids[place + 1 : place + ahead]):
            found[place] = words, hidden[first : first + ahead]
    elsewhere = [place for place in at if place not in found]
    for place, (token, cache) in zip(elsewhere, prefixes(lens, transcript, elsewhere), strict=True):
        found[place] = greedy(lens, token, cache, ahead)
    return [found[place] for place in at]


def _apart(p: Float[Tensor, "k t"], q: Float[Tensor, "s k t"]) -> Float[Tensor, " s"]:
    """Σ JS over the words."""
    _, js = distances(p.expand_as(q).flatten(0, 1), q.flatten(0, 1))
    return js.reshape(q.shape[:2]).sum(1)


def swept(table: pd.DataFrame) -> pd.DataFrame:
    """The sweep in means: a row per split, anchor and setting, random draws together.

    Columns: split, anchor, step, source, site, strength; n, n_harmful; before_harmful, closed_harmful, closed_benign; share (closed of
    before, over harmful prompts); effect = closed_harmful − max(closed_benign, 0): what an edit takes back of a difference between the
    models that has nothing to do with harm does not count. net = closed_harmful − |closed_benign|: less what it breaks there, too.
    """
    rows = table[table["harmful"].notna()].assign(harmful=table["harmful"].astype(object))
    keys = ["split", "anchor", "step", "source", "site", "strength"]
    means = rows.groupby([*keys, "harmful"], sort=False).agg(
        closed=("closed", "mean"), before=("before", "mean"), n=("prompt_id", "nunique")
    )
    wide = means.unstack("harmful")
    both = wide[("n", True)].notna() & wide[("n", False)].notna() if {True, False} <= set(rows["harmful"]) else wide.index == ""
    wide = wide[both]
    told = pd.DataFrame(
        {
            "n": wide[("n", True)] + wide[("n", False)],
            "n_harmful": wide[("n", True)],
            "before_harmful": wide[("before", True)],
            "closed_harmful": wide[("closed", True)],
            "closed_benign": wide[("closed", False)],
        }
    ).reset_index()
    effect = told["closed_harmful"] - told["closed_benign"].clip(lower=0)
    net = effect + told["closed_benign"].clip(upper=0)
    return told.assign(share=told["closed_harmful"] / told["before_harmful"], effect=effect, net=net)


def chosen(table: pd.DataFrame, *, split: str = "dev") -> pd.DataFrame:
    """The rows of the setting that stands for each anchor, on every side: the contrast with the largest net effect on `split`.

    ValueError where nothing was steered on that side.
    """
    means = swept(table)
    steered = means[(means["split"] == split) & means["source"].isin(CONTRASTS)]
    if steered.empty:
        raise ValueError(
            f"no boundary was steered on {split!r}: vectors need {FEWEST} harmful and {FEWEST} benign prompts of the split 'train' that "
            "come to it. Pass more transcripts of train, and some of both classes."
        )
    best = steered.sort_values("net", ascending=False, kind="stable").drop_duplicates("anchor")
    return table.merge(best[["anchor", "source", "site", "strength"]], on=["anchor", "source", "site", "strength"])
