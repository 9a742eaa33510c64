"""A file is whole or absent."""

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest
from thoughtlens.hooks.files import DiskFull, atomic, locked, writable_folder, write_text


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


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk quota is used up"), (errno.EFBIG, r"ulimit -f")]
)
def test_a_full_disk_leaves_the_old_file_and_says_what_is_needed(tmp_path: Path, number: int, said: str) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(
        DiskFull, match=f"{said}.*: a.txt needs 3.0 GB, .*B are free in .*Make room there and run the same call again"
    ) as told:
        with atomic(tmp_path / "a.txt", size=3 * 2**30) as part:
            part.write_text("half")
            raise OSError(number, "no")
    assert told.value.__cause__.errno == number
    with pytest.raises(DiskFull, match="a.txt needs more than 4 bytes"), atomic(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise OSError(number, "no")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]
    with pytest.raises(OSError, match="stale") as other, atomic(tmp_path / "a.txt"):
        raise OSError(errno.ESTALE, "stale")  # what is no lack of room is left as it is
    assert not isinstance(other.value, DiskFull)


def test_a_lock_on_a_file_that_is_gone_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the file and locking it, the writer before may finish and remove it."""
    lock, calls = fcntl.flock, list[int]()

    def late(descriptor: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            (tmp_path / ".lock").unlink()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert len(calls) == 2 and (tmp_path / ".lock").exists()
        with pytest.raises(BlockingIOError, match="somebody else is writing into"), locked(tmp_path):
            pass


def test_many_processes_that_want_to_write_take_turns(tmp_path: Path) -> None:
    """The file of the lock goes when a writer is done; nobody may hold a lock on a file that is gone."""

    def turns() -> None:
        done = 0
        while done < 100:
            try:
                with locked(tmp_path):
                    os.close(os.open(tmp_path / "inside", os.O_CREAT | os.O_EXCL))  # fails when another is inside
                    (tmp_path / "inside").unlink()
                    done += 1
            except BlockingIOError:
                time.sleep(0.0001)

    pids = []
    for _ in range(4):
        if not (pid := os.fork()):
            try:
                turns()
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
    assert list(tmp_path.iterdir()) == []
