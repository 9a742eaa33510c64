"""Gates of probes at several layers: what was steered is what is recorded, whichever of the layers are compiled."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch._dynamo
from replay import begin
from thoughtlens.hooks.gates import Gate, ProbeGate
from thoughtlens.hooks.generate import generate
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.records import Transcript
from thoughtlens.hooks.steer import Edit, Vector, steer
from tiny import tiny_lens, tiny_prompts, tiny_transcripts
from torch.testing import assert_close

ALWAYS_OPEN, NEVER_OPEN = 100.0, -100.0


@pytest.fixture
def lens() -> LensModel:
    return tiny_lens()


def vector(site: str, seed: int = 0) -> Vector:
    value = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    return Vector({site: 6 * value / value.norm()}, span="answer", source="test")


def gate(site: str, bias: float, span: str = "all", *, latched: bool = False) -> ProbeGate:
    weight = torch.randn(32, generator=torch.Generator().manual_seed(3))
    return ProbeGate(weight / weight.norm(), bias, site, 0.0, latched=latched, span=span)


def written(lens: LensModel, edits: Sequence[Edit], **how: object) -> list[Transcript]:
    with steer(lens, edits, **how):  # type: ignore[call-overload]
        return generate(lens, tiny_prompts(3, images=(0,)), max_new_tokens=6, progress=False, condition="c")


def test_a_gate_that_reads_between_two_steered_layers_leaves_the_record_whole(lens: LensModel) -> None:
    """The first edit acts at layer 0, its gate reads at layer 2; another gate reads and decides in between."""
    late = Edit(vector("resid_post.0"), gate=gate("resid_post.2", ALWAYS_OPEN))
    between = Edit(vector("resid_post.2", seed=1), gate=gate("resid_post.1", ALWAYS_OPEN))
    alone, together = written(lens, [late]), written(lens, [late, between], rows=[1, 1, 1])
    assert together == alone and all(t.fired for t in alone)
    both = written(lens, [late, between])
    assert [t.fired for t in both] == [len(t.output_ids) - 1 for t in both]  # `between` alone acts on the first token too


@pytest.mark.parametrize("second", [ALWAYS_OPEN, NEVER_OPEN])
def test_a_combined_gate_is_recorded_at_every_layer(lens: LensModel, second: float) -> None:
    early: Gate = gate("resid_post.1", ALWAYS_OPEN, "last_prompt", latched=True)
    either = early | gate("resid_post.2", second, "answer", latched=True)
    found = written(lens, [Edit(vector("resid_post.0"), gate=either)])
    assert found == written(lens, [Edit(vector("resid_post.0"), gate=early)]) and all(t.fired for t in found)


@pytest.mark.parametrize("compiled", [(0,), (1,), (0, 1)])
def test_layers_may_be_compiled_one_by_one(lens: LensModel, compiled: tuple[int, ...]) -> None:
    """The layer where the probe reads, the one that is steered, or both."""
    batch = begin(lens, tiny_transcripts(lens, tiny_prompts(3, images=(0,))))
    with torch.no_grad():
        plain = lens.model(**batch.inputs).logits
        with steer(lens, vector("resid_post.1"), spans="last_prompt", gate=gate("resid_post.0", ALWAYS_OPEN, "last_prompt")) as steering:
            wanted, fired = lens.model(**batch.inputs).logits, steering.fired.tolist()
            try:
                for layer in compiled:
                    lens.layers[layer].compile(backend="eager")
                found = lens.model(**batch.inputs).logits
                assert steering.fired.tolist() == fired == [1, 1, 1]
            finally:
                for layer in compiled:
                    lens.layers[layer]._compiled_call_impl = None
                torch._dynamo.reset()
    assert (wanted - plain).abs().max() > 0.5
    assert_close(found, wanted, atol=1e-4, rtol=1e-4)
