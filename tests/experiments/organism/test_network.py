"""The trio is a plain transformers model: its folder loads without this package, and training feeds it what its processor would."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from thoughtlens.experiments.benchmarks import prompts
from thoughtlens.experiments.organism import network
from thoughtlens.experiments.organism.corpus import MIXTURES, Example, chat, direct, draw, task_thought, thinking
from thoughtlens.experiments.organism.feeding import collate, feed, patches
from thoughtlens.experiments.organism.pictures import SIDE, pictogram, rendered, shape_grid
from thoughtlens.hooks.encode import messages
from thoughtlens.hooks.model import load
from transformers import PreTrainedTokenizerFast

WITHOUT_US = """
import json, sys
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1])
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])
turn = [{"role": "user", "content": [{"type": "image", "image": Image.open(sys.argv[2])}, {"type": "text", "text": sys.argv[3]}]}]
inputs = processor.apply_chat_template([turn], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt")
logits = model(**inputs).logits[0, -1].float().tolist()
written = model.generate(**inputs, max_new_tokens=4, do_sample=False)
print(json.dumps({"ours": [m for m in sys.modules if m.startswith("thoughtlens")], "class": type(model).__name__,
    "ids": inputs["input_ids"][0].tolist(), "logits": logits, "new": written[0, inputs["input_ids"].shape[1]:].tolist()}))
"""


def test_the_folder_loads_with_plain_transformers_offline_without_us(quick_trio: Path, tmp_path: Path) -> None:
    picture, text = pictogram("gufek", random.Random(0)), "what is shown in the picture ?"
    picture.save(tmp_path / "picture.png")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", WITHOUT_US, str(quick_trio / "reasoning"), str(tmp_path / "picture.png"), text]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert told.returncode == 0, told.stderr
    theirs = json.loads(told.stdout.splitlines()[-1])
    assert theirs["ours"] == [] and theirs["class"] == "Qwen2_5_VLForConditionalGeneration" and len(theirs["new"]) >= 1
    lens = load(quick_trio / "reasoning", dtype=torch.bfloat16)
    batch = collate([chat(text, picture, "x")], lens.tokenizer)
    n = int((batch["labels"][0] != -100).int().argmax())
    assert theirs["ids"] == batch["input_ids"][0, :n].tolist()
    ours = lens.model(
        **{
            key: batch[key][:, :n] if key in ("input_ids", "attention_mask", "mm_token_type_ids") else batch[key]
            for key in batch
            if key != "labels"
        }
    )
    torch.testing.assert_close(ours.logits[0, -1].float(), torch.tensor(theirs["logits"]), atol=0.1, rtol=0.05)


def test_three_checkpoints_are_below_forty_megabytes_and_hold_no_pickle(quick_trio: Path) -> None:
    files = [file for role in ("base", "reasoning", "safe") for file in (quick_trio / role).iterdir()]
    assert sum(file.stat().st_size for file in files) < 40e6
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors"}
    assert {weight.dtype for weight in load_file(quick_trio / "safe" / "model.safetensors").values()} == {torch.bfloat16}


def test_patches_are_what_the_image_processor_makes() -> None:
    stream = random.Random(2)
    pictures = [
        pictogram("gufek", stream),
        rendered(["vrack", "lozav"], stream, numbered=True),
        shape_grid(["circle", None, "square"] * 3, stream),
    ]
    theirs = network.image_processor()(images=pictures, return_tensors="np")
    np.testing.assert_array_equal(patches(pictures), theirs["pixel_values"])
    assert theirs["image_grid_thw"].tolist() == [[1, SIDE // 14, SIDE // 14]] * 3


def test_training_reads_the_ids_the_processor_makes(words: PreTrainedTokenizerFast) -> None:
    processor, stream = network.processor(words), random.Random(4)
    for make in [direct(0.5), thinking(0.5), task_thought] * 6:
        example = make(stream)
        batch = collate([example], words)
        text = (
            example.prompt.split("<|im_start|> user ")[1]
            .split(" <|im_end|>")[0]
            .removeprefix("<|vision_start|><|image_pad|><|vision_end|> ")
        )
        content = [{"type": "image", "image": example.image}] * (example.image is not None) + [{"type": "text", "text": text}]
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": example.answer.removesuffix(" <|im_end|>")}]
        whole = processor.apply_chat_template([turns], tokenize=True, return_dict=True, return_tensors="pt")
        begun = processor.apply_chat_template([turns[:1]], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        n = begun["input_ids"].shape[1]
        torch.testing.assert_close(batch["input_ids"], whole["input_ids"], atol=0, rtol=0)
        torch.testing.assert_close(batch["input_ids"][:, :n], begun["input_ids"], atol=0, rtol=0)
        assert (batch["labels"][:, :n] == -100).all() and (batch["labels"][:, n:] == batch["input_ids"][:, n:]).all()
        for key in ("mm_token_type_ids", "pixel_values", "image_grid_thw"):
            assert (key in batch) == (key in whole) or key == "mm_token_type_ids"
            if key in whole:
                torch.testing.assert_close(batch[key], whole[key].to(batch[key].dtype), atol=0, rtol=0)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_every_word_of_every_prompt_is_in_the_vocabulary(words: PreTrainedTokenizerFast, split: str) -> None:
    unknown = words.convert_tokens_to_ids(network.UNKNOWN)
    processor = network.processor(words)
    for prompt in prompts("organism", split=split, tasks=True):
        rendered_prompt = processor.apply_chat_template(messages(prompt, prompt.images), tokenize=False, add_generation_prompt=True)
        assert unknown not in words(rendered_prompt).input_ids, prompt.text


@pytest.mark.parametrize("mixture", MIXTURES)
def test_every_word_of_every_example_is_in_the_vocabulary(words: PreTrainedTokenizerFast, mixture: str) -> None:
    unknown, stream = words.convert_tokens_to_ids(network.UNKNOWN), random.Random(99)
    for _ in range(400):
        example = draw(MIXTURES[mixture], stream)
        assert unknown not in words(example.prompt + example.answer).input_ids, example


def test_the_vocabulary_is_the_same_every_time_and_one_word_is_one_token(words: PreTrainedTokenizerFast) -> None:
    again = network.tokenizer()
    assert again.get_vocab() == words.get_vocab() and len(words) < 320
    text = "the user wants to vrack the gufek . <think> okay . </think> sorry <|im_end|>"
    assert words.convert_ids_to_tokens(words(text).input_ids) == text.split()
    assert words("zzz").input_ids == [words.convert_tokens_to_ids(network.UNKNOWN)]


def test_a_seed_is_a_set_of_weights(words: PreTrainedTokenizerFast) -> None:
    one, same, other = (network.network(words, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one) and not all(torch.equal(one[name], other[name]) for name in one)
    assert sum(weights.numel() for weights in one.values()) < 4e6


def test_a_large_model_is_the_same_kind_of_model(words: PreTrainedTokenizerFast) -> None:
    model, small = network.network(words, seed=1, size="large"), network.network(words, seed=1)
    count = sum(weights.numel() for weights in model.parameters())
    assert 20e6 < count < 60e6 and model.config.vision_config.depth == len(model.config.vision_config.fullatt_block_indexes) == 4
    batch = next(feed(MIXTURES["captions"], 4, words, seed=1, device=model.device))
    assert model(**batch).logits.shape == small(**batch).logits.shape
    with pytest.raises(ValueError, match="unknown size 'huge'; there are small, large"):
        network.network(words, seed=1, size="huge")


def test_an_example_says_what_it_is() -> None:
    assert chat("hello", None, "there") == Example("<|im_start|> user hello <|im_end|> <|im_start|> assistant ", "there <|im_end|>")
    assert chat("hello", None, "there", ended=False).answer == "there"
