"""Edits of one token, many side by side: the prefix is run once and kept, and each edit costs the edited token and the few that follow it.

    h_at ← h_at + δ_s          at one site of one token; everything before it is as it was, everything after it is computed anew

    prompt and thought up to the token ──run once──▶ cache ──copied to s rows──▶ edited token, tokens that follow ──▶ s × k predictions

Patching is the edit δ = h(other model) − h, steering is δ = strength · vector. Because attention only looks back, what the cache holds
does not depend on the edit, so this is what running every row from its first token would give.

Vig et al. 2020, "Investigating gender bias in language models using causal mediation analysis"; Meng et al. 2022, "Locating and editing
factual associations in GPT" (patching single states). Shapes: s settings, k = 1 + tokens that follow, d the width, t the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .attach import Change, attach, place
from .capture import check_prompt_ids, check_unsteered
from .divergence import output_head
from .encode import encode
from .model import LensModel
from .records import Transcript
from .sites import Site, parse_site


@dataclass(frozen=True, eq=False)
class Trial:
    """Edits to be tried at one token of a transcript.

    at       its place among prompt and output tokens together
    then     the tokens that follow it, forced
    sites    per setting the site, such as "resid_post.4"
    deltas   [s, d] per setting what is added there; zeros leave the token as it is
    """

    at: int
    then: tuple[int, ...]
    sites: tuple[str, ...]
    deltas: Float[Tensor, "s d"]

    def __post_init__(self) -> None:
        if self.deltas.ndim != 2 or len(self.deltas) != len(self.sites) or not self.sites:
            raise ValueError(f"a trial has one row of deltas for each site, not {list(self.deltas.shape)} for {len(self.sites)}")
        for site in self.sites:
            if parse_site(site)[1] is None:
                raise ValueError(f"an edit of one token is at one site, not at every {site}: write the layer, as in {site}.4")


@torch.no_grad()
def tried(lens: LensModel, transcript: Transcript, trials: Sequence[Trial], *, batch_size: int = 256) -> Iterator[Float[Tensor, "s k d"]]:
    """For each trial, by ascending place: what the output head reads at the edited token and at those that follow, per setting.

    batch_size   settings to a forward
    ValueError for places out of order, and as prefixes().
    """
    changes: dict[Site, Change] = {}
    with _changed(lens, [site for trial in trials for site in trial.sites], changes):
        for trial, (tokens, cache) in zip(trials, prefixes(lens, transcript, [trial.at for trial in trials]), strict=True):
            ids = torch.cat([tokens, tokens.new_tensor([list(trial.then)], dtype=torch.int64)], dim=1)
            found = []
            for start in range(0, len(trial.sites), batch_size):
                part = slice(start, start + batch_size)
                changes.update(_adding(lens, trial.sites[part], trial.deltas[part]))
                rows = len(trial.sites[part])
                found.append(run(lens, ids.expand(rows, -1), copied(cache, rows)))
                changes.clear()
            yield torch.cat(found)


@torch.no_grad()
def prefixes(lens: LensModel, transcript: Transcript, at: Sequence[int]) -> Iterator[tuple[Int64[Tensor, "1 1"], Any]]:
    """For each place, ascending: its token [1, 1], and a cache of all tokens before it. Copy the cache before anything is run behind it.

    Run nothing else on the model before the last place has come: some models keep the positions of the last prompt on a module.
    ValueError for active steering, places that do not ascend or lie outside the transcript, and other prompt ids by this model's template.
    """
    ids = (*transcript.prompt_ids, *transcript.output_ids)
    begun = len(transcript.prompt_ids)
    if any(one >= other for one, other in zip(at, at[1:], strict=False)) or any(not begun - 1 <= one < len(ids) for one in at):
        raise ValueError(
            f"tokens of {transcript.id!r} are edited in ascending order, between its last prompt token ({begun - 1}) and its end "
            f"({len(ids) - 1}), not at {list(at)}"
        )
    check_unsteered(lens)
    if not at:
        return
    batch = encode(lens, [transcript.prompt])
    check_prompt_ids(lens, [transcript], batch)
    tokens = torch.tensor([ids], device=lens.device)
    forget_pictures(lens)
    inputs = {key: value[:, : begun - 1] if value.shape[:2] == (1, begun) else value for key, value in batch.inputs.items()}
    cache = lens.inner(**inputs, use_cache=True).past_key_values
    held = begun - 1
    for one in at:
        if one > held:
            cache = lens.inner(input_ids=tokens[:, held:one], past_key_values=cache, use_cache=True).past_key_values
            held = one
        yield tokens[:, one : one + 1], cache


@torch.no_grad()
def greedy(lens: LensModel, token: Int64[Tensor, "1 1"], cache: Any, k: int) -> tuple[list[int], Float[Tensor, "k d"]]:
    """The k tokens the model would write behind a token, greedily, fewer where it ends, and what its output head reads for each.

    The cache is left as it is.
    """
    head = output_head(lens)
    cache, written, hidden = copied(cache, 1), list[int](), list[Tensor]()
    for _ in range(k):
        hidden.append(run(lens, token, cache)[0, -1])
        token = head(hidden[-1]).float().argmax().reshape(1, 1)
        written.append(int(token))
        if written[-1] in lens.markers.eos_ids:
            break
    return written, torch.stack(hidden)


def run(lens: LensModel, ids: Int64[Tensor, "s k"], cache: Any) -> Float[Tensor, "s k d"]:
    """What the output head reads at some tokens behind a cache, which grows by them."""
    hidden: Tensor = lens.inner(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
    return hidden


def copied(cache: Any, rows: int) -> Any:
    """The cache of one row, once for each of some rows; the old one stays as it is."""
    made = deepcopy(cache)
    if rows > 1:
        made.batch_repeat_interleave(rows)
    return made


def forget_pictures(lens: LensModel) -> None:
    """Qwen-VL and its kin keep on a module by how much the last picture shifted positions, and would shift a text-only prompt by it too."""
    for module in lens.model.modules():
        if "rope_deltas" in vars(module):
            vars(module)["rope_deltas"] = None


def _adding(lens: LensModel, sites: Sequence[str], deltas: Float[Tensor, "s d"]) -> Mapping[Site, Change]:
    """For each site what it does to the rows whose edit is there."""
    numbers = {site: torch.tensor([i for i, one in enumerate(sites) if one == site]) for site in dict.fromkeys(sites)}

    def adding(rows: Int64[Tensor, " r"]) -> Change:
        def change(hidden: Float[Tensor, "s k d"]) -> Float[Tensor, "s k d"]:
            changed = hidden.clone()
            changed[rows, 0] += deltas[rows].to(hidden)
            return changed

        return change

    return {lens.expand(site)[0]: adding(rows) for site, rows in numbers.items()}


@contextmanager
def _changed(lens: LensModel, sites: Sequence[str], changes: Mapping[Site, Change]) -> Iterator[None]:
    """Hooks at the sites that do what `changes` says while it says something."""
    with ExitStack() as undo:
        for site in dict.fromkeys(lens.expand(list(dict.fromkeys(sites)))):
            place(site)
            undo.callback(attach(lens, site, _as_told(site, changes)).remove)
        yield


def _as_told(site: Site, changes: Mapping[Site, Change]) -> Change:
    return lambda hidden: changes[site](hidden) if site in changes else hidden
