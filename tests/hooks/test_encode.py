"""Prompts to batches: a row of a batch is what it is alone, in every family; pictures of every kind; errors that name the prompt."""

import hashlib
import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from thoughtlens.hooks import LensModel, Prompt, load
from thoughtlens.hooks.encode import MissingPicture, PromptError, check, encode
from tiny import tiny_image, tiny_lens, tiny_prompts
from zoo import FAMILIES_TINY, PICTURED, zoo_lens

PICTURES = {"mllama": ((0,), (1,), (2,))}  # its rows share a batch only with rows of as many pictures
SIZES = ((56, 56), (84, 56), (30, 112), (100, 33))


def prompts_of(name: str, counts: tuple[int, ...]) -> list[Prompt]:
    """Three prompts with pictures of different sizes."""
    prompts = tiny_prompts(3, images=(0,), systems=(None, "you are safe .") if name != "mllama" else (None,), seed=5)
    return [
        replace(prompt, images=tuple(tiny_image(10 * i + k, SIZES[(i + k) % 4]) for k in range(counts[i % len(counts)])))
        for i, prompt in enumerate(prompts)
    ]


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_a_row_of_a_batch_is_what_it_is_alone(name: str) -> None:
    lens = zoo_lens(name)
    for counts in PICTURES.get(name, ((0, 2, 1) if name in PICTURED else (0,),)):
        prompts, prefixes = prompts_of(name, counts), [[9, 10, 11], [], [12]]
        alone = [encode(lens, [prompt], prefixes=[prefix]) for prompt, prefix in zip(prompts, prefixes, strict=True)]
        states = [lens.inner(**batch.inputs, use_cache=False).last_hidden_state[0] for batch in alone]
        for side in ("left", "right"):
            batch = encode(lens, prompts, prefixes=prefixes, side=side)
            assert batch.ids == [one.ids[0] for one in alone]
            together = lens.inner(**batch.inputs, use_cache=False).last_hidden_state
            for row, state in enumerate(states):
                start = int(batch.offsets[row])
                torch.testing.assert_close(together[row, start : start + len(state)], state, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_a_prefix_continues_the_prompt_as_generation_does(name: str) -> None:
    lens = zoo_lens(name)
    prompts = prompts_of(name, (1,) if name in PICTURED else (0,))[:2]
    batch = encode(lens, prompts)
    kept: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True, "do_sample": False, "eos_token_id": None}
    if name in PICTURED:
        kept["suppress_tokens"] = [lens.frame.image_token_id]
    made = lens.model.generate(**batch.inputs, max_new_tokens=4, **kept)
    outputs = made.sequences[:, batch.inputs["input_ids"].shape[1] :].tolist()
    forced = encode(lens, prompts, prefixes=outputs)
    logits = lens.model(**forced.inputs, use_cache=False).logits[:, -5:-1]
    torch.testing.assert_close(logits, torch.stack(made.logits, dim=1), atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("name", FAMILIES_TINY)
def test_inputs_are_those_plain_transformers_makes(name: str) -> None:
    lens = zoo_lens(name)
    (prompt,) = prompts_of(name, (2,) if name in PICTURED else (0,))[:1]
    shown = [{"type": "image", "image": picture} for picture in prompt.images]
    content: Any = [*shown, {"type": "text", "text": prompt.text}] if name in PICTURED else prompt.text
    theirs = lens.processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    ours = encode(lens, [prompt]).inputs
    assert set(ours) == set(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_rows_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="prompts with 0, 1 pictures cannot share a batch of tiny-mllama"):
        encode(zoo_lens("mllama"), tiny_prompts(2, images=(0, 1)))


# what the shipped checkpoints' prompts were encoded to when their activations and vectors were made: 84 × 84 pixels need no resizing
SHIPPED = dict.fromkeys(("base", "reasoning", "safe"), "102c43cdf8b0ea1d1d0b610270aa6d0acd8b253c1dd38ce1580a2427905bdd38")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_checkpoints_read_what_they_always_read(name: str) -> None:
    lens = load(Path(__file__).parents[2] / "checkpoints" / name, device="cpu")
    chance, digest = random.Random(7), hashlib.sha256()
    for text, count in (("what is this ?", 1), ("how do i open the old lock .", 0), ("is this one or two", 2)):
        pictures = tuple(Image.frombytes("RGB", (84, 84), chance.randbytes(3 * 84 * 84)) for _ in range(count))
        inputs = encode(lens, [Prompt("p", text, pictures, system=None if count else "you are safe .")]).inputs
        for key in sorted(inputs):
            value = inputs[key].float() if inputs[key].is_floating_point() else inputs[key]
            digest.update(f"{key} {tuple(value.shape)}".encode() + (value * 1e4).round().long().numpy().tobytes())
    assert digest.hexdigest() == SHIPPED[name]


# ---- pictures


def shown(lens: LensModel, picture: Any) -> np.ndarray[Any, Any]:
    """What the model sees of one picture, as flat pixels."""
    return encode(lens, [Prompt("p", "look", (picture,))]).inputs["pixel_values"].numpy()


def same(lens: LensModel, picture: Any, rgb: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(shown(lens, picture), shown(lens, Image.fromarray(rgb.astype(np.uint8))), atol=0.03)


def test_pictures_of_every_mode_are_seen_as_on_a_white_page(tmp_path: Path) -> None:
    lens, chance = tiny_lens(), np.random.default_rng(0)
    rgb = chance.integers(0, 256, (56, 56, 3)).astype(np.uint8)
    alpha = chance.integers(0, 256, (56, 56, 1)).astype(np.uint8)
    on_white = (rgb * (alpha / 255) + 255 * (1 - alpha / 255)).round()
    same(lens, Image.fromarray(np.concatenate([rgb, alpha], axis=2)), on_white)
    same(lens, Image.fromarray(rgb[..., 0]), np.repeat(rgb[..., :1], 3, axis=2))
    same(lens, Image.fromarray(rgb[..., 0] > 127), np.repeat((rgb[..., :1] > 127) * 255, 3, axis=2))
    same(lens, Image.fromarray(np.concatenate([255 - rgb, np.zeros_like(alpha)], axis=2), mode="CMYK"), rgb)
    palette = Image.fromarray(rgb).quantize(16)
    same(lens, palette, np.asarray(palette.convert("RGB")))
    deep = chance.integers(0, 65536, (56, 56)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for picture in (Image.fromarray(deep), tmp_path / "deep.png", Image.fromarray(deep.astype(np.int32))):
        same(lens, picture, np.repeat((deep / 257).astype(np.uint8)[..., None], 3, axis=2))
    palette.info["transparency"] = 0
    palette.save(tmp_path / "palette.gif", transparency=0)
    seen = np.asarray(palette.convert("RGB")).copy()
    seen[np.asarray(palette) == 0] = 255
    same(lens, tmp_path / "palette.gif", seen)


def test_a_picture_is_seen_upright_and_a_moving_one_by_its_first_frame(tmp_path: Path) -> None:
    lens = tiny_lens()
    picture = tiny_image(3, (56, 84))
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: to be turned a quarter clockwise
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    same(lens, tmp_path / "turned.png", np.asarray(picture))
    frames = [Image.new("RGB", (56, 56), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    same(lens, tmp_path / "moving.gif", np.asarray(frames[0]))


def header_only(path: Path, width: int, height: int) -> Path:
    """A PNG that says how large it is and holds nothing else."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""))
    written = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))
    return path


def faulty(tmp_path: Path) -> dict[str, tuple[Prompt, str]]:
    """Prompts that cannot be encoded, with what the error says."""
    whole = tmp_path / "whole.png"
    tiny_image(0, (300, 300)).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no picture at all")
    placeholder = "<|image_pad|>"
    return {
        "missing": (Prompt("p7", "look", (tmp_path / "none.png",)), "1 image files are missing, for prompt 'p7'"),
        "half": (Prompt("p7", "look", (tmp_path / "half.png",)), "image of prompt 'p7' .* cannot be read"),
        "text": (Prompt("p7", "look", (str(tmp_path / "text.png"),)), "image of prompt 'p7' .* cannot be read"),
        "float": (Prompt("p7", "look", (Image.new("F", (56, 56)),)), "image of prompt 'p7' .* floating-point"),
        "large": (
            Prompt("p7", "look", (header_only(tmp_path / "a.png", 10_000, 10_000),)),
            "10000 × 10000 pixels, more than 50 megapixels",
        ),
        "huge": (Prompt("p7", "look", (header_only(tmp_path / "b.png", 60_000, 60_000),)), "prompt 'p7' has more than 178 megapixels"),
        "narrow": (Prompt("p7", "look", (Image.new("RGB", (1, 4000)),)), "prompt 'p7' is refused by the processor of .*aspect ratio"),
        "placeholder": (
            Prompt("p7", f"look {placeholder}"),
            f"prompt 'p7' writes the image placeholder '{placeholder}'".replace("|", r"\|"),
        ),
        "video": (Prompt("p7", "look <|video_pad|>"), "prompt 'p7' writes the image placeholder"),
        "system": (Prompt("p7", "look", system=f"{placeholder} ."), "prompt 'p7' writes the image placeholder"),
        "long": (Prompt("p7", "open " * 300), "prompt 'p7' takes .* tokens"),
    }


@pytest.mark.parametrize("fault", ["missing", "half", "text", "float", "large", "huge", "narrow", "placeholder", "video", "system", "long"])
def test_what_cannot_be_encoded_is_said_with_the_prompt(tmp_path: Path, fault: str) -> None:
    prompt, says = faulty(tmp_path)[fault]
    others = tiny_prompts(2, images=(1,))
    for asked in (lambda: check(tiny_lens(), prompt), lambda: encode(tiny_lens(), [*others, prompt])):
        with pytest.raises(PromptError, match=says) as error:
            asked()
        assert error.value.prompt_id == "p7" and isinstance(error.value, ValueError)
    for other in others:
        check(tiny_lens(), other)


def test_all_missing_pictures_are_named_at_once(tmp_path: Path) -> None:
    prompts = [Prompt(f"p{i}", "look", (tmp_path / f"{i}.png", tiny_image())) for i in range(3)]
    prompts[1].images[1].save(tmp_path / "1.png")
    with pytest.raises(FileNotFoundError, match=r"2 image files are missing, for prompt 'p0': .*0\.png; 'p2': .*2\.png") as error:
        encode(tiny_lens(), prompts)
    assert isinstance(error.value, MissingPicture) and error.value.prompt_id == "p0" and error.value.prompt_ids == ("p0", "p2")


@pytest.mark.parametrize("placeholder", ["<start_of_image>", "<image_soft_token>"])
def test_a_placeholder_that_stands_for_the_whole_block_is_refused_too(placeholder: str) -> None:
    with pytest.raises(PromptError, match="writes the image placeholder"):
        check(zoo_lens("gemma3"), Prompt("p", f"look {placeholder}"))


@pytest.mark.parametrize("limit", [12, 25, 33])
def test_a_prompt_that_the_tokenizer_cuts_off_is_refused(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    lens = zoo_lens("qwen2_5_vl")
    prompt = Prompt("p", "what is this shown here .", (tiny_image(), tiny_image(1, (84, 56))))
    assert encode(lens, [prompt]).lengths.item() == 34
    monkeypatch.setitem(lens.tokenizer.init_kwargs, "truncation", True)
    monkeypatch.setitem(lens.tokenizer.init_kwargs, "max_length", limit)
    with pytest.raises(PromptError, match="prompt 'p' (is refused by the processor|does not come out of the processor whole)"):
        check(lens, prompt)


def test_what_a_model_cannot_take_is_said() -> None:
    with pytest.raises(PromptError, match="prompt 'p' shows a picture, and tiny-qwen3 reads text alone"):
        check(zoo_lens("qwen3"), Prompt("p", "look", (tiny_image(),)))
    with pytest.raises(PromptError, match="Prompting with images is incompatible with system messages"):
        check(zoo_lens("mllama"), Prompt("p", "look", (tiny_image(),), system="you are safe ."))
    lens = replace(zoo_lens("qwen3"), frame=replace(zoo_lens("qwen3").frame, takes_system=False))
    with pytest.raises(PromptError, match="prompt 'p' has a system prompt, which the chat template of tiny-qwen3 does not take"):
        check(lens, Prompt("p", "look", system="you are safe ."))
    lens = zoo_lens("qwen3_vl")
    with pytest.raises(PromptError, match="the output of prompt 'p' holds the image placeholder at token 1"):
        encode(lens, [Prompt("p", "look")], prefixes=[[9, int(lens.frame.image_token_id or 0)]])
    with pytest.raises(ValueError, match="there is no prompt to encode"):
        encode(lens, [])
