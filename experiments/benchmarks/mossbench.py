"""MOSSBench: harmless requests about pictures that look alarming, to measure over-refusal, and twins of most of them that do ask for harm.

Li et al. 2024, arXiv 2406.17806: 300 requests, 100 of each of three kinds of alarm, and 244 contrasts that share their numbers; a contrast
differs in words or in the picture. The repository is github.com/xirui-li/MOSSBench too, where information.csv has the same 300 requests;
the hub keeps metadata.csv in the folders of the pictures.
"""

from __future__ import annotations

from dataclasses import replace

from .benchmark import Benchmark, Beside, Cell, Table, Variant
from .reading import Row

KINDS = {"type 1": "Exaggerated Risk", "type 2": "Negated Harm", "type 3": "Counterintuitive Interpretation"}
CONTRAST = "data_contrast/images_information/information.json"


def _kind(row: Row) -> str:
    said = row["metadata"]["over"] if "metadata" in row else row.get("meta_data_over") or row["metadata_over"]
    if (kind := KINDS.get(said, said)) not in KINDS.values():
        raise ValueError(f"{said!r} is no kind of MOSSBench")
    return str(kind)


def _is_contrast(row: Row) -> bool:
    """Only the records of harmless requests say which harm the picture brings to mind."""
    return "harm" not in row["metadata"] if "metadata" in row else row["_folder"] == "contrast_images"


def _harmless(row: Row) -> bool:
    if _is_contrast(row):
        raise ValueError("it is a contrast, which asks for harm")
    return False


def _harmful(row: Row) -> bool:
    if not _is_contrast(row):
        raise ValueError("it is no contrast, it asks for nothing harmful")
    return True


COLUMNS: dict[str, Cell] = {
    "id": "{pid}",
    "text": "{question}",
    "goal": "{question}",
    "category": _kind,
    "attack": "plain",
    "group": "mossbench/{pid}",
    "harmful": _harmless,
}
CONTRASTS: dict[str, Cell] = {**COLUMNS, "harmful": _harmful}
HARMLESS = Table(
    ("data/images_information/information.json",),
    COLUMNS,
    ("{image}",),
    ("metadata",),
    instead=(
        Table(("information.csv",), COLUMNS, (lambda row: [row["image_path"], f"data/{row['image_path']}"],), ("image_path",)),
        Table(("images/metadata.csv",), COLUMNS, ("{file_name}",)),
    ),
)
HARMFUL = Table(
    (CONTRAST,),
    CONTRASTS,
    ("{image}",),
    ("metadata",),
    instead=(Table(("contrast_images/metadata.csv",), CONTRASTS, ("{file_name}",)),),
)
BOTH = (
    replace(
        HARMLESS,
        columns={**COLUMNS, "twin": lambda row: f"mossbench/both/contrast-{row['pid']}" if row["_beside"] else ""},
        beside=Beside((CONTRAST,), lambda other: [other["pid"]], "{pid}"),
        instead=(),
    ),
    replace(HARMFUL, columns={**CONTRASTS, "id": "contrast-{pid}", "twin": "mossbench/both/{pid}"}, instead=()),
)
BENCHMARK = Benchmark(
    name="mossbench",
    title="MOSSBench",
    paper="Li et al. 2024, arXiv 2406.17806",
    home="github.com/turningpoint-ai/MOSSBench",
    licence="CC BY-SA 4.0",
    measures="over-refusal",
    variants={
        "oversensitive": Variant((HARMLESS,), 300, "the harmless requests"),
        "contrast": Variant((HARMFUL,), 244, "the twins that ask for harm"),
        "both": Variant(BOTH, 544, "both, each contrast linked to its twin"),
    },
)
