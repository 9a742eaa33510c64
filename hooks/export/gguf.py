"""GGUF control vector: what llama.cpp adds behind its blocks, to every token of every sequence, pictures included.

    direction.k   [d] float32        l_out of block k (from 0) += scale · direction.k        0 < k < number of blocks

The strength is baked in, so that the scale to use is 1 (`--control-vector`). llama.cpp refuses direction.0, other tensors and other types,
and passes over a k beyond its blocks without a word, so all of this is checked before and after writing. It reads none of the file's keys;
`controlvector.model_hint` names the architecture as llama.cpp's converter does. EasySteer and repeng read the same file.

ggml-org/llama.cpp, common_control_vector_load and build_cvec; Vogel 2024 (repeng).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..edits import Edit
from ..provenance import facts_of
from .adding import behind_blocks
from .placing import behind, sums
from .refusing import BLOCKS, NOT_LOCAL, Rule

if TYPE_CHECKING:
    from ..model import LensModel

FILE = "steering.gguf"
ARCHITECTURES: Mapping[str, str] = {  # type of the text model -> what llama.cpp calls it
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen2_vl_text": "qwen2vl",
    "qwen2_5_vl_text": "qwen2vl",
    "qwen3_vl_text": "qwen3vl",
    "qwen3_vl_moe_text": "qwen3vlmoe",
    "qwen3_5_text": "qwen35",
    "qwen3_5_moe_text": "qwen35moe",
    "gemma3_text": "gemma3",
    "glm4v_text": "glm4",
    "glm4v_moe_text": "glm4moe",
}
WRAPPED: Mapping[str, str] = {"mistral3": "mistral3"}  # type of the whole model, where its converter tells it from the text model alone

RULES = (
    *BLOCKS,
    NOT_LOCAL,
    Rule(
        lambda asked: architecture(asked.lens) is None,
        "llama.cpp has no architecture for {text}",
        "Export it as lora, merged, easysteer or vllm-lens",
    ),
    Rule(
        lambda asked: behind(asked.site) == 0,
        "{site} is behind block 0, where llama.cpp takes no vector: it refuses direction.0",
        "Use add at a later site, or export it as easysteer, vllm-lens or lora, which can act there",
    ),
)


def architecture(lens: LensModel) -> str | None:
    """What llama.cpp calls the model; None where it has no such architecture."""
    return WRAPPED.get(lens.model.config.model_type, ARCHITECTURES.get(lens.text_config.model_type))


def write(lens: LensModel, edits: Sequence[Edit], folder: Path) -> dict[str, Any]:
    """Write the control vector; what is worth knowing of it comes back."""
    hint = architecture(lens)
    assert hint is not None
    return write_directions(lens, edits, folder, hint)


def write_directions(lens: LensModel, edits: Sequence[Edit], folder: Path, hint: str) -> dict[str, Any]:
    """The same under another hint: EasySteer knows models by the names of transformers."""
    import gguf

    found = sums(lens, edits)
    writer = gguf.GGUFWriter(folder / FILE, "controlvector")
    writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(found))
    writer.add_string("thoughtlens.made_for", json.dumps(facts_of(lens)))
    for layer, vector in found.items():
        writer.add_tensor(f"direction.{layer}", vector.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"model_hint": hint, "layers": list(found), "norms": {layer: float(vector.norm()) for layer, vector in found.items()}}


def read_directions(path: Path) -> dict[int, Float[Tensor, " d"]]:
    """The vectors of a control vector file by block, checked as llama.cpp checks them. ValueError for a file that it would refuse."""
    import gguf

    found: dict[int, Tensor] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        name, _, number = tensor.name.partition(".")
        if name != "direction" or not number.isdigit():
            raise ValueError(f"{path} holds a tensor {tensor.name!r}, and a control vector holds direction.<block> alone")
        if tensor.tensor_type != gguf.GGMLQuantizationType.F32 or len(tensor.shape) != 1:
            raise ValueError(f"{tensor.name} of {path} is {tensor.tensor_type.name} {tensor.shape.tolist()}, not one float32 vector")
        found[int(number)] = torch.from_numpy(np.array(tensor.data))
    if len({len(vector) for vector in found.values()}) != 1:
        raise ValueError(f"{path} holds {len(found)} directions, which are to be at least one and equally long")
    return found


@contextmanager
def through_llama_cpp(lens: LensModel, folder: Path) -> Iterator[LensModel]:
    """What llama.cpp computes with the file: direction.k added behind block k, where 0 < k < number of blocks, in float32."""
    found = read_directions(folder / FILE)
    if strange := [layer for layer in found if not 0 < layer < lens.n_layers]:
        raise ValueError(f"llama.cpp would not add direction.{strange[0]} to a model of {lens.n_layers} blocks")
    with behind_blocks(lens, {layer: _adding(vector.to(lens.device)) for layer, vector in found.items()}) as steered:
        yield steered


def _adding(vector: Float[Tensor, " d"]) -> Callable[[Tensor], Tensor]:
    return lambda hidden: (hidden.float() + vector.to(hidden.device)).to(hidden.dtype)
