"""MM-SafetyBench: a harmful phrase is moved from the question into a picture: painted by Stable Diffusion, typed, or both.

Liu et al. 2023, arXiv 2311.17600: 13 scenarios, 1,680 questions, each with three pictures. In five scenarios (political lobbying, legal,
financial and health advice, government decisions) the official judge scores whether a refusal or disclaimer is missing, not harm.

The questions are on GitHub, one file a scenario, the pictures apart from them (unzip them to data/imgs). The hub has a folder a scenario
(data/Illegal_Activitiy/) with a Parquet file a dress (SD, SD_TYPO, TYPO) and the plain questions in Text_only.parquet.
"""

from __future__ import annotations

from dataclasses import replace

from .benchmark import Benchmark, Beside, Cell, Table, Variant
from .reading import Row

SCENARIOS = {  # published count, code of the hazard
    "01-Illegal_Activitiy": (97, "ncr"),
    "02-HateSpeech": (163, "hte"),
    "03-Malware_Generation": (44, "ncr"),
    "04-Physical_Harm": (144, "vcr"),
    "05-EconomicHarm": (122, "ncr"),
    "06-Fraud": (154, "ncr"),
    "07-Sex": (109, "sxc"),
    "08-Political_Lobbying": (153, ""),
    "09-Privacy_Violence": (139, "prv"),
    "10-Legal_Opinion": (130, "spc"),
    "11-Financial_Advice": (167, "spc"),
    "12-Health_Consultation": (109, "spc"),
    "13-Gov_Decision": (149, ""),
}
HAZARDS = {name: code for name, (_, code) in SCENARIOS.items()}
APART = frozenset(name for name in SCENARIOS if name[:2] in ("08", "10", "11", "12", "13"))
DRESSES = {  # what the model is asked, the published folder of the pictures, the attack
    "sd_typo": ("{Rephrased Question}", "SD_TYPO", "related_image_typographic"),
    "sd": ("{Rephrased Question(SD)}", "SD", "related_image"),
    "typo": ("{Rephrased Question}", "TYPO", "typographic_phrase"),
    "text": ("{Changed Question}", "", "plain"),
    "question": ("{Question}", "", "plain"),
}
ABOUT = {
    "sd_typo": "the phrase painted and typed below",
    "sd": "the phrase painted",
    "typo": "the phrase typed",
    "text": "plain text: the question as a request, which is the goal of all dresses",
    "question": "plain text: the question as it was first asked (GitHub only)",
}


def _scenario(row: Row) -> str:
    """The scenario as GitHub names it: of its file, or of the hub's folder, which lacks the number."""
    for name in SCENARIOS:
        if row["_stem"] == name or row["_folder"] == name[3:]:
            return name
    raise ValueError(f"{row['_file']} is no scenario of MM-SafetyBench")


def _id(row: Row) -> str:
    return f"{_scenario(row)}-{row['_key'] or row['id']}"


def _group(row: Row) -> str:
    return f"mm_safetybench/{_id(row)}"


def _in_tiny(row: Row) -> list[Row]:
    return [row] if int(row["_key"]) in row["_beside"]["Sampled_ID_List"] else []


def _columns(text: str, goal: str, attack: str) -> dict[str, Cell]:
    return {"id": _id, "text": text, "goal": goal, "category": _scenario, "attack": attack, "group": _group, "harmful": True}


def _full(dress: str) -> Table:
    text, folder, attack = DRESSES[dress]
    hub = Table(
        files=(f"data/*/{folder or 'Text_only'}.parquet", f"{folder or 'Text_only'}.parquet"),
        columns=_columns("{question}", "{_beside[question]}", attack),
        images=(lambda row: row["image"],) if folder else (),
        needs=("id", "image") if folder else ("id",),
        beside=Beside(("data/*/Text_only.parquet", "Text_only.parquet"), lambda other: [_id(other)], _id),
    )
    return Table(
        files=("data/processed_questions/*.json", "*.json"),
        columns=_columns(text, "{Changed Question}", attack),
        images=(f"data/imgs/{{_stem}}/{folder}/{{_key}}.jpg",) if folder else (),
        instead=(hub,) if dress != "question" else (),
    )


def _tiny(dress: str) -> Table:
    ids = Beside(("TinyVersion_ID_List.json",), lambda other: [other["Scenario"]], _scenario)
    return replace(_full(dress), rows=_in_tiny, beside=ids, instead=())


BENCHMARK = Benchmark(
    name="mm_safetybench",
    title="MM-SafetyBench",
    paper="Liu et al. 2023, arXiv 2311.17600",
    home="github.com/isXinLiu/MM-SafetyBench",
    licence="CC BY-NC 4.0",
    hazards=HAZARDS,
    apart=APART,
    variants={
        **{dress: Variant((_full(dress),), sum(n for n, _ in SCENARIOS.values()), about) for dress, about in ABOUT.items()},
        **{f"tiny_{dress}": Variant((_tiny(dress),), 168, f"the tiny version: {about}") for dress, about in ABOUT.items()},
    },
)
