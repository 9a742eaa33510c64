"""A stream hands over what capture() stores, bit for bit, and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from thoughtlens.hooks import LensModel, Pool, Select, capture, load
from thoughtlens.hooks.streaming import stream
from tiny import tiny_folder, tiny_lens, tiny_prompts, tiny_transcripts

STATUSES = ("closed", "unclosed", "absent", "multiple")
WHERE = ["last_prompt", "thought", "image", "thought@0.5"]


def rows_of(batches: Any) -> tuple[torch.Tensor, pd.DataFrame]:
    vectors, index = zip(*batches, strict=True)
    return torch.cat(vectors), pd.concat(index, ignore_index=True)


def sorted_by_place(vectors: torch.Tensor, index: pd.DataFrame) -> tuple[torch.Tensor, pd.DataFrame]:
    order = index.sort_values(["prompt_id", "span", "start"], kind="stable").index.to_numpy()
    return vectors[torch.tensor(order)], index.loc[order].reset_index(drop=True)


def hooks_on(lens: LensModel) -> list[Any]:
    return [hook for module in lens.model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pool", ["mean", "max", "every"])
def test_a_stream_is_the_store_bit_for_bit(pool: Pool, dtype: torch.dtype, tmp_path: Path) -> None:
    lens = tiny_lens("words") if dtype == torch.float32 else load(tiny_folder("words"), dtype=dtype)
    transcripts = tiny_transcripts(lens, tiny_prompts(9, images=(0, 1, 2)), statuses=STATUSES)
    labels = {t.id: {"score": i / 2} for i, t in enumerate(transcripts)}
    asked: dict[str, Any] = {"batch_size": 4, "labels": labels, "progress": False}
    store = capture(lens, transcripts, Select("resid_post", WHERE, pool), into=tmp_path / "s", **asked)
    streamed = stream(lens, transcripts, Select("resid_post", WHERE, pool), **asked)
    assert all(store.meta[key] == streamed.meta[key] for key in ("sites", "width", "fingerprint", "select", "dialect", "model"))
    vectors, index = sorted_by_place(*rows_of(streamed))
    theirs, rows = sorted_by_place(*store.rows())
    assert torch.equal(vectors, theirs)
    assert list(index.columns) == [column for column in rows.columns if column not in ("shard", "offset", "shard_sha")]
    pd.testing.assert_frame_equal(index, rows[index.columns], check_dtype=False)


def test_it_can_be_read_twice_and_the_batches_are_small() -> None:
    lens = tiny_lens("words")
    streamed = stream(lens, tiny_transcripts(lens, tiny_prompts(7)), Select("resid_post", "last_prompt"), batch_size=3, progress=False)
    assert [len(vectors) for vectors, _ in streamed] == [3, 3, 1]
    one, two = rows_of(streamed), rows_of(streamed)
    assert torch.equal(one[0], two[0]) and one[1].equals(two[1])


def test_batches_are_not_overwritten_by_later_ones() -> None:
    lens = tiny_lens("words")
    streamed = stream(lens, tiny_transcripts(lens, tiny_prompts(7)), Select("resid_post", "thought"), batch_size=2, progress=False)
    copies = [vectors.clone() for vectors, _ in streamed]
    kept = [vectors for vectors, _ in streamed]
    assert all(torch.equal(one, two) for one, two in zip(copies, kept, strict=True))


def test_no_hook_is_left_while_the_caller_has_a_batch_or_gives_up() -> None:
    lens = tiny_lens("words")
    mine = lens.layers[0].register_forward_hook(lambda *_: None)
    try:
        for _ in stream(lens, tiny_transcripts(lens, tiny_prompts(5)), Select("resid_post", "all"), batch_size=1, progress=False):
            assert hooks_on(lens) == [mine.id]
            break
        assert hooks_on(lens) == [mine.id]
    finally:
        mine.remove()


def test_nothing_is_run_for_what_cannot_work() -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(3), statuses=("absent",))
    with pytest.raises(ValueError, match='span "thought" is empty in 3 of 3'):
        stream(lens, transcripts, Select("resid_post", "thought"))
    with pytest.raises(ValueError, match="labels do not cover 3 of 3 transcripts"):
        stream(lens, transcripts, Select("resid_post", "all"), labels={})


def test_a_steered_model_is_not_read() -> None:
    lens = tiny_lens("words")
    steered = replace(lens, steering=object())
    with pytest.raises(ValueError, match="steering is active. Leave the `with steer"):
        next(iter(stream(steered, tiny_transcripts(lens, tiny_prompts(2)), Select("resid_post", "all"), progress=False)))


def test_a_batch_that_does_not_fit_is_halved(caplog: pytest.LogCaptureFixture) -> None:
    lens = tiny_lens("words")

    def check(_: Any, args: Any) -> None:
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("no room")

    streamed = stream(lens, tiny_transcripts(lens, tiny_prompts(6)), Select("resid_post", "last_prompt"), batch_size=4, progress=False)
    mine = lens.layers[1].register_forward_pre_hook(check)
    try:
        halved = rows_of(streamed)
    finally:
        mine.remove()
    plain = rows_of(streamed)
    assert caplog.text.count("ran out of memory") == 1 and halved[1].equals(plain[1])
    torch.testing.assert_close(halved[0], plain[0], atol=2e-5, rtol=1e-5)
