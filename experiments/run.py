"""The run folder: where results go, what they were made with, and which stages need not run again.

A stage is skipped when its inputs (a JSON-able description, hashed) are those of last time and its outputs are still there. Everything is
written whole or not at all, so a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from ..hooks.files import atomic, writable_folder, write_text

PACKAGES = ("thoughtlens", "torch", "transformers", "transformer-lens", "nnsight", "scikit-learn", "plotly", "safetensors")
ROOT = Path(__file__).resolve().parent.parent
LEDGER = "stages.json"


@dataclass(frozen=True)
class Run:
    """A run folder. What is in it: transcripts/, verdicts/, activations/, probes/, vectors/, tables/."""

    folder: Path

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def fresh(self, stage: str, inputs: Mapping[str, Any], outputs: Sequence[Path]) -> bool:
        """Whether a stage was finished with these inputs and what it wrote is still there."""
        return self._ledger().get(stage) == digest(inputs) and all(path.exists() for path in outputs)

    def finish(self, stage: str, inputs: Mapping[str, Any]) -> None:
        """Remember that a stage is done, and what did it: provenance.json is that of the stage finished last."""
        write_text(self.path("provenance.json"), json.dumps(provenance(), indent=2) + "\n")
        write_text(self.path(LEDGER), json.dumps({**self._ledger(), stage: digest(inputs)}, indent=2) + "\n")

    def forget(self, stage: str) -> bool:
        """Let a stage run again; whether it had been finished."""
        kept = self._ledger()
        known = kept.pop(stage, None) is not None
        if known:
            write_text(self.path(LEDGER), json.dumps(kept, indent=2) + "\n")
        return known

    def write_table(self, name: str, frame: pd.DataFrame, *, row_group: int | None = None) -> Path:
        """row_group: so many rows are read together at least; for a sorted table of which a few rows are looked up."""
        path = self.path("tables", f"{name}.parquet")
        with atomic(path) as part:
            frame.to_parquet(part, index=False, row_group_size=row_group)
        return path

    def table(self, name: str) -> pd.DataFrame:
        """Raises FileNotFoundError naming what writes the table."""
        path = self.path("tables", f"{name}.parquet")
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; `thoughtlens demo --out {self.folder}` writes it")
        return pd.read_parquet(path)

    def _ledger(self) -> dict[str, str]:
        path = self.path(LEDGER)
        return json.loads(path.read_text()) if path.is_file() else {}


def open_run(folder: str | Path, config: Mapping[str, Any]) -> Run:
    """Make or reopen a run folder. Its configuration is kept up to date; its provenance changes only when a stage is finished."""
    run = Run(writable_folder(folder))
    text = json.dumps(config, indent=2) + "\n"  # JSON is YAML
    path = run.path("config.yaml")
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    if not run.path("provenance.json").is_file():
        write_text(run.path("provenance.json"), json.dumps(provenance(), indent=2) + "\n")
    return run


def digest(inputs: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def provenance() -> dict[str, Any]:
    """Versions, machine and source state, for the record of a run."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["thoughtlens", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "thoughtlens" else None,
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
        },
        "source": source_state(),
    }


def package_version(name: str) -> str | None:
    """None where the package is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def source_state() -> dict[str, Any]:
    """Commit and whether the tree was changed; None where the code is not a git checkout."""
    if not (ROOT / ".git").exists():
        return {"commit": None, "changed": None}

    def git(*words: str) -> str | None:
        try:
            return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if status is None else bool(status)}
