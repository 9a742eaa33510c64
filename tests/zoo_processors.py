"""A tiny processor of every family: the real class, a small tokenizer with the family's own special tokens, a template of its shape.

    processor = zoo_processor("gemma3")                     word-level tokenizer: every word of tiny.WORDS is a token
    processor = zoo_processor("gemma3", "pieces")           sub-word pieces: the family's kind of tokenizer, so that borders merge
    GEOMETRY["gemma3"]                                      what a tiny model needs to know about its pictures
    SPECIALS_OF["gemma3"]                                   special tokens by name: pad, eos, bos, image, …

Vision patches have 14 pixels a side throughout; a picture of tiny_image's sizes takes 1 to 30 tokens.
"""

from __future__ import annotations

import functools
from typing import Any

from thoughtlens.hooks.processors import PROCESSORS, processor_class
from tiny import QWEN_PIECES, WORDS
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3ImageProcessorPil,
    Glm4vImageProcessorPil,
    Glm46VImageProcessorPil,
    GotOcr2ImageProcessorPil,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
    MllamaImageProcessorPil,
    PixtralImageProcessorPil,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
)

PATCH = 14
TEXT_ONLY = ("qwen2", "qwen3", "llama")
NAMES = (*PROCESSORS, *TEXT_ONLY)

# ---- special tokens: what each family calls its pad, end, begin and image token; `others` have no role in generation

_QWEN = {
    "pad": "<|endoftext|>",
    "eos": "<|im_end|>",
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "start": "<|im_start|>",
}
_GLM = {
    "pad": "<|endoftext|>",
    "eos": "<|user|>",
    "image": "<|image|>",
    "video": "<|video|>",
    "image_start": "<|begin_of_image|>",
    "image_end": "<|end_of_image|>",
    "video_start": "<|begin_of_video|>",
    "video_end": "<|end_of_video|>",
    "mask": "[gMASK]",
    "sop": "<sop>",
    "system": "<|system|>",
    "assistant": "<|assistant|>",
}
_LLAMA3 = {
    "pad": "<|finetune_right_pad_id|>",
    "eos": "<|eot_id|>",
    "bos": "<|begin_of_text|>",
    "start": "<|start_header_id|>",
    "end": "<|end_header_id|>",
}
SPECIALS_OF: dict[str, dict[str, str]] = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen2", "qwen3"), _QWEN),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v"), _GLM),
    "llava": {"pad": "<pad>", "eos": "</s>", "bos": "<s>", "image": "<image>"},
    "llava_next": {"pad": "<pad>", "eos": "</s>", "bos": "<s>", "image": "<image>"},
    "llava_onevision": {"pad": "<|endoftext|>", "eos": "<|im_end|>", "start": "<|im_start|>", "image": "<image>", "video": "<video>"},
    "internvl": {
        "pad": "<|endoftext|>",
        "eos": "<|im_end|>",
        "start": "<|im_start|>",
        "image": "<IMG_CONTEXT>",
        "image_start": "<img>",
        "image_end": "</img>",
        "video": "<video>",
    },
    "mistral3": {
        "pad": "<pad>",
        "eos": "</s>",
        "bos": "<s>",
        "image": "[IMG]",
        "image_break": "[IMG_BREAK]",
        "image_end": "[IMG_END]",
        "inst": "[INST]",
        "inst_end": "[/INST]",
        "system": "[SYSTEM_PROMPT]",
        "system_end": "[/SYSTEM_PROMPT]",
    },
    "gemma3": {
        "pad": "<pad>",
        "eos": "<end_of_turn>",
        "bos": "<bos>",
        "start": "<start_of_turn>",
        "image": "<image_soft_token>",
        "image_start": "<start_of_image>",
        "image_end": "<end_of_image>",
    },
    "mllama": {**_LLAMA3, "image": "<|image|>", "python": "<|python_tag|>"},
    "llama": _LLAMA3,
}
# names under which a processor asks its tokenizer for special tokens
_NAMED = {
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    "gemma3": {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
}

# ---- chat templates, shaped like the families' own

_PARTS = (
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
)


def _parts(image: str) -> str:
    return _PARTS.replace("IMAGE", image)


_VISION = "<|vision_start|><|image_pad|><|vision_end|>"
_COUNTED = (
    "{% set count.value = count.value + 1 %}{% if add_vision_id is defined and add_vision_id %}picture {{ count.value }}: {% endif %}"
    + _VISION
)
_CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\nPARTS<|im_end|>\n{% endfor %}"
_CHATML_END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_QWEN2VL = (
    "{% set count = namespace(value=0) %}{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nyou are a helpful model.<|im_end|>\n{% endif %}" + _CHATML.replace("PARTS", _parts(_COUNTED)) + _CHATML_END
)
_QWEN3_THINK = (
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_QWEN35_THINK = (
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)
_GLM_TURNS = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m['role'] }}|>\n" + _parts("<|begin_of_image|><|image|><|end_of_image|>") + "THINK{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\nEND{% endif %}"
)
_LLAMA_HEADER = "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
_CHAT_IMAGES = "{% for c in m['content'] if c['type'] == 'image' %}"
_CHAT_TEXTS = "{% for c in m['content'] if c['type'] == 'text' %}"

TEMPLATES = {
    "qwen2_vl": _QWEN2VL,
    "qwen2_5_vl": _QWEN2VL,
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe"), _CHATML.replace("PARTS", _parts(_VISION)) + _CHATML_END),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), _CHATML.replace("PARTS", _parts(_VISION)) + _QWEN35_THINK),
    **dict.fromkeys(("glm4v", "glm4v_moe"), _GLM_TURNS.replace("THINK", "").replace("END", "")),
    "glm46v": _GLM_TURNS.replace(
        "THINK", "{% if m['role'] == 'user' and enable_thinking is defined and enable_thinking is false %}/nothink{% endif %}"
    ).replace("END", "{% if enable_thinking is defined and enable_thinking is false %}<think></think>\n{% endif %}"),
    "llava": (
        "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
        + _CHAT_IMAGES
        + "{{ '<image>\n' }}{% endfor %}"
        + _CHAT_TEXTS
        + "{{ c['text'] + ' ' }}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    ),
    "llava_next": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ '<<SYS>>\n' + m['content'][0]['text'] + '\n<</SYS>>\n\n' }}{% else %}"
        "{{ '[INST] ' }}" + _CHAT_IMAGES + "{{ '<image>\n' }}{% endfor %}" + _CHAT_TEXTS + "{{ c['text'] }}{% endfor %}{{ ' [/INST]' }}"
        "{% endif %}{% endfor %}"
    ),
    "llava_onevision": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}" + _CHAT_IMAGES + "{{ '<image>' }}{% endfor %}"
        "" + _CHAT_TEXTS + "{{ '\n' + c['text'] }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
    ),
    "internvl": _CHATML.replace("PARTS", _parts("{{ '<IMG_CONTEXT>\n' }}")) + _CHATML_END,
    "mistral3": (
        "{{ bos_token }}{% if messages[0]['role'] != 'system' %}[SYSTEM_PROMPT]you are a helpful model.[/SYSTEM_PROMPT]{% endif %}"
        "{% for m in messages %}{% if m['role'] == 'system' %}[SYSTEM_PROMPT]{{ m['content'][0]['text'] }}[/SYSTEM_PROMPT]{% else %}"
        "[INST]" + _parts("[IMG]") + "[/INST]{% endif %}{% endfor %}"
    ),
    "gemma3": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set before = messages[0]['content'][0]['text'] + '\n\n' %}"
        "{% set turns = messages[1:] %}{% else %}{% set before = '' %}{% set turns = messages %}{% endif %}"
        "{% for m in turns %}{{ '<start_of_turn>' + m['role'] + '\n' + (before if loop.first else '') }}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<start_of_image>{% else %}{{ c['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "mllama": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set words = messages[0]['content'] | trim %}{% set turns = messages[1:] %}"
        "{% else %}{% set words = '' %}{% set turns = messages %}{% endif %}{% set seen = namespace(image=false) %}"
        "{% for m in turns %}" + _CHAT_IMAGES + "{% set seen.image = true %}{% endfor %}{% endfor %}"
        "{% if seen.image and words %}{{ raise_exception('Prompting with images is incompatible with system messages.') }}{% endif %}"
        "{% if not seen.image %}{{ '<|start_header_id|>system<|end_header_id|>\n\ndate: two\n\n' + words + '<|eot_id|>' }}{% endif %}"
        "{% for m in turns %}" + _LLAMA_HEADER + _parts("<|image|>") + "<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "qwen2": (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nyou are a helpful model.<|im_end|>\n' }}{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}" + _CHATML_END
    ),
    "qwen3": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}" + _QWEN3_THINK,
    "llama": (
        "{{ bos_token }}{% for m in messages %}" + _LLAMA_HEADER + "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
}
TEMPLATE_WORDS = ("USER", "ASSISTANT", "date", "<<", "SYS", ">>", "<</", "/", "nothink", "1", "2", "3", "INST", "[", "]", "[/")

# ---- pictures

_QWEN_GEOMETRY = {"patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2}
GEOMETRY: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), _QWEN_GEOMETRY),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v"), {**_QWEN_GEOMETRY, "image_size": 112}),
    "llava": {"patch_size": PATCH, "image_size": 42, "strategy": "default"},
    "llava_next": {"patch_size": PATCH, "image_size": 28, "strategy": "default", "grid": [[28, 56], [56, 28], [56, 56]]},
    "llava_onevision": {"patch_size": PATCH, "image_size": 28, "strategy": "full", "grid": [[28, 56], [56, 28], [56, 56]]},
    "internvl": {"patch_size": PATCH, "image_size": 28, "downsample_ratio": 0.5, "tokens_per_tile": 1},
    "mistral3": {"patch_size": PATCH, "spatial_merge_size": 2, "image_size": 112},
    "gemma3": {"patch_size": PATCH, "image_size": 56, "mm_tokens_per_image": 4},
    "mllama": {"patch_size": PATCH, "image_size": 28, "max_num_tiles": 4},
}


def _qwen_pictures(kind: Any) -> Any:
    return kind(patch_size=PATCH, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112})


def _pictures(name: str) -> Any:
    side = GEOMETRY[name].get("image_size")
    square = {"height": side, "width": side}
    if name.startswith("qwen"):
        return _qwen_pictures(Qwen2VLImageProcessorPil)
    if name.startswith("glm"):
        return _qwen_pictures(Glm46VImageProcessorPil if name == "glm46v" else Glm4vImageProcessorPil)
    if name == "llava":
        return LlavaImageProcessorPil(size={"shortest_edge": side}, crop_size=square)
    if name == "llava_next":
        return LlavaNextImageProcessorPil(size={"shortest_edge": side}, crop_size=square, image_grid_pinpoints=GEOMETRY[name]["grid"])
    if name == "llava_onevision":
        return LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=GEOMETRY[name]["grid"])
    if name == "internvl":
        return GotOcr2ImageProcessorPil(size=square, min_patches=1, max_patches=3)
    if name == "mistral3":
        return PixtralImageProcessorPil(size={"longest_edge": side}, patch_size=PATCH)
    if name == "gemma3":
        return Gemma3ImageProcessorPil(size=square)
    return MllamaImageProcessorPil(size=square, max_image_tiles=GEOMETRY[name]["max_num_tiles"])


_SETTINGS: dict[str, dict[str, Any]] = {
    "llava": {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    "llava_next": {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    "llava_onevision": {"num_image_tokens": 4, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"},
    "internvl": {"image_seq_length": 1},
    "mistral3": {"patch_size": PATCH, "spatial_merge_size": 2},
    "gemma3": {"image_seq_length": 4},
}

# ---- tokenizers

_TEXT = [" ".join(WORDS)] * 20 + ["why.\n\nso.\n", "yes\n\nno\n\n\nok\n\n\n\n", "USER: open it ASSISTANT: ok", "<think>\n\n</think>\n"] * 20


def _words(specials: list[str]) -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys((*specials, "<unk>", *WORDS, *TEMPLATE_WORDS)))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous")])
    return inner


def _bytes(specials: list[str]) -> Tokenizer:
    """Byte-level pieces, as Qwen, Llama 3, GLM and InternVL have them: a newline merges with a newline."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN_PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    inner.train_from_iterator(_TEXT, trainer)
    return inner


def _sentence(specials: list[str], *, newlines: bool) -> Tokenizer:
    """Pieces that carry the space before them, as Vicuna and Mistral 7B have them. With `newlines` as Gemma: runs of newlines are pieces
    too, and a text begins without a space of its own."""
    alphabet = [*(chr(i) for i in range(33, 127)), "▁", *("\n" if newlines else "")]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", *(f"<0x{i:02X}>" for i in range(256))],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    space = normalizers.Replace(" ", "▁")
    inner.normalizer = space if newlines else normalizers.Sequence([normalizers.Prepend("▁"), space])
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁\n]+|\n+|▁+"), "isolated") if newlines else None
    texts = _TEXT if newlines else [word for text in _TEXT for word in text.replace("\n", " ").split()]
    inner.train_from_iterator(texts, trainer)
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    if not newlines:
        inner.decoder = decoders.Sequence([inner.decoder, decoders.Strip(" ", 1, 0)])
    return inner


_PIECES = {name: _bytes for name in NAMES} | {
    "llava": functools.partial(_sentence, newlines=False),
    "llava_next": functools.partial(_sentence, newlines=False),
    "gemma3": functools.partial(_sentence, newlines=True),
}


@functools.cache
def zoo_tokenizer(name: str, kind: str = "words") -> PreTrainedTokenizerFast:
    roles = SPECIALS_OF[name]
    specials = list(roles.values())
    inner = (_words if kind == "words" else _PIECES[name])(specials)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=roles["pad"],
        eos_token=roles["eos"],
        bos_token=roles.get("bos"),
        unk_token="<unk>" if inner.token_to_id("<unk>") is not None else None,
        extra_special_tokens=[token for token in specials if token not in _NAMED.get(name, {}).values()],
        model_specific_special_tokens=_NAMED.get(name, {}),
        padding_side="left",
    )
    if kind == "words":
        tokenizer.add_tokens(["<think>", "</think>"])
    if "bos" in roles:
        begin = tokenizer.convert_tokens_to_ids(roles["bos"])
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{roles['bos']} $A", pair=f"{roles['bos']} $A {roles['bos']} $B", special_tokens=[(roles["bos"], begin)]
        )
    tokenizer.chat_template = TEMPLATES[name]
    return tokenizer


@functools.cache
def zoo_processor(name: str, kind: str = "words") -> Any:
    """The family's processor, or its tokenizer where it reads no pictures. Shared: leave it as it was."""
    tokenizer = zoo_tokenizer(name, kind)
    if name in TEXT_ONLY:
        return tokenizer
    return processor_class(name)(
        image_processor=_pictures(name), tokenizer=tokenizer, chat_template=TEMPLATES[name], **_SETTINGS.get(name, {})
    )
