"""transformers' own generate, made to write the tokens of given transcripts: the way tokens really arrive, with known tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from thoughtlens.hooks.encode import Batch, encode
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.records import Transcript
from torch import Tensor


def begin(lens: LensModel, transcripts: Sequence[Transcript], written: int = 0, side: str = "left") -> Batch:
    """The prompts, with the first `written` output tokens of each transcript after them."""
    return encode(lens, [t.prompt for t in transcripts], prefixes=[t.output_ids[:written] for t in transcripts], side=side)


def replay(lens: LensModel, transcripts: Sequence[Transcript], batch: Batch, written: int = 0, **options: object) -> list[Tensor]:
    """Let the rows of `batch` write the rest of the transcripts, token by token. Returns per row the logits [o, v] of output tokens from `written` on."""
    width, longest = batch.inputs["input_ids"].shape[1], max(len(t.output_ids) for t in transcripts)

    def forced(row: int, ids: Tensor) -> list[int]:
        n, output = written + len(ids) - width, transcripts[row].output_ids
        return [output[n] if n < len(output) else lens.pad_id]

    out = lens.model.generate(
        **batch.inputs,
        max_new_tokens=longest - written,
        do_sample=False,
        prefix_allowed_tokens_fn=forced,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
    logits = torch.stack(out.logits, 1)
    return [logits[row, : len(t.output_ids) - written] for row, t in enumerate(transcripts)]
