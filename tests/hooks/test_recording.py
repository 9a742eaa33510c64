"""Hidden states kept while tokens are written are those of a teacher-forced forward over the same tokens, and change nothing that is written."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import thoughtlens.hooks.recording as recordings
import torch
from thoughtlens.hooks import LensModel, Prompt, Select, Store, Transcript, Vector, capture, encode, generate, load, open_store, steer
from thoughtlens.hooks.recording import Kept
from thoughtlens.hooks.sites import NAMES
from thoughtlens.hooks.steer import Steering
from tiny import tiny_folder, tiny_lens, tiny_prompts, tiny_transcripts
from torch import Tensor
from zoo import FAMILIES_TINY, PICTURED, zoo_lens, zoo_prompts

SPANS = (
    *("last_prompt", "thought", "thought_first", "thought_last", "answer", "answer_first", "marker", "template", "image", "instruction"),
    *("prompt", "all", "step[0]", "step_end[0]", "step_end[-1]", "thought[:3]", "thought[-2:]", "thought@0.5", "all@0.5", "all[-3:]"),
)
STATUSES = ("closed", "unclosed", "absent", "close_only", "multiple")
SITES = [name for name in NAMES if name not in ("head_out", "cross_attn_out")]


def with_end(lens: LensModel, prompts: list[Prompt], **asked: Any) -> LensModel:
    """The same model with an end token that some of these outputs hold and others do not."""
    written = [set(t.output_ids[-asked["max_new_tokens"] :]) for t in generate(lens, prompts, progress=False, **asked)]
    often = {token: sum(token in words for words in written) for words in written for token in words}
    end = min(often, key=lambda token: (abs(often[token] - len(written) / 2), token))
    return dataclasses.replace(lens, markers=dataclasses.replace(lens.markers, eos_ids=(end,)))


def assert_same_rows(kept: Store, forced: Store, tolerance: float = 1e-5) -> None:
    pd.testing.assert_frame_equal(
        kept.index.drop(columns=["shard", "offset", "shard_sha"]), forced.index.drop(columns=["shard", "offset", "shard_sha"])
    )
    assert {key: value for key, value in kept.meta.items() if key != "job"} == {
        key: value for key, value in forced.meta.items() if key != "job"
    }
    ours, theirs = kept.rows()[0], forced.rows()[0]
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", ["words", "pieces"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_it_equals_a_teacher_forced_capture_of_the_same_transcripts(kind: str, batch_size: int, tmp_path: Path) -> None:
    lens = tiny_lens(kind)
    prompts = tiny_prompts(10, images=(0, 1, 2), systems=(None, "you are kind"))
    prefixes = [t.output_ids[: len(t.output_ids) - 1] for t in tiny_transcripts(lens, prompts, statuses=STATUSES)]
    asked: dict[str, Any] = {"prefixes": prefixes, "max_new_tokens": 9, "batch_size": batch_size}
    lens = with_end(lens, prompts, **asked)
    prefixes = [tuple(token for token in prefix if token not in lens.markers.eos_ids) for prefix in prefixes]
    asked["prefixes"] = prefixes
    labels = {prompt.id: {"number": i} for i, prompt in enumerate(prompts)}
    where = Select(SITES, SPANS)
    written = generate(lens, prompts, where=where, into=tmp_path / "kept", labels=labels, progress=False, **asked)
    assert written == generate(lens, prompts, progress=False, **asked)
    assert {t.ended for t in written} == {True, False}
    forced = capture(lens, written, where, into=tmp_path / "forced", labels=labels, progress=False, batch_size=batch_size)
    assert_same_rows(open_store(tmp_path / "kept"), forced)
    assert set(forced.index["span"]) == set(SPANS)


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_it_does_so_in_every_family(name: str, tmp_path: Path) -> None:
    lens, prompts = zoo_lens(name), zoo_prompts(name, 5)
    spans = [span for span in SPANS if span != "image" or name in PICTURED]
    prompts = prompts if lens.family.mixes else [prompt for prompt in prompts if prompt.images]
    prefixes = [t.output_ids[:-1] for t in tiny_transcripts(lens, prompts, statuses=STATUSES)]
    where = Select([n for n in NAMES if n != "head_out" and (n != "cross_attn_out" or not lens.family.mixes)], spans)
    written = generate(lens, prompts, prefixes=prefixes, max_new_tokens=6, where=where, into=tmp_path / "kept", progress=False)
    assert written == generate(lens, prompts, prefixes=prefixes, max_new_tokens=6, progress=False)
    assert_same_rows(open_store(tmp_path / "kept"), capture(lens, written, where, into=tmp_path / "forced", progress=False), 5e-5)


def test_text_alone_and_pictures_never_share_a_batch_where_the_family_keeps_them_apart(tmp_path: Path) -> None:
    lens, prompts = zoo_lens("mllama"), zoo_prompts("mllama", 5)
    assert {bool(prompt.images) for prompt in prompts} == {True, False}
    crossing = [i for i, block in enumerate(lens.blocks) if block.site == "cross_attn_out"]
    where = Select([f"resid_post.{i}" for i in range(lens.n_layers) if i not in crossing], ["last_prompt", "all"])
    written = generate(lens, prompts, max_new_tokens=5, where=where, into=tmp_path / "kept", progress=False)
    forced = capture(lens, written, where, into=tmp_path / "forced", progress=False)
    assert_same_rows(open_store(tmp_path / "kept"), forced)
    alone = [capture(lens, [t], where, into=tmp_path / t.id, progress=False).rows()[0] for t in written]
    torch.testing.assert_close(forced.rows()[0], torch.cat(alone), atol=1e-5, rtol=1e-5)
    for asked in (f"resid_post.{crossing[0]}", "cross_attn_out"):
        message = (
            rf"site '{asked.split('.')[0]}.{crossing[0]}' never ran: .* skips its cross-attention layers .* Choose sites of the layers 0"
        )
        with pytest.raises(ValueError, match=message):
            generate(lens, prompts, max_new_tokens=5, where=Select(asked, "answer"), into=tmp_path / "no", progress=False)
        with pytest.raises(ValueError, match=message):
            capture(lens, written, Select(asked, "answer"), into=tmp_path / "no", progress=False)
    assert not (tmp_path / "no").exists()


def push(span: str = "answer") -> Vector:
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return Vector({"resid_post.1": direction}, span=span, source="test", scale={"resid_post.1": 3.0})


def by_hand(lens: LensModel, steering: Steering, transcript: Transcript, site: str) -> Tensor:
    """The whole transcript in one steered forward, read with plain hooks."""
    batch = encode(lens, [transcript.prompt], prefixes=[transcript.output_ids])
    found, handles = [], []

    def keep(module: Any, args: Any, output: Any = None) -> None:
        found.append((args[0] if output is None else output[0] if isinstance(output, tuple) else output).clone())

    for layer in lens.layers:
        module = {"attn_out": layer.self_attn, "mlp_out": layer.mlp}.get(site, layer)
        handles.append(module.register_forward_pre_hook(keep) if site == "resid_pre" else module.register_forward_hook(keep))
    steering.expect(batch.prompt_lengths)
    with torch.no_grad():
        lens.inner(**batch.inputs, use_cache=False)
    steering.expect(None)
    for handle in handles:
        handle.remove()
    return torch.stack([hidden[0] for hidden in found], 1)


@pytest.mark.parametrize("site", ["resid_post", "resid_pre", "attn_out", "mlp_out"])
def test_under_steering_the_steered_states_are_kept(site: str, tmp_path: Path) -> None:
    lens, prompts = tiny_lens(), tiny_prompts(5, images=(0, 1))
    with steer(lens, push()) as steering:
        plain = generate(lens, prompts, max_new_tokens=5, batch_size=2, progress=False)
        written = generate(
            lens, prompts, max_new_tokens=5, batch_size=2, where=Select(site, "all", "every"), into=tmp_path / "s", progress=False
        )
        assert written == plain and any(t.fired == 4 for t in written)  # the last token is run to be read, and not counted
        store = open_store(tmp_path / "s")
        for transcript in written:
            ours, index = store.rows({"prompt_id": transcript.id})
            assert set(index["condition"]) == {"test add 1 at resid_post.1, answer, always"}
            torch.testing.assert_close(ours, by_hand(lens, steering, transcript, site), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(store.rows({"prompt_id": "p0"})[0], capture_of(lens, written[0], site, tmp_path), atol=1e-2)


def capture_of(lens: LensModel, transcript: Transcript, site: str, folder: Path) -> Tensor:
    return capture(lens, [transcript], Select(site, "all", "every"), into=folder / "unsteered", progress=False).rows()[0]


def test_sampling_goes_on_as_if_nothing_were_kept(tmp_path: Path) -> None:
    lens, prompts = tiny_lens(), tiny_prompts(7, images=(0, 1))
    lens = with_end(lens, prompts, max_new_tokens=8)

    def sample(**asked: Any) -> list[Transcript]:
        torch.manual_seed(3)
        return generate(lens, prompts, max_new_tokens=8, batch_size=2, temperature=2.0, progress=False, **asked)

    kept = sample(where=Select("resid_post", "all"), into=tmp_path / "s")
    assert kept == sample() and {t.ended for t in kept} == {True, False}
    forced = capture(lens, kept, Select("resid_post", "all"), into=tmp_path / "f", progress=False)
    torch.testing.assert_close(open_store(tmp_path / "s").rows()[0], forced.rows()[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_sampling_goes_on_where_the_last_row_ends_one_token_early(limit: int, tmp_path: Path) -> None:
    lens, prompts, early = tiny_lens(), tiny_prompts(2), 0
    lens = dataclasses.replace(lens, markers=dataclasses.replace(lens.markers, eos_ids=tuple(range(8, 30))))
    for seed in range(12):
        made = []
        for kept in ({}, {"where": Select("resid_post", "all"), "into": tmp_path / str(seed)}):
            torch.manual_seed(seed)
            made.append(generate(lens, prompts, max_new_tokens=limit, batch_size=1, temperature=1.0, progress=False, **kept))  # type: ignore[arg-type]
            made[-1] = [*made[-1], torch.rand(1).item()]  # type: ignore[list-item]
        assert made[0] == made[1]
        early += any(t.ended and len(t.output_ids) == limit - 1 for t in made[0][:-1])
    assert early > 1


def test_half_precision_is_pooled_in_float32(tmp_path: Path) -> None:
    lens = load(tiny_folder("words"), dtype=torch.bfloat16)
    where = Select(["resid_post", "mlp_out"], ["answer", "last_prompt"])
    generate(lens, tiny_prompts(3), max_new_tokens=5, where=where, into=tmp_path / "mean", progress=False)
    generate(
        lens, tiny_prompts(3), max_new_tokens=5, where=Select(where.sites, where.spans, "every"), into=tmp_path / "all", progress=False
    )
    mean, every = open_store(tmp_path / "mean"), open_store(tmp_path / "all")
    for i, row in mean.index.iterrows():
        tokens = every.rows({"prompt_id": row["prompt_id"], "span": row["span"]})[0]
        assert torch.equal(tokens, tokens.bfloat16().float())
        torch.testing.assert_close(mean.rows()[0][i], tokens.double().mean(0).float(), atol=1e-6, rtol=1e-6)


def test_columns_no_span_can_reach_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lens, prompts, made = tiny_lens(), tiny_prompts(3), []
    monkeypatch.setattr(recordings, "Kept", lambda *args: made.append(Kept(*args)) or made[-1])
    width = encode(lens, prompts).inputs["input_ids"].shape[1]
    for span, first in (("answer", width), ("last_prompt", width - 1), ("all[-2:]", width - 2), ("prompt", 0)):
        generate(lens, prompts, max_new_tokens=4, where=Select("resid_post.1", span), into=tmp_path / span, progress=False)
        assert made[-1].first == first and next(iter(made[-1].states.values())).shape == (3, width + 4 - first, 32)


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    lens, prompts = tiny_lens(), tiny_prompts(2)
    where = Select("resid_post", "answer")

    def asked(**given: Any) -> list[Transcript]:
        return generate(lens, prompts, max_new_tokens=2, progress=False, **{"where": where, "into": tmp_path / "s", **given})

    cases: list[tuple[dict[str, Any], str]] = [
        ({"into": None}, "pass where and into, or none"),
        ({"where": None}, "pass where and into, or none"),
        ({"where": None, "into": None, "labels": {"p0": {}, "p1": {}}}, "pass where and into, or none"),
        ({"where": Select("resid_post.9", "answer")}, "out of range"),
        ({"where": Select(["resid_post", "cross_attn_out"], "answer")}, "no layer has cross_attn_out"),
        ({"labels": {"p0": {}}}, "labels do not cover 1 of 2 .*first prompt 'p1'"),
        ({"labels": {"p0": {"span": 1}, "p1": {"span": 2}}}, "labels use the column 'span'"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            asked(**given)
    assert not (tmp_path / "s").exists()
    asked()
    with pytest.raises(ValueError, match="holds what a generation wrote before.*choose another folder"):
        asked()


def test_where_no_output_has_the_span_the_transcripts_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lens, prompts = tiny_lens(), tiny_prompts(2)
    for tokens in (2, 3):  # and the folder is free for the next
        where = Select("resid_post", "step[9]")
        written = generate(lens, prompts, max_new_tokens=tokens, where=where, into=tmp_path / "s", progress=False)
        assert written == generate(lens, prompts, max_new_tokens=tokens, progress=False)
        assert 'no hidden state was captured: span "step[9]" is empty in 2 of 2 outputs' in caplog.text
        assert "Generate longer" in caplog.text and not list((tmp_path / "s").iterdir())
    assert len(capture(lens, written, Select("resid_post", "last_prompt"), into=tmp_path / "s", progress=False)) == 2


def test_a_span_no_output_has_is_warned_of_and_the_rest_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generate(
        tiny_lens(),
        tiny_prompts(2),
        max_new_tokens=2,
        where=Select("resid_post", ["last_prompt", "image", "step[9]"]),
        into=tmp_path / "s",
        progress=False,
    )
    assert 'span "step[9]" is empty in all 2 outputs' in caplog.text
    assert open_store(tmp_path / "s").index["span"].tolist() == ["last_prompt", "last_prompt", "image"]


def test_hooks_are_gone_after_an_interruption_and_the_callers_own_stay(tmp_path: Path) -> None:
    lens, forwards = tiny_lens(), []

    def interrupt(*_: Any) -> None:
        forwards.append(1)
        if len(forwards) == 4:
            raise KeyboardInterrupt

    mine = lens.layers[2].register_forward_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            generate(lens, tiny_prompts(2), max_new_tokens=8, where=Select("resid_post", "answer"), into=tmp_path / "s", progress=False)
        left = [hook for module in lens.model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
        assert left == [mine.id]
    finally:
        mine.remove()
    with pytest.raises(FileNotFoundError, match="unfinished"):
        open_store(tmp_path / "s")


def test_a_hook_that_does_not_fire_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = sys.modules["thoughtlens.hooks.reading"]
    monkeypatch.setattr(reading, "watch", lambda lens, site, take: lens.layers[0].register_forward_hook(lambda *_: None))
    with pytest.raises(ValueError, match=r"site 'resid_post.0' never ran in a forward of .*torch._dynamo.reset"):
        generate(tiny_lens(), tiny_prompts(2), max_new_tokens=2, where=Select("resid_post", "answer"), into=tmp_path / "s", progress=False)


def test_tokens_that_ran_are_held_against_those_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lens, generated = tiny_lens(), type(tiny_lens().model).generate

    def other(model: Any, *args: Any, **kwargs: Any) -> Tensor:
        ids: Tensor = generated(model, *args, **kwargs)
        ids[0, -3] += 1
        return ids

    monkeypatch.setattr(type(lens.model), "generate", other)
    with pytest.raises(ValueError, match="ran other tokens than it wrote"):
        generate(lens, tiny_prompts(2), max_new_tokens=4, where=Select("resid_post", "answer"), into=tmp_path / "s", progress=False)
