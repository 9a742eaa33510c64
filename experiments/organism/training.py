"""One training loop for every stage: examples of a mixture, bucketed by length, next-token loss on the answer alone.

AdamW with warm-up and cosine decay, gradient norm clipped at one, bfloat16 autocast on a GPU (on two cores float32 was faster).
Steps, not seconds, so that a seed gives the same weights again on the same machine with the same number of threads.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .corpus import MIXTURES, Example, draw
from .network import MERGE, PATCH
from .pictures import SIDE

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
GRID = SIDE // PATCH
IMAGE_TOKENS = (GRID // MERGE) ** 2
BUCKET = 6


@dataclass(frozen=True)
class Phase:
    """One stretch of training: a mixture of corpus.py for a number of steps."""

    mixture: str
    steps: int
    batch: int
    rate: float
    warmup: int = 50
    decay_to: float = 0.1
    weight_decay: float = 0.05

    def factor(self, step: int) -> float:
        """Share of the peak learning rate at a step: linear warm-up, then cosine to `decay_to`."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min(1.0, (step + 1) / self.warmup) * (self.decay_to + (1 - self.decay_to) * cosine)


def patches(images: Sequence[Image.Image]) -> Float[np.ndarray, "patches values"]:
    """What the Qwen2-VL image processor makes of 84 × 84 pictures, without its per-picture overhead (equal to it, by test)."""
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images]) / 255.0
    pixels = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    cut = rearrange(pixels, "n (gh mh ph) (gw mw pw) c -> (n gh gw mh mw) c ph pw", mh=MERGE, mw=MERGE, ph=PATCH, pw=PATCH)
    return np.ascontiguousarray(np.repeat(cut[:, :, None], 2, axis=2).reshape(len(cut), -1))


def collate(examples: Sequence[Example], words: PreTrainedTokenizerFast) -> dict[str, Tensor]:
    """Right-padded inputs and labels of a batch; the prompt carries no loss."""
    image_token = words.convert_tokens_to_ids("<|image_pad|>")
    rows = []
    for example in examples:
        prompt = example.prompt.replace("<|image_pad|>", "<|image_pad|>" * IMAGE_TOKENS)
        rows.append((words(prompt).input_ids, words(example.answer).input_ids))
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
        batch["image_grid_thw"] = torch.tensor([[1, GRID, GRID]] * len(images))
    return batch


def batches(phase: Phase, stream: random.Random) -> Iterator[list[Example]]:
    """Examples of like length together: a pool of several batches is drawn, sorted, cut, shuffled."""
    while True:
        pool = sorted(
            (draw(MIXTURES[phase.mixture], stream) for _ in range(BUCKET * phase.batch)), key=lambda e: len((e.prompt + e.answer).split())
        )
        cut = [pool[i : i + phase.batch] for i in range(0, len(pool), phase.batch)]
        stream.shuffle(cut)
        yield from cut


def optimizer(model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW over what is trainable, weight decay on matrices only; the rate is set by the phase."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in wanted if p.ndim > 1], [p for p in wanted if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "decays": True}, {"params": vectors, "decays": False}], lr=0.0, betas=(0.9, 0.98), fused=True
    )


def train(
    model: PreTrainedModel,
    words: PreTrainedTokenizerFast,
    phase: Phase,
    optim: torch.optim.AdamW,
    *,
    seed: int,
    on_step: Callable[[int, float], bool],
) -> float:
    """Train through a phase and return the mean loss of its last fifty steps. `on_step(step, loss)` after every step; True stops here."""
    device = model.device
    examples, losses = batches(phase, random.Random(seed)), []
    model.train()
    for step in range(phase.steps):
        for group in optim.param_groups:
            group["lr"] = phase.rate * phase.factor(step)
            group["weight_decay"] = phase.weight_decay if group["decays"] else 0.0
        batch = {name: value.to(device) for name, value in collate(next(examples), words).items()}
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if on_step(step, losses[-1]):
            break
    model.eval()
    return float(np.mean(losses[-50:]))
