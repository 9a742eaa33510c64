"""A store is whole or unfinished; a killed capture ends with the same bytes; a damaged or foreign one is refused."""

import json
import re
import shutil
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from thoughtlens.hooks import Select, Store, open_store
from thoughtlens.hooks.shards import Writer, writing
from thoughtlens.hooks.store import shard_file, verify_store
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

captures = import_module("thoughtlens.hooks.capture")
WHERE = Select(["resid_post", "mlp_out.1"], ["last_prompt", "thought", "thought_last"])


def run(into: Path, n: int = 8, **changes: Any) -> Store:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(n), statuses=("closed", "unclosed"))
    settings = {"batch_size": 2, "shard_bytes": 3072, "progress": False, **changes}
    return captures.capture(lens, transcripts, settings.pop("where", WHERE), into=into, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def small_store(folder: Path, rows: tuple[int, ...] = (2, 3)) -> Store:
    """A store without a model."""
    with writing(folder, {"sites": ["resid_post.0", "mlp_out.1"], "width": 3}) as writer:
        for number, count in enumerate(rows):
            spans = ["thought" if row % 2 else "answer" for row in range(count)]
            harmful = pd.array([None if row % 5 == 0 else row % 3 == 0 for row in range(count)], dtype="boolean")
            frame = pd.DataFrame(
                {"prompt_id": [f"p{number}.{row}" for row in range(count)], "span": spans, "harmful": harmful, "order": number}
            )
            writer.write(number, torch.randn(count, 2, 3), frame)
        return writer.finish()


def test_a_finished_store_is_laid_out_as_promised(tmp_path: Path) -> None:
    store = run(tmp_path / "s")
    assert sorted(contents(tmp_path / "s")) == ["index.parquet", "meta.json", *(f"shards/0000{i}.safetensors" for i in range(4))]
    columns = "prompt_id model condition split group category attack harmful span pool start stop n_tokens ids_sha shard offset shard_sha"
    assert set(columns.split()) <= set(store.index.columns)
    assert store.sites == ["resid_post.0", "resid_post.1", "resid_post.2", "mlp_out.1"] and len(store) == 20
    meta = json.loads((tmp_path / "s" / "meta.json").read_text())
    assert (
        meta["format_version"] == 1 and Select.from_dict(meta["select"]) == WHERE and meta["fingerprint"] == tiny_lens("words").fingerprint
    )
    again = open_store(tmp_path / "s", verify=True)
    assert again.index.equals(store.index) and torch.equal(again.rows()[0], store.rows()[0])


def test_rows_are_picked_by_any_column(tmp_path: Path) -> None:
    store = run(tmp_path / "s")
    everything, index = store.rows()
    some, picked = store.rows({"span": ["thought", "last_prompt"], "harmful": True}, sites=["mlp_out.1", "resid_post.0"])
    keep = index["span"].isin(["thought", "last_prompt"]) & index["harmful"]
    assert picked["prompt_id"].tolist() == index[keep]["prompt_id"].tolist()
    assert torch.equal(some, everything[torch.tensor(keep.to_numpy(dtype=bool))][:, [3, 0]])
    assert everything.dtype == torch.float32


def test_arrow_numpy_and_torch_give_the_same_rows(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s", rows=(40, 50))
    where = {"span": "thought", "harmful": True}
    table, (array, frame), (tensor, index) = store.arrow(where), store.numpy(where), store.rows(where)
    assert isinstance(table, pa.Table) and array.dtype == np.float32 and tensor.dtype == torch.float32
    assert (
        torch.equal(tensor, torch.from_numpy(array)) and frame.equals(index) and table["prompt_id"].to_pylist() == list(index["prompt_id"])
    )
    assert pa.types.is_dictionary(table["span"].type) and store.arrow({"span": "nothing"}).num_rows == 0
    files = [load_file(shard_file(store.path, number))["vectors"] for number in (0, 1)]
    assert torch.equal(tensor, torch.stack([files[row.shard][row.offset] for row in index.itertuples()]))
    assert store.index.equals(pd.read_parquet(store.path / "index.parquet"))  # anybody else's reader sees the same table


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, 2.5, float("nan")]), st.sampled_from(["a", "b", "1", ""])
)


@given(st.sampled_from(["text", "truth", "count", "size", "nothing"]), st.lists(VALUES, max_size=4))
def test_rows_are_those_that_python_calls_equal(tmp_path_factory: pytest.TempPathFactory, column: str, values: list[Any]) -> None:
    entries = {
        "text": ["a", "b", None, "1", "a", ""],
        "truth": pd.array([True, False, None, True, False, True], dtype="boolean"),
        "count": [0, 1, 2, 3, -1, 1],
        "size": [0.0, 1.0, None, 2.5, -2.0, 2.0],
        "nothing": [None] * 6,
    }
    folder = tmp_path_factory.getbasetemp() / "equal"
    with writing(folder, {"sites": ["resid_post.0"], "width": 1}) as writer:
        if not writer.finished:
            writer.write(0, torch.arange(6.0)[:, None, None], pd.DataFrame(entries).assign(order=range(6)))
        store = writer.finish()

    def same(entry: Any, value: Any) -> bool:
        missing = [x is None or x is pd.NA or x != x for x in (entry, value)]
        return all(missing) if any(missing) else bool(entry == value)

    expected = [row for row, entry in enumerate(list(entries[column])) if any(same(entry, value) for value in values)]
    assert store.arrow({column: values})["offset"].to_pylist() == expected
    if expected:
        assert store.rows({column: set(values)})[0].flatten().tolist() == expected
    else:
        with pytest.raises(ValueError, match=f"no vector with {column}="):
            store.rows({column: values})


def test_a_million_rows_open_at_once(tmp_path: Path) -> None:
    n = 250_000
    words = pd.Series(["thought", "last_prompt", "answer_first", "thought@0.5"])
    with writing(tmp_path, {"sites": ["resid_post.0"], "width": 1}) as writer:
        for number in range(4):
            rows = np.arange(n) + number * n
            prompts = pd.Series(np.char.add("p", np.arange(n // 4).astype(str))).take(np.arange(n) // 4).reset_index(drop=True)
            frame = pd.DataFrame(
                {"prompt_id": f"{number}" + prompts, "span": words.take(rows % 4).to_numpy(), "start": rows % 300, "order": rows}
            )
            writer.write(number, torch.from_numpy(rows.astype(np.float32))[:, None, None], frame)
        writer.finish()
    started = time.perf_counter()
    store = open_store(tmp_path)
    opened = time.perf_counter() - started
    assert len(store) == 1_000_000 and opened < 0.5 and not {"index", "_table"} & store.__dict__.keys()  # 0.01 s: no row was read
    started = time.perf_counter()
    vectors, found = store.rows({"prompt_id": ["1p7", "3p99"], "span": "thought"})
    assert vectors.flatten().tolist() == [n + 28.0, 3 * n + 396.0] == [n * row.shard + row.offset for row in found.itertuples()]
    assert time.perf_counter() - started < 10 and "index" not in store.__dict__


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel does not tell how much memory was in use")
def test_reading_a_few_rows_touches_only_those(tmp_path: Path) -> None:
    """Shards of 96 MB: a few rows and sites cost a few pages."""
    sites, width, rows = [f"resid_post.{i}" for i in range(64)], 512, 768
    with writing(tmp_path, {"sites": sites, "width": width}) as writer:
        x = torch.arange(rows * 64, dtype=torch.float32).view(rows, 64, 1).expand(rows, 64, width)
        writer.write(0, x, pd.DataFrame({"prompt_id": [f"p{i}" for i in range(rows)], "order": range(rows)}))
        store = writer.finish()
    store.rows({"prompt_id": "p0"})  # what the first call loads once
    before = peak_memory(restart=True)
    found, _ = store.rows({"prompt_id": ["p3", "p700"]}, sites=["resid_post.9", "resid_post.1"])
    assert peak_memory() - before < 4 * 2**20
    assert torch.equal(found, torch.tensor([[201.0, 193.0], [44809.0, 44801.0]])[..., None].expand(2, 2, width))
    before = peak_memory(restart=True)
    store.rows()  # the measure measures
    assert peak_memory() - before > 90 * 2**20


def peak_memory(restart: bool = False) -> int:
    if restart:
        Path("/proc/self/clear_refs").write_text("5")
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(told["VmHWM"].split()[0]) * 1024


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    store = run(tmp_path / "s")
    with pytest.raises(ValueError, match="no column 'layer'; it has prompt_id, model"):
        store.rows({"layer": 1})
    with pytest.raises(ValueError, match="no vector with span='answer'. There are span: last_prompt, thought, thought_last"):
        store.rows({"span": "answer"})
    with pytest.raises(ValueError, match="holds no site 'attn_out.0'; it holds resid_post.0"):
        store.rows(sites=["attn_out.0"])


@pytest.mark.parametrize("killed_at", [0, 1, 3, "before the index"])
def test_a_killed_capture_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, killed_at: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer alone is killed in every way in test_shards.py; here it is the capture around it that stops and goes on."""
    run(tmp_path / "whole")
    write, written = Writer.write, list[int]()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        if killed_at == "before the index":
            broken.setattr(Writer, "finish", interrupt)
        else:
            broken.setattr(Writer, "write", lambda self, number, *rest: interrupt() if number == killed_at else write(self, number, *rest))
        run(tmp_path / "killed")
    with pytest.raises(FileNotFoundError, match="unfinished capture.*Run the same capture"):
        open_store(tmp_path / "killed")
    assert len(verify_store(tmp_path / "killed")) == 1 and "unfinished capture" in verify_store(tmp_path / "killed")[0]
    monkeypatch.setattr(Writer, "write", lambda self, number, *rest: written.append(number) or write(self, number, *rest))
    run(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert written == list(range(4 if killed_at == "before the index" else int(killed_at), 4))


def test_a_finished_capture_is_not_run_again(tmp_path: Path) -> None:
    before = run(tmp_path / "s")
    bytes_before = contents(tmp_path / "s")
    hook = (
        tiny_lens("words")
        .model.get_input_embeddings()
        .register_forward_pre_hook(lambda *_: pytest.fail("a finished capture ran the model"))
    )
    try:
        assert run(tmp_path / "s").index.equals(before.index) and contents(tmp_path / "s") == bytes_before
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"where": Select("resid_post", "last_prompt")}, "select"),
        ({"n": 6}, "transcripts_and_labels_sha"),
        ({"batch_size": 3}, "batch_size"),
        ({"labels": {f"p{i}": {"refused": True} for i in range(8)}}, "transcripts_and_labels_sha"),
    ],
)
def test_a_folder_with_another_capture_is_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    run(tmp_path / "s")
    before = contents(tmp_path / "s")
    with pytest.raises(ValueError, match=f"holds a different capture.*{named}.*Choose another folder, or delete this one"):
        run(tmp_path / "s", **changes)
    assert contents(tmp_path / "s") == before


def test_a_capture_of_another_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "s")
    other = tiny_lens("words", 1)
    transcripts = tiny_transcripts(other, tiny_prompts(8), statuses=("closed", "unclosed"))
    with pytest.raises(ValueError, match="holds a different capture.*fingerprint"):
        captures.capture(other, transcripts, WHERE, into=tmp_path / "s", batch_size=2, shard_bytes=3072, progress=False)


def test_a_folder_that_cannot_be_written_or_holds_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files, such as 'thesis.docx', and no capture"):
        run(tmp_path)
    with pytest.raises(NotADirectoryError, match="a file with that name is there. Choose another folder"):
        run(tmp_path / "thesis.docx")
    with pytest.raises((NotADirectoryError, PermissionError), match="Choose"):
        run(tmp_path / "thesis.docx" / "deeper")


def test_damage_is_found(tmp_path: Path) -> None:
    small_store(tmp_path / "s")
    shard = tmp_path / "s" / "shards" / "00001.safetensors"
    whole = shard.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    shard.write_bytes(flipped)
    open_store(tmp_path / "s")
    with pytest.raises(ValueError, match="00001.safetensors is not what was written: its sha256 differs"):
        open_store(tmp_path / "s", verify=True)
    shard.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="is cut short"):
        open_store(tmp_path / "s")
    shard.write_bytes((tmp_path / "s" / "shards" / "00000.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"does not belong to this store: .*\[2, 2, 3\].* the index names .*\[3, 2, 3\]"):
        open_store(tmp_path / "s")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="lacks shards/00001.safetensors, which its index names"):
        open_store(tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    with pytest.raises(FileNotFoundError, match="is no activation store: it has no meta.json"):
        open_store(tmp_path / "s")


def test_verifying_names_every_problem_at_once(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s", rows=(2, 3, 4, 5))
    shards = tmp_path / "s" / "shards"
    assert verify_store(store.path) == []
    (shards / "00000.safetensors").unlink()
    with (shards / "00001.safetensors").open("r+b") as file:
        file.seek(-7, 2)
        file.write(b"!")
    (shards / "00002.safetensors").write_bytes(b"short")
    (shards / "00009.safetensors").write_bytes(b"")
    (tmp_path / "s" / "notes.txt").write_text("")
    told = verify_store(store.path)
    expected = [
        "lacks shards/00000",
        "00001.safetensors is not what was written",
        "00002.safetensors is cut short",
        "holds notes.txt",
        "holds shards/00009",
    ]
    assert len(told) == len(expected) and all(words in problem for words, problem in zip(expected, told, strict=True)), told
    assert verify_store(tmp_path / "nowhere") == [
        f"{tmp_path / 'nowhere'} is no activation store: it has no meta.json. Give the folder passed to capture(into=…)."
    ]
    (tmp_path / "s" / "meta.json").write_text("{")
    assert "meta.json is damaged: " in verify_store(store.path)[0]


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_flipped_bit_of_a_shard_is_always_found(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped"
    store = open_store(folder) if folder.exists() else small_store(folder)
    file = shard_file(store.path, 1)
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[at % len(damaged)] ^= 1 << bit
    file.write_bytes(damaged)
    told = verify_store(store.path)
    file.write_bytes(whole)
    assert [problem for problem in told if "00001.safetensors" in problem]


def test_a_damaged_index_is_found(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s", rows=(300,))
    file = store.path / "index.parquet"
    whole, found = file.read_bytes(), 0
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in range(4, len(whole), 61):  # a flip is found, or (statistics nobody reads, say) changes no row
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        found += bool(told := verify_store(store.path))
        assert told or at >= footer or open_store(store.path).index.equals(store.index), at
    assert found > 20
    for broken in (whole[: len(whole) // 2], b"", whole[:-4] + b"PAR2"):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match="index.parquet is damaged.*Copy it again"):
            open_store(store.path)
        assert "index.parquet is damaged" in verify_store(store.path)[0]


def test_an_index_that_does_not_fit_its_shards_is_found(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s")
    file = store.path / "index.parquet"
    index = pq.read_table(file)
    offsets = index.column_names.index("offset")
    for changed, said in [
        (index.slice(1), r"has 1 rows for the 2 vectors of shard 0"),
        (
            index.set_column(offsets, "offset", pa.array([5, *index["offset"].to_pylist()[1:]])),
            "has 2 rows for the 2 vectors of shard 0, or not one for each",
        ),
        (index.set_column(offsets, "offset", pa.array([0] * len(index))), "has 3 rows for the 3 vectors of shard 1, or not one for each"),
        (index.slice(0, 2), r"names shard 1 in its rows or in its header, and not in both"),
        (index.set_column(offsets + 1, "shard_sha", pa.array(["f00d"] * len(index))), "tells two sha256 for shard 0"),
    ]:
        pq.write_table(changed, file)
        assert any(re.search(said, problem) for problem in verify_store(store.path)), verify_store(store.path)


def test_an_index_of_the_first_version_is_read(tmp_path: Path) -> None:
    """It names the shards in its rows only."""
    store = small_store(tmp_path / "s")
    store.index.to_parquet(store.path / "index.parquet", index=False)
    old = open_store(store.path, verify=True)
    assert old.shards == store.shards and old.index.equals(store.index) and torch.equal(old.rows()[0], store.rows()[0])
    assert verify_store(store.path) == [] and old.jobs == ({},)


def test_a_newer_or_foreign_format_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "s")
    meta = json.loads((tmp_path / "s" / "meta.json").read_text())
    (tmp_path / "s" / "meta.json").write_text(json.dumps({**meta, "format_version": 99}))
    with pytest.raises(ValueError, match="format version 99, this toolkit reads up to 1"):
        open_store(tmp_path / "s")
    (tmp_path / "s" / "meta.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe an activation store"):
        open_store(tmp_path / "s")
