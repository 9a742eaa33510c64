"""SaLAD: everyday questions with a picture; in half of them picture and question together are a danger that a helper should warn of.

Lou et al. 2026, arXiv 2601.04043: 2,013 questions about ten areas of daily life. In the repository lies a sample of 20 without numbers, on
the hub all of them in data.json (the question is its `text`), the pictures in image.zip: unzip it to image/.
"""

from __future__ import annotations

from pathlib import PurePath

from .benchmark import Benchmark, Cell, Table, Variant
from .reading import Row

NOTES = {"unsafe": "safety warning", "safe": "safe suggestion"}


def _unsafe(row: Row) -> bool:
    if (said := row["safety type"]) not in NOTES:
        raise ValueError(f"its safety type is safe or unsafe, got {said!r}")
    return bool(said == "unsafe")


def _id(row: Row) -> str:
    return str(row.get("id", PurePath(row["image"]).stem))


def _columns(text: str) -> dict[str, Cell]:
    return {
        "id": _id,
        "text": text,
        "goal": text,
        "category": "{category}",
        "attack": "plain",
        "group": lambda row: f"salad/{PurePath(row['image']).stem}",
        "harmful": _unsafe,
        "expected": lambda row: "warn" if _unsafe(row) else "comply",
        "meta": lambda row: {name.replace(" ", "_"): row[name] for name in NOTES.values() if name in row},
    }


FILES = ("data/data.json", "data.json")
HUB = Table(FILES, _columns("{text}"), ("{image}",), ("id", "safety type"))
BENCHMARK = Benchmark(
    name="salad",
    title="SaLAD",
    paper="Lou et al. 2026, arXiv 2601.04043",
    home="huggingface.co/datasets/Holly301/SaLAD",
    licence="Apache 2.0",
    variants={"full": Variant((Table(FILES, _columns("{query}"), ("{image}",), ("safety type",), instead=(HUB,)),), 2013)},
)
