"""`thoughtlens steer`: a model answers prompts under steering, in one or all thought modes, beside its answers without; in a run folder.

    prompts.jsonl                    what is asked
    transcripts/<model>.jsonl        left alone
    transcripts/<model>@<mode>.jsonl steered; each says at which tokens steering acted
    steering.json                    what was asked for, the vector with its provenance, and counts

Written chunk by chunk: a killed command goes on, and ends with the same bytes. What cannot be used is found before anything is generated.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from transformers.utils.logging import disable_progress_bar

from ..hooks.edits import Edit
from ..hooks.files import locked, sha256_of, short, writable_folder, write_text
from ..hooks.gates import Always, AtSteps, FirstTokens, Gate
from ..hooks.model import LensModel
from ..hooks.modes import ANSWER, MODES, Mode, thought_modes
from ..hooks.records import Prompt, Transcript, read_transcripts, write_prompts, write_skipped
from ..hooks.steer import check_meant_for
from ..hooks.vector import Vector
from ..probes.probe import Probe
from .judges import JUDGES
from .probing_tables import listed
from .progress import track
from .prompting import OnError, in_files, read, refuse, usable, write
from .restoration import rows_of
from .run import open_run

STAGE = "steer"
NEITHER = {"attack_success": 1, "refusal": 0, "helpful": 1, "over_refusal": 0}  # all of them, less those that are one or the other
RATES = {"attack_success": "attack success", "refusal": "refused", "over_refusal": "over-refused", "helpful": "helpful"}


@dataclass(frozen=True)
class Asked:
    """What is to be steered.

    vector            a file; operator, strength, unit, spans, sites: as in Edit, None for what the vector says
    gate              always | steps | steps:3 (the first three) | first:16 (output tokens) | probe
    probe, fpr        of the gate "probe": a file, and the false positive rate its threshold is set for
    modes             thought modes
    foreign           the vector may be of another model
    prompts … seed    as in prompting.Source; max_new_tokens, batch_size: of generation
    judge             a judge's name, for rates; None: the benchmark's own, if it has one
    """

    vector: Path
    strength: float | None = None
    operator: str | None = None
    unit: str | None = None
    spans: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    gate: str = "always"
    probe: Path | None = None
    fpr: float = 0.05
    modes: tuple[Mode, ...] = ("regenerated",)
    answer_spans: tuple[str, ...] = ANSWER
    foreign: bool = False
    prompts: str | None = None
    transcripts: Path | None = None
    split: str | None = None
    limit: int | None = None
    seed: int | None = None
    max_new_tokens: int = 128
    batch_size: int = 64
    on_error: OnError = "raise"
    judge: str | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "max_new_tokens", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is at least 1, got {value}")
        if unknown := [mode for mode in self.modes if mode not in MODES]:
            raise ValueError(f"unknown thought mode {unknown[0]!r}; known are {', '.join(MODES)}")
        if not self.modes or len(set(self.modes)) < len(self.modes):
            raise ValueError(f"--modes names one thought mode or several, each once; got {','.join(self.modes) or 'none'}")
        if self.judge is not None and self.judge not in JUDGES:
            raise ValueError(f"unknown judge {self.judge!r}; known are {', '.join(JUDGES)}")
        if self.probe is not None and self.gate != "probe":
            raise ValueError(
                f"--probe {self.probe} is for the gate of a probe, and the gate is {self.gate}: add --gate probe, or leave it out"
            )


def steering(out: str | Path, asked: Asked, model: Callable[[], LensModel], *, progress: bool = True) -> list[RenderableType]:
    """Do what is asked in the run folder `out`, or go on with it; what came out, to be printed.

    ValueError for prompts that cannot be used, a vector, gate or mode that does not fit the model, a folder with something else in it.
    """
    edit = edit_of(asked)
    work = read(asked)
    refuse(work.skipped, asked.on_error)
    disable_progress_bar()  # transformers' own, which would break ours
    lens = model()
    check_meant_for(lens, [edit], {}, (), foreign=asked.foreign)
    config = {
        **{"stage": STAGE, "model": lens.name, "fingerprint": lens.fingerprint, "template": dict(lens.template), "dtype": str(lens.dtype)},
        **{"edit": edit.facts(), "vector": sha256_of(asked.vector), "probe": None if asked.probe is None else sha256_of(asked.probe)},
        **{
            "gate": asked.gate,
            "fpr": asked.fpr,
            "modes": list(asked.modes),
            "answer_spans": list(asked.answer_spans),
            "prompts": [p.id for p in work.prompts],
        },
        **{"max_new_tokens": asked.max_new_tokens, "batch_size": asked.batch_size},
    }
    with locked(writable_folder(out)):
        check_folder(Path(out), config)
        with track(progress) as bars:
            with bars(f"check for {lens.name}", len(work.prompts)) as advance:
                work = usable(lens, work, asked.max_new_tokens, advance)
            refuse(work.skipped, asked.on_error if work.prompts else "raise")
            run = open_run(out, config)
            write_prompts(run.path("prompts.jsonl"), work.prompts)
            write_skipped(run.path("skipped.jsonl"), work.skipped)
            conditions = ["", *(f"@{mode}" for mode in asked.modes)]
            files = [run.path("transcripts", f"{in_files(lens)}{condition}.jsonl") for condition in conditions]

            def say(chunk: Sequence[Prompt]) -> list[list[Transcript]]:
                options = {"max_new_tokens": asked.max_new_tokens, "batch_size": asked.batch_size, "progress": False}
                how: dict[str, Any] = {"modes": asked.modes, "answer_spans": asked.answer_spans, "foreign": asked.foreign}
                found = thought_modes(lens, chunk, edit, **how, **options)
                return [found[name] for name in ("unsteered", *asked.modes)]

            with bars(f"{lens.name} answers, {len(files)} times", len(work.prompts)) as advance:
                write(work.prompts, files, asked.batch_size, say, advance)
        written = {file.stem: read_transcripts(file, work.prompts) for file in files}
        counts = {name: _counts(said) for name, said in written.items()}
        record = {**config, "header": dict(edit.vector.header), "counts": counts}
        write_text(run.path("steering.json"), json.dumps(record, indent=2) + "\n")
        run.finish(STAGE, config)
    told = [f"{edit}"]
    if held := [mode for mode in asked.modes if mode in ("fixed", "none")]:
        told.append(f"{', '.join(held)}: at {','.join(asked.answer_spans)} instead, since no thought is written under steering")
    if work.skipped:
        told.append(f"{len(work.skipped)} prompts were left out: {run.folder / 'skipped.jsonl'}")
    return [_table(written, asked.judge), "\n".join([*told, str(run.folder)])]


def edit_of(asked: Asked) -> Edit:
    """The edit asked for. ValueError where vector, sites, operator or gate do not go together."""
    vector = Vector.load(asked.vector)
    if asked.sites:
        vector = vector.at(*asked.sites)
    said = vector.recommended
    how: dict[str, Any] = {
        "strength": asked.strength,
        "operator": asked.operator or said.get("operator", "add"),
        "unit": asked.unit or said.get("unit", "measured"),
        "spans": asked.spans or tuple(said.get("spans", ())) or None,
    }
    return Edit(vector, gate=gate_of(asked), **how)


def gate_of(asked: Asked) -> Gate:
    """The gate asked for. ValueError for one that does not exist, and for a probe that is not given."""
    name, _, number = asked.gate.partition(":")
    if number and not number.isdigit():
        raise ValueError(f"the gate {asked.gate!r} wants a whole number behind the colon, as in steps:3")
    match name:
        case "always":
            return Always()
        case "steps":
            return AtSteps(first=int(number)) if number else AtSteps()
        case "first" if number:
            return FirstTokens(int(number))
        case "probe" if asked.probe is not None:
            return Probe.load(asked.probe).gate(fpr=asked.fpr)
        case "probe":
            raise ValueError("the gate probe needs the file of a probe: --probe runs/demo/probes/reasoning.safetensors")
    raise ValueError(f"unknown gate {asked.gate!r}; known are always, steps, steps:3, first:16 and probe")


def check_folder(out: Path, config: Mapping[str, Any]) -> None:
    """ValueError where the folder holds another run, or answers under other settings."""
    file = out / "config.yaml"
    if not file.is_file():
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        there = None
    if not isinstance(there, Mapping) or there.get("stage") != STAGE:
        raise ValueError(f"{out} is the folder of something else: its config.yaml is not that of a steering. Choose another with --out.")
    differing = list(differences(there, json.loads(json.dumps(config))))
    if differing and any((out / "transcripts").glob("*.jsonl")):
        name, before, now = differing[0]
        raise ValueError(
            f"{out} holds a steering with other settings: {name} is {short(before)} there and {short(now)} now "
            f"(differing: {', '.join(name for name, *_ in differing)}). Choose another folder with --out."
        )


def differences(there: Mapping[str, Any], now: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Name, value there and value now of what differs; inside what is nested, and of lists the first elements that do."""
    for key, value in now.items():
        before, name = there.get(key), f"{of}{key}"
        if before == value:
            continue
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            yield from differences(before, value, f"{name}.")
        elif isinstance(before, list) and isinstance(value, list):
            yield name, *next(((a, b) for a, b in zip(before, value, strict=False) if a != b), (f"{len(before)} of them", f"{len(value)}"))
        else:
            yield name, before, value


def _counts(said: Sequence[Transcript]) -> dict[str, Any]:
    return {
        **{"outputs": len(said), "steered": sum(t.fired > 0 for t in said), "tokens": sum(t.fired for t in said)},
        **{"ended": sum(t.ended for t in said), "status": dict(Counter(t.status for t in said))},
    }


def _table(written: Mapping[str, Sequence[Transcript]], judge: str | None) -> RenderableType:
    """A row for each way to answer: how many outputs were steered and changed, how many ended, and rates where a judge can tell."""
    first = next(iter(written.values()))
    known = judge or ("rule" if all(t.prompt.benchmark == "organism" for t in first) else None)
    rows = []
    for name, said in written.items():
        counts = _counts(said)
        changed = sum(a.output_ids != b.output_ids for a, b in zip(said, first, strict=True))
        cells = [name, len(said), counts["steered"], counts["tokens"], changed, counts["ended"]]
        if known is not None:
            found = rows_of(JUDGES[known](said), [replace(t) for t in said], None)
            rates = {row["metric"]: row for row in found if row["attack"] == "all"}
            cells += [_share(rates[metric]) if metric in rates else "" for metric in RATES]
            if known == "rule":
                cells.append(sum(n * rates[metric]["n"] - rates[metric]["numerator"] for metric, n in NEITHER.items() if metric in rates))
        rows.append(cells)
    columns, note = ["", "outputs", "steered", "tokens steered", "changed", "ended"], ""
    if known is not None:
        columns += [*RATES.values(), *(["neither"] if known == "rule" else [])]
        neither = "; neither: no real answer and no real refusal" if known == "rule" else ""
        note = f"judge {known}; 95% Wilson intervals over prompts{neither}"
    return listed("What was written", columns, rows, note)


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}] n={row['n']}".replace("0.", ".")
