"""A trio read in lock-step holds what three captures hold, row by row, and what would make it meaningless is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from thoughtlens.hooks import LensModel, Select, bind, capture, load, open_store
from thoughtlens.hooks.trio import aligned, capture_trio
from tiny import tiny_folder, tiny_lens, tiny_prompts, tiny_transcripts

WHERE = Select(["resid_post", "resid_pre.1"], ["last_prompt", "thought", "answer_first"])


@pytest.fixture
def models() -> dict[str, LensModel]:
    return {"base": tiny_lens(), "reasoning": tiny_lens(seed=1), "safe": tiny_lens(seed=2)}


def test_each_store_is_what_a_capture_of_its_own_writes(models: dict[str, LensModel], tmp_path: Path) -> None:
    transcripts = tiny_transcripts(models["reasoning"], tiny_prompts(7, images=(0, 1)), statuses=("closed", "unclosed", "absent"))
    asked: dict[str, Any] = {
        "batch_size": 3,
        "shard_bytes": 1,
        "labels": {t.id: {"score": i} for i, t in enumerate(transcripts)},
        "progress": False,
    }
    stores = capture_trio(models, transcripts, WHERE, into=tmp_path / "trio", **asked)
    for name, lens in models.items():
        alone = capture(lens, transcripts, WHERE, into=tmp_path / name, **asked)
        files = sorted(file.relative_to(alone.path) for file in alone.path.rglob("*") if file.is_file())
        assert len(files) > 3
        for file in files:
            assert (stores[name].path / file).read_bytes() == (alone.path / file).read_bytes(), file


def test_a_batch_is_encoded_once(models: dict[str, LensModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = list[str]()
    processor = models["base"].processor
    called = type(processor).apply_chat_template

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        encoded.append("base" if self is processor else "other")
        return called(self, *args, **kwargs)

    transcripts = tiny_transcripts(models["base"], tiny_prompts(5))
    monkeypatch.setattr(type(processor), "apply_chat_template", count)
    capture_trio(models, transcripts, WHERE, into=tmp_path, progress=False)
    assert encoded == ["base"] * 5


def test_it_goes_on_where_it_was_stopped_for_each_model(models: dict[str, LensModel], tmp_path: Path) -> None:
    transcripts = tiny_transcripts(models["base"], tiny_prompts(6))
    asked: dict[str, Any] = {"batch_size": 2, "shard_bytes": 6 * 4 * 4 * 32, "progress": False}
    whole = capture_trio(models, transcripts, WHERE, into=tmp_path / "whole", **asked)
    forwards = list[str]()

    def interrupt(name: str, at: int) -> Any:
        def check(*_: Any) -> None:
            forwards.append(name)
            if forwards.count(name) == at:
                raise KeyboardInterrupt

        return models[name].layers[0].register_forward_hook(check)

    mine = [interrupt("base", 9), interrupt("reasoning", 9), interrupt("safe", 2)]
    with pytest.raises(KeyboardInterrupt):
        capture_trio(models, transcripts, WHERE, into=tmp_path / "cut", **asked)
    mine.pop().remove()
    forwards.clear()
    capture(models["base"], transcripts, WHERE, into=tmp_path / "cut" / "base", **asked)  # one goes on by itself
    again = capture_trio(models, transcripts, WHERE, into=tmp_path / "cut", **asked)
    for handle in mine:
        handle.remove()
    assert (forwards.count("base"), forwards.count("reasoning")) == (2, 2)  # of three shards the first was whole
    for name in models:
        assert torch.equal(whole[name].rows()[0], again[name].rows()[0])
        assert (whole[name].path / "index.parquet").read_bytes() == (again[name].path / "index.parquet").read_bytes()


def test_models_that_differ_are_refused(models: dict[str, LensModel], tmp_path: Path) -> None:
    base = models["base"]
    transcripts = tiny_transcripts(base, tiny_prompts(2))
    pictures = load(tiny_folder())
    pictures.processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    cases = {
        "tokenizer": tiny_lens("pieces"),
        "chat template.*tail": replace(base, frame=replace(base.frame, tail=(5,))),
        "chat template.*enable_thinking": replace(base, template={"enable_thinking": False}),
        "dialect.*eos_ids": replace(base, markers=replace(base.markers, eos_ids=(3,))),
        "dialect": replace(base, markers=bind("none", base.tokenizer, base.markers.eos_ids)),
        "picture processing.*image_mean": pictures,
        "steering is active": replace(base, steering=object()),  # type: ignore[arg-type]
    }
    for message, other in cases.items():
        with pytest.raises(ValueError, match=message):
            capture_trio({"base": base, "other": other}, transcripts, WHERE, into=tmp_path / "s", progress=False)
    with pytest.raises(ValueError, match="there is no model"):
        capture_trio({}, transcripts, WHERE, into=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_rows_stand_side_by_side_whatever_their_order(models: dict[str, LensModel], tmp_path: Path) -> None:
    transcripts = tiny_transcripts(models["base"], tiny_prompts(5), statuses=("closed", "unclosed"))
    one = capture(models["base"], transcripts, WHERE, into=tmp_path / "one", progress=False)
    other = capture(models["safe"], transcripts[::-1], WHERE, into=tmp_path / "other", progress=False)
    found, index = aligned({"one": one, "other": other}, {"span": "thought"}, sites=["resid_post.2", "resid_pre.1"])
    assert "model" not in index and len(index) == 5
    for i, row in index.iterrows():
        for name, store in (("one", one), ("other", other)):
            theirs = store.rows({"prompt_id": row["prompt_id"], "span": "thought"}, sites=["resid_post.2", "resid_pre.1"])[0]
            assert torch.equal(found[name][i], theirs[0])


def test_stores_of_other_rows_are_not_aligned(models: dict[str, LensModel], tmp_path: Path) -> None:
    transcripts = tiny_transcripts(models["base"], tiny_prompts(4))
    longer = [replace(transcripts[0], output_ids=(*transcripts[0].output_ids[:-1], 9, 9)), *transcripts[1:]]
    stores = {
        name: capture(models["base"], some, where, into=tmp_path / name, progress=False)
        for name, some, where in (
            ("whole", transcripts, WHERE),
            ("fewer", transcripts[1:], WHERE),
            ("other", longer, WHERE),
            ("sites", transcripts, Select("resid_post", WHERE.spans)),
        )
    }
    for name, message in (
        ("fewer", r"'whole' and 'fewer' do not hold the same rows: 3 are in one of them only, the first of prompt 'p0'"),
        ("other", r"do not hold the same rows: 6 .*'p0'.*capture_trio"),
        ("sites", "'sites' holds other sites than 'whole': resid_post.0, resid_post.1, resid_post.2"),
    ):
        with pytest.raises(ValueError, match=message):
            aligned({"whole": stores["whole"], name: stores[name]})
    assert aligned({"whole": stores["whole"], "sites": stores["sites"]}, sites=["resid_post.1"])[0].keys() == {"whole", "sites"}
    with pytest.raises(ValueError, match="no store"):
        aligned({})
    assert open_store(tmp_path / "whole").sites == stores["whole"].sites
