"""The doctor tells what is there, and of a model how it will be read."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments import doctor as module
from thoughtlens.experiments.doctor import doctor
from thoughtlens.hooks.dialects import DIALECTS
from thoughtlens.hooks.model import load
from zoo import zoo_folder


def test_versions_devices_threads_disk_and_extras_are_told() -> None:
    told = {line.split()[0]: line for line in doctor()}
    assert version("torch") in told["torch"] and version("transformers") in told["transformers"] and version("nnsight") in told["nnsight"]
    assert "cpu" in told["devices"] and f"{torch.get_num_threads()} of" in told["threads"] and " GB" in told["free"]
    extras = [line for line in doctor() if line.startswith("extra ")]
    assert {line.split()[1] for line in extras} == set(module.EXTRAS) and any("installed" in line for line in extras)


def test_the_extras_are_those_of_the_project() -> None:
    with (Path(module.__file__).parent.parent / "pyproject.toml").open("rb") as file:
        asked = tomllib.load(file)["project"]["optional-dependencies"]

    def packages(extra: str) -> set[str]:
        found = set()
        for wanted in asked[extra]:
            ours = re.fullmatch(r"thoughtlens\[(.*)\]", wanted)
            found |= set().union(*map(packages, ours[1].split(","))) if ours else {re.split(r"[<>=]", wanted)[0]}
        return found

    assert {extra: set(names) for extra, names in module.EXTRAS.items()} == {extra: packages(extra) for extra in asked}
    assert not set(module.OPTIONAL) & {name for names in module.EXTRAS.values() for name in names}


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXTRAS", {"train": ("peft", "no_such_package_of_ours")})
    (line,) = [line for line in doctor() if line.startswith("extra ")]
    assert "missing no_such_package_of_ours" in line and "pip install 'thoughtlens[train]'" in line


def test_a_model_is_told_as_it_will_be_read() -> None:
    told = "\n".join(doctor(str(CHECKPOINTS / "safe")))
    lens = load(CHECKPOINTS / "safe")
    assert "6 layers of width 192" in told and "Qwen2_5_VLForConditionalGeneration" in told and "qwen2_5_vl" in told
    assert "open '<think>'; close '</think>'" in told and lens.fingerprint[:16] in told and lens.family.layers in told
    assert "'<|image_pad|>'" in told and "arguments none" in told and "deepstack" not in told
    assert "0-5: attn_out from self_attn, mlp_out from mlp, head_out before self_attn.o_proj, " in told
    assert f"head_out before self_attn.o_proj, {lens.text_config.num_attention_heads} heads" in told


def test_runs_of_numbers_are_shortened() -> None:
    assert module._numbers([0, 1, 2, 4, 6, 7]) == "0-2, 4, 6-7" and module._numbers([3]) == "3" and module._numbers(range(3)) == "0-2"


def test_every_marker_is_told_by_its_role() -> None:
    assert module._markers(DIALECTS["none"]) == "no markers, all of an output is answer"
    told = module._markers(DIALECTS["llava_cot"])
    assert all(repr(text) in told for _, text in DIALECTS["llava_cot"].markers) and told.startswith(
        "open '<SUMMARY>'; close '<CONCLUSION>'; inner "
    )


@pytest.mark.parametrize(
    ("family", "words"),
    {
        "qwen3_vl": ("deepstack     visual features are added at image tokens behind layers 0-1", "note          DeepStack"),
        "mllama": ("cross_attn_out from cross_attn (the layer adds tanh(cross_attn_attn_gate) times it)", "attn_out from self_attn"),
        "qwen3_5": ("attn_out from linear_attn", "head_out before linear_attn.out_proj", "head_out before self_attn.o_proj"),
        "gemma3": ("attn_out from post_attention_layernorm, mlp_out from post_feedforward_layernorm",),
        "qwen3": ("image token   none: this family reads text alone",),
    }.items(),
)
def test_what_sets_a_family_apart_is_told(family: str, words: tuple[str, ...]) -> None:
    told = "\n".join(doctor(str(zoo_folder(family))))
    assert all(one in told for one in words), told
