"""Artifacts come back whole, and say what is wrong when they cannot."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from thoughtlens.hooks import load_artifact, save_artifact


def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    tensors = {"resid_post.1": torch.randn(4), "half": torch.randn(2, 3).bfloat16(), "turned": torch.randn(3, 2).T}
    save_artifact(tmp_path / "deep" / "v.safetensors", tensors, {"kind": "vector", "source": "häßlich", "scale": {"a": 1.5}})
    back, header = load_artifact(tmp_path / "deep" / "v.safetensors")
    assert back.keys() == tensors.keys() and all(torch.equal(back[k], tensors[k]) and back[k].dtype == tensors[k].dtype for k in tensors)
    assert (header["kind"], header["source"], header["scale"], header["format_version"]) == ("vector", "häßlich", {"a": 1.5}, 1)
    assert {"created", "versions"} <= header.keys()


def test_an_artifact_is_never_overwritten(tmp_path: Path) -> None:
    file = save_artifact(tmp_path / "v.safetensors", {"a": torch.ones(1)}, {})
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match="never changed in place. Choose another name"):
        save_artifact(file, {"a": torch.zeros(1)}, {})
    assert file.read_bytes() == before


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_a_truncated_file_says_so(tmp_path: Path, keep: int) -> None:
    file = save_artifact(tmp_path / "v.safetensors", {"a": torch.ones(8)}, {"kind": "vector"})
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="not a whole safetensors file.*write or copy it again"):
        load_artifact(file)


def test_foreign_newer_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="without a thoughtlens header"):
        load_artifact(tmp_path / "foreign.safetensors")
    save_file(
        {"a": torch.ones(1)}, tmp_path / "newer.safetensors", metadata={"thoughtlens": '{"format": "thoughtlens", "format_version": 99}'}
    )
    with pytest.raises(ValueError, match="format version 99, this toolkit reads up to 1"):
        load_artifact(tmp_path / "newer.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_artifact(tmp_path / "absent.safetensors")


def test_a_header_must_be_plain_and_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot be written as JSON.*keep the header plain"):
        save_artifact(tmp_path / "v.safetensors", {"a": torch.ones(1)}, {"tensor": torch.ones(1)})
    shared = torch.ones(4)
    with pytest.raises(RuntimeError):
        save_artifact(tmp_path / "v.safetensors", {"a": shared, "b": shared}, {})
    assert not list(tmp_path.iterdir())
