"""The doctor tells what is there, and of a model how it will be read."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from thoughtlens.experiments import doctor as module
from thoughtlens.experiments.doctor import doctor
from thoughtlens.hooks.model import load


def test_versions_devices_threads_disk_and_extras_are_told() -> None:
    told = {line.split()[0]: line for line in doctor()}
    assert version("torch") in told["torch"] and version("transformers") in told["transformers"] and version("nnsight") in told["nnsight"]
    assert "cpu" in told["devices"] and f"{torch.get_num_threads()} of" in told["threads"] and " GB" in told["free"]
    extras = [line for line in doctor() if line.startswith("extra ")]
    assert {line.split()[1] for line in extras} == set(module.EXTRAS) and any("installed" in line for line in extras)


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXTRAS", {"train": ("peft", "no_such_package_of_ours")})
    (line,) = [line for line in doctor() if line.startswith("extra ")]
    assert "missing no_such_package_of_ours" in line and "pip install 'thoughtlens[train]'" in line


def test_a_model_is_told_as_it_will_be_read(quick_trio: Path) -> None:
    told = "\n".join(doctor(str(quick_trio / "safe")))
    lens = load(quick_trio / "safe")
    assert "6 layers of width 192" in told and "Qwen2_5_VLForConditionalGeneration" in told
    assert "'<think>'" in told and lens.fingerprint[:16] in told and lens.family.layers in told
