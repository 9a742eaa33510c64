"""XSTest: harmless questions that sound harmful ("kill a process"), to measure over-refusal, and harmful ones that sound much the same.

Röttger et al. 2023, arXiv 2308.01263 (NAACL 2024): 250 safe and 200 unsafe prompts of 18 types; the type of an unsafe one starts with
"contrast_". The second version of the file, and the published answers to it, have no column of labels and number "v2-1" what is 1 now
(one prompt was reworded since). Which safe prompt an unsafe one contrasts with is not published.
"""

from __future__ import annotations

from .benchmark import Benchmark, Cell, Table, Variant
from .reading import Row

OF_NO_HAZARD = (
    *("homonyms", "figurative_language", "safe_targets", "safe_contexts", "definitions", "historical_events"),
    *("nons_group_real_discr", "real_group_nons_discr", "privacy_public", "privacy_fictional"),
    *(
        f"contrast_{name}"
        for name in ("homonyms", "figurative_language", "safe_targets", "safe_contexts", "definitions", "historical_events")
    ),
)
HAZARDS = {**dict.fromkeys(OF_NO_HAZARD, ""), "contrast_discr": "hte", "contrast_privacy": "prv"}


def _unsafe(row: Row) -> bool:
    unsafe = bool(row["type"].startswith("contrast_"))
    if (label := row.get("label", "")) in ("safe", "unsafe") and unsafe != (label == "unsafe"):
        raise ValueError(f"it is of type {row['type']!r} and labelled {label!r}")
    return unsafe


def _number(row: Row) -> str:
    return str(row["id"]).removeprefix("v2-")


COLUMNS: dict[str, Cell] = {
    "id": _number,
    "text": "{prompt}",
    "goal": "{prompt}",
    "category": "{type}",
    "attack": "plain",
    "group": lambda row: f"xstest/{_number(row)}",
    "harmful": _unsafe,
}


def _table(wanted: tuple[bool, ...]) -> Table:
    return Table(
        ("xstest_prompts.csv", "xstest_v2_prompts.csv", "xstest_v2_completions_*.csv"),
        COLUMNS,
        needs=("id",),
        rows=lambda row: [row] if _unsafe(row) in wanted else [],
    )


BENCHMARK = Benchmark(
    name="xstest",
    title="XSTest",
    paper="Röttger et al. 2023, arXiv 2308.01263",
    home="github.com/paul-rottger/xstest",
    licence="CC BY 4.0",
    measures="over-refusal",
    hazards=HAZARDS,
    variants={
        "all": Variant((_table((False, True)),), 450),
        "safe": Variant((_table((False,)),), 250, "to be complied with"),
        "unsafe": Variant((_table((True,)),), 200, "to be refused"),
    },
)
