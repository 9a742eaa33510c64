"""One anchor for both directions: the tokens it steers as they arrive are the tokens it finds, and capture reads exactly those."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from thoughtlens.hooks import AtSteps, InSpans, Select, capture, generate, parse_span, resolve, steer, streamable
from thoughtlens.hooks.anchor import Anchor
from thoughtlens.hooks.capture import encode_transcripts
from thoughtlens.hooks.divergence import numbered
from thoughtlens.hooks.edits import Edit
from thoughtlens.hooks.frame import token_kinds
from thoughtlens.hooks.gates import ProbeGate
from thoughtlens.hooks.generate import forced
from thoughtlens.hooks.provenance import facts_of
from thoughtlens.hooks.vector import Vector
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

LAST = Vector({"resid_post.2": torch.full((32,), 5.0)}, "decision")  # what is written there, no later token reads


@pytest.fixture(scope="module")
def thoughts():
    lens = tiny_lens()
    return lens, tiny_transcripts(lens, tiny_prompts(8, images=(0, 1)), statuses=("closed", "unclosed", "multiple"))


def by_hand(lens, transcripts, weight):
    """Prompt id -> {output position of a step's end: readout}, from a plain forward of each transcript with a hook of our own."""
    found = {}
    for t in transcripts:
        ids, begun, seen = [*t.prompt_ids, *t.output_ids], len(t.prompt_ids), []
        _, ends = numbered(token_kinds(ids, begun, lens.frame, lens.markers).tolist(), ids, lens.markers)
        handle = lens.layers[0].register_forward_hook(
            lambda _, args, out, seen=seen: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        with torch.no_grad():
            lens.model(**encode_transcripts(lens, [t]).inputs)
        handle.remove()
        found[t.id] = {at - begun: float(seen[0].reshape(-1, 32)[at] @ weight) for at, end in enumerate(ends) if end}
    return found


@pytest.fixture(scope="module")
def anchor(thoughts):
    """Half of all ends of steps read above its threshold."""
    lens, transcripts = thoughts
    weight = torch.randn(32, generator=torch.Generator().manual_seed(2))
    scores = sorted(score for ends in by_hand(lens, transcripts, weight).values() for score in ends.values())
    middle = (scores[len(scores) // 2 - 1] + scores[len(scores) // 2]) / 2
    return Anchor(weight, 0.25, "resid_post.0", middle + 0.25, facts_of(lens))


def test_it_finds_what_reads_above_its_threshold(thoughts, anchor):
    lens, transcripts = thoughts
    wanted = {
        id_: tuple(at for at, score in ends.items() if score + 0.25 > anchor.threshold)
        for id_, ends in by_hand(lens, transcripts, anchor.weight).items()
    }
    assert anchor.find(lens, transcripts, progress=False) == wanted == anchor.find(lens, transcripts, batch_size=1, progress=False)
    assert any(wanted.values()) and not all(wanted.values())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("stepwise", [False, True])
def test_the_tokens_it_steers_as_they_arrive_are_those_it_finds(thoughts, anchor, side, stepwise):
    """In one batch of long and short rows, with and without pictures; the logits behind a steered token change and no others."""
    if stepwise and side == "right":
        pytest.skip("tokens are written behind padding on the left")
    lens, transcripts = thoughts
    found = anchor.find(lens, transcripts, progress=False)
    plain = forced(lens, transcripts, side=side, stepwise=stepwise)
    with steer(lens, LAST, gate=anchor.gate()):
        steered = forced(lens, transcripts, side=side, stepwise=stepwise)
    for t, before, after in zip(transcripts, plain, steered, strict=True):
        changed = ((before - after).abs().amax(-1) > 1e-3).nonzero()[:, 0].tolist()
        assert [at - 1 for at in changed] == [at for at in found[t.id] if at + 1 < len(t.output_ids)]


def test_capture_reads_those_tokens_and_names_thoughts_without_one(thoughts, anchor, tmp_path, caplog):
    lens, transcripts = thoughts
    found = anchor.find(lens, transcripts, progress=False)
    where = Select("resid_post.1", ["decision", "decision[:1]"], "every")
    with caplog.at_level("INFO"):
        store = capture(lens, transcripts, where, into=tmp_path / "s", decisions=found, progress=False)
    begun = {t.id: len(t.prompt_ids) for t in transcripts}
    for span, wanted in (("decision", found), ("decision[:1]", {id_: places[:1] for id_, places in found.items()})):
        rows = store.index[store.index["span"] == span]
        told = {id_: tuple(part["start"] - begun[id_]) for id_, part in rows.groupby("prompt_id")}
        assert told == {id_: places for id_, places in wanted.items() if places}
    silent = sum(not places for places in found.values())
    assert silent and f'span "decision" is empty in {silent} of {len(found)} transcripts' in caplog.text
    with pytest.raises(ValueError, match="holds a different capture.*decisions_sha"):
        capture(lens, transcripts, where, into=tmp_path / "s", decisions={**found, transcripts[0].id: (1,)}, progress=False)


def test_nothing_found_is_told_with_what_to_do(thoughts, anchor, tmp_path, caplog):
    lens, transcripts = thoughts
    deaf = dataclasses.replace(anchor, threshold=1e6)
    nothing = deaf.find(lens, transcripts, progress=False)
    assert set(nothing.values()) == {()}
    where = Select("resid_post.1", "decision")
    with pytest.raises(ValueError, match='span "decision" is empty in 8 of 8 transcripts.*Take an anchor with a lower threshold'):
        capture(lens, transcripts, where, into=tmp_path / "s", decisions=nothing, progress=False)
    with pytest.raises(ValueError, match=r"Pass decisions=anchor.find\(lens, transcripts\)"):
        capture(lens, transcripts, where, into=tmp_path / "t", progress=False)
    with pytest.raises(ValueError, match="says nothing of 7 transcripts"):
        capture(lens, transcripts, where, into=tmp_path / "u", decisions={transcripts[0].id: ()}, progress=False)
    with pytest.raises(ValueError, match="is found in what was written"):
        generate(lens, [transcripts[0].prompt], max_new_tokens=2, where=where, into=tmp_path / "v", progress=False)
    with caplog.at_level("WARNING"), steer(lens, LAST, gate=deaf.gate()):
        forced(lens, transcripts)
    assert "no hidden state was steered in 8 rows" in caplog.text and "lower the threshold" in caplog.text


def test_a_decision_is_not_steered_without_an_anchor():
    with pytest.raises(ValueError, match=r'the gate steps holds no anchor. Pass gate=anchor.gate\(\), or .* spans="step_ends"'):
        Edit(LAST, gate=AtSteps())
    with pytest.raises(ValueError, match=r"is what an anchor makes: anchor.gate\(\)"):
        InSpans("decision")
    with pytest.raises(ValueError, match="is what an anchor makes"):
        ProbeGate(torch.ones(32), 0.0, "resid_post.0", 0.0, span="decision")
    assert streamable("decision") and not streamable("decision[:1]")


def test_the_ends_of_all_steps_are_a_span_as_they_arrive(thoughts):
    lens, transcripts = thoughts
    plain = forced(lens, transcripts)
    for span, window in (("step_ends", slice(None)), ("step_ends[:1]", slice(1)), ("step_ends[1:]", slice(1, None))):
        with steer(lens, LAST, spans=span):
            steered = forced(lens, transcripts)
        for t, before, after in zip(transcripts, plain, steered, strict=True):
            ids, begun = [*t.prompt_ids, *t.output_ids], len(t.prompt_ids)
            kinds = token_kinds(ids, begun, lens.frame, lens.markers)
            ends = [at for i in range(9) for at in resolve(f"step_end[{i}]", kinds, ids, lens.markers, prompt_end=begun).tolist()]
            assert resolve(span, kinds, ids, lens.markers, prompt_end=begun).tolist() == ends[window]
            changed = ((before - after).abs().amax(-1) > 1e-3).nonzero()[:, 0].tolist()
            assert [at - 1 + begun for at in changed] == [at for at in ends[window] if at + 1 < len(ids)]
    with pytest.raises(ValueError, match=r"step_ends takes a window or a fraction. For one token write step_ends\[0:1\]"):
        parse_span("step_ends[0]")


def test_it_is_an_artifact_of_its_model(thoughts, anchor, tmp_path):
    lens, transcripts = thoughts
    kept = Anchor.load(anchor.save(tmp_path / "a.safetensors"))
    assert (kept.weight == anchor.weight).all() and (kept.bias, kept.site, kept.threshold) == (anchor.bias, anchor.site, anchor.threshold)
    assert kept.find(lens, transcripts, progress=False) == anchor.find(lens, transcripts, progress=False)
    with pytest.raises(FileExistsError, match="never changed in place"):
        anchor.save(tmp_path / "a.safetensors")
    other = tiny_lens(seed=1)
    with pytest.raises(ValueError, match="was made for"):
        kept.find(other, transcripts, progress=False)
    assert kept.find(other, transcripts, foreign=True, progress=False).keys() == {t.id for t in transcripts}
    with pytest.raises(ValueError, match="was made for"), steer(other, LAST, gate=kept.gate()):
        pass
    with pytest.raises(ValueError, match="holds a 'vector', not an anchor"):
        Anchor.load(LAST.save(tmp_path / "v.safetensors"))
    with pytest.raises(ValueError, match="two transcripts are of one prompt"):
        kept.find(lens, [*transcripts, transcripts[0]], progress=False)
