"""MIS, multi-image safety: a question and two pictures that are unsafe only together.

Ding et al. 2025, "Rethinking Bottlenecks in Safety Fine-Tuning of Vision Language Models", arXiv 2501.18533. `easy` and `hard` have
drawn pictures, `real` has photographs. Each prompt shows both pictures before the question.
"""

from __future__ import annotations

from .benchmark import Benchmark, Table, Variant
from .vlsbench import HAZARDS  # the same laboratory's categories


def _variant(name: str, prompts: int, about: str) -> Variant:
    table = Table(
        files=(f"mis_test/mis_{name}.json", f"mis_{name}.json"),
        columns={
            "id": "{_number}",
            "text": "{question}",
            "goal": "{question}",
            "category": "{category}",
            "harmful": True,
            "split": "test",
        },
        images=("{image_path1}", "{image_path2}"),
    )
    return Variant((table,), prompts, about)


BENCHMARK = Benchmark(
    name="mis",
    title="MIS",
    paper="Ding et al. 2025, arXiv 2501.18533",
    home="huggingface.co/datasets/Tuwhy/MIS_Test (code: github.com/DripNowhy/MIS)",
    licence="none stated",
    hazards=HAZARDS,
    variants={
        "easy": _variant("easy", 1675, "drawn pictures"),
        "hard": _variant("hard", 510, "drawn pictures, the harder ones"),
        "real": _variant("real", 100, "photographs"),
    },
)
