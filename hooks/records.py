"""What goes into a model and what came out: Prompt and Transcript, and their JSON-lines files.

A prompt file stands beside a folder `images/`: pictures held in memory are saved there once, named by their content; pictures
given as paths stay where they are. A transcript file refers to its prompts by id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from .files import atomic, write_text

Picture = PILImage.Image | str | Path
STATUSES = ("closed", "unclosed", "absent", "close_only", "multiple")


@dataclass(frozen=True)
class Prompt:
    """One request to a model, with what the study knows about it.

    id         unique within a study; transcripts, verdicts and activations refer to it
    text       what the user writes
    images     pictures shown before the text: PIL images or paths
    system     system prompt, or None for what the chat template does by itself
    goal       the underlying request in plain words; what a judge reads
    category   topic of the goal
    attack     how the goal is wrapped: plain, typographic, image_swap, roleplay, prefix, …
    group      prompts of one group never part in a split; empty: the prompt is its own group
    harmful    None where nobody has labelled it
    meta       anything else, JSON-able
    """

    id: str
    text: str
    images: tuple[Picture, ...] = ()
    system: str | None = None
    goal: str = ""
    category: str = ""
    attack: str = "plain"
    group: str = ""
    harmful: bool | None = None
    benchmark: str = ""
    split: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id.strip():
            raise ValueError(f"a prompt needs an id of at least one character, got {self.id!r}. Number your prompts: id='p1'.")
        if not isinstance(self.text, str) or not self.text.strip():
            raise ValueError(f"prompt {self.id!r} has no text: {self.text!r}. Give it the words the user writes; pictures go into images=.")
        if isinstance(self.images, PILImage.Image | str | Path):
            raise TypeError(f"prompt {self.id!r}: images= takes several. Write images=(picture,) for one.")
        object.__setattr__(self, "images", tuple(self.images))
        for picture in self.images:
            if not isinstance(picture, PILImage.Image | str | Path):
                raise TypeError(
                    f"prompt {self.id!r}: an image is a PIL image or a path, got {type(picture).__name__}. Open it with PIL.Image."
                )


@dataclass(frozen=True)
class Transcript:
    """What one model wrote for one prompt.

    prompt_ids   token ids of the rendered prompt, image placeholders expanded, no padding
    output_ids   token ids the model wrote, with the end token if it came, no padding
    text         the decoded output: markers kept, end token removed
    ended        the end token came before the limit
    status       split status of the thought: closed, unclosed, absent, close_only, multiple
    thought      decoded thought; empty when there is none
    answer       decoded answer; empty for an unclosed thought
    fired        tokens at which steering acted
    """

    prompt: Prompt
    model: str
    condition: str = "unsteered"
    prompt_ids: tuple[int, ...] = ()
    output_ids: tuple[int, ...] = ()
    text: str = ""
    ended: bool = False
    status: str = "absent"
    thought: str = ""
    answer: str = ""
    fired: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_ids", tuple(self.prompt_ids))
        object.__setattr__(self, "output_ids", tuple(self.output_ids))
        if self.status not in STATUSES:
            raise ValueError(f"transcript of {self.prompt.id!r}: unknown split status {self.status!r}; known are {', '.join(STATUSES)}")

    @property
    def id(self) -> str:
        return self.prompt.id


def write_prompts(path: str | Path, prompts: Iterable[Prompt]) -> Path:
    """Write prompts as JSON lines; pictures in memory become `images/<content hash>.png` beside the file."""
    path = Path(path)
    prompts = list(prompts)
    _distinct([p.id for p in prompts], path)
    lines = []
    for prompt in prompts:
        row = {f.name: getattr(prompt, f.name) for f in fields(Prompt)}
        row["images"] = [_reference(picture, path.parent) for picture in prompt.images]
        row["meta"] = dict(prompt.meta)
        lines.append(_line(row, f"prompt {prompt.id!r}"))
    write_text(path, "".join(lines))
    return path


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read what write_prompts wrote. Image references are resolved against the file's folder; nothing is opened yet."""
    path = Path(path)
    rows = _rows(path)
    for number, row in rows:
        _known(row, Prompt, f"{path}:{number}")
    _distinct([row["id"] for _, row in rows], path)
    return [Prompt(**{**row, "images": tuple(_locate(i, path.parent) for i in row.get("images", ()))}) for _, row in rows]


def write_transcripts(path: str | Path, transcripts: Iterable[Transcript]) -> Path:
    """Write transcripts as JSON lines, each naming its prompt by id."""
    path = Path(path)
    transcripts = list(transcripts)
    _distinct([t.id for t in transcripts], path)
    lines = []
    for transcript in transcripts:
        row = {f.name: getattr(transcript, f.name) for f in fields(Transcript) if f.name != "prompt"}
        lines.append(_line({"prompt_id": transcript.id, **row}, f"transcript of {transcript.id!r}"))
    write_text(path, "".join(lines))
    return path


def read_transcripts(path: str | Path, prompts: Iterable[Prompt]) -> list[Transcript]:
    """Read what write_transcripts wrote and join it with its prompts."""
    path = Path(path)
    by_id = {p.id: p for p in prompts}
    found = []
    for number, row in _rows(path):
        prompt_id = row.pop("prompt_id", None)
        if prompt_id not in by_id:
            raise ValueError(
                f"{path}:{number} is about prompt {prompt_id!r}, which is not among the {len(by_id)} prompts given. "
                "Pass the prompts it was made from."
            )
        _known(row, Transcript, f"{path}:{number}")
        found.append(Transcript(prompt=by_id[prompt_id], **row))
    return found


def _reference(picture: Picture, folder: Path) -> str:
    if isinstance(picture, PILImage.Image):
        content = f"{picture.mode}{picture.size}".encode() + picture.tobytes()
        file = folder / "images" / f"{hashlib.sha256(content).hexdigest()[:16]}.png"
        if not file.exists():
            with atomic(file) as part:
                picture.save(part, format="PNG")
        return file.relative_to(folder).as_posix()
    file, folder = Path(picture).resolve(), folder.resolve()
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _locate(reference: str, folder: Path) -> Path:
    return folder / reference


def _line(row: Mapping[str, Any], what: str) -> str:
    try:
        return json.dumps(row, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise TypeError(f"{what} cannot be written as JSON: {error}. Keep meta to strings, numbers, lists and dictionaries.") from error


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number} is not JSON ({error.msg}); the file wants one object a line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number} is a {type(row).__name__}, not an object")
        rows.append((number, row))
    return rows


def _known(row: Mapping[str, Any], record: type[Prompt] | type[Transcript], where: str) -> None:
    known = [f.name for f in fields(record) if f.name != "prompt"]
    if unknown := [name for name in row if name not in known]:
        raise ValueError(f"{where} has the unknown field {unknown[0]!r}; a {record.__name__.lower()} has {', '.join(known)}")
    if missing := [f.name for f in fields(record) if f.name in ("id", "text", "model") and f.default is MISSING and f.name not in row]:
        raise ValueError(f"{where} has no field {missing[0]!r}; every {record.__name__.lower()} needs it")


def _distinct(ids: Sequence[str], path: Path) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise ValueError(f"{path}: the id {one!r} occurs twice; every line needs its own id")
        seen.add(one)
