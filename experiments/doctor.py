"""What this machine has: versions, devices, threads, disk, extras; and what a checkpoint is, if one is named."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..hooks.files import in_words
from .run import PACKAGES, package_version

if TYPE_CHECKING:
    from ..hooks.dialects import Dialect
    from ..hooks.families import Block
    from ..hooks.model import LensModel

EXTRAS = {  # those of pyproject.toml
    "train": ("peft",),
    "export": ("peft", "gguf"),
    "shard": ("accelerate",),
    "quantize": ("bitsandbytes", "accelerate"),
    "app": ("dash", "duckdb"),
    "images": ("kaleido",),
}
EXTRAS["test"] = (*EXTRAS["export"], "accelerate", *EXTRAS["app"], *EXTRAS["images"])
EXTRAS["test"] += ("pytest", "pytest-xdist", "hypothesis", "statsmodels", "playwright")
EXTRAS["dev"] = (*EXTRAS["test"], "ruff", "mypy", "pandas-stubs", "build")
OPTIONAL = {"torchvision": "video and fast image processors; not needed"}


def doctor(model: str | None = None) -> list[str]:
    """Lines to print. With a model: how it is read, or the error that loading it raises."""
    import torch

    lines = [f"python        {platform.python_version()} on {platform.system()} {platform.machine()}"]
    lines += [f"{name:13s} {package_version(name) or 'not installed'}" for name in PACKAGES]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines.append(f"devices       cpu{''.join(f', cuda:{i} {name}' for i, name in enumerate(gpus)) or '; no GPU'}")
    lines.append(f"threads       {torch.get_num_threads()} of {os.cpu_count()} cores")
    lines.append(f"free disk     {in_words(shutil.disk_usage(Path.cwd()).free)} in the current folder")
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if package_version(name) is None]
        lines.append(
            f"extra {extra:8s} " + (f"missing {', '.join(missing)}: pip install 'thoughtlens[{extra}]'" if missing else "installed")
        )
    lines += [f"{name:13s} {package_version(name) or 'not installed'} ({use})" for name, use in OPTIONAL.items()]
    return lines + (_model_lines(model) if model else [])


def _model_lines(path: str) -> list[str]:
    from transformers.utils.logging import disable_progress_bar

    from ..hooks.model import load

    disable_progress_bar()
    lens = load(path)
    image = lens.frame.image_token_id
    picture = "none: this family reads text alone" if image is None else f"{lens.tokenizer.convert_ids_to_tokens(image)!r}, id {image}"
    lines = [
        f"model         {lens.name}: {type(lens.model).__name__}, {lens.n_layers} layers of width {lens.width}, "
        f"{lens.dtype}, context {lens.context:,}",
        f"family        {lens.model.config.model_type}; layers at {lens.family.layers}",
        *(f"layers        {told}" for told in _layers(lens)),
    ]
    if lens.deepstack:
        lines.append(f"deepstack     visual features are added at image tokens behind layers {_numbers(lens.deepstack)}")
    lines += [
        f"image token   {picture}",
        f"dialect       {lens.dialect.name}: {_markers(lens.dialect)}",
        f"template      {'itself opens the thought' if lens.opened else 'leaves the thought to the model'}; arguments "
        f"{', '.join(f'{name}={value!r}' for name, value in lens.template.items()) or 'none'}",
    ]
    if lens.family.note:
        lines.append(f"note          {lens.family.note}")
    return [*lines, f"fingerprint   {lens.fingerprint[:16]}"]


def _layers(lens: LensModel) -> list[str]:
    """A line for each kind of layer: which they are, and what is read where."""
    from ..hooks.attach import heads
    from ..hooks.sites import Site

    kinds: dict[Block, list[int]] = {}
    for number, block in enumerate(lens.blocks):
        kinds.setdefault(block, []).append(number)
    return [
        f"{_numbers(numbers)}: {block.site} from {_source(block.attention, block.attention_adds, block.attention_gate)}, "
        f"mlp_out from {_source(block.mlp, block.mlp_adds, block.mlp_gate)}, head_out before {block.attention}.{block.out}, "
        f"{heads(lens, Site('head_out', numbers[0]))} heads"
        for block, numbers in kinds.items()
    ]


def _source(module: str, adds: str, gate: str) -> str:
    return (adds or module) + (f" (the layer adds tanh({gate}) times it)" if gate else "")


def _markers(dialect: Dialect) -> str:
    """Marker texts by role."""
    roles: dict[str, list[str]] = {}
    for role, text in dialect.markers:
        roles.setdefault(role.name.lower(), []).append(repr(text))
    return "; ".join(f"{role} {', '.join(texts)}" for role, texts in roles.items()) or "no markers, all of an output is answer"


def _numbers(layers: Sequence[int]) -> str:
    """Layer numbers with their runs shortened: 0-2, 4, 6-7."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
