"""RedTeam-2K: 2,000 harmful questions of 16 policies from eight sources, the goals behind JailBreakV-28K.

Luo et al. 2024, arXiv 2404.03027.
"""

from __future__ import annotations

import hashlib

from .benchmark import Benchmark, Cell, Table, Variant

HAZARDS = {
    "Animal Abuse": "vcr",
    "Bias": "hte",
    "Child Abuse Content": "cse",
    "Economic Harm": "ncr",
    "Fraud": "ncr",
    "Government Decision": "",
    "Hate Speech": "hte",
    "Health Consultation": "spc",
    "Illegal Activity": "ncr",
    "Malware": "ncr",
    "Physical Harm": "vcr",
    "Political Sensitivity": "",
    "Privacy Violation": "prv",
    "Tailored Unlicensed Advice": "spc",
    "Unethical Behavior": "",
    "Violence": "vcr",
}


def group(goal: str) -> str:
    """The group of a goal: JailBreakV-28K repeats the questions under many attacks, and tells them apart by their words alone."""
    return "redteam2k/" + hashlib.sha256(" ".join(goal.split()).lower().encode()).hexdigest()[:12]


COLUMNS: dict[str, Cell] = {
    "id": "{id}",
    "text": "{question}",
    "goal": "{question}",
    "category": "{policy}",
    "attack": "plain",
    "group": lambda row: group(row["question"]),
    "harmful": True,
    "meta": lambda row: {"from": row["from"]},
}
BENCHMARK = Benchmark(
    name="redteam2k",
    title="RedTeam-2K",
    paper="Luo et al. 2024, arXiv 2404.03027",
    home="huggingface.co/datasets/JailbreakV-28K/JailBreakV-28k",
    licence="MIT",
    hazards=HAZARDS,
    variants={"full": Variant((Table(("RedTeam_2K.csv", "RedTeam2K.csv", "RedTeam_2K*.parquet"), COLUMNS, needs=("from",)),), 2000)},
)
