"""A checkpoint on disk: finding its folder, telling a damaged file before it is loaded, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from .files import check_safetensors, sha256_of

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_NEEDED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.py"]
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_UNUSED = ["consolidated*", "original/*", "onnx/*"]  # the same weights once more, in other layouts
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def find_checkpoint(path: str | Path, revision: str | None = None, *, offline: bool = False) -> Path:
    """The local folder of a checkpoint: `path` itself, or the downloaded snapshot of a hub id. Errors say what is missing.

    offline   take a hub id from the local cache only
    """
    folder = Path(path)
    if folder.is_dir() and revision is not None:
        raise ValueError(f"revision={revision!r} names a version of a hub id, and {folder} is a local folder. Leave it out.")
    if not folder.is_dir():
        if folder.exists() or not _HUB_ID.fullmatch(str(path)) or str(path).startswith("."):
            raise FileNotFoundError(
                f"there is no folder {folder}, and {str(path)!r} is no hub id (owner/name). Give the folder written by save_pretrained."
            )
        try:
            folder = Path(
                snapshot_download(str(path), revision=revision, allow_patterns=_NEEDED, ignore_patterns=_UNUSED, local_files_only=offline)
            )
        except (RepositoryNotFoundError, RevisionNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            if offline:
                raise FileNotFoundError(
                    f"{str(path)!r} (revision {revision or 'main'}) is neither a folder here nor in the local hub cache, and offline=True "
                    "fetches nothing. Load it once with offline=False, or give a local folder."
                ) from error
            raise FileNotFoundError(
                f"there is no folder {path} here, and as a hub id {str(path)!r} (revision {revision or 'main'}) could not be fetched: "
                f"{type(error).__name__}. Check the spelling, the connection, or give a local folder."
            ) from error
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json, so it is not a checkpoint. Give the folder written by save_pretrained.")
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, each checked to be whole. As in transformers a single file goes before shards."""
    names = [_WEIGHTS]
    if not (folder / _WEIGHTS).is_file() and (folder / _INDEX).is_file():
        names = sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    files = [folder / name for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        others = ", ".join(sorted(p.name for p in folder.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(
            f"{folder} lacks the weights {', '.join(missing)}; safetensors files there: {others}. "
            "Copy the missing file, or save with safe_serialization."
        )
    for file in files:
        check_safetensors(file)
    return files


def find_adapter(path: str | Path) -> Path:
    """The folder of a PEFT adapter, checked to be whole."""
    folder = Path(path)
    if missing := [name for name in _ADAPTER if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} is no PEFT adapter: it lacks {' and '.join(missing)}. Give the folder that PeftModel.save_pretrained wrote."
        )
    check_safetensors(folder / _ADAPTER[1])
    return folder


def fingerprint(folder: Path, files: Iterable[Path], *, adapter: Path | None = None, quantize: str | None = None) -> str:
    """sha256 over config.json and the sha256 of each weight file; with an adapter or quantized, over that too."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in files:
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    for file in () if adapter is None else (adapter / name for name in _ADAPTER):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    if quantize is not None:
        digest.update(f"quantize {quantize}\n".encode())
    return digest.hexdigest()
