"""Processors without video, with pictures through PIL.

The stock Qwen2.5-VL processor cannot be built without torchvision, which its video half needs. Nothing here reads videos, so the
image-only subclass is used everywhere: the same pixels on every machine.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil


class ImageOnlyProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL processor for text and pictures."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **kwargs)  # type: ignore[no-untyped-call]


PROCESSORS = {"qwen2_5_vl": (ImageOnlyProcessor, Qwen2VLImageProcessorPil)}

if importlib.util.find_spec("torchvision") is None:
    AutoProcessor.register(Qwen2_5_VLConfig, ImageOnlyProcessor, exist_ok=True)  # type: ignore[no-untyped-call]


def load_processor(folder: Path, model_type: str, trust_remote_code: bool = False) -> Any:
    """The processor saved in `folder`. ValueError when it has no chat template."""
    if model_type in PROCESSORS:
        kind, image_kind = PROCESSORS[model_type]
        processor: Any = kind.from_pretrained(folder)
        processor.image_processor = image_kind.from_pretrained(folder)
    else:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)  # type: ignore[no-untyped-call]
    if processor.chat_template is None:
        raise ValueError(
            f"{folder} has no chat template (chat_template.jinja or in tokenizer_config.json). "
            "Save the processor it was trained with beside the weights."
        )
    return processor
