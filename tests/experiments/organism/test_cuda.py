"""Training on a GPU: the same batches, made ahead; weights that a CPU loads; a record that says where. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from thoughtlens.experiments.organism import network
from thoughtlens.experiments.organism.assess import assess
from thoughtlens.experiments.organism.build import RECORD, STAGES, build
from thoughtlens.experiments.organism.corpus import MIXTURES
from thoughtlens.experiments.organism.feeding import BUCKET, feed
from thoughtlens.experiments.organism.training import READ_EVERY, Phase, optimizer, train
from thoughtlens.hooks.model import load
from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def test_a_gpu_is_fed_the_same_batches(words: PreTrainedTokenizerFast) -> None:
    there, here = (feed(MIXTURES["base"], 8, words, seed=4, device=torch.device(place)) for place in ("cuda", "cpu"))
    for _ in range(BUCKET):
        mine, theirs = next(there), next(here)
        assert mine.keys() == theirs.keys() and mine["input_ids"].is_cuda
        assert all(torch.equal(mine[name].cpu(), theirs[name]) for name in mine)


def test_a_gpu_learns_and_tells_a_loss_in_twenty(words: PreTrainedTokenizerFast) -> None:
    model, told = network.network(words, seed=1).cuda(), list[float]()
    phase = Phase("harm", steps=2 * READ_EVERY + 1, batch=32, rate=2e-3, warmup=1, decay_to=1.0)
    last = train(model, words, phase, MIXTURES["harm"], optimizer(model), seed=5, on_step=lambda step, loss: bool(told.append(loss)))
    assert len(told) == phase.steps and len(set(told)) == 3 and last < told[0] and told[-1] < 0.8 * told[0]


def test_a_trio_built_on_a_gpu_is_a_trio_anywhere(tmp_path: Path) -> None:
    out = build(tmp_path, quick=True, device="cuda", progress=False)
    for name in STAGES:
        record = json.loads((out / name / RECORD).read_text())
        assert record["device"] == torch.cuda.get_device_name() and record["dtype"] == "float32 with bfloat16 autocast"
        assert load(out / name, device="cpu").n_layers == 6
    build(out, quick=True, device="cpu", progress=False)  # the recipe is the same: nothing is trained again
    assert assess(out / "safe", "dev", limit=4).n_harmful == 4
