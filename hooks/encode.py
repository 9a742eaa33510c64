"""Prompts to padded model inputs.

Each prompt goes through processor.apply_chat_template by itself, so its ids are exactly what plain transformers would give it; rows
are then padded together. Shapes: b batch, n padded length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Int8, Int64
from PIL import Image as PILImage
from torch import Tensor

from .frame import token_kinds
from .kinds import Kind
from .records import Picture, Prompt

if TYPE_CHECKING:
    from .model import LensModel

Side = Literal["left", "right"]
MAX_PIXELS = 50_000_000
_PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")


@dataclass(frozen=True, eq=False)
class Batch:
    """Model inputs of several prompts.

    inputs           what the model takes, on its device: input_ids [b, n], attention_mask [b, n], mm_token_type_ids [b, n], pixel_values, …
    ids              unpadded ids of each row, prompt and prefix
    prompt_lengths   [b] how many of them are prompt
    offsets          [b] pads before the first token
    lengths          [b] tokens of each row, prompt and prefix
    """

    inputs: Mapping[str, Tensor]
    ids: list[list[int]]
    prompt_lengths: Int64[Tensor, " b"]
    offsets: Int64[Tensor, " b"]
    lengths: Int64[Tensor, " b"]


def encode(lens: LensModel, prompts: Sequence[Prompt], *, prefixes: Sequence[Sequence[int]] | None = None, side: Side = "left") -> Batch:
    """Encode prompts, each followed by its prefix (output ids already written), padded on `side`.

    Raises ValueError or FileNotFoundError naming the prompt for a missing or unreadable picture, a picture of more than 50 megapixels,
    text that writes the image placeholder itself, and a row longer than the model's context.
    """
    if not prompts:
        raise ValueError("there is no prompt to encode. Pass at least one.")
    prefixes = [()] * len(prompts) if prefixes is None else prefixes
    pictures = _open_all(prompts)
    rows = [_row(lens, prompt, shown, tuple(prefix)) for prompt, shown, prefix in zip(prompts, pictures, prefixes, strict=True)]
    ids = [row["input_ids"][0].tolist() for row in rows]
    lengths = torch.tensor([len(one) for one in ids])
    width = int(lengths.max())
    offsets = width - lengths if side == "left" else torch.zeros_like(lengths)
    inputs: dict[str, Tensor] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        if key in _PER_TOKEN:
            inputs[key] = _pad([row[key][0] for row in rows], offsets, width, lens.pad_id if key == "input_ids" else 0)
        else:
            inputs[key] = torch.cat([row[key] for row in rows if key in row])
    prompt_lengths = lengths - torch.tensor([len(prefix) for prefix in prefixes])
    return Batch({key: value.to(lens.device) for key, value in inputs.items()}, ids, prompt_lengths, offsets, lengths)


def kinds_of(lens: LensModel, batch: Batch) -> Int8[Tensor, "b n"]:
    """Token kinds of a padded batch, on the CPU."""
    width = batch.inputs["input_ids"].shape[1]
    kinds = [
        token_kinds(ids, length, lens.frame, lens.markers) for ids, length in zip(batch.ids, batch.prompt_lengths.tolist(), strict=True)
    ]
    return _pad(kinds, batch.offsets, width, int(Kind.PAD))


def messages(prompt: Prompt, pictures: Sequence[Any]) -> list[dict[str, Any]]:
    """The conversation a prompt stands for: system prompt if any, then pictures and text of the user."""
    system = [] if prompt.system is None else [{"role": "system", "content": [{"type": "text", "text": prompt.system}]}]
    shown = [{"type": "image", "image": picture} for picture in pictures]
    return [*system, {"role": "user", "content": [*shown, {"type": "text", "text": prompt.text}]}]


def _row(lens: LensModel, prompt: Prompt, pictures: Sequence[PILImage.Image], prefix: tuple[int, ...]) -> dict[str, Tensor]:
    placeholder = lens.tokenizer.convert_ids_to_tokens(lens.frame.image_token_id)
    if placeholder in prompt.text or placeholder in (prompt.system or ""):
        raise ValueError(
            f"prompt {prompt.id!r} writes the image placeholder {placeholder!r} in its text. Take it out; pictures go into images=."
        )
    if lens.frame.image_token_id in prefix:
        raise ValueError(
            f"the output of prompt {prompt.id!r} holds the image placeholder at token {prefix.index(lens.frame.image_token_id)}: "
            "the model cannot be run over it again. Leave this transcript out, or suppress that token when generating."
        )
    encoded = lens.processor.apply_chat_template(
        messages(prompt, pictures), tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    row = {key: value for key, value in encoded.items() if isinstance(value, Tensor)}
    if prefix:
        fill = {"input_ids": list(prefix), "attention_mask": [1] * len(prefix), "mm_token_type_ids": [0] * len(prefix)}
        row |= {key: torch.cat([row[key], torch.tensor([fill[key]], dtype=row[key].dtype)], dim=1) for key in _PER_TOKEN if key in row}
    length = row["input_ids"].shape[1]
    if length > lens.context:
        raise ValueError(
            f"prompt {prompt.id!r} takes {length} tokens ({len(prefix)} of them output), the context of {lens.name} is {lens.context}. "
            "Shorten it, or make its pictures smaller."
        )
    return row


def _open_all(prompts: Sequence[Prompt]) -> list[list[PILImage.Image]]:
    missing = [
        f"{prompt.id!r}: {picture}"
        for prompt in prompts
        for picture in prompt.images
        if isinstance(picture, str | Path) and not Path(picture).is_file()
    ]
    if missing:
        shown = "; ".join(missing[:10]) + (f"; and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise FileNotFoundError(f"{len(missing)} image files are missing, for prompt {shown}. Check the folder the paths start from.")
    return [[_open(prompt.id, picture) for picture in prompt.images] for prompt in prompts]


def _open(prompt_id: str, picture: Picture) -> PILImage.Image:
    try:
        image = picture if isinstance(picture, PILImage.Image) else PILImage.open(picture)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(
                f"the image of prompt {prompt_id!r} has {image.width} × {image.height} pixels, more than 50 megapixels. "
                "Make it smaller first."
            )
        image.load()
    except (OSError, SyntaxError, PILImage.DecompressionBombError) as error:
        raise ValueError(
            f"the image of prompt {prompt_id!r} ({picture}) cannot be read: {error}. Replace the file, or leave the prompt out."
        ) from error
    return image


def _pad(rows: Sequence[Tensor], offsets: Int64[Tensor, " b"], width: int, value: int) -> Tensor:
    padded = torch.full((len(rows), width), value, dtype=rows[0].dtype)
    for line, row, offset in zip(padded, rows, offsets.tolist(), strict=True):
        line[offset : offset + len(row)] = row
    return padded
