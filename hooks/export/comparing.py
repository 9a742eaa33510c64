"""Whether an export does what the hooked model does: logits of both on the same tokens, beside those of the unsteered model.

    error  = max |exported − hooked|          effect = max |hooked − unsteered|          share = error / effect

over the tokens of real prompts, read in one forward, and over a few output tokens, written one at a time with a KV cache. The hooked model
chooses these tokens, the others are made to write the same ones. A share near 0 is a faithful export, and 1 one that does nothing: an
adapter that was not loaded, a bias that was dropped.

Shapes: `p` prompt tokens compared, `o` output tokens, `v` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GenerationConfig

from ..encode import Batch, encode
from ..records import Prompt

if TYPE_CHECKING:
    from ..model import LensModel

POSITIONS = 64  # tokens of a prompt that are compared, evenly spaced, the last among them: a picture brings thousands
WRITTEN = 8  # output tokens
_ROUNDINGS = 8  # an effect of so few roundings of the largest logit is none


@dataclass(frozen=True, eq=False)
class Trace:
    """What one model computed for one prompt.

    ids         of the prompt, and output_ids of what was written
    prompt      [p, v] logits at tokens of the prompt
    written     [o, v] logits from which each output token was written
    """

    ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    prompt: Float[Tensor, "p v"]
    written: Float[Tensor, "o v"]


@torch.no_grad()
def traced(lens: LensModel, prompts: Sequence[Prompt], like: Sequence[Trace] | None = None) -> list[Trace]:
    """Run a model, under whatever steers it, over each prompt alone.

    like    write the output tokens of these traces; left out, the model's own greedy ones
    ValueError where this model's tokenizer or template gives other ids than those of `like`.
    """
    traces = []
    for number, prompt in enumerate(prompts):
        batch = encode(lens, [prompt])
        ids = tuple(batch.ids[0])
        if like is not None and ids != like[number].ids:
            raise ValueError(
                f"the export reads the prompt {prompt.id!r} as other tokens than {lens.name} does: its tokenizer or chat template is not "
                "the same. Nothing was kept; export from a checkpoint folder with its own tokenizer files."
            )
        at = torch.linspace(0, len(ids) - 1, min(len(ids), POSITIONS)).round().long().to(lens.device)
        prompt_logits = lens.model(**batch.inputs, use_cache=False, logits_to_keep=at).logits[0]
        output_ids, written = _written(lens, batch, None if like is None else like[number].output_ids)
        traces.append(Trace(ids, output_ids, prompt_logits.float().cpu(), written.float().cpu()))
    return traces


def _written(lens: LensModel, batch: Batch, forced: tuple[int, ...] | None) -> tuple[tuple[int, ...], Float[Tensor, "o v"]]:
    """Output tokens, written one by one with a cache until the end token, and the logits of each."""
    width = batch.inputs["input_ids"].shape[1]
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=WRITTEN if forced is None else len(forced),
        do_sample=False,
        suppress_tokens=[] if lens.frame.image_token_id is None else [lens.frame.image_token_id],
        use_cache=True,
        eos_token_id=list(lens.markers.eos_ids),
        pad_token_id=lens.pad_id,
    )
    options: dict[str, Any] = {"return_dict_in_generate": True, "output_logits": True}
    if forced is not None:
        options["prefix_allowed_tokens_fn"] = lambda _, ids: [forced[len(ids) - width]]
    model: Any = lens.model
    own, model.generation_config = model.generation_config, config  # transformers fills what a config leaves open with the model's own
    try:
        out = model.generate(**batch.inputs, **options)
    finally:
        model.generation_config = own
    return tuple(out.sequences[0, width:].tolist()), torch.cat(out.logits)


def largest_difference(one: Sequence[Trace], other: Sequence[Trace]) -> float:
    """max |one − other| over all logits compared; inf where one of them is not finite."""
    pairs = zip(one, other, strict=True)
    differences = [(a - b).abs().max() for x, y in pairs for a, b in ((x.prompt, y.prompt), (x.written, y.written))]
    found = float(torch.stack(differences).max())
    return found if found == found else float("inf")


def tokens(traces: Sequence[Trace]) -> int:
    """How many tokens are compared."""
    return sum(len(trace.prompt) + len(trace.written) for trace in traces)


def rounding(traces: Sequence[Trace], dtype: torch.dtype) -> float:
    """What a few roundings of the largest logit come to in a dtype: a smaller effect cannot be told from none."""
    largest = max(float(part.abs().max()) for trace in traces for part in (trace.prompt, trace.written))
    return _ROUNDINGS * torch.finfo(dtype).eps * largest
