"""vLLM-Lens: a list of its SteeringVectors as JSON, the value of `apply_steering_vectors` in a request.

    norm_match false   h' = h + scale · v               behind each of the blocks named, at every token
    norm_match true    h' = h + scale · |h| · v / |v|   the unit "local" of steer()

    steering_vectors.json   [{activations, layer_indices, scale, norm_match}, …], the activations base64 of float32 [layers, d]
    activations.safetensors the same tensors by their number in the list, for use without HTTP

What only adds is one SteeringVector with the strength baked in; each edit in unit "local" is one of its own, its share of |h| as scale.
Activations [layers, d] act on every token; the other form, by position, is left alone. Where a model returns hidden state and residual
apart, |h| is that of both as they were, and else that of the hidden state as changed so far: the two agree where at most one edit of a
block counts in lengths of h, and it comes first, so nothing else is written.

UKGovernmentBEIS/vllm-lens 1.3, SteeringVector and _apply_steering; norm_match after arXiv:2512.15674 (activation oracles).
Shapes: d width of the model.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..attach import place
from ..edits import Edit
from .adding import behind_blocks
from .placing import behind, sums
from .refusing import BLOCKS, Asked, Rule

if TYPE_CHECKING:
    from ..model import LensModel

FILE, TENSORS = "steering_vectors.json", "activations.safetensors"
_EPS = 1e-6  # vllm-lens adds it to |v|


def _before(asked: Asked) -> bool:
    """Whether DeepStack changes the residual between the block and this site."""
    return asked.site.name == "resid_pre" and asked.site.layer - 1 in asked.lens.deepstack


def _crowded(asked: Asked) -> bool:
    """Whether a length is measured behind a block where another edit acts before it, or measures one too."""
    others = [
        (edit, site)
        for edit in asked.edits
        for site in asked.lens.expand(edit.vector.sites)
        if behind(site) == behind(asked.site) and not (edit is asked.edit and site == asked.site)
    ]
    return asked.edit.unit == "local" and any(edit.unit == "local" or place(site) < place(asked.site) for edit, site in others)


RULES = (
    *BLOCKS,
    Rule(
        lambda asked: asked.edit.unit == "local" and asked.site.name == "mlp_out",
        'unit "local" at {site} counts in lengths of what the MLP writes, and {target} in those of the residual',
        "Use resid_post.{layer}",
    ),
    Rule(
        lambda asked: asked.edit.unit == "local" and _before(asked),
        "in {family} visual features are added between block {before} and {site}, so the lengths are not the same",
        "Use resid_post.{before}",
    ),
)
TOGETHER = (
    Rule(
        _crowded,
        "another edit acts behind the same block as {site}, and {target} measures lengths after it in some models and before it in others",
        "Leave one of them out, or take another layer",
    ),
)


def write(lens: LensModel, edits: Sequence[Edit], folder: Path) -> dict[str, Any]:
    """Write the list; what is worth knowing of it comes back."""
    vectors = [*_local(lens, edits), *_measured(lens, edits)]
    tensors = {str(number): activations for number, (activations, _) in enumerate(vectors)}
    save_file(tensors, folder / TENSORS)
    written = [{"activations": _encoded(activations), **said} for activations, said in vectors]
    (folder / FILE).write_text(json.dumps(written) + "\n", encoding="utf-8")
    return {"vectors": [said for _, said in vectors]}


def _measured(lens: LensModel, edits: Sequence[Edit]) -> Iterator[tuple[Float[Tensor, "layers d"], dict[str, Any]]]:
    found = sums(lens, [edit for edit in edits if edit.unit == "measured"])
    if found:
        yield torch.stack([*found.values()]).float(), {"layer_indices": list(found), "scale": 1.0, "norm_match": False}


def _local(lens: LensModel, edits: Sequence[Edit]) -> Iterator[tuple[Float[Tensor, "layers d"], dict[str, Any]]]:
    for edit in edits:
        if edit.unit == "local":
            found = sums(lens, [edit])
            shares = [float(vector.norm()) for vector in found.values()]  # the same at every site of an edit
            units = torch.stack([vector / share for vector, share in zip(found.values(), shares, strict=True)])
            yield units.float(), {"layer_indices": list(found), "scale": shares[0], "norm_match": True}


def _encoded(tensor: Float[Tensor, "layers d"]) -> dict[str, Any]:
    """A tensor as vllm-lens reads it from JSON: base64 of its little-endian bytes."""
    raw = tensor.contiguous().numpy().astype("<f4").tobytes()
    return {"data": base64.b64encode(raw).decode("ascii"), "dtype": "float32", "shape": list(tensor.shape)}


def read(folder: Path) -> list[tuple[Float[Tensor, "layers d"], dict[str, Any]]]:
    """The list as vllm-lens would read it. ValueError where the two files differ or a shape does not fit its layers."""
    written = json.loads((folder / FILE).read_text(encoding="utf-8"))
    tensors, found = load_file(folder / TENSORS), []
    for number, one in enumerate(written):
        said = one["activations"]
        activations = torch.from_numpy(np.frombuffer(base64.b64decode(said["data"]), said["dtype"]).reshape(said["shape"]).copy())
        if activations.ndim != 2 or len(activations) != len(one["layer_indices"]) or not torch.equal(activations, tensors[str(number)]):
            raise ValueError(f"SteeringVector {number} of {folder / FILE} does not hold one row a layer, or not what {TENSORS} holds")
        found.append((activations, {name: value for name, value in one.items() if name != "activations"}))
    return found


@contextmanager
def through_vllm_lens(lens: LensModel, folder: Path) -> Iterator[LensModel]:
    """What vllm-lens computes with the list: its vectors in order, behind each of their blocks, in the model's dtype."""
    at: dict[int, list[tuple[Tensor, Mapping[str, Any]]]] = {}
    for activations, said in read(folder):
        for row, layer in zip(activations, said["layer_indices"], strict=True):
            at.setdefault(layer, []).append((row.to(lens.device, lens.dtype), said))
    if strange := [layer for layer in at if not 0 <= layer < lens.n_layers]:
        raise ValueError(f"vllm-lens would refuse layer {strange[0]} of a model of {lens.n_layers} blocks")
    with behind_blocks(lens, {layer: _adding(vectors) for layer, vectors in at.items()}) as steered:
        yield steered


def _adding(vectors: Sequence[tuple[Float[Tensor, " d"], Mapping[str, Any]]]) -> Callable[[Tensor], Tensor]:
    def change(hidden: Tensor) -> Tensor:
        for vector, said in vectors:
            moved = vector.to(hidden.device)
            if said["norm_match"]:
                lengths = hidden.float().norm(dim=-1, keepdim=True)
                moved = (moved * (lengths / (moved.float().norm() + _EPS))).to(hidden.dtype)
            hidden = hidden + moved * said["scale"]
        return hidden

    return change
