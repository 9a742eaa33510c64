"""What `thoughtlens bench steer` checks before its clock starts: that conditions which are compared do the same work, and none is idle.

    alike      the same edit writes the same tokens from the same logits, in every engine, compiled or not
    changed    an edit moves the logits by at least 5% of their length
    fired      steering counts the tokens that its spans and gates hold
    read       probes read what plain hooks read

Shapes: `b` rows, `n` new tokens, `v` vocabulary, `k` probes, `m` tokens from the last of the prompt on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..hooks.dialects import pieces, split
from .steer_workload import ALIKE, EDITS, Condition, Work

EFFECT = 0.05


@dataclass(frozen=True, eq=False)
class Written:
    """What a condition wrote, and what steering says of it.

    tokens   [b, n]
    logits   [b, n, v] that they were taken from
    fired    [b] tokens steered; None where no steering of ours is installed
    scores   per row [m, k] what probes read, from the last prompt token on
    """

    tokens: Int64[Tensor, "b n"]
    logits: Float[Tensor, "b n v"]
    fired: Int64[Tensor, " b"] | None
    scores: list[Float[np.ndarray, "m k"]]


def written(work: Work, condition: Condition) -> Written:
    with condition() as write:
        told, steering = write(return_dict_in_generate=True, output_logits=True), work.lens.steering
        fired = None if steering is None else steering.fired.cpu()
        scores = [] if steering is None else [row.scores for row in steering.record()]
    tokens = told.sequences[:, work.batch.inputs["input_ids"].shape[1] :].cpu()
    return Written(tokens, torch.stack(told.logits, 1).float().cpu(), fired, scores)


def steps_of(work: Work, found: Written) -> Int64[Tensor, " b"]:
    """Steps of the thought that end at a token that was run, counted in the finished rows."""
    counts = []
    for ids, prompt, tokens in zip(work.batch.ids, work.batch.prompt_lengths.tolist(), found.tokens.tolist(), strict=True):
        output = [*ids[prompt:], *tokens[:-1]]
        thought, _ = pieces(output, split(output, work.lens.markers))
        counts.append(sum(work.lens.markers.ends(thought)))
    return torch.tensor(counts)


def check_same(work: Work, found: Mapping[str, Written]) -> None:
    """RuntimeError where timing would be idle: an edit that changes nothing or is not that of another engine, a gate that is not open where
    it should be, a probe that reads something else."""
    plain, gated, every = found["plain"], found["behind a probe gate"], torch.ones_like(work.opened)
    for name, like in ALIKE.items():
        check_alike(work, name, found[name], like, found[like], every)
    for name in (*EDITS, "at step ends"):
        check_changed(name, found[name], plain, every)
    check_changed("behind a probe gate", gated, plain, work.opened)
    check_alike(work, "a closed probe gate", gated, "plain", plain, ~work.opened)
    after_prompt = work.run - work.batch.prompt_lengths + 1  # tokens that are run from the last of the prompt on
    fired = {
        **dict.fromkeys((*EDITS, "8 probes, one site"), work.run),
        "behind a probe gate": work.opened * after_prompt,
        "at step ends": steps_of(work, found["at step ends"]),
    }
    for name, count in fired.items():
        steered = found[name].fired
        if steered is None or steered.tolist() != count.tolist():
            raise RuntimeError(f"{name}: not {count.tolist()} tokens of the rows were steered but {steered}. Nothing was timed.")
    check_read(work, "8 probes", found, after_prompt, work.lens.n_layers)
    check_read(work, "8 probes, one site", found, after_prompt, work.layer + 1)  # at the site it reads what is there before the edit


def check_compiled(work: Work, faster: Mapping[str, Written], found: Mapping[str, Written]) -> None:
    """RuntimeError where a compiled condition does not write what it writes uncompiled, or steering does not reach the compiled step."""
    every = torch.ones_like(work.opened)
    for name, one in faster.items():
        check_alike(work, f"{name}, compiled,", one, f"{name}, not compiled", found[name], every)
        if name != "plain":
            check_changed(f"{name}, compiled,", one, faster["plain"], every)


def check_alike(work: Work, name: str, one: Written, like: str, other: Written, rows: Bool[Tensor, " b"]) -> None:
    """RuntimeError unless both write the same tokens from the same logits, in these rows. In half precision, where equal engines may part
    at a near tie, logits are compared as long as the tokens before them are the same."""
    same, logits = (one.tokens == other.tokens)[rows], other.logits[rows]
    comparable = torch.cat([torch.ones_like(same[:, :1]), same[:, :-1].cumprod(1).bool()], 1)
    apart, scale = float(((one.logits[rows] - logits).abs().amax(-1) * comparable).max()), float(logits.abs().max())
    if not apart <= work.tolerance * scale or not (bool(same.all()) or work.half):
        raise RuntimeError(
            f"{name} writes something else than {like}: {int((~same).sum())} of {same.numel()} tokens differ, and logits by up to "
            f"{apart:.2g} (they reach {scale:.2g}). Nothing was timed."
        )


def check_changed(name: str, one: Written, plain: Written, rows: Bool[Tensor, " b"]) -> None:
    """RuntimeError unless the logits of the first token, behind the same tokens in both, are far from the plain ones, in these rows."""
    before, after = plain.logits[rows, 0], one.logits[rows, 0]
    effect = float(((after - before).norm(dim=-1) / before.norm(dim=-1)).min())
    if not effect >= EFFECT:
        raise RuntimeError(f"{name} changes logits by {effect:.2g} of their length, which is less than {EFFECT:g}. Nothing was timed.")


def check_read(work: Work, name: str, found: Mapping[str, Written], counts: Int64[Tensor, " b"], below: int) -> None:
    """RuntimeError unless probes were read at each token from the last of the prompt on, and there as plain hooks read them in the layers
    below this one."""
    lengths, read = [len(scores) for scores in found[name].scores], np.stack([scores[0] for scores in found[name].scores])
    columns = [number for number, probe in enumerate(work.probes.values()) if work.lens.expand(probe.site)[0].layer < below]
    apart, scale = float(np.abs(read - work.read.numpy())[:, columns].max()), float(work.read.abs().max())
    if lengths != counts.tolist() or not apart <= work.tolerance * scale:
        raise RuntimeError(
            f"{name} were read at {lengths} tokens, where {counts.tolist()} are run, and {apart:.2g} off what plain hooks read (they reach "
            f"{scale:.2g}). Nothing was timed."
        )
