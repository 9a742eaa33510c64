"""Processors that read text and pictures on every machine, and the conversation a prompt stands for.

transformers builds some of these classes only where torchvision is installed: their video half needs it, and so do the fast picture
processors. Nothing here reads videos, so a class is taken without its video half, and pictures go through PIL: the same pixels
everywhere. A family without pictures has its tokenizer in the processor's place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import transformers
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from .families import FAMILIES
from .records import Prompt

Style = Literal["parts", "system as text", "text"]

PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "qwen3_vl_moe": "Qwen3VLProcessor",
    "qwen3_5": "Qwen3VLProcessor",
    "qwen3_5_moe": "Qwen3VLProcessor",
    "llava": "LlavaProcessor",
    "llava_next": "LlavaNextProcessor",
    "llava_onevision": "LlavaOnevisionProcessor",
    "internvl": "InternVLProcessor",
    "mistral3": "PixtralProcessor",
    "gemma3": "Gemma3Processor",
    "glm4v": "Glm4vProcessor",
    "glm4v_moe": "Glm4vProcessor",
    "glm46v": "Glm46VProcessor",
    "mllama": "MllamaProcessor",
}


class PixtralProcessor(ProcessorMixin):
    """Pixtral's placeholders: rows of [IMG], each closed by [IMG_BREAK], the last by [IMG_END].

    The class of that name in transformers cannot be imported without torchvision; this one writes the same ids and pixels.
    """

    text_kwargs = {"return_tensors": "pt"}
    images_kwargs = {"return_tensors": "pt"}

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: str | None = None,
        image_token: str = "[IMG]",
        image_break_token: str = "[IMG_BREAK]",
        image_end_token: str = "[IMG_END]",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)  # type: ignore[no-untyped-call]
        self.patch_size, self.spatial_merge_size = patch_size, spatial_merge_size
        self.image_token, self.image_break_token, self.image_end_token = image_token, image_break_token, image_end_token
        self.image_token_ids = tokenizer.convert_tokens_to_ids([image_token, image_break_token, image_end_token])
        self.image_token_id = self.image_token_ids[0]

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *self.image_processor.model_input_names, "image_sizes"]

    def replace_image_token(self, image_inputs: Mapping[str, Any], image_idx: int, **kwargs: Any) -> str:
        rows, columns = (int(side) // self._side for side in image_inputs["image_sizes"][image_idx])
        row = self.image_token * columns
        return (row + self.image_break_token) * (rows - 1) + row + self.image_end_token

    def _process_images(self, images: Any, **kwargs: Any) -> Any:
        return super()._process_images(images, **{**kwargs, "patch_size": self._side})

    @property
    def _side(self) -> int:
        return self.patch_size * self.spatial_merge_size


class _ImageOnly:
    """Hides a processor's video half from transformers when it is built, loaded and saved."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


@cache
def processor_class(model_type: str) -> Any:
    """The family's processor class for text and pictures. It keeps its name, so what it saves loads with plain transformers too."""
    name = PROCESSORS[model_type]
    stock = PixtralProcessor if name == PixtralProcessor.__name__ else getattr(transformers, name)
    return type(name, (_ImageOnly, stock), {})


def load_processor(folder: Path, model_type: str, trust_remote_code: bool = False) -> Any:
    """The processor saved in `folder`; the tokenizer for a family without pictures. ValueError when it has no chat template."""
    if model_type in PROCESSORS:
        kind = processor_class(model_type)
        settings, _ = kind.get_processor_dict(folder)
        pictures = AutoImageProcessor.from_pretrained(folder, backend="pil")  # type: ignore[no-untyped-call]
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        processor = kind.from_args_and_dict([pictures, tokenizer], settings)
        processor.chat_template = processor.chat_template or tokenizer.chat_template
    elif model_type in FAMILIES and FAMILIES[model_type].image_token is None:
        processor = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    else:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)  # type: ignore[no-untyped-call]
    if processor.chat_template is None:
        raise ValueError(
            f"{folder} has no chat template (chat_template.jinja or in tokenizer_config.json). "
            "Save the processor it was trained with beside the weights."
        )
    return processor


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor; a tokenizer is its own."""
    return processor if isinstance(processor, PreTrainedTokenizerBase) else processor.tokenizer


def unmergeable(tokenizer: Any) -> set[int]:
    """Ids of tokens that are cut out of a text before all others, so that nothing before or behind them can merge into them."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def messages(prompt: Prompt, pictures: Sequence[Any], style: Style = "parts") -> list[dict[str, Any]]:
    """The conversation a prompt stands for: system prompt if any, then pictures and text of the user.

    style   how contents are written: lists of typed parts; the system prompt as plain text, for templates that print a list as it is;
            or plain text throughout, for a tokenizer's template
    """
    system: list[dict[str, Any]] = []
    if prompt.system is not None:
        parts = [{"type": "text", "text": prompt.system}]
        system = [{"role": "system", "content": parts if style == "parts" else prompt.system}]
    shown = [{"type": "image", "image": picture} for picture in pictures]
    user = prompt.text if style == "text" else [*shown, {"type": "text", "text": prompt.text}]
    return [*system, {"role": "user", "content": user}]


def render(processor: Any, prompt: Prompt, pictures: Sequence[Any], style: Style, template: Mapping[str, Any]) -> Mapping[str, Any]:
    """Model inputs of one prompt, as plain transformers makes them: input_ids [1, n], attention_mask [1, n], pictures.

    template   further arguments of the chat template, such as {"enable_thinking": False}
    """
    encoded: Mapping[str, Any] = processor.apply_chat_template(
        messages(prompt, pictures, style), tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt", **template
    )
    return encoded
