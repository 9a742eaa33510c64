"""The divergence of two models is that of transformers' own logits, token by token, in every family, and never needs all logits at once."""

from __future__ import annotations

import functools
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from thoughtlens.hooks import LensModel, resolve, token_kinds, wrap
from thoughtlens.hooks import divergence as module
from thoughtlens.hooks.capture import encode_transcripts
from thoughtlens.hooks.divergence import COLUMNS, distances, divergence
from tiny import LOADED, tiny_lens, tiny_prompts, tiny_transcripts
from zoo import FAMILIES_TINY, zoo_lens, zoo_model, zoo_prompts
from zoo_processors import zoo_processor

STATUSES = ("closed", "unclosed", "absent", "multiple")


@functools.cache
def other(name: str) -> LensModel:
    """A second model of a family, with other weights."""
    LOADED.append(wrap(zoo_model(name, zoo_processor(name), seed=1), zoo_lens(name).processor, name="other"))
    return LOADED[-1]


def plain(lens: LensModel, transcript) -> np.ndarray:
    """Next-token probabilities from transformers alone, in float64."""
    with torch.no_grad():
        logits = lens.model(**encode_transcripts(lens, [transcript]).inputs, use_cache=False).logits[0]
    return logits.double().softmax(-1).numpy()


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_it_is_that_of_transformers_own_logits(name: str) -> None:
    a, b = zoo_lens(name), other(name)
    transcripts = tiny_transcripts(a, zoo_prompts(name, 4), statuses=STATUSES)
    table = divergence(a, b, transcripts, batch_size=3, progress=False)
    assert tuple(table.columns) == COLUMNS
    assert list(table["prompt_id"].unique()) == [t.id for t in transcripts]
    for transcript in transcripts:
        rows, p, q = table[table["prompt_id"] == transcript.id], plain(a, transcript), plain(b, transcript)
        ids = transcript.prompt_ids + transcript.output_ids
        first = len(transcript.prompt_ids) - 1
        last = len(ids) - (2 if ids[-1] in a.markers.eos_ids else 1)
        assert rows["position"].tolist() == list(range(-1, last - first))
        places = slice(first, last + 1)
        assert rows["token"].tolist() == a.tokenizer.convert_ids_to_tokens(list(ids[places]))
        np.testing.assert_allclose(rows["kl"], entropy(p[places], q[places], axis=1), atol=2e-5, rtol=1e-4)
        np.testing.assert_allclose(rows["js"], jensenshannon(p[places], q[places], axis=1) ** 2, atol=2e-5, rtol=1e-4)
        assert rows["top_a"].tolist() == a.tokenizer.convert_ids_to_tokens(p[places].argmax(1).tolist())
        assert rows["top_b"].tolist() == a.tokenizer.convert_ids_to_tokens(q[places].argmax(1).tolist())
    assert (table["js"] > 1e-3).all()


def test_steps_are_those_of_the_span_grammar() -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(8), statuses=STATUSES)
    table = divergence(lens, lens, transcripts, progress=False)
    assert (table[["kl", "js"]] == 0).all(axis=None)
    found = 0
    for transcript in transcripts:
        rows = table[table["prompt_id"] == transcript.id].set_index("position")
        ids, begun = transcript.prompt_ids + transcript.output_ids, len(transcript.prompt_ids)
        kinds = token_kinds(ids, begun, lens.frame, lens.markers)
        ends = rows[rows["boundary"]]
        assert ends["step"].tolist() == list(range(len(ends)))
        for position, row in ends.iterrows():
            assert resolve(f"step_end[{row['step']}]", kinds, ids, lens.markers, prompt_end=begun).tolist() == [begun + position]
            inside = resolve(f"step[{row['step']}]", kinds, ids, lens.markers, prompt_end=begun) - begun
            assert rows.index[rows["step"] == row["step"]].tolist() == inside.tolist()
            found += 1
        assert len(resolve(f"step_end[{len(ends)}]", kinds, ids, lens.markers, prompt_end=begun)) == 0
        assert ((rows["step"] >= 0) == (rows["kind"] == "thought")).all()
    assert found >= 10


def test_logits_are_made_chunk_by_chunk_and_only_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = tiny_lens(), tiny_lens(seed=1)
    transcripts = tiny_transcripts(a, tiny_prompts(5), statuses=STATUSES)
    whole = divergence(a, b, transcripts, progress=False)
    monkeypatch.setattr(module, "LOGIT_BYTES", 4 * 7 * a.text_config.vocab_size)
    sizes: list[int] = []
    handle = a.model.lm_head.register_forward_hook(lambda _, args, output: sizes.append(args[0].shape[:-1].numel()))
    chunked = divergence(a, b, transcripts, batch_size=2, progress=False)
    handle.remove()
    assert max(sizes[2:]) == 7 and sum(sizes[2:]) == len(whole)  # before them the small forward that looks behind the head, twice
    torch.testing.assert_close(
        torch.tensor(chunked[["kl", "js"]].to_numpy()), torch.tensor(whole[["kl", "js"]].to_numpy()), atol=1e-5, rtol=1e-4
    )
    assert chunked.drop(columns=["kl", "js"]).equals(whole.drop(columns=["kl", "js"]))


def test_js_does_not_know_which_model_came_first_and_kl_does() -> None:
    a, b = tiny_lens(), tiny_lens(seed=1)
    transcripts = tiny_transcripts(a, tiny_prompts(3))
    one, two = divergence(a, b, transcripts, progress=False), divergence(b, a, transcripts, progress=False)
    np.testing.assert_allclose(one["js"], two["js"], atol=1e-6)
    assert (abs(one["kl"] - two["kl"]) > 1e-4).mean() > 0.5
    assert one["top_a"].equals(two["top_b"]) and set(one["model_a"]) == set(two["model_b"]) == {a.name}


@given(st.lists(st.lists(st.floats(-30, 30), min_size=5, max_size=5), min_size=2, max_size=2), st.booleans())
def test_distances_are_scipys(rows: list[list[float]], sure: bool) -> None:
    p, q = (torch.tensor([row], dtype=torch.float64).log_softmax(-1) for row in rows)
    if sure:  # a token that a model never writes
        p = torch.cat([p, torch.tensor([[-torch.inf]], dtype=torch.float64)], 1)
        q = torch.cat([q - log(2), torch.tensor([[-log(2)]], dtype=torch.float64)], 1)
    kl, js = distances(p, q)
    assert float(kl) == pytest.approx(entropy(p.exp()[0], q.exp()[0]), abs=1e-9, rel=1e-6)
    assert float(js) == pytest.approx(jensenshannon(p.exp()[0], q.exp()[0]) ** 2, abs=1e-9, rel=1e-6)
    assert kl >= 0 and 0 <= js <= log(2) + 1e-12
    assert float(distances(q, p)[1]) == pytest.approx(float(js), abs=1e-12)
    assert distances(p, p)[0] == 0 and distances(p, p)[1] < 1e-12


def test_what_makes_it_meaningless_is_refused() -> None:
    words, pieces = tiny_lens(), tiny_lens("pieces")
    transcripts = tiny_transcripts(words, tiny_prompts(2))
    with pytest.raises(ValueError, match="cannot be read in lock-step, they differ in their tokenizer"):
        divergence(words, pieces, transcripts, progress=False)
    with pytest.raises(ValueError, match="no transcript to read"):
        divergence(words, words, [], progress=False)
    with pytest.raises(ValueError, match="from other prompt tokens"):
        longer = replace(transcripts[0], prompt=replace(transcripts[0].prompt, text="open the box . . ."))
        divergence(words, tiny_lens(seed=1), [longer], progress=False)


def test_heads_that_differ_or_change_their_logits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    a = zoo_lens("llama")
    processor = zoo_processor("llama")
    b = wrap(zoo_model("llama", processor, seed=1), processor, name="longer")
    b.model.resize_token_embeddings(b.text_config.vocab_size + 8)
    transcripts = tiny_transcripts(a, zoo_prompts("llama", 2))
    with pytest.raises(ValueError, match=r"has \d+ rows, that of longer has \d+"):
        divergence(a, b, transcripts, progress=False)
    model = zoo_model("llama", processor, seed=1)
    forward = model.forward

    def capped(*args, **kwargs):
        found = forward(*args, **kwargs)
        found.logits = 5 * (found.logits / 5).tanh()
        return found

    monkeypatch.setattr(model, "forward", capped)
    with pytest.raises(ValueError, match="capped changes its logits behind the output head"):
        divergence(a, wrap(model, processor, name="capped"), transcripts, progress=False)
