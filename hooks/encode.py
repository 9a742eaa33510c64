"""Prompts to padded model inputs.

Each prompt goes through processor.apply_chat_template by itself, so its ids are exactly what plain transformers would give it; rows
are then collated. Inputs per token are padded on one side; a prefix continues them. What pictures bring is padded behind, to the
largest of the batch, and laid end to end. Shapes: b batch, n padded length, i pictures of a row.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Int8, Int64
from jinja2 import TemplateError
from PIL import Image as PILImage
from PIL import ImageOps
from torch import Tensor
from torch.nn import functional

from .frame import prompt_kinds, token_kinds
from .kinds import Kind
from .processors import messages, render
from .records import Picture, Prompt

if TYPE_CHECKING:
    from .model import LensModel

__all__ = ["MAX_PIXELS", "Batch", "MissingPicture", "PromptError", "Side", "check", "encode", "kinds_of", "messages", "open_picture"]

Side = Literal["left", "right"]
MAX_PIXELS = 50_000_000

# inputs with a value per token, [1, n, …]: what a token written behind the prompt gets; "last": what the last prompt token has
_PER_TOKEN: Mapping[str, int | Literal["last"]] = {
    "input_ids": 0,
    "attention_mask": 1,
    "mm_token_type_ids": 0,
    "token_type_ids": 0,
    "cross_attention_mask": "last",
}
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class PromptError(ValueError):
    """A prompt that cannot be given to the model.

    prompt_id    the prompt
    prompt_ids   all prompts of the call that share the fault
    """

    def __init__(self, message: str, prompt_id: str, prompt_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.prompt_id = prompt_id
        self.prompt_ids = tuple(prompt_ids) or (prompt_id,)


class MissingPicture(PromptError, FileNotFoundError):
    """Picture files that are not there: all of a call in one error."""


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

    Raises PromptError naming the prompt for a missing or unreadable picture, a picture of more than 50 megapixels, text that writes the
    image placeholder itself, placeholders cut off, a system prompt that the template does not take, and a row longer than the model's
    context; ValueError for prompts with different numbers of pictures in a family that cannot share a batch between them (in Mllama a
    token in front of the first picture attends evenly to all pictures the widest row has).
    """
    if not prompts:
        raise ValueError("there is no prompt to encode. Pass at least one.")
    prefixes = [()] * len(prompts) if prefixes is None else prefixes
    _check_company(lens, prompts)
    pictures = _open_all(prompts)
    rows = [_row(lens, prompt, shown, tuple(prefix)) for prompt, shown, prefix in zip(prompts, pictures, prefixes, strict=True)]
    ids = [row["input_ids"][0].tolist() for row in rows]
    lengths = torch.tensor([len(one) for one in ids])
    width = int(lengths.max())
    offsets = width - lengths if side == "left" else torch.zeros_like(lengths)
    inputs: dict[str, Tensor] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if key in row]
        if key in _PER_TOKEN:
            fill = lens.pad_id if key == "input_ids" else 0
            inputs[key] = _pad([value[0] for value in _level(values, start=2)], offsets, width, fill)
        else:
            inputs[key] = torch.cat(_level(values, start=1))
    prompt_lengths = lengths - torch.tensor([len(prefix) for prefix in prefixes])
    return Batch({key: value.to(lens.device) for key, value in inputs.items()}, ids, prompt_lengths, offsets, lengths)


def check(lens: LensModel, prompt: Prompt) -> None:
    """Encode one prompt alone. Raises its PromptError."""
    encode(lens, [prompt])


def difference(lens: LensModel, there: Sequence[int], here: Sequence[int]) -> str:
    """Where two renderings of a prompt part, in words: of a transcript, and of this model."""
    at = next((i for i, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), min(len(there), len(here)))
    texts = [str(lens.tokenizer.decode(ids[max(at - 4, 0) : at + 8])) for ids in (there, here)]
    return (
        f"{len(there)} tokens there, {len(here)} here, different from token {at} on, around {texts[0]!r} there and {texts[1]!r} here. "
        "Tokenizer, chat template, its arguments, picture size or the prompt differ, or the day, where the template writes the date"
    )


def kinds_of(lens: LensModel, batch: Batch) -> Int8[Tensor, "b n"]:
    """Token kinds of a padded batch, on the CPU."""
    width = batch.inputs["input_ids"].shape[1]
    kinds = [
        token_kinds(ids, length, lens.frame, lens.markers) for ids, length in zip(batch.ids, batch.prompt_lengths.tolist(), strict=True)
    ]
    return _pad(kinds, batch.offsets, width, int(Kind.PAD))


def _row(lens: LensModel, prompt: Prompt, pictures: Sequence[PILImage.Image], prefix: tuple[int, ...]) -> dict[str, Tensor]:
    _check_words(lens, prompt, prefix)
    try:
        encoded = render(lens.processor, prompt, pictures, lens.frame.style, lens.template)
    except (ValueError, TypeError, IndexError, TemplateError) as error:
        raise PromptError(
            f"prompt {prompt.id!r} is refused by the processor of {lens.name}: {error} Change the prompt, or leave it out.", prompt.id
        ) from error
    row = {key: value for key, value in encoded.items() if isinstance(value, Tensor)}
    _check_whole(lens, prompt, row["input_ids"][0].tolist())
    row |= {key: torch.cat([row[key], _continued(row[key], key, prefix)], dim=1) for key in _PER_TOKEN if prefix and key in row}
    length = row["input_ids"].shape[1]
    if length > lens.context:
        raise PromptError(
            f"prompt {prompt.id!r} takes {length} tokens ({len(prefix)} of them output), the context of {lens.name} is {lens.context}. "
            "Shorten it, or make its pictures smaller.",
            prompt.id,
        )
    return row


def _continued(value: Tensor, key: str, prefix: tuple[int, ...]) -> Tensor:
    """An input [1, n, …] for the tokens of the prefix behind it."""
    if key == "input_ids":
        return torch.tensor([prefix], dtype=value.dtype)
    last = value[:, -1:].expand(-1, len(prefix), *value.shape[2:])
    fill = _PER_TOKEN[key]
    return last if fill == "last" else torch.full_like(last, fill)


def _check_words(lens: LensModel, prompt: Prompt, prefix: tuple[int, ...]) -> None:
    """What can be told before the processor sees the prompt."""
    frame = lens.frame
    if prompt.system is not None and not frame.takes_system:
        raise PromptError(
            f"prompt {prompt.id!r} has a system prompt, which the chat template of {lens.name} does not take. Put its words into the text.",
            prompt.id,
        )
    if frame.image_token_id is None:
        if prompt.images:
            raise PromptError(f"prompt {prompt.id!r} shows a picture, and {lens.name} reads text alone. Leave it out.", prompt.id)
        return
    placeholders = (lens.tokenizer.convert_ids_to_tokens(frame.image_token_id), *lens.processor.all_special_multimodal_tokens)
    for placeholder in placeholders:
        if placeholder in prompt.text or placeholder in (prompt.system or ""):
            raise PromptError(
                f"prompt {prompt.id!r} writes the image placeholder {placeholder!r} in its text. Take it out; pictures go into images=.",
                prompt.id,
            )
    if frame.image_token_id in prefix:
        raise PromptError(
            f"the output of prompt {prompt.id!r} holds the image placeholder at token {prefix.index(frame.image_token_id)}: "
            "the model cannot be run over it again. Leave this transcript out, or suppress that token when generating.",
            prompt.id,
        )


def _check_whole(lens: LensModel, prompt: Prompt, ids: list[int]) -> None:
    """The template's beginning and end are there, and pictures where they were given: nothing was cut off."""
    try:
        shown = int(Kind.IMAGE) in prompt_kinds(ids, lens.frame)
    except ValueError as error:
        raise PromptError(
            f"prompt {prompt.id!r} does not come out of the processor whole: its {len(ids)} tokens begin {ids[:8]} and end {ids[-8:]}, "
            f"the chat template begins {list(lens.frame.lead[:8])} and ends {list(lens.frame.tail[-8:])}. "
            "Look for a length limit or truncation in the tokenizer's configuration.",
            prompt.id,
        ) from error
    if shown != bool(prompt.images):
        raise PromptError(
            f"prompt {prompt.id!r} has {len(prompt.images)} pictures, and the processor of {lens.name} wrote {'some' if shown else 'no'} "
            "image tokens for it. Check that the processor belongs to this model.",
            prompt.id,
        )


def _check_company(lens: LensModel, prompts: Sequence[Prompt]) -> None:
    counts = sorted({len(prompt.images) for prompt in prompts})
    if not lens.family.mixes and len(counts) > 1:
        raise ValueError(
            f"prompts with {', '.join(map(str, counts))} pictures cannot share a batch of {lens.name}: rows would not compute what they "
            "compute alone. Encode those of one number at a time."
        )


def _open_all(prompts: Sequence[Prompt]) -> list[list[PILImage.Image]]:
    missing = [
        (prompt.id, picture)
        for prompt in prompts
        for picture in prompt.images
        if isinstance(picture, str | Path) and not Path(picture).is_file()
    ]
    if missing:
        shown = "; ".join(f"{name!r}: {picture}" for name, picture in missing[:10])
        more = f"; and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise MissingPicture(
            f"{len(missing)} image files are missing, for prompt {shown}{more}. Check the folder the paths start from.",
            missing[0][0],
            list(dict.fromkeys(name for name, _ in missing)),
        )
    return [[open_picture(prompt.id, picture) for picture in prompt.images] for prompt in prompts]


def open_picture(prompt_id: str, picture: Picture) -> PILImage.Image:
    """The picture as 8-bit RGB, upright; the first frame of a moving one. Its size is read from the header before it is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)  # between 89 and 179 megapixels; ours comes first
            image = picture if isinstance(picture, PILImage.Image) else PILImage.open(picture)
        if image.width * image.height <= MAX_PIXELS:
            return _rgb(image)
        size = f"{image.width} × {image.height} pixels"
    except PILImage.DecompressionBombError:
        size = "more than 178 megapixels"
    except Exception as error:  # a damaged file makes PIL's decoders raise almost anything
        raise PromptError(
            f"the image of prompt {prompt_id!r} ({picture}) cannot be read: {error}. Replace the file, or leave the prompt out.", prompt_id
        ) from error
    raise PromptError(f"the image of prompt {prompt_id!r} has {size}, more than 50 megapixels. Make it smaller first.", prompt_id)


def _rgb(image: PILImage.Image) -> PILImage.Image:
    """Transparent parts become white, as on a page; 16-bit grey is scaled to 8 bits, where PIL would cut it off at 255."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a known range; save it with 8 bits")
    if image.mode in _DEEP_GREY:
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = PILImage.new("RGBA", image.size, (255, 255, 255, 255))
        image = PILImage.alpha_composite(page, image)
    return image.convert("RGB")


def _level(values: Sequence[Tensor], *, start: int) -> list[Tensor]:
    """Tensors padded with zeros at the end of every dimension from `start` on, to the largest of them."""
    ends = [max(sizes) for sizes in zip(*(value.shape[start:] for value in values), strict=True)]
    padded = []
    for value in values:
        room = [end - size for end, size in zip(ends, value.shape[start:], strict=True)]
        padded.append(functional.pad(value, [width for missing in reversed(room) for width in (0, missing)]) if any(room) else value)
    return padded


def _pad(rows: Sequence[Tensor], offsets: Int64[Tensor, " b"], width: int, value: int) -> Tensor:
    """Rows [n_row, …] laid into [b, width, …], each from its offset on."""
    padded = torch.full((len(rows), width, *rows[0].shape[1:]), value, dtype=rows[0].dtype)
    for line, row, offset in zip(padded, rows, offsets.tolist(), strict=True):
        line[offset : offset + len(row)] = row
    return padded
