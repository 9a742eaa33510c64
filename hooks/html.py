"""A transcript as a notebook shows it: who wrote, the prompt, the thought and the answer, and at which tokens steering acted.

A transcript knows its token ids but not their text. A word takes at least one token, so where the output has as many words as tokens each
word is one, and steered words are underlined; elsewhere their positions are told. Backgrounds are tints, right on light and dark paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import Picture, Transcript

STYLE = """
.tl-transcript { line-height: 1.6; max-width: 84ch; overflow-wrap: anywhere; }
.tl-transcript p { margin: 0 0 6px; padding: 4px 10px; white-space: pre-wrap; border-left: 3px solid #7d868f; }
.tl-transcript .tl-told { border: 0; padding: 0; opacity: .8; }
.tl-transcript .tl-thought { border-color: #a17400; background: rgba(161, 116, 0, .1); max-height: 24em; overflow: auto; }
.tl-transcript .tl-answer { border-color: #3f8fc4; background: rgba(63, 143, 196, .12); }
.tl-transcript u { text-decoration-thickness: 3px; text-underline-offset: 3px; outline: 1px solid; padding: 0 2px; }
"""


def transcript_html(transcript: Transcript) -> str:
    """One block of HTML; every text of the transcript is escaped."""
    prompt, fired = transcript.prompt, _fired_words(transcript)
    parts = [
        ("tl-told", f"<b>{escape(transcript.model)}</b> · {escape(transcript.condition)} · {escape(_ending(transcript))}"),
        *([("tl-told", escape(_steered(transcript)))] if transcript.fired or transcript.inserted else []),
        *([("tl-prompt", f"<i>system</i> {escape(prompt.system)}")] if prompt.system else []),
        ("tl-prompt", f"<i>prompt</i> {escape(prompt.text)}{''.join(escape(_picture(one)) for one in prompt.images)}"),
        *([("tl-thought", f"<i>thought</i> {_marked(transcript.thought, fired[0])}")] if transcript.thought else []),
        *([("tl-answer", f"<i>answer</i> {_marked(transcript.answer, fired[1])}")] if transcript.answer else []),
    ]
    if not transcript.thought and not transcript.answer:
        parts.append(("tl-prompt", f"<i>output</i> {escape(transcript.text)}"))
    told = "".join(f'<p class="{name}">{text}</p>' for name, text in parts)
    return f'<style>{STYLE}</style><div class="tl-transcript">{told}</div>'


def _ending(transcript: Transcript) -> str:
    written = f"{len(transcript.output_ids)} tokens" if transcript.output_ids else "token ids not known"
    end = "stopped by a trigger" if transcript.stopped else "ended" if transcript.ended else "cut off"
    return f"thought {transcript.status} · {written} · {end}"


def _steered(transcript: Transcript) -> str:
    """Where steering acted, and what a trigger wrote in the model's place."""
    begun = len(transcript.prompt_ids)
    sides = {
        "prompt": [at for at in transcript.fired_at if at < begun],
        "output": [at - begun for at in transcript.fired_at if at >= begun],
    }
    where = [f"{side} tokens {_ranges(places)}" for side, places in sides.items() if places]
    told = [f"steered at {transcript.fired} token{'' if transcript.fired == 1 else 's'}{': ' if where else ''}{', '.join(where)}"]
    inserted = ", ".join(f"{start}–{stop - 1}" for start, stop in transcript.inserted)
    return "; ".join(told * bool(transcript.fired) + [f"a trigger wrote output tokens {inserted}"] * bool(inserted))


def _ranges(places: Iterable[int]) -> str:
    """0–3, 7: runs of positions."""
    runs: list[list[int]] = []
    for place in sorted(set(places)):
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return ", ".join(f"{first}–{last}" if last > first else str(first) for first, last in runs)


def _fired_words(transcript: Transcript) -> tuple[set[int], set[int]]:
    """Which words of the thought and of the answer were steered; empty where words cannot be told from token ids."""
    words, begun = transcript.text.split(), len(transcript.prompt_ids)
    if len(words) != len(transcript.output_ids) - transcript.ended:
        return set(), set()
    thought, answer = transcript.thought.split(), transcript.answer.split()
    starts = _place(words, thought, range(len(words))), _place(words, answer, range(len(words) - len(answer), -1, -1))
    fired = [{at - begun - start for at in transcript.fired_at} for start in starts]
    return fired[0], fired[1]


def _place(words: Sequence[str], part: Sequence[str], order: Iterable[int]) -> int:
    """Where the part begins; behind all words where it is not there as it stands."""
    return next((at for at in order if list(words[at : at + len(part)]) == list(part)), len(words))


def _marked(text: str, fired: set[int]) -> str:
    """Every steered word underlined; spaces and line ends stay as they are."""
    shown, number = [], -1
    for piece in re.split(r"(\s+)", text):
        word = bool(piece.strip())
        number += word
        shown.append(f"<u>{escape(piece)}</u>" if word and number in fired else escape(piece))
    return "".join(shown)


def _picture(picture: Picture) -> str:
    if isinstance(picture, str | Path):
        return f" [picture {Path(picture).name}]"
    return f" [picture of {picture.width} × {picture.height}]"
