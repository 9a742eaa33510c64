"""Synthetic activations with known answers: groups of prompts, a signal of known size at chosen sites."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from thoughtlens.hooks.shards import writing
from thoughtlens.hooks.store import Store

torch.set_num_threads(1)

ATTACKS = ("plain", "roleplay", "typographic")
CATEGORIES = ("fraud", "privacy", "weather")


def make_store(
    folder: Path,
    *,
    signal: Mapping[str, float],
    spans: tuple[str, ...] = ("last_prompt",),
    groups: int = 90,
    per_group: int = 3,
    d: int = 12,
    cluster: float = 0.5,
    seed: int = 0,
    model: str = "reasoning",
    fingerprint: str = "f00d",
    spoil: Callable[[torch.Tensor, pd.DataFrame], pd.DataFrame | None] | None = None,
) -> Store:
    """A store in which `harmful` belongs to the group and moves the hidden state by `signal` (in noise units) at each site.

    Every group comes under all attacks and has one category, of which each side has all; neither says anything of `harmful`.

    signal    site -> distance of the two classes, at every span
    cluster   standard deviation of what the rows of one group share
    spoil     changes (hidden states, index) before they are written
    """
    rng = np.random.default_rng(seed)
    sites = list(signal)
    member = np.repeat(np.arange(groups), per_group)
    harmful = (np.arange(groups) % 2 == 0)[member]
    split = np.array(["train", "train", "train", "train", "dev", "dev", "test", "test"])[np.arange(groups) % 8][member]
    directions = {site: rng.normal(size=d) for site in sites}
    blocks, rows = [], []
    for span in spans:
        shared = rng.normal(size=(groups, len(sites), d))[member] * cluster
        x = shared + rng.normal(size=(len(member), len(sites), d)) + 3.0
        for i, site in enumerate(sites):
            unit = directions[site] / np.linalg.norm(directions[site])
            x[:, i] += np.outer(harmful - 0.5, unit) * signal[site]
        blocks.append(x)
        rows.append(
            pd.DataFrame(
                {
                    "prompt_id": [f"p{i}" for i in range(len(member))],
                    "model": model,
                    "condition": "unsteered",
                    "split": split,
                    "group": [f"g{g}" for g in member],
                    "category": np.array(CATEGORIES)[member // 8 % len(CATEGORIES)],
                    "attack": np.array(ATTACKS)[np.arange(len(member)) % len(ATTACKS)],
                    "harmful": pd.array(harmful, dtype="boolean"),
                    "span": span,
                    "pool": "mean",
                    "start": 3,
                    "stop": 4,
                    "ids_sha": [f"{i:x}" for i in range(len(member))],
                }
            )
        )
    hidden, index = torch.from_numpy(np.concatenate(blocks)).float(), pd.concat(rows, ignore_index=True)
    if spoil:
        changed = spoil(hidden, index)
        index = index if changed is None else changed
    return write_store(folder, hidden, index, sites, fingerprint)


def write_store(folder: Path, hidden: torch.Tensor, index: pd.DataFrame, sites: list[str], fingerprint: str = "f00d") -> Store:
    """Hidden states [rows, sites, d] and their index, as capture() would have left them."""
    with writing(folder, {"sites": sites, "width": hidden.shape[-1], "fingerprint": fingerprint}) as writer:
        writer.write(0, hidden, index.assign(order=range(len(index))))
        return writer.finish()


@pytest.fixture
def build(tmp_path):
    """make_store() into a fresh folder each call."""
    numbers = itertools.count()
    return lambda **asked: make_store(tmp_path / f"store{next(numbers)}", **asked)


@pytest.fixture
def write(tmp_path):
    """write_store() into a fresh folder each call."""
    numbers = itertools.count()
    return lambda *asked: write_store(tmp_path / f"written{next(numbers)}", *asked)
