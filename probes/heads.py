"""Which heads write a direction: a probe's readout taken apart into what every head, every MLP and the embedding wrote of it.

The residual stream is a sum, so a readout at resid_post.L is one too:

    w · h_L + b  =  w · resid_pre.0  +  Σ_{l ≤ L} ( Σ_i w · W_l,i z_l,i  +  w · mlp_out.l )  +  biases

z_l,i is what head i hands to the output projection (its place in head_out.l), W_l,i are the columns of the projection that read it; a gate
multiplies what stands behind it. Direct logit attribution (Elhage et al. 2021, "A mathematical framework for transformer circuits") with a
probe's direction in the place of a token's. The mean over a span is as linear, its maximum is not.

This is exact where nothing else joins the residual and no norm stands between projection and residual. Everything else is refused, and
every readout is compared with its sum. What a head writes directly is not yet what it is good for: ablation.py tests that.

Shapes: `n` prompts, `p` parts, `m` probed tokens of a batch, `h` heads of `k` numbers, `d` the width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from ..hooks.attach import gate, heads, out_projection, site_width
from ..hooks.model import LensModel
from ..hooks.reading import reading
from ..hooks.records import Transcript
from ..hooks.sites import Site, parse_site
from .probe import Probe
from .probed import LINEAR, Probed, differences, probed, side

ROUNDINGS = 8  # how many roundings of the model's dtype the parts may be off their sum
PARTS = ("part", "layer", "head")
Part = tuple[str, int, int]  # what, layer, head


@dataclass(frozen=True, eq=False)
class Attribution:
    """What wrote a probe's readout, prompt by prompt.

    parts    a row per part: part (embedding, head, mlp, bias), its layer (-1 before the first) and head (-1 where it is none)
    values   [n, p] what each part wrote; a row sums to the readout
    index    [n] of which prompt: prompt_id, group, split, harmful, …
    """

    probe: Probe
    model: str
    span: str
    parts: pd.DataFrame
    values: Float[Tensor, "n p"]
    index: pd.DataFrame

    def table(self, split: str, *, resampled: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Per part: the mean of what it writes for harmful and for benign prompts of a split, their difference with its 95% group-bootstrap
        interval, and the share it has in the difference of the readout (shares sum to 1). The parts are PARTS."""
        rows, y, groups = side(self.index, split)
        told = differences(self.values[rows], y, groups, resampled, seed)
        told["share"] = told["difference"] / told["difference"].sum()
        return pd.concat([self.parts, told], axis=1).assign(**self.about(split, y, groups))

    def about(self, split: str, y: Bool[Tensor, " n"], groups: Shaped[np.ndarray, " n"]) -> dict[str, Any]:
        """What a table's rows have in common."""
        named = {"model": self.model, "site": self.probe.site, "span": self.span, "probe": self.probe.kind, "split": split}
        return {**named, "n": len(y), "n_harmful": int(y.sum()), "groups": len(np.unique(groups))}


def attribute(
    lens: LensModel,
    transcripts: Sequence[Transcript],
    probe: Probe,
    *,
    span: str | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> Attribution:
    """Take a probe's readout apart at a span, by default its own, in all transcripts that have it, of prompts labelled harmful or benign.

    Raises ValueError where the readout is no sum of what the parts write: another site than resid_post, pool "max" or "every", a norm
    behind the attention, image tokens where DeepStack adds features to them, parts that do not sum up; and while steering is active.
    """
    span = probe.span if span is None else span
    writers = _writers(lens, probe)
    parts = pd.DataFrame([*(part for writer in writers.values() for part in writer.parts), ("bias", -1, -1)], columns=list(PARTS))
    index, runs = probed(lens, transcripts, span, probe.pool, batch_size, f"attribute {lens.name}", progress)
    values = torch.zeros(len(index), len(parts), dtype=torch.float64)
    values[:, -1] = probe.bias
    for run in runs:
        _check_pictures(lens, run)

        def take(site: Site, hidden: Tensor, run: Probed = run) -> None:
            values[run.rows, writers[site].columns] = run.mean(writers[site].written(run.tokens(hidden)))

        with reading(lens, list(writers), take):
            hidden = run.read(lens, probe.site)
        _check_sum(lens, probe, hidden, values[run.rows].sum(1), [index["prompt_id"][row] for row in run.rows])
    return Attribution(probe, lens.name, span, parts, values, index)


@dataclass(frozen=True, eq=False)
class _Writer:
    """What a site adds to the readout.

    parts     whose it is, in the columns `columns`
    matrix    [h, k] what each of the k numbers of h parts adds
    constant  what comes to that, a part of its own where it is not 0
    """

    parts: tuple[Part, ...]
    columns: slice
    matrix: Float[Tensor, "h k"]
    constant: float = 0.0

    def written(self, tokens: Float[Tensor, "m *hk"]) -> Float[Tensor, "m p"]:
        found = einsum(tokens.reshape(len(tokens), len(self.matrix), -1), self.matrix.to(tokens), "m h k, h k -> m h")
        return nn.functional.pad(found, (0, len(self.parts) - len(self.matrix)), value=self.constant)


def _check_linear(lens: LensModel, probe: Probe) -> int:
    """The layer a probe reads behind. ValueError where its readout is no sum of what heads write."""
    name, layer = parse_site(probe.site)
    if name != "resid_post" or layer is None or probe.pool not in LINEAR:
        raise ValueError(
            f"the probe reads the {probe.pool} at {probe.site}; what heads write sums up at resid_post, pooled by {', '.join(LINEAR)}. "
            "Take such a probe, with sweep.pick(site='resid_post.…')."
        )
    lens.expand(probe.site)
    if not lens.family.sums or any(block.attention_adds for block in lens.blocks[: layer + 1]):
        raise ValueError(
            f"in {lens.name} heads do not write to the residual stream alone: {lens.family.note or 'its layers are no plain sums.'} "
            "What one head adds cannot be told apart there; steer or ablate at attn_out instead."
        )
    return layer


def _check_pictures(lens: LensModel, run: Probed) -> None:
    image = lens.frame.image_token_id
    if lens.deepstack and image is not None and bool(run.tokens(run.batch.inputs["input_ids"]).eq(image).any()):
        raise ValueError(f"the span holds image tokens of {lens.name}. {lens.family.note} Attribute at other tokens.")


def _check_sum(lens: LensModel, probe: Probe, hidden: Float[Tensor, "v d"], summed: Float[Tensor, " v"], prompts: Sequence[str]) -> None:
    """ValueError unless the parts sum to the readout, up to the rounding of the model's dtype."""
    off = (summed - probe.readout(hidden).double()).abs()
    size: Tensor = hidden.abs() @ probe.weight.abs() + abs(probe.bias)
    if bool(torch.any(off > ROUNDINGS * lens.n_layers * torch.finfo(lens.dtype).eps * size)):
        raise ValueError(
            f"the parts of {lens.name} sum to something else than the readout at {probe.site}, by up to {float(off.max()):.3g} for prompt "
            f"{prompts[int(off.argmax())]!r}: more joins the residual at these tokens. {lens.family.note} Attribute at others."
        )


@torch.no_grad()
def _writers(lens: LensModel, probe: Probe) -> dict[Site, _Writer]:
    """What every site up to the probe's adds to its readout."""
    found, begin = {}, 0
    for site, parts, matrix, constant in _written(lens, _check_linear(lens, probe), probe.weight.float()):
        found[site] = _Writer(parts, slice(begin, begin + len(parts)), matrix, constant)
        begin += len(parts)
    return found


def _written(lens: LensModel, last: int, w: Float[Tensor, " d"]) -> Iterator[tuple[Site, tuple[Part, ...], Float[Tensor, "h k"], float]]:
    """Embedding, heads and MLPs of the layers up to `last`: site, parts, and how they write along w, gates included."""
    yield Site("resid_pre", 0), (("embedding", -1, -1),), w[None], 0.0
    for layer in range(last + 1):
        attention, mlp, site = Site(lens.blocks[layer].site, layer), Site("mlp_out", layer), Site("head_out", layer)
        matrix, constant = _projected(lens, site, w * _gate(lens, attention))
        bias = (("bias", layer, -1),) if constant else ()
        yield site, (*(("head", layer, head) for head in range(len(matrix))), *bias), matrix, constant
        yield mlp, (("mlp", layer, -1),), w[None] * _gate(lens, mlp), 0.0


def _projected(lens: LensModel, site: Site, w: Float[Tensor, " d"]) -> tuple[Float[Tensor, "h k"], float]:
    """What the numbers of each head become along w behind the output projection, and what its bias does.

    A projection is linear, whatever it is made of (quantised, with an adapter): its bias is what it makes of zeros, its columns are what it
    makes of unit vectors."""
    projection, width = out_projection(lens, site), site_width(lens, site)
    held_on = next(projection.parameters()).device
    asked = torch.eye(width + 1, width, dtype=lens.dtype, device=lens.device if held_on.type == "meta" else held_on)
    columns = projection(asked).float().cpu()
    return ((columns[:-1] - columns[-1]) @ w).reshape(heads(lens, site), -1), float(columns[-1] @ w)


def _gate(lens: LensModel, site: Site) -> float:
    factor = gate(lens, site)
    return 1.0 if factor is None else float(factor)
