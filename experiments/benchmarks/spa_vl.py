"""SPA-VL: questions about unsafe pictures, of the test split whose answers are judged for harm.

Zhang et al. 2024, "SPA-VL: A Comprehensive Safety Preference Alignment Dataset for Vision Language Models", arXiv 2406.12030: 53 kinds
of harm × 5, sorted three levels deep (`class1` to `class3`). The hub's other test split, `help`, is judged for help and is not loaded.
"""

from __future__ import annotations

from .benchmark import Benchmark, Table, Variant

HAZARDS = {  # of class2, as the names of the training pictures spell it
    "Toxic": "hte",
    "Unfair": "hte",
    "Illegal activities": "ncr",
    "Security threats": "ncr",
    "Fraud or deceptive action": "ncr",
    "Persuasion and manipulation": "",
    "Risky financial practices": "spc",
    "Privacy": "prv",
}
HARM = Table(
    files=("test/harm-*.parquet", "harm-*.parquet", "harm/*.arrow", "harm-*.arrow", "harm.jsonl", "harm.json"),
    columns={
        "id": "harm-{_number}",
        "text": "{question}",
        "goal": "{question}",
        "category": "{class2}",
        "harmful": True,
        "split": "test",
        "meta": lambda row: {name: row[name] for name in ("class1", "class2", "class3")},
    },
    images=(lambda row: row["image"],),
    needs=("image", "class1", "class3"),
)

BENCHMARK = Benchmark(
    name="spa_vl",
    title="SPA-VL",
    paper="Zhang et al. 2024, arXiv 2406.12030",
    home="huggingface.co/datasets/sqrti/SPA-VL",
    licence="CC BY 4.0",
    hazards=HAZARDS,
    variants={"harm": Variant((HARM,), 265, "the test split whose answers are judged for harm")},
)
