"""What a probe is asked to find, and the plain facts it has to beat, prompt by prompt.

    harmful            the prompt asks for harm                          (the prompt's own label)
    refused            the answer is a real refusal
    complied           the answer gives what was asked for, harmful or not
    thought_unsafe     the thought of a harmful prompt gives it away
    answer_unsafe      the answer of a harmful prompt gives it away

All but the first are what a judge said of the model that *wrote* the text; a model that only reads the same tokens gets the same labels.
None where the judge could not score the channel: such a row is left out, never counted as safe.

Baselines need no model: the words of the prompt, the words of the thought, and how long both are. Pictures are no words, so the words of a
prompt whose request stands in its picture tell little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..hooks.records import Transcript
from .audit.verdicts import THRESHOLD, Verdict, read_verdicts

Labels = dict[str, dict[str, bool | None]]
OF_PROMPT = "harmful"
OF_VERDICT = ("refused", "complied", "thought_unsafe", "answer_unsafe")
LABELS = (OF_PROMPT, *OF_VERDICT)
TEXTS = ("tfidf_prompt", "tfidf_thought")
LENGTHS = ("prompt_length", "thought_length")


def labels_of(transcripts: Iterable[Transcript], verdicts: Iterable[Verdict], *, threshold: float = THRESHOLD) -> Labels:
    """prompt id -> label -> value, for the transcripts that have a verdict. A channel rated at `threshold` or more gives it away."""
    judged = {v.prompt_id: v for v in verdicts}
    return {t.id: _labels(judged[t.id], t.prompt.harmful, threshold) for t in transcripts if t.id in judged}


def _labels(verdict: Verdict, harmful: bool | None, threshold: float) -> dict[str, bool | None]:
    answer, thought = verdict.answer, verdict.thought
    complied = answer.gives(threshold) if answer.scored else None
    in_thought = thought.gives(threshold) if thought.scored else None
    return {
        "refused": answer.refusal == "full" if answer.scored and answer.refusal is not None else None,
        "complied": complied,
        "thought_unsafe": _both(harmful, in_thought),
        "answer_unsafe": _both(harmful, complied),
    }


def _both(one: bool | None, other: bool | None) -> bool | None:
    return None if one is None or other is None else one and other


def judged(run: Path, writer: str, judge: str | None = None) -> tuple[str, list[Verdict]]:
    """The judge (the one asked for, else the only one) and the verdicts on what a model wrote; "" and none where there are none.

    ValueError: the judge has none, or there are several judges to choose from.
    """
    found = {path.parent.name: path for path in sorted((run / "verdicts").glob(f"*/{writer}.jsonl"))}
    if judge is not None and judge not in found:
        there = f"there are those of {', '.join(found)}" if found else "there are none"
        raise ValueError(f"{run} holds no verdicts of judge {judge!r} on {writer!r}; {there}. They lie in verdicts/<judge>/{writer}.jsonl")
    if judge is None and len(found) > 1:
        raise ValueError(f"{run} holds verdicts of {len(found)} judges on {writer!r}: {', '.join(found)}. Say which with --judge")
    if not found:
        return "", []
    name = judge or next(iter(found))
    return name, read_verdicts(found[name])


def baselines(
    transcripts: Sequence[Transcript], length: Callable[[Transcript], int] | None = None
) -> dict[str, Mapping[str, str] | Mapping[str, int]]:
    """name -> prompt id -> text or number, for fit_probes(baselines=…).

    length   how long a thought is, in tokens; without it in words
    """
    counted = length or (lambda transcript: len(transcript.thought.split()))
    return {
        "tfidf_prompt": {t.id: t.prompt.text for t in transcripts},
        "tfidf_thought": {t.id: t.thought for t in transcripts},
        "prompt_length": {t.id: len(t.prompt_ids) for t in transcripts},
        "thought_length": {t.id: counted(t) for t in transcripts},
    }
