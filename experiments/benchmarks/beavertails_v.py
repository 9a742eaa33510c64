"""BeaverTails-V: harmful questions about pictures, 20 categories with a configuration of the hub each.

Ji et al. 2025, "Safe RLHF-V", arXiv 2503.17682. The evaluation split: 1,180 questions, about 59 a category; a picture's severity comes
with it. The training split, which has answers, is not loaded.
"""

from __future__ import annotations

from typing import Any

from .benchmark import Benchmark, Table, Variant
from .reading import Row

HAZARDS = {
    "animal_abuse": "vcr",
    "dangerous_behavior": "",
    "deception_in_personal_relationships": "",
    "discriminatory_depictions": "hte",
    "environmental_damage": "ncr",
    "false_information": "",
    "financial_and_academic_fraud": "ncr",
    "hacking_or_digital_crime": "ncr",
    "harmful_health_content": "spc",
    "horror_and_gore": "",
    "identity_misuse_and_impersonation": "ncr",
    "insulting_and_harassing_behavior": "hte",
    "pornographic_content": "sxc",
    "privacy_invasion_and_surveillance": "prv",
    "psychological_harm_and_manipulation": "",
    "psychological_horror_and_dark_themes": "",
    "sensitive_information_in_key_areas": "",
    "sexual_crimes": "src",
    "terrorism_or_extremism": "vcr",
    "violence_and_physical_harm": "vcr",
}


def _category(row: Row) -> str:
    """The configuration's name, of whichever spelling: animal_abuse."""
    return str(row["category"]).strip().lower().replace(" ", "_")


def _meta(row: Row) -> dict[str, Any]:
    return {} if row.get("image_severity") is None else {"severity": int(row["image_severity"])}


TABLE = Table(
    files=(
        "data/*/evaluation.parquet",
        "*/evaluation*.parquet",
        "evaluation*.parquet",
        "*/evaluation/*.arrow",
        "evaluation/*.arrow",
        "*/evaluation.jsonl",
        "evaluation.jsonl",
    ),
    columns={
        "id": lambda row: f"{_category(row)}-{row['_number']}",
        "text": "{question}",
        "goal": "{question}",
        "category": _category,
        "harmful": True,
        "split": "evaluation",
        "meta": _meta,
    },
    images=(lambda row: row["image"],),
    needs=("image", "category"),
)

BENCHMARK = Benchmark(
    name="beavertails_v",
    title="BeaverTails-V",
    paper="Ji et al. 2025, arXiv 2503.17682",
    home="huggingface.co/datasets/PKU-Alignment/BeaverTails-V",
    licence="CC BY-NC 4.0",
    hazards=HAZARDS,
    variants={"evaluation": Variant((TABLE,), 1180, "the evaluation split of all categories")},
)
