"""The promises of steering on the shipped reasoning model and on tiny models of other families: bits, caches, batches, nothing left, nothing
silent, and changes in place."""

from __future__ import annotations

import functools

import pytest
import torch
from replay import begin, replay
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments.benchmarks import prompts as load_prompts
from thoughtlens.hooks.attach import hidden_of, module_at
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.gates import ProbeGate
from thoughtlens.hooks.generate import forced, generate
from thoughtlens.hooks.model import LensModel, load
from thoughtlens.hooks.records import Prompt, Transcript
from thoughtlens.hooks.sites import Site
from thoughtlens.hooks.steer import Edit, Vector, monitor, steer
from tiny import LOADED, tiny_transcripts
from torch.testing import assert_close
from zoo import zoo_lens, zoo_prompts

FAMILIES = ("the trio", "qwen3_vl", "llava", "mllama", "gemma3", "qwen3_5")
OPERATORS = ("add", "ablate", "affine", "rotate")


@functools.cache
def shipped() -> LensModel:
    LOADED.append(load(CHECKPOINTS / "reasoning", device="cpu"))
    return LOADED[-1]


@pytest.fixture(params=FAMILIES)
def lens(request: pytest.FixtureRequest) -> LensModel:
    return shipped() if request.param == "the trio" else zoo_lens(request.param)


def prompts_for(lens: LensModel) -> list[Prompt]:
    if lens is shipped():
        return load_prompts("organism", split="dev", limit=3)[:5]
    prompts = zoo_prompts(lens.name.removeprefix("tiny-"), 8, seed=3)
    return prompts[:4] if lens.family.mixes else [prompt for prompt in prompts if prompt.images][:4]


@pytest.fixture
def transcripts(lens: LensModel) -> list[Transcript]:
    """With a thought of several steps and an answer: the trio's own, random ones of the others."""
    if lens is shipped():
        return generate(lens, prompts_for(lens), max_new_tokens=110, batch_size=8, progress=False)
    return tiny_transcripts(lens, prompts_for(lens), statuses=("closed",), seed=2)


def vector(lens: LensModel, *names: str, share: float = 0.5, span: str = "thought") -> Vector:
    """Half as long as hidden states are there, at layers 1 and 2."""
    chance = torch.Generator().manual_seed(1)
    batch = encode(lens, prompts_for(lens)[:1])
    values, means = {}, {}
    for site in lens.expand([Site(name, layer) for name in names or ("resid_post",) for layer in (1, 2)]):
        seen: list[torch.Tensor] = []
        handle = module_at(lens, site).register_forward_hook(lambda m, a, out, seen=seen: seen.append(hidden_of(out)))
        with torch.no_grad():
            lens.model(**batch.inputs)
        handle.remove()
        mean = seen[0].float().mean((0, 1))
        values[str(site)] = torch.nn.functional.normalize(torch.randn(lens.width, generator=chance), dim=0) * mean.norm() * share
        means[str(site)] = torch.stack([mean, mean + values[str(site)]])
    return Vector(values, span=span, source="test", means=means)


@pytest.mark.parametrize("operator", OPERATORS)
def test_strength_zero_and_rows_without_an_edit_are_bit_exact(lens: LensModel, transcripts: list[Transcript], operator: str) -> None:
    batch, n = begin(lens, transcripts), len(transcripts)
    v, on = vector(lens), torch.arange(len(transcripts)) % 2 == 0
    plain = replay(lens, transcripts, batch)
    with steer(lens, v, operator=operator, strength=0.0):
        off = replay(lens, transcripts, batch)
    with steer(lens, [Edit(v, operator=operator), Edit(v, operator="add")], rows=on.int()) as steering:
        mixed = replay(lens, transcripts, batch)
        assert [count > 0 for count in steering.fired.tolist()] == on.tolist()
    for row in range(n):
        assert torch.equal(off[row], plain[row])
        assert torch.equal(mixed[row], plain[row]) != bool(on[row])


@pytest.mark.parametrize("operator", OPERATORS)
def test_with_a_cache_and_without_alone_and_in_a_batch(lens: LensModel, transcripts: list[Transcript], operator: str) -> None:
    scale = float(forced(lens, transcripts)[0].abs().max())
    with steer(lens, vector(lens), operator=operator, spans=["last_prompt", "thought", "thought_last"]) as steering:
        cached = replay(lens, transcripts, begin(lens, transcripts))
        fired = steering.fired.tolist()
        whole, right = forced(lens, transcripts), forced(lens, transcripts, side="right")
        alone = [forced(lens, [transcript])[0] for transcript in transcripts]
        assert steering.fired_total == 4 * sum(fired) > 0
    plain = forced(lens, transcripts)
    loose = 1e-3 if lens.name == "tiny-qwen3_5" else 1e-4  # its delta rule amplifies rounding
    for a, b, c, d, unsteered in zip(cached, whole, right, alone, plain, strict=True):
        assert (b - unsteered).abs().max() > 1e-2 * scale
        for one in (a, c, d):
            assert_close(one, b, atol=loose * scale, rtol=1e-3)


def test_nothing_is_left_and_the_callers_hooks_stay(lens: LensModel, transcripts: list[Transcript]) -> None:
    def belongings() -> list[tuple[str, list[int], list[int], list[str], bool]]:
        return [
            (name, list(m._forward_hooks), list(m._forward_pre_hooks), list(m._buffers), "reorder_cache" in vars(m))
            for name, m in lens.model.named_modules()
        ]

    seen: list[int] = []
    handle = lens.layers[1].register_forward_hook(lambda *_: seen.append(1))
    try:
        lens.model(**encode(lens, prompts_for(lens)[:1]).inputs)  # transformers' own recorders are installed now
        before = belongings()
        for fault in (None, RuntimeError, KeyboardInterrupt):
            try:
                with steer(lens, vector(lens, "resid_pre", "mlp_out"), spans="all"):
                    assert belongings() != before
                    generate(lens, prompts_for(lens), max_new_tokens=3, progress=False)
                    if fault is not None:
                        raise fault
            except (RuntimeError, KeyboardInterrupt) as error:
                assert type(error) is fault
            assert belongings() == before and lens.steering is None
        assert seen
    finally:
        handle.remove()


def test_the_strength_is_changed_in_place(lens: LensModel, transcripts: list[Transcript]) -> None:
    batch, v = begin(lens, transcripts), vector(lens, span="all")
    with steer(lens, v, strength=1.0):
        full = replay(lens, transcripts, batch)
    plain = replay(lens, transcripts, batch)
    with steer(lens, v, strength=0.0) as steering:
        before = {name: value.data_ptr() for name, value in lens.inner.named_buffers() if "thoughtlens" in name}
        off = replay(lens, transcripts, batch)
        held = {name: value.data_ptr() for name, value in lens.inner.named_buffers() if "thoughtlens" in name}
        steering.set_strength(1.0)
        on = replay(lens, transcripts, batch)
        after = {name: value.data_ptr() for name, value in lens.inner.named_buffers() if "thoughtlens" in name}
    assert held == after and before.keys() == held.keys()
    for a, b, c, d in zip(off, plain, on, full, strict=True):
        assert torch.equal(a, b) and torch.equal(c, d) and not torch.equal(a, c)


def test_zero_fires_is_an_error(lens: LensModel) -> None:
    with pytest.raises(ValueError, match="no hidden state was steered in .* the spans step_end.99."):
        with steer(lens, vector(lens), spans="step_end[99]"):
            generate(lens, prompts_for(lens), max_new_tokens=3, progress=False)


# layers that look at pictures: a row without one does not run them


def test_a_layer_that_a_prompt_skips_is_refused_before_the_first_token() -> None:
    lens, prompts = zoo_lens("mllama"), zoo_prompts("mllama", 4)
    layer = next(number for number, block in enumerate(lens.blocks) if block.site == "cross_attn_out")
    site, without = f"resid_post.{layer}", [prompt for prompt in prompts if not prompt.images]
    probe = ProbeGate(torch.ones(lens.width), 0.0, site, -1e9)
    gated = Vector({f"resid_post.{layer + 1}": torch.ones(lens.width)}, span="answer", source="test")
    batch = encode(lens, without)
    for begin_block in (
        lambda: steer(lens, Vector({site: torch.ones(lens.width)}, span="all", source="test")),
        lambda: steer(lens, gated, gate=probe),
        lambda: monitor(lens, {"x": probe}),
    ):
        for chosen in (without, prompts[:4]):  # none has a picture; some have
            with pytest.raises(ValueError, match=f"'{site}' never ran: .* skips its cross-attention layers"), begin_block():
                generate(lens, chosen, max_new_tokens=2, progress=False)
        with pytest.raises(ValueError, match="skips its cross-attention layers"), begin_block(), torch.no_grad():
            lens.model(**batch.inputs)
        with begin_block() as steering:
            generate(lens, [prompt for prompt in prompts if prompt.images], max_new_tokens=2, progress=False)
        assert steering.forwards
