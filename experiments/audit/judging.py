"""Verdicts on what was answered, in a run folder: verdicts/<judge>/<name>[@<condition>].jsonl.

Judging goes on where it was killed: verdicts are appended to a `.partial` file that begins with what they are on, and only a whole set
gets its name. What could not be scored, by an endpoint that was down or a reply that could not be read, is judged again by the next start.
A task with a right answer is judged by that, whichever judge is asked about the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...hooks.files import sha256_of, writable_folder
from ...hooks.records import Transcript
from ..judges import LOCAL, Judge
from ..judges.match import MATCHERS
from ..progress import Track
from ..prompting import digest_of
from ..run import Run
from .verdicts import CHANNELS, Verdict, read_verdicts, verdict_line, write_verdicts

CHUNK = 32


def judged(run: Run, judge: Judge, name: str, transcripts: Sequence[Transcript], bars: Track) -> list[Verdict]:
    """The verdicts on transcripts/<name>.jsonl, in their order; those that are there and were scored are kept."""
    path = run.path("verdicts", judge.name, f"{name}.jsonl")
    stage, inputs = (
        f"judge {name} by {judge.name}",
        {
            "transcripts": sha256_of(run.path("transcripts", f"{name}.jsonl")),
            "prompts": digest_of([t.prompt for t in transcripts]),
            **judge.facts,
        },
    )
    if not run.fresh(stage, inputs, [path]):
        with bars(f"{judge.name} judges {name}", len(transcripts)) as advance:
            found = begun(path.with_suffix(".partial"), inputs, transcripts)
            advance("", len(found))
            with path.with_suffix(".partial").open("a", encoding="utf-8") as file:
                for start in range(len(found), len(transcripts), CHUNK):
                    part = verdicts_on(judge, transcripts[start : start + CHUNK])
                    file.writelines(map(verdict_line, part))
                    file.flush()
                    found += part
                    advance("", len(part))
        write_verdicts(path, found)
        run.finish(stage, inputs)
        path.with_suffix(".partial").unlink()
        return found
    found = read_verdicts(path)
    if failed := [i for i, verdict in enumerate(found) if any(getattr(verdict, channel).why for channel in CHANNELS)]:
        with bars(f"{judge.name} judges {name} again", len(failed)) as advance:
            for start in range(0, len(failed), CHUNK):
                places = failed[start : start + CHUNK]
                for i, verdict in zip(places, verdicts_on(judge, [transcripts[i] for i in places]), strict=True):
                    found[i] = verdict
                advance("", len(places))
        write_verdicts(path, found)
    return found


def verdicts_on(judge: Judge, transcripts: Sequence[Transcript]) -> list[Verdict]:
    """Verdicts in order: of whoever knows the right answer of a task, of the judge on all other prompts."""
    judges = [knows(t) or judge for t in transcripts]
    found = {}
    for one in {id(one): one for one in judges}.values():
        found[id(one)] = iter(one([t for t, its in zip(transcripts, judges, strict=True) if its is one]))
    return [next(found[id(one)]) for one in judges]


def knows(transcript: Transcript) -> Judge | None:
    """The judge that compares with the right answer, where a task has one that can be compared."""
    meta = transcript.prompt.meta
    if meta.get("answer") in MATCHERS:
        return LOCAL["match"]
    return LOCAL["rule"] if transcript.prompt.benchmark == "organism" and meta.get("kind") == "task" else None


def begun(file: Path, of: Mapping[str, Any], transcripts: Sequence[Transcript]) -> list[Verdict]:
    """The verdicts that a killed judging left, if they are of this judge on these transcripts; the file is cut to them, or begun."""
    writable_folder(file.parent)
    head = json.dumps(of) + "\n"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    kept: list[str] = lines[1:] if lines[:1] == [head] else []
    kept = kept if not kept or kept[-1].endswith("\n") else kept[:-1]
    file.write_text(head + "".join(kept), encoding="utf-8")
    found = read_verdicts(file, skip=1)
    if [v.prompt_id for v in found] != [t.id for t in transcripts[: len(found)]]:
        raise ValueError(f"{file} is about other prompts than these transcripts. Delete it.")
    return found
