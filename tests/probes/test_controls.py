"""Controls carry no signal where there is none, and find what words alone tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from thoughtlens.probes.controls import bag_of_words, shuffle_labels


def test_labels_of_a_group_stay_together():
    groups = np.repeat([f"g{i}" for i in range(20)], 5)
    y = torch.tensor(np.repeat(np.arange(20) < 8, 5))
    shuffled = shuffle_labels(y, groups, 30, seed=1)
    assert shuffled.shape == (30, 100) and (shuffled.sum(1) == y.sum()).all()
    blocks = shuffled.reshape(30, 20, 5)
    assert (blocks == blocks[..., :1]).all()
    assert not (shuffled == y).all(1).any()
    agreement = (shuffled == y).double().mean().item()
    assert agreement == pytest.approx(0.4**2 + 0.6**2, abs=0.05)


def test_twins_keep_one_of_each_and_lose_which():
    groups = np.repeat([f"g{i}" for i in range(200)], 2)
    y = torch.tensor([True, False] * 200)
    shuffled = shuffle_labels(y, groups, 20, seed=2)
    assert (shuffled.reshape(20, 200, 2).sum(-1) == 1).all()
    assert (shuffled == y).double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_groups_of_any_size_in_any_order_keep_the_count():
    rng = np.random.default_rng(0)
    groups, y = rng.choice(list("abcdefgh"), size=101), torch.from_numpy(rng.random(101) < 0.3)
    shuffled = shuffle_labels(y, groups, 200, seed=3)
    assert (shuffled.sum(1) == y.sum()).all()
    assert (shuffled.double().mean(0) - 0.3).abs().max() < 0.15


def test_the_seed_decides():
    groups, y = np.array(list("aabbccddee")), torch.tensor([True, False] * 5)
    assert torch.equal(shuffle_labels(y, groups, 4, seed=1), shuffle_labels(y, groups, 4, seed=1))
    assert not torch.equal(shuffle_labels(y, groups, 4, seed=1), shuffle_labels(y, groups, 4, seed=2))


def sides(write, n: int = 120) -> tuple[dict[str, list[str]], dict[str, torch.Tensor]]:
    rng = np.random.default_rng(4)
    texts, labels = {}, {}
    for side in ("train", "dev", "test"):
        y = rng.random(n) < 0.5
        texts[side] = [write(bool(harmful), rng) for harmful in y]
        labels[side] = torch.from_numpy(y)
    return texts, labels


def test_finds_a_word_that_gives_the_label_away():
    found = bag_of_words(*sides(lambda harmful, rng: f"{rng.choice(['a', 'b', 'c'])} {'must-refuse!' if harmful else 'go on'}"))
    assert found == {"dev": 1.0, "test": 1.0}


def test_finds_what_only_pairs_of_words_tell():
    def exclusive_or(harmful: bool, rng: np.random.Generator) -> str:
        first, other = rng.choice([["x", "y"], ["y", "x"]])
        return f"{first} {first if harmful else other}"

    found = bag_of_words(*sides(exclusive_or))
    assert found["test"] == 1.0


def test_words_that_tell_nothing_are_at_chance():
    found = bag_of_words(*sides(lambda harmful, rng: " ".join(rng.choice(list("abcdef"), size=5)), n=300))
    assert found["test"] == pytest.approx(0.5, abs=0.12)
    assert bag_of_words(*sides(lambda harmful, rng: "  ")) == {"dev": 0.5, "test": 0.5}


def test_test_labels_choose_nothing():
    texts, labels = sides(lambda harmful, rng: " ".join(rng.choice(list("abcdefgh"), size=4)))
    found = bag_of_words(texts, labels)
    turned = bag_of_words(texts, {**labels, "test": ~labels["test"]})
    assert turned["dev"] == found["dev"] and turned["test"] == pytest.approx(1 - found["test"])
