"""Loading: damaged and foreign checkpoints are refused in words; encoding equals plain transformers row by row."""

import json
import logging
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from thoughtlens.hooks import FAMILIES, Prompt, encode, load, wrap
from thoughtlens.hooks.checkpoint import weight_files
from thoughtlens.hooks.dialects import choose
from thoughtlens.hooks.families import Block
from thoughtlens.hooks.processors import tokenizer_of
from tiny import tiny_folder, tiny_image, tiny_lens, tiny_model, tiny_processor, tiny_prompts
from transformers import AutoModelForImageTextToText
from zoo import zoo_model
from zoo_processors import zoo_processor

LENSES = ("words", "pieces")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("words"), tmp_path / "model"))


def test_a_loaded_model_says_what_it_is() -> None:
    lens = tiny_lens("words")
    assert (lens.name, lens.n_layers, lens.width, lens.context, lens.opened) == ("tiny-words-0", 3, 32, 256, False)
    assert lens.dtype == torch.float32 and not lens.model.training and lens.steering is None
    assert lens.inner is lens.model.model and lens.layers is lens.model.model.language_model.layers
    assert load(tiny_folder("words"), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_loading_leaves_weights_and_hooks_alone() -> None:
    lens = tiny_lens("words")
    plain = AutoModelForImageTextToText.from_pretrained(tiny_folder("words"), dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), lens.model.state_dict().values(), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lens.model.modules())


def test_the_fingerprint_follows_weights_and_config(copy: Path) -> None:
    mine = load(copy).fingerprint
    assert mine == tiny_lens("words").fingerprint != tiny_lens("pieces").fingerprint
    weights = load_file(copy / "model.safetensors")
    weights[next(name for name in weights if name.endswith("norm.weight"))][0] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert load(copy).fingerprint != mine


def test_a_model_in_memory_is_wrapped_and_fingerprinted() -> None:
    processor = tiny_processor("words")
    one, same, other = (wrap(tiny_model(processor.tokenizer, seed=seed), processor, name="m") for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint and one.path is None


def test_a_folder_that_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere, and .* is no hub id"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="could not be fetched.*or give a local folder"):
        load("nobody/nothing-of-this-name")
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        load(tmp_path)


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "lacks the weights model.safetensors; safetensors files there: none"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
            "is cut short: .* bytes where its header names",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:100]),
            "is cut short: 100 bytes, its header alone",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"no"), "is not a safetensors file"),
        (
            lambda f: (
                (f / "model.safetensors")
                .rename(f / "model.safetensors.index.json")
                .write_text('{"weight_map": {"a": "part-1.safetensors"}}')
            ),
            "lacks the weights part-1.safetensors",
        ),
        (
            lambda f: change_config(f, model_type="idefics3"),
            "no entry for the architecture 'idefics3'; known are qwen2_vl, .*family=Family",
        ),
        (drop_weight, "no fitting weights for 1 parameters, first '.*up_proj.weight': they would be random"),
        (lambda f: (f / "chat_template.jinja").unlink(), "has no chat template"),
    ],
)
def test_damage_is_named_before_anything_runs(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(copy)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": "model.visual.blocks"}, "2 layers at 'model.visual.blocks', the configuration says 3"),
        ({"layers": "model.decoder.layers"}, "names 'model.decoder.layers', which the model does not have"),
        ({"inner": "decoder"}, "names 'decoder', which the model does not have"),
        ({"block": Block(attention="attn")}, "layer 0 has no 'attn' for attn_out"),
        ({"block": Block(out="out_proj")}, "layer 0 has no 'self_attn.out_proj' for head_out"),
        ({"block": Block(mlp="ffn")}, "layer 0 has no 'ffn' for mlp_out"),
        ({"block": Block(attention_gate="gate")}, "layer 0 has no 'self_attn' for attn_out.*gate"),
    ],
)
def test_a_wrong_family_entry_is_found_at_load(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tiny_folder("words"), family=replace(FAMILIES["qwen2_5_vl"], **wrong))


def test_dialect_is_chosen_or_given() -> None:
    assert tiny_lens("pieces").dialect.name == "think"
    assert load(tiny_folder("words"), dialect="none").markers.opens == ()
    with pytest.raises(ValueError, match="unknown dialect 'x'"):
        load(tiny_folder("words"), dialect="x")


def test_an_opener_written_by_the_template_is_seen(copy: Path) -> None:
    template = (copy / "chat_template.jinja").read_text().replace("assistant {% endif %}", "assistant <think> {% endif %}")
    (copy / "chat_template.jinja").write_text(template)
    assert load(copy).opened


@pytest.mark.parametrize("kind", LENSES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_encoding_equals_the_chat_template_row_by_row(kind: str, side: str) -> None:
    lens = tiny_lens(kind)
    prompts = tiny_prompts(5, images=(1, 0, 2), systems=(None, "you are safe ."))
    prefixes = [[], [9, 10, 11], [], [12], []]
    batch = encode(lens, prompts, prefixes=prefixes, side=side)
    patches, grids = [], []
    for row, (prompt, prefix) in enumerate(zip(prompts, prefixes, strict=True)):
        talk = [
            {"role": "user", "content": [*({"type": "image", "image": i} for i in prompt.images), {"type": "text", "text": prompt.text}]}
        ]
        if prompt.system:
            talk.insert(0, {"role": "system", "content": [{"type": "text", "text": prompt.system}]})
        plain = lens.processor.apply_chat_template(talk, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        ids = [*plain["input_ids"][0].tolist(), *prefix]
        start = batch.inputs["input_ids"].shape[1] - len(ids) if side == "left" else 0
        assert batch.ids[row] == ids == batch.inputs["input_ids"][row, start : start + len(ids)].tolist()
        assert (int(batch.offsets[row]), int(batch.lengths[row]), int(batch.prompt_lengths[row])) == (
            start,
            len(ids),
            len(ids) - len(prefix),
        )
        assert (
            int(batch.inputs["attention_mask"][row].sum()) == len(ids)
            and batch.inputs["attention_mask"][row, start : start + len(ids)].all()
        )
        assert batch.inputs["mm_token_type_ids"][row].sum() == plain["mm_token_type_ids"].sum()
        if prompt.images:
            patches.append(plain["pixel_values"])
            grids.append(plain["image_grid_thw"])
    assert torch.equal(batch.inputs["pixel_values"], torch.cat(patches)) and torch.equal(batch.inputs["image_grid_thw"], torch.cat(grids))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("images", [(0,), (0, 1)])
def test_a_batch_equals_its_prompts_one_by_one(side: str, images: tuple[int, ...]) -> None:
    lens = tiny_lens("words")
    prompts = tiny_prompts(5, images=images)
    batch = encode(lens, prompts, side=side)
    with torch.no_grad():
        together = lens.inner(**batch.inputs, use_cache=False).last_hidden_state
        for row, prompt in enumerate(prompts):
            alone = lens.inner(**encode(lens, [prompt]).inputs, use_cache=False).last_hidden_state[0]
            start = int(batch.offsets[row])
            torch.testing.assert_close(together[row, start : start + len(alone)], alone, atol=2e-5, rtol=1e-5)


def test_pictures_that_cannot_be_used_name_their_prompt(tmp_path: Path) -> None:
    lens = tiny_lens("words")
    with pytest.raises(FileNotFoundError, match=r"2 image files are missing, for prompt 'a': .*one.png; 'b': .*two.png"):
        encode(lens, [Prompt("a", "open", (tmp_path / "one.png",)), Prompt("b", "open", (str(tmp_path / "two.png"), tiny_image()))])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="image of prompt 'a' .* cannot be read"):
        encode(lens, [Prompt("a", "open", (tmp_path / "bad.png",))])
    tiny_image().save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:400])
    with pytest.raises(ValueError, match="image of prompt 'a' .* cannot be read"):
        encode(lens, [Prompt("a", "open", (tmp_path / "cut.png",))])
    with pytest.raises(ValueError, match="image of prompt 'a' has 10000 × 5001 pixels, more than 50 megapixels"):
        encode(lens, [Prompt("a", "open", (Image.new("1", (10_000, 5_001)),))])


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1", "LA"])
def test_pictures_of_every_mode_are_taken(mode: str) -> None:
    batch = encode(tiny_lens("words"), [Prompt("a", "open", (tiny_image().convert(mode),))])
    assert batch.inputs["pixel_values"].shape == (16, 1176)


def test_text_that_writes_a_placeholder_and_rows_too_long_are_refused() -> None:
    lens = tiny_lens("words")
    with pytest.raises(ValueError, match="prompt 'a' writes the image placeholder '<|image_pad|>'"):
        encode(lens, [Prompt("a", "look <|image_pad|> here")])
    with pytest.raises(ValueError, match="output of prompt 'a' holds the image placeholder at token 1"):
        encode(lens, [Prompt("a", "look")], prefixes=[[9, lens.frame.image_token_id]])
    with pytest.raises(ValueError, match="prompt 'a' takes 306 tokens .*, the context of tiny-words-0 is 256"):
        encode(lens, [Prompt("a", "open " * 301)])
    with pytest.raises(ValueError, match="no prompt to encode"):
        encode(lens, [])


# names


def test_a_model_is_called_by_the_folder_as_given_or_its_hub_id(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "my-model"
    link.symlink_to(copy)
    snapshot = Path(shutil.copytree(copy, tmp_path / "hub" / "models--some--one-7b" / "snapshots" / "0123abcd"))
    asked: list[str] = []
    monkeypatch.setattr("thoughtlens.hooks.model.choose", lambda kind, name, *rest: (asked.append(name), choose(kind, name, *rest))[1])
    assert load(link).name == "my-model" and str(link) in asked[-1] and str(copy.resolve()) in asked[-1]
    assert load(snapshot).name == load(str(snapshot) + "/").name == "some/one-7b"
    monkeypatch.chdir(copy)
    assert load(".").name == "model"


# weights


def test_beside_a_single_file_an_index_is_not_read_as_in_transformers(copy: Path, tmp_path: Path) -> None:
    other = tiny_model(tiny_processor("words").tokenizer, seed=7)
    other.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    for file in (tmp_path / "shards").glob("*.safetensors*"):
        shutil.copy(file, copy)
    assert [file.name for file in weight_files(copy)] == ["model.safetensors"] != [file.name for file in weight_files(tmp_path / "shards")]
    lens = load(copy)
    assert lens.fingerprint == tiny_lens("words").fingerprint
    assert all(torch.equal(a, b) for a, b in zip(lens.model.parameters(), tiny_lens("words").model.parameters(), strict=True))


def test_a_scalar_in_the_weights_is_hashed_and_weights_that_are_not_there_are_not() -> None:
    def made(scale: float) -> Any:
        model: Any = tiny_model(processor.tokenizer)
        model.model.register_buffer("scale", torch.tensor(scale))
        return model

    processor = tiny_processor("words")
    one, other = (wrap(made(scale), processor, name="m").fingerprint for scale in (1.0, 2.0))
    assert one != other
    model = tiny_model(processor.tokenizer)
    model.model.register_buffer("scale", torch.empty(2, device="meta"))
    with pytest.raises(ValueError, match="scale is not in memory .*Pass their fingerprint as sha="):
        wrap(model, processor, name="m")
    assert wrap(model, processor, name="m", sha="mine").fingerprint == "mine"


# how a layer is called


def test_a_layer_that_is_called_by_keywords_alone_is_named() -> None:
    processor = tiny_processor("words")
    model: Any = tiny_model(processor.tokenizer)
    layer = model.model.language_model.layers[1]

    class Called(type(layer)):  # type: ignore[misc]
        def __call__(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, hidden_states=hidden_states, **kwargs)

    layer.__class__ = Called
    with pytest.raises(ValueError, match=r"resid_pre.1 is the first argument of its module, and .* by keywords alone"):
        wrap(model, processor, name="m")


# end tokens


def ended_by(lens_of: str, named: str | None, caplog: pytest.LogCaptureFixture, **changes: str) -> tuple[list[str], str]:
    """End tokens of a tiny model whose generation config names one of them, and what was logged."""
    processor = deepcopy(zoo_processor(lens_of, "pieces"))
    tokenizer = tokenizer_of(processor)
    for field, value in changes.items():
        setattr(tokenizer, field, value)
    model = zoo_model(lens_of, processor)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = None if named is None else tokenizer.convert_tokens_to_ids(named)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        lens = wrap(model, processor, name="m", sha="-", dialect="none")
    return [str(tokenizer.convert_ids_to_tokens(end)) for end in lens.markers.eos_ids], caplog.text


def test_what_ends_a_turn_ends_an_output(caplog: pytest.LogCaptureFixture) -> None:
    pad = "<|finetune_right_pad_id|>"
    assert ended_by("qwen2_5_vl", "<|endoftext|>", caplog) == (["<|endoftext|>", "<|im_end|>"], "")  # its tokenizer knows better
    ends, said = ended_by("qwen3", "<|endoftext|>", caplog, eos_token="<|endoftext|>")  # neither does, the template does
    assert ends == ["<|endoftext|>", "<|im_end|>"] and "ends turns with '<|im_end|>'" in said
    ends, said = ended_by("llama", pad, caplog, eos_token=pad)
    assert ends == [pad, "<|eot_id|>"] and "ends turns with '<|eot_id|>'" in said
    assert ended_by("mllama", "<|eot_id|>", caplog) == (["<|eot_id|>"], "")
    assert ended_by("glm4v", None, caplog) == (["<|user|>"], "")  # <|assistant|> behind the user's words begins a turn
    ends, said = ended_by("mistral3", "</s>", caplog)  # this template writes a reply as if it were the user's
    assert ends == ["</s>"] and "'[/INST]' behind the user's words, and cannot say" in said


def test_an_end_the_template_cannot_tell_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    processor = deepcopy(zoo_processor("qwen3", "pieces"))
    refuses = "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('no replies') }}{% endif %}"
    processor.chat_template, processor.eos_token = refuses + processor.chat_template, "<|endoftext|>"
    model = zoo_model("qwen3", processor)
    lens = wrap(model, processor, name="m", sha="-")
    assert lens.markers.eos_ids == (processor.convert_tokens_to_ids("<|endoftext|>"),)
    assert "writes '<|im_end|>' behind the user's words, and cannot say whether the model ends with it too" in caplog.text
