"""The tokens of a span at one site of a store captured with pool "every", prompt by prompt, in bounded memory.

Shapes: x [t, d]; readouts [t, c, f]; scores [o, c, f, p] (`t` tokens, `d` d_model, `p` prompts, `q` some of them, `c` settings, `f` fits,
`o` ways of making one score of the readouts of a prompt).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..hooks.store import Store
from .dataset import Dataset, Labels, Stores, Where, matrix, select_rows


@dataclass(frozen=True, eq=False)
class Prompts:
    """Labelled prompts, a row each and no hidden state read, and how many tokens of a span each has."""

    data: Dataset
    counts: Int64[Tensor, " p"]


def token_prompts(
    stores: Stores, *, span: str, label: str, where: Where | None = None, group: str = "group", labels: Labels | None = None
) -> Prompts:
    """The prompts whose tokens of `span` match `where` and carry a `label`. ValueError as matrix(); rows that are no single tokens."""
    tokens = matrix(stores, span=span, label=label, where=where, group=group, sites=(), labels=labels)
    index = tokens.index
    if (pool := index["pool"].iloc[0]) != "every":
        raise ValueError(f"every token is read one by one, and {span!r} was pooled ({pool}). Capture it with pool='every'")
    if index.duplicated(["prompt_id", "start"]).any():
        several = ", ".join(sorted(set(index["model"].astype(str) + " " + index["condition"].astype(str))))
        raise ValueError(f"a token of {span!r} has several rows here, of {several}. Ask for one of them, such as {{'model': …}}")
    first = ~index.duplicated("prompt_id").to_numpy()
    counts = index.groupby("prompt_id", sort=False).size().to_numpy()
    data = Dataset(tokens.x[first], tokens.y[first], tokens.groups[first], index[first].reset_index(drop=True))
    return Prompts(data, torch.tensor(counts))


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads tokens of a span at one site, as many prompts at a time as `memory` bytes hold with their readouts, or one."""

    stores: Sequence[Store]
    site: str
    span: str
    device: str
    memory: int

    def parts(self, prompts: Prompts, readouts: int = 0) -> Iterator[tuple[Float[Tensor, "t d"], Int64[Tensor, " q"]]]:
        """All tokens, in the order of the prompts and of their positions, and how many each prompt has; `readouts` are made of each."""
        most = max(1, self.memory // (8 * self.stores[0].width + 16 * readouts))
        part = (prompts.counts.cumsum(0).numpy() - 1) // most
        written = {name: prompts.data.index[name].unique().tolist() for name in ("model", "condition")}
        for number in np.unique(part):
            here = part == number
            names = prompts.data.index["prompt_id"][here].tolist()
            x, index = select_rows(self.stores, span=self.span, where={**written, "prompt_id": names}, sites=[self.site])
            order = np.lexsort((index["start"], index["prompt_id"].map({name: i for i, name in enumerate(names)})))
            yield x[torch.from_numpy(order), 0].to(self.device), prompts.counts[torch.from_numpy(here)]

    def sample(self, prompts: Prompts, tokens: int, seed: int) -> Float[Tensor, "t d"]:
        """`tokens` tokens of each prompt, evenly spaced from a random start."""
        starts = torch.from_numpy(np.random.default_rng(seed).random(len(prompts.counts)))
        taken, done = [], 0
        for x, counts in self.parts(prompts):
            at = spaced(counts, tokens, starts[done : done + len(counts)]) + (counts.cumsum(0) - counts)[:, None]
            taken.append(x[at.flatten().to(x.device)])
            done += len(counts)
        return torch.cat(taken)

    def scores(
        self, prompts: Prompts, weight: Float[Tensor, "c f d"], bias: Float[Tensor, "c f"], overs: Sequence[str]
    ) -> Float[Tensor, "o c f p"]:
        """One score per prompt and fit, in every way of `overs`, in the precision of the weight, on the CPU."""
        found = []
        for x, counts in self.parts(prompts, bias.numel()):
            readouts = (torch.einsum("td,cfd->tcf", x.to(weight.dtype), weight) + bias).cpu()
            found.append(torch.stack([over_tokens(readouts, counts, over) for over in overs]))
        return torch.cat(found, 1).movedim(1, -1)


def spaced(counts: Int64[Tensor, " q"], tokens: int, starts: Float[Tensor, " q"]) -> Int64[Tensor, "q k"]:
    """Which `tokens` tokens of each span, in order: those at the shares (i + start) / tokens of it, i = 0, 1, …; starts lie in [0, 1)."""
    shares = (torch.arange(tokens) + starts[:, None]) / tokens
    return (shares * counts[:, None]).long().minimum(counts[:, None] - 1)


def over_tokens(readouts: Float[Tensor, "t *n"], counts: Int64[Tensor, " p"], over: str) -> Float[Tensor, "p *n"]:
    """One score out of the readouts of each prompt, whose tokens follow one another: their mean, their max, or the last."""
    if over == "last":
        return readouts[counts.cumsum(0) - 1]
    return torch.segment_reduce(readouts, over, lengths=counts)
