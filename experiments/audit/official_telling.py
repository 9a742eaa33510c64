"""What papers' own rules make of everybody who answered: rows of the table `official`, a sentence on each rule, and what was said of whom.

official/<rule>/<name>[@<condition>].jsonl   the replies to a paper's question, one a line, and what was read of each
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from ...hooks.files import writable_folder, write_text
from ...hooks.records import Transcript
from ..progress import Track
from ..run import Run
from .official import official
from .official_asking import Asks, Handed, Said, asked
from .official_marks import By, marks_of
from .official_scores import Numbers
from .score import Row
from .verdicts import Verdict


def followed(
    run: Run,
    said: Mapping[str, Sequence[Transcript]],
    verdicts: Mapping[By, Sequence[Verdict]],
    rules: Sequence[Handed],
    asks: Asks | None,
    bars: Track,
) -> tuple[list[Row], list[str]]:
    """The rates of each rule for everybody, and what must be read with them.

    said   transcripts by file name; asks: whoever is asked the papers' questions, where a rule has any
    A rule that says nothing of somebody's prompts, or needs another judge, has a sentence in place of rates.
    """
    who = {name: (of_one[0].model, of_one[0].condition) for name, of_one in said.items() if of_one}
    rows, sentences = list[Row](), dict[str, None]()
    for rule in rules:
        for name, by in who.items():
            try:
                numbers, source, about = _numbers(run, rule, name, said[name], by, list(who.values()), asks, bars)
                more, sentence = official(rule.name, said[name], verdicts.get(by), numbers=numbers, by=source, model=by[0], condition=by[1])
            except ValueError as problem:
                sentences[f"official: {rule.name}, {' '.join(by)}: {problem}"] = None
            else:
                rows += more
                sentences |= dict.fromkeys([sentence, *about])
    return rows, list(sentences)


def _numbers(
    run: Run, rule: Handed, name: str, transcripts: Sequence[Transcript], by: By, everybody: Sequence[By], asks: Asks | None, bars: Track
) -> tuple[Mapping[str, Numbers], str, list[str]]:
    """What was said of somebody's outputs, by whom, and a sentence on it; nothing of a rule that asks nobody."""
    if rule.marks and rule.file is not None:
        found = marks_of(rule.marks, by, everybody)
        return found, rule.file.name, [f"official: {rule.name}, {' '.join(by)}: {len(found)} marks from {rule.file.name}"]
    if not rule.questions or rule.file is None or asks is None:
        return {}, "", []
    numbers, replies = asked(rule, transcripts, asks, bars)
    file = run.path("official", rule.name, f"{name}.jsonl")
    writable_folder(file.parent)
    write_text(file, "".join(json.dumps(asdict(one)) + "\n" for one in replies))
    how = f"{asks.endpoint.model} was asked {rule.file.name} (sha256 {rule.sha256[:12]})"
    return numbers, asks.endpoint.model, [f"official: {rule.name}, {' '.join(by)}: {how}, {_unread(replies)}"]


def _unread(replies: Sequence[Said]) -> str:
    unread = [one for one in replies if one.score is None]
    first = f"; the first, {unread[0].prompt_id} ({unread[0].channel}, {unread[0].question}): {unread[0].why}" if unread else ""
    return f"{len(replies)} texts, {len(unread)} without a reply that can be read{first}"
