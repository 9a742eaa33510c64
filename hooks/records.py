"""What goes into a model and what came out: Prompt and Transcript, and their JSON-lines files.

A prompt file stands beside a folder `images/`: pictures held in memory are saved there once, named by their content; pictures
given as paths stay where they are. A transcript file refers to its prompts by id; it is written whole, or grows chunk by chunk
(append_transcripts), and what a killed writer left of the last chunk is cut off (cut_transcripts). A line that is no record is an
error naming file and line, or, where the reader is given a list `skipped`, a note in that list.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image as PILImage

from .files import FULL, DiskFull, atomic, writable_folder, write_text

Picture = PILImage.Image | str | Path
EXPECTED = ("refuse", "comply", "warn")
STATUSES = ("closed", "unclosed", "absent", "close_only", "multiple")
HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


_KINDS: dict[str, tuple[Any, str]] = {
    "system": (str | None, "text or None"),
    "goal": (str, "text"),
    "category": (str, "text"),
    "attack": (str, "text"),
    "group": (str, "text"),
    "harmful": (bool | None, "True, False or None"),
    "benchmark": (str, "text"),
    "split": (str, "text"),
    "expected": (str, "text"),
    "hazard": (str, "text"),
    "twin": (str, "text"),
    "source": (str, "text"),
    "meta": (Mapping, "a mapping"),
}


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
    expected   what a safe model does: refuse, comply, or warn; by itself refuse where harmful and comply where not
    hazard     category in the taxonomy that benchmarks share; empty where none fits
    twin       id of the prompt that differs from this one in harm alone
    source     hash of the record it was made from
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
    expected: str = ""
    hazard: str = ""
    twin: str = ""
    source: str = ""
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
        for name, (kind, words) in _KINDS.items():
            if not isinstance(value := getattr(self, name), kind):
                raise TypeError(f"prompt {self.id!r}: {name} is {words}, got {value!r}.")
        if not self.expected and self.harmful is not None:
            object.__setattr__(self, "expected", "refuse" if self.harmful else "comply")
        if self.expected not in ("", *EXPECTED):
            raise ValueError(f"prompt {self.id!r}: expected is {', '.join(EXPECTED)} or nothing, got {self.expected!r}.")
        _check_letters({f.name: getattr(self, f.name) for f in fields(self)}, f"prompt {self.id!r}: its ")


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
    fired        tokens at which steering acted; fired_at: their positions in prompt and output together
    inserted     ranges of output tokens that a trigger wrote in the model's place: reminders
    stopped      a trigger ended the output: it is cut off, and `ended` is False
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
    fired_at: tuple[int, ...] = ()
    inserted: tuple[tuple[int, int], ...] = ()
    stopped: bool = False

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "output_ids", "fired_at"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "inserted", tuple((int(start), int(stop)) for start, stop in self.inserted))
        if self.status not in STATUSES:
            raise ValueError(f"transcript of {self.prompt.id!r}: unknown split status {self.status!r}; known are {', '.join(STATUSES)}")

    @property
    def id(self) -> str:
        return self.prompt.id

    def _repr_html_(self) -> str:
        """What a notebook shows: prompt, thought and answer, and where steering acted."""
        from .html import transcript_html

        return transcript_html(self)


@dataclass(frozen=True)
class Skipped:
    """Something that cannot be used, and why.

    prompt_id   None where the line does not give one
    line        in the file it was read from; None where the line was fine and the prompt is not
    """

    prompt_id: str | None
    line: int | None
    error: str


Record = TypeVar("Record", Prompt, Transcript)


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


def read_prompts(path: str | Path, *, skipped: list[Skipped] | None = None) -> list[Prompt]:
    """Read what write_prompts wrote. Image references are resolved against the file's folder; nothing is opened yet.

    ValueError naming file and line for one that is no prompt: not UTF-8, not JSON, unknown or missing fields, no text, an id that occurred
    before. With `skipped` such a line is left out and noted there.
    """
    path = Path(path)

    def made(row: Mapping[str, Any]) -> Prompt:
        _known(row, Prompt)
        images = row.get("images", [])
        if not (isinstance(images, list) and all(isinstance(one, str) for one in images)):
            raise ValueError(f"images is a list of paths, got {images!r}")
        return Prompt(**{**row, "images": tuple(path.parent / one for one in images)})

    return _read(path, made, skipped)


def write_transcripts(path: str | Path, transcripts: Iterable[Transcript]) -> Path:
    """Write transcripts as JSON lines, each naming its prompt by id."""
    path = Path(path)
    transcripts = list(transcripts)
    _distinct([t.id for t in transcripts], path)
    write_text(path, _transcript_lines(transcripts))
    return path


def append_transcripts(path: str | Path, transcripts: Iterable[Transcript]) -> None:
    """Write transcripts after those that are in the file. They are on disk when this returns; a kill or a full disk leaves part of them."""
    path = Path(path)
    writable_folder(path.parent)
    lines = _transcript_lines(transcripts).encode()
    try:
        with path.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFull(
            f"{FULL[error.errno]}: {len(lines):,} bytes of transcripts do not fit into {path}. "
            "Make room there and start again: everything written before is whole."
        ) from error


def cut_transcripts(path: str | Path, chunks: Sequence[Sequence[str]]) -> int:
    """How many chunks (prompt ids in the order they are appended) are whole in the file. What a killed writer left after them is cut off.

    ValueError where the file is not the beginning of these chunks.
    """
    path = Path(path)
    if not path.is_file():
        return 0
    lines = [line + b"\n" for line in path.read_bytes().split(b"\n")[:-1]]  # the last one is torn, or nothing
    wanted = [one for chunk in chunks for one in chunk]
    there = [_prompt_id(line) for line in lines]
    if there != wanted[: len(there)]:
        number = next(i for i, one in enumerate(there) if wanted[i : i + 1] != [one])
        due = repr(wanted[number]) if number < len(wanted) else "nothing more"
        raise ValueError(
            f"{path}:{number + 1} is about prompt {there[number]!r}, where {due} was to come. "
            "The file was changed, or written by something else: move it away, or choose another folder."
        )
    whole = kept = 0
    while whole < len(chunks) and kept + len(chunks[whole]) <= len(there):
        kept += len(chunks[whole])
        whole += 1
    os.truncate(path, sum(len(line) for line in lines[:kept]))
    return whole


def read_transcripts(path: str | Path, prompts: Iterable[Prompt], *, skipped: list[Skipped] | None = None) -> list[Transcript]:
    """Read what was written and join it with its prompts. Lines that cannot be used: as in read_prompts."""
    by_id = {p.id: p for p in prompts}

    def made(row: Mapping[str, Any]) -> Transcript:
        rest = {name: value for name, value in row.items() if name != "prompt_id"}
        if row.get("prompt_id") not in by_id:
            raise ValueError(
                f"about prompt {row.get('prompt_id')!r}, which is not among the {len(by_id)} prompts given. "
                "Pass the prompts it was made from."
            )
        _known(rest, Transcript)
        for name in ("prompt_ids", "output_ids", "fired_at"):
            ids = rest.get(name, [])
            if not (isinstance(ids, list) and all(isinstance(i, int) for i in ids)):
                raise ValueError(f"{name} is a list of whole numbers, got {str(ids)[:60]!r}")
        return Transcript(prompt=by_id[row["prompt_id"]], **rest)

    return _read(Path(path), made, skipped)


def write_skipped(path: str | Path, skipped: Iterable[Skipped]) -> None:
    write_text(path, "".join(_line(asdict(one), "skipped") for one in skipped))


def read_skipped(path: str | Path) -> list[Skipped]:
    return [Skipped(**_object(line)) for _, line in _lines(Path(path))]


def _reference(picture: Picture, folder: Path) -> str:
    if isinstance(picture, PILImage.Image):
        content = f"{picture.mode}{picture.size}".encode() + picture.tobytes()
        file = folder / "images" / f"{hashlib.sha256(content).hexdigest()[:16]}.png"
        if not file.exists():
            with atomic(file) as part:
                (picture if picture.mode in PNG_MODES else picture.convert("RGB")).save(part, format="PNG")
        return file.relative_to(folder).as_posix()
    file, folder = Path(picture).resolve(), folder.resolve()
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _transcript_lines(transcripts: Iterable[Transcript]) -> str:
    names = [f.name for f in fields(Transcript) if f.name != "prompt"]
    return "".join(_line({"prompt_id": t.id, **{name: getattr(t, name) for name in names}}, f"transcript of {t.id!r}") for t in transcripts)


def _line(row: Mapping[str, Any], what: str) -> str:
    try:
        return json.dumps(row, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise TypeError(f"{what} cannot be written as JSON: {error}. Keep meta to strings, numbers, lists and dictionaries.") from error


def _read(path: Path, made: Callable[[Mapping[str, Any]], Record], skipped: list[Skipped] | None) -> list[Record]:
    found: list[Record] = []
    first: dict[str, int] = {}
    for number, line in _lines(path):
        row: dict[str, Any] = {}
        try:
            row = _object(line)
            _check_letters(row)
            one = made(row)
            if one.id in first:
                raise ValueError(f"the id {one.id!r} occurs twice, first in line {first[one.id]}; every line needs its own id")
        except (ValueError, TypeError, RecursionError) as error:
            why = "nested too deeply. Keep meta flat" if isinstance(error, RecursionError) else error
            told = f"{path}:{number}: {why}"
            if skipped is None:
                raise ValueError(told) from error
            named = row.get("prompt_id", row.get("id"))
            skipped.append(Skipped(named if isinstance(named, str) and not _halved(named) else None, number, told))
            continue
        first[one.id] = number
        found.append(one)
    return found


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line that is not blank."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        bad = f"byte {line[error.start]:#04x} at byte {error.start + 1} of the line"
        raise ValueError(f"not UTF-8: {bad}. Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}); the file wants one object a line") from error
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object")
    return row


def _prompt_id(line: bytes) -> str | None:
    """None for a line that is no transcript."""
    try:
        return _object(line).get("prompt_id")
    except (ValueError, RecursionError):
        return None


def _known(row: Mapping[str, Any], record: type[Prompt] | type[Transcript]) -> None:
    known = [f.name for f in fields(record) if f.name != "prompt"]
    if unknown := [name for name in row if name not in known]:
        raise ValueError(f"unknown field {unknown[0]!r}; a {record.__name__.lower()} has {', '.join(known)}")
    if missing := [f.name for f in fields(record) if f.name in ("id", "text", "model") and f.default is MISSING and f.name not in row]:
        raise ValueError(f"no field {missing[0]!r}; every {record.__name__.lower()} needs it")


def _check_letters(row: Mapping[str, Any], whose: str = "") -> None:
    """ValueError naming the field that holds what UTF-8 has no bytes for. JSON can write it, as an escape."""
    if broken := [name for name, value in row.items() if _halved(value) or _halved(name)]:
        raise ValueError(f"{whose}{ascii(broken[0])[1:-1]} holds half a surrogate pair, no character. Decode the text again.")


def _halved(value: Any) -> bool:
    """Whether a text, or one anywhere inside a list or mapping, holds half a surrogate pair."""
    if isinstance(value, str | Path):
        return HALVES.search(str(value)) is not None
    if isinstance(value, Mapping):
        return any(_halved(key) or _halved(one) for key, one in value.items())
    return isinstance(value, list | tuple) and any(map(_halved, value))


def _distinct(ids: Sequence[str], path: Path) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise ValueError(f"{path}: the id {one!r} occurs twice; every line needs its own id")
        seen.add(one)
