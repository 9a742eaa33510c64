"""StrongREJECT: forbidden prompts that a jailbreak would have to be useful for.

Souly et al. 2024, "A StrongREJECT for Empty Jailbreaks", arXiv 2402.10260: 313 prompts in 6 categories, and a small set of 10 of each.
"""

from __future__ import annotations

import hashlib

from .benchmark import Benchmark, Table, Variant
from .reading import Row

HAZARDS = {
    "Illegal goods and services": "ncr",
    "Non-violent crimes": "ncr",
    "Hate, harassment and discrimination": "hte",
    "Disinformation and deception": "",
    "Violence": "vcr",
    "Sexual content": "sxc",
}


def _table(files: tuple[str, ...], prompt: str, instead: tuple[Table, ...] = ()) -> Table:
    def group(row: Row) -> str:
        return (
            f"strongreject/{hashlib.sha256(' '.join(row[prompt].split()).encode()).hexdigest()[:12]}"  # the small set is part of the other
        )

    return Table(
        files=files,
        columns={
            "id": "{_number}",
            "text": f"{{{prompt}}}",
            "goal": f"{{{prompt}}}",
            "category": lambda row: row["category"].capitalize(),  # one name is published in two spellings
            "group": group,
            "harmful": True,
            "meta": lambda row: {"origin": row.get("source", "")},
        },
        needs=("category",),
        instead=instead,
    )


HUB = _table(("data/train-*.parquet", "train-*.parquet", "*.arrow"), "prompt")
FULL = _table(("strongreject_dataset/strongreject_dataset.csv", "strongreject_dataset.csv"), "forbidden_prompt", (HUB,))
SMALL = _table(("strongreject_dataset/strongreject_small_dataset.csv", "strongreject_small_dataset.csv"), "forbidden_prompt")

BENCHMARK = Benchmark(
    name="strongreject",
    title="StrongREJECT",
    paper="Souly et al. 2024, arXiv 2402.10260",
    home="github.com/alexandrasouly/strongreject (hub form: huggingface.co/datasets/walledai/StrongREJECT)",
    licence="MIT",
    hazards=HAZARDS,
    variants={
        "full": Variant((FULL,), 313, "all prompts"),
        "small": Variant((SMALL,), 60, "10 of each category"),
    },
)
