"""The papers' questions, asked: of a language model behind an OpenAI-compatible endpoint, with the file that a user hands over.

    NAME=FILE      a text with {answer} and whatever else the rule needs where it goes: the paper's own, or one that somebody wrote
    NAME=FOLDER    of a rule with several questions: a NAME.txt for each that is asked about these prompts
    NAME=MARKS.jsonl   what a judge elsewhere has said (official_marks.py)

A file is sent as it is, but for one line break at its end. Every text is asked about once, whatever channels and models share it; replies
are kept in a file under the sha256 of everything that was sent, as soon as they arrive, so that a killed run repeats none. As in the
papers' scripts nothing marks where the judged text ends: it may write its own verdict.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...hooks.encode import PromptError
from ...hooks.files import short
from ...hooks.plaintext import split_text
from ...hooks.records import Prompt, Transcript
from ..progress import Track
from .asking import messages_of
from .chatting import body_of, chats
from .endpoint import Cost, Endpoint, EndpointError, Reply, parse_endpoint
from .official import rule_of, takes
from .official_asked import PLACES, Question, filled, places_of
from .official_marks import Mark, read_marks
from .official_rules import AMONG, Rule
from .official_scores import Numbers
from .replies import keeping, key_of, read_replies


@dataclass(frozen=True)
class Handed:
    """A rule that is wanted, and what was handed over with it: the texts of its questions by name, or marks."""

    name: str
    file: Path | None = None
    questions: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()

    @property
    def sha256(self) -> str:
        """Of the questions."""
        return hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in sorted(self.questions.items())).encode()).hexdigest()


@dataclass(frozen=True)
class Asks:
    """Who is asked, the file that keeps what was said, and what it has cost."""

    endpoint: Endpoint
    cache: Path | None = None
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Said:
    """A reply about one channel of an output. score: None where it could not be read, and why."""

    prompt_id: str
    channel: str
    question: str
    reply: str
    score: float | None
    why: str = ""


def handed(specs: Sequence[str], prompts: Sequence[Prompt], endpoint: Endpoint | None) -> list[Handed]:
    """The rules that texts name, NAME or NAME=FILE, checked against the prompts before anything is asked.

    ValueError, FileNotFoundError: no such rule or file, one that lacks or is not taken, a question without its places, prompts that do not
    have what goes there, nobody to ask.
    """
    found = list[Handed]()
    for spec in specs:
        name, _, path = spec.partition("=")
        if name in [one.name for one in found]:
            raise ValueError(f"{name} is named twice; give each rule once")
        found.append(_handed(name, Path(path) if path else None, prompts, endpoint))
    return found


def endpoint_of(judge: str, llm: str | None, options: Mapping[str, Any]) -> Endpoint | None:
    """Who is asked: `llm`, else the language model among the judges that a text names; None where there is none.

    options   further fields of an Endpoint
    ValueError where several could be meant, and where a key would go to another server than the judge's.
    """
    judges = [parse_endpoint(part.strip().removeprefix("llm="), **options) for part in judge.split("+") if part.strip().startswith("llm=")]
    if llm is None and len(judges) > 1:
        raise ValueError(
            f"the judge asks {len(judges)} language models: say with --official-llm MODEL@URL who is asked the papers' questions"
        )
    asked = parse_endpoint(llm, **options) if llm else judges[0] if judges else None
    if asked is not None and asked.key_env is not None and (other := [one for one in judges if one.url != asked.url]):
        raise ValueError(
            f"the judge's key would be sent to {other[0].url} and to {asked.url}. Take one server for both, or leave out the key."
        )
    return asked


def asked(rule: Handed, transcripts: Sequence[Transcript], asks: Asks, bars: Track) -> tuple[dict[str, Numbers], list[Said]]:
    """What a language model says of outputs: as numbers by prompt id, and reply by reply in the order of the transcripts."""
    found = dict[tuple[str, str, str], Said]()
    places = list[tuple[str, str, str]]()
    for question in rule_of(rule.name).questions:
        about = list(_about(rule_of(rule.name), question, transcripts))
        open_ones = []
        for transcript, channel, text in about:
            places.append((transcript.id, channel, question.name))
            if (known := question.settled(text, transcript.prompt)) is None:
                open_ones.append((transcript, channel, text))
            else:
                found[places[-1]] = Said(*places[-1], known, question.reads(known, transcript.prompt))
        if open_ones:
            with bars(f"{rule.name} asks {asks.endpoint.model}", len(open_ones)) as advance:
                results = _replies(question, rule.questions[question.name], [(t.prompt, text) for t, _, text in open_ones], asks)
                for number, result in results:
                    transcript, channel, _ = open_ones[number]
                    found[transcript.id, channel, question.name] = _said(transcript.prompt, channel, question, result)
                    advance("", 1)
    order = {t.id: number for number, t in enumerate(transcripts)}
    said = [found[place] for place in sorted(places, key=lambda place: order[place[0]])]
    numbers: dict[str, dict[tuple[str, str], float | None]] = {t.id: {} for t in transcripts}
    for one in said:
        numbers[one.prompt_id][one.channel, one.question] = one.score
    return {name: its for name, its in numbers.items() if its}, said


def _handed(name: str, path: Path | None, prompts: Sequence[Prompt], endpoint: Endpoint | None) -> Handed:
    rule = rule_of(name)
    if not rule.questions and not rule.marks:
        if path is not None:
            raise ValueError(f"{name} takes no file, it follows from what was written and judged: leave ={path} out")
        return Handed(name)
    if path is None:
        raise ValueError(takes(name))
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}. {takes(name)}")
    mine = [p for p in prompts if _among(rule, p)]
    if not mine:
        raise ValueError(f"{name} scores prompts that are {' or '.join(rule.among)}; none of the {len(prompts)} prompts is")
    if rule.marks and path.suffix == ".jsonl":
        return Handed(name, path, marks=read_marks(path, name, mine))
    if not rule.questions or path.suffix == ".jsonl":
        raise ValueError(f"{path} is nothing that {name} takes. {takes(name)}")
    if endpoint is None:
        raise ValueError(
            f"{name} asks a language model, and none is named: judge by one (--judge llm=MODEL@URL), or name one for this alone "
            "(--official-llm MODEL@URL)"
        )
    questions = _questions(name, rule, path, mine)
    for question in rule.questions:
        for prompt in filter(question.of, mine):
            filled(questions[question.name], prompt, "")
    return Handed(name, path, questions)


def _questions(name: str, rule: Rule, path: Path, prompts: Sequence[Prompt]) -> dict[str, str]:
    """The texts of the questions that these prompts need, and of others that are there."""
    needed = [question for question in rule.questions if any(map(question.of, prompts))]
    files = {question.name: path / f"{question.name}.txt" for question in rule.questions} if path.is_dir() else {needed[0].name: path}
    if lacking := [question.name for question in needed if question.name not in files or not files[question.name].is_file()]:
        where = f"{path} lacks" if path.is_dir() else f"{path} is one question, and these prompts need"
        raise ValueError(f"{where} {', '.join(f'{one}.txt' for one in lacking)}. {takes(name)}")
    found = dict[str, str]()
    for question in needed:
        file = files[question.name]
        try:
            text = file.read_text(encoding="utf-8-sig").removesuffix("\n")
        except UnicodeDecodeError as problem:
            raise ValueError(f"{file} is not UTF-8 ({problem}). Save it as UTF-8.") from problem
        if missing := [place for place in question.places if place not in places_of(text)]:
            first, *others = (f"{{{one}}}" for one in PLACES[missing[0]].names)
            also = f" ({', '.join(others)} mean the same)"
            raise ValueError(f"{file} has no place for the {missing[0]}: write {first} where it goes{also}")
        found[question.name] = text
    return found


def _among(rule: Rule, prompt: Prompt) -> bool:
    return any(AMONG[kind](prompt) for kind in rule.among)


def _about(rule: Rule, question: Question, transcripts: Sequence[Transcript]) -> Iterator[tuple[Transcript, str, str]]:
    """Whatever a question is asked about: the answer, where there is one, and the raw text."""
    for transcript in transcripts:
        if _among(rule, transcript.prompt) and question.of(transcript.prompt):
            if transcript.status != "unclosed":
                yield transcript, "answer", transcript.answer.strip()
            yield transcript, "full", transcript.text.strip()


def _said(prompt: Prompt, channel: str, question: Question, result: Reply | EndpointError) -> Said:
    if isinstance(result, EndpointError):
        return Said(prompt.id, channel, question.name, "", None, str(result))
    reply = split_text(result.text, "think").answer  # what a judge thinks before it speaks is no verdict
    score = question.reads(reply, prompt)
    why = "" if score is not None else f"no {question.form}: {short(reply, 200)}"
    if why and not result.finished:
        why += f', cut off at {question.max_tokens} tokens (--judge-extra {{"max_tokens": N}} allows more)'
    return Said(prompt.id, channel, question.name, reply, score, why)


def _messages(question: Question, template: str, prompt: Prompt, text: str) -> list[dict[str, Any]]:
    words = filled(template, prompt, text)
    if not question.pictures or not prompt.images:
        return [{"role": "user", "content": words}]
    (message,) = messages_of(replace(prompt, text=words, system=None))
    return [{**message, "content": [*message["content"][-1:], *message["content"][:-1]]}]  # words first, as in the papers' scripts


def _replies(
    question: Question, template: str, about: Sequence[tuple[Prompt, str]], asks: Asks
) -> Iterator[tuple[int, Reply | EndpointError]]:
    """A reply for every text, by its number: what is known first, then the others as they come."""
    one_at_a_time = threading.Lock()  # a picture in memory may be that of several prompts

    def messages(number: int) -> list[dict[str, Any]]:
        with one_at_a_time:
            try:
                return _messages(question, template, *about[number])
            except PromptError as error:
                raise EndpointError(str(error)) from error

    alike, known = dict[str, list[int]](), read_replies(asks.cache)
    for number in range(len(about)):
        try:
            alike.setdefault(key_of(body_of(asks.endpoint, messages(number), question.max_tokens)), []).append(number)
        except EndpointError as error:
            yield number, error
    for key in alike.keys() & known.keys():
        asks.cost.cached += 1
        yield from ((number, known[key]) for number in alike[key])
    new = [key for key in alike if key not in known]
    with keeping(asks.cache) as keep:
        for at, result in chats(asks.endpoint, new, lambda key: messages(alike[key][0]), max_tokens=question.max_tokens):
            asks.cost.count(result)
            if isinstance(result, Reply):
                keep(new[at], result)
            yield from ((number, result) for number in alike[new[at]])
