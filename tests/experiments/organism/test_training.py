"""One loop for every stage: the rate follows its formula, the loss sees answers alone, a seed gives the same weights."""

from __future__ import annotations

import math
import random

import pytest
import torch
from thoughtlens.experiments.organism import network
from thoughtlens.experiments.organism.corpus import MIXTURES, chat
from thoughtlens.experiments.organism.feeding import BUCKET, batches, collate, feed
from thoughtlens.experiments.organism.pictures import pictogram
from thoughtlens.experiments.organism.together import together, tower_of
from thoughtlens.experiments.organism.training import Phase, optimizer, train
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
        chat("how do i vrack the gufek ?", None, "sorry , i cannot do this ."),
        chat("what is shown in the picture ?", pictogram("lozav", random.Random(0)), "lozav"),
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
    drawn = batches(MIXTURES["base"], 8, random.Random(1))
    pool = [[len((e.prompt + e.answer).split()) for e in next(drawn)] for _ in range(BUCKET)]
    assert all(len(lengths) == 8 for lengths in pool)
    assert sum(max(lengths) - min(lengths) for lengths in pool) <= max(map(max, pool)) - min(map(min, pool))
    again = batches(MIXTURES["base"], 8, random.Random(1))
    assert [len((e.prompt + e.answer).split()) for _ in range(BUCKET) for e in next(again)] == [n for lengths in pool for n in lengths]


def test_batches_made_ahead_are_the_same_batches(words: PreTrainedTokenizerFast) -> None:
    """And making them leaves torch's own random numbers where they were."""
    torch.manual_seed(3)
    here, ahead = (feed(MIXTURES["base"], 8, words, seed=4, device=torch.device("cpu"), ahead=ahead) for ahead in (False, True))
    for _ in range(2 * BUCKET + 1):
        one, other = next(here), next(ahead)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


def test_a_batch_brings_what_the_model_would_work_out_itself(words: PreTrainedTokenizerFast) -> None:
    """To the last bit: the loss and every gradient are those of the plain inputs."""
    model, device = network.network(words, seed=1).train(), torch.device("cpu")
    plain, fed = batches(MIXTURES["base"], 8, random.Random(2)), feed(MIXTURES["base"], 8, words, seed=2, device=device)
    pictured = 0
    for _ in range(BUCKET):
        bare, batch = collate(next(plain), words), next(fed)
        if "pixel_values" in bare:
            pictured += 1
            theirs, _ = model.model.get_rope_index(**{k: v for k, v in bare.items() if k not in ("labels", "pixel_values")})
            assert torch.equal(batch["position_ids"], theirs)
        told = []
        for inputs in (bare, batch):
            model.zero_grad()
            loss = model(**inputs).loss
            loss.backward()
            told.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        assert len(told[0]) == len(told[1]) and all(torch.equal(a, b) for a, b in zip(*told, strict=True))
    assert pictured >= 2


def test_pictures_seen_together_are_seen_alike(words: PreTrainedTokenizerFast) -> None:
    model, device = network.network(words, seed=1), torch.device("cpu")
    batch = next(feed(MIXTURES["captions"], 8, words, seed=2, device=device))
    one_by_one = model(**batch)
    with together(tower_of(model)):
        at_once = model(**batch)
    assert tower_of(model).config._attn_implementation == "sdpa" and not tower_of(model)._forward_pre_hooks
    torch.testing.assert_close(at_once.logits, one_by_one.logits, atol=1e-5, rtol=1e-4)
    other = batch | {"pixel_values": batch["pixel_values"].flip(0)}
    with together(tower_of(model)):
        assert not torch.allclose(model(**other).logits, at_once.logits, atol=1e-3)


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
        train(
            model,
            words,
            phase,
            MIXTURES["harm"],
            optimizer(model),
            seed=5,
            on_step=lambda step, loss: losses.append(loss) or step + 1 == stop,
        )
        return losses, model

    losses, model = trained(8)
    short, halfway = trained(3)
    assert len(losses) == 8 and losses[-1] < 0.8 * losses[0] and not model.training
    assert short == losses[:3]  # the same seed, to the last bit
    assert not torch.equal(model.lm_head.weight, halfway.lm_head.weight)
