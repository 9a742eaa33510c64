"""Capture reads what plain transformers hooks read, bit for bit, whatever the batch and the padding; and is never silent."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from thoughtlens.hooks import POOLS, LensModel, Pool, Prompt, Select, Transcript, capture, encode, kinds_of, load, resolve
from thoughtlens.hooks.capture import encode_transcripts
from thoughtlens.hooks.planning import batched, make_plan, pictures_sha
from thoughtlens.hooks.reading import read, reading
from thoughtlens.hooks.sites import NAMES
from tiny import tiny_folder, tiny_lens, tiny_prompts, tiny_transcripts
from torch import Tensor

LENSES = ("words", "pieces")
SITES = [name for name in NAMES if name != "cross_attn_out"]
STATUSES = ("closed", "unclosed", "absent", "multiple")


POOLED: dict[Pool, Callable[[Tensor], Tensor]] = {
    "mean": lambda tokens: tokens.mean(0, keepdim=True),
    "max": lambda tokens: tokens.amax(0, keepdim=True),
    "first": lambda tokens: tokens[:1],
    "last": lambda tokens: tokens[-1:],
    "every": lambda tokens: tokens,
}


def by_hand(lens: LensModel, inputs: Any) -> dict[str, Tensor]:
    """Every site of one forward, with register_forward_hook and no code of ours."""
    found: dict[str, Tensor] = {}
    handles = []
    for i, layer in enumerate(lens.model.model.language_model.layers):

        def keep(name: str, i: int = i, part: Any = None) -> Any:
            return lambda module, args, output=None: found.__setitem__(
                f"{name}.{i}", (args[0] if output is None else output if part is None else output[part]).clone()
            )

        handles += [
            layer.register_forward_pre_hook(keep("resid_pre")),
            layer.register_forward_hook(keep("resid_post")),
            layer.self_attn.register_forward_hook(keep("attn_out", part=0)),
            layer.mlp.register_forward_hook(keep("mlp_out")),
            layer.self_attn.o_proj.register_forward_pre_hook(keep("head_out")),
        ]
    with torch.no_grad():
        found["end"] = lens.model.model(**inputs, use_cache=False).last_hidden_state
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize("name", SITES)
def test_capture_equals_plain_transformers(kind: str, name: str, tmp_path: Path) -> None:
    lens = tiny_lens(kind)
    transcripts = tiny_transcripts(lens, tiny_prompts(4, images=(0, 1, 2)), statuses=STATUSES)
    store = capture(lens, transcripts, Select(name, "all", "every"), into=tmp_path / "s", batch_size=1, progress=False)
    for transcript in transcripts:
        theirs = by_hand(lens, encode(lens, [transcript.prompt], prefixes=[transcript.output_ids]).inputs)
        ours, index = store.rows({"prompt_id": transcript.id})
        assert index["start"].tolist() == list(range(len(transcript.prompt_ids + transcript.output_ids)))
        for i, site in enumerate(store.sites):
            assert torch.equal(ours[:, i], theirs[site][0])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pool", ["mean", "max", "first", "last"])
def test_a_padded_batch_equals_hooks_by_hand_and_pooling_by_hand(side: str, pool: Any) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(5), statuses=("closed", "unclosed"))
    batch = encode(lens, [t.prompt for t in transcripts], prefixes=[t.output_ids for t in transcripts], side=side)
    kinds, width = kinds_of(lens, batch), batch.inputs["input_ids"].shape[1]
    runs = [resolve("thought", kinds[row], batch.inputs["input_ids"][row], lens.markers) for row in range(5)]
    sites = lens.expand(["resid_post", "resid_pre.1"])
    ours = read(
        lens, batch, sites, torch.cat([row * width + run for row, run in enumerate(runs)]), torch.tensor([len(run) for run in runs]), pool
    )
    theirs = by_hand(lens, batch.inputs)
    for i, site in enumerate(sites):
        for row, run in enumerate(runs):
            tokens = theirs[str(site)][row, run]
            expected = POOLED[pool](tokens.double()).float()[0]
            torch.testing.assert_close(ours[row, i], expected, atol=1e-6 if pool == "mean" else 0, rtol=1e-6 if pool == "mean" else 0)


def test_a_batch_equals_its_transcripts_one_by_one(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(7, images=(0, 1, 2), systems=(None, "you are safe .")), statuses=STATUSES)
    where = Select(["resid_post", "attn_out.1"], ["last_prompt", "thought", "image", "answer_first", "thought@0.5", "step_end[-1]"])
    alone = capture(lens, transcripts, where, into=tmp_path / "one", batch_size=1, progress=False)
    together = capture(lens, transcripts, where, into=tmp_path / "many", batch_size=4, progress=False)
    keys = ["prompt_id", "span", "start", "stop", "n_tokens", "ids_sha"]
    assert alone.index[keys].equals(together.index[keys])
    torch.testing.assert_close(alone.rows()[0], together.rows()[0], atol=2e-5, rtol=1e-5)


def test_the_last_layer_is_read_before_the_final_norm_and_sites_are_separate(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(2))
    store = capture(
        lens, transcripts, Select(["resid_pre", "resid_post"], "last_prompt"), into=tmp_path / "s", batch_size=1, progress=False
    )
    for transcript in transcripts:
        end = by_hand(lens, encode(lens, [transcript.prompt], prefixes=[transcript.output_ids]).inputs)["end"][
            0, len(transcript.prompt_ids) - 1
        ]
        last = store.rows({"prompt_id": transcript.id}, sites=["resid_post.2"])[0][0, 0]
        assert not torch.allclose(last, end)
        torch.testing.assert_close(lens.model.model.language_model.norm(last).detach(), end)
    pre, post = (store.rows(sites=[f"{name}.1"])[0] for name in ("resid_pre", "resid_post"))
    assert not torch.equal(pre, post) and torch.equal(pre, store.rows(sites=["resid_post.0"])[0])


def test_resid_pre_is_read_by_itself_not_inferred(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    handle = lens.layers[1].register_forward_pre_hook(lambda _, args: (args[0] + 1, *args[1:]))  # as DeepStack adds features between layers
    try:
        store = capture(
            lens,
            tiny_transcripts(lens, tiny_prompts(2)),
            Select(["resid_pre.1", "resid_post.0"], "all", "every"),
            into=tmp_path / "s",
            progress=False,
        )
    finally:
        handle.remove()
    pre, post = store.rows()[0].unbind(1)
    assert torch.equal(pre, post + 1)


@pytest.mark.parametrize("held", [1, 2**20])
@pytest.mark.parametrize("pool", POOLS)
def test_a_half_precision_model_is_pooled_in_float32(pool: Pool, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["thoughtlens.hooks.reading"], "HELD_BYTES", held)  # pooled site by site, and all sites at once
    lens = load(tiny_folder("words"), dtype=torch.bfloat16)
    batch = encode(lens, tiny_prompts(3, images=(0,)))
    sites, width = lens.expand(["resid_post", "mlp_out.0"]), batch.inputs["input_ids"].shape[1]
    runs = [range(row * width + width - 2 - row, (row + 1) * width) for row in range(3)]
    at, counts = torch.tensor([i for run in runs for i in run]), torch.tensor([len(run) for run in runs])
    ours, theirs = read(lens, batch, sites, at, counts, pool), by_hand(lens, batch.inputs)
    assert ours.dtype == torch.float32
    for i, site in enumerate(sites):
        tokens = theirs[str(site)].flatten(0, 1)
        pooled = [POOLED[pool](tokens[list(run)].double()) for run in runs]
        torch.testing.assert_close(ours[:, i], torch.cat(pooled).float(), atol=1e-6, rtol=1e-6 if pool == "mean" else 0)


def test_spans_cover_the_tokens_they_name(tmp_path: Path) -> None:
    lens = tiny_lens("pieces")
    transcripts = tiny_transcripts(lens, tiny_prompts(4, images=(0, 1)), statuses=("closed", "unclosed"))
    spans = ["last_prompt", "thought", "thought_last", "step[0]", "instruction", "image"]
    index = capture(lens, transcripts, Select("resid_post.0", spans), into=tmp_path / "s", progress=False).index
    for row in index.itertuples():
        transcript = next(t for t in transcripts if t.id == row.prompt_id)
        ids = transcript.prompt_ids + transcript.output_ids
        text = lens.tokenizer.decode(ids[row.start : row.stop])
        if row.span == "thought":
            assert text == transcript.thought
        elif row.span == "instruction":
            assert text == transcript.prompt.text
        elif row.span == "last_prompt":
            assert (row.start, row.stop) == (len(transcript.prompt_ids) - 1, len(transcript.prompt_ids))
        elif row.span == "thought_last":
            assert ">" in text and transcript.status == "closed"
        elif row.span == "image":
            assert set(text.split("<|image_pad|>")) == {""} and row.n_tokens == row.stop - row.start
        else:
            assert transcript.thought.startswith(text) and text.endswith(".")
    assert set(index[index["span"] == "image"]["prompt_id"]) == {"p1", "p3"}
    assert set(index[index["span"] == "thought_last"]["prompt_id"]) == {"p0", "p2"}


def test_index_carries_the_prompt_and_the_labels_in_the_order_given(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(6), statuses=("closed",))
    labels = {t.id: {"refused": i % 2 == 0, "score": i / 2} for i, t in enumerate(transcripts)}
    index = capture(
        lens,
        transcripts,
        Select("resid_post.1", ["thought", "last_prompt"]),
        into=tmp_path / "s",
        batch_size=2,
        labels=labels,
        progress=False,
    ).index
    assert index["prompt_id"].tolist() == [t.id for t in transcripts for _ in range(2)]
    assert index["span"].tolist() == ["thought", "last_prompt"] * 6
    assert index["harmful"].tolist() == [bool(t.prompt.harmful) for t in transcripts for _ in range(2)]
    assert index["group"].tolist() == [t.prompt.group for t in transcripts for _ in range(2)]
    assert index["refused"].tolist() == [labels[i]["refused"] for i in index["prompt_id"]]
    assert index["score"].tolist() == [labels[i]["score"] for i in index["prompt_id"]]


def test_an_unlabelled_prompt_stays_unlabelled_and_is_its_own_group(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    index = capture(
        lens, tiny_transcripts(lens, [Prompt("x", "open it")]), Select("resid_post.1", "thought"), into=tmp_path / "s", progress=False
    ).index
    assert index["harmful"].isna().all() and index["group"].tolist() == ["x"]


def test_a_span_empty_everywhere_names_the_fix(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(3, images=(0,)), statuses=("absent",))
    with pytest.raises(
        ValueError,
        match=r'span "thought_last" is empty in 3 of 3 transcripts \(dialect "think", split status: absent 3\).*pass allow_empty',
    ):
        capture(lens, transcripts, Select("resid_post", ["last_prompt", "thought_last"]), into=tmp_path / "s", progress=False)
    for allow_empty in (True, False):  # where nothing else is asked for there is nothing to allow
        with pytest.raises(ValueError, match='span "image" is empty in 3 of 3.* again, into another folder') as error:
            capture(lens, transcripts, Select("resid_post", "image"), into=tmp_path / "s", progress=False, allow_empty=allow_empty)
        assert "allow_empty" not in str(error.value)
    assert not (tmp_path / "s").exists()
    index = capture(
        lens, transcripts, Select("resid_post", ["last_prompt", "image"]), into=tmp_path / "s", progress=False, allow_empty=True
    ).index
    assert index["span"].tolist() == ["last_prompt"] * 3


def test_a_span_empty_in_some_is_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(4), statuses=("closed", "absent"))
    with caplog.at_level(logging.INFO):
        capture(lens, transcripts, Select("resid_post.0", "thought"), into=tmp_path / "s", progress=False)
    assert 'span "thought" is empty in 2 of 4 transcripts' in caplog.text


def test_what_cannot_be_read_is_refused_before_the_folder_is_touched(tmp_path: Path) -> None:
    lens, into = tiny_lens("words"), tmp_path / "s"
    transcripts = tiny_transcripts(lens, tiny_prompts(2))
    where = Select("resid_post", "thought")
    cases: list[tuple[Any, str]] = [
        (lambda: capture(lens, transcripts, Select("resid_post.3", "thought"), into=into), "out of range: this model has layers 0 to 2"),
        (lambda: capture(lens, [], where, into=into), "no transcript to read"),
        (lambda: capture(lens, transcripts * 2, where, into=into), "2 transcripts occur twice, first prompt 'p0'"),
        (lambda: capture(lens, [Transcript(transcripts[0].prompt, "m")], where, into=into), "carry no prompt_ids, first 'p0'"),
        (lambda: capture(lens, transcripts, where, into=into, labels={"p0": {}}), "do not cover 1 of 2 transcripts, first prompt 'p1'"),
        (
            lambda: capture(lens, transcripts, where, into=into, labels={t.id: {"span": 1} for t in transcripts}),
            "labels use the column 'span'",
        ),
        (lambda: capture(replace(lens, steering=object()), transcripts, where, into=into), "steering is active. Leave the `with steer"),
        (lambda: capture(tiny_lens("pieces"), transcripts, where, into=into), "were not written by this model's chat template"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    assert not into.exists()


def test_transcripts_of_another_prompt_text_are_refused(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcript = tiny_transcripts(lens, [Prompt("a", "open the box")])[0]
    other = Transcript(Prompt("a", "open the lock"), "tiny", prompt_ids=transcript.prompt_ids, output_ids=transcript.output_ids)
    with pytest.raises(ValueError, match="transcript 'a' was written by 'tiny' from other prompt tokens"):
        capture(lens, [other], Select("resid_post", "last_prompt"), into=tmp_path / "s", progress=False)


def test_hooks_are_gone_after_an_error_and_the_callers_own_stay() -> None:
    lens = tiny_lens("words")
    mine = lens.layers[0].register_forward_hook(lambda *_: None)
    try:
        with pytest.raises(KeyboardInterrupt), reading(lens, lens.expand(SITES), lambda *_: None):
            raise KeyboardInterrupt
        left = [hook for module in lens.model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
        assert left == [mine.id]
    finally:
        mine.remove()


@pytest.mark.parametrize(
    ("asked", "ran"),
    [("resid_post.0", "post 0"), ("resid_pre.1", "post 0"), (["mlp_out.1", "attn_out.0"], "mlp 1"), ("resid_post", "post 2")],
)
def test_the_forward_ends_at_the_last_wanted_site(asked: Any, ran: str, tmp_path: Path) -> None:
    lens, told = tiny_lens("words"), list[str]()
    mine = [module.register_forward_hook(lambda *_, name=name: told.append(name)) for name, module in named(lens)]
    try:
        capture(lens, tiny_transcripts(lens, tiny_prompts(2, images=(0,))), Select(asked, "all"), into=tmp_path / "s", progress=False)
    finally:
        for handle in mine:
            handle.remove()
    assert told[-1] == ran and "norm" not in told and "head" not in told


def named(lens: LensModel) -> list[tuple[str, Any]]:
    language = lens.model.model.language_model
    layers = [(f"{name} {i}", module) for i, layer in enumerate(lens.layers) for name, module in (("mlp", layer.mlp), ("post", layer))]
    return [*layers, ("norm", language.norm), ("head", lens.model.lm_head)]


@pytest.mark.parametrize("pool", ["mean", "every"])
def test_a_batch_that_does_not_fit_is_halved(pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(9), statuses=STATUSES)
    where = Select("resid_post", ["last_prompt", "answer", "thought"], pool)
    sizes = list[int]()

    def small(most: Callable[[int], int]) -> Any:
        def check(_: Any, args: Any) -> None:
            sizes.append(len(args[0]))
            if len(args[0]) > most(len(sizes)):
                raise torch.OutOfMemoryError("no room")

        return lens.layers[1].register_forward_pre_hook(check)

    mine = small(lambda forwards: 4 if forwards < 3 else 2)  # the first half of a batch fits, the second no longer
    try:
        halved = capture(lens, transcripts, where, into=tmp_path / "halved", batch_size=8, progress=False)
    finally:
        mine.remove()
    assert sizes == [8, 4, 4, 2, 2, 1] and caplog.text.count("ran out of memory") == 2
    plain = capture(lens, transcripts, where, into=tmp_path / "plain", batch_size=8, progress=False)
    assert halved.index.drop(columns="shard_sha").equals(plain.index.drop(columns="shard_sha"))
    torch.testing.assert_close(halved.rows()[0], plain.rows()[0], atol=2e-5, rtol=1e-5)
    mine = small(lambda forwards: 0)
    try:
        with pytest.raises(
            MemoryError, match=r"out of memory with the transcript of 'p\d' alone \(\d+ tokens\). Load the model in a smaller"
        ):
            capture(lens, transcripts, where, into=tmp_path / "none", progress=False)
    finally:
        mine.remove()
    hooks = [hook for module in lens.model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    assert not hooks


def test_more_transcripts_are_added_to_a_finished_store(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(7), statuses=STATUSES)
    labels = {t.id: {"score": i / 2} for i, t in enumerate(transcripts)}
    where = Select("resid_post", ["last_prompt", "thought"])
    asked: dict[str, Any] = {"into": tmp_path / "s", "labels": labels, "progress": False, "batch_size": 1}
    capture(lens, transcripts[:3], where, **asked)
    with pytest.raises(ValueError, match="append=True"):
        capture(lens, transcripts, where, **asked)
    grown = capture(lens, transcripts, where, append=True, **asked)
    whole = capture(lens, transcripts, where, **{**asked, "into": tmp_path / "whole"})
    own = ["shard", "offset", "shard_sha"]
    assert grown.index.drop(columns=own).equals(whole.index.drop(columns=own)) and torch.equal(grown.rows()[0], whole.rows()[0])
    for again in (transcripts, transcripts[2:5]):
        assert len(capture(lens, again, where, append=True, **asked)) == len(whole)
    fresh = capture(lens, transcripts[:3], where, append=True, **{**asked, "into": tmp_path / "fresh"})
    assert torch.equal(fresh.rows()[0], whole.rows({"prompt_id": [t.id for t in transcripts[:3]]})[0])
    with pytest.raises(ValueError, match="different capture.*select"):
        capture(lens, transcripts, Select("resid_post", "last_prompt"), append=True, **asked)


@pytest.mark.parametrize("pool", ["mean", "every"])
def test_shards_of_any_size_hold_the_same(pool: Pool, tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(6), statuses=STATUSES)
    where = Select("resid_post", ["last_prompt", "instruction", "thought"], pool)
    one, many = (
        capture(lens, transcripts, where, into=tmp_path / str(size), batch_size=1, shard_bytes=size, progress=False) for size in (2**20, 1)
    )
    assert (len(set(one.index["shard"])), len(set(many.index["shard"]))) == (1, 6)
    own = ["shard", "offset", "shard_sha"]
    assert one.index.drop(columns=own).equals(many.index.drop(columns=own)) and torch.equal(one.rows()[0], many.rows()[0])
    for _, row in one.index.iterrows():
        assert row["n_tokens"] == (1 if pool == "every" else row["n_tokens"]) and row["stop"] - row["start"] >= row["n_tokens"]


@given(
    lengths=st.lists(st.tuples(st.booleans(), st.integers(1, 6)), min_size=1, max_size=20),
    size=st.integers(1, 6),
    mixes=st.booleans(),
    data=st.data(),
)
def test_every_transcript_is_read_once_and_like_with_like(lengths: list[tuple[bool, int]], size: int, mixes: bool, data: Any) -> None:
    lens = tiny_lens("words")
    lens = replace(lens, family=replace(lens.family, mixes=mixes))
    base = tiny_transcripts(lens, tiny_prompts(2, images=(0, 1)))
    transcripts = [
        replace(base[pictured], prompt=replace(base[pictured].prompt, id=str(i)), output_ids=base[pictured].output_ids[:length])
        for i, (pictured, length) in enumerate(lengths)
    ]
    plan = make_plan(
        lens, transcripts, Select("resid_post.1", ["last_prompt", "all"]), batch_size=size, shard_bytes=data.draw(st.integers(1, 5000))
    )
    batches = [list(dict.fromkeys(one.transcript for one in batch)) for shard in plan.shards for batch in shard]
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)
    assert mixes or all(len({lengths[number][0] for number in batch}) == 1 for batch in batches)
    sizes = [[len(t.prompt_ids) + len(t.output_ids) for number in batch for t in (transcripts[number],)] for batch in batches]
    assert not mixes or sum(sizes, []) == sorted(sum(sizes, []), reverse=True)
    assert [plan.size(shard) for shard in range(len(plan.shards))] == [len(plan.rows("m", shard)) for shard in range(len(plan.shards))]
    assert list(batched(lens, range(4), [True, False, False, True], 2)) == ([[0, 1], [2, 3]] if mixes else [[0], [1, 2], [3]])


def test_the_error_of_another_rendering_shows_where_it_begins() -> None:
    lens = tiny_lens()
    (transcript,) = tiny_transcripts(lens, [Prompt("a", "open the old box")])
    with pytest.raises(ValueError, match="different from token .* around '.*old box.*' there and '.*old door.*' here.*the date"):
        encode_transcripts(lens, [replace(transcript, prompt=Prompt("a", "open the old door"))])


def recoloured(transcript: Transcript) -> Transcript:
    """With pictures of the same size and another colour: the token ids stay."""
    images = tuple(Image.new("RGB", picture.size, (255, 0, 0)) for picture in transcript.prompt.images)  # type: ignore[union-attr]
    return replace(transcript, prompt=replace(transcript.prompt, images=images))


def test_other_pictures_are_other_work(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(3, images=(0, 1, 2)))
    others = [recoloured(t) for t in transcripts]
    assert [o.prompt_ids for o in others] == [t.prompt_ids for t in transcripts]
    where, into = Select("resid_post", "all"), tmp_path / "s"
    first = capture(lens, transcripts, where, into=into, progress=False).rows()[0]
    with pytest.raises(ValueError, match="different capture.*transcripts_and_labels_sha"):
        capture(lens, others, where, into=into, progress=False)
    grown = capture(lens, others, where, into=into, progress=False, append=True)
    assert grown.index["prompt_id"].tolist() == ["p0", "p1", "p2", "p1", "p2"]
    vectors = grown.rows()[0]
    assert torch.equal(vectors[:3], first) and not torch.allclose(vectors[1:3], vectors[3:], atol=1e-2)
    assert len(capture(lens, others, where, into=into, progress=False, append=True)) == 5


def test_a_picture_is_known_by_its_pixels(tmp_path: Path) -> None:
    prompt = tiny_prompts(1, images=(2,))[0]
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for picture, path in zip(prompt.images, paths, strict=True):
        picture.save(path)  # type: ignore[union-attr]
    (tmp_path / "torn.png").write_bytes(paths[0].read_bytes()[:90])
    told = [
        pictures_sha(replace(prompt, images=images)) for images in (prompt.images, paths, paths[::-1], paths[:1], [tmp_path / "torn.png"])
    ]
    assert told[0] == told[1] and len(set(told)) == 4
    assert pictures_sha(replace(prompt, images=())) == ""


@given(
    pool=st.sampled_from(["every", "mean"]),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    size=st.integers(1, 8),
    rows=st.integers(1, 60),
)
def test_no_shard_is_larger_than_asked_unless_one_transcript_is(pool: Pool, lengths: list[int], size: int, rows: int) -> None:
    lens = tiny_lens("words")
    base = tiny_transcripts(lens, [Prompt("x", "open it")])[0]
    transcripts = [replace(base, prompt=Prompt(str(i), "open it"), output_ids=base.output_ids[:n]) for i, n in enumerate(lengths)]
    where = Select("resid_post", ["all", "last_prompt"], pool)
    plan = make_plan(lens, transcripts, where, batch_size=size, shard_bytes=rows * 4 * 32 * 3)
    for number, batches in enumerate(plan.shards):
        assert plan.size(number) <= rows or len({one.transcript for batch in batches for one in batch}) == 1
    if pool == "mean" and rows >= 2 * size:  # what fits is not cut
        batches_of = [len({one.transcript for one in batch}) for shard in plan.shards for batch in shard]
        assert len(batches_of) == -(-len(lengths) // size)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, "a"], "label 'x' of prompt 'p1' is 'a', where others have a number"),
        ([None, True, 3], "label 'x' of prompt 'p2' is 3, where others have true or false"),
        ([{1}], r"label 'x' of prompt 'p0' is \{1\}\. A column holds text"),
        (["a", [1]], r"label 'x' of prompt 'p1' is \[1\], where others have text"),
        ([torch.tensor(1)], r"label 'x' of prompt 'p0' is tensor\(1\)"),
        ([2**70], "label 'x' cannot be written, first for prompt 'p0'"),
        (["\ud800"], "label 'x' cannot be written, first for prompt 'p0'"),
    ],
)
def test_labels_of_odd_kinds_are_refused_before_anything_runs(values: list[Any], message: str, tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(3, images=(0,)))
    labels = {t.id: {"x": values[i]} if i < len(values) else {} for i, t in enumerate(transcripts)}
    with pytest.raises(ValueError, match=message):
        capture(lens, transcripts, Select("resid_post", "all"), into=tmp_path / "s", labels=labels, progress=False)
    with pytest.raises(ValueError, match="labels name a column 3: a column's name is text"):
        numbered: Any = {t.id: {3: 1} for t in transcripts}
        capture(lens, transcripts, Select("resid_post", "all"), into=tmp_path / "s", labels=numbered, progress=False)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "values", [[1, 2.5, None], ["a", None, float("nan")], [True, np.bool_(False), None], [np.int64(1), np.float32(2), 3]]
)
def test_labels_of_one_kind_are_written_with_gaps(values: list[Any], tmp_path: Path) -> None:
    lens = tiny_lens("words")
    transcripts = tiny_transcripts(lens, tiny_prompts(3, images=(0,)))
    labels = {t.id: {"x": value} for t, value in zip(transcripts, values, strict=True)}
    index = capture(lens, transcripts, Select("resid_post", "all"), into=tmp_path / "s", labels=labels, batch_size=1, progress=False).index
    lacking = [value is None or value != value for value in values]
    assert index["x"].isna().tolist() == lacking
    assert [one for one, gap in zip(index["x"], lacking, strict=True) if not gap] == [
        one for one, gap in zip(values, lacking, strict=True) if not gap
    ]


@pytest.mark.parametrize("pool", POOLS)
def test_what_is_left_of_a_batch_is_sent_before_the_next_forward(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away, told = sys.modules["thoughtlens.hooks.reading"]._Away, list[str]()
    send = away.send
    monkeypatch.setattr(away, "send", lambda self: (told.append("send"), send(self))[1])
    lens = load(tiny_folder("words"), dtype=torch.bfloat16)
    mine = lens.inner.register_forward_pre_hook(lambda *_: told.append("forward"))
    transcripts = tiny_transcripts(lens, tiny_prompts(6, images=(0,)))
    capture(lens, transcripts, Select("resid_post", "all", pool), into=tmp_path / "s", batch_size=2, progress=False)
    mine.remove()
    assert told == ["forward", "send"] * 3


def test_a_batch_that_cannot_be_pooled_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    away, failed = sys.modules["thoughtlens.hooks.reading"]._Away, list[int]()
    pooled = away._pooled

    def small(self: Any, held: Tensor, mode: int) -> Tensor:
        if len(self._starts) > 2:
            failed.append(len(self._starts))
            raise torch.OutOfMemoryError("no room")
        return pooled(self, held, mode)  # type: ignore[no-any-return]

    lens = load(tiny_folder("words"), dtype=torch.bfloat16)
    transcripts = tiny_transcripts(lens, tiny_prompts(4, images=(0,)))
    plain = capture(lens, transcripts, Select("resid_post", "all"), into=tmp_path / "plain", batch_size=2, progress=False)
    monkeypatch.setattr(away, "_pooled", small)
    halved = capture(lens, transcripts, Select("resid_post", "all"), into=tmp_path / "halved", batch_size=4, progress=False)
    assert failed == [4] and caplog.text.count("ran out of memory") == 1
    assert torch.equal(halved.rows()[0], plain.rows()[0])
