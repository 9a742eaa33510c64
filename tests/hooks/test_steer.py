"""Steering: equal to hooks written by hand, with and without a cache, alone and in a batch; nothing silent, nothing left behind."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from replay import begin, replay
from thoughtlens.hooks.gates import AtSteps, FirstTokens, Gate, ProbeGate
from thoughtlens.hooks.generate import forced, generate
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.programs import Programs
from thoughtlens.hooks.records import Transcript
from thoughtlens.hooks.steer import Vector, steer
from tiny import tiny_lens, tiny_prompts, tiny_transcripts
from torch import Tensor, nn
from torch.testing import assert_close

SITES = ["resid_pre.1", "attn_out.1", "mlp_out.1", "resid_post.1"]
Positions = list[set[int]]


@pytest.fixture
def lens() -> LensModel:
    return tiny_lens()


@pytest.fixture
def transcripts(lens: LensModel) -> list[Transcript]:
    """Five rows of different lengths, two with pictures; every one thinks in two steps, closes the thought, answers and ends."""
    return tiny_transcripts(lens, tiny_prompts(5, images=(0, 1, 0, 2, 0), seed=1), statuses=("closed",), seed=1)


def vector(*sites: str, span: str = "last_prompt", seed: int = 0, width: int = 32) -> Vector:
    chance = torch.Generator().manual_seed(seed)
    values = {site: torch.randn(width, generator=chance) for site in sites}
    return Vector(values, span=span, source="test", scale=dict.fromkeys(values, 3.0))


@contextmanager
def by_hand(lens: LensModel, site: str, value: Tensor, where: Callable[[], Tensor], operator: str = "add") -> Iterator[None]:
    """The same change with a plain hook: `where` gives [b, p] amounts."""
    layer = lens.model.model.language_model.layers[int(site[-1])]

    def change(h: Tensor) -> Tensor:
        amount = where()[..., None]
        if operator == "add":
            return torch.where(amount != 0, h + amount * value, h)
        unit = value / value.norm()
        return torch.where(amount != 0, h - amount * (h @ unit)[..., None] * unit, h)

    handle = {
        "resid_pre": lambda: layer.register_forward_pre_hook(lambda m, args: (change(args[0]), *args[1:])),
        "attn_out": lambda: layer.self_attn.register_forward_hook(lambda m, args, out: (change(out[0]), *out[1:])),
        "mlp_out": lambda: layer.mlp.register_forward_hook(lambda m, args, out: change(out)),
        "resid_post": lambda: layer.register_forward_hook(lambda m, args, out: change(out)),
    }[site[:-2]]()
    try:
        yield
    finally:
        handle.remove()


def places(lens: LensModel, transcript: Transcript) -> dict[str, set[int]]:
    """Positions of spans in prompt + output, found by reading the words."""
    words = lens.tokenizer.convert_ids_to_tokens([*transcript.prompt_ids, *transcript.output_ids])
    start = len(transcript.prompt_ids)
    opener, closer = words.index("<think>", start), words.index("</think>", start)
    ends = [i for i in range(opener + 1, closer) if words[i] in (".", "?", "!")]
    thought, answer = set(range(opener + 1, closer)), set(range(closer + 1, len(words) - 1))
    return {
        "last_prompt": {start - 1},
        "image": {i for i in range(start) if words[i] == "<|image_pad|>"},
        "thought": thought,
        "thought_first": {opener + 1},
        "thought_last": {closer},
        "thought[:3]": {i for i in thought if i <= opener + 3},
        "thought[2:5]": {i for i in thought if opener + 3 <= i <= opener + 5},
        "thought[-2:]": {closer - 2, closer - 1},
        "thought@0.5": {opener + 1 + int((len(thought) - 1) / 2 + 0.5)},
        "answer_first": {closer + 1},
        "answer": answer,
        "step_end[0]": {ends[0]},
        "step_end[1]": {ends[1]},
        "step_end[-1]": {ends[-1]},
        "step[1]": set(range(ends[0] + 1, ends[1] + 1)),
        "prompt": set(range(start)),
        "all": set(range(len(words) - 1)),
        "steps": set(ends),
    }


def amounts(positions: Positions, offsets: Tensor, width: int, strength: float | Tensor = 1.0) -> Tensor:
    table = torch.zeros(len(positions), width)
    for row, (at, offset) in enumerate(zip(positions, offsets.tolist(), strict=True)):
        table[row, [offset + i for i in at if offset + i < width]] = 1.0
    return table * (strength if isinstance(strength, float) else strength[:, None])


STREAMED = [
    *("last_prompt", "image", "thought", "thought_first", "thought_last", "thought[:3]", "thought[2:5]", "answer_first", "answer"),
    *("step_end[0]", "step_end[1]", "step[1]", "prompt", "all"),
]


# the same as hooks written by hand


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("operator", ["add", "ablate"])
@pytest.mark.parametrize("site", SITES)
def test_a_forward_equals_a_hook_written_by_hand(
    lens: LensModel, transcripts: list[Transcript], site: str, operator: str, side: str
) -> None:
    batch, steered = begin(lens, transcripts, side=side), vector(site)
    mask = amounts([{len(t.prompt_ids) - 1} for t in transcripts], batch.offsets, batch.inputs["input_ids"].shape[1], 0.7)
    with torch.no_grad():
        plain = lens.model(**batch.inputs).logits
        with by_hand(lens, site, steered.values[site], lambda: mask, operator):
            theirs = lens.model(**batch.inputs).logits
        with steer(lens, steered, strength=0.7, operator=operator) as steering:
            ours = lens.model(**batch.inputs).logits
    assert torch.equal(ours, theirs) if operator == "add" else torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-2)
    assert steering.fired.tolist() == [1] * len(transcripts)


@pytest.mark.parametrize("written", [0, 3])
@pytest.mark.parametrize("span", STREAMED)
def test_generation_equals_a_hook_written_by_hand(lens: LensModel, transcripts: list[Transcript], span: str, written: int) -> None:
    batch, steered = begin(lens, transcripts, written), vector("resid_post.0")
    positions = [places(lens, t)[span] for t in transcripts]
    offsets, width = batch.offsets, batch.inputs["input_ids"].shape[1]
    whole, columns = amounts(positions, offsets, 200), [slice(0, width), *(slice(n, n + 1) for n in range(width, 200))]
    forward = iter(columns)
    with by_hand(lens, "resid_post.0", steered.values["resid_post.0"], lambda: whole[:, next(forward)]):
        theirs = replay(lens, transcripts, batch, written)
    with steer(lens, steered, spans=span) as steering:
        steering.expect(batch.prompt_lengths)
        ours = replay(lens, transcripts, batch, written)
        fired = steering.fired.tolist()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert fired == [len(at) for at in positions]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("span", [*STREAMED, "thought[-2:]", "thought@0.5", "step_end[-1]"])
def test_forced_equals_a_hook_written_by_hand(lens: LensModel, transcripts: list[Transcript], span: str, side: str) -> None:
    steered, batch = vector("resid_post.1"), begin(lens, transcripts, 100, side)
    positions = [places(lens, t)[span] for t in transcripts]
    mask = amounts(positions, batch.offsets, batch.inputs["input_ids"].shape[1])
    with torch.no_grad(), by_hand(lens, "resid_post.1", steered.values["resid_post.1"], lambda: mask):
        theirs = lens.model(**batch.inputs, use_cache=False).logits
    with steer(lens, steered, spans=[span]) as steering:
        ours = forced(lens, transcripts, side=side)
        assert steering.fired_total == sum(len(at) for at in positions)
    for row, (logits, offset, transcript) in enumerate(zip(ours, batch.offsets.tolist(), transcripts, strict=True)):
        start = offset + len(transcript.prompt_ids) - 1
        assert_close(logits, theirs[row, start : start + len(transcript.output_ids)], atol=1e-5, rtol=1e-5)


def test_several_spans_and_sites_at_once(lens: LensModel, transcripts: list[Transcript]) -> None:
    batch, steered = begin(lens, transcripts), vector("resid_pre.0", "mlp_out.2")
    positions = [places(lens, t)["last_prompt"] | places(lens, t)["step_end[0]"] | places(lens, t)["thought[:3]"] for t in transcripts]
    whole, width = amounts(positions, batch.offsets, 200), batch.inputs["input_ids"].shape[1]
    columns = [slice(0, width), *(slice(n, n + 1) for n in range(width, 200))]
    one, two = iter(columns), iter(columns)
    shared = 2**0.5  # by two sites
    with by_hand(lens, "resid_pre.0", steered.values["resid_pre.0"] / shared, lambda: whole[:, next(one)]):
        with by_hand(lens, "mlp_out.2", steered.values["mlp_out.2"] / shared, lambda: whole[:, next(two)]):
            theirs = replay(lens, transcripts, batch)
    with steer(lens, steered, spans=["last_prompt", "step_end[0]", "thought[:3]"]) as steering:
        ours = replay(lens, transcripts, batch)
        assert steering.fired.tolist() == [len(at) for at in positions]  # a token counts once, whatever sites and spans it is steered for
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# promise 3: cache and batch make no difference


@pytest.mark.parametrize("gate", [None, AtSteps(), FirstTokens(4), ~FirstTokens(4)], ids=str)
def test_steered_with_a_cache_equals_steered_without(lens: LensModel, transcripts: list[Transcript], gate: Gate | None) -> None:
    with steer(lens, vector("resid_post.1"), spans=["thought", "thought_last", "answer"], gate=gate) as steering:
        cached = replay(lens, transcripts, begin(lens, transcripts))
        fired = steering.fired
        whole = forced(lens, transcripts, batch_size=len(transcripts))
        assert steering.fired.sum() == fired.sum() > 0
    for a, b in zip(cached, whole, strict=True):
        assert_close(a, b, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_what_was_generated_is_what_forced_computes(kind: str) -> None:
    lens = tiny_lens(kind)
    prompts = tiny_prompts(6, seed=5)
    opener = [list(lens.markers.open_ids)] * 6
    with steer(lens, vector("resid_post.0", "resid_post.2"), strength=0.8, spans=["last_prompt", "thought", "answer_first"]) as steering:
        written = generate(lens, prompts, max_new_tokens=14, batch_size=6, prefixes=opener, progress=False)
        fired = steering.fired_total
        again = forced(lens, written)
        assert steering.fired_total == 2 * fired
    assert fired == sum(t.fired for t in written) > 6
    for transcript, logits in zip(written, again, strict=True):
        begins = len(lens.markers.open_ids)
        logits[:, lens.frame.image_token_id] = -torch.inf  # generate never writes it
        assert logits[begins:].argmax(-1).tolist() == list(transcript.output_ids[begins:])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_equals_its_rows_alone(lens: LensModel, transcripts: list[Transcript], side: str) -> None:
    with steer(lens, vector("resid_pre.1"), spans=["last_prompt", "step_end[0]", "answer"]) as steering:
        together = forced(lens, transcripts, side=side)
        total = steering.fired_total
        for transcript, logits in zip(transcripts, together, strict=True):
            (alone,) = forced(lens, [transcript])
            assert_close(alone, logits, atol=2e-4, rtol=1e-4)
        assert steering.fired_total == 2 * total


def test_a_generated_batch_equals_its_rows_alone(lens: LensModel) -> None:
    prompts = tiny_prompts(5, images=(0, 1, 2))
    with steer(lens, vector("resid_post.1"), spans=["last_prompt", "answer[:4]"]):
        together = generate(lens, prompts, max_new_tokens=8, batch_size=5, progress=False)
        alone = [generate(lens, [prompt], max_new_tokens=8, progress=False)[0] for prompt in prompts]
    assert together == alone
    assert [t.fired for t in alone] == [1 + min(4, len(t.output_ids) - 1) for t in alone] != [1] * 5


def test_a_row_that_has_ended_is_neither_steered_nor_counted(lens: LensModel) -> None:
    prompts = tiny_prompts(4)
    with steer(lens, vector("resid_post.1"), spans=["last_prompt", "answer"]):
        free = generate(lens, prompts, max_new_tokens=10, batch_size=4, progress=False)
    end = next(token for token in free[0].output_ids[2:8] if token not in free[0].output_ids[:2])
    early = dataclasses.replace(lens, markers=dataclasses.replace(lens.markers, eos_ids=(end,)))
    with steer(early, vector("resid_post.1"), spans=["last_prompt", "answer"]) as steering:
        written = generate(early, prompts, max_new_tokens=10, batch_size=4, progress=False)
        assert steering.fired_total == sum(t.fired for t in written)
    lengths = {len(t.output_ids) for t in written}
    assert written[0].ended and len(lengths) > 1  # rows did end at different times
    for transcript, before in zip(written, free, strict=True):
        assert transcript.output_ids == before.output_ids[: len(transcript.output_ids)]
        assert transcript.fired == len(transcript.output_ids)  # last prompt token, and output but the last, which is the end or never ran


# promise 2: bits


def test_strength_zero_is_bit_exact(lens: LensModel, transcripts: list[Transcript]) -> None:
    batch = begin(lens, transcripts)
    plain = replay(lens, transcripts, batch)
    with steer(lens, vector(*SITES), strength=0.0, spans="all") as steering:
        same = replay(lens, transcripts, batch)
        assert steering.fired_total == 0
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))


@pytest.mark.parametrize("how", ["rows", "strength"])
def test_an_unsteered_row_of_a_mixed_batch_keeps_its_bits(lens: LensModel, transcripts: list[Transcript], how: str) -> None:
    batch = begin(lens, transcripts)
    on = torch.tensor([True, False, True, False, False])
    plain = replay(lens, transcripts, batch)
    with steer(lens, vector(*SITES), strength=on.float() if how == "strength" else 1.0, spans=["all"]) as steering:
        steering.rows = on if how == "rows" else None
        mixed = replay(lens, transcripts, batch)
        assert [n > 0 for n in steering.fired.tolist()] == on.tolist()
    for steered, a, b in zip(on.tolist(), plain, mixed, strict=True):
        assert torch.equal(a, b) != steered


def test_rows_of_one_batch_carry_their_own_strength(lens: LensModel, transcripts: list[Transcript]) -> None:
    strengths = [0.3, -1.0, 0.0, 2.0, 1.0]
    with steer(lens, vector("resid_post.1"), strength=strengths, spans="thought"):
        together = forced(lens, transcripts)
    for strength, transcript, logits in zip(strengths, transcripts, together, strict=True):
        with steer(lens, vector("resid_post.1"), strength=strength, spans="thought"):
            assert_close(forced(lens, [transcript])[0], logits, atol=2e-4, rtol=1e-4)


# promise 10: in place


def test_changing_the_strength_is_a_write_in_place(lens: LensModel, transcripts: list[Transcript]) -> None:
    batch = begin(lens, transcripts)
    with steer(lens, vector("resid_post.1"), strength=1.0) as steering, torch.no_grad():
        one = lens.model(**batch.inputs).logits
        held = {name: buffer for name, buffer in lens.inner.named_buffers(recurse=False) if name.startswith("thoughtlens_")}
        steering.set_strength(0.0)
        off = lens.model(**batch.inputs).logits
        steering.set_strength([0.0, 0.0, 0.0, 1.0, 1.0])
        mixed = lens.model(**batch.inputs).logits
        assert len(held) == 4 and all(getattr(lens.inner, name) is tensor for name, tensor in held.items())
        assert not any("thoughtlens" in name for name in lens.model.state_dict())
    with torch.no_grad():
        plain = lens.model(**batch.inputs).logits
    assert torch.equal(off, plain) and not torch.equal(one, plain)
    assert torch.equal(mixed[:3], plain[:3]) and torch.equal(mixed[3:], one[3:])


def test_the_strength_can_change_between_two_tokens(lens: LensModel, transcripts: list[Transcript]) -> None:
    with steer(lens, vector("resid_post.0"), spans="all", strength=0.0) as steering:
        handle = lens.inner.register_forward_pre_hook(lambda *_: steering.set_strength(1.0) if steering.forwards == 3 else None)
        try:
            changed = replay(lens, transcripts, begin(lens, transcripts))
        finally:
            handle.remove()
    plain = replay(lens, transcripts, begin(lens, transcripts))
    for a, b in zip(changed, plain, strict=True):
        assert torch.equal(a[:3], b[:3]) and not torch.equal(a[3], b[3])


def test_a_compiled_layer_sees_strength_and_switch() -> None:
    lens = tiny_lens(seed=1)
    batch, steered = begin(lens, tiny_transcripts(lens, tiny_prompts(3, images=(0,)))), vector("resid_post.1")
    with torch.no_grad():
        plain = lens.model(**batch.inputs).logits
        with steer(lens, steered, strength=1.0):
            wanted = lens.model(**batch.inputs).logits
        with steer(lens, steered, strength=0.0) as steering:
            layer = lens.layers[1]
            layer.compile(backend="eager", fullgraph=True)
            try:
                off = lens.model(**batch.inputs).logits
                steering.set_strength(1.0)
                on = lens.model(**batch.inputs).logits
            finally:
                layer._compiled_call_impl = None
                torch._dynamo.reset()
    assert_close(off, plain, atol=1e-5, rtol=1e-5)
    assert_close(on, wanted, atol=1e-5, rtol=1e-5)
    assert (on - plain).abs().max() > 0.1


# gates


def residuals(lens: LensModel, transcripts: list[Transcript], site: int) -> list[Tensor]:
    """resid_post of every token of prompt + output, unsteered, row by row."""
    found: list[Tensor] = []
    for transcript in transcripts:
        batch = begin(lens, [transcript], 100)
        handle = lens.model.model.language_model.layers[site].register_forward_hook(lambda m, a, out: found.append(out[0].detach()))
        try:
            lens.model(**batch.inputs, use_cache=False)
        finally:
            handle.remove()
    return found


def probe(
    lens: LensModel, transcripts: list[Transcript], site: int, span: str = "last_prompt", **changes: object
) -> tuple[ProbeGate, list[list[bool]]]:
    """A gate whose threshold parts what it reads at the span into halves, and for each row what it reads at each token."""
    weight = torch.randn(lens.width, generator=torch.Generator().manual_seed(4))
    scores = [h @ weight for h in residuals(lens, transcripts, site)]
    read = torch.cat([s[sorted(places(lens, t)[span])] for s, t in zip(scores, transcripts, strict=True)]).sort().values
    threshold = ((read[len(read) // 2] + read[len(read) // 2 - 1]) / 2).item()
    gate = ProbeGate(weight, 0.25, f"resid_post.{site}", threshold + 0.25, span=span, **changes)  # type: ignore[arg-type]
    return gate, [(s > threshold).tolist() for s in scores]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("invert", [False, True])
def test_a_probe_at_the_last_prompt_token_decides_for_that_token_and_all_later_ones(
    lens: LensModel, transcripts: list[Transcript], cached: bool, invert: bool
) -> None:
    gate, above = probe(lens, transcripts, 1)
    rows = [reads[len(t.prompt_ids) - 1] != invert for reads, t in zip(above, transcripts, strict=True)]
    assert 0 < sum(rows) < len(rows)
    with steer(lens, vector("resid_post.1"), spans=["last_prompt", "answer"], gate=~gate if invert else gate) as steering:
        gated = replay(lens, transcripts, begin(lens, transcripts)) if cached else forced(lens, transcripts)
        total = steering.fired_total
    with steer(lens, vector("resid_post.1"), spans=["last_prompt", "answer"], strength=[float(on) for on in rows]) as steering:
        asked = replay(lens, transcripts, begin(lens, transcripts)) if cached else forced(lens, transcripts)
        assert steering.fired_total == total
    assert all(torch.equal(a, b) for a, b in zip(gated, asked, strict=True))


def test_a_probe_after_the_steered_site_decides_for_later_tokens_only(lens: LensModel, transcripts: list[Transcript]) -> None:
    gate, above = probe(lens, transcripts, 2)
    rows = [float(reads[len(t.prompt_ids) - 1]) for reads, t in zip(above, transcripts, strict=True)]
    batch = begin(lens, transcripts)
    with steer(lens, vector("resid_post.1"), spans=["last_prompt", "thought"], gate=gate):
        gated = replay(lens, transcripts, batch)
    with steer(lens, vector("resid_post.1"), spans=["thought"], strength=rows):
        asked = replay(lens, transcripts, batch)
    assert all(torch.equal(a, b) for a, b in zip(gated, asked, strict=True))


@pytest.mark.parametrize("latched", [True, False])
def test_a_probe_inside_the_thought_latches_or_follows(lens: LensModel, transcripts: list[Transcript], latched: bool) -> None:
    """The gate reads at layer 0, which is not steered, so what it reads is what the plain model has there."""
    gate, above = probe(lens, transcripts, 0, "thought", latched=latched)
    positions = []
    for transcript, reads in zip(transcripts, above, strict=True):
        there, opened, at = places(lens, transcript), False, set()
        for i in range(len(reads)):
            if i in there["thought"]:
                opened = reads[i] or (opened and latched)
            if opened and i in there["thought"] | there["answer"]:
                at.add(i)
        positions.append(at)
    assert 0 < sum(map(len, positions)) < sum(len(places(lens, t)["thought"] | places(lens, t)["answer"]) for t in transcripts)
    batch = begin(lens, transcripts, 100)
    mask = amounts(positions, batch.offsets, batch.inputs["input_ids"].shape[1])
    steered = vector("resid_post.1")
    with torch.no_grad(), by_hand(lens, "resid_post.1", steered.values["resid_post.1"], lambda: mask):
        theirs = lens.model(**batch.inputs, use_cache=False).logits
    with steer(lens, steered, spans=["thought", "answer"], gate=gate) as steering:
        ours = forced(lens, transcripts, batch_size=len(transcripts))
        whole = steering.fired_total
        cached = replay(lens, transcripts, begin(lens, transcripts))
        assert [whole, steering.fired.tolist()] == [sum(map(len, positions)), [len(at) for at in positions]]
    for row, (a, b, transcript) in enumerate(zip(ours, cached, transcripts, strict=True)):
        start = int(batch.offsets[row]) + len(transcript.prompt_ids) - 1
        assert_close(a, theirs[row, start : start + len(transcript.output_ids)], atol=1e-5, rtol=1e-5)
        assert_close(b, a, atol=2e-4, rtol=1e-4)


def test_gates_combine(lens: LensModel, transcripts: list[Transcript]) -> None:
    gate, above = probe(lens, transcripts, 0)
    with steer(lens, vector("resid_post.1"), spans="thought", gate=(gate & AtSteps()) | ~FirstTokens(6)) as steering:
        replay(lens, transcripts, begin(lens, transcripts))
        fired = steering.fired.tolist()
    for transcript, reads, count in zip(transcripts, above, fired, strict=True):
        there, start = places(lens, transcript), len(transcript.prompt_ids)
        late = {i for i in there["thought"] if i - start >= 6}
        assert count == len(late | (there["steps"] if reads[start - 1] else set()))


def test_a_late_gate_cannot_decide_inside_one_forward(lens: LensModel, transcripts: list[Transcript]) -> None:
    gate, _ = probe(lens, transcripts, 2)
    with pytest.raises(ValueError, match=r"reads at resid_post\.2, after resid_post\.1 is steered.*or before"):
        with steer(lens, vector("resid_post.1"), spans="thought", gate=gate):
            forced(lens, transcripts)


# promise 1: nothing left behind


def belongings(lens: LensModel) -> list[tuple[str, list[int], list[int], list[str]]]:
    return [(name, list(m._forward_hooks), list(m._forward_pre_hooks), list(m._buffers)) for name, m in lens.model.named_modules()]


@pytest.mark.parametrize("fault", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["layer", "body"])
def test_nothing_is_left_behind(lens: LensModel, transcripts: list[Transcript], fault: type[BaseException] | None, where: str) -> None:
    seen: list[nn.Module] = []

    def callers(module: nn.Module, *_: object) -> None:
        seen.append(module)
        if fault is not None and where == "layer" and len(seen) == 3:
            raise fault("in the middle of a forward")

    gate, _ = probe(lens, transcripts, 1)
    handle = lens.layers[2].register_forward_hook(callers)
    before = belongings(lens)

    def steered() -> None:
        with steer(lens, vector(*SITES), spans=["all", "thought"], gate=gate | FirstTokens(1)):
            assert belongings(lens) != before and lens.steering is not None
            generate(lens, [t.prompt for t in transcripts], max_new_tokens=4, progress=False)
            if fault is not None:
                raise fault("in the body")

    try:
        if fault is None:
            steered()
        else:
            with pytest.raises(fault):
                steered()
        assert belongings(lens) == before
        assert not any("thoughtlens" in name for name, _ in lens.model.named_buffers())
        assert lens.steering is None
        assert len(seen) > 2
        seen.clear()
        plain = replay(lens, transcripts, begin(lens, transcripts)) if fault is None else None
        assert plain is None or seen
    finally:
        handle.remove()


def test_a_steering_that_cannot_begin_leaves_nothing(lens: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    before = belongings(lens)
    monkeypatch.setattr(sys.modules[Programs.__module__], "attach", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        with steer(lens, vector("resid_post.1")):
            pass
    assert belongings(lens) == before and lens.steering is None


def test_a_second_steering_is_refused_and_the_first_stays(lens: LensModel, transcripts: list[Transcript]) -> None:
    batch = begin(lens, transcripts)
    with steer(lens, vector("resid_post.1")) as steering, torch.no_grad():
        before = lens.model(**batch.inputs).logits
        with pytest.raises(RuntimeError, match="steered already, with test add 1 at resid_post.1"):
            with steer(lens, vector("resid_post.2")):
                pass
        assert lens.steering is steering
        assert torch.equal(lens.model(**batch.inputs).logits, before)


# promise 4: nothing silent


def test_zero_fires_is_an_error_that_names_the_way_out(lens: LensModel, transcripts: list[Transcript]) -> None:
    says = r"no hidden state was steered in 5 rows: the spans thought.*gate steps.*5 outputs.*0 wrote a marker.*last_prompt"
    with pytest.raises(ValueError, match=says):
        with steer(lens, vector("resid_post.1"), spans="thought", gate=AtSteps()):
            with torch.no_grad():
                lens.model(**begin(lens, transcripts).inputs)


def test_zero_fires_behind_a_probe_is_a_warning(lens: LensModel, transcripts: list[Transcript], caplog: pytest.LogCaptureFixture) -> None:
    gate = ProbeGate(torch.ones(lens.width), 0.0, "resid_post.0", 1e9)
    with caplog.at_level(logging.WARNING), steer(lens, vector("resid_post.1"), gate=gate):
        forced(lens, transcripts)
    assert "may have stayed closed" in caplog.text


def test_no_error_where_nothing_was_to_fire(lens: LensModel, transcripts: list[Transcript]) -> None:
    with steer(lens, vector("resid_post.1"), spans="thought"):
        pass  # no forward
    with steer(lens, vector("resid_post.1"), spans="thought", strength=0.0), torch.no_grad():
        lens.model(**begin(lens, transcripts).inputs)
    with pytest.raises(KeyError, match="mine"):  # an exception on its way is not covered up
        with steer(lens, vector("resid_post.1"), spans="thought"), torch.no_grad():
            lens.model(**begin(lens, transcripts).inputs)
            raise KeyError("mine")


def test_a_hook_that_never_ran_is_an_error(lens: LensModel, transcripts: list[Transcript], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"nothing was steered at mlp_out\.1: .*the hook there never ran"):
        with steer(lens, vector("resid_post.1", "mlp_out.1")), torch.no_grad():
            monkeypatch.setattr(lens.layers[1].mlp, "_forward_hooks", {})
            lens.model(**begin(lens, transcripts).inputs)


def test_the_report_says_what_was_done(lens: LensModel, transcripts: list[Transcript]) -> None:
    with steer(lens, vector("resid_post.1"), spans=["last_prompt", "thought"], gate=FirstTokens(3)) as steering:
        forced(lens, transcripts, batch_size=2)
        report = steering.report()
    assert report["rows"] == report["rows_fired"] == 5 and report["forwards"] == 3
    assert report["fired"] == sum(1 + len([i for i in places(lens, t)["thought"] if i < len(t.prompt_ids) + 3]) for t in transcripts)
    assert report["edits"][0]["gate"] == "first_tokens(3)" and report["edits"][0]["sites"] == ["resid_post.1"]


def test_the_report_tells_every_strength_that_was_used(lens: LensModel, transcripts: list[Transcript]) -> None:
    with steer(lens, vector("resid_post.1"), strength=0.5) as steering:
        for strength in (None, 2.0, 0.0):
            if strength is not None:
                steering.set_strength(strength)
            forced(lens, transcripts)
    assert steering.report()["edits"][0]["strengths"] == [0.5, 2.0, 0.0] and steering.report()["edits"][0]["strength"] == 0.0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"vector": vector("resid_post.1", width=16)}, "width 16, tiny-words-0 has 32"),
        ({"vector": vector("resid_post.3")}, "layers 0 to 2"),
        ({"vector": vector("head_out.1")}, "act at resid_pre, attn_out, cross_attn_out, mlp_out, resid_post"),
        ({"spans": "thougt"}, "unknown span 'thougt'"),
        ({"spans": []}, "at least one"),
        ({"operator": "bend"}, "known are add, ablate"),
        ({"operator": "rotate"}, "does not know the class means"),
        ({"unit": "percent"}, "differences of the two classes"),
        ({"unit": "local", "operator": "ablate"}, 'counts in "measured"'),
        ({"strength": float("nan")}, "finite"),
        ({"strength": [[1.0]]}, "one per row"),
        ({"gate": ProbeGate(torch.ones(16), 0.0, "resid_post.1", 0.0)}, "weight of width 16"),
        ({"gate": ProbeGate(torch.ones(32), 0.0, "resid_post.7", 0.0)}, "layers 0 to 2"),
        ({"gate": ProbeGate(torch.ones(32), 0.0, "resid_post.1", 0.0, span="thought[-3:]")}, "only known once the output is whole"),
    ],
)
def test_what_cannot_be_steered_is_refused(lens: LensModel, asked: dict[str, object], says: str) -> None:
    before = belongings(lens)
    with pytest.raises(ValueError, match=says):
        steer(lens, asked.pop("vector", vector("resid_post.1")), **asked)  # type: ignore[arg-type]
    assert belongings(lens) == before


def test_strengths_for_other_rows_are_refused(lens: LensModel, transcripts: list[Transcript]) -> None:
    with steer(lens, vector("resid_post.1"), strength=[1.0, 2.0]):
        for run in (lambda: forced(lens, transcripts), lambda: lens.model(**begin(lens, transcripts).inputs)):
            with pytest.raises(ValueError, match="2 strengths for 5 rows"):
                run()
