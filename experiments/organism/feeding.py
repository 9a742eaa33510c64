"""From examples of a mixture to batches on the device: bucketed by length, right-padded, with everything the model would else work out
row by row.

A seed gives the same batches everywhere. On a GPU one process makes them ahead, so that the device does not wait for pictures to be drawn;
on a CPU it would take the core that trains.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedTokenizerFast
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from .corpus import Example, Mixture, draw
from .network import MERGE, PATCH, WINDOW
from .pictures import SIDE

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LEVELS = np.stack([(np.arange(256, dtype=np.float32) / 255.0 - np.float32(m)) / np.float32(s) for m, s in zip(MEAN, STD, strict=True)])
GRID = SIDE // PATCH
ACROSS = GRID // MERGE  # image tokens to a row of a picture
IMAGE_TOKENS = ACROSS**2
BUCKET = 6
AHEAD = 12  # batches made before they are asked for


def patches(images: Sequence[Image.Image]) -> Float[np.ndarray, "patches values"]:
    """What the Qwen2-VL image processor makes of 84 × 84 pictures, without its per-picture overhead (equal to it, by test).

    A pixel has 256 values, so they are normalised once; a picture stands for two moments of time.
    """
    shades = np.stack([np.asarray(image) for image in images])
    cut = rearrange(shades, "n (gh mh ph) (gw mw pw) c -> c (n gh gw mh mw) (ph pw)", mh=MERGE, mw=MERGE, ph=PATCH, pw=PATCH)
    found = np.empty((cut.shape[1], len(cut), 2, cut.shape[2]), np.float32)
    for channel, values in enumerate(LEVELS):
        found[:, channel] = np.take(values, cut[channel])[:, None]
    return found.reshape(len(found), -1)


def collate(examples: Sequence[Example], words: PreTrainedTokenizerFast) -> dict[str, Tensor]:
    """Right-padded inputs and labels of a batch; the prompt carries no loss."""
    image_token = words.convert_tokens_to_ids("<|image_pad|>")
    prompts = words([e.prompt.replace("<|image_pad|>", "<|image_pad|>" * IMAGE_TOKENS) for e in examples]).input_ids
    rows = list(zip(prompts, words([e.answer for e in examples]).input_ids, strict=True))
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), longest), words.pad_token_id)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
        mask[row, :end] = 1
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "mm_token_type_ids": (ids == image_token).int()}
    if images := [example.image for example in examples if example.image is not None]:
        batch["pixel_values"] = torch.from_numpy(patches(images))
        batch["image_grid_thw"] = _grids(len(images))
    return batch


def batches(mixture: Mixture, size: int, stream: random.Random) -> Iterator[list[Example]]:
    """Examples of like length together: a pool of several batches is drawn, sorted, cut, shuffled."""
    while True:
        pool = sorted((draw(mixture, stream) for _ in range(BUCKET * size)), key=lambda e: len((e.prompt + e.answer).split()))
        cut = [pool[i : i + size] for i in range(0, len(pool), size)]
        stream.shuffle(cut)
        yield from cut


def positions(batch: dict[str, Tensor]) -> Int64[Tensor, "3 b p"]:
    """Time, height and width of every token as the model's get_rope_index finds them row by row (equal to it, by test).

    A picture, at most one a row, takes its own side in positions; padding is at 0.
    """
    seen, mask = batch["mm_token_type_ids"].long(), batch["attention_mask"]
    before = seen.cumsum(1) - seen  # image tokens before a token
    along = torch.arange(seen.shape[1]).expand_as(seen)
    text = along - (before == IMAGE_TOKENS).long() * (IMAGE_TOKENS - ACROSS)
    start = along - before
    inside = torch.stack([start, start + before // ACROSS, start + before % ACROSS])
    return torch.where(seen.bool(), inside, text) * mask


@cache
def layout(pictures: int, device: torch.device) -> dict[str, Tensor]:
    """What the vision tower works out of the sizes of so many pictures, one after the other: as they are all of one size, once.

    Lengths stay on the CPU, where they are read as numbers.
    """
    grids = _grids(pictures)
    window, window_lengths = get_vision_window_index(grids, spatial_merge_size=MERGE, window_size=WINDOW, patch_size=PATCH)
    lengths = torch.arange(pictures + 1, dtype=torch.int32) * GRID**2
    return {
        "image_grid_thw": grids,
        "image_position_ids": get_vision_position_ids(grids, MERGE).to(device),
        "image_cu_seqlens": lengths,
        "image_window_index": window.to(device),
        "image_cu_window_seqlens": window_lengths,
    }


def _grids(pictures: int) -> Int64[Tensor, "pictures 3"]:
    return torch.tensor([[1, GRID, GRID]] * pictures)


class _Made(IterableDataset[dict[str, Tensor]]):
    """Batches without end, from the beginning each time."""

    def __init__(self, mixture: Mixture, size: int, words: PreTrainedTokenizerFast, seed: int) -> None:
        self._mixture, self._size, self._words, self._seed = mixture, size, words, seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for examples in batches(self._mixture, self._size, random.Random(self._seed)):
            batch = collate(examples, self._words)
            if batch.pop("image_grid_thw", None) is not None:
                batch["position_ids"] = positions(batch)
            yield batch


def feed(
    mixture: Mixture, size: int, words: PreTrainedTokenizerFast, *, seed: int, device: torch.device, ahead: bool | None = None
) -> Iterator[dict[str, Tensor]]:
    """Batches of `size` examples on the device, in an order that the seed decides.

    ahead   another process makes them before they are asked for; default: on a GPU, where processes can be forked
    """
    made = _Made(mixture, size, words, seed)
    if ahead is None:
        ahead = device.type == "cuda" and "fork" in multiprocessing.get_all_start_methods()
    source = _prefetched(made, pin=device.type == "cuda") if ahead else made
    for batch in source:
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        if "pixel_values" in batch:
            batch |= layout(len(batch["pixel_values"]) // GRID**2, device)
        yield batch


def _prefetched(made: _Made, *, pin: bool) -> DataLoader[dict[str, Tensor]]:
    """One process, so that the order stays; forked, since mixtures are tables of functions that cannot be sent. Its own generator, since
    the loader would draw from torch's."""
    return DataLoader(
        made,
        batch_size=None,
        num_workers=1,
        prefetch_factor=AHEAD,
        pin_memory=pin,
        multiprocessing_context="fork",
        generator=torch.Generator(),
    )
