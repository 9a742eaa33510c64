"""What this machine has: versions, devices, threads, disk, extras; and what a checkpoint is, if one is named."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

from .run import PACKAGES, package_version

EXTRAS = {"train": ("peft",), "test": ("pytest", "hypothesis"), "dev": ("ruff", "mypy")}
OPTIONAL = {
    "torchvision": "video and fast image processors; not needed",
    "accelerate": "sharding over several devices",
    "bitsandbytes": "4- and 8-bit weights",
}


def doctor(model: str | None = None) -> list[str]:
    """Lines to print. With a model: its family, dialect, layers and fingerprint, or the error that loading it raises."""
    import torch

    lines = [f"python        {platform.python_version()} on {platform.system()} {platform.machine()}"]
    lines += [f"{name:13s} {package_version(name) or 'not installed'}" for name in PACKAGES]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines.append(f"devices       cpu{''.join(f', cuda:{i} {name}' for i, name in enumerate(gpus)) or '; no GPU'}")
    lines.append(f"threads       {torch.get_num_threads()} of {os.cpu_count()} cores")
    lines.append(f"free disk     {shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB in the current folder")
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if find_spec(name) is None]
        lines.append(
            f"extra {extra:7s} " + (f"missing {', '.join(missing)}: pip install 'thoughtlens[{extra}]'" if missing else "installed")
        )
    lines += [f"{name:13s} {package_version(name) or 'not installed'} ({use})" for name, use in OPTIONAL.items()]
    return lines + (_model_lines(model) if model else [])


def _model_lines(path: str) -> list[str]:
    from ..hooks.model import load

    lens = load(path)
    return [
        f"model         {lens.name}: {type(lens.model).__name__}, "
        f"{lens.n_layers} layers of width {lens.width}, {lens.n_heads} heads, {lens.dtype}",
        f"layers        {lens.family.layers}",
        f"dialect       {lens.dialect.name}: opens {lens.dialect.open!r}, closes {lens.dialect.close!r}",
        f"fingerprint   {lens.fingerprint[:16]}",
    ]
