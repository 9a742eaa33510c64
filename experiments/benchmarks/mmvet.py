"""MM-Vet: questions about pictures that need several abilities at once, with answers in free words.

Yu et al. 2023, "MM-Vet: Evaluating Large Multimodal Models for Integrated Capabilities", arXiv 2308.02490: 218 questions; recognition,
OCR, knowledge, generation, spatial sense and mathematics in 16 combinations, which are the categories. The right answer is compared by
a judge that grades from 0 to 1; in it <AND> stands between parts that all have to be there, <OR> between parts of which one does.
"""

from __future__ import annotations

from collections.abc import Mapping

from .benchmark import Benchmark, Cell, Table, Variant
from .reading import Row


def _capabilities(row: Row) -> str:
    """In one order: a list on GitHub, a text with commas on the hub."""
    named = row["capability"].split(",") if isinstance(row["capability"], str) else row["capability"]
    return "_".join(sorted(name.strip() for name in named))


COLUMNS: Mapping[str, Cell] = {
    "text": "{question}",
    "goal": "{question}",
    "category": _capabilities,
    "expected": "comply",
    "meta": lambda row: {"kind": "task", "answer": "graded", "gold": row["answer"]},
}
NEEDS = ("answer", "capability")
HUB = Table(
    files=("data/test-*.parquet", "test-*.parquet", "test/*.arrow"),
    columns={**COLUMNS, "id": "{question_id}"},
    images=(lambda row: row["image"],),
    needs=("image", *NEEDS),
)
TABLE = Table(
    files=("mm-vet.json",),
    columns={**COLUMNS, "id": "{_key}"},
    images=("images/{imagename}",),
    needs=NEEDS,
    instead=(HUB,),
)

BENCHMARK = Benchmark(
    name="mmvet",
    title="MM-Vet",
    paper="Yu et al. 2023, arXiv 2308.02490",
    home="github.com/yuweihao/MM-Vet, its mm-vet.zip (hub form: huggingface.co/datasets/lmms-lab/MMVet)",
    licence="its own: research and teaching, not commercial",
    measures="capability",
    variants={"all": Variant((TABLE,), 218)},
)
