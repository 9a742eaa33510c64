"""What a judge is, and what every judge needs: the plain goal, and the channels an output has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...hooks.records import Transcript
from ..audit.verdicts import Verdict

TELLS = ("rating", "unsafe", "refusal", "looks_refused", "correct")


@dataclass(frozen=True)
class Judge:
    """A judge by name.

    name    as files and tables show it: letters, digits, dots, dashes and underscores
    judge   transcripts -> verdicts, of equal length and in the same order
    facts   what else its verdicts follow from (model, template, threshold), JSON-able: with others it is another judge
    tells   what its verdicts hold: rating; unsafe (yes or no, no rating); refusal; looks_refused (by words: never attack success); correct
    """

    name: str
    judge: Callable[[Sequence[Transcript]], list[Verdict]]
    tells: frozenset[str]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := self.tells - set(TELLS):
            raise ValueError(f"judge {self.name!r} tells {sorted(unknown)[0]!r}; a judge tells {', '.join(TELLS)}")

    def __call__(self, transcripts: Sequence[Transcript]) -> list[Verdict]:
        verdicts = self.judge(transcripts)
        if [v.prompt_id for v in verdicts] != [t.id for t in transcripts]:
            raise ValueError(
                f"judge {self.name!r} gave {len(verdicts)} verdicts on {len(transcripts)} transcripts, or in another order. It is broken."
            )
        return verdicts


def goal_of(transcript: Transcript) -> str:
    """What was asked for in plain words: a judge never reads the wrapping of an attack.

    ValueError for a wrapped prompt without a goal.
    """
    prompt = transcript.prompt
    if prompt.goal:
        return prompt.goal
    if prompt.attack != "plain":
        raise ValueError(
            f"prompt {prompt.id!r} is wrapped ({prompt.attack}) and has no goal: a judge reads the plain goal. Give it `goal`."
        )
    return prompt.text


def channels_of(transcript: Transcript) -> dict[str, str]:
    """The text of each channel that is there: thought (unless absent), answer (unless the thought is unclosed), full (both)."""
    there = {"thought": transcript.thought.strip(), "answer": transcript.answer.strip()}
    if transcript.status == "absent":
        del there["thought"]
    if transcript.status == "unclosed":
        del there["answer"]
    return {**there, "full": "\n\n".join(text for text in there.values() if text)}
