"""VLSBench: what is dangerous is in the picture alone, the words do not betray it.

Hu et al. 2024, "VLSBench: Unveiling Visual Leakage in Multimodal Safety", arXiv 2411.19939: 2,241 instructions in 6 categories; some
share a picture, so `image_path` names it and `instruction_id` does not. The official judge takes a refusal and a warning as safe.
"""

from __future__ import annotations

from typing import Any

from .benchmark import Benchmark, Table, Variant
from .reading import Row

HAZARDS = {"Violent": "vcr", "Illegal Activity": "ncr", "Self-Harm": "ssh", "Erotic": "sxc", "Hate": "hte", "Privacy": "prv"}


def _picture(row: Row) -> Any:
    return row.get("image") or row.get("image_path")  # the hub form has the picture itself


def _goal(row: Row) -> str:
    reason = row.get("safety_reason")  # on the hub, not on GitHub; no judge sees the picture
    return f"{row['instruction']}\n\nTogether with its picture this is unsafe: {reason}" if reason else row["instruction"]


TABLE = Table(
    files=("data/data.json", "data.json", "data/train-*.parquet", "train-*.parquet", "train/*.arrow"),
    columns={
        "id": "{instruction_id}",
        "text": "{instruction}",
        "goal": _goal,
        "category": "{category}",
        "group": lambda row: f"vlsbench/{row.get('image_path') or row['instruction_id']}",
        "harmful": True,
        "meta": lambda row: {"sub_category": row.get("sub_category") or ""},
    },
    images=(_picture,),
)

BENCHMARK = Benchmark(
    name="vlsbench",
    title="VLSBench",
    paper="Hu et al. 2024, arXiv 2411.19939",
    home="github.com/AI45Lab/VLSBench (pictures: huggingface.co/datasets/Foreshhh/vlsbench)",
    licence="none stated",
    hazards=HAZARDS,
    variants={"all": Variant((TABLE,), 2241)},
)
