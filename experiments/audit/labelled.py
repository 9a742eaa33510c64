"""Answers that people have labelled, to measure judges by.

    XSTest           answers of models to its prompts, read by two annotators each (Röttger et al. 2023, arXiv 2308.01263)
    FILE.jsonl       a user's own: goal, answer, and a label

XSTest's unsafe prompts are those whose type begins with "contrast_"; its files of completions have names that tell the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...hooks.records import Prompt, Transcript
from ..benchmarks.reading import Row, files_of, read_rows
from .verdicts import REFUSALS

COMPLETIONS = "xstest_v2_completions_*.csv"
XSTEST = {"1_full_compliance": "none", "2_full_refusal": "full", "3_partial_refusal": "partial"}
TOLD = 10


@dataclass(frozen=True)
class Labelled:
    """An output and what people say of its answer; None: they do not say.

    refusal   full, partial or none
    unsafe    whether it does harm
    rating    0-5
    source    where it comes from, as tables show it
    """

    transcript: Transcript
    refusal: str | None = None
    unsafe: bool | None = None
    rating: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.refusal not in (None, *REFUSALS):
            raise ValueError(f"refusal is {', '.join(REFUSALS)}, got {self.refusal!r}")
        if not isinstance(self.unsafe, bool | None):
            raise ValueError(f"unsafe is true or false, got {self.unsafe!r}")
        if self.rating is not None and not (type(self.rating) in (int, float) and 0 <= self.rating <= 5):
            raise ValueError(f"a rating lies between 0 and 5, got {self.rating!r}")
        if self.refusal is None and self.unsafe is None and self.rating is None:
            raise ValueError(f"there is no label: give refusal ({', '.join(REFUSALS)}), unsafe (true, false) or rating (0-5)")


def labelled_answers(root: Path) -> list[Labelled]:
    """What lies at `root`: a .jsonl file of labelled answers, or XSTest."""
    return labelled_lines(Path(root)) if Path(root).suffix == ".jsonl" else xstest_completions(Path(root))


def files_at(root: Path) -> list[Path]:
    """The files that are read: one that is named itself; of XSTest those of its model_completions, not what others have made of them."""
    root = Path(root)
    if root.is_file():
        return [root]
    return files_of(root, f"model_completions/{COMPLETIONS}") or sorted(root.glob(COMPLETIONS))


def xstest_completions(root: Path) -> list[Labelled]:
    """Answers of models to XSTest with what people say of them; `root` is the published folder, one above it, or one file of completions.

    FileNotFoundError where there is none. ValueError for a file with other columns, and for a label that is not known.
    """
    if not (files := files_at(root)):
        raise FileNotFoundError(
            f"{root} holds no {COMPLETIONS}. Give the folder of XSTest (github.com/paul-rottger/xstest), or a .jsonl file."
        )
    return [_completion(row, file) for file in files for row in read_rows(file, Path(root))]


def labelled_lines(path: Path) -> list[Labelled]:
    """Answers labelled by the user, JSON lines: goal, answer, and refusal (full, partial, none), unsafe (true, false) or rating (0-5).

    Also id, group, category, model, and harmful, without which a refusal says nothing of compliance. ValueError naming every line that
    cannot be used.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file of labelled answers {path}")
    found, wrong = [], []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            try:
                found.append(_line(json.loads(line), Path(path), number))
            except (ValueError, TypeError) as problem:
                wrong.append(f"{path}:{number}: {problem}")
    if wrong or not found:
        more = f"; and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""
        raise ValueError(f"{len(wrong)} lines are no labelled answers: {'; '.join(wrong[:TOLD])}{more}" if wrong else f"{path} is empty")
    return found


def _completion(row: Row, file: Path) -> Labelled:
    where = f"{file}, row {row['_number']}"
    if missing := [name for name in ("id", "type", "prompt", "completion", "final_label") if name not in row]:
        raise ValueError(f"{where} has no column {missing[0]!r}, so it is no file of XSTest's completions. Download it again.")
    if row["final_label"] not in XSTEST:
        raise ValueError(f"{where} has the label {row['final_label']!r}; known are {', '.join(XSTEST)}")
    name, model = f"xstest/{str(row['id']).removeprefix('v2-')}", file.stem.removeprefix(COMPLETIONS.split("*")[0])
    prompt = Prompt(
        name,
        row["prompt"],
        goal=row["prompt"],
        category=row["type"],
        group=name,
        harmful=row["type"].startswith("contrast_"),
        benchmark="xstest",
    )
    transcript = Transcript(prompt, model, text=row["completion"], ended=True, answer=row["completion"])
    return Labelled(transcript, refusal=XSTEST[row["final_label"]], source=f"xstest {model}")


def _line(row: Any, file: Path, number: int) -> Labelled:
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object")
    if missing := [name for name in ("goal", "answer") if not isinstance(row.get(name), str)]:
        raise ValueError(f"{missing[0]} is text, got {row.get(missing[0])!r}")
    goal, name = row["goal"], str(row.get("id", f"{file.stem}/{number}"))
    about = {"category": row.get("category", ""), "group": row.get("group", goal), "harmful": row.get("harmful")}
    transcript = Transcript(
        Prompt(name, goal, goal=goal, **about), row.get("model", ""), text=row["answer"], ended=True, answer=row["answer"]
    )
    return Labelled(transcript, row.get("refusal"), row.get("unsafe"), row.get("rating"), source=file.stem)
