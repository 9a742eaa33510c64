"""Where two models part ways on the same tokens: the divergence of their next-token distributions, token by token.

    KL(a‖b) = Σ_t a(t) (log a(t) − log b(t))                                  Kullback and Leibler 1951
    JS(a, b) = ½ KL(a‖m) + ½ KL(b‖m),   m = ½ (a + b)                         Lin 1991; symmetric, between 0 and ln 2

Both in nats, from log-probabilities in float32. A transcript is run through both models as it stands, teacher-forced, so they are compared
on the same history at every token. A row belongs to the token that makes the prediction: position −1 is the last prompt token, position 0
the first output token; what would be written behind an end token is left out.

Logits are made for these tokens only, chunk by chunk: with a vocabulary of 152,000 those of one long batch would take 10 GB.

Shapes: m tokens of a batch that make a prediction, d the width, t the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int64
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from .capture import check_unsteered, encode_transcripts, moved
from .encode import Batch
from .frame import token_kinds
from .kinds import KINDS, Kind
from .markers import Markers
from .model import LensModel
from .planning import batched, check_transcripts
from .records import Transcript
from .trio import check_alike

LOGIT_BYTES = 64 * 2**20  # of one model's float32 logits at a time
COLUMNS = (
    *("model_a", "model_b", "written_by", "condition", "prompt_id", "group", "split", "harmful"),
    *("position", "kind", "token", "step", "boundary", "kl", "js", "top_a", "top_b"),
)


@torch.no_grad()
def divergence(
    a: LensModel, b: LensModel, transcripts: Sequence[Transcript], *, batch_size: int = 32, progress: bool = True
) -> pd.DataFrame:
    """KL(a‖b) and JS, in nats, of what two models would write next, for the last prompt token and every output token of the transcripts.

    Columns: COLUMNS. `step` and `boundary` are those of the span grammar: a boundary is the token step_end[step]; -1 outside the thought.
    `top_a` and `top_b` are the tokens either model finds likeliest.
    Raises ValueError for models that do not read the same tokens or write others, transcripts of other tokens, and active steering.
    """
    check_transcripts(transcripts)
    check_alike({f"a ({a.name})": a, f"b ({b.name})": b})
    for lens in (a, b):
        check_unsteered(lens)
    if (one := _check_head(a)) != (other := _check_head(b)):
        raise ValueError(
            f"the output head of {a.name} has {one} rows, that of {b.name} has {other}: their distributions are over other tokens. "
            "Resize one with model.resize_token_embeddings()."
        )
    step = max(1, LOGIT_BYTES // (4 * one))
    lengths = [len(t.prompt_ids) + len(t.output_ids) for t in transcripts]
    pictures = [len(t.prompt.images) for t in transcripts]
    numbers = sorted(range(len(transcripts)), key=lambda n: (0 if a.family.mixes else pictures[n], -lengths[n]))
    told = {number: _tokens(a, t) for number, t in enumerate(transcripts)}
    found: dict[int, pd.DataFrame] = {}
    batches = list(batched(a, numbers, pictures, batch_size))
    for some in track(batches, f"divergence {a.name}, {b.name}", console=Console(stderr=True), disable=not progress):
        batch = encode_transcripts(a, [transcripts[number] for number in some])
        counts = [len(told[number]["position"]) for number in some]
        at = _places(batch, counts)
        measured = _measure(a, b, _hidden(a, batch, at), _hidden(b, moved(batch, b), at), step)
        for number, part in zip(some, torch.split(measured, counts, dim=1), strict=True):
            found[number] = _rows(a, b, transcripts[number], told[number], part)
    return pd.concat([found[number] for number in range(len(transcripts))], ignore_index=True)[list(COLUMNS)]


def distances(p: Float[Tensor, "m t"], q: Float[Tensor, "m t"]) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """KL(p‖q) and JS(p, q) in nats, of distributions given as log-probabilities."""
    middle = torch.logaddexp(p, q) - log(2)
    return _kl(p, q), (_kl(p, middle) + _kl(q, middle)) / 2


def numbered(kinds: Sequence[int], ids: Sequence[int], markers: Markers) -> tuple[list[int], list[bool]]:
    """Per token the number of its step of the thought, -1 outside the thought; and whether it ends the step, which makes it step_end[i]."""
    thought = [i for i, kind in enumerate(kinds) if kind == Kind.THOUGHT]
    steps, boundaries, number = [-1] * len(kinds), [False] * len(kinds), 0
    for i, end in zip(thought, markers.ends(ids[i] for i in thought), strict=True):
        steps[i], boundaries[i] = number, end
        number += end
    return steps, boundaries


def _tokens(lens: LensModel, transcript: Transcript) -> dict[str, list[Any]]:
    """The tokens of a transcript that make a prediction."""
    ids, begun = (*transcript.prompt_ids, *transcript.output_ids), len(transcript.prompt_ids)
    kinds = token_kinds(ids, begun, lens.frame, lens.markers).tolist()
    steps, boundaries = numbered(kinds, ids, lens.markers)
    stop = next((i for i in range(begun, len(ids)) if ids[i] in lens.markers.eos_ids), len(ids))
    there = slice(begun - 1, stop)
    return {
        "position": list(range(-1, stop - begun)),
        "kind": [KINDS[kind] for kind in kinds[there]],
        "token": lens.tokenizer.convert_ids_to_tokens(list(ids[there])),
        "step": steps[there],
        "boundary": boundaries[there],
    }


def _places(batch: Batch, counts: Sequence[int]) -> Int64[Tensor, " m"]:
    """Where the predicting tokens of each row stand among the b·n tokens of a padded batch."""
    width = batch.inputs["input_ids"].shape[1]
    starts = torch.arange(len(counts)) * width + batch.offsets + batch.prompt_lengths - 1
    return torch.cat([start + torch.arange(count) for start, count in zip(starts, counts, strict=True)])


def _hidden(lens: LensModel, batch: Batch, at: Int64[Tensor, " m"]) -> Float[Tensor, "m d"]:
    """What the output head reads at some tokens."""
    last: Tensor = lens.inner(**batch.inputs, use_cache=False).last_hidden_state
    return last.flatten(0, 1)[at.to(last.device)]


def _measure(a: LensModel, b: LensModel, one: Float[Tensor, "m d"], other: Float[Tensor, "m d"], step: int) -> Float[Tensor, "4 m"]:
    """KL, JS and the likeliest token of either model, on the CPU; `step` tokens at a time."""
    heads = [output_head(lens) for lens in (a, b)]
    found = []
    for start in range(0, len(one), step):
        p, q = (
            head(hidden[start : start + step]).float().log_softmax(-1).to(one.device)
            for head, hidden in zip(heads, (one, other), strict=True)
        )
        found.append(torch.stack([*distances(p, q), p.argmax(-1), q.argmax(-1)]).double().cpu())
    return torch.cat(found, dim=1)


def _rows(a: LensModel, b: LensModel, transcript: Transcript, told: dict[str, list[Any]], measured: Float[Tensor, "4 n"]) -> pd.DataFrame:
    prompt = transcript.prompt
    kl, js, *tops = measured
    of = {"written_by": transcript.model, "condition": transcript.condition, "prompt_id": prompt.id, "split": prompt.split}
    top_a, top_b = (a.tokenizer.convert_ids_to_tokens(top.long().tolist()) for top in tops)
    rows = pd.DataFrame({**told, "kl": kl.numpy(), "js": js.numpy(), "top_a": top_a, "top_b": top_b})
    rows = rows.assign(model_a=a.name, model_b=b.name, group=prompt.group or prompt.id, harmful=prompt.harmful, **of)
    return rows.astype({"harmful": "boolean"})


def _kl(p: Float[Tensor, "m t"], q: Float[Tensor, "m t"]) -> Float[Tensor, " m"]:
    """Σ p (log p − log q); a token that p never writes adds nothing. What rounding leaves below zero is zero."""
    share = p.exp()
    return torch.where(share > 0, share * (p - q), 0.0).sum(-1).clamp_min(0)


def output_head(lens: LensModel) -> nn.Module:
    """What makes logits of the last hidden state."""
    model: Any = lens.model
    head: nn.Module = model.get_output_embeddings()
    return head


def _check_head(lens: LensModel) -> int:
    """Rows of the output head. ValueError unless the model's logits are the head's own: a cap or a scale behind it would be left out."""
    ids = torch.tensor([[*lens.frame.lead, *lens.frame.tail][-8:]], device=lens.device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    ours, theirs = output_head(lens)(lens.inner(**inputs).last_hidden_state).float(), lens.model(**inputs).logits.float()
    if not torch.allclose(ours, theirs, rtol=torch.finfo(lens.dtype).eps, atol=1e-6):
        raise ValueError(
            f"{lens.name} changes its logits behind the output head (up to {float((ours - theirs).abs().max()):.3g}), as with "
            "final_logit_softcapping. Set that to None in its configuration, or compare models without it."
        )
    return int(ours.shape[-1])
