"""A folder is whole or absent, whatever happens while it is written."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest
from thoughtlens.hooks.export.folder import sha256s, whole_folder
from thoughtlens.hooks.files import DiskFull


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "new" / "out") as part:
        (part / "a.txt").write_text("a")
        (part / "deep").mkdir()
        (part / "deep" / "b.txt").write_text("b")
        assert not (tmp_path / "new" / "out").exists()
    assert sha256s(tmp_path / "new" / "out") == {
        "a.txt": hashlib.sha256(b"a").hexdigest(),
        "deep/b.txt": hashlib.sha256(b"b").hexdigest(),
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_folder_that_failed(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), whole_folder(tmp_path / "out") as part:
        (part / "a.txt").write_text("a")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="the disk is full: .* are free in .*export again"), whole_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_what_is_there_already_is_left_alone(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "out"
    {"folder": there.mkdir, "file": there.touch, "broken link": lambda: there.symlink_to("nowhere")}[kind]()
    with pytest.raises(FileExistsError, match="never changed in place. Choose another name"), whole_folder(there):
        raise AssertionError("the block ran")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_made_meanwhile_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), whole_folder(tmp_path / "out") as part:
        (part / "a.txt").write_text("mine")
        (tmp_path / "out").mkdir()
    assert list((tmp_path / "out").iterdir()) == [] and len(list(tmp_path.iterdir())) == 1
