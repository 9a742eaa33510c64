"""AdvBench, harmful behaviours: instructions that an aligned model should refuse, each with the first words of an answer.

Zou et al. 2023, "Universal and Transferable Adversarial Attacks on Aligned Language Models", arXiv 2307.15043: 520 instructions, no
categories. In some copies the names of the two columns are swapped; an instruction never begins as an answer does.
"""

from __future__ import annotations

from .benchmark import Benchmark, Cell, Table, Variant
from .reading import Row

SAME: dict[str, Cell] = {"id": "{_number}", "category": "harmful behaviors", "harmful": True}
ANSWERS = ("Sure", "Here is", "Here are", "Here's")


def _goal(row: Row) -> str:
    goal, target = row["goal"], row["target"]
    swapped = goal.lstrip().startswith(ANSWERS) and not target.lstrip().startswith(ANSWERS)
    return target if swapped else goal


HUB = Table(
    files=("data/train-*.parquet", "train-*.parquet", "*.arrow"),
    columns={"text": "{prompt}", "goal": "{prompt}", **SAME},
)
TABLE = Table(
    files=("data/advbench/harmful_behaviors.csv", "harmful_behaviors.csv"),
    columns={"text": _goal, "goal": _goal, **SAME},
    needs=("goal", "target"),
    instead=(HUB,),
)

BENCHMARK = Benchmark(
    name="advbench",
    title="AdvBench (harmful behaviours)",
    paper="Zou et al. 2023, arXiv 2307.15043",
    home="github.com/llm-attacks/llm-attacks (hub form: huggingface.co/datasets/walledai/AdvBench)",
    licence="MIT",
    variants={"behaviors": Variant((TABLE,), 520)},
)
