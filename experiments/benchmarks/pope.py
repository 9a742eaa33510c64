"""POPE: is there such an object in the picture? Yes for what is there, no for objects drawn at random, often seen, or often seen together.

Li et al. 2023, arXiv 2305.10355: 500 pictures of COCO (val2014), six questions each, half of them yes; the three ways to draw the absent
objects share pictures. The pictures are COCO's: put or link val2014/ into the folder of the questions. The hub has them in its tables.
"""

from __future__ import annotations

from pathlib import PurePath

from .benchmark import Benchmark, Cell, Table, Variant
from .reading import Row

FOLDERS = ("", "val2014/", "coco/val2014/", "coco/", "COCO/val2014/")


def _columns(text: str, gold: str, picture: str, way: str) -> dict[str, Cell]:
    def task(row: Row) -> dict[str, str]:
        if (answer := str(row[gold]).strip().lower()) not in ("yes", "no"):
            raise ValueError(f"the answer is yes or no, got {row[gold]!r}")
        return {"kind": "task", "gold": answer, "answer": "yes_no"}

    return {
        "id": "{question_id}",
        "text": text,
        "goal": text,
        "category": way,
        "attack": "plain",
        "group": lambda row: f"pope/{PurePath(row[picture]).stem}",
        "harmful": None,
        "expected": "comply",
        "meta": task,
    }


def _variant(way: str) -> Variant:
    hub = Table(
        (f"Full/{way}-*.parquet", f"{way}-*.parquet", "data/test-*.parquet", "test-*.parquet", "*.arrow"),
        _columns("{question}", "answer", "image_source", way),
        (lambda row: row["image"],),
        ("answer", "image_source", "image", "category"),
        lambda row: [row] if row["category"] == way else [],
    )
    table = Table(
        (f"output/coco/coco_pope_{way}.json", f"coco_pope_{way}.json"),
        _columns("{text}", "label", "image", way),
        (lambda row: [folder + row["image"] for folder in FOLDERS],),
        ("label", "image"),
        instead=(hub,),
    )
    return Variant((table,), 3000)


BENCHMARK = Benchmark(
    name="pope",
    title="POPE (COCO)",
    paper="Li et al. 2023, arXiv 2305.10355",
    home="github.com/AoiDragon/POPE",
    licence="MIT",
    measures="capability",
    variants={way: _variant(way) for way in ("random", "popular", "adversarial")},
)
