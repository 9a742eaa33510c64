"""A probe survives its file, keeps its false alarms, and opens the gate where its readout says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from thoughtlens.hooks import save_artifact
from thoughtlens.probes import Probe


def some_probe(**changed) -> Probe:
    torch.manual_seed(0)
    scores = {
        "dev_negative": torch.randn(400).sort().values,
        "dev_positive": (torch.randn(300) + 3).sort().values,
        "test_negative": torch.randn(500).sort().values,
        "test_positive": (torch.randn(200) + 3).sort().values,
    }
    where = {"site": "resid_post.4", "span": "last_prompt", "pool": "mean", "kind": "logistic", "label": "harmful", "model": "reasoning"}
    return Probe(**{"weight": torch.randn(8), "bias": -0.5, "scores": scores, "header": {"c": 0.1}, **where, **changed})


def test_readout_is_weight_times_state_plus_bias():
    probe, h = some_probe(), torch.randn(2, 3, 8)
    assert probe.readout(h).shape == (2, 3)
    torch.testing.assert_close(probe.readout(h), (h * probe.weight).sum(-1) - 0.5)
    assert probe.readout(h.double()).dtype == torch.float64
    assert probe.readout(h.bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="reads width 8, the hidden state has 6; use model 'reasoning'"):
        probe.readout(torch.randn(6))


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.5])
def test_the_threshold_is_the_lowest_that_keeps_the_rate_on_dev(fpr):
    probe = some_probe()
    negatives, value = probe.scores["dev_negative"], probe.threshold(fpr)
    assert (negatives > value).double().mean() <= fpr
    lower = negatives[negatives < value][-1]
    assert (negatives > lower).double().mean() > fpr


def test_the_rate_reached_on_test_is_told():
    achieved = some_probe().achieved(0.05)
    probe = some_probe()
    assert achieved["threshold"] == probe.threshold(0.05)
    assert achieved["dev_fpr"] == 0.05 and achieved["dev_n_negative"] == 400 and achieved["test_n_negative"] == 500
    assert achieved["test_fpr"] == (probe.scores["test_negative"] > probe.threshold(0.05)).double().mean().item()
    assert achieved["test_tpr"] == (probe.scores["test_positive"] > probe.threshold(0.05)).double().mean().item()


def test_a_rate_finer_than_the_dev_rows_is_warned_of(caplog):
    probe = some_probe()
    with caplog.at_level(logging.WARNING):
        assert probe.threshold(0.001) == probe.scores["dev_negative"].max().item()
    assert "cannot be set on 400 dev negatives" in caplog.text
    with pytest.raises(ValueError, match=r"lies in \[0, 1\)"):
        probe.threshold(1.0)


def test_the_gate_has_what_the_probe_knows():
    probe = some_probe()
    gate = probe.gate(fpr=0.05, latched=False)
    assert (gate.site, gate.span, gate.latched, gate.threshold) == ("resid_post.4", "last_prompt", False, probe.threshold(0.05))
    assert gate.weight is probe.weight and gate.bias == probe.bias


UNREADY = [("thought", "mean"), ("thought@0.5", "mean"), ("step_end[-1]", "mean"), ("thought[:16]", "max")]
READY = [("thought_last", "mean"), ("instruction@0.5", "mean"), ("step_end[1]", "max"), ("thought", "every")]


@pytest.mark.parametrize(("span", "pool"), UNREADY)
def test_a_probe_that_reads_no_single_arriving_token_makes_no_gate(span, pool):
    probe = some_probe(span=span, pool=pool)
    with pytest.raises(ValueError, match=r"pick\(span='last_prompt'\)"):
        probe.gate()
    assert probe.gate(span="step_end[0]").span == "step_end[0]"


@pytest.mark.parametrize(("span", "pool"), READY)
def test_a_probe_of_single_tokens_makes_a_gate_at_its_span(span, pool):
    assert some_probe(span=span, pool=pool).gate().span == span


def test_what_is_saved_is_what_is_loaded(tmp_path):
    probe = some_probe()
    probe.save(tmp_path / "probe.safetensors")
    loaded = Probe.load(tmp_path / "probe.safetensors")
    assert torch.equal(loaded.weight, probe.weight) and loaded.header == probe.header
    for name in ("bias", "site", "span", "pool", "kind", "label", "model"):
        assert getattr(loaded, name) == getattr(probe, name)
    assert loaded.achieved(0.02) == probe.achieved(0.02)
    assert loaded.setting is None and loaded.over == "" and loaded.calibration is None and loaded.metrics == {}
    with pytest.raises(FileExistsError):
        probe.save(tmp_path / "probe.safetensors")


def test_what_was_measured_and_how_it_was_calibrated_survive_the_file(tmp_path):
    metrics = {"auroc": {"value": 0.9, "low": 0.8, "high": None}, "sizes": {"positives": 3, "negatives": 4, "groups": 5}}
    probe = some_probe(setting=0.1, over="max", calibration=(1.5, -0.25), metrics=metrics)
    probe.save(tmp_path / "probe.safetensors")
    loaded = Probe.load(tmp_path / "probe.safetensors")
    for name in ("setting", "over", "calibration", "metrics"):
        assert getattr(loaded, name) == getattr(probe, name)
    h = torch.randn(5, 8)
    torch.testing.assert_close(loaded.probability(h), 1 / (1 + torch.exp(0.25 - 1.5 * probe.readout(h))))
    with pytest.raises(ValueError, match=r"saved without a calibration, so its readout is no probability\. Fit it again"):
        some_probe().probability(h)


def test_the_shipped_probe_loads():
    loaded = Probe.load(Path(__file__).parents[2] / "checkpoints" / "probes" / "reasoning.safetensors")
    assert loaded.span == "last_prompt" and loaded.gate(fpr=0.05).site == loaded.site
    torch.testing.assert_close(loaded.direction * loaded.weight.norm(), loaded.weight)


def test_a_sequence_probe_gates_by_its_largest_token_only():
    gate = some_probe(kind="sequence", span="thought", pool="every", over="max").gate(fpr=0.05)
    assert (gate.span, gate.latched) == ("thought", True)
    for over in ("mean", "last"):
        with pytest.raises(ValueError, match=f"reads the {over} over 'thought', .* a sequence probe over 'max'"):
            some_probe(kind="sequence", span="thought", pool="every", over=over).gate()
    with pytest.raises(ValueError, match="max over 'thought"):
        some_probe(kind="sequence", span="thought[-8:]", pool="every", over="max").gate()
    with pytest.raises(ValueError, match="cannot be put together by 'median'; known are mean, max, last"):
        some_probe(over="median")


def test_another_artifact_is_not_a_probe(tmp_path):
    save_artifact(tmp_path / "v.safetensors", {"resid_post.4": torch.ones(8)}, {"kind": "vector"})
    with pytest.raises(ValueError, match="holds a 'vector', not a probe"):
        Probe.load(tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match="'test_positive' is missing"):
        some_probe(scores={name: torch.zeros(3) for name in ("dev_negative", "dev_positive", "test_negative")})
