"""JailbreakBench, JBB-Behaviors: 100 misuses in 10 categories, and 100 harmless behaviours on the same topics.

Chao et al. 2024, "JailbreakBench: An Open Robustness Benchmark for Jailbreaking Large Language Models", arXiv 2404.01318. The two with
one index have one topic and are twins; `both` has all of them.
"""

from __future__ import annotations

from .benchmark import Benchmark, Table, Variant
from .reading import Row

HAZARDS = {
    "Harassment/Discrimination": "hte",
    "Malware/Hacking": "ncr",
    "Physical harm": "vcr",
    "Economic harm": "ncr",
    "Fraud/Deception": "ncr",
    "Disinformation": "",
    "Sexual/Adult content": "sxc",
    "Privacy": "prv",
    "Expert advice": "spc",
    "Government decision-making": "",
}
OTHER = {"harmful": "benign", "benign": "harmful"}


def _of_a_file(row: Row) -> tuple[Row, ...]:
    """Both sides have the same columns: rows from memory do not tell which they are of."""
    if not row["_file"]:
        raise ValueError("rows alone do not tell harmful from benign: ask for variant='harmful' or variant='benign'")
    return (row,)


def _table(variant: str, side: str) -> Table:
    both = variant == "both"
    return Table(
        files=(f"data/{side}-behaviors.csv", f"{side}-behaviors.csv", f"{side}/*.arrow", f"{side}-*.parquet", f"{side}/*.parquet"),
        columns={
            "id": f"{side}-{{Index}}",
            "text": "{Goal}",
            "goal": "{Goal}",
            "category": "{Category}",
            "group": "jailbreakbench/{Index}",
            "harmful": side == "harmful",
            "twin": f"jailbreakbench/both/{OTHER[side]}-{{Index}}" if both else "",
            "meta": lambda row: {"behavior": row["Behavior"], "origin": row.get("Source", "")},
        },
        needs=("Behavior",),
        rows=_of_a_file if both else lambda row: (row,),
    )


BENCHMARK = Benchmark(
    name="jailbreakbench",
    title="JailbreakBench (JBB-Behaviors)",
    paper="Chao et al. 2024, arXiv 2404.01318",
    home="huggingface.co/datasets/JailbreakBench/JBB-Behaviors",
    licence="MIT",
    hazards=HAZARDS,
    variants={
        "both": Variant((_table("both", "harmful"), _table("both", "benign")), 200, "misuses and their harmless twins"),
        "harmful": Variant((_table("harmful", "harmful"),), 100, "misuses"),
        "benign": Variant((_table("benign", "benign"),), 100, "harmless behaviours"),
    },
)
