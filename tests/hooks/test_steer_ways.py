"""Steering however the model is run: rows with edits of their own, beams, samples, static caches, no cache, packed requests, compiled,
spread over devices, with an adapter, by several threads; and the same as other engines do."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import peft
import pytest
import torch
import torch._dynamo
from accelerate import disk_offload
from thoughtlens.hooks.capture import capture
from thoughtlens.hooks.encode import Batch, encode
from thoughtlens.hooks.gates import AtSteps, FirstTokens, ProbeGate
from thoughtlens.hooks.generate import forced, generate
from thoughtlens.hooks.interop import nnsight, transformer_lens
from thoughtlens.hooks.model import LensModel, load, wrap
from thoughtlens.hooks.records import Transcript
from thoughtlens.hooks.select import Select
from thoughtlens.hooks.steer import Edit, Trigger, Vector, monitor, steer
from tiny import tiny_folder, tiny_image, tiny_lens, tiny_prompts
from torch import Tensor
from torch.testing import assert_close
from transformers import CompileConfig, ContinuousBatchingConfig, DynamicCache, GenerationConfig
from zoo import zoo_lens, zoo_prompts

SITE = "resid_post.1"


@pytest.fixture
def lens() -> LensModel:
    return tiny_lens()


@pytest.fixture
def batch(lens: LensModel) -> Batch:
    return encode(lens, tiny_prompts(3, images=(0, 1, 0)))


def vector(*sites: str, span: str = "all", seed: int = 0, length: float = 3.0) -> Vector:
    chance = torch.Generator().manual_seed(seed)
    means = {site: torch.randn(2, 32, generator=chance) for site in sites or (SITE,)}
    values = {site: length * (end - start) / (end - start).norm() for site, (start, end) in means.items()}
    return Vector(values, span=span, source=f"test {seed}", means={s: torch.stack([m[0], m[0] + values[s]]) for s, m in means.items()})


@contextmanager
def by_hand(lens: LensModel, value: Tensor, layer: int = 1) -> Iterator[None]:
    """value added behind a layer, at every token."""
    handle = lens.layers[layer].register_forward_hook(lambda m, a, out: out + value)
    try:
        yield
    finally:
        handle.remove()


def written(lens: LensModel, batch: Batch, **how: Any) -> Tensor:
    torch.manual_seed(0)
    ids: Tensor = lens.model.generate(**batch.inputs, max_new_tokens=8, **how)  # type: ignore[operator]
    return ids


# rows of one batch


def test_rows_of_one_batch_carry_their_own_edits(lens: LensModel) -> None:
    prompts = tiny_prompts(5, images=(0, 1))
    edits = [
        Edit(vector(seed=1), 0.8, spans="answer"),
        Edit(vector("mlp_out.2", seed=2), 1.0, operator="ablate", gate=FirstTokens(4)),
        Edit(vector(seed=3), [0.2, 0.4, 0.6, 0.8, 1.0], operator="rotate"),
    ]
    rows = [0, 3, 1, 2, 3]
    with steer(lens, edits, rows=rows):
        together = generate(lens, prompts, max_new_tokens=8, batch_size=5, progress=False, condition="c")
        with_forced = forced(lens, together)
    plain = generate(lens, prompts, max_new_tokens=8, batch_size=5, progress=False, condition="c")
    assert together[0] == plain[0] and together[0].fired_at == ()
    for number, row in enumerate(rows):
        if not row:
            continue
        alone = dataclasses.replace(edits[row - 1], strength=edits[row - 1].strengths.expand(5)[number].item())
        with steer(lens, alone):
            assert generate(lens, [prompts[number]], max_new_tokens=8, progress=False, condition="c") == [together[number]]
            assert_close(forced(lens, [together[number]])[0], with_forced[number], atol=2e-4, rtol=1e-4)


def test_a_row_of_zero_keeps_its_bits_whatever_the_others_carry(lens: LensModel, batch: Batch) -> None:
    edits = [Edit(vector(seed=n), operator=name) for n, name in enumerate(["add", "ablate", "affine", "rotate"])]
    with torch.no_grad():
        plain = lens.model(**batch.inputs).logits
        with steer(lens, edits, rows=[0, 2, 0]):
            mixed = lens.model(**batch.inputs).logits
        with steer(lens, edits, rows=torch.tensor([False, True, False])):
            everything = lens.model(**batch.inputs).logits
    assert torch.equal(mixed[[0, 2]], plain[[0, 2]]) and torch.equal(everything[[0, 2]], plain[[0, 2]])
    assert not torch.allclose(mixed[1], plain[1], atol=1e-2) and not torch.allclose(everything[1], mixed[1], atol=1e-2)


def test_edits_at_one_site_read_the_same_state_and_add_up(lens: LensModel, batch: Batch) -> None:
    one, other = vector(seed=1), vector(seed=2)
    with torch.no_grad():
        with steer(lens, [Edit(one, 0.5), Edit(other, 1.5)]):
            both = lens.model(**batch.inputs).logits
        with steer(lens, [Edit(other, 1.5), Edit(one, 0.5)]):
            swapped = lens.model(**batch.inputs).logits
        with by_hand(lens, 0.5 * one.values[SITE] + 1.5 * other.values[SITE]):
            theirs = lens.model(**batch.inputs).logits
    live = batch.inputs["attention_mask"].bool()
    assert_close(both[live], theirs[live], atol=1e-4, rtol=1e-4)
    assert_close(both, swapped, atol=1e-5, rtol=1e-5)


def test_the_strength_of_one_edit_changes_alone(lens: LensModel, batch: Batch) -> None:
    with torch.no_grad(), steer(lens, [Edit(vector(seed=1), 0.5), Edit(vector(seed=2), 1.5)]) as steering:
        steering.set_strength(0.0, edit=1)
        assert steering.strength == [0.5, 0.0]
        off = lens.model(**batch.inputs).logits
    with torch.no_grad(), steer(lens, vector(seed=1), strength=0.5):
        assert_close(lens.model(**batch.inputs).logits, off, atol=1e-5, rtol=1e-5)


def test_rows_that_name_no_edit_are_refused(lens: LensModel, batch: Batch) -> None:
    with pytest.raises(ValueError, match="rows number the edits from 1 to 1, 0 is none"):
        with steer(lens, vector(), rows=[0, 1, 2]), torch.no_grad():
            lens.model(**batch.inputs)


# ways to generate


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 3, "do_sample": False},
    "beams, two each": {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
    "three samples each": {"do_sample": True, "num_return_sequences": 3},
    "static cache": {"do_sample": False, "cache_implementation": "static"},
    "no cache": {"do_sample": False, "use_cache": False},
    "beams, no cache": {"num_beams": 3, "do_sample": False, "use_cache": False},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_generate_equals_a_hook_written_by_hand(lens: LensModel, batch: Batch, way: str) -> None:
    plain = written(lens, batch, **WAYS[way])
    with by_hand(lens, vector().values[SITE]):
        theirs = written(lens, batch, **WAYS[way])
    with steer(lens, vector()):
        ours = written(lens, batch, **WAYS[way])
    assert torch.equal(ours, theirs) and not torch.equal(ours, plain)
    assert torch.equal(written(lens, batch, **WAYS[way]), plain)


@pytest.mark.parametrize("way", ["greedy", "static cache", "no cache"])
def test_a_token_counts_once_however_often_it_is_run(lens: LensModel, batch: Batch, way: str) -> None:
    with steer(lens, vector(), spans=["last_prompt", "answer[:3]"]) as steering:
        written(lens, batch, **WAYS[way])
        assert steering.fired.tolist() == [4, 4, 4]
        ends = (batch.lengths - 1).tolist()
        assert [row.fired_at.tolist() for row in steering.record()] == [[end, end + 1, end + 2, end + 3] for end in ends]


def test_what_is_given_per_prompt_holds_for_all_its_samples(lens: LensModel, batch: Batch) -> None:
    with steer(lens, vector(), strength=[1.0, 0.0, 2.0]) as steering:
        written(lens, batch, do_sample=True, num_return_sequences=2)
        assert [n > 0 for n in steering.fired.tolist()] == [True, True, False, False, True, True]
    with pytest.raises(ValueError, match="3 strengths for 6 rows"):  # six prompts, not three with two samples each
        with steer(lens, vector(), strength=[1.0, 0.0, 2.0]):
            written(lens, encode(lens, tiny_prompts(6, images=(0,))), do_sample=True)


def test_prompts_of_one_text_are_told_apart_by_their_pictures(lens: LensModel) -> None:
    """Three strengths for six rows are two samples of each of three prompts only where the pairs show the same picture."""
    (prompt,) = tiny_prompts(1, images=(1,))
    pictures = [dataclasses.replace(prompt, id=f"p{n}", images=(tiny_image(n),)) for n in range(6)]
    for shown, right in ((pictures, False), ([pictures[n // 2] for n in range(6)], True)):
        with torch.no_grad(), contextlib.nullcontext() if right else pytest.raises(ValueError, match="3 strengths for 6 rows"):
            with steer(lens, vector(), strength=[1.0, 0.0, 2.0]) as steering:
                lens.model(**encode(lens, shown).inputs)
            assert [n > 0 for n in steering.fired.tolist()] == [True, True, False, False, True, True]


@pytest.mark.parametrize("span", ["last_prompt", "answer"])
def test_beams_are_followed_without_a_cache(lens: LensModel, batch: Batch, span: str) -> None:
    how = {"num_beams": 3, "do_sample": False, "max_new_tokens": 8}
    plain = lens.model.generate(**batch.inputs, **how)  # type: ignore[operator]
    with steer(lens, vector(span=span, length=6.0)):
        cached, grown = (lens.model.generate(**batch.inputs, **how, use_cache=cache) for cache in (True, False))  # type: ignore[operator]
    assert torch.equal(cached, grown) and not torch.equal(cached, plain)


@pytest.mark.parametrize("announced", [True, False])
def test_what_triggers_set_off_is_the_same_without_a_cache(lens: LensModel, batch: Batch, announced: bool) -> None:
    """A trigger that steers acts on the tokens after it, also where every forward runs the whole sequence once more."""
    found = []
    for cache in (True, False):
        with steer(lens, vector(length=6.0), spans="answer", triggers=[Trigger(~FirstTokens(3), "steer")]) as steering:
            steering.expect(batch.prompt_lengths if announced else None)
            ids = lens.model.generate(**batch.inputs, max_new_tokens=9, do_sample=False, use_cache=cache)  # type: ignore[operator]
            steering.expect(None)
            report = steering.report()
            found.append((ids.tolist(), [row.fired_at.tolist() for row in steering.record()], report["rows"], report["fired"]))
    assert found[0] == found[1]
    assert all(fired and min(fired) == end + 4 for fired, end in zip(found[0][1], batch.lengths.tolist(), strict=True))


def test_beams_carry_what_a_gate_has_decided(lens: LensModel) -> None:
    """A gate that is read in the answer and latched follows its beam: what beams write is what their tokens give, forced once more."""
    weight = torch.randn(32, generator=torch.Generator().manual_seed(5))
    gate = ProbeGate(weight, 0.0, "resid_post.0", 0.5, span="answer")
    prompts = tiny_prompts(2, images=(0,))
    with steer(lens, vector("resid_post.2"), spans="answer", gate=gate):
        out = lens.model.generate(  # type: ignore[operator]
            **encode(lens, prompts).inputs,
            max_new_tokens=8,
            num_beams=4,
            do_sample=False,
            early_stopping=False,
            length_penalty=0.0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        batch = encode(lens, prompts)
        transcripts = []
        for row, prompt in enumerate(prompts):
            ids = out.sequences[row, batch.inputs["input_ids"].shape[1] :].tolist()
            end = next((n for n, token in enumerate(ids, 1) if token in lens.markers.eos_ids), len(ids))
            transcripts.append(Transcript(prompt, lens.name, prompt_ids=tuple(batch.ids[row]), output_ids=tuple(ids[:end])))
        logits = forced(lens, transcripts)
    for row, (transcript, given) in enumerate(zip(transcripts, logits, strict=True)):
        chosen = given.log_softmax(-1).gather(1, torch.tensor(transcript.output_ids)[:, None]).sum()
        assert_close(chosen, out.sequences_scores[row], atol=1e-3, rtol=1e-3)


def test_generate_batch_is_steered_where_every_token_is() -> None:
    lens = zoo_lens("llama")
    ids = [encode(lens, [prompt]).ids[0] for prompt in zoo_prompts("llama", 3)]
    config = GenerationConfig(max_new_tokens=6, do_sample=False, eos_token_id=lens.markers.eos_ids[0], pad_token_id=lens.pad_id)

    def packed() -> list[list[int]]:
        small = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64)  # else it takes all the memory there is, and long for it
        found = lens.model.generate_batch(ids, generation_config=config, continuous_batching_config=small)  # type: ignore[operator]
        return [list(one.generated_tokens) for one in sorted(found.values(), key=lambda one: one.request_id)]

    plain = packed()
    with steer(lens, vector(length=6.0)) as steering:
        ours = packed()
        assert steering.fired_total == sum(map(len, ids)) + sum(len(one) - 1 for one in ours)
    with steer(lens, vector(length=6.0)):
        singly = [list(t.output_ids) for t in generate(lens, zoo_prompts("llama", 3), max_new_tokens=6, progress=False)]
    assert ours == singly != plain
    with pytest.raises(ValueError, match="generate_batch packs tokens of many requests into one row"):
        with steer(lens, vector(), spans="last_prompt"):
            packed()


# compiled


def compiled(backend: str = "eager") -> dict[str, Any]:
    config = CompileConfig(backend=backend, mode=None, fullgraph=False)  # type: ignore[arg-type]
    config._compile_all_devices = True
    return {"do_sample": False, "cache_implementation": "static", "compile_config": config}


@dataclasses.dataclass(frozen=True)
class Direction:
    weight: Tensor
    bias: float
    site: str


READ = torch.randn(32, generator=torch.Generator().manual_seed(9))
MODES: dict[str, dict[str, Any]] = {
    "add": {},
    "ablate": {"operator": "ablate"},
    "rotate": {"operator": "rotate"},
    "gate of tokens": {"gate": FirstTokens(3) | AtSteps()},
    "gate of a probe": {"gate": ProbeGate(READ, 0.0, "resid_post.0", 0.0, latched=False, span="all")},
    "monitored": {"probes": {"one": Direction(READ, 0.1, SITE), "other": Direction(-READ, 0.0, "resid_pre.2")}},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_compiled_model_is_steered_too_even_if_it_was_compiled_before(lens: LensModel, batch: Batch, mode: str) -> None:
    def logits(**how: Any) -> Tensor:
        out = lens.model.generate(**batch.inputs, max_new_tokens=5, return_dict_in_generate=True, output_logits=True, **how)  # type: ignore[operator]
        return torch.stack(out.logits, 1)

    sites = vector("resid_post.1", "mlp_out.2")
    try:
        plain, before = logits(do_sample=False), logits(**compiled())
        with steer(lens, sites, **MODES[mode]) as steering:
            wanted, fired, read = logits(do_sample=False), steering.fired.tolist(), steering.record()
            ours = logits(**compiled())
            assert steering.fired.tolist() == fired
            for one, other in zip(steering.record(), read, strict=True):
                assert_close(torch.tensor(one.scores), torch.tensor(other.scores), atol=1e-4, rtol=1e-4)
            steering.set_strength(0.0)
            off = logits(**compiled())
            steering.set_strength(1.0)
            on = logits(**compiled())
        after = logits(**compiled())
    finally:
        del lens.model._compiled_call
        torch._dynamo.reset()
    assert (wanted - plain).abs().max() > 0.5  # an effect there is
    for found, expected in ((before, plain), (ours, wanted), (off, plain), (on, wanted), (after, plain)):
        assert_close(found, expected, atol=1e-4, rtol=1e-4)


# where it cannot, it says so


def test_the_same_weights_are_not_steered_twice(lens: LensModel) -> None:
    again = dataclasses.replace(lens, name="again")
    with steer(lens, vector(), strength=0.0):
        with pytest.raises(RuntimeError, match="again is being steered already.*it takes several edits"):
            with monitor(again, {"one": Direction(READ, 0.0, SITE)}):
                pass
    assert lens.steering is again.steering is None


def test_weights_that_are_steered_are_not_taken_for_unsteered(lens: LensModel, tmp_path: Any) -> None:
    """Another LensModel of the same weights would count no token and name no condition."""
    again, prompts = dataclasses.replace(lens, name="again"), tiny_prompts(2, images=(0,))
    plain = generate(lens, prompts, max_new_tokens=3, progress=False)
    with steer(lens, vector(), strength=0.0):
        for run in (
            lambda: generate(again, prompts, max_new_tokens=3, progress=False),
            lambda: forced(again, plain),
            lambda: capture(again, plain, Select(SITE, "all", "mean"), into=tmp_path / "s", progress=False),
        ):
            with pytest.raises((RuntimeError, ValueError), match="steered|steering is active"):
                run()


def test_batches_in_turn_are_an_error_not_a_mixture(lens: LensModel) -> None:
    """As with two caches, one of them for guidance: each token would be steered as if it belonged to the batch begun last."""
    (ids, *_) = (encode(lens, tiny_prompts(1, images=(0,))).inputs["input_ids"],)
    with steer(lens, vector(span="all"), spans=["all"]), torch.no_grad():
        one, other = (DynamicCache(config=lens.model.config.get_text_config()) for _ in range(2))
        for cache in (one, other):
            lens.model(input_ids=ids, past_key_values=cache, use_cache=True)
        with pytest.raises(ValueError, match="two batches are written at the same time"):
            lens.model(input_ids=ids[:, :1], past_key_values=one, use_cache=True)


def test_a_copied_cache_is_its_own(lens: LensModel) -> None:
    prompts = encode(zoo_lens("llama"), zoo_prompts("llama", 3))
    llama, cache, mine = zoo_lens("llama"), DynamicCache(), DynamicCache()
    heard: list[Any] = []
    mine.reorder_cache = heard.append  # type: ignore[method-assign,assignment]
    with steer(llama, vector()), torch.no_grad():
        llama.model(**prompts.inputs, past_key_values=cache)
        copied = copy.deepcopy(cache)
        before = copied.layers[0].keys.clone(), cache.layers[0].keys.clone()
        copied.reorder_cache(torch.tensor([2, 1, 0]))
        assert torch.equal(copied.layers[0].keys, before[0][[2, 1, 0]]) and torch.equal(cache.layers[0].keys, before[1])
        llama.model(**prompts.inputs, past_key_values=mine)
        mine.reorder_cache(torch.tensor([0, 0, 1]))
    assert [rows.tolist() for rows in heard] == [[0, 0, 1]] and mine.reorder_cache == heard.append
    assert "reorder_cache" not in vars(cache)


def test_strengths_for_other_rows_are_refused_under_way(lens: LensModel) -> None:
    with steer(lens, vector(span="answer")) as steering:

        def change(*_: object) -> None:
            if steering.forwards == 2:
                steering.set_strength([0.0])

        handle = lens.inner.register_forward_pre_hook(change)
        try:
            with pytest.raises(ValueError, match="1 strengths for 3"):
                generate(lens, tiny_prompts(3, images=(0,)), max_new_tokens=8, progress=False)
        finally:
            handle.remove()
        with pytest.raises(ValueError, match="there is no edit 3"):
            steering.set_strength(0.0, edit=3)
        steering.set_strength(0.0)


@pytest.mark.parametrize("rows", [[0.5, 1.0, 0.0], torch.ones(3, 1), [[True], [False], [True]]])
def test_rows_that_are_neither_truth_nor_number_are_refused(lens: LensModel, rows: Any) -> None:
    with pytest.raises(ValueError, match="rows is True or False, or the number of an edit"):
        with steer(lens, vector(), rows=rows):
            pass
    assert lens.steering is None


def test_rows_can_change_between_two_batches(lens: LensModel) -> None:
    prompts = tiny_prompts(3, images=(0,))
    with steer(lens, vector(), rows=[1, 0, 1]) as steering:
        first = generate(lens, prompts, max_new_tokens=3, progress=False)
        steering.rows = [0, 1, 0]  # type: ignore[assignment]
        second = generate(lens, prompts, max_new_tokens=3, progress=False)
    assert [[t.fired > 0 for t in one] for one in (first, second)] == [[True, False, True], [False, True, False]]


def test_a_layer_run_outside_the_model_is_an_error(lens: LensModel) -> None:
    with steer(lens, vector(), strength=0.0), torch.no_grad():
        with pytest.raises(RuntimeError, match="runs outside a forward of the model"):
            lens.layers[1](torch.zeros(1, 2, 32), position_embeddings=(torch.ones(1, 2, 8), torch.zeros(1, 2, 8)))


def test_gradients_pass_and_readouts_hold_none(lens: LensModel, batch: Batch) -> None:
    """Also where layers are run a second time for their gradients, and after forwards without any."""
    with monitor(lens, {"x": Direction(READ, 0.1, SITE)}) as watching:
        with torch.no_grad():
            lens.model(**batch.inputs)
        scores = watching.record()[0].scores
        lens.model(**batch.inputs)
        assert_close(torch.tensor(watching.record()[0].scores), torch.tensor(scores))
    own = load(tiny_folder(), device="cpu")
    own.model.activation_checkpointing_enable()  # type: ignore[operator]
    own.model.train()
    with steer(own, vector(), gate=ProbeGate(READ, 100.0, "resid_post.0", 0.0)) as steering:
        for _ in range(2):
            own.model(**batch.inputs, use_cache=False).logits.sum().backward()
        assert steering.fired.tolist() == [1, 1, 1]  # of the last prompt token, where the gate opens, and what follows


def test_two_threads_at_once_are_an_error_in_one_of_them(lens: LensModel) -> None:
    prompts = tiny_prompts(3)
    with steer(lens, vector()):
        (alone,) = ([t.output_ids for t in generate(lens, prompts, max_new_tokens=6, progress=False)],)
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append([t.output_ids for t in generate(lens, prompts, max_new_tokens=6, progress=False)])
        except (RuntimeError, ValueError) as error:
            outcome.append(str(error))

    with steer(lens, vector()):
        meet, first = threading.Event(), threading.get_ident()
        began = threading.Event()

        def wait(*_: object) -> None:
            if threading.get_ident() != first and not began.is_set():
                began.set()
                meet.wait(20)  # in the middle of its first forward, until the other thread is done

        handle = lens.layers[2].register_forward_hook(wait)
        try:
            other = threading.Thread(target=work)
            other.start()
            assert began.wait(20)
            mine = [t.output_ids for t in generate(lens, prompts, max_new_tokens=6, progress=False)]
            meet.set()
            other.join()
        finally:
            handle.remove()
    assert mine == alone
    assert "another thread ran" in outcome[0]


def test_a_generation_that_steering_never_saw_is_an_error(lens: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an exported or captured graph would run it."""
    monkeypatch.setattr(lens.model, "generate", lambda input_ids, **_: torch.cat([input_ids, input_ids[:, :1]], 1), raising=False)
    with pytest.raises(RuntimeError, match="steering saw none of its forwards"):
        with steer(lens, vector()):
            generate(lens, tiny_prompts(2, images=(0,)), max_new_tokens=1, progress=False)


def test_a_block_in_which_nothing_ran_is_a_warning(lens: LensModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), steer(lens, vector()):
        pass
    assert "no forward of the model was seen" in caplog.text


# models that are not plain


def outputs(lens: LensModel) -> list[tuple[int, ...]]:
    return [t.output_ids for t in generate(lens, tiny_prompts(3, images=(0, 1)), max_new_tokens=6, progress=False)]


def test_an_offloaded_model_is_steered_where_its_layers_run(tmp_path: Any, lens: LensModel) -> None:
    steered = vector("resid_pre.1", "attn_out.2")
    with steer(lens, steered):
        wanted = outputs(lens)
    fresh = load(tiny_folder(), device="cpu")
    disk_offload(fresh.model, str(tmp_path))
    away = wrap(fresh.model, fresh.processor, name="away", sha="as loaded")
    assert away.layers[1].mlp.down_proj.weight.device.type == "meta"  # type: ignore[union-attr]
    with steer(away, steered):
        assert outputs(away) == wanted != outputs(lens)


def test_a_model_with_an_adapter_is_steered() -> None:
    fresh = load(tiny_folder(), device="cpu")
    adapted = peft.get_peft_model(fresh.model, peft.LoraConfig(r=4, target_modules=["o_proj", "down_proj"]))  # type: ignore[arg-type]
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    lens = wrap(adapted, fresh.processor, name="adapted")
    with by_hand(lens, vector().values[SITE]):
        theirs = outputs(lens)
    with steer(lens, vector()):
        assert outputs(lens) == theirs != outputs(tiny_lens())
    assert outputs(lens) != theirs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_steered_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    lens, value = load(tiny_folder(), device="cpu", dtype=dtype), vector().values[SITE]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    handle = lens.layers[1].register_forward_hook(lambda m, a, out: (out.to(wide) + value.to(wide)).to(dtype))
    try:
        theirs = outputs(lens)
    finally:
        handle.remove()
    with steer(lens, vector()):
        assert outputs(lens) == theirs
    assert outputs(lens) != theirs


# other engines


@pytest.mark.parametrize("engine", ["nnsight", "TransformerLens"])
def test_other_engines_do_the_same(lens: LensModel, batch: Batch, engine: str) -> None:
    value = vector().values[SITE]
    live = batch.inputs["attention_mask"].bool()
    with torch.no_grad():
        plain = lens.model(**batch.inputs).logits
        with steer(lens, vector()):
            ours = lens.model(**batch.inputs).logits
    with torch.no_grad():
        theirs = ENGINES[engine](lens, batch, value)
    assert (ours - plain)[live].abs().max() > 0.5
    assert_close(theirs[live], ours[live], atol=1e-4 if engine == "nnsight" else 1e-3, rtol=1e-4)


def _nnsight(lens: LensModel, batch: Batch, value: Tensor) -> Tensor:
    model = nnsight.wrap(lens)
    with model.trace(**batch.inputs):
        layer = nnsight.envoy(lens, model, SITE)
        layer.output = layer.output + value
        logits = model.output.logits.save()
    return logits


def _transformer_lens(lens: LensModel, batch: Batch, value: Tensor) -> Tensor:
    bridge = transformer_lens.bridge(lens)
    inputs = dict(batch.inputs)
    name = transformer_lens.hook_name(lens, SITE)
    with bridge.hooks(fwd_hooks=[(name, lambda hidden, hook: hidden + value)]):
        logits: Tensor = bridge(inputs.pop("input_ids"), return_type="logits", **inputs)
    return logits


ENGINES: dict[str, Callable[[LensModel, Batch, Tensor], Tensor]] = {"nnsight": _nnsight, "TransformerLens": _transformer_lens}
