"""Who answers, and what they answer: checkpoints, left alone or steered, and endpoints, in a run folder that survives being killed.

    prompts.jsonl                          what is asked, the same of everybody
    transcripts/<name>[@<condition>].jsonl what was answered, appended as it comes
    skipped/<name>[@<condition>].jsonl     prompts that failed, and why; an endpoint is asked them again by the next start
    respondents.json                       who answered: weights or endpoint, and with what settings

A checkpoint's chunks are settled by their ids, so that a run that was killed ends with the same bytes; an endpoint is asked what it has not
answered yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from ...hooks.dialects import DIALECTS
from ...hooks.edits import Edit
from ...hooks.files import sha256_of, short, write_text
from ...hooks.generate import generate
from ...hooks.model import LensModel, load
from ...hooks.records import (
    Prompt,
    Skipped,
    Transcript,
    append_transcripts,
    read_skipped,
    read_transcripts,
    write_skipped,
    write_transcripts,
)
from ...hooks.steer import check_meant_for, steer
from ..progress import Advance, Track
from ..prompting import OnError, Work, refuse, usable, write
from ..run import Run
from ..steering import Asked as Steered
from ..steering import edit_of
from .asking import ask
from .endpoint import Endpoint, parse_endpoint

UNSTEERED = "unsteered"
LONGEST = 2048  # tokens of an output
NAME = re.compile(r"[\w.-]*\w[\w.-]*")
RESPONDENTS = "respondents.json"


@dataclass(frozen=True)
class Respondent:
    """Somebody who answers.

    name       as tables show it; part of file names
    source     folder of a checkpoint, hub id, or MODEL@URL of an OpenAI-compatible endpoint
    vector     steer it with this file; how strongly, where and with which operator is what the vector recommends, but for `strength`
    """

    name: str
    source: str
    vector: Path | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"a model's name is made of letters, digits, dots, dashes and underscores, got {self.name!r}. Write NAME=PATH."
            )
        if self.vector is not None and (self.condition == UNSTEERED or not NAME.fullmatch(self.condition)):
            raise ValueError(
                f"{self.vector}: steered answers are told under the vector's file name, and {self.condition!r} would be taken for another "
                "condition. Rename the file, with letters, digits, dots, dashes and underscores."
            )
        if self.vector is not None and self.endpoint:
            raise ValueError(f"{self.name} answers over an endpoint, whose hidden states cannot be steered. Steer a checkpoint.")

    @property
    def endpoint(self) -> bool:
        return "@http://" in self.source or "@https://" in self.source

    @property
    def condition(self) -> str:
        """The vector's name, as conditions of one model must differ."""
        return UNSTEERED if self.vector is None else self.vector.stem

    @property
    def file(self) -> str:
        return self.name if self.vector is None else f"{self.name}@{self.condition}"


@dataclass(frozen=True)
class Writing:
    """How answers are written.

    max_new_tokens   None: half of what a checkpoint's context holds, at most 2,048, which is also an endpoint's
    dialect     how the thought is marked; None: as the checkpoint's name and tokenizer tell, of an endpoint "think"
    opened      an endpoint's chat template opens the thought, and the server leaves it in the text
    endpoint    further fields of an Endpoint: key_env, concurrency, extra
    on_error    what to do about prompts that a checkpoint cannot take: name them all, or leave them out and note each
    """

    max_new_tokens: int | None = None
    batch_size: int = 64
    device: str | None = None
    dtype: Any = None
    dialect: str | None = None
    opened: bool = False
    endpoint: Mapping[str, Any] = field(default_factory=dict)
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "batch_size"):
            if (given := getattr(self, name)) is not None and given < 1:
                raise ValueError(f"{name} is at least 1, got {given}")
        if self.dialect not in (None, *DIALECTS):
            raise ValueError(f"unknown dialect {self.dialect!r}; known are {', '.join(DIALECTS)}")


def respondents(models: Sequence[str], steered: Sequence[str] = (), strength: float | None = None) -> list[Respondent]:
    """Those named: NAME=SOURCE each; for `steered` NAME=VECTOR, where NAME is one of the models. ValueError for another form."""
    if strength is not None and not steered:
        raise ValueError(f"--strength {strength:g} is that of a vector, and nobody is steered: add --steered NAME=VECTOR")
    found = [Respondent(*named(text, "checkpoints/reasoning")) for text in models]
    sources = {one.name: one.source for one in found}
    for text in steered:
        name, file = named(text, "vector.safetensors")
        if name not in sources:
            raise ValueError(f"{text!r} steers {name!r}, which is not among the models {', '.join(sources) or '(none)'}")
        found.append(Respondent(name, sources[name], Path(file), strength))
    names = [one.file for one in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]!r} is named twice; every model, and every vector of a model, needs a name of its own")
    order = list(sources)
    return sorted(found, key=lambda one: order.index(one.name))  # a model is loaded once


def named(text: str, example: str = "file") -> tuple[str, str]:
    """What stands before and after the first equals sign. ValueError without both."""
    name, equals, source = text.partition("=")
    if not equals or not source:
        raise ValueError(f"{text!r} has no name: write NAME=…, as in reasoning={example}")
    return name, source


def answers(run: Run, who: Sequence[Respondent], prompts: Sequence[Prompt], how: Writing, bars: Track) -> dict[str, list[Transcript]]:
    """What everybody answers, by file name; what is in the folder already is not asked again.

    ValueError where the folder holds answers of others under the same name, or with other settings; and for prompts that a checkpoint
    cannot take (too long, broken pictures), all named at once, unless they are to be left out.
    """
    disable_progress_bar()  # transformers' own, which would break ours
    found = {}
    loaded: dict[str, LensModel] = {}
    for one in who:
        file = run.path("transcripts", f"{one.file}.jsonl")
        if one.endpoint:
            over_endpoint(run, one, prompts, how, file, bars)
        else:
            if one.name not in loaded:
                loaded.clear()  # one model in memory at a time
                loaded[one.name] = replace(load(one.source, device=how.device, dtype=how.dtype, dialect=how.dialect), name=one.name)
            with_checkpoint(run, one, loaded[one.name], prompts, how, file, bars)
        found[one.file] = read_transcripts(file, prompts)
    return found


def limit_of(how: Writing, lens: LensModel | None = None) -> int:
    """How many tokens may be written at most, by a checkpoint or over an endpoint."""
    return how.max_new_tokens or (LONGEST if lens is None else min(LONGEST, lens.context // 2))


def with_checkpoint(run: Run, one: Respondent, lens: LensModel, prompts: Sequence[Prompt], how: Writing, file: Path, bars: Track) -> None:
    edit = None if one.vector is None else edit_of(Steered(one.vector, strength=one.strength))
    if edit is not None:
        check_meant_for(lens, [edit], {}, (), foreign=False)
    settled(run, one, {**checkpoint_facts(lens, how), **({} if edit is None else steering_facts(one, edit))}, file)
    skipped = run.path("skipped", f"{one.file}.jsonl")
    left_out = {one.prompt_id for one in read_skipped(skipped)} if skipped.is_file() else set()
    if {t.id for t in whole(file, prompts)} | left_out == {p.id for p in prompts}:
        return
    with bars(f"check for {one.name}", len(prompts)) as advance:
        work = usable(lens, Work(list(prompts), {}, []), limit_of(how, lens), advance)
    refuse(work.skipped, how.on_error if work.prompts else "raise")
    write_skipped(skipped, work.skipped)
    options = {"max_new_tokens": limit_of(how, lens), "batch_size": how.batch_size, "condition": one.condition, "progress": False}

    def say(chunk: Sequence[Prompt]) -> list[list[Transcript]]:
        active: AbstractContextManager[Any] = nullcontext() if edit is None else steer(lens, edit)
        with active:
            return [generate(lens, chunk, **options)]

    with bars(f"{one.file} answers", len(work.prompts)) as advance:
        write(work.prompts, [file], how.batch_size, say, advance)


def over_endpoint(run: Run, one: Respondent, prompts: Sequence[Prompt], how: Writing, file: Path, bars: Track) -> None:
    endpoint = parse_endpoint(one.source, **how.endpoint)
    facts = {
        **{"endpoint": endpoint.url, "model": endpoint.model, "extra": dict(endpoint.extra), "opened": how.opened},
        **{"dialect": how.dialect or "think", "max_new_tokens": limit_of(how)},
    }
    settled(run, one, facts, file)
    there = {t.id for t in whole(file, prompts)}
    left = [p for p in prompts if p.id not in there]
    with bars(f"{one.file} answers", len(prompts)) as advance:
        advance("", len(there))
        failed = [said for said in asked_of(endpoint, left, one, how, file, advance) if isinstance(said, Skipped)]
    write_skipped(run.path("skipped", f"{one.file}.jsonl"), failed)
    order = {p.id: i for i, p in enumerate(prompts)}
    write_transcripts(file, sorted(whole(file, prompts), key=lambda t: order[t.id]))


def asked_of(
    endpoint: Endpoint, prompts: Sequence[Prompt], one: Respondent, how: Writing, file: Path, advance: Advance
) -> Iterator[Transcript | Skipped]:
    """Ask, and append every answer as soon as it is there."""

    def keep(said: Transcript | Skipped) -> None:
        if isinstance(said, Transcript):
            append_transcripts(file, [said])
        advance("" if isinstance(said, Transcript) else f"{said.prompt_id} failed", 1)

    written_as = {"name": one.name, "dialect": how.dialect or "think", "opened": how.opened}
    return ask(endpoint, prompts, **written_as, max_new_tokens=limit_of(how), each=keep)


def whole(file: Path, prompts: Sequence[Prompt]) -> list[Transcript]:
    """The answers that are whole in a file; a line that a killed writer tore is cut off."""
    if not file.is_file():
        return []
    lines = file.read_bytes()
    if lines and not lines.endswith(b"\n"):
        file.write_bytes(lines[: lines.rfind(b"\n") + 1])
    return read_transcripts(file, prompts)


def settled(run: Run, one: Respondent, facts: dict[str, Any], file: Path) -> None:
    """Write down who answers into `file`. ValueError where somebody else did, or with other settings."""
    path = run.path(RESPONDENTS)
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    before = known.get(one.file)
    if before is not None and before != facts and file.is_file():
        key = next(name for name in {**before, **facts} if before.get(name) != facts.get(name))
        raise ValueError(
            f"{file} was written with another {key}: {short(before.get(key))} there, {short(facts.get(key))} now. "
            "Give this one another name, or use another folder with --out."
        )
    if before is None and file.is_file():
        raise ValueError(f"{file} is there, and {RESPONDENTS} does not say who wrote it. Use another folder with --out.")
    if before != facts:
        write_text(path, json.dumps({**known, one.file: facts}, indent=2) + "\n")


def checkpoint_facts(lens: LensModel, how: Writing) -> dict[str, Any]:
    """Everything the answers of a checkpoint follow from."""
    return {
        **{"fingerprint": lens.fingerprint, "template": dict(lens.template), "dialect": lens.dialect.name, "dtype": str(lens.dtype)},
        **{"device": str(lens.device), "max_new_tokens": limit_of(how, lens), "batch_size": how.batch_size},
    }


def steering_facts(one: Respondent, edit: Edit) -> dict[str, Any]:
    assert one.vector is not None
    return {"vector": sha256_of(one.vector), "edit": str(edit)}
