"""A tiny random Qwen2.5-VL with its own tokenizer and processor, and prompts and transcripts to feed it.

    folder = tiny_folder()                       saved once a session; `thoughtlens.load(folder)` reads it
    lens = tiny_lens()                           the same, loaded; shared, so leave it as it was
    prompts = tiny_prompts(4, images=(0, 1))     every second one with a picture
    transcripts = tiny_transcripts(lens, prompts, statuses=("closed", "unclosed"))

Words are tokens of their own ("words"), or pieces of a byte-level BPE in which `<think>` is several ordinary tokens ("pieces").
"""

from __future__ import annotations

import atexit
import functools
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from thoughtlens.hooks.dialects import split
from thoughtlens.hooks.model import LensModel, encode, load
from thoughtlens.hooks.processors import processor_class
from thoughtlens.hooks.records import Prompt, Transcript
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

torch.set_num_threads(1)

LOADED: list[LensModel] = []  # conftest checks after every test that nothing was left on these
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
WORDS = (
    "system user assistant you are a helpful model how do i open the old lock box door safe kind what is this picture shown "
    "first take then turn it slowly no yes sorry can not help with that because harm to people ok here one two three four five . ? ! , :"
).split()
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|> {% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %} <|im_end|> {% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
QWEN_PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nyou are a helpful model.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(kind: str = "words") -> PreTrainedTokenizerFast:
    if kind == "words":
        vocabulary = {token: i for i, token in enumerate((*SPECIALS, "<unk>", *WORDS))}
        inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        extra: dict[str, Any] = {"unk_token": "<unk>"}
    else:
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(QWEN_PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        inner.decoder = decoders.ByteLevel()
        text = [" ".join(WORDS)] * 20 + ["<think>\n\n</think>\n", "why.\n\nso.\n", "yes\n\nno\n\n\nok"] * 20
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
        inner.train_from_iterator(text, trainer)
        extra = {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(SPECIALS),
        padding_side="left",
        **extra,
    )
    if kind == "words":
        tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = TEMPLATE if kind == "words" else QWEN_TEMPLATE
    return tokenizer


def tiny_processor(kind: str = "words") -> Any:
    tokenizer = tiny_tokenizer(kind)
    pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112})
    return processor_class("qwen2_5_vl")(image_processor=pictures, tokenizer=tokenizer, chat_template=tokenizer.chat_template)


def tiny_model(tokenizer: PreTrainedTokenizerFast, *, layers: int = 3, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """Random weights; three layers of width 32, two picture layers of width 16."""
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("im_end", "endoftext", "image_pad", "video_pad", "vision_start", "vision_end")
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "bos_token_id": None,
            "eos_token_id": ids["im_end"],
            "pad_token_id": ids["endoftext"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1],
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
            elif name.endswith("bias"):
                parameter.normal_(std=0.02)
    model.generation_config.eos_token_id = ids["im_end"]
    model.generation_config.pad_token_id = ids["endoftext"]
    model.generation_config.do_sample = False
    return model.eval()


@functools.cache
def tiny_folder(kind: str = "words", seed: int = 0) -> Path:
    """A checkpoint folder, written once a session."""
    parent = tempfile.mkdtemp(prefix="thoughtlens-tiny-")
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    folder = Path(parent) / f"tiny-{kind}-{seed}"
    processor = tiny_processor(kind)
    tiny_model(processor.tokenizer, seed=seed).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@functools.cache
def tiny_lens(kind: str = "words", seed: int = 0) -> LensModel:
    """The tiny model, loaded; one for the session."""
    LOADED.append(load(tiny_folder(kind, seed), device="cpu"))
    return LOADED[-1]


def tiny_image(seed: int = 0, size: tuple[int, int] = (56, 56)) -> Image.Image:
    chance = random.Random(seed)
    return Image.frombytes("RGB", size, chance.randbytes(3 * size[0] * size[1]))


def tiny_prompts(n: int = 4, *, images: Sequence[int] = (0, 1), systems: Sequence[str | None] = (None,), seed: int = 0) -> list[Prompt]:
    """n prompts of different lengths. `images` and `systems` are repeated over them: pictures and system prompt of each."""
    chance = random.Random(seed)
    prompts = []
    for i in range(n):
        text = " ".join(chance.choice(WORDS) for _ in range(chance.randint(2, 9)))
        shown = tuple(tiny_image(100 * seed + 10 * i + k, (56, 56) if k % 2 == 0 else (84, 56)) for k in range(images[i % len(images)]))
        prompts.append(
            Prompt(
                f"p{i}",
                text,
                shown,
                system=systems[i % len(systems)],
                group=f"g{i // 2}",
                harmful=i % 2 == 0,
                split=("train", "dev", "test")[i % 3],
                category=("lock", "box")[i % 2],
            )
        )
    return prompts


def tiny_output(lens: LensModel, status: str, chance: random.Random) -> list[int]:
    """Random output ids of a split status, two sentences of thought, one of answer, with the end token where it is not truncated."""
    tokenizer, eos = lens.tokenizer, lens.markers.eos_ids[0]

    def words(n: int, end: str = " .") -> list[int]:
        text = "".join(f" {chance.choice(WORDS[:-5])}" for _ in range(n)) + end
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    thought = words(chance.randint(2, 5)) + words(chance.randint(1, 4))
    answer = words(chance.randint(2, 5))
    opener, closer = list(lens.markers.open_ids), list(lens.markers.close_ids)
    return {
        "closed": [*opener, *thought, *closer, *answer, eos],
        "unclosed": [*opener, *thought],
        "absent": [*answer, eos],
        "close_only": [*thought, *closer, *answer, eos],
        "multiple": [*opener, *thought, *closer, *answer, *opener, *thought, *closer, *answer, eos],
    }[status]


def tiny_transcripts(
    lens: LensModel, prompts: Sequence[Prompt], *, statuses: Sequence[str] = ("closed",), seed: int = 0
) -> list[Transcript]:
    """Transcripts with random outputs; `statuses` are repeated over the prompts."""
    chance = random.Random(seed)
    made = []
    for i, prompt in enumerate(prompts):
        output = tiny_output(lens, statuses[i % len(statuses)], chance)
        parts = split(output, lens.markers)
        ended = output[-1] in lens.markers.eos_ids
        made.append(
            Transcript(
                prompt,
                lens.name,
                prompt_ids=tuple(encode(lens, [prompt]).ids[0]),
                output_ids=tuple(output),
                text=lens.tokenizer.decode(output[:-1] if ended else output),
                ended=ended,
                status=parts.status,
                thought=lens.tokenizer.decode(output[slice(*parts.thought)]),
                answer=lens.tokenizer.decode(output[slice(*parts.answer)]),
            )
        )
    return made
