"""A file is whole or absent."""

import os
from pathlib import Path

import pytest
from thoughtlens.hooks.files import atomic, writable_folder, write_text


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "deep" / "a.txt") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert [(p.name, p.read_text()) for p in (tmp_path / "deep").iterdir()] == [("a.txt", "old")]


def test_bytes_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    write_text(tmp_path / "a.txt", "new")
    assert calls == ["fsync", "rename", "fsync"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="no write permission. Choose another folder"):
        writable_folder(tmp_path)
    with pytest.raises(PermissionError, match="cannot make the folder .* Choose a folder you may write to"):
        writable_folder(tmp_path / "deeper")


def test_a_file_in_the_way_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(NotADirectoryError, match="a file with that name is there"):
        writable_folder(tmp_path / "a")
