"""EasySteer: a GGUF control vector and the specification that makes its engine add it to every token.

    steering.gguf        direction.k [d] float32, added behind block k; k = 0 is allowed here
    steering_spec.json   SteeringSpec: which file, scale 1 since the strength is baked in, and where it acts: all of prompt and generation

The JSON is that of the current engine, which refuses fields it does not know; older ones took other names. `source` is a path on the
machine that serves.

Xu et al. 2025 (EasySteer), ZJU-REAL/EasySteer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from ..edits import Edit
from .adding import behind_blocks
from .gguf import FILE, read_directions, write_directions
from .refusing import BLOCKS, NOT_LOCAL

if TYPE_CHECKING:
    from ..model import LensModel

SPEC = "steering_spec.json"
EVERYWHERE = {"prompt": "all", "generation": "all"}
RULES = (*BLOCKS, NOT_LOCAL)


def write(lens: LensModel, edits: Sequence[Edit], folder: Path) -> dict[str, Any]:
    """Write vector and specification; what is worth knowing of them comes back."""
    facts = write_directions(lens, edits, folder, lens.model.config.model_type)
    vector = {"source": FILE, "algorithm": "direct", "scale": 1.0, "layers": facts["layers"], "apply": EVERYWHERE}
    spec = {"vectors": [vector], "conflict": "sequential"}
    (folder / SPEC).write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    return facts


@contextmanager
def through_easysteer(lens: LensModel, folder: Path) -> Iterator[LensModel]:
    """What EasySteer computes with the specification: scale times direction.k behind each of its blocks k, in the model's dtype."""
    spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    total: dict[int, Tensor] = {}
    for vector in spec["vectors"]:
        if vector["apply"] != EVERYWHERE:
            raise ValueError(f"{folder / SPEC} applies a vector to {vector['apply']}, not to every token")
        for layer, direction in read_directions(folder / vector["source"]).items():
            if layer in vector["layers"]:
                total[layer] = total.get(layer, 0) + vector["scale"] * direction
    with behind_blocks(lens, {layer: _adding(vector.to(lens.device)) for layer, vector in total.items()}) as steered:
        yield steered


def _adding(vector: Float[Tensor, " d"]) -> Callable[[Tensor], Tensor]:
    return lambda hidden: hidden + vector.to(hidden.device, hidden.dtype)
