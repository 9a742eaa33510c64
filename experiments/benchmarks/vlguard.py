"""VLGuard: unsafe pictures with an instruction, and safe pictures with two instructions, one safe and one unsafe.

Zong et al. 2024, "Safety Fine-Tuning at (Almost) No Cost", arXiv 2402.02207. Test: 442 unsafe and 558 safe pictures; train: 977 and
1,023. The two instructions of a safe picture are twins. The paper's three subsets are variants of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from .benchmark import Benchmark, Table, Variant
from .reading import Row

HAZARDS = {
    "privacy: personal data": "prv",
    "risky behavior: professional advice": "spc",
    "risky behavior: political": "",
    "risky behavior: sexually explicit": "sxc",
    "risky behavior: violence": "vcr",
    "deception: disinformation": "",
    "discrimination: sex": "hte",
    "discrimination: race": "hte",
    "discrimination: other": "hte",
    "safe picture": "",
}
SUBSETS = {"instruction": "unsafes", "unsafe_instruction": "safe_unsafes", "safe_instruction": "safe_safes"}
TWINS = {"safe_unsafes": "safe_safes", "safe_safes": "safe_unsafes"}


def _instructions(subsets: Collection[str]) -> Callable[[Row], Iterator[Row]]:
    """A row for each of its instructions that is of one of these subsets."""

    def rows(row: Row) -> Iterator[Row]:
        for asked in row["instr-resp"]:
            for name, subset in SUBSETS.items():
                if name in asked and subset in subsets:
                    yield {**row, "_asked": asked[name], "_subset": subset}

    return rows


def _category(row: Row) -> str:
    return "safe picture" if row["safe"] else f"{row['harmful_category']}: {row['harmful_subcategory']}".lower()


def _pictures(row: Row) -> list[str]:
    return [f"{folder}{row['image']}" for folder in ("", f"{row['_stem']}/", f"VLGuard/{row['_stem']}/")]


def _variant(name: str, split: str, prompts: int, about: str, subsets: Collection[str] = tuple(SUBSETS.values())) -> Variant:
    def twin(row: Row) -> str:
        other = TWINS.get(row["_subset"], "")
        return f"vlguard/{name}/{row['image']}:{other}" if other in subsets else ""

    table = Table(
        files=(f"data/{split}.json", f"{split}.json"),
        columns={
            "id": "{image}:{_subset}",
            "text": "{_asked}",
            "goal": "{_asked}",
            "category": _category,
            "group": "vlguard/{image}",
            "harmful": lambda row: row["_subset"] != "safe_safes",
            "split": split,
            "twin": twin,
            "meta": lambda row: {"subset": row["_subset"]},
        },
        images=(_pictures,),
        needs=("safe", "instr-resp"),
        rows=_instructions(subsets),
    )
    return Variant((table,), prompts, about)


BENCHMARK = Benchmark(
    name="vlguard",
    title="VLGuard",
    paper="Zong et al. 2024, arXiv 2402.02207",
    home="github.com/ys-zong/VLGuard (also huggingface.co/datasets/ys-zong/VLGuard)",
    licence="none stated; on the hub for research, after its terms are accepted",
    hazards=HAZARDS,
    variants={
        "test": _variant("test", "test", 1558, "all three subsets"),
        "unsafes": _variant("unsafes", "test", 442, "unsafe pictures", ("unsafes",)),
        "safe_unsafes": _variant("safe_unsafes", "test", 558, "safe pictures, unsafe instructions", ("safe_unsafes",)),
        "safe_safes": _variant("safe_safes", "test", 558, "safe pictures, safe instructions", ("safe_safes",)),
        "train": _variant("train", "train", 3023, "what the paper fine-tunes on"),
    },
)
