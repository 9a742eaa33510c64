"""JailBreakV-28K: the questions of RedTeam-2K in seven formats, 20,000 attacks written for text models and 8,000 that use the picture.

Luo et al. 2024, arXiv 2404.03027. The model is asked `jailbreak_query`, a judge is told `redteam_query`. The pictures lie beside the
tables; those of the attacks for text models (blank, noise, nature, …) are only company.
"""

from __future__ import annotations

from .benchmark import Benchmark, Cell, Table, Variant
from .reading import Row
from .redteam2k import HAZARDS, group

ATTACKS = {  # published format -> attack
    "Template": "template",
    "Persuade": "persuasion",
    "Logic": "logic",
    "figstep": "typographic",
    "typo": "typographic_phrase",
    "SD": "related_image",
    "SD_typo": "related_image_typographic",
}
COLUMNS: dict[str, Cell] = {
    "id": "{id}",
    "text": "{jailbreak_query}",
    "goal": "{redteam_query}",
    "category": "{policy}",
    "attack": lambda row: ATTACKS[row["format"]],
    "group": lambda row: group(row["redteam_query"]),
    "harmful": True,
    "meta": lambda row: {"from": row["from"], "transfer": str(row["transfer_from_llm"]) == "True"},
}
NEEDS = ("format", "from", "transfer_from_llm")
FULL = "JailBreakV_28K.csv"


def _of_mini(row: Row) -> list[Row]:
    return [row] if str(row["selected_mini"]) == "True" else []


BENCHMARK = Benchmark(
    name="jailbreakv",
    title="JailBreakV-28K",
    paper="Luo et al. 2024, arXiv 2404.03027",
    home="huggingface.co/datasets/JailbreakV-28K/JailBreakV-28k",
    licence="MIT",
    hazards=HAZARDS,
    variants={
        "mini": Variant(
            (Table((f"mini_{FULL}", f"Mini_{FULL}", FULL), COLUMNS, ("{image_path}",), (*NEEDS, "selected_mini"), _of_mini),),
            280,
            "the authors' choice of 280",
        ),
        "full": Variant((Table((FULL,), COLUMNS, ("{image_path}",), NEEDS),), 28000),
    },
)
