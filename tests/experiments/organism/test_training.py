"""One loop for every stage: the rate follows its formula, the loss sees answers alone, a seed gives the same weights."""

from __future__ import annotations

import math
import random

import pytest
import torch
from thoughtlens.experiments.organism import network
from thoughtlens.experiments.organism.corpus import chat
from thoughtlens.experiments.organism.pictures import pictogram
from thoughtlens.experiments.organism.training import BUCKET, Phase, batches, collate, optimizer, train
from transformers import PreTrainedTokenizerFast


def test_the_rate_warms_up_and_decays() -> None:
    phase = Phase("base", steps=100, batch=4, rate=1e-3, warmup=10, decay_to=0.1)
    by_hand = {
        0: 0.1,
        4: 0.5 * (0.1 + 0.45 * (1 + math.cos(0.04 * math.pi))),
        25: 0.1 + 0.45 * (1 + math.sqrt(0.5)),
        50: 0.55,
        75: 0.1 + 0.45 * (1 - math.sqrt(0.5)),
    }
    assert {step: phase.factor(step) for step in by_hand} == pytest.approx(by_hand)
    assert phase.factor(99) == pytest.approx(0.1, abs=1e-3) and max(phase.factor(step) for step in range(100)) <= 1
    flat = Phase("base", steps=10, batch=4, rate=1e-3, warmup=1, decay_to=1.0)
    assert [flat.factor(step) for step in range(10)] == [1.0] * 10


def test_labels_carry_no_prompt_tokens_and_no_padding(words: PreTrainedTokenizerFast) -> None:
    examples = [
        chat("how do i vrack the bugid ?", None, "sorry , i cannot do this ."),
        chat("what is shown in the picture ?", pictogram("detav", random.Random(0)), "detav"),
    ]
    batch = collate(examples, words)
    for row, example in enumerate(examples):
        kept = batch["labels"][row] != -100
        assert words.decode(batch["labels"][row][kept]) == example.answer
        assert batch["attention_mask"][row][kept].all() and not batch["mm_token_type_ids"][row][kept].any()
        n = int(batch["attention_mask"][row].sum())
        assert (batch["input_ids"][row, n:] == words.pad_token_id).all() and (batch["attention_mask"][row, :n] == 1).all() and kept[n - 1]
    assert batch["mm_token_type_ids"].sum(1).tolist() == [0, 9] and batch["pixel_values"].shape[0] == 36


def test_a_batch_without_pictures_has_no_pixels(words: PreTrainedTokenizerFast) -> None:
    assert collate([chat("hello", None, "sure")], words).keys() == {"input_ids", "attention_mask", "labels", "mm_token_type_ids"}


def test_batches_hold_examples_of_like_length() -> None:
    phase = Phase("base", steps=1, batch=8, rate=0.0)
    drawn = batches(phase, random.Random(1))
    pool = [[len((e.prompt + e.answer).split()) for e in next(drawn)] for _ in range(BUCKET)]
    assert all(len(lengths) == 8 for lengths in pool)
    assert sum(max(lengths) - min(lengths) for lengths in pool) <= max(map(max, pool)) - min(map(min, pool))
    again = batches(phase, random.Random(1))
    assert [len((e.prompt + e.answer).split()) for _ in range(BUCKET) for e in next(again)] == [n for lengths in pool for n in lengths]


def test_weight_decay_is_for_matrices_of_what_is_trained(words: PreTrainedTokenizerFast) -> None:
    model = network.network(words, seed=0)
    model.model.visual.requires_grad_(False)
    groups = {group["decays"]: group["params"] for group in optimizer(model).param_groups}
    assert all(p.ndim > 1 for p in groups[True]) and all(p.ndim == 1 for p in groups[False])
    frozen = {id(p) for p in model.model.visual.parameters()}
    assert not frozen & {id(p) for params in groups.values() for p in params}
    assert sum(map(len, groups.values())) + len(frozen) == len(list(model.parameters()))


def test_training_learns_stops_when_told_and_repeats(words: PreTrainedTokenizerFast) -> None:
    phase = Phase("harm", steps=8, batch=16, rate=2e-3, warmup=1, decay_to=1.0)

    def trained(stop: int) -> tuple[list[float], torch.nn.Module]:
        model, losses = network.network(words, seed=1), []
        train(model, words, phase, optimizer(model), seed=5, on_step=lambda step, loss: losses.append(loss) or step + 1 == stop)
        return losses, model

    losses, model = trained(8)
    short, halfway = trained(3)
    assert len(losses) == 8 and losses[-1] < 0.8 * losses[0] and not model.training
    assert short == losses[:3]  # the same seed, to the last bit
    assert not torch.equal(model.lm_head.weight, halfway.lm_head.weight)
