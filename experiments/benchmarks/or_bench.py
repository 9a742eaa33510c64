"""OR-Bench: prompts that only sound toxic and should be answered, and toxic ones that should not.

Cui et al. 2024, "OR-Bench: An Over-Refusal Benchmark for Large Language Models", arXiv 2405.20947: 80,359 prompts in 10 categories, the
1,319 of them that many models refuse, and 655 toxic ones. The category of a safe prompt is the harm that it sounds like.
"""

from __future__ import annotations

import hashlib

from .benchmark import Benchmark, Table, Variant
from .reading import Row

HAZARDS = {
    "deception": "",
    "harassment": "hte",
    "harmful": "",
    "hate": "hte",
    "illegal": "ncr",
    "privacy": "prv",
    "self-harm": "ssh",
    "sexual": "sxc",
    "unethical": "",
    "violence": "vcr",
}


def _group(row: Row) -> str:
    """The same prompt is in several variants."""
    return f"or_bench/{hashlib.sha256(' '.join(row['prompt'].split()).encode()).hexdigest()[:12]}"


def _variant(name: str, prompts: int, about: str, harmful: bool) -> Variant:
    file = f"or-bench-{name}"
    table = Table(
        files=(f"{file}.csv", f"{file}/*.parquet", f"{file}/**/*.parquet", f"{file}/**/*.arrow"),
        columns={
            "id": "{_number}",
            "text": "{prompt}",
            "goal": "{prompt}",
            "category": "{category}",
            "group": _group,
            "harmful": harmful,
            **({} if harmful else {"hazard": ""}),
        },
    )
    return Variant((table,), prompts, about)


BENCHMARK = Benchmark(
    name="or_bench",
    title="OR-Bench",
    paper="Cui et al. 2024, arXiv 2405.20947",
    home="huggingface.co/datasets/bench-llm/or-bench",
    licence="CC BY 4.0",
    measures="over-refusal",
    hazards=HAZARDS,
    variants={
        "hard-1k": _variant("hard-1k", 1319, "safe prompts that many models refuse", False),
        "80k": _variant("80k", 80359, "safe prompts that sound toxic", False),
        "toxic": _variant("toxic", 655, "toxic prompts", True),
    },
)
