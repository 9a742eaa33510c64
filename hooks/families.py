"""Architecture facts as data: where a family keeps its decoder layers and what its image token is called.

Paths are attribute paths; `layers` and `inner` start at the model, the others at a layer. Nothing is guessed: a family without an entry
is an error that shows how to write one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """One architecture.

    layers        path of the ModuleList of decoder layers
    inner         path of the model without the output head
    attention     path of a layer's attention module (returns a tuple, hidden state first)
    mlp           path of a layer's MLP
    out           path of the output projection inside the attention module
    image_token   config field that holds the image placeholder's id
    norms         where the layer norms: "pre" (before each block)
    processor     processor class whose image-only subclass is used where videos cannot be processed; empty: none
    image_processor   its picture processor without torchvision
    note          what a reader of hidden states must know
    """

    layers: str
    inner: str
    attention: str
    mlp: str
    out: str
    image_token: str
    norms: str = "pre"
    processor: str = ""
    image_processor: str = ""
    note: str = ""


FAMILIES = {
    "qwen2_5_vl": Family(
        layers="model.language_model.layers",
        inner="model",
        attention="self_attn",
        mlp="mlp",
        out="o_proj",
        image_token="image_token_id",
        processor="Qwen2_5_VLProcessor",
        image_processor="Qwen2VLImageProcessorPil",
    ),
}


def family_of(config: Any) -> Family:
    """The entry for a model's configuration. ValueError shows how to write a missing one."""
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"no entry for the architecture {config.model_type!r}; known are {', '.join(FAMILIES)}. Pass "
            'family=Family(layers="model.language_model.layers", inner="model", attention="self_attn", mlp="mlp", out="o_proj", '
            'image_token="image_token_id") with the paths of this model (print(model) shows them), '
            "or add it to FAMILIES in hooks/families.py."
        )
    return FAMILIES[config.model_type]
