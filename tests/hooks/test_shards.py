"""A store is written by one process at a time, and ends with the same bytes however often and whenever that process is killed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from thoughtlens.hooks import shards
from thoughtlens.hooks.files import DiskFull
from thoughtlens.hooks.shards import save, writing
from thoughtlens.hooks.store import Store, open_store, verify_store

torch.set_num_threads(1)
META: dict[str, Any] = {"sites": ["resid_post.0", "resid_post.1"], "width": 3, "fingerprint": "f00d"}


def vectors(number: int, rows: int, job: int = 0) -> torch.Tensor:
    return torch.randn(rows, 2, 3, generator=torch.Generator().manual_seed(100 * job + number))


def index(number: int, rows: int, job: int = 0) -> pd.DataFrame:
    """Rows that come out in another order than they were written."""
    return pd.DataFrame(
        {
            "prompt_id": [f"p{job}.{number}.{row}" for row in range(rows)],
            "span": ["thought" if row % 2 else "last_prompt" for row in range(rows)],
            "harmful": pd.array([None if number == 0 else row % 2 == 0 for row in range(rows)], dtype="boolean"),
            "category": None if number == 0 else "fraud",
            "order": [(row * 7 + number) % 5 for row in range(rows)],
        }
    )


def write(folder: Path, *, job: int = 0, count: int = 3, append: bool = False, dying: Callable[[int], None] = lambda number: None) -> Store:
    """A job of `count` shards, of 2, 3, … rows, that goes on where it stopped."""
    with writing(folder, {**META, "job": {"number": job, "count": count}}, append=append) as writer:
        for number in sorted(set(range(count)) - writer.done) if not writer.finished else ():
            dying(number)
            writer.write(number, vectors(number, 2 + number, job), index(number, 2 + number, job))
        dying(count)
        return writer.finish()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def in_child(work: Callable[[], object], *, kill_after: float | None = None) -> tuple[int, str]:
    """Run `work` in a process of its own: the signal that ended it (0: none) and what it said or raised."""
    reads, writes = os.pipe()
    if not (pid := os.fork()):
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writes, said.encode())
        os._exit(0)
    os.close(writes)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(reads) as pipe:
        said = pipe.read()
    return os.WTERMSIG(os.waitpid(pid, 0)[1]), said


def counting(folder: Path, kill_at: int | None, work: Callable[[], object]) -> int:
    """Do `work` and count its changes in `folder`: files opened to write, renamed, removed. This process is killed before the given one."""
    count = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        path = str(arguments[0])
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # named within an open folder, as shutil.rmtree does
            path = os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), path)
        if str(folder) not in path or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if event != "open" and os.path.exists(path) == (event == "os.mkdir"):
            return  # changes nothing
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    sys.addaudithook(audit)  # cannot be taken away again: for a child process only
    work()
    return count


def test_killed_before_any_change_of_any_file_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    def both(folder: Path) -> None:
        write(folder, count=2, append=True)
        write(folder, job=1, count=2, append=True)

    both(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    first = write(tmp_path / "first", count=2).rows()[0]
    moments = int(in_child(lambda: counting(tmp_path / "count", None, lambda: both(tmp_path / "count")))[1])
    assert moments > 25 and contents(tmp_path / "count") == whole
    seen = set()
    for moment in range(moments):
        folder = tmp_path / f"killed{moment}"
        assert in_child(lambda folder=folder, moment=moment: counting(folder, moment, lambda: both(folder))) == (signal.SIGKILL, "")
        if (folder / "index.parquet").exists():  # a job that was stopped never harms the store it was added to
            rows = open_store(folder, verify=True).rows()[0]
            assert torch.equal(rows[:5], first) and len(rows) in (5, 10)
            seen.add(len(rows))
        elif folder.exists():
            with pytest.raises(FileNotFoundError, match=r"unfinished capture|no activation store"):
                open_store(folder)
            seen.add(0)
        both(folder)
        assert contents(folder) == whole, f"killed at {moment}"
    assert seen == {0, 5, 10}


def test_killed_at_any_time_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """The hammer beside the scalpel: a process killed from outside, in the middle of whatever it does, again and again until it is done."""

    def work(folder: Path) -> None:
        with writing(folder, {**META, "width": 4096}) as writer:
            for number in sorted(set(range(8)) - writer.done) if not writer.finished else ():
                writer.write(number, torch.full((64, 2, 4096), float(number)), index(number, 64))
            writer.finish()

    work(tmp_path / "whole")
    dice, kills, longest, died = random.Random(0), 0, 0.03, 1
    while died:
        died, _ = in_child(lambda: work(tmp_path / "killed"), kill_after=dice.uniform(0.0, longest))
        kills += died == signal.SIGKILL
        longest *= 1.15  # however slow the machine is, it gets there
    work(tmp_path / "killed")
    assert kills >= 3 and contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_an_interrupted_writer_keeps_the_shard_it_was_handed(tmp_path: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "s", dying=interrupt)
    written: list[int] = []
    write(tmp_path / "s", dying=written.append)
    assert written == [2, 3] and contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_rows_are_sorted_by_order_and_shards_are_numbered(tmp_path: Path) -> None:
    store = write(tmp_path / "s")
    frames = [index(n, 2 + n).assign(shard=n, offset=range(2 + n)) for n in range(3)]
    expected = pd.concat(frames).sort_values("order", kind="stable").drop(columns="order").reset_index(drop=True)
    assert (
        store.index.drop(columns="shard_sha")
        .astype({"category": object})
        .equals(expected.astype(store.index.dtypes.drop(["shard_sha", "category"])))
    )
    order = [(row.shard, row.offset) for row in expected.itertuples()]
    assert torch.equal(store.rows()[0], torch.stack([vectors(shard, 2 + shard)[offset] for shard, offset in order]))
    assert [shard.rows for shard in store.shards] == [2, 3, 4] and len(store) == 9 and verify_store(store.path) == []
    shas = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted((store.path / "shards").iterdir())]
    assert shas == [shard.sha for shard in store.shards] == store.index.sort_values(["shard"])["shard_sha"].drop_duplicates().tolist()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]), st.booleans())
def test_a_shard_has_the_bytes_that_safetensors_would_write(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], dtype: torch.dtype, strided: bool
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    pieces = [torch.randn(n, 3, 2 if strided else 1).to(dtype).transpose(1, 2) for n in rows]
    sha = save(folder / "ours", pieces)
    save_file({"vectors": torch.cat(pieces).float().contiguous()}, folder / "theirs")
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()
    assert sha == hashlib.sha256((folder / "theirs").read_bytes()).hexdigest()


def test_several_tensors_are_joined(tmp_path: Path) -> None:
    for name, given_as in (("one", lambda x: x), ("many", lambda x: [x[:1], x[1:]])):
        with writing(tmp_path / name, META) as writer:
            writer.write(0, given_as(vectors(0, 4)), index(0, 4))
            writer.finish()
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_only_one_writes_at_a_time_and_a_killed_writer_holds_nobody_up(tmp_path: Path) -> None:
    def hold() -> None:
        with writing(tmp_path / "s", META) as writer:
            writer.write(0, vectors(0, 4), index(0, 4))
            writer.settle()
            (tmp_path / "held").touch()
            time.sleep(60)

    if not (pid := os.fork()):
        hold()
        os._exit(0)
    try:
        while not (tmp_path / "held").exists():
            time.sleep(0.01)
        before = contents(tmp_path / "s")
        with pytest.raises(BlockingIOError, match="somebody else is writing into .*Wait until it is done"), writing(tmp_path / "s", META):
            pass
        assert contents(tmp_path / "s") == before
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with writing(tmp_path / "s", META) as writer:
        assert writer.done == {0}
        with pytest.raises(BlockingIOError), writing(tmp_path / "s", META):
            pass
        writer.finish()
    assert not (tmp_path / "s" / ".lock").exists()


@pytest.mark.parametrize(("at", "call"), [(1, "fsync"), (1, "write_table"), (3, "write_table")], ids=["a shard", "its rows", "the index"])
def test_a_full_disk_says_how_much_room_is_needed_and_nothing_is_lost(
    tmp_path: Path, at: int, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path / "whole")
    module = shards.os if call == "fsync" else shards.pq
    said = r"the disk is full: \S+ needs .*, .* are free in .*Make room there and run the same call again"
    with monkeypatch.context() as patch, pytest.raises(DiskFull, match=said):
        write(tmp_path / "s", dying=lambda number: patch.setattr(module, call, full) if number == at else None)
    assert not list((tmp_path / "s").rglob("*.part"))
    write(tmp_path / "s")
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_what_goes_wrong_in_the_background_comes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> str:
        raise DiskFull("no room")

    monkeypatch.setattr(shards, "save", broken)
    with pytest.raises(DiskFull, match="no room"), writing(tmp_path, META) as writer:
        writer.write(0, vectors(0, 4), index(0, 4))
    with pytest.raises(DiskFull, match="no room"), writing(tmp_path, META) as writer:
        writer.write(0, vectors(0, 4), index(0, 4))
        writer.write(1, vectors(1, 4), index(1, 4))
        pytest.fail("the second shard was taken")
    with pytest.raises(KeyError), writing(tmp_path, META) as writer:  # what went wrong first is what is told
        writer.write(0, vectors(0, 4), index(0, 4))
        raise KeyError


def big(folder: Path) -> Store:
    """Shards of 48 kB, in a folder that may be too small for them."""
    with writing(folder, META) as writer:
        for number in sorted(set(range(8)) - writer.done) if not writer.finished else ():
            writer.write(number, vectors(number, 2000), index(number, 2000))
        return writer.finish()


def test_a_file_size_limit_says_so(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        big(tmp_path / "s")

    big(tmp_path / "whole")
    _, said = in_child(limited)
    assert said.startswith("DiskFull: a file may not grow that large here (ulimit -f): 00000.safetensors needs 47.0 kB"), said
    big(tmp_path / "s")
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 200 kB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_really_full(tmp_path: Path, small_disk: Path) -> None:
    big(tmp_path / "whole")
    with pytest.raises(DiskFull, match=r"the disk is full: 0000\d\.(safetensors|parquet) needs .*B, .* are free"):
        big(small_disk / "s")
    with pytest.raises(DiskFull):
        big(small_disk / "s")
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    with writing(small_disk / "s", META) as writer:
        assert {0, 1} <= writer.done
    big(small_disk / "s")
    assert contents(small_disk / "s") == contents(tmp_path / "whole")


def test_a_job_is_added_to_a_finished_store(tmp_path: Path) -> None:
    before = write(tmp_path / "s")
    old, shas = before.index, [file.read_bytes() for file in sorted((tmp_path / "s" / "shards").iterdir())]
    with writing(tmp_path / "s", {**META, "job": {"number": 1}}, append=True) as writer:
        assert not writer.finished and writer.done == set()
        assert writer.present.equals(old[["prompt_id", "span"]])
        assert open_store(tmp_path / "s").index.equals(old)  # until the new index is there, the store is what it was
        writer.write(0, vectors(0, 4, 1), index(0, 4, 1).assign(refused=[True, False, True, False]))
        after = writer.finish()
    assert len(after) == len(old) + 4 and [shard.rows for shard in after.shards] == [2, 3, 4, 4]
    assert [file.read_bytes() for file in sorted((tmp_path / "s" / "shards").iterdir())][:3] == shas
    assert (
        after.index.iloc[: len(old)][old.columns].equals(old) and after.index["refused"].isna().tolist() == [True] * len(old) + [False] * 4
    )
    assert torch.equal(after.rows()[0][: len(old)], before.rows()[0])
    new = after.index.iloc[len(old) :]
    assert new["shard"].tolist() == [3] * 4 and torch.equal(
        after.rows({"shard": 3})[0], vectors(0, 4, 1)[torch.tensor(new["offset"].tolist())]
    )
    assert after.jobs == ({"number": 0, "count": 3}, {"number": 1}) and verify_store(after.path) == []


def test_a_job_that_is_in_the_store_is_not_done_again(tmp_path: Path) -> None:
    write(tmp_path / "s")
    write(tmp_path / "s", job=1, append=True)
    whole = contents(tmp_path / "s")
    for job in (0, 1):
        write(tmp_path / "s", job=job, append=True, dying=lambda number: None if number == 3 else pytest.fail("a shard was written"))
    assert contents(tmp_path / "s") == whole
    with (
        pytest.raises(ValueError, match="shard 0 .* is there already"),
        writing(tmp_path / "s", {**META, "job": {"number": 0, "count": 3}}, append=True) as writer,
    ):
        writer.write(0, vectors(0, 2), index(0, 2))


def test_a_job_may_find_everything_there(tmp_path: Path) -> None:
    before = write(tmp_path / "s")
    with writing(tmp_path / "s", {**META, "job": {"number": 1}}, append=True) as writer:
        after = writer.finish()
    assert after.index.equals(before.index) and len(after.jobs) == 2 and verify_store(after.path) == []


def test_a_job_that_was_given_up_leaves_nothing_in_the_next_one(tmp_path: Path) -> None:
    def stop(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    write(tmp_path / "s")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "s", job=1, append=True, dying=stop)
    shutil.rmtree(tmp_path / "s" / "parts")  # as verify_store says
    assert len(verify_store(tmp_path / "s")) == 2  # the shards it had written
    store = write(tmp_path / "s", job=2, count=1, append=True)
    assert verify_store(store.path) == [] and len(list((store.path / "shards").iterdir())) == 4


def test_what_cannot_be_gone_on_with_is_refused(tmp_path: Path) -> None:
    def stop(number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "s", dying=stop)
    for append in (False, True):  # the first job is not finished
        with pytest.raises(ValueError, match="different capture.*number is 0 there and 1 now.*Run that one again to finish it, or choose"):
            write(tmp_path / "s", job=1, append=append)
    write(tmp_path / "s")
    with pytest.raises(
        ValueError, match="different capture.*number is 0 there and 1 now.*or delete this one, or add to it with append=True"
    ):
        write(tmp_path / "s", job=1)
    with pytest.raises(ValueError, match="different capture.*is None there and 1 now .3 settings differ: at, number, width"):
        with writing(tmp_path / "s", {**META, "width": 4, "job": {"number": 1, "at": 1}}, append=True):
            pass
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "s", job=1, append=True, dying=stop)
    with pytest.raises(ValueError, match="different capture.*number is 1 there and 2 now.*Run that one again"):
        write(tmp_path / "s", job=2, append=True)
    assert len(write(tmp_path / "s")) == 9  # what is finished can still be asked for,
    told = verify_store(tmp_path / "s")
    assert len(told) == 1 and "holds unfinished work in parts/. Run the capture that was stopped again" in told[0]
    assert len(write(tmp_path / "s", job=1, append=True)) == 18  # and what was stopped goes on
    with pytest.raises(ValueError, match="different capture"):  # the store holds more than is asked for
        write(tmp_path / "s")
    with (
        pytest.raises(ValueError, match="nothing tells the work to be added .* describe it in meta"),
        writing(tmp_path / "s", META, append=True),
    ):
        pass


@pytest.mark.parametrize(
    ("given_as", "said"),
    [
        ((0, vectors(0, 3)[:, :1], index(0, 3)), r"are \[rows, 2 sites, 3 wide\], got \[3, 1, 3\]"),
        ((0, vectors(0, 3), index(0, 2)), "has 3 vectors and 2 index rows: give one row per vector"),
        ((0, vectors(0, 0), index(0, 0)), "has 0 vectors"),
        ((0, vectors(0, 3), index(0, 3).drop(columns="order")), "need a column 'order'"),
        ((0, vectors(0, 3), index(0, 3).assign(offset=1)), "no shard, offset, shard_sha, which the writer adds"),
    ],
)
def test_vectors_and_rows_that_do_not_fit_are_refused(tmp_path: Path, given_as: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said), writing(tmp_path, META) as writer:
        writer.write(*given_as)


def test_a_shard_comes_once_and_columns_keep_their_kind(tmp_path: Path) -> None:
    with writing(tmp_path, META) as writer:
        with pytest.raises(ValueError, match="cannot be finished: its shards are numbered 0, 1, … without a gap, and there are: none"):
            writer.finish()
        writer.write(1, vectors(1, 3), index(1, 3))
        with pytest.raises(ValueError, match="cannot be finished.*there are: 1"):
            writer.finish()
        with pytest.raises(ValueError, match="shard 1 of .* is there already"):
            writer.write(1, vectors(1, 3), index(1, 3))
    with writing(tmp_path, META) as writer, pytest.raises(ValueError, match="a column of the index .*changed its kind.*category"):
        writer.write(0, vectors(0, 3), index(0, 3).assign(category=7))


def test_a_note_of_a_job_is_kept_as_json_keeps_it(tmp_path: Path) -> None:
    for _ in range(2):  # a tuple comes back as a list: still the same capture
        with writing(tmp_path, {**META, "sites": tuple(META["sites"]), "job": {"shape": (1, 2)}}) as writer:
            if not writer.finished:
                writer.write(0, vectors(0, 3), index(0, 3))
            writer.finish()
    assert json.loads((tmp_path / "meta.json").read_text())["sites"] == META["sites"]
