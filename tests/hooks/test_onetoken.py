"""One edited token behind a cache is what a whole forward without one gives; a batch of settings is its singles; nothing is left behind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thoughtlens.hooks.capture import encode_transcripts
from thoughtlens.hooks.onetoken import Trial, greedy, prefixes, tried
from thoughtlens.hooks.steer import steer
from thoughtlens.hooks.vector import Vector
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

SITES = ("resid_post.0", "resid_pre.1", "attn_out.1", "mlp_out.0", "resid_post.1")


def by_hand(lens, transcript, at, then, site, delta):
    """Plain transformers: the whole sequence, no cache, one forward hook of our own writing."""
    ids = [*transcript.prompt_ids, *transcript.output_ids][: at + 1] + list(then)
    batch = encode_transcripts(lens, [transcript])
    inputs = {
        key: value[:, : len(ids)] if value.shape[:2] == batch.inputs["input_ids"].shape else value for key, value in batch.inputs.items()
    }
    inputs["input_ids"] = torch.tensor([ids])
    layer = lens.layers[int(site.split(".")[1])]
    name = site.split(".")[0]
    module = {"attn_out": layer.self_attn, "mlp_out": layer.mlp}.get(name, layer)

    def add(hidden):
        hidden = hidden.clone()
        hidden[0, at] += delta
        return hidden

    if name == "resid_pre":
        handle = module.register_forward_pre_hook(lambda _, args: (add(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(lambda _, args, out: (add(out[0]), *out[1:]) if isinstance(out, tuple) else add(out))
    try:
        with torch.no_grad():
            return lens.model.model(**inputs, use_cache=False).last_hidden_state[0, at : at + 1 + len(then)]
    finally:
        handle.remove()


@pytest.mark.parametrize("pictures", [0, 1])
def test_cached_is_what_a_whole_forward_without_a_cache_gives(pictures):
    lens = tiny_lens()
    with_picture, *_ = tiny_transcripts(lens, tiny_prompts(1, images=(1,), seed=5))
    list(prefixes(lens, with_picture, [len(with_picture.prompt_ids)]))  # leaves the positions of its picture on the model
    (transcript,) = tiny_transcripts(lens, tiny_prompts(1, images=(pictures,), seed=3))
    begun = len(transcript.prompt_ids)
    places, then = [begun - 1, begun + 2, begun + 3, begun + 7], (7, 9, 11)
    deltas = torch.randn(len(SITES), 32, generator=torch.Generator().manual_seed(1)) * 3
    found = list(tried(lens, transcript, [Trial(at, then, SITES, deltas) for at in places]))
    for at, hidden in zip(places, found, strict=True):
        assert hidden.shape == (len(SITES), 4, 32)
        for row, (site, delta) in enumerate(zip(SITES, deltas, strict=True)):
            torch.testing.assert_close(hidden[row], by_hand(lens, transcript, at, then, site, delta), atol=2e-4, rtol=1e-4)
    plain = by_hand(lens, transcript, places[0], then, SITES[0], torch.zeros(32))
    assert (found[0][0] - plain).abs().max() > 0.1  # an edit that did nothing would pass everything above


@settings(max_examples=12)
@given(size=st.integers(1, 7), batch_size=st.integers(1, 5), seed=st.integers(0, 9))
def test_a_batch_of_settings_is_its_singles(size, batch_size, seed):
    lens = tiny_lens()
    (transcript,) = tiny_transcripts(lens, tiny_prompts(1, images=(0,)))
    chance = torch.Generator().manual_seed(seed)
    deltas, at = torch.randn(size, 32, generator=chance), len(transcript.prompt_ids) + seed % 4
    sites = tuple(SITES[int(i)] for i in torch.randint(len(SITES), (size,), generator=chance))
    (whole,) = tried(lens, transcript, [Trial(at, (5,), sites, deltas)], batch_size=batch_size)
    for row in range(size):
        (single,) = tried(lens, transcript, [Trial(at, (5,), sites[row : row + 1], deltas[row : row + 1])])
        torch.testing.assert_close(whole[row], single[0], atol=1e-5, rtol=1e-5)


def test_zeros_change_no_bit():
    lens = tiny_lens()
    (transcript,) = tiny_transcripts(lens, tiny_prompts(1, images=(0,)))
    (hidden,) = tried(lens, transcript, [Trial(len(transcript.prompt_ids), (5,), SITES, torch.zeros(len(SITES), 32))])
    assert (hidden == hidden[:1]).all()


def test_what_is_written_greedily_is_what_transformers_generates():
    lens = tiny_lens()
    (transcript,) = tiny_transcripts(lens, tiny_prompts(1, images=(0,)))
    at = len(transcript.prompt_ids) + 3
    ((token, cache),) = prefixes(lens, transcript, [at])
    words, hidden = greedy(lens, token, cache, 4)
    ids = torch.tensor([[*transcript.prompt_ids, *transcript.output_ids][: at + 1]])
    theirs = lens.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    assert words == theirs[0, at + 1 :].tolist() and hidden.shape == (len(words), 32)
    assert cache.get_seq_length() == at  # left as it was


def test_places_out_of_order_other_prompts_and_steering_are_refused():
    lens = tiny_lens()
    (transcript,) = tiny_transcripts(lens, tiny_prompts(1, images=(0,)))
    begun = len(transcript.prompt_ids)
    for places in ([begun + 2, begun + 1], [begun, begun], [begun - 2], [begun + len(transcript.output_ids)]):
        with pytest.raises(ValueError, match="in ascending order, between its last prompt token"):
            list(prefixes(lens, transcript, places))
    with pytest.raises(ValueError, match="not at every resid_post: write the layer"):
        Trial(3, (), ("resid_post",), torch.zeros(1, 32))
    with pytest.raises(ValueError, match="one row of deltas for each site"):
        Trial(3, (), ("resid_post.0",), torch.zeros(2, 32))
    vector = Vector({"resid_post.1": torch.ones(32)}, "last_prompt")
    with pytest.raises(ValueError, match="steering is active"), steer(lens, vector):
        list(prefixes(lens, transcript, [begun]))
