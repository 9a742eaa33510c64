"""Artifacts: tensors with a provenance header, in one safetensors file that is never changed in place.

The file's metadata holds one JSON header: what the caller says (vector, probe or statistics, from which model and prompts) plus
format, format_version, creation time and library versions.
"""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .files import atomic

FORMAT = "thoughtlens"
FORMAT_VERSION = 1
_KEY = "thoughtlens"


def save_artifact(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Path:
    """Write tensors and header. FileExistsError if `path` is there already: an artifact is never changed in place."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(
            f"{path} is there already, and an artifact is never changed in place. Choose another name, or delete it first."
        )
    whole = {
        **header,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
        },
    }
    try:
        text = json.dumps(whole, ensure_ascii=False)
    except TypeError as error:
        raise TypeError(
            f"the header of {path} cannot be written as JSON: {error}. Put tensors into tensors=, keep the header plain."
        ) from error
    with atomic(path) as part:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, metadata={_KEY: text})
    return path


def load_artifact(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of an artifact. Errors: no such file, truncated file, not one of ours, newer format."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}). It was cut short or is something else: write or copy it again."
        ) from error
    header = json.loads(metadata[_KEY]) if _KEY in metadata else {}
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file without a {FORMAT} header. Only files written by save_artifact can be read here.")
    if header["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {header['format_version']}, this toolkit reads up to {FORMAT_VERSION}. Update thoughtlens."
        )
    return tensors, header
