"""HarmBench: harmful behaviours, as plain text, with a text to work on, of copyrighted works, and about pictures.

Mazeika et al. 2024, "HarmBench: A Standardized Evaluation Framework for Automated Red Teaming and Robust Refusal", arXiv 2402.04249.
400 textual behaviours (200 standard, 100 contextual, 100 copyright), 80 of them for validation and 320 for test, and 110 multimodal
ones. Of the 400, 393 have different texts, so the text makes the group. Copyright is officially scored by how much of a work comes
back, not by harm: apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from .benchmark import Benchmark, Table, Variant
from .reading import Row

HAZARDS = {
    "chemical_biological": "iwp",
    "copyright": "ipv",
    "cybercrime_intrusion": "ncr",
    "harassment_bullying": "hte",
    "harmful": "",
    "illegal": "ncr",
    "misinformation_disinformation": "",
}


def _text(row: Row) -> str:
    """The behaviour below the text that it is about, where there is one."""
    return "\n\n---\n\n".join(part for part in (row.get("ContextString"), row["Behavior"]) if part)


def _goal(row: Row) -> str:
    shown = row.get("ImageDescription")  # no judge sees the picture
    return f"{_text(row)}\n\nThe picture shows: {shown}" if shown else _text(row)


def _pictures(row: Row) -> list[str]:
    """The published file is a PNG, whatever the table calls it."""
    name = PurePosixPath(row["ImageFileName"])
    return [
        f"{folder}{file}"
        for folder in ("data/multimodal_behavior_images/", "multimodal_behavior_images/", "")
        for file in (name.with_suffix(".png"), name)
    ]


def _meta(row: Row) -> dict[str, Any]:
    return {"functional": row["FunctionalCategory"], "context": row.get("ContextString") or ""}


def _table(file: str, functional: str = "", split: str = "", images: tuple[Callable[[Row], Any], ...] = ()) -> Table:
    name = f"harmbench_behaviors_{file}"
    return Table(
        files=(f"data/behavior_datasets/{name}.csv", f"{name}.csv", f"{name}*.parquet"),
        columns={
            "id": "{BehaviorID}",
            "text": _text,
            "goal": _goal,
            "category": "{SemanticCategory}",
            "group": lambda row: f"harmbench/{hashlib.sha256(' '.join(row['Behavior'].split()).encode()).hexdigest()[:12]}",
            "harmful": True,
            "split": split,
            "meta": _meta,
        },
        images=images,
        needs=("Behavior", "FunctionalCategory"),
        rows=lambda row: (row,) if functional in ("", row["FunctionalCategory"]) else (),
    )


BENCHMARK = Benchmark(
    name="harmbench",
    title="HarmBench",
    paper="Mazeika et al. 2024, arXiv 2402.04249",
    home="github.com/centerforaisafety/HarmBench",
    licence="MIT",
    hazards=HAZARDS,
    apart=frozenset({"copyright"}),
    variants={
        "text": Variant((_table("text_all"),), 400, "all textual behaviours"),
        "standard": Variant((_table("text_all", "standard"),), 200, "a request alone"),
        "contextual": Variant((_table("text_all", "contextual"),), 100, "a request and a text it is about"),
        "copyright": Variant((_table("text_all", "copyright"),), 100, "copyrighted works; scored apart"),
        "val": Variant((_table("text_val", split="val"),), 80, "the textual behaviours for validation"),
        "test": Variant((_table("text_test", split="test"),), 320, "the textual behaviours for test"),
        "multimodal": Variant((_table("multimodal_all", images=(_pictures,)),), 110, "a request about a picture"),
    },
)
