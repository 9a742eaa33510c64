"""On a GPU, what holds on the CPU: what is read is what plain hooks read there, and steering keeps its promises. Skipped where there is none.

Models: a tiny one of every family, and the shipped base. In bfloat16 two ways of computing the same may round differently: they are compared
to HALF of the largest number; float32 as on the CPU, a little wider for other kernels.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from replay import begin, replay
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.hooks.capture import capture, encode_transcripts
from thoughtlens.hooks.encode import encode
from thoughtlens.hooks.gates import AtSteps, FirstTokens, Gate, ProbeGate
from thoughtlens.hooks.generate import forced, generate
from thoughtlens.hooks.model import LensModel, load
from thoughtlens.hooks.reading import read, reader
from thoughtlens.hooks.records import Transcript
from thoughtlens.hooks.select import Select
from thoughtlens.hooks.steer import Vector, monitor, steer
from tiny import LOADED, tiny_folder, tiny_prompts, tiny_transcripts
from torch import Tensor
from torch.testing import assert_close
from transformers import CompileConfig
from zoo import FAMILIES_TINY, zoo_folder, zoo_prompts

PLACE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

HALF = 5e-2
STATUSES = ("closed", "unclosed", "absent", "multiple")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@functools.cache
def there(name: str, dtype: str = "float32") -> LensModel:
    """The shipped base, "tiny", or a tiny model of a family, on the GPU; one for the session."""
    folder = CHECKPOINTS / "base" if name == "base" else tiny_folder() if name == "tiny" else zoo_folder(name)
    LOADED.append(load(folder, device=PLACE, dtype=DTYPES[dtype]))
    return LOADED[-1]


@functools.cache
def here(name: str) -> LensModel:
    folder = tiny_folder() if name == "tiny" else zoo_folder(name)
    LOADED.append(load(folder, device="cpu"))
    return LOADED[-1]


def rows(lens: LensModel, n: int = 5) -> list[Transcript]:
    """Of different lengths, some with pictures; every one thinks in two steps, closes the thought, answers and ends."""
    return tiny_transcripts(lens, tiny_prompts(n, images=(0, 1, 0, 2, 0), seed=1), statuses=("closed",), seed=1)


def vector(lens: LensModel, *sites: str, span: str = "all", length: float = 3.0) -> Vector:
    chance = torch.Generator().manual_seed(0)
    values = {site: torch.randn(lens.width, generator=chance) for site in sites or ("resid_post.1",)}
    return Vector({site: length * value / value.norm() for site, value in values.items()}, span=span, source="test")


def close(one: Tensor, other: Tensor, lens: LensModel) -> None:
    """Equal up to what another order of the same sums may change."""
    scale = float(other.float().abs().max())
    assert_close(one.float(), other.float(), atol=(HALF if lens.dtype == torch.bfloat16 else 1e-4) * scale, rtol=0)


def clean(lens: LensModel) -> bool:
    hooks = [hook for module in lens.model.modules() for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())]
    buffers = [name for name, _ in lens.model.named_buffers() if "thoughtlens" in name]
    return lens.steering is None and not buffers and all(str(getattr(h, "__module__", "")).startswith("transformers.") for h in hooks)


# reading


@contextmanager
def by_hand(lens: LensModel) -> Iterator[list[Tensor]]:
    """What comes out of every layer, with register_forward_hook and no code of ours."""
    found: list[Tensor] = []
    handles = [layer.register_forward_hook(lambda m, a, out: found.append(out.clone())) for layer in lens.layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*FAMILIES_TINY, "base"])
def test_what_is_read_is_what_plain_hooks_read(name: str, dtype: str) -> None:
    lens = there(name, dtype)
    batch = encode(lens, tiny_prompts(4, images=(1,)) if name in ("base", "mllama") else zoo_prompts(name, 4))
    sites = lens.expand("resid_post")
    at = batch.inputs["attention_mask"].flatten().nonzero().flatten().cpu()
    ours = read(lens, batch, sites, at, torch.ones(len(at), dtype=torch.int64), "every")
    with by_hand(lens) as found, torch.no_grad():
        lens.inner(**batch.inputs, use_cache=False)
    theirs = torch.stack([state.flatten(0, 1).float().cpu()[at] for state in found], 1)
    assert torch.equal(ours, theirs) and not torch.equal(ours[:, 0], ours[:, 1]) and clean(lens)


@pytest.mark.parametrize("pool", ["mean", "max", "first", "last"])
def test_spans_are_pooled_on_the_gpu_as_on_the_cpu(pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # on by default: pictures are cut by a convolution
    mine, theirs = there("tiny"), here("tiny")
    transcripts = tiny_transcripts(theirs, tiny_prompts(7, images=(0, 1, 2)), statuses=STATUSES)
    where = Select(["resid_post", "attn_out.1", "mlp_out.1"], ["last_prompt", "thought", "image", "answer_first", "thought@0.5"], pool)
    found = [
        capture(lens, transcripts, where, into=tmp_path / lens.device.type, batch_size=3, progress=False).rows() for lens in (mine, theirs)
    ]
    keys = ["prompt_id", "span", "start", "stop", "n_tokens", "ids_sha"]
    assert found[0][1][keys].equals(found[1][1][keys])
    assert_close(found[0][0], found[1][0], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "every"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_under_way_bring_their_own_batch(dtype: str, pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many forwards are started before the first copy is waited for; each pinned buffer holds what its own forward read."""
    lens = there("tiny", dtype)
    monkeypatch.setattr(sys.modules["thoughtlens.hooks.reading"], "HELD_BYTES", 2048)  # several copies in a forward
    sites, batches = lens.expand("resid_post"), [encode(lens, tiny_prompts(6, seed=seed)) for seed in range(12)]
    runs = []
    for batch in batches:
        at = batch.inputs["attention_mask"].flatten().nonzero().flatten().cpu()
        counts = batch.lengths if pool == "mean" else torch.ones(len(at), dtype=torch.int64)
        runs.append((at, counts, torch.full((len(counts), len(sites), lens.width), torch.nan)))
    with reader(lens, sites) as one:
        busy = torch.randn(4096, 4096, device=lens.device)
        for _ in range(20):
            busy = busy @ busy / busy.norm()  # the device lags behind
        landings = [one.start(batch, at, counts, pool, out) for batch, (at, counts, out) in zip(batches, runs, strict=True)]
        together = [landing.wait() for landing in landings]
    alone = [read(lens, batch, sites, at, counts, pool) for batch, (at, counts, _) in zip(batches, runs, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert len({float(found.sum()) for found in together}) == len(batches)


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The device itself says that it is out of memory."""
    lens, sizes = there("tiny"), list[int]()
    transcripts, where = tiny_transcripts(lens, tiny_prompts(9), statuses=STATUSES), Select("resid_post", ["last_prompt", "answer"])

    def greedy(_: Any, args: Any) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 3:
            torch.empty(2**42, dtype=torch.uint8, device=lens.device)

    handle = lens.layers[1].register_forward_pre_hook(greedy)
    try:
        halved = capture(lens, transcripts, where, into=tmp_path / "halved", batch_size=8, progress=False)
    finally:
        handle.remove()
    assert sizes[:3] == [8, 4, 2] and max(sizes[3:]) <= 3 and "ran out of memory" in caplog.text
    plain = capture(lens, transcripts, where, into=tmp_path / "plain", batch_size=8, progress=False)
    assert halved.index.drop(columns="shard_sha").equals(plain.index.drop(columns="shard_sha"))
    assert_close(halved.rows()[0], plain.rows()[0], atol=1e-4, rtol=1e-4)


def test_what_is_kept_while_generating_is_what_capture_reads(tmp_path: Path) -> None:
    lens, where = there("tiny"), Select("resid_post", ["last_prompt", "answer"], "mean")
    transcripts = generate(lens, tiny_prompts(5), max_new_tokens=8, where=where, into=tmp_path / "kept", progress=False)
    again = capture(lens, transcripts, where, into=tmp_path / "again", progress=False)
    kept = (tmp_path / "kept" / "index.parquet").exists()
    assert kept
    one, other = (sorted_rows(tmp_path / name) for name in ("kept", "again"))
    assert len(again.index) == len(one) > 5
    assert_close(one, other, atol=5e-4, rtol=1e-3)


def sorted_rows(folder: Path) -> Tensor:
    from thoughtlens.hooks.store import open_store

    vectors, index = open_store(folder).rows()
    order = index.reset_index(drop=True).sort_values(["prompt_id", "span"]).index.to_numpy()
    return vectors[torch.from_numpy(order.copy())]


# steering


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*FAMILIES_TINY, "base"])
def test_steering_equals_a_hook_written_by_hand_and_leaves_nothing(name: str, dtype: str) -> None:
    lens = there(name, dtype)
    batch = encode(lens, tiny_prompts(4, images=(1,)) if name in ("base", "mllama") else zoo_prompts(name, 4))
    steered = vector(lens, length=10.0)
    value = steered.values["resid_post.1"].to(lens.device)

    def logits() -> Tensor:
        with torch.no_grad():
            found: Tensor = lens.model(**batch.inputs, use_cache=False).logits
        return found

    plain = logits()
    handle = lens.layers[1].register_forward_hook(lambda m, a, out: (out.float() + value).to(out.dtype))
    try:
        theirs = logits()
    finally:
        handle.remove()
    with steer(lens, steered) as steering:
        ours = logits()
        assert steering.fired.tolist() == batch.lengths.tolist()
    real = batch.inputs["attention_mask"].bool()
    assert_close(ours[real], theirs[real], atol=2e-2 if dtype == "bfloat16" else 1e-5, rtol=2e-2 if dtype == "bfloat16" else 1e-5)
    assert (ours - plain)[real].abs().max() > 0.05 * plain[real].abs().max()
    assert torch.equal(logits(), plain) and clean(lens)
    with pytest.raises(KeyboardInterrupt), steer(lens, steered):
        logits()
        raise KeyboardInterrupt
    assert torch.equal(logits(), plain) and clean(lens)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strength_zero_and_unsteered_rows_keep_their_bits(dtype: str) -> None:
    lens = there("tiny", dtype)
    transcripts = rows(lens)
    batch, edits = begin(lens, transcripts), vector(lens, "resid_pre.1", "attn_out.1", "mlp_out.1", "resid_post.1")
    plain, on = replay(lens, transcripts, batch), torch.tensor([True, False, True, False, False])
    with steer(lens, edits, strength=0.0) as steering:
        same = replay(lens, transcripts, batch)
        assert steering.fired_total == 0
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    with steer(lens, edits) as steering:
        steering.rows = on
        mixed = replay(lens, transcripts, batch)
        assert [n > 0 for n in steering.fired.tolist()] == on.tolist()
    for steered, a, b in zip(on.tolist(), plain, mixed, strict=True):
        assert torch.equal(a, b) != steered


def inside(lens: LensModel, gate: Gate | None) -> Any:
    return steer(lens, vector(lens, "resid_post.1"), spans=["thought", "thought_last", "answer"], gate=gate)


def of_a_probe(lens: LensModel) -> ProbeGate:
    weight = torch.randn(lens.width, generator=torch.Generator().manual_seed(9))
    return ProbeGate(weight, 0.0, "resid_post.0", 0.0, latched=False, span="all")


GATES: dict[str, Callable[[LensModel], Gate | None]] = {
    "always": lambda lens: None,
    "at steps": lambda lens: AtSteps(),
    "first tokens": lambda lens: FirstTokens(4),
    "behind a probe": of_a_probe,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gate", GATES)
def test_steered_with_a_cache_equals_steered_without(gate: str, dtype: str) -> None:
    lens = there("tiny", dtype)
    transcripts = rows(lens)
    with inside(lens, GATES[gate](lens)) as steering:
        cached, fired = replay(lens, transcripts, begin(lens, transcripts)), steering.fired
        whole = forced(lens, transcripts, batch_size=len(transcripts))
        if dtype == "float32" or gate != "behind a probe":  # a score near the threshold may round to its other side
            assert steering.fired.sum() == fired.sum() > 0
    plain = forced(lens, transcripts, batch_size=len(transcripts))
    if dtype == "float32" or gate != "behind a probe":
        for a, b in zip(cached, whole, strict=True):
            close(a, b, lens)
    assert max(float((a - b).abs().max()) for a, b in zip(whole, plain, strict=True)) > 0.5


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_equals_its_rows_alone(dtype: str, side: Any) -> None:
    lens = there("tiny", dtype)
    transcripts = rows(lens)
    with steer(lens, vector(lens, "resid_pre.1"), spans=["last_prompt", "step_end[0]", "answer"]) as steering:
        together, total = forced(lens, transcripts, side=side), steering.fired_total
        for transcript, logits in zip(transcripts, together, strict=True):
            close(forced(lens, [transcript])[0], logits, lens)
        assert steering.fired_total == 2 * total > 0


def test_a_vector_and_a_strength_per_row() -> None:
    lens = there("tiny")
    transcripts, strengths = rows(lens), [0.3, -1.0, 0.0, 2.0, 1.0]
    with steer(lens, vector(lens), strength=strengths, spans="thought"):
        together = forced(lens, transcripts)
    for strength, transcript, logits in zip(strengths, transcripts, together, strict=True):
        with steer(lens, vector(lens), strength=strength, spans="thought"):
            close(forced(lens, [transcript])[0], logits, lens)


def test_what_never_fires_is_an_error() -> None:
    lens = there("tiny")
    with pytest.raises(ValueError, match="no hidden state was steered"), steer(lens, vector(lens), spans="thought"):
        generate(lens, tiny_prompts(3), max_new_tokens=2, progress=False)
    assert clean(lens)


def test_probes_read_on_the_gpu_what_they_read_on_the_cpu() -> None:
    probe, found = of_a_probe(here("tiny")), []
    transcripts = rows(here("tiny"))
    for lens in (there("tiny"), here("tiny")):
        with monitor(lens, {"one": probe}) as steering:
            forced(lens, transcripts)
            found.append([torch.tensor(record.scores) for record in steering.record()])
    for mine, theirs in zip(*found, strict=True):
        assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


def test_the_shipped_base_generates_the_same_steered_as_forced(caplog: pytest.LogCaptureFixture) -> None:
    lens = there("base")
    caplog.set_level(logging.ERROR)
    prompts = tiny_prompts(6, images=(0,))
    with steer(lens, vector(lens, "resid_post.3", length=5.0), spans=["last_prompt", "answer"]) as steering:
        written = generate(lens, prompts, max_new_tokens=12, batch_size=6, progress=False)
        fired = steering.fired_total
        again = forced(lens, written)
        assert steering.fired_total == 2 * fired and fired == sum(t.fired for t in written) > 6
    for transcript, logits in zip(written, again, strict=True):
        logits[:, lens.frame.image_token_id] = -torch.inf  # generate never writes it
        assert logits.argmax(-1).tolist() == list(transcript.output_ids)


# compiled


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_decoding_step_with_a_static_cache_is_steered(mode: str) -> None:
    """By transformers' own compilation, in its default way on a GPU (which records CUDA graphs) and without them."""
    lens = there("tiny")
    batch = encode(lens, tiny_prompts(3, images=(0, 1, 0)))

    def logits(**how: Any) -> Tensor:
        out = lens.model.generate(  # type: ignore[operator]
            **batch.inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True, **how
        )
        return torch.stack(out.logits, 1).clone()

    compiled = {"cache_implementation": "static", "compile_config": CompileConfig(mode=mode)}
    if PLACE == "cpu":
        compiled["compile_config"]._compile_all_devices = True  # type: ignore[attr-defined]
    torch.compiler.reset()
    try:
        plain = logits()
        with steer(lens, vector(lens, "resid_post.1", "mlp_out.2")) as steering:
            wanted, fired = logits(), steering.fired.tolist()
            ours, again = logits(**compiled), logits(**compiled)
            assert steering.fired.tolist() == fired
            steering.set_strength(0.0)
            off = logits(**compiled)
            steering.set_strength(1.0)
            on = logits(**compiled)
        after = logits(**compiled)
    finally:
        vars(lens.model).pop("_compiled_call", None)
        torch.compiler.reset()
    assert float((wanted - plain).abs().max()) > 0.5  # an effect there is
    for found, expected in ((ours, wanted), (again, wanted), (off, plain), (on, wanted), (after, plain)):
        assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_transcripts_encode_onto_the_device() -> None:
    lens = there("tiny")
    batch = encode_transcripts(lens, rows(lens))
    assert {value.device.type for value in batch.inputs.values()} == {torch.device(PLACE).type}
