"""Every family: what we call a site is what the real transformers class computes there. Hooks by hand and its own hidden_states judge.

What makes a family different from a plain decoder has a test of its own below, which says what it is.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from thoughtlens.hooks import FAMILIES, Family, LensModel, Select, Site, capture, encode, wrap
from thoughtlens.hooks.attach import CHANGEABLE, attach, gate, heads, out_projection, site_width, watch
from thoughtlens.hooks.families import Block, blocks_of, family_of
from tiny import tiny_transcripts
from torch import Tensor
from zoo import FAMILIES_TINY, PICTURED, zoo_lens, zoo_model, zoo_prompts
from zoo_processors import zoo_processor

SITES = ("resid_pre", "attn_out", "cross_attn_out", "mlp_out", "resid_post", "head_out")
POST_NORMED = {  # modules whose output joins the residual; elsewhere it is the attention's and the MLP's own
    "gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "glm4v": ("post_self_attn_layernorm", "post_mlp_layernorm"),
    "glm46v": ("post_self_attn_layernorm", "post_mlp_layernorm"),
}


def batch_of(name: str, *, images: bool | None = None, n: int = 2) -> dict[str, Tensor]:
    """Model inputs of n prompts; by default all with a picture where the family has pictures."""
    pictured = name in PICTURED if images is None else images
    prompts = zoo_prompts(name, 2 * n)[1 if pictured else 0 :: 2]
    return dict(encode(zoo_lens(name), prompts).inputs)


def forward(lens: LensModel, inputs: Any, **options: Any) -> Any:
    with torch.no_grad():
        return lens.inner(**inputs, use_cache=False, **options)


def ours(lens: LensModel, inputs: Any, names: tuple[str, ...] = SITES) -> dict[str, Tensor]:
    """Every site that is computed in one forward."""
    found: dict[str, Tensor] = {}
    there = {block.site for block in lens.blocks}
    sites = lens.expand([name for name in names if name in there or not name.endswith("attn_out")])
    handles = [watch(lens, site, lambda site, hidden: found.__setitem__(str(site), hidden.clone())) for site in sites]
    try:
        forward(lens, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def by_hand(name: str, model: Any, inputs: Any) -> dict[str, Tensor]:
    """The same with register_forward_hook, module by module, and no code of ours. `mid` is the residual between attention and MLP."""
    found: dict[str, Tensor] = {}
    handles = []
    layers = model.model.layers if name in ("qwen2", "qwen3", "llama") else model.model.language_model.layers
    for i, layer in enumerate(layers):
        kind = next(kind for kind in ("self_attn", "linear_attn", "cross_attn") if kind in dict(layer.named_children()))
        attention, mlp = POST_NORMED.get(name, (kind, "mlp"))
        out = "out_proj" if kind == "linear_attn" else "o_proj"
        norm = "pre_feedforward_layernorm" if name == "gemma3" else "post_attention_layernorm"

        def at_input(site: str, i: int = i) -> Any:
            return lambda module, args: found.__setitem__(f"{site}.{i}", args[0].clone())

        def at_output(site: str, i: int = i) -> Any:
            return lambda module, args, output: found.__setitem__(f"{site}.{i}", (output[0] if type(output) is tuple else output).clone())

        handles += [
            layer.register_forward_pre_hook(at_input("resid_pre")),
            layer.register_forward_hook(at_output("resid_post")),
            getattr(layer, attention).register_forward_hook(at_output("cross_attn_out" if kind == "cross_attn" else "attn_out")),
            getattr(layer, mlp).register_forward_hook(at_output("mlp_out")),
            getattr(getattr(layer, kind), out).register_forward_pre_hook(at_input("head_out")),
            getattr(layer, norm).register_forward_pre_hook(at_input("mid")),
        ]
    try:
        with torch.no_grad():
            model.model(**inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_every_site_is_what_hooks_by_hand_see(name: str) -> None:
    lens = zoo_lens(name)
    inputs = batch_of(name)
    mine, theirs = ours(lens, inputs), by_hand(name, lens.model, inputs)
    assert {site for site in theirs if not site.startswith("mid")} == set(mine)
    for site, hidden in mine.items():
        assert torch.equal(hidden.flatten(2), theirs[site]) and bool(hidden.std() > 0.01), site
    assert {int(site.split(".")[1]) for site in mine} == set(range(lens.n_layers)), "a layer was left out"


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_the_output_projection_of_an_mlp_is_what_it_writes(name: str) -> None:
    """Of a plain MLP; a mixture of experts has none. What a norm behind makes of it is mlp_out, and then not what is written."""
    lens, found = zoo_lens(name), {}
    inputs = batch_of(name)
    experts = {"qwen3_vl_moe": [0, 2], "qwen3_5_moe": [0, 1, 2, 3], "glm4v_moe": [1, 2]}.get(name, [])
    handles = []
    for i, (layer, block) in enumerate(zip(lens.layers, lens.blocks, strict=True)):
        inside = dict(layer.get_submodule(block.mlp).named_children())
        assert (block.down not in inside) == (i in experts)
        for which, module in (("mlp", layer.get_submodule(block.mlp)), ("down", inside.get(block.down))):
            if module is not None:
                handles.append(module.register_forward_hook(lambda _, args, out, at=(which, i): found.__setitem__(at, out)))
    try:
        forward(lens, inputs)
    finally:
        for handle in handles:
            handle.remove()
    for i in range(lens.n_layers):
        assert i in experts or torch.equal(found["down", i], found["mlp", i])


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_capture_of_whole_transcripts_equals_hooks_by_hand(name: str, tmp_path: Path) -> None:
    lens = zoo_lens(name)
    transcripts = tiny_transcripts(lens, zoo_prompts(name, 4)[1::2], statuses=("closed", "unclosed"))
    names = ["resid_pre", "mlp_out", "resid_post", *dict.fromkeys(block.site for block in lens.blocks)]
    store = capture(lens, transcripts, Select(names, "all", "every"), into=tmp_path / "s", batch_size=1, progress=False)
    assert len(store.sites) == 4 * lens.n_layers
    for transcript in transcripts:
        theirs = by_hand(name, lens.model, encode(lens, [transcript.prompt], prefixes=[transcript.output_ids]).inputs)
        mine, index = store.rows({"prompt_id": transcript.id})
        assert index["start"].tolist() == list(range(len(transcript.prompt_ids + transcript.output_ids)))
        for i, site in enumerate(store.sites):
            assert torch.equal(mine[:, i], theirs[site][0]), site


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_attention_and_mlp_are_what_joins_the_residual(name: str) -> None:
    lens = zoo_lens(name)
    inputs = batch_of(name)
    mine, theirs = ours(lens, inputs), by_hand(name, lens.model, inputs)
    for layer, block in enumerate(lens.blocks):
        if block.site == "cross_attn_out":
            continue  # gated: has its own test
        pre, attention, mid, mlp, post = (
            found[f"{site}.{layer}"]
            for found, site in ((mine, "resid_pre"), (mine, "attn_out"), (theirs, "mid"), (mine, "mlp_out"), (mine, "resid_post"))
        )
        torch.testing.assert_close(pre + attention, mid, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(mid + mlp, post, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_transformers_hidden_states_are_resid_post_but_for_the_last_which_is_normed(name: str) -> None:
    lens = zoo_lens(name)
    inputs = batch_of(name)
    mine = ours(lens, inputs, ("resid_pre", "resid_post"))
    theirs = forward(lens, inputs, output_hidden_states=True).hidden_states
    last = lens.n_layers - 1
    assert len(theirs) == lens.n_layers + 1 and torch.equal(mine["resid_pre.0"], theirs[0])
    for layer in range(last):
        assert torch.equal(mine[f"resid_post.{layer}"], theirs[layer + 1])
    norm: Any = lens.model.get_submodule(lens.family.layers.removesuffix("layers") + "norm")
    assert not torch.allclose(mine[f"resid_post.{last}"], theirs[-1])
    assert torch.equal(norm(mine[f"resid_post.{last}"]), theirs[-1])


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_a_layer_receives_what_the_one_before_returned_unless_features_are_added_between(name: str) -> None:
    lens = zoo_lens(name)
    inputs = batch_of(name)
    mine = ours(lens, inputs, ("resid_pre", "resid_post"))
    changed = [layer for layer in range(lens.n_layers - 1) if not torch.equal(mine[f"resid_post.{layer}"], mine[f"resid_pre.{layer + 1}"])]
    assert changed == list(lens.deepstack)


@pytest.mark.parametrize("name", PICTURED)
def test_the_picture_matters_in_the_tiny_models(name: str) -> None:
    lens, inputs = zoo_lens(name), batch_of(name)
    one = forward(lens, inputs).last_hidden_state
    other = forward(lens, {**inputs, "pixel_values": -inputs["pixel_values"]}).last_hidden_state
    assert not torch.allclose(one[:, -1], other[:, -1], atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_a_change_at_a_site_goes_where_the_site_says(name: str) -> None:
    """Both directions use one table: what attach() adds at a site arrives in the residual, gated where the layer gates."""
    lens, inputs = zoo_lens(name), batch_of(name)
    push = torch.linspace(-1, 1, lens.width)
    plain = by_hand(name, lens.model, inputs)
    layer = lens.n_layers - 1
    attention = lens.blocks[layer].site
    lands = {"resid_pre": "resid_pre", attention: "mid", "mlp_out": "resid_post", "resid_post": "resid_post"}
    for site in (Site(one, layer) for one in CHANGEABLE if one in lands):
        handle = attach(lens, site, lambda hidden: hidden + push)
        seen = ours(lens, inputs, (lands[site.name],)) if lands[site.name] != "mid" else by_hand(name, lens.model, inputs)
        handle.remove()
        factor = gate(lens, site)
        arrived = seen[f"{lands[site.name]}.{layer}"] - plain[f"{lands[site.name]}.{layer}"]
        if name == "mllama" and site.name == "mlp_out":
            arrived = arrived[:, -1:]  # it is masked in front of the picture
        expected = push if factor is None else push * factor
        torch.testing.assert_close(arrived, expected.expand_as(arrived), atol=1e-5, rtol=1e-4)
    assert torch.equal(ours(lens, inputs)[f"resid_post.{layer}"], plain[f"resid_post.{layer}"])


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_heads_taken_away_at_head_out_take_the_attention_away(name: str) -> None:
    lens, inputs = zoo_lens(name), batch_of(name)
    for layer in range(lens.n_layers):
        site = Site("head_out", layer)
        handles = [attach(lens, site, torch.zeros_like)]
        raw: list[Tensor] = []
        handles.append(out_projection(lens, site).register_forward_hook(lambda module, args, output, raw=raw: raw.append(output)))
        seen = ours(lens, inputs, ("head_out",))[str(site)]
        for handle in handles:
            handle.remove()
        assert seen.shape[2:] == (heads(lens, site), site_width(lens, site) // heads(lens, site))
        bias: Any = dict(out_projection(lens, site).named_parameters()).get("bias", torch.zeros(()))
        assert torch.equal(raw[0], bias.expand_as(raw[0]))


# what is special, family by family


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_moe"])
def test_deepstack_adds_the_mergers_features_at_image_tokens_behind_the_first_layers(name: str) -> None:
    """Qwen3-VL: features of early vision layers are added between the first decoder layers. resid_post[i] is before, resid_pre[i+1] after;
    transformers' hidden_states shows the former."""
    lens, inputs = zoo_lens(name), batch_of(name)
    features: list[Tensor] = []
    mergers: Any = lens.model.get_submodule("model.visual.deepstack_merger_list")
    handles = [merger.register_forward_hook(lambda module, args, output: features.append(output)) for merger in mergers]
    mine = ours(lens, inputs, ("resid_pre", "resid_post"))
    for handle in handles:
        handle.remove()
    assert lens.deepstack == range(2) and len(features) == 2
    at_image = inputs["input_ids"] == lens.frame.image_token_id
    for layer, added in enumerate(features):
        before, after = mine[f"resid_post.{layer}"], mine[f"resid_pre.{layer + 1}"]
        assert torch.equal(before[~at_image], after[~at_image])
        torch.testing.assert_close(after[at_image], before[at_image] + added)
    text = ours(lens, batch_of(name, images=False), ("resid_pre", "resid_post"))
    assert torch.equal(text["resid_post.0"], text["resid_pre.1"]), "without a picture nothing is added"


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_moe"])
def test_hybrid_layers_have_attn_out_and_head_out_whichever_kind_they_are(name: str) -> None:
    """Qwen3.5: three of four layers are gated delta rules (`linear_attn`, `out_proj`, other heads, a tensor and no tuple)."""
    lens = zoo_lens(name)
    assert [block.attention for block in lens.blocks] == ["linear_attn", "linear_attn", "self_attn", "linear_attn"]
    assert [str(site) for site in lens.expand("attn_out")] == [f"attn_out.{layer}" for layer in range(4)]
    assert [site_width(lens, Site("head_out", layer)) for layer in range(4)] == [36, 36, 64, 36]
    mine = ours(lens, batch_of(name))
    assert [tuple(mine[f"head_out.{layer}"].shape[2:]) for layer in range(4)] == [(6, 6), (6, 6), (4, 16), (6, 6)]
    for layer in range(4):
        project: Any = out_projection(lens, Site("head_out", layer))
        assert torch.equal(project(mine[f"head_out.{layer}"].flatten(2)), mine[f"attn_out.{layer}"])


@pytest.mark.parametrize("name", ["gemma3", "glm4v", "glm46v"])
def test_norms_behind_attention_and_mlp_belong_to_what_they_add(name: str) -> None:
    """Gemma 3 and GLM-4V norm a block's output before adding it: attn_out is the normed one, the attention's own output is not added."""
    lens, inputs = zoo_lens(name), batch_of(name)
    raw: dict[str, Tensor] = {}
    parts = {f"{part}.{i}": layer.get_submodule(part) for i, layer in enumerate(lens.layers) for part in ("self_attn", "mlp")}
    handles = [
        module.register_forward_hook(lambda _, args, output, key=key: raw.__setitem__(key, output[0] if type(output) is tuple else output))
        for key, module in parts.items()
    ]
    mine = ours(lens, inputs)
    for handle in handles:
        handle.remove()
    for i, layer in enumerate(lens.layers):
        for site, part, path in zip(("attn_out", "mlp_out"), ("self_attn", "mlp"), POST_NORMED[name], strict=True):
            norm: Any = layer.get_submodule(path)
            assert torch.equal(norm(raw[f"{part}.{i}"]), mine[f"{site}.{i}"])
            assert not torch.allclose(raw[f"{part}.{i}"], mine[f"{site}.{i}"], atol=0.1)


@pytest.mark.parametrize(
    ("name", "sparse", "shared"),
    [("qwen3_vl_moe", [0, 2], None), ("qwen3_5_moe", [0, 1, 2, 3], "shared_expert"), ("glm4v_moe", [1, 2], "shared_experts")],
)
def test_mlp_out_is_the_whole_mixture_of_experts(name: str, sparse: list[int], shared: str | None) -> None:
    """MoE: mlp_out is routed and shared experts together, in layers that have experts and in those that do not."""
    lens, inputs = zoo_lens(name), batch_of(name)
    assert [i for i, layer in enumerate(lens.layers) if "experts" in dict(layer.get_submodule("mlp").named_children())] == sparse
    routed: dict[int, Tensor] = {}
    handles = [
        lens.layers[i].get_submodule("mlp.experts").register_forward_hook(lambda _, args, output, i=i: routed.__setitem__(i, output))
        for i in sparse
    ]
    mine = ours(lens, inputs, ("mlp_out",))
    for handle in handles:
        handle.remove()
    for layer in sparse:
        alone = routed[layer].view_as(mine[f"mlp_out.{layer}"])
        assert torch.allclose(alone, mine[f"mlp_out.{layer}"]) == (shared is None)


def test_mllama_cross_attention_layers_have_a_site_of_their_own() -> None:
    """Mllama: every few layers look at the picture instead of at the text; where they are, the configuration says."""
    lens = zoo_lens("mllama")
    assert [block.site for block in lens.blocks] == ["attn_out", "cross_attn_out", "attn_out", "cross_attn_out"]
    assert [str(site) for site in lens.expand("cross_attn_out")] == ["cross_attn_out.1", "cross_attn_out.3"]
    assert [str(site) for site in lens.expand(["attn_out", "resid_post.3"])] == ["attn_out.0", "attn_out.2", "resid_post.3"]
    for asked in ("attn_out.1", "cross_attn_out.2"):
        with pytest.raises(
            ValueError, match=f"'{asked}' is not in this model: attn_out is at layers 0, 2; cross_attn_out is at layers 1, 3"
        ):
            lens.expand(asked)
    with pytest.raises(ValueError, match="no layer has cross_attn_out"):
        zoo_lens("qwen2").expand("cross_attn_out")


def test_mllama_adds_its_gated_and_masked_outputs() -> None:
    """resid_post = resid_pre + tanh(g) · cross_attn_out + tanh(g') · mask · mlp_out; the mask is 0 at tokens in front of the picture."""
    lens = zoo_lens("mllama")
    prompts = zoo_prompts("mllama", 4)[1::2]
    inputs = dict(encode(lens, prompts, side="right").inputs)
    mine = ours(lens, inputs)
    mask = inputs["cross_attention_mask"].flatten(2).any(-1, keepdim=True)
    assert bool(mask.any()) and not bool(mask.all())
    for layer in (1, 3):
        attention, mlp = (gate(lens, Site(site, layer)) for site in ("cross_attn_out", "mlp_out"))
        assert attention is not None and mlp is not None and float(attention) == float(mlp) == pytest.approx(0.6043678)
        pre, out, wide, post = (mine[f"{site}.{layer}"] for site in ("resid_pre", "cross_attn_out", "mlp_out", "resid_post"))
        torch.testing.assert_close(pre + attention * out + mlp * mask * wide, post, atol=1e-6, rtol=1e-6)
        assert not torch.allclose(pre + attention * out + mlp * wide, post)
    assert gate(lens, Site("attn_out", 0)) is None and gate(lens, Site("resid_post", 1)) is None


def test_mllama_skips_its_cross_attention_layers_without_a_picture() -> None:
    lens = zoo_lens("mllama")
    mine = ours(lens, batch_of("mllama", images=False))
    assert {int(site.split(".")[1]) for site in mine} == {0, 2} and torch.equal(mine["resid_post.0"], mine["resid_pre.2"])


def test_mllama_rows_without_a_picture_must_not_share_a_batch_with_rows_that_have_one() -> None:
    """In a mixed batch the cross-attention layers run for every row, and a row without a picture gets something added all the same."""
    lens = zoo_lens("mllama")
    assert [name for name, family in FAMILIES.items() if not family.mixes] == ["mllama"]
    alone, pictured = (batch_of("mllama", images=images, n=1) for images in (False, True))
    short = pictured["input_ids"].shape[1] - alone["input_ids"].shape[1]
    both = {  # the text row as the processor writes it beside one with a picture: no tile, no token that sees one
        key: torch.cat([torch.nn.functional.pad(alone[key], (short, 0)) if key in alone else torch.zeros_like(value), value])
        for key, value in pictured.items()
    }
    mixed = forward(lens, both).last_hidden_state[0, -1]
    alone = forward(lens, alone).last_hidden_state[0, -1]
    assert not torch.allclose(alone, mixed, atol=1e-3)


# entries that are wrong


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        (
            "gemma3",
            {"block": Block(mlp_adds="post_feedforward_layernorm")},
            r"in layer 0 resid_pre \+ attn_out \+ mlp_out is up to .* away",
        ),
        ("glm4v", {"block": Block(attention_adds="post_self_attn_layernorm")}, "'post_self_attn_layernorm' and 'mlp' are not what joins"),
        ("qwen3_5", {"layer_types": ""}, "layer 0 has no 'self_attn' for attn_out"),
        ("mllama", {"layer_types": ""}, "layer 1 has no 'self_attn' for attn_out"),
        ("mllama", {"blocks": {"cross_attention_layers": Block(attention="cross_attn")}}, r"layers fired as \[0, 2\]"),
        (
            "mllama",
            {"blocks": {"cross_attention_layers": replace(FAMILIES["mllama"].blocks["cross_attention_layers"], mlp_gate="g")}},
            "'mlp'",
        ),
        ("qwen3_vl", {"layers": "model.visual.blocks", "block": Block("attn", "proj")}, "3 layers at|not what joins|expected"),
        ("qwen2", {"block": Block(mlp="mlp.down_proj.weight")}, "no 'mlp.down_proj.weight'"),
        ("qwen2", {"block": Block(mlp="mlp.up_proj")}, r"mlp_out.0 is \(1, 8, 48\), expected a tensor \(1, 8, 32\)"),
        ("qwen2", {"block": Block(heads="hidden_act")}, "layer 0 takes the number of heads from 'hidden_act'"),
        ("qwen2", {"block": Block(heads="heads")}, "from 'heads', which is no number"),
        ("qwen2", {"block": Block(heads="num_hidden_layers")}, "head_out.0 has 32 numbers a token, which 3 heads .* do not share evenly"),
    ],
)
def test_a_wrong_entry_is_found_by_the_forward_at_load(name: str, wrong: dict[str, Any], message: str) -> None:
    lens = zoo_lens(name)
    with pytest.raises(ValueError, match=message):
        wrap(lens.model, lens.processor, name="m", family=replace(lens.family, **wrong), sha="-")


def test_an_entry_may_say_that_its_layers_do_not_sum() -> None:
    lens = zoo_lens("gemma3")
    assert wrap(lens.model, lens.processor, name="m", family=Family(sums=False), sha="-").n_layers == 4


def test_a_model_that_computes_no_finite_numbers_is_refused() -> None:
    processor = zoo_processor("llama")
    model: Any = zoo_model("llama", processor)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3] = float("nan")
    with pytest.raises(ValueError, match="resid_post.1 is not finite .* weights are damaged, or torch.float32 is too narrow"):
        wrap(model, processor, name="m")


def test_the_check_leaves_no_hook_and_keeps_the_callers() -> None:
    processor = zoo_processor("qwen2")
    model: Any = zoo_model("qwen2", processor)
    mine = model.model.layers[0].register_forward_hook(lambda *_: None)
    wrap(model, processor, name="m")
    with pytest.raises(ValueError):
        wrap(model, processor, name="m", family=replace(FAMILIES["qwen2"], block=Block(mlp="mlp.up_proj")))
    assert [hook for m in model.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)] == [mine.id]


@pytest.mark.parametrize("name", FAMILIES_TINY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_check_allows_for_the_rounding_of_half_precision(name: str, dtype: torch.dtype) -> None:
    processor = zoo_processor(name)
    assert wrap(zoo_model(name, processor).to(dtype), processor, name=name, sha="-").dtype == dtype


def test_layer_types_are_read_from_names_and_from_numbers() -> None:
    class Config:
        num_hidden_layers = 3
        kinds = ["a", "b", "c"]
        listed = [2, 0]
        none: list[int] = []

    blocks = {"b": Block("x"), "listed": Block("y"), "none": Block("z")}

    def attentions(field: str) -> list[str]:
        return [block.attention for block in blocks_of(Family(layer_types=field, blocks=blocks), Config)]

    assert attentions("kinds") == ["self_attn", "x", "self_attn"] and attentions("") == ["self_attn"] * 3
    assert attentions("listed") == ["y", "self_attn", "y"] and attentions("none") == ["self_attn"] * 3


def test_an_unknown_architecture_shows_how_to_write_an_entry() -> None:
    class Config:
        model_type = "novel"

    with pytest.raises(ValueError, match=r"no entry for the architecture 'novel'; known are qwen2_vl, .*family=Family\(.*block=Block\("):
        family_of(Config)
