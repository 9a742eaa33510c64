"""A store is whole or unfinished; a killed capture ends with the same bytes; a damaged or foreign one is refused."""

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from thoughtlens.hooks import Select, Store, open_store
from thoughtlens.hooks import store as stores
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

captures = import_module("thoughtlens.hooks.capture")
WHERE = Select(["resid_post", "mlp_out.1"], ["last_prompt", "thought", "thought_last"])


def run(into: Path, n: int = 8, **changes: Any) -> Store:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(n), statuses=("closed", "unclosed"))
    settings = {"batch_size": 2, "shard_bytes": 2000, "progress": False, **changes}
    return captures.capture(lens, transcripts, settings.pop("where", WHERE), into=into, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    store = run(tmp_path / "s")
    with pytest.raises(ValueError, match="no column 'layer'; it has prompt_id, model"):
        store.rows({"layer": 1})
    with pytest.raises(ValueError, match="no vector with span='answer'. There are span: last_prompt, thought, thought_last"):
        store.rows({"span": "answer"})
    with pytest.raises(ValueError, match="holds no site 'attn_out.0'; it holds resid_post.0"):
        store.rows(sites=["attn_out.0"])


@pytest.mark.parametrize("killed_at", [0, 1, 2, 3, "between shard and note", "before the index", "half a shard"])
def test_a_killed_capture_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, killed_at: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole")

    def dying(path: Path, number: int, vectors: torch.Tensor) -> str:
        if number == killed_at:
            raise KeyboardInterrupt
        return stores.write_shard(path, number, vectors)

    def half(path: Path, number: int, vectors: torch.Tensor) -> str:
        if number == 2:
            (path / "shards" / ".00002.safetensors.1.part").write_bytes(b"half")  # a kill -9 leaves what was being written
            raise KeyboardInterrupt
        return stores.write_shard(path, number, vectors)

    def noteless(path: Path, text: str) -> None:
        if path.stem == "00002":
            raise KeyboardInterrupt
        write_text(path, text)

    write_text = stores.write_text
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        if killed_at == "between shard and note":
            broken.setattr(stores, "write_text", noteless)
        elif killed_at == "before the index":
            broken.setattr(captures, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        else:
            broken.setattr(captures, "write_shard", half if killed_at == "half a shard" else dying)
        run(tmp_path / "killed")
    with pytest.raises(FileNotFoundError, match="unfinished capture.*Run the same capture"):
        open_store(tmp_path / "killed")
    written: list[int] = []
    with monkeypatch.context() as watched:
        watched.setattr(
            captures, "write_shard", lambda path, number, vectors: written.append(number) or stores.write_shard(path, number, vectors)
        )
        run(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    first = {"between shard and note": 2, "before the index": 4, "half a shard": 2}.get(str(killed_at), killed_at)
    assert written == list(range(int(first), 4))


def test_a_finished_capture_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(tmp_path / "s")
    bytes_before = contents(tmp_path / "s")
    monkeypatch.setattr(captures, "read", lambda *_: pytest.fail("a finished capture ran the model"))
    assert run(tmp_path / "s").index.equals(before.index) and contents(tmp_path / "s") == bytes_before


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
        captures.capture(other, transcripts, WHERE, into=tmp_path / "s", batch_size=2, shard_bytes=2000, progress=False)


def test_a_folder_that_cannot_be_written_or_holds_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files, such as 'thesis.docx', and no capture"):
        run(tmp_path)
    with pytest.raises(NotADirectoryError, match="a file with that name is there. Choose another folder"):
        run(tmp_path / "thesis.docx")
    with pytest.raises((NotADirectoryError, PermissionError), match="Choose"):
        run(tmp_path / "thesis.docx" / "deeper")


def test_damage_is_found(tmp_path: Path) -> None:
    run(tmp_path / "s")
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
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="lacks shards/00001.safetensors, which its index names"):
        open_store(tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    with pytest.raises(FileNotFoundError, match="is no activation store: it has no meta.json"):
        open_store(tmp_path / "s")


def test_a_newer_or_foreign_format_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "s")
    meta = json.loads((tmp_path / "s" / "meta.json").read_text())
    (tmp_path / "s" / "meta.json").write_text(json.dumps({**meta, "format_version": 99}))
    with pytest.raises(ValueError, match="format version 99, this toolkit reads up to 1"):
        open_store(tmp_path / "s")
    (tmp_path / "s" / "meta.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe an activation store"):
        open_store(tmp_path / "s")
