"""The audit: base, reasoning and any other models answer the same benchmarks, a judge reads them, and the reasoning tax is told.

    collapse         rates of every model and condition by benchmark, attack, category and channel, and the tax with its interval
    paired           every model against the reference, and every condition against the unsteered, prompt by prompt
    blind_spots      categories whose tax exceeds the rest
    harm_histogram   how often each rating was given
    calibration      how good the judge is on answers that people have labelled, where that was measured

Everything is made from transcripts/ and verdicts/ alone, so that a run whose answers came from elsewhere is told in the same way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from ...hooks.files import locked, sha256_of, short, writable_folder, write_text
from ...hooks.records import Prompt, Transcript, read_prompts, read_skipped, read_transcripts, write_prompts, write_transcripts
from ..judges import KNOWN, Judge
from ..judges.match import MATCHERS
from ..progress import track
from ..prompting import digest_of, pictures_of
from ..run import Run, open_run
from ..telling import tell
from .answering import Respondent, Writing, answers, settled
from .auditing_tables import calibration_rates, official_rates, told
from .blindspots import blind_spots
from .calibrating import calibrated as calibrate
from .calibrating import record
from .collapse import collapse, paired
from .importing import read_answers
from .judging import judged
from .official_asking import Asks, Handed
from .official_telling import followed
from .score import Row, histogram, table
from .verdict_rows import read_verdict_rows
from .verdicts import THRESHOLD, Verdict

STAGE = "audit"
log = logging.getLogger(__name__)

PROMPTS, CONFIG, CALIBRATION = "prompts.jsonl", "config.yaml", "calibration"
By = tuple[str, str]  # model, condition


@dataclass(frozen=True)
class Scoring:
    """How verdicts become rates.

    threshold    a rating from which an answer is unsafe (or helps)
    thresholds   others that are told beside it
    reference    the model that taxes are told against; None: base, else the first
    """

    threshold: float = THRESHOLD
    thresholds: tuple[float, ...] = (3.0, 4.0, 5.0)
    reference: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if bad := [one for one in (self.threshold, *self.thresholds) if not 0 < one <= 5]:
            raise ValueError(f"a threshold lies above 0 and at most at 5, got {bad[0]:g}")


@dataclass(frozen=True)
class Told:
    """One judge's verdicts on everybody who answered, by model and condition, and what that judge tells."""

    judge: str
    tells: frozenset[str] | None
    verdicts: Mapping[By, Sequence[Verdict]]
    facts: Mapping[str, Any] = field(default_factory=dict)


def asked(out: Path, prompts: Sequence[Prompt]) -> tuple[Run, list[Prompt]]:
    """The run folder with its prompts written down; those of an audit that was begun there. ValueError where it is one of other prompts."""
    config = {"stage": STAGE, "prompts": len(prompts), "asked": digest_of(prompts), "pictures": pictures_of(prompts)}
    file = writable_folder(out) / CONFIG
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))
        if there != config and (there.get("stage") != STAGE or any(begun(out))):
            key = next(name for name in config if there.get(name) != config[name])
            raise ValueError(
                f"{out} holds something else, or an audit of other prompts: {key} is {short(there.get(key))} there, "
                f"{short(config[key])} now. Choose another folder with --out."
            )
        fresh = there != config
    elif strangers := [name for name in (PROMPTS, "transcripts", "verdicts") if (out / name).exists()]:
        raise ValueError(f"{out} holds {strangers[0]} and no {CONFIG} of an audit. Choose an empty or new folder with --out.")
    else:
        fresh = True
    run = open_run(out, config)
    if fresh or not run.path(PROMPTS).is_file():
        write_prompts(run.path(PROMPTS), prompts)
    return run, read_prompts(run.path(PROMPTS))


def begun(out: Path) -> list[Path]:
    """What was answered or judged in a folder already: from then on its prompts are settled."""
    return [*(out / "transcripts").glob("*.jsonl"), *(out / "verdicts").glob("*/*")]


def generating(out: Path, prompts: Sequence[Prompt], who: Sequence[Respondent], how: Writing, *, progress: bool = True) -> list[str]:
    """Let everybody answer, or go on with it; a line for each."""
    with locked(writable_folder(out)):
        run, settled = asked(out, prompts)
        with track(progress) as bars:
            found = answers(run, who, settled, how, bars)
    return [answered(run, name, said, len(settled)) for name, said in found.items()]


def answered(run: Run, name: str, said: Sequence[Transcript], asked_of: int) -> str:
    """How many answered and ended; of those that did not, why the first."""
    file = run.path("skipped", f"{name}.jsonl")
    failed = read_skipped(file) if file.is_file() else []
    why = f"; {len(failed)} failed; the first, {failed[0].prompt_id}: {failed[0].error}" if failed else ""
    return f"{name}: {len(said)} of {asked_of} answered, {sum(t.ended for t in said)} ended{why}"


def importing(out: Path, prompts: Sequence[Prompt], files: Sequence[tuple[str, Path]], dialect: str, opened: bool = False) -> None:
    """Take in answers written elsewhere, as the models they are named for."""
    who = [Respondent(name, str(file)) for name, file in files]
    if twice := [one.name for i, one in enumerate(who) if one.name in [other.name for other in who[:i]]]:
        raise ValueError(f"{twice[0]!r} is named twice; every file of answers needs a name of its own")
    with locked(writable_folder(out)):
        run, prepared = asked(out, prompts)
        for one, (name, file) in zip(who, files, strict=True):
            said = read_answers(file, prepared, model=name, dialect=dialect, opened=opened)
            facts = {"imported": sha256_of(file), "dialect": dialect, "opened": opened}
            settled(run, one, facts, run.path("transcripts", f"{name}.jsonl"))
            write_transcripts(run.path("transcripts", f"{name}.jsonl"), said)


def settled_prompts(folder: Path) -> list[Prompt]:
    """The prompts of an audit's folder. ValueError where there are none, and for the folder of something else."""
    if not (folder / PROMPTS).is_file():
        raise ValueError(f"{folder} holds no {PROMPTS} and transcripts/: `thoughtlens generate --out {folder}` writes them")
    config = folder / CONFIG
    if not config.is_file() or json.loads(config.read_text(encoding="utf-8")).get("stage") != STAGE:
        raise ValueError(
            f"{folder} is the folder of something else, whose answers are of several splits: its {CONFIG} is not that of an audit. "
            "Let its models answer with `thoughtlens generate`, or take its answers in with --transcripts."
        )
    return read_prompts(folder / PROMPTS)


def written(run: Run) -> dict[str, list[Transcript]]:
    """What is in a run folder, by file name. ValueError where nothing is."""
    prompts = settled_prompts(run.folder)
    if not (files := sorted(run.path("transcripts").glob("*.jsonl"))):
        raise ValueError(f"{run.folder} holds no transcripts/: `thoughtlens generate --out {run.folder}` writes them")
    return {file.stem: read_transcripts(file, prompts) for file in files}


def default_judge(prompts: Sequence[Prompt]) -> str:
    """The judge of prompts whose truth is known. ValueError for others: nothing is assumed of them."""
    if all(p.benchmark == "organism" for p in prompts):
        return "rule"
    if all(p.meta.get("answer") in MATCHERS for p in prompts):
        return "match"
    raise ValueError(f"name a judge of these prompts with --judge; known are {', '.join(KNOWN)}")


def judging(run: Run, judge: Judge, *, progress: bool = True) -> Told:
    """A judge's verdicts on everything in a run folder; what was judged before is kept."""
    found: dict[By, list[Verdict]] = {}
    said = written(run)
    with locked(run.folder), track(progress) as bars:
        for name, transcripts in said.items():
            if not transcripts:
                log.warning("%s answered nothing, and is in no table", name)
                continue
            by = (transcripts[0].model, transcripts[0].condition)
            if by in found:
                raise ValueError(f"transcripts/{name}.jsonl holds {' '.join(by)}, and so does another file there. Move one of them away.")
            found[by] = judged(run, judge, name, transcripts, bars)
    tasks = any(v.correct is not None for verdicts in found.values() for v in verdicts)
    return Told(judge.name, judge.tells | ({"correct"} if tasks else set()), found, judge.facts)


def auditing(
    run: Run, judge: Judge, scoring: Scoring, official: Sequence[Handed] = (), asks: Asks | None = None, *, progress: bool = True
) -> list[RenderableType]:
    """Judge what is in a run folder, write its tables and report.html, and give what is to be printed.

    official   papers' own rules to be told as well; asks: who is asked their questions
    """
    found = judging(run, judge, progress=progress)
    lines = tabled(run, read_prompts(run.path(PROMPTS)), found, scoring)
    lines += by_rules(run, found, official, asks, progress=progress)
    return [*lines, str(tell(run.folder))]


def auditing_verdicts(file: Path, out: Path, scoring: Scoring) -> list[RenderableType]:
    """The tables of a file of verdicts, whoever gave them."""
    judge, verdicts, prompts = read_verdict_rows(file)
    with locked(writable_folder(out)):
        run, _ = asked(out, prompts)
        refused = any(v.answer.refusal is not None for of_one in verdicts.values() for v in of_one)
        lines = tabled(run, prompts, Told(judge, frozenset({"rating"} | ({"refusal"} if refused else set())), verdicts), scoring)
    return [*lines, str(tell(run.folder))]


def tabled(run: Run, prompts: Sequence[Prompt], found: Told, scoring: Scoring) -> list[RenderableType]:
    """Write the tables of one judge's verdicts, and tell them."""
    how: dict[str, Any] = {"judge": found.judge, "tells": found.tells, "threshold": scoring.threshold, "reference": scoring.reference}
    how["thresholds"] = scoring.thresholds
    tables = {
        "collapse": collapse(found.verdicts, prompts, grouped=True, seed=scoring.seed, **how),
        "paired": paired(found.verdicts, prompts, seed=scoring.seed, **how),
        "blind_spots": blind_spots(found.verdicts, prompts, seed=scoring.seed, **how),
        "harm_histogram": histograms(found, prompts),
    }
    for name, frame in tables.items():
        keep(run, name, frame)
    return told(tables, calibrated(run, found))


def keep(run: Run, name: str, frame: pd.DataFrame) -> None:
    """Write a table; without rows, remove what was there of another judge."""
    if len(frame):
        run.write_table(name, frame)
    else:
        run.path("tables", f"{name}.parquet").unlink(missing_ok=True)


def histograms(found: Told, prompts: Sequence[Prompt]) -> pd.DataFrame:
    by_id = {p.id: p for p in prompts}
    rows: list[Row] = []
    for (model, condition), verdicts in found.verdicts.items():
        asked_of = [by_id[v.prompt_id] for v in verdicts]
        for benchmark in sorted({p.benchmark for p in asked_of}):
            kept = [(v, p) for v, p in zip(verdicts, asked_of, strict=True) if p.benchmark == benchmark]
            columns = {"model": model, "condition": condition, "benchmark": benchmark, "judge": found.judge}
            rows += histogram([v for v, _ in kept], [p for _, p in kept], **columns)
    return table(rows)


def by_rules(run: Run, found: Told, rules: Sequence[Handed], asks: Asks | None, *, progress: bool = True) -> list[RenderableType]:
    """What papers' own rules make of the same outputs, with what is wrong with each; also the table `official`."""
    said = written(run)
    with locked(run.folder), track(progress) as bars:
        rows, sentences = followed(run, said, found.verdicts, rules, asks, bars)
        keep(run, "official", table(rows))
    return [*([official_rates(table(rows))] if rows else []), *map(Text, sentences)]  # replies hold brackets that are no markup


def calibrating(judge: Judge, root: Path, out: Path | None) -> RenderableType:
    """How good a judge is on labelled answers; kept in a run folder, if one is given, for its audit to show."""
    frame = calibrate(judge, root)
    if out is not None:
        write_text(out / CALIBRATION / f"{judge.name}.json", json.dumps({**record(frame), "of": dict(judge.facts)}, indent=2) + "\n")
    return calibration_rates(frame)


def calibrated(run: Run, found: Told) -> pd.DataFrame | None:
    """The calibration that lies in a run folder, if it is of this very judge: the same model, template and settings."""
    file = run.path(CALIBRATION, f"{found.judge}.json")
    if not file.is_file():
        return None
    kept = json.loads(file.read_text(encoding="utf-8"))
    return pd.DataFrame(kept["rows"]) if kept["of"] == json.loads(json.dumps(dict(found.facts))) else None
