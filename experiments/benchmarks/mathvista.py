"""MathVista: mathematics about pictures, with answers that can be compared: a letter, a number, a list.

Lu et al. 2023, "MathVista: Evaluating Mathematical Reasoning of Foundation Models in Visual Contexts", arXiv 2310.02255. `testmini` has
1,000 questions of five tasks with their right answers; those of the larger test set are not published. How an answer is to look is said
in our words.
"""

from __future__ import annotations

from typing import Any

from .benchmark import Benchmark, Table, Variant
from .reading import Row

LETTERS = "ABCDEFGHIJKLMNOP"
FORMS = {"integer": "Answer with a whole number.", "text": "Answer in a few words.", "list": "Answer with a list, such as [1, 2, 3]."}
KINDS = {"integer": "number", "float": "number"}


def _lettered(row: Row) -> bool:
    return bool(row["choices"]) and row["answer"] in list(row["choices"])


def _text(row: Row) -> str:
    parts = [row["question"].strip()]
    if row.get("unit"):
        parts.append(f"(unit: {row['unit']})")
    if row["choices"]:
        parts += [f"({letter}) {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=False)]
        form = "Answer with the letter of the right choice."
    elif row["answer_type"] == "float":
        form = f"Answer with a number, rounded to {int(row['precision'] or 1)} decimal place(s)."
    else:
        form = FORMS[row["answer_type"]]
    return "\n".join([*parts, form])


def _meta(row: Row) -> dict[str, Any]:
    lettered = _lettered(row)
    gold = LETTERS[list(row["choices"]).index(row["answer"])] if lettered else str(row["answer"])
    meta: dict[str, Any] = {"kind": "task", "gold": gold, "answer": "letter" if lettered else KINDS.get(row["answer_type"], "text")}
    if row["choices"]:
        meta["choices"] = list(row["choices"])
    if row["precision"] is not None:
        meta["precision"] = int(row["precision"])
    return meta


TESTMINI = Table(
    files=("data/testmini.json", "testmini.json", "data/testmini-*.parquet", "testmini-*.parquet", "testmini/*.arrow"),
    columns={
        "id": "{pid}",
        "text": _text,
        "goal": "{question}",
        "category": lambda row: row["metadata"]["task"],
        "expected": "comply",
        "split": "testmini",
        "meta": _meta,
    },
    images=(lambda row: row.get("decoded_image") or row["image"],),
    needs=("image", "question", "choices", "answer", "answer_type", "precision", "metadata"),
)

BENCHMARK = Benchmark(
    name="mathvista",
    title="MathVista",
    paper="Lu et al. 2023, arXiv 2310.02255",
    home="github.com/lupantech/MathVista (also huggingface.co/datasets/AI4Math/MathVista)",
    licence="CC BY-SA 4.0",
    measures="capability",
    variants={"testmini": Variant((TESTMINI,), 1000)},
)
