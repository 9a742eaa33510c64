"""The targets an edit can be exported to: a table of what each can express, how it is written, and how it is read back and run.

lora        lora.py        adapter of PEFT, loaded onto the same base
merged      merged.py      whole checkpoint for plain transformers
gguf        gguf.py        control vector of llama.cpp
easysteer   easysteer.py   the same file and its specification
vllm-lens   vllm_lens.py   SteeringVectors as JSON
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..edits import Edit
from . import easysteer, gguf, lora, merged, vllm_lens
from .refusing import WEIGHTS, Rule

if TYPE_CHECKING:
    from ..model import LensModel

Write = Callable[["LensModel", Sequence[Edit], Path], dict[str, Any]]
Through = Callable[["LensModel", Path], AbstractContextManager["LensModel"]]


@dataclass(frozen=True)
class Target:
    """One way out of the running model.

    about      what it is, in a few words
    rules      what it cannot express (refusing.py); together: of all edits at once
    write      writes the edits into an empty folder and returns facts, JSON-able
    through    the export that was read back as a running model, by what reads it; the first is the usual way
    needs      package that must be installed
    on_disk    readers that need the base model on disk
    """

    about: str
    rules: Sequence[Rule]
    write: Write
    through: Mapping[str, Through]
    together: Sequence[Rule] = ()
    needs: str = ""
    on_disk: tuple[str, ...] = ()

    def readers(self, lens: LensModel) -> dict[str, Through]:
        """Those of `through` that this model can be read by."""
        return {name: how for name, how in self.through.items() if lens.path is not None or name not in self.on_disk}

    def check_installed(self) -> None:
        """ImportError that names the extra."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            raise ImportError(f"this export needs {self.needs}, which is not installed: pip install 'thoughtlens[export]'")


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "lora": Target(
            "a LoRA adapter for PEFT and transformers",
            lora.RULES,
            lora.write,
            {"thoughtlens.load with adapter=": lora.through_load, "peft.PeftModel": lora.through_peft},
            needs="peft",
            on_disk=("thoughtlens.load with adapter=",),
        ),
        "merged": Target(
            "a whole checkpoint for plain transformers",
            WEIGHTS,
            merged.write,
            {"transformers": merged.through_transformers},
            together=merged.TOGETHER,
        ),
        "gguf": Target(
            "a control vector for llama.cpp",
            gguf.RULES,
            gguf.write,
            {"the file, added as llama.cpp does": gguf.through_llama_cpp},
            needs="gguf",
        ),
        "easysteer": Target(
            "a control vector and a specification for EasySteer",
            easysteer.RULES,
            easysteer.write,
            {"the files, added as EasySteer does": easysteer.through_easysteer},
            needs="gguf",
        ),
        "vllm-lens": Target(
            "steering vectors for vLLM-Lens",
            vllm_lens.RULES,
            vllm_lens.write,
            {"the files, added as vLLM-Lens does": vllm_lens.through_vllm_lens},
            together=vllm_lens.TOGETHER,
        ),
    }
)


def target_named(name: str) -> Target:
    """ValueError for a target that is not there, ImportError for one whose package is not installed."""
    if name not in TARGETS:
        known = ", ".join(f"{known} ({target.about})" for known, target in TARGETS.items())
        raise ValueError(f"unknown target {name!r}; known are {known}")
    TARGETS[name].check_installed()
    return TARGETS[name]
