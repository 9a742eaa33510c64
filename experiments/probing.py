"""`thoughtlens probe RUN`: where, when and how surely a label is linearly readable in a run's hidden states, and whether it is more than
the words on the page.

Every question is a stage: its tables are kept, an interrupted command goes on with the next one, and a table that is there for the same
inputs is not made again. A question that a run cannot answer says why, and what to pass.

Layer, kind, regularisation and moment are chosen on dev; what is printed is of test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import RenderableType
from rich.rule import Rule

from ..checkpoints import CHECKPOINTS
from ..hooks.files import locked
from . import probing_tables as tables
from . import projecting, questions, readouts, rereading, rereading_tables
from .asked import Asked, Probing, open_probing
from .probing_summary import sentences
from .progress import printer
from .questions import Tables
from .telling import tell

Tell = Callable[[pd.DataFrame], Iterable[RenderableType]]


def silent(_: pd.DataFrame) -> Iterable[RenderableType]:
    """For tables that are there to be drawn."""
    return ()


@dataclass(frozen=True)
class Question:
    """A question in words, the function that answers it, and how each table is told: those it always leaves, and those it may.

    row_group   as in Run.write_table, of tables in which a few rows are looked up
    """

    words: str
    answer: Callable[[Probing], Tables]
    tables: Mapping[str, Tell]
    optional: Mapping[str, Tell] = field(default_factory=dict)
    row_group: int | None = None


QUESTIONS: Mapping[str, Question] = MappingProxyType(
    {
        "detection": Question("Where, when and how surely is it readable?", questions.detection, {"detection": tables.detection}),
        "held out": Question("Does it hold where the probe was never trained?", questions.held_out, {"holdouts": tables.held_out}),
        "transfer": Question(
            "Does one probe do for other models, attacks, categories, moments?", questions.transfers, {"transfer": tables.transfers}
        ),
        "geometry": Question(
            "Do layers and checkpoints share a direction?",
            questions.geometries,
            {"geometry": tables.geometries},
            {"angles": tables.angles},
        ),
        "samples": Question("How many goals does it take?", questions.samples, {"samples": tables.samples}),
        "categories": Question("Can the category be read?", questions.categories, {"categories": tables.categories}),
        "projection": Question(
            "Where do harmful prompts lie?", questions.projections, {"projection": tables.projection}, row_group=projecting.ROW_GROUP
        ),
        "tokens": Question(
            "When does a thought give itself away?",
            rereading.tokens,
            {
                **{"sequence": rereading_tables.sequence, "trajectory": silent, "curves": rereading_tables.curves},
                "cliff": rereading_tables.cliffs,
            },
            {"earliest": rereading_tables.earliest, "delay": rereading_tables.delays},
        ),
        "decisions": Question(
            "Where do safe and reasoning part ways?",
            rereading.decisions,
            {"divergence": silent, "decision": rereading_tables.decisions, "agreement": rereading_tables.agreements},
        ),
        "heads": Question(
            "Which heads write the direction?",
            rereading.heads,
            {"heads": rereading_tables.heads, "ablation": rereading_tables.ablation},
        ),
        "readouts": Question(
            "What does every layer read at every token?",
            rereading.readouts,
            {"readouts": rereading_tables.readouts},
            row_group=readouts.ROW_GROUP,
        ),
    }
)


def answered(p: Probing, name: str) -> Tables:
    """The tables of a question, made now or found. Raises Unanswered, and ValueError as the functions behind it do."""
    question = QUESTIONS[name]
    files = {table: p.table_file(table) for table in (*question.tables, *question.optional)}
    for file in files.values():
        if file.is_file() and not readable(file):
            file.unlink()  # and made again
    with p.stage(p.stage_of(name), [files[table] for table in question.tables], p.inputs) as due:
        if due:
            answer = question.answer(p)
            for table, rows in answer.items():
                p.run.write_table(p.named(table), rows, row_group=question.row_group)
            for table in files.keys() - answer.keys():
                files[table].unlink(missing_ok=True)
    return {table: p.table(table) for table, file in files.items() if file.is_file()}


def readable(file: Path) -> bool:
    try:
        pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return False
    return True


def withdraw(p: Probing, name: str) -> None:
    """Remove the tables that another start of this command, asked otherwise, left for a question: the report would mix the two."""
    if p.run.forget(p.stage_of(name)):
        for table in (*QUESTIONS[name].tables, *QUESTIONS[name].optional):
            p.table_file(table).unlink(missing_ok=True)


def findings(p: Probing) -> Iterator[RenderableType]:
    """Everything asked, question by question; what cannot be answered says why. Only the first question is needed by the others."""
    yield opening(p)
    found: Tables = {}
    for name, question in QUESTIONS.items():
        yield Rule(question.words, align="left", style="bold")
        try:
            answer = answered(p, name)
        except ValueError as lacking:
            if name == "detection":
                raise
            withdraw(p, name)
            yield f"left out: {lacking}"
            continue
        for table, rows in answer.items():
            yield from {**question.tables, **question.optional}[table](rows)
        found |= answer
    yield Rule("In short", align="left", style="bold")
    yield from sentences(found)


def opening(p: Probing) -> str:
    """What is probed, in a sentence or two."""
    prompts = Counter(t.prompt.split or "no split" for t in p.said)
    told = (
        f"{p.run.folder}: what {p.writer} wrote for {len(p.said)} prompts ({', '.join(f'{split} {n}' for split, n in prompts.items())}), "
        f"read in {', '.join(p.stores)} at {len(p.spans)} moments. A positive is {p.asked.label}"
    )
    told += f" among {p.asked.among} prompts" if p.asked.among != "all" else ""
    if 1 / (1 + p.asked.shuffles) > tables.ALPHA or not p.asked.resampled:
        told += f" ({p.asked.shuffles} shuffles, {p.asked.resampled} resamples: too few to show anything, which takes 19 and 1)"
    return f"{told} (judge {p.judge})" if p.judge else told


def probe(run: str | Path, asked: Asked, *, checkpoints: Path | None = None, device: str | None = None, progress: bool = True) -> None:
    """Answer every question about a run folder, keep the tables there, print what came out, and draw report.html again."""
    console = printer()
    p = open_probing(run, asked, checkpoints=checkpoints, shipped=CHECKPOINTS, device=device, progress=progress)
    with locked(p.run.folder):
        for told in findings(p):
            console.print(told, soft_wrap=isinstance(told, str))
        if asked.models or asked.spans or asked.kinds[0] != "logistic":
            for stage in ("detection", "projection", "readouts"):  # the demo's: their tables are now of fewer cells
                p.run.forget(stage)
        console.print(f"report: {tell(p.run.folder)}", soft_wrap=True)
