"""Other engines give the rows and numbers of capture(): nnsight and TransformerLens, on every family of the zoo, with pictures where it has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from thoughtlens.hooks import FAMILIES, LensModel, Select, Site, Transcript, capture, encode, load, steer
from thoughtlens.hooks.interop import nnsight, transformer_lens
from thoughtlens.hooks.vector import Vector
from tiny import tiny_lens, tiny_prompts, tiny_transcripts
from torch import Tensor
from zoo import FAMILIES_TINY, zoo_folder, zoo_lens, zoo_prompts

NO_ADAPTER = {"qwen2_vl", "internvl", "glm46v", "glm4v_moe", "mllama"}  # the table of transformer_lens.py
LINEAR = {"qwen3_5", "qwen3_5_moe"}
ADAPTED = [name for name in FAMILIES_TINY if name not in NO_ADAPTER]
ENGINES = {"nnsight": nnsight, "transformer_lens": transformer_lens}
RESIDUAL = ("resid_pre", "attn_out", "mlp_out", "resid_post")


def written(name: str, n: int = 4) -> tuple[LensModel, list[Transcript]]:
    lens = zoo_lens(name)
    prompts = zoo_prompts(name, 2 * n)
    if name == "mllama":  # its cross-attention layers run for pictures only
        prompts = [prompt for prompt in prompts if prompt.images]
    return lens, tiny_transcripts(lens, prompts[:n], statuses=("closed", "unclosed", "absent"))


def selections(name: str) -> list[Select]:
    residual = [site for site in RESIDUAL if name != "mllama" or site != "attn_out"]
    heads = "head_out.2" if name in LINEAR else "head_out"  # a store holds one width
    crossing = [Select(("attn_out", "cross_attn_out"), "last_prompt")] if name == "mllama" else []
    return [Select(residual, "all", "every"), Select(heads, ("prompt", "thought"), "mean"), *crossing]


def same_rows(store_index: pd.DataFrame, index: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(store_index[list(index.columns)], index, check_dtype=False, check_categorical=False)
    assert set(store_index.columns) - set(index.columns) == {"shard", "offset", "shard_sha"}


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_nnsight_reads_what_capture_reads(name: str, tmp_path: Path) -> None:
    lens, transcripts = written(name)
    engine = nnsight.wrap(lens)
    for number, where in enumerate(selections(name)):
        vectors, index = capture(lens, transcripts, where, into=tmp_path / str(number), progress=False).rows()
        found, rows = nnsight.read(lens, transcripts, where, engine=engine)
        same_rows(index, rows)
        torch.testing.assert_close(found, vectors, atol=0, rtol=0)  # the same modules on the same batches: bit for bit


@pytest.mark.parametrize("name", ADAPTED)
def test_transformer_lens_reads_what_capture_reads(name: str, tmp_path: Path) -> None:
    lens, transcripts = written(name)
    engine = transformer_lens.bridge(lens)
    for number, where in enumerate(selections(name)):
        vectors, index = capture(lens, transcripts, where, into=tmp_path / str(number), progress=False).rows()
        found, rows = transformer_lens.read(lens, transcripts, where, engine=engine)
        same_rows(index, rows)
        # eager attention there, sdpa here. The delta rule of a tiny random model amplifies rounding: capture() with one transcript to a batch
        # differs from itself with four by 4e-4 there, and elsewhere by 2e-6
        torch.testing.assert_close(found, vectors, atol=5e-4 if name in LINEAR else 1e-5, rtol=1e-5)


def test_every_family_is_adapted_or_named_as_not() -> None:
    assert NO_ADAPTER <= set(FAMILIES)
    for name in NO_ADAPTER:
        assert transformer_lens.__doc__ is not None and name in transformer_lens.__doc__
        with pytest.raises(ValueError, match="TransformerLens has no adapter for .*interop.nnsight"):
            transformer_lens.bridge(zoo_lens(name))


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@given(data=st.data())
@settings(max_examples=12)
def test_any_selection_gives_the_rows_of_capture(engine: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    lens = tiny_lens()
    sites = data.draw(
        st.lists(st.builds(Site, st.sampled_from((*RESIDUAL, "head_out")), st.integers(0, 2)), min_size=1, max_size=6, unique=True)
    )
    spans = data.draw(
        st.lists(st.sampled_from(["last_prompt", "image", "thought[-3:]", "step_end[0]", "answer_first"]), min_size=1, unique=True)
    )
    where = Select(sites, spans, data.draw(st.sampled_from(["mean", "max", "first", "last", "every"])))
    size = data.draw(st.integers(1, 5))
    transcripts = tiny_transcripts(lens, tiny_prompts(5, images=(0, 2, 1)), statuses=("closed", "unclosed", "close_only", "multiple"))
    into = tmp_path_factory.mktemp("store") / "activations"
    vectors, index = capture(lens, transcripts, where, into=into, batch_size=size, progress=False).rows()
    found, rows = engine.read(lens, transcripts, where, batch_size=size)
    same_rows(index, rows)
    torch.testing.assert_close(found, vectors, atol=1e-5, rtol=1e-5)


def test_hook_names_are_those_of_transformer_lens() -> None:
    lens = tiny_lens()
    engine = transformer_lens.bridge(lens)
    usual = {
        "resid_pre": "hook_resid_pre",
        "attn_out": "hook_attn_out",
        "mlp_out": "hook_mlp_out",
        "resid_post": "hook_resid_post",
        "head_out": "attn.hook_z",
    }
    full = {
        "resid_pre": "hook_in",
        "attn_out": "attn.hook_out",
        "mlp_out": "mlp.hook_out",
        "resid_post": "hook_out",
        "head_out": "attn.o.hook_in",
    }
    for site in lens.expand(list(usual)):
        assert transformer_lens.hook_name(lens, site) == f"blocks.{site.layer}.{full[site.name]}"
        assert engine.hook_dict[f"blocks.{site.layer}.{usual[site.name]}"] is engine.hook_dict[transformer_lens.hook_name(lens, site)]


@pytest.mark.parametrize("name", ADAPTED)
def test_hook_names_go_both_ways(name: str) -> None:
    lens = zoo_lens(name)
    engine = transformer_lens.bridge(lens)
    for site in lens.expand([*RESIDUAL, "head_out"]):
        if name in LINEAR and site.name == "head_out" and site.layer != 2:
            with pytest.raises(ValueError, match=f"no hook point at the input of linear_attn.out_proj, where {site} is"):
                transformer_lens.hook_name(lens, site)
            continue
        hook = transformer_lens.hook_name(lens, site)
        assert hook in engine.hook_dict
        assert transformer_lens.site_of(lens, hook) == site
        short = next(usual for usual, kind in transformer_lens.SHORT.items() if kind == site.name)
        if f"blocks.{site.layer}.{short}" in engine.hook_dict:  # where TransformerLens has the usual name, it means the same place
            assert engine.hook_dict[f"blocks.{site.layer}.{short}"] is engine.hook_dict[hook]
            assert transformer_lens.site_of(lens, f"blocks.{site.layer}.{short}") == site


@pytest.mark.parametrize("name", ["blocks.3.hook_out", "blocks.0.attn.hook_pattern", "hook_embed", "blocks.x.hook_out"])
def test_a_hook_that_is_at_no_site_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="is at no site of tiny-words-0, which has 3 layers"):
        transformer_lens.site_of(tiny_lens(), name)


def test_a_bridge_gives_the_logits_of_the_model() -> None:
    lens = zoo_lens("qwen3_vl")
    batch = encode(lens, zoo_prompts("qwen3_vl", 4))
    engine = transformer_lens.bridge(lens)
    inputs = dict(batch.inputs)
    with torch.no_grad():
        theirs = engine(inputs.pop("input_ids"), return_type="logits", **inputs)
        ours = lens.model(**batch.inputs).logits
    real = batch.inputs["attention_mask"].bool()
    torch.testing.assert_close(theirs[real], ours[real], atol=1e-5, rtol=1e-5)


def untouched(lens: LensModel) -> dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]]:
    return {
        path: (type(module).__name__, tuple(module.__dict__), tuple(id(one) for one in module.parameters(recurse=False)))
        for path, module in lens.model.named_modules()
    }


@pytest.mark.parametrize("name", ["nnsight", "transformer_lens"])
def test_the_lens_stays_as_it_was_and_lends_its_weights(name: str, tmp_path: Path) -> None:
    lens, transcripts = load(zoo_folder("qwen2_5_vl"), device="cpu"), written("qwen2_5_vl")[1]
    before, attention = untouched(lens), lens.model.config._attn_implementation
    make: Callable[[LensModel], Any] = {"nnsight": nnsight.wrap, "transformer_lens": transformer_lens.bridge}[name]
    engine = make(lens)
    ENGINES[name].read(lens, transcripts, Select("resid_post", "thought"), engine=engine)
    assert untouched(lens) == before and lens.model.config._attn_implementation == attention
    theirs = {id(one) for one in (engine._module if name == "nnsight" else engine.original_model).parameters()}
    assert theirs == {id(one) for one in lens.model.parameters()}


def test_folding_weights_in_a_bridge_leaves_the_lens_its_own() -> None:
    lens = zoo_lens("llama")
    before = {key: value.clone() for key, value in lens.model.state_dict().items()}
    engine = transformer_lens.bridge(lens)
    engine.enable_compatibility_mode()
    q, norm = (lens.model.get_parameter(f"model.layers.0.{path}.weight") for path in ("self_attn.q_proj", "input_layernorm"))
    folded: Tensor = engine.blocks[0].attn.q.weight
    assert not torch.allclose(folded.flatten(), q.flatten()) and not torch.allclose(norm, torch.ones_like(norm))
    for key, value in lens.model.state_dict().items():
        torch.testing.assert_close(value, before[key], atol=0, rtol=0)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_a_low_rank_adapter_is_read_too(engine: Any, tmp_path: Path) -> None:
    lens, transcripts = load(zoo_folder("qwen2_5_vl"), device="cpu"), written("qwen2_5_vl")[1]
    plain, _ = engine.read(lens, transcripts, Select("head_out", "prompt"))
    lens.model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False))
    lens.model.eval()
    for number, where in enumerate((Select(RESIDUAL, "prompt"), Select("head_out", "prompt"))):
        vectors, _ = capture(lens, transcripts, where, into=tmp_path / str(number), progress=False).rows()
        found, _ = engine.read(lens, transcripts, where)
        torch.testing.assert_close(found, vectors, atol=1e-5, rtol=1e-5)
    assert float((found - plain).abs().max()) > 1e-2


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_what_capture_refuses_is_refused(engine: Any) -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(2), statuses=("unclosed",))
    with pytest.raises(ValueError, match='span "answer" is empty in 2 of 2 transcripts'):
        engine.read(lens, transcripts, Select("resid_post", "answer"))
    with pytest.raises(ValueError, match="out of range"):
        engine.read(lens, transcripts, Select("resid_post.7", "thought"))
    with pytest.raises(ValueError, match="another width"):
        engine.read(zoo_lens("qwen3"), written("qwen3")[1], Select(("resid_post", "head_out"), "prompt"))


@pytest.mark.parametrize("make", [nnsight.wrap, transformer_lens.bridge])
def test_no_engine_is_made_of_a_steered_model(make: Callable[[LensModel], Any]) -> None:
    lens = tiny_lens()
    vector = Vector({"resid_post.1": torch.ones(lens.width)}, "last_prompt", "mean", "ones", {"resid_post.1": 1.0})
    with steer(lens, vector), pytest.raises(ValueError, match="steering is active"):
        make(lens)


def test_nnsight_names_the_layers_that_need_a_picture() -> None:
    lens = zoo_lens("mllama")
    transcripts = tiny_transcripts(lens, zoo_prompts("mllama", 4), statuses=("closed",))
    with pytest.raises(ValueError, match="skips its cross-attention layers"):
        nnsight.read(lens, transcripts, Select("resid_post", "prompt"))
    vectors, _ = nnsight.read(lens, transcripts, Select(("resid_post.0", "attn_out.2"), "prompt"))
    assert vectors.shape == (4, 2, 32) and vectors.isfinite().all()


def test_envoys_are_at_the_sites() -> None:
    lens = tiny_lens()
    engine = nnsight.wrap(lens)
    assert nnsight.envoy(lens, engine, "head_out.1").path.endswith("language_model.layers.1.self_attn.o_proj")
    assert nnsight.envoy(lens, engine, "resid_post.2").path.endswith("language_model.layers.2")
