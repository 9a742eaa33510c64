"""Provenance: a vector is used on the model it was made for; on another it is refused with how they differ, unless that is meant."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from thoughtlens.hooks.gates import ProbeGate
from thoughtlens.hooks.model import LensModel, load
from thoughtlens.hooks.provenance import check_made_for, differences, facts_of
from thoughtlens.hooks.select import Select
from thoughtlens.hooks.steer import Trigger, Vector, monitor, steer
from thoughtlens.probes import steering_vector
from tiny import tiny_folder, tiny_lens, tiny_prompts, tiny_transcripts


@pytest.fixture
def lens() -> LensModel:
    return tiny_lens()


def made_for(lens: LensModel, **changes: object) -> Vector:
    header = {"made_for": {**facts_of(lens), **changes}}
    return Vector({"resid_post.1": torch.ones(32)}, span="last_prompt", source="test", header=header)


def test_a_model_does_not_differ_from_itself(lens: LensModel) -> None:
    assert differences(lens, facts_of(lens)) == [] == differences(lens, {})
    again = load(tiny_folder(), device="cpu")
    assert differences(again, facts_of(lens)) == []
    with steer(lens, made_for(lens), strength=0.0):
        pass


@pytest.mark.parametrize(
    ("fact", "value", "says"),
    [
        ("fingerprint", "a" * 64, r"other weights \(fingerprint aaaaaaaaaaaa, here c5"),
        ("tokenizer", "b" * 64, r"another tokenizer \(vocabulary bbbbbbbbbbbb"),
        ("template", "c" * 64, r"another chat template \(cccccccccccc"),
        ("arguments", {"enable_thinking": False}, r"other arguments of the chat template \(\{'enable_thinking': False\}, here \{\}\)"),
    ],
)
def test_every_difference_is_refused_by_name(lens: LensModel, fact: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=rf"the vector 'test' was made for 'tiny-words-0'.*{says}.*foreign=True"):
        steer(lens, made_for(lens, **{fact: value}))


def test_all_differences_are_listed_at_once(lens: LensModel) -> None:
    with pytest.raises(ValueError, match="other weights.*; another chat template"):
        steer(lens, made_for(lens, fingerprint="a" * 64, template="c" * 64))


def test_what_is_meant_is_done_and_logged(lens: LensModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), steer(lens, made_for(lens, fingerprint="a" * 64), strength=0.0, foreign=True):
        pass
    assert "other weights" in caplog.text and "used all the same, as asked" in caplog.text


def test_another_dtype_is_told_and_not_refused(lens: LensModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_made_for(lens, {**facts_of(lens), "dtype": "bfloat16"}, "the vector", foreign=False)
    assert "measured in bfloat16, tiny-words-0 runs in float32" in caplog.text


def test_an_artifact_that_says_nothing_is_taken_at_its_word(lens: LensModel) -> None:
    check_made_for(lens, {}, "the vector", foreign=False)


def test_the_facts_follow_template_and_vocabulary(lens: LensModel) -> None:
    other = dataclasses.replace(lens, template={"thinking": True})
    assert facts_of(other)["arguments"] == {"thinking": True}
    pieces = tiny_lens("pieces")
    assert facts_of(pieces)["tokenizer"] != facts_of(lens)["tokenizer"] and facts_of(pieces)["template"] != facts_of(lens)["template"]


def test_a_vector_carries_what_it_was_made_of_into_its_file(tmp_path: Path) -> None:
    source, target = load(tiny_folder(seed=1), device="cpu"), tiny_lens()
    transcripts = tiny_transcripts(target, tiny_prompts(6), seed=2)
    vector = steering_vector(source, target, transcripts, Select("resid_post", "last_prompt"))
    vector.save(tmp_path / "v.safetensors")
    header = Vector.load(tmp_path / "v.safetensors").header
    assert header["made_for"] == facts_of(target) and header["made_from"] == facts_of(source)
    assert len(header["data"]) == 64 and header["pool"] == "mean" and header["span"] == "last_prompt"
    other = steering_vector(source, target, transcripts[:5], Select("resid_post", "last_prompt"))
    assert other.header["data"] != header["data"]
    with pytest.raises(ValueError, match="other weights"):
        steer(source, vector)


@pytest.mark.parametrize("how", ["gate", "trigger", "probe"])
def test_a_probe_of_another_model_is_refused_like_a_vector(lens: LensModel, how: str, caplog: pytest.LogCaptureFixture) -> None:
    gate = ProbeGate(torch.ones(32), 0.0, "resid_post.0", 0.0, made_for={**facts_of(lens), "fingerprint": "a" * 64})
    asked = {"gate": {"gate": gate}, "trigger": {"triggers": [Trigger(~gate)]}, "probe": {"probes": {"x": gate}}}[how]
    with pytest.raises(ValueError, match=r"the probe .* was made for 'tiny-words-0'.*other weights.*foreign=True"):
        steer(lens, made_for(lens), **asked)  # type: ignore[arg-type]
    if how != "gate":
        with pytest.raises(ValueError, match=r"the probe .* was made for"):
            monitor(lens, asked.get("probes", {}), triggers=asked.get("triggers", ()))  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING), steer(lens, made_for(lens), strength=0.0, foreign=True, **asked):  # type: ignore[arg-type]
        pass
    assert "the probe" in caplog.text and "used all the same, as asked" in caplog.text
