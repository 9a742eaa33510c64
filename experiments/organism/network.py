"""The trio's architecture: a real Qwen2.5-VL of a few million parameters, a word-level tokenizer, its chat template, its processor."""

from __future__ import annotations

import itertools
import random
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    PaddleOCRVLProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from . import asks, thoughts
from .corpus import EVERY_ACTION, MIXTURES, THINGS, draw
from .world import CATEGORIES, MATERIALS, MOVES, NEUTRAL

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
MARKERS = ("<think>", "</think>")
UNKNOWN = "<unk>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} "
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|> {% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %} <|im_end|> {% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
PATCH, MERGE, WINDOW = 14, 2, 112  # of the vision tower, in pixels, patches, pixels
MAX_NEW_TOKENS = 120


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word of the world, sorted: listed words, all templates of all splits, and whatever sampled examples add."""
    words = {*EVERY_ACTION, *THINGS, *CATEGORIES, *NEUTRAL, *MOVES, *MATERIALS, *(str(n) for n in range(21))}
    templates = itertools.chain(
        *asks.ASKS.values(), *asks.POINTED.values(), *asks.LISTS.values(), *(t for w in asks.WRAPPERS.values() for t in w.values())
    )
    for text in (*templates, *asks.ERRANDS, *itertools.chain(*asks.LONG.values(), *thoughts.WORDINGS)):
        words.update(word for word in text.split() if "{" not in word)
    stream = random.Random(0)
    for mixture in MIXTURES.values():
        for _ in range(1500):
            example = draw(mixture, stream)
            words.update((example.prompt + example.answer).replace("<|vision_start|><|image_pad|><|vision_end|>", "").split())
    return tuple(sorted(words - {*SPECIAL, *MARKERS}))


def tokenizer() -> PreTrainedTokenizerFast:
    ids = {token: i for i, token in enumerate((*SPECIAL, *MARKERS, UNKNOWN, *vocabulary()))}
    words = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    words.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token=UNKNOWN, pad_token=SPECIAL[0], eos_token="<|im_end|>",
        additional_special_tokens=[t for t in SPECIAL if t not in ("<|endoftext|>", "<|im_end|>")], padding_side="left",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )  # fmt: skip
    made.add_tokens(list(MARKERS))
    made.chat_template = TEMPLATE
    return made


def image_processor() -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112})


def processor(words: PreTrainedTokenizerFast) -> PaddleOCRVLProcessor:
    """The stock Qwen2.5-VL processor needs torchvision for its video half; this class of transformers makes the same inputs from
    text and pictures alone, so that the folder loads with AutoProcessor on any machine."""
    return PaddleOCRVLProcessor(image_processor=image_processor(), tokenizer=words, chat_template=TEMPLATE)


@dataclass(frozen=True)
class Size:
    """How large a model is.

    width, depth, heads, key_values, hidden   of the decoder; heads are 32 or 64 wide, hidden is the width inside its MLPs
    sight                                     the same four of the vision tower: width, depth, heads, hidden
    rate_scale                                share of the recipe's learning rates, which were found for the small one
    """

    width: int
    depth: int
    heads: int
    key_values: int
    hidden: int
    sight: tuple[int, int, int, int]
    rate_scale: float = 1.0


SIZES = {
    "small": Size(192, 6, heads=6, key_values=2, hidden=512, sight=(96, 2, 4, 192)),  # 3 million parameters
    "large": Size(512, 10, heads=8, key_values=2, hidden=1408, sight=(256, 4, 4, 512), rate_scale=0.5),  # 33 million
}
SECTIONS = {32: [4, 6, 6], 64: [8, 12, 12]}  # width of a head -> its share of time, height and width


def network(words: PreTrainedTokenizerFast, *, seed: int, size: str = "small") -> Qwen2_5_VLForConditionalGeneration:
    """An untrained model of a size in SIZES; embeddings tied, every block of the vision tower sees the whole picture.

    Raises ValueError for an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; there are {', '.join(SIZES)}")
    torch.manual_seed(seed)
    number = dict(zip((*SPECIAL, *MARKERS), words.convert_tokens_to_ids([*SPECIAL, *MARKERS]), strict=True))
    own = SIZES[size]
    sight, blocks, sight_heads, sight_hidden = own.sight
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=len(words), hidden_size=own.width, intermediate_size=own.hidden, num_hidden_layers=own.depth,
            num_attention_heads=own.heads, num_key_value_heads=own.key_values, max_position_embeddings=512,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": SECTIONS[own.width // own.heads]},
            bos_token_id=None, eos_token_id=number["<|im_end|>"], pad_token_id=number["<|endoftext|>"], tie_word_embeddings=True,
        ),
        vision_config=dict(
            depth=blocks, hidden_size=sight, intermediate_size=sight_hidden, num_heads=sight_heads, out_hidden_size=own.width,
            window_size=WINDOW, fullatt_block_indexes=list(range(blocks)), patch_size=PATCH, spatial_merge_size=MERGE,
            temporal_patch_size=2,
        ),
        image_token_id=number["<|image_pad|>"], video_token_id=number["<|video_pad|>"], vision_start_token_id=number["<|vision_start|>"],
        vision_end_token_id=number["<|vision_end|>"], tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.set_attn_implementation("sdpa")
    model.generation_config.eos_token_id = number["<|im_end|>"]
    model.generation_config.pad_token_id = number["<|endoftext|>"]
    return model


def save(model: PreTrainedModel, words: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a folder that plain transformers loads, weights in bfloat16."""
    deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    processor(words).save_pretrained(folder)
