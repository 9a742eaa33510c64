"""Merged: an edit written into the weights of a whole checkpoint, which plain transformers loads.

    W' = W + Uᵀ M U W        c' = c + Uᵀ M U c + Uᵀ b        (placing.py)

Only output projections of attention and MLP change, so embeddings and the output head stay tied where they are. Weights are written in the
dtype the model was loaded in, W' rounded once. A bias is written where the checkpoint keeps it on reload (retyping.py); a text model may
change its type for that, which computes the same. Tokenizer, processor and chat template are copied byte by byte from the folder the model
came from, and so is the generation config. The model in memory is not touched: the written one shares its tensors and replaces those that
change.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from ..edits import Edit
from ..model import wrap
from ..processors import load_processor
from .placing import Rewrite, linear, projection_path, rewrites
from .refusing import Asked, Rule
from .retyping import Form, form_for, new_biases

if TYPE_CHECKING:
    from ..model import LensModel
    from ..sites import Site

_OTHERS = ("config.json", "README.md", "thoughtlens.json", "measured.json")  # written anew, or about another checkpoint
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf", ".onnx")


def _biased(lens: LensModel, changes: dict[Site, Rewrite]) -> list[Site]:
    return new_biases(lens, [site for site, change in changes.items() if bool(change.constant.any())])


def _loses_bias(asked: Asked) -> bool:
    """Whether this edit brings a bias, and not all biases of all edits together would be kept. Told once, of the edit's first site."""
    if asked.site != asked.lens.expand(asked.edit.vector.sites)[0]:
        return False
    mine = _biased(asked.lens, rewrites(asked.lens, [asked.edit]))
    return bool(mine) and form_for(asked.lens, _biased(asked.lens, rewrites(asked.lens, asked.edits))) is None


TOGETHER = (
    Rule(
        _loses_bias,
        "{operator} needs a bias at an output projection, and a checkpoint of {text} has no place for it: transformers would drop it on "
        "reload with no more than a line in its log",
        "Export it as lora, whose bias is kept, or add at resid_post as gguf; or use ablate or subspace at {attention}.{layer} and "
        "mlp_out.{layer}, which need none",
    ),
)


def write(lens: LensModel, edits: Sequence[Edit], folder: Path) -> dict[str, Any]:
    """Write the checkpoint; what is worth knowing of it comes back."""
    changes = rewrites(lens, edits)
    form = form_for(lens, _biased(lens, changes))
    assert form is not None
    _twin(lens, form, _state(lens, changes)).save_pretrained(folder)
    _beside(lens, form, folder)
    return {
        "dtype": str(lens.dtype).removeprefix("torch."),
        "modules": [projection_path(lens, site) for site in changes],
        "class": form.kind.__name__,
        "switched": list(form.switched),
        "retyped": form.retyped,
    }


def _state(lens: LensModel, changes: dict[Site, Rewrite]) -> dict[str, Tensor]:
    """The model's weights by name, those of the changed projections replaced, new biases added."""
    state: dict[str, Tensor] = dict(lens.model.state_dict())
    for site, change in changes.items():
        module, path = linear(lens, site), projection_path(lens, site)
        weight = module.weight
        state[f"{path}.weight"] = change.weight(weight).to(weight.device)
        shift = change.shift(module.bias)
        if module.bias is not None or bool(shift.any()):
            bias = shift if module.bias is None else module.bias.detach().cpu().double() + shift
            state[f"{path}.bias"] = bias.to(weight.device, weight.dtype)
    return state


def _twin(lens: LensModel, form: Form, state: dict[str, Tensor]) -> Any:
    """A model of the form that holds these tensors, biases that no one gave being zero."""
    model = form.built()
    brought = {
        name: torch.zeros(held.shape, dtype=lens.dtype)
        for name, held in model.state_dict().items()
        if name not in state and form.switched and name.endswith(".bias")
    }
    model.load_state_dict({**state, **brought}, assign=True)
    if lens.path is None:
        model.generation_config = lens.model.generation_config
    assert not any(held.is_meta for held in model.state_dict().values())
    return model


def _beside(lens: LensModel, form: Form, folder: Path) -> None:
    """Tokenizer, processor and template: as they lie beside the weights, or as they are in memory. A text model of another type has its
    tokenizer written anew, since transformers chooses a tokenizer's class by the model's type unless the tokenizer names its own."""
    if lens.path is None or (form.retyped and lens.family.image_token is None):
        lens.processor.save_pretrained(folder)
        return
    for file in sorted(lens.path.iterdir()):
        if file.is_file() and file.name not in _OTHERS and not file.name.endswith(_WEIGHTS) and not file.name.startswith("."):
            shutil.copyfile(file, folder / file.name)


@contextmanager
def through_transformers(lens: LensModel, folder: Path) -> Iterator[LensModel]:
    """The checkpoint loaded by plain transformers, with its own tokenizer and processor. ValueError where it drops or lacks a weight."""
    auto: Any = AutoModelForCausalLM if lens.family.image_token is None else AutoModelForImageTextToText
    spread = vars(lens.model).get("hf_device_map")
    model, report = auto.from_pretrained(
        folder,
        dtype=lens.dtype,
        device_map=spread,
        attn_implementation=lens.model.config._attn_implementation,
        output_loading_info=True,
    )
    if lost := sorted(str(key) for kind in ("unexpected_keys", "missing_keys", "mismatched_keys") for key in report[kind]):
        raise ValueError(f"transformers does not load {len(lost)} weights of the merged checkpoint as they were written, first {lost[0]!r}")
    yield wrap(
        model if spread else model.to(lens.device),
        load_processor(folder, model.config.model_type),
        name=lens.name,
        path=folder,
        dialect=lens.dialect,
        family=lens.family,
        template=lens.template,
        sha=f"{lens.fingerprint} merged",
    )
