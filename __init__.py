"""thoughtlens: find unsafe intent inside the thought of a multimodal reasoning model, and steer its refusals back.

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .experiments.benchmarks import prompts
    from .hooks.capture import capture
    from .hooks.edits import Edit
    from .hooks.export.exporting import export
    from .hooks.generate import generate
    from .hooks.model import load
    from .hooks.modes import thought_modes
    from .hooks.records import Prompt, Transcript
    from .hooks.select import Select
    from .hooks.steer import monitor, steer
    from .hooks.store import open_store
    from .hooks.triggers import Trigger
    from .hooks.trio import capture_trio
    from .hooks.vector import Vector
    from .probes.deciding import decision_points
    from .probes.drift import drift
    from .probes.fit import fit_probes
    from .probes.subspace import steering_subspace
    from .probes.vectors import steering_vector
    from .viz.report import report
    from .viz.view import view

_HOME = {
    "Edit": ".hooks.edits",
    "Prompt": ".hooks.records",
    "Select": ".hooks.select",
    "Transcript": ".hooks.records",
    "Trigger": ".hooks.triggers",
    "Vector": ".hooks.vector",
    "capture": ".hooks.capture",
    "capture_trio": ".hooks.trio",
    "decision_points": ".probes.deciding",
    "drift": ".probes.drift",
    "export": ".hooks.export.exporting",
    "fit_probes": ".probes.fit",
    "generate": ".hooks.generate",
    "load": ".hooks.model",
    "monitor": ".hooks.steer",
    "open_store": ".hooks.store",
    "prompts": ".experiments.benchmarks",
    "report": ".viz.report",
    "steer": ".hooks.steer",
    "steering_subspace": ".probes.subspace",
    "steering_vector": ".probes.vectors",
    "thought_modes": ".hooks.modes",
    "view": ".viz.view",
}

__all__ = [
    "Edit",
    "Prompt",
    "Select",
    "Transcript",
    "Trigger",
    "Vector",
    "capture",
    "capture_trio",
    "decision_points",
    "drift",
    "export",
    "fit_probes",
    "generate",
    "load",
    "monitor",
    "open_store",
    "prompts",
    "report",
    "steer",
    "steering_subspace",
    "steering_vector",
    "thought_modes",
    "view",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"thoughtlens has no {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
