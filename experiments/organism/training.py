"""One training loop for every stage: examples of a mixture, bucketed by length, next-token loss on the answer alone.

AdamW with warm-up and cosine decay, gradient norm clipped at one, bfloat16 autocast on a GPU (on two cores float32 was faster).
Steps, not seconds, so that a seed gives the same weights again on the same machine with the same number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .corpus import Mixture
from .feeding import feed
from .together import together, tower_of

READ_EVERY = 20  # steps of a GPU between two looks at its loss, for which the CPU waits


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
    mixture: Mixture,
    optim: torch.optim.AdamW,
    *,
    seed: int,
    on_step: Callable[[int, float], bool],
) -> float:
    """Train through a phase and return the mean loss of its last fifty steps. `on_step(step, loss)` after every step; True stops here.

    On a GPU the loss told is that of the last step in twenty, as reading it waits for the device.
    """
    device = model.device
    gpu, tower = device.type == "cuda", tower_of(model)
    fed, losses, read = feed(mixture, phase.batch, words, seed=seed, device=device), [], math.nan
    model.train()
    for step in range(phase.steps):
        for group in optim.param_groups:
            group["lr"] = phase.rate * phase.factor(step)
            group["weight_decay"] = phase.weight_decay if group["decays"] else 0.0
        with together(tower) if gpu else nullcontext(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=gpu):
            loss = model(**next(fed), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if not gpu or step % READ_EVERY == 0:
            read = loss.item()
        if on_step(step, read):
            break
    model.eval()
    return float(np.mean([loss.item() for loss in losses[-50:]]))
