"""What the parts write sums to the readout in every family where it can, and taking heads away does what a hook by hand does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from thoughtlens.hooks import LensModel, Select, Transcript, capture, steer
from thoughtlens.hooks.capture import encode_transcripts
from thoughtlens.hooks.vector import Vector
from thoughtlens.probes import heads as module
from thoughtlens.probes.ablation import ablate, held
from thoughtlens.probes.heads import attribute
from thoughtlens.probes.metrics import resamples
from thoughtlens.probes.probe import SCORES, Probe
from tiny import tiny_lens, tiny_prompts, tiny_transcripts
from zoo import FAMILIES_TINY, zoo_lens, zoo_prompts

NORMED = ("gemma3", "glm4v", "glm46v")
LAYERED = tuple(name for name in FAMILIES_TINY if name not in NORMED)


def probe_at(site: str = "resid_post.2", span: str = "step_end[1]", pool: str = "mean", width: int = 32, seed: int = 0) -> Probe:
    weight = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return Probe(weight, 0.7, site, span, pool, "logistic", "harmful", "tiny", {name: torch.zeros(1) for name in SCORES})


def written(lens: LensModel, prompts: list, **asked) -> list[Transcript]:
    """Half of them dev, half test; every other one harmful; groups of two."""
    split = [replace(p, split=("dev", "test")[i // 2 % 2], harmful=i % 2 == 0, group=f"g{i // 2}") for i, p in enumerate(prompts)]
    return tiny_transcripts(lens, split, **asked)


@pytest.mark.parametrize("name", LAYERED)
def test_the_parts_sum_to_the_readout_in_every_family_of_plain_sums(name: str, tmp_path) -> None:
    lens = zoo_lens(name)
    transcripts = written(lens, zoo_prompts(name, 8))
    probe = probe_at()
    found = attribute(lens, transcripts, probe, batch_size=3, progress=False)
    store = capture(lens, transcripts, Select("resid_post.2", "step_end[1]"), into=tmp_path / "s", progress=False)
    hidden, index = store.rows()
    expected = dict(zip(index["prompt_id"], probe.readout(hidden[:, 0]).tolist(), strict=True))
    assert found.values.sum(1).tolist() == pytest.approx([expected[one] for one in found.index["prompt_id"]], abs=1e-4)
    heads = found.parts[found.parts["part"] == "head"].groupby("layer").size()
    assert heads.tolist() == [int(getattr(lens.text_config, lens.blocks[layer].heads)) for layer in range(3)]
    assert (found.parts["part"] == "mlp").sum() == 3 and len(found.parts) == len(found.parts.drop_duplicates())
    assert found.index["prompt_id"].tolist() == [t.id for t in transcripts]


@pytest.mark.parametrize("name", NORMED)
def test_a_norm_behind_the_attention_is_refused(name: str) -> None:
    lens = zoo_lens(name)
    with pytest.raises(ValueError, match="heads do not write to the residual stream alone: Norms stand behind attention"):
        attribute(lens, written(lens, zoo_prompts(name, 4)), probe_at(), progress=False)


def test_a_head_writes_what_its_slice_of_the_projection_makes_of_it() -> None:
    lens = tiny_lens()
    transcripts = written(lens, tiny_prompts(4))
    probe = probe_at("resid_post.1", "thought", "last")
    found = attribute(lens, transcripts, probe, progress=False)
    for row, transcript in enumerate(transcripts):
        seen: dict[str, torch.Tensor] = {}
        layers = lens.model.model.language_model.layers
        handles = [layers[0].register_forward_pre_hook(lambda _, args, seen=seen: seen.__setitem__("embedding", args[0][0]))]
        for i in (0, 1):
            handles.append(
                layers[i].self_attn.o_proj.register_forward_pre_hook(lambda _, args, seen=seen, i=i: seen.__setitem__(f"z{i}", args[0][0]))
            )
            handles.append(layers[i].mlp.register_forward_hook(lambda _, args, out, seen=seen, i=i: seen.__setitem__(f"mlp{i}", out[0])))
        with torch.no_grad():
            lens.model(**encode_transcripts(lens, [transcript]).inputs)
        for handle in handles:
            handle.remove()
        output = list(transcript.output_ids)
        last = len(transcript.prompt_ids) + output.index(lens.markers.close_ids[0]) - 1
        expected = {("embedding", -1, -1): float(seen["embedding"][last] @ probe.weight), ("bias", -1, -1): 0.7}
        for i in (0, 1):
            expected["mlp", i, -1] = float(seen[f"mlp{i}"][last] @ probe.weight)
            weight = layers[i].self_attn.o_proj.weight.detach()
            for head in range(4):
                there = slice(8 * head, 8 * head + 8)
                expected["head", i, head] = float(weight[:, there] @ seen[f"z{i}"][last, there] @ probe.weight)
        ours = dict(zip(found.parts.itertuples(index=False, name=None), found.values[row].tolist(), strict=True))
        assert ours == pytest.approx(expected, abs=1e-4)


def test_the_bias_of_a_projection_is_a_part_of_its_own() -> None:
    lens, probe = tiny_lens(), probe_at()
    projection = lens.layers[1].self_attn.o_proj
    projection.bias = torch.nn.Parameter(torch.linspace(-1, 2, 32))
    try:
        found = attribute(lens, written(lens, tiny_prompts(4)), probe, progress=False)
        expected = float(projection.bias.detach() @ probe.weight)
    finally:
        projection.bias = None
    of = found.parts[(found.parts["part"] == "bias") & (found.parts["layer"] == 1)].index
    assert found.values[:, of].flatten().tolist() == pytest.approx([expected] * 4, abs=1e-5)


@pytest.mark.parametrize("span, pool", [("thought", "mean"), ("thought", "first"), ("last_prompt", "mean"), ("answer", "last")])
def test_linear_pools_are_as_captured_and_others_are_refused(span: str, pool, tmp_path) -> None:
    lens = tiny_lens()
    transcripts = written(lens, tiny_prompts(6), statuses=("closed", "unclosed"))
    probe = probe_at("resid_post.2", span, pool)
    found = attribute(lens, transcripts, probe, batch_size=4, progress=False)
    store = capture(lens, transcripts, Select("resid_post.2", span, pool), into=tmp_path / "s", progress=False)
    hidden, index = store.rows()
    assert found.index["prompt_id"].tolist() == index["prompt_id"].tolist()
    assert found.values.sum(1).tolist() == pytest.approx(probe.readout(hidden[:, 0]).tolist(), abs=1e-4)
    for other in (replace(probe, pool="max"), replace(probe, pool="every"), replace(probe, site="attn_out.1")):
        with pytest.raises(ValueError, match="what heads write sums up at resid_post, pooled by mean, first, last"):
            attribute(lens, transcripts, other, progress=False)


def test_image_tokens_of_deepstack_and_sums_that_fail_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lens = zoo_lens("qwen3_vl")
    transcripts = written(lens, [p for p in zoo_prompts("qwen3_vl", 8) if p.images])
    with pytest.raises(ValueError, match="the span holds image tokens of tiny-qwen3_vl. DeepStack adds"):
        attribute(lens, transcripts, probe_at(span="image"), progress=False)
    attribute(lens, transcripts, probe_at(span="instruction"), progress=False)
    monkeypatch.setattr(module, "_check_pictures", lambda lens, run: None)
    with pytest.raises(ValueError, match="sum to something else than the readout at resid_post.2, by up to"):
        attribute(lens, transcripts, probe_at(span="image"), progress=False)


def test_tokens_in_front_of_mllamas_picture_are_refused_and_layers_that_did_not_run_wrote_nothing() -> None:
    lens = zoo_lens("mllama")
    transcripts = written(lens, zoo_prompts("mllama", 8))
    found = attribute(lens, transcripts, probe_at(), progress=False)
    crossing = found.parts.index[found.parts["layer"] == 1]
    pictured = [bool(t.prompt.images) for t in transcripts]
    assert ((found.values[:, crossing] != 0).any(1).tolist()) == pictured
    with pytest.raises(ValueError, match="more joins the residual at these tokens. Cross-attention layers are skipped"):
        attribute(lens, transcripts, probe_at(span="template", pool="first"), progress=False)


def test_the_table_is_numpys_and_its_shares_sum_to_one() -> None:
    lens = tiny_lens()
    found = attribute(lens, written(lens, tiny_prompts(24, images=(0,))), probe_at(), progress=False)
    table = found.table("dev", resampled=200)
    rows = np.flatnonzero(found.index["split"] == "dev")
    harmful, values = found.index["harmful"].to_numpy(dtype=bool)[rows], found.values.numpy()[rows]
    difference = values[harmful].mean(0) - values[~harmful].mean(0)
    np.testing.assert_allclose(table["difference"], difference, atol=1e-9)
    np.testing.assert_allclose(table["harmful"] - table["benign"], difference, atol=1e-9)
    np.testing.assert_allclose(table["share"], difference / difference.sum(), atol=1e-9)
    assert (
        table["share"].sum() == pytest.approx(1)
        and (table["n"] == 12).all()
        and (table["n_harmful"] == 6).all()
        and (table["groups"] == 6).all()
    )
    weights = resamples(found.index["group"].to_numpy(dtype=str)[rows], 200, 0).double().numpy()
    drawn = [np.average(values[harmful], 0, w[harmful]) - np.average(values[~harmful], 0, w[~harmful]) for w in weights]
    np.testing.assert_allclose(table[["low", "high"]].to_numpy().T, np.quantile(drawn, [0.025, 0.975], axis=0), atol=1e-6)
    with pytest.raises(
        ValueError, match="of 0 in the split 'train' with the span 0 are harmful. The transcripts are of the splits dev, test"
    ):
        found.table("train")


def test_prompts_without_label_or_span_are_left_out_and_steering_is_refused() -> None:
    lens = tiny_lens()
    transcripts = written(lens, tiny_prompts(6), statuses=("closed", "closed", "absent"))
    transcripts[0] = replace(transcripts[0], prompt=replace(transcripts[0].prompt, harmful=None))
    found = attribute(lens, transcripts, probe_at(), progress=False)
    assert found.index["prompt_id"].tolist() == ["p1", "p3", "p4"]
    elsewhere = attribute(lens, transcripts, probe_at(), span="last_prompt", progress=False)
    assert elsewhere.span == "last_prompt" and elsewhere.index["prompt_id"].tolist() == ["p1", "p2", "p3", "p4", "p5"]
    vector = Vector({"resid_post.1": torch.randn(32)}, "all", "mean", "test", {"resid_post.1": 1.0}, {})
    with steer(lens, vector.at("resid_post.1")), pytest.raises(ValueError, match="steering is active"):
        attribute(lens, transcripts, probe_at(), progress=False)


def by_hand(lens: LensModel, transcript: Transcript, at: int, heads: list, means: dict | None, probe: Probe):
    """The readout at one token with some heads held at means, and head_out there: hooks on transformers, no code of ours."""
    seen: dict[int, torch.Tensor] = {}
    handles, hidden = [], {}
    for i, layer in enumerate(lens.model.model.language_model.layers):

        def before(_, args, i=i):
            z = args[0].clone()
            for layer_of, head in heads:
                if layer_of == i:
                    z[0, at, 8 * head : 8 * head + 8] = means[i, head]
            seen[i] = z[0, at].clone()
            return (z, *args[1:])

        handles.append(layer.self_attn.o_proj.register_forward_pre_hook(before))
        handles.append(layer.register_forward_hook(lambda _, args, out, i=i: hidden.__setitem__(i, out[0, at])))
    with torch.no_grad():
        lens.model(**encode_transcripts(lens, [transcript]).inputs)
    for handle in handles:
        handle.remove()
    return float(probe.readout(hidden[2])), seen


def test_ablation_is_that_of_hooks_by_hand() -> None:
    lens = tiny_lens()
    transcripts = written(lens, tiny_prompts(16, images=(0, 1)))
    probe = probe_at(span="last_prompt")
    found = attribute(lens, transcripts, probe, progress=False)
    table = ablate(lens, transcripts, found, top=2, draws=3, batch_size=3, resampled=50, progress=False)
    assert table["ablated"].tolist() == ["none", "top", "random", "random", "random"] and table["heads"].iloc[0] == ""
    dev = found.table("dev").query("part == 'head'").sort_values("difference", ascending=False)
    assert table["heads"].iloc[1] == ", ".join(f"{row.layer}.{row.head}" for row in dev.head(2).itertuples())
    sides = {side: [t for t in transcripts if t.prompt.split == side] for side in ("dev", "test")}
    plain = [by_hand(lens, t, len(t.prompt_ids) - 1, [], None, probe)[1] for t in sides["dev"]]
    means = {(i, head): torch.stack([seen[i][8 * head : 8 * head + 8] for seen in plain]).mean(0) for i in range(3) for head in range(4)}
    harmful = np.array([t.prompt.harmful for t in sides["test"]])
    direct = found.table("test").set_index(["part", "layer", "head"])["difference"]
    for row in table.itertuples():
        chosen = [tuple(map(int, name.split("."))) for name in row.heads.split(", ") if name]
        assert len(set(chosen)) == (0 if row.ablated == "none" else 2)
        if row.ablated == "random":
            assert not set(chosen) & {(one.layer, one.head) for one in dev.head(2).itertuples()}
        readouts = np.array([by_hand(lens, t, len(t.prompt_ids) - 1, chosen, means, probe)[0] for t in sides["test"]])
        assert row.harmful == pytest.approx(readouts[harmful].mean(), abs=1e-4)
        assert row.difference == pytest.approx(readouts[harmful].mean() - readouts[~harmful].mean(), abs=1e-4)
        wins = (readouts[harmful][:, None] > readouts[~harmful]).mean()
        assert row.auroc == pytest.approx(wins) and row.auroc_low <= row.auroc <= row.auroc_high
        assert row.change == pytest.approx(row.difference - table["difference"][0], abs=1e-6)
        assert row.predicted == pytest.approx(-sum(direct["head", layer, head] for layer, head in chosen), abs=1e-6)
        assert row.n == 8 and row.groups == 4 and row.split == "test"
    assert table[["change", "change_low", "change_high"]].iloc[0].tolist() == [0, 0, 0]
    assert len({*table["heads"]}) > 3 and (table["change"].iloc[1:].abs() > 1e-4).any()


def test_in_the_last_layer_without_mlp_the_prediction_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    lens = tiny_lens()
    monkeypatch.setitem(lens.layers[2].mlp.down_proj._parameters, "weight", torch.nn.Parameter(torch.zeros(32, 48)))
    transcripts = written(lens, tiny_prompts(12))
    found = attribute(lens, transcripts, probe_at(), progress=False)
    monkeypatch.setattr("thoughtlens.probes.ablation._ranked", lambda attribution, split: [(2, head) for head in range(4)])
    table = ablate(lens, transcripts, found, top=2, draws=2, resampled=20, progress=False)
    assert table["change"].tolist() == pytest.approx(table["predicted"].tolist(), abs=1e-4) and (table["change"][1:].abs() > 1e-3).all()


@pytest.mark.parametrize("name", ["qwen3_5", "mllama", "llama"])
def test_heads_of_every_kind_of_layer_can_be_held(name: str) -> None:
    lens = zoo_lens(name)
    transcripts = written(lens, zoo_prompts(name, 8))
    found = attribute(lens, transcripts, probe_at(span="thought"), progress=False)
    table = ablate(lens, transcripts, found, top=3, draws=2, resampled=20, progress=False)
    assert (table["change"][1:].abs() > 1e-5).all() and table["difference"].notna().all()


def test_held_changes_a_copy_and_nothing_else() -> None:
    hidden = torch.randn(2, 3, 4, 5)
    before = hidden.clone()
    changed = held(hidden.transpose(0, 1).contiguous().transpose(0, 1), torch.tensor([1, 5]), [0, 2], torch.zeros(2, 5))
    assert torch.equal(hidden, before)
    where = torch.zeros(6, 4, dtype=torch.bool)
    where[[1, 1, 5, 5], [0, 2, 0, 2]] = True
    assert (changed.flatten(0, 1)[where] == 0).all() and torch.equal(changed.flatten(0, 1)[~where], before.flatten(0, 1)[~where])


def test_too_few_heads_are_told() -> None:
    lens = tiny_lens()
    transcripts = written(lens, tiny_prompts(8))
    found = attribute(lens, transcripts, probe_at("resid_post.0"), progress=False)
    with pytest.raises(ValueError, match="4 heads write to resid_post.0: too few for 3 and as many others"):
        ablate(lens, transcripts, found, top=3, progress=False)
