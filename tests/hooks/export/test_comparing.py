"""The comparison sees what plain transformers computes, on the same tokens, with and without a cache; and every way to differ."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.export.comparing import POSITIONS, WRITTEN, Trace, largest_difference, rounding, tokens, traced
from thoughtlens.hooks.steer import steer
from tiny import tiny_lens
from torch.testing import assert_close
from zoo import zoo_lens, zoo_prompts


@pytest.mark.parametrize("family", ["llama", "qwen2_5_vl", "mllama"])
def test_a_trace_is_what_a_plain_forward_gives(family: str) -> None:
    lens, prompts = zoo_lens(family), zoo_prompts(family, 2)
    for prompt, trace in zip(prompts, traced(lens, prompts), strict=True):
        batch = encode(lens, [prompt], prefixes=[trace.output_ids])
        with torch.no_grad():
            whole = lens.model(**batch.inputs, use_cache=False).logits[0]
        n = len(trace.ids)
        assert n <= POSITIONS and 0 < len(trace.output_ids) <= WRITTEN
        assert_close(trace.prompt, whole[:n], atol=1e-4, rtol=0)
        assert_close(trace.written, whole[n - 1 : n - 1 + len(trace.output_ids)], atol=1e-4, rtol=0)
        masked = trace.written.clone()
        if lens.frame.image_token_id is not None:
            masked[:, lens.frame.image_token_id] = -math.inf
        assert masked.argmax(-1).tolist() == list(trace.output_ids), "the hooked model writes its own greedy tokens"


def test_others_write_the_same_tokens(edit: Any) -> None:
    lens, prompts = zoo_lens("llama"), zoo_prompts("llama", 3)
    with steer(lens, edit("add", "resid_post.1", strength=3.0)):
        hooked = traced(lens, prompts)
    plain = traced(lens, prompts, hooked)
    assert [one.output_ids for one in plain] == [one.output_ids for one in hooked] != [one.output_ids for one in traced(lens, prompts)]
    assert largest_difference(hooked, plain) > 0.5
    assert tokens(plain) == sum(len(one.ids) + len(one.output_ids) for one in hooked)


def test_the_model_keeps_its_generation_config() -> None:
    lens = zoo_lens("llama")
    own = lens.model.generation_config
    traced(lens, zoo_prompts("llama", 1))
    assert lens.model.generation_config is own


def test_a_long_prompt_is_compared_at_its_ends_and_between(monkeypatch: pytest.MonkeyPatch) -> None:
    lens, prompts = zoo_lens("llama"), zoo_prompts("llama", 1)
    whole = traced(lens, prompts)[0]
    monkeypatch.setattr("thoughtlens.hooks.export.comparing.POSITIONS", 3)
    few = traced(lens, prompts)[0]
    middle = round((len(whole.ids) - 1) / 2)
    assert_close(few.prompt, whole.prompt[[0, middle, len(whole.ids) - 1]], atol=1e-5, rtol=0)


def test_another_tokenizer_is_an_error() -> None:
    lens, prompts = zoo_lens("llama"), zoo_prompts("llama", 1)
    traces = [replace(one, ids=one.ids[:-1]) for one in traced(lens, prompts)]
    with pytest.raises(ValueError, match="reads the prompt 'p0' as other tokens than .*tokenizer or chat template"):
        traced(lens, prompts, traces)


def test_the_largest_difference_is_found_wherever_it_is() -> None:
    zero = torch.zeros(2, 3)
    plain = Trace((1, 2), (3, 4), zero, zero)
    late, early = zero.clone(), zero.clone()
    late[1, 2], early[0, 0] = -2.0, 1.0
    assert largest_difference([plain], [replace(plain, written=late)]) == 2.0
    assert largest_difference([plain, plain], [plain, replace(plain, prompt=early)]) == 1.0
    assert largest_difference([plain], [replace(plain, prompt=zero / 0)]) == math.inf
    assert rounding([replace(plain, written=late)], torch.float32) == pytest.approx(8 * 2.0 * 2**-23)


def test_pictures_are_in_the_comparison() -> None:
    lens = tiny_lens()
    with_picture = zoo_prompts("qwen2_5_vl", 2)[1]
    assert with_picture.images
    (trace,) = traced(lens, [with_picture])
    assert lens.frame.image_token_id in trace.ids and lens.frame.image_token_id not in trace.output_ids
