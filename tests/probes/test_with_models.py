"""Probes and vectors on hidden states of a real (tiny, random) model: capture, fit, gate, steer."""

from __future__ import annotations

import pytest
import torch
from thoughtlens.hooks.capture import capture
from thoughtlens.hooks.generate import generate
from thoughtlens.hooks.records import Prompt
from thoughtlens.hooks.select import Select
from thoughtlens.hooks.steer import steer
from thoughtlens.probes import fit_probes, matrix, steering_vector, vector_from_stores
from tiny import tiny_lens, tiny_prompts, tiny_transcripts


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """Harmful ones speak of the lock, harmless ones of the door."""
    words = "how do i open the old safe kind what this picture first take then turn slowly".split()
    made = []
    for i in range(48):
        harmful = i % 2 == 0
        text = " ".join([words[i % 15], words[(3 * i + 1) % 15], "lock" if harmful else "door", words[(7 * i + 2) % 15]])
        made.append(Prompt(f"p{i}", text, group=f"g{i}", harmful=harmful, split=("train", "train", "dev", "test")[i // 2 % 4]))
    return made


def test_a_gate_opens_for_the_rows_its_probe_reads_high(prompts, tmp_path):
    lens = tiny_lens()
    transcripts = generate(lens, prompts, max_new_tokens=4, progress=False)
    store = capture(lens, transcripts, Select("resid_post", "last_prompt"), into=tmp_path / "store", progress=False)
    sweep = fit_probes(store, shuffles=2, resampled=20)
    probe = sweep.best
    data = matrix(store, span="last_prompt", label="harmful")
    readouts = probe.readout(data.x[:, store.sites.index(probe.site)])
    vector = vector_from_stores(source=store, target=store, contrast="harmful-benign", span="last_prompt", where={"split": "train"})
    gate = probe.gate(fpr=0.2)
    clear = (readouts - gate.threshold).abs() > 1e-3
    assert clear.sum() > 40
    with steer(lens, vector.at("resid_post.2"), strength=0.1, gate=gate, spans="last_prompt"):
        steered = generate(lens, prompts, max_new_tokens=2, progress=False)
    fired = torch.tensor([transcript.fired > 0 for transcript in steered])
    assert 0 < fired.sum() < len(prompts)
    assert torch.equal(fired[clear], (readouts > gate.threshold)[clear])


def test_a_vector_from_two_models_equals_one_from_their_stores(tmp_path):
    safe, reasoning = tiny_lens(seed=1), tiny_lens(seed=0)
    transcripts = tiny_transcripts(reasoning, tiny_prompts(6))
    where = Select("resid_post", ["last_prompt", "thought"], "mean")
    vector = steering_vector(safe, reasoning, transcripts, where, span="thought", rows={"harmful": True})
    stores = [capture(lens, transcripts, where, into=tmp_path / lens.name, progress=False) for lens in (safe, reasoning)]
    expected = [store.rows({"span": "thought", "harmful": True})[0].mean(0) for store in stores]
    for i, site in enumerate(stores[0].sites):
        torch.testing.assert_close(vector.values[site], expected[0][i] - expected[1][i], atol=1e-5, rtol=1e-4)
    assert vector.span == "thought" and vector.header["n_positive"] == 3
    assert steering_vector(safe, reasoning, transcripts, where).span == "last_prompt"
    with pytest.raises(ValueError, match="no span 'answer'; it has last_prompt, thought"):
        steering_vector(safe, reasoning, transcripts, where, span="answer")
