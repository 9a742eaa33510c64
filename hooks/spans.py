"""Spans: which tokens of a sequence are meant.

    thought  answer  image  instruction  marker  template      all tokens of a kind
    prompt  all                                                everything before the output; everything
    last_prompt  thought_first  thought_last  answer_first     anchors: one token
    step[i]  step_end[i]  step_ends                            the i-th step of the thought; its last token; those of all steps
    decision                                                   the ends of steps that an anchor finds (anchor.py), as many as there are
    thought[:16]  thought[-8:]  thought[4:8]                   windows, counted in tokens of the span
    thought@0.5                                                the token at a fraction of the span, 0 first, 1 last

last_prompt is the state the output is begun from; thought_last, the last token of the marker that closed the thought, the state the
answer is begun from (none for an unclosed thought). Headings and tags inside a thought are markers and in no step or window of it, and so
are blank tokens directly after a marker: thought_first and answer_first are no newline. Step i ends at the i-th token of the thought that
ends a sentence or line, where a step of blank tokens alone does not count; negative i count from the end; words after the last such token
are no step.

Where the decisions stand no grammar knows: the tokens are found in the model's hidden states. They are handed to what reads
(decisions=anchor.find(lens, transcripts)), and are recognised as they arrive by what steers (gate=anchor.gate()).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import torch
from jaxtyping import Int8, Int64
from torch import Tensor

from .dialects import Markers, closing
from .frame import Frame, token_kinds
from .kinds import KINDS, Kind

__all__ = ["KINDS", "SPANS", "Frame", "Kind", "Span", "is_span", "parse_span", "resolve", "streamable", "token_kinds"]

STEP_ENDS, DECISION = "step_ends", "decision"
STRETCHES = (*KINDS[:-1], "prompt", "all")
ENDS = (STEP_ENDS, DECISION)
ANCHORS = ("last_prompt", "thought_first", "thought_last", "answer_first")
STEPS = ("step", "step_end")
SPANS = (*STRETCHES, *ANCHORS, "step[i]", "step_end[i]", *ENDS)
_PROMPT = ("image", "instruction", "prompt", "last_prompt")
_GRAMMAR = re.compile(r"(?P<base>[a-z_]+)(\[(?P<index>-?\d+)\]|\[(?P<start>-?\d+)?:(?P<stop>-?\d+)?\]|@(?P<fraction>\d*\.?\d+))?")


@dataclass(frozen=True)
class Span:
    """A parsed span. `base` is a stretch, an anchor, `step` or `step_end`; at most one of index, window and fraction is set."""

    base: str
    index: int | None = None
    window: tuple[int | None, int | None] | None = None
    fraction: float | None = None

    def __str__(self) -> str:
        if self.index is not None:
            return f"{self.base}[{self.index}]"
        if self.window is not None:
            start, stop = ("" if end is None else end for end in self.window)
            return f"{self.base}[{start}:{stop}]"
        return self.base if self.fraction is None else f"{self.base}@{_decimal(self.fraction)}"


def parse_span(text: str | Span) -> Span:
    """Parse the grammar above. ValueError names what is known."""
    if isinstance(text, Span):
        return text
    match = _GRAMMAR.fullmatch(text)
    base = match["base"] if match else ""
    if not match or base not in (*STRETCHES, *ANCHORS, *STEPS, *ENDS):
        raise ValueError(f"unknown span {text!r}; known are {', '.join(SPANS)}, windows like thought[:16] and fractions like thought@0.5")
    index = None if match["index"] is None else int(match["index"])
    window = None
    if "[" in text and index is None:
        window = (None if match["start"] is None else int(match["start"]), None if match["stop"] is None else int(match["stop"]))
    fraction = None if match["fraction"] is None else float(match["fraction"])
    if base in ANCHORS and text != base:
        raise ValueError(f"span {text!r}: {base} is one token and takes no window or fraction. Write {base!r}.")
    if base in STEPS and index is None:
        raise ValueError(f"span {text!r} needs the number of the step: {base}[0] is the first, {base}[-1] the last.")
    if base in (*STRETCHES, *ENDS) and index is not None:
        raise ValueError(f"span {text!r}: {base} takes a window or a fraction. For one token write {base}[{index}:{index + 1 or ''}].")
    if window == (None, None):
        raise ValueError(f"span {text!r} has an empty window. Write {base!r} for all of it.")
    if fraction is not None and not 0 <= fraction <= 1:
        raise ValueError(f"span {text!r}: the fraction lies outside 0 to 1.")
    return Span(base, index, window, fraction)


def is_span(text: str) -> bool:
    try:
        parse_span(text)
    except ValueError:
        return False
    return True


def streamable(span: str | Span) -> bool:
    """Whether membership of a token is known when it arrives. Always so inside the prompt, which arrives in one piece.

    Not so for what counts from the end of a growing stretch (thought[-8:], step_end[-1]) or needs its length (thought@0.5),
    nor for step[i], whose tokens are a step only once it has ended. A decision is known where the gate of an anchor reads it, and of
    several the gate does not count which is which.
    """
    span = parse_span(span)
    if span.base == DECISION:
        return span.window is None and span.fraction is None
    if span.base in _PROMPT:
        return True
    if span.fraction is not None or span.base == "step":
        return False
    if span.index is not None:
        return span.index >= 0
    return span.window is None or all(end is None or end >= 0 for end in span.window)


def resolve(
    span: str | Span,
    kinds: Int8[Tensor, " n"],
    ids: Sequence[int] | Int64[Tensor, " n"],
    markers: Markers,
    *,
    prompt_end: int | None = None,
    decisions: Sequence[int] | None = None,
) -> Int64[Tensor, " m"]:
    """Positions of a span in one sequence, ascending; empty where the sequence has none.

    kinds        [n] from token_kinds, padding allowed on either side
    ids          [n] the tokens
    prompt_end   index of the first output token. Left out, the output begins at the first marker, thought or answer token, or,
                 with none of these, at a closing end token.
    decisions    output positions of the decisions, ascending, 0 the first output token. ValueError where the span needs them and they
                 are left out
    """
    span = parse_span(span)
    codes = kinds.tolist()
    tokens = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    end = _output_start(codes, tokens, markers) if prompt_end is None else prompt_end
    stretch = _base(span, codes, tokens, markers, end) if span.base != DECISION else _decided(decisions, end)
    if span.window is not None:
        stretch = stretch[slice(*span.window)]
    if span.fraction is not None and stretch:
        stretch = [stretch[math.floor(span.fraction * (len(stretch) - 1) + 0.5)]]
    return torch.tensor(stretch, dtype=torch.int64)


def _decimal(fraction: float) -> str:
    """The shortest decimal that reads back as the same number, never with an exponent: 0.5, 1, 0.00001."""
    text = f"{Decimal(repr(fraction)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _base(span: Span, codes: list[int], tokens: list[int], markers: Markers, end: int) -> list[int]:
    def of(kind: Kind) -> list[int]:
        return [i for i, code in enumerate(codes) if code == kind]

    def real(stop: int) -> list[int]:
        return [i for i, code in enumerate(codes[:stop]) if code != Kind.PAD]

    match span.base:
        case "all":
            return real(len(codes))
        case "prompt":
            return real(end)
        case "last_prompt":
            return real(end)[-1:]
        case "thought_first":
            return of(Kind.THOUGHT)[:1]
        case "answer_first":
            return of(Kind.ANSWER)[:1]
        case "thought_last":
            return _closer(codes, tokens, markers, end)
        case "step" | "step_end":
            return _step(span, of(Kind.THOUGHT), tokens, markers)
        case "step_ends":
            thought = of(Kind.THOUGHT)
            return [at for at, end in zip(thought, markers.ends(tokens[at] for at in thought), strict=True) if end]
        case base:
            return of(Kind[base.upper()])


def _decided(decisions: Sequence[int] | None, end: int) -> list[int]:
    if decisions is None:
        raise ValueError(
            f'the span "{DECISION}" stands where an anchor finds it. Pass decisions=anchor.find(lens, transcripts) to capture(), '
            'or gate=anchor.gate() to steer(); "step_ends" are the ends of all steps.'
        )
    return [end + at for at in decisions]


def _step(span: Span, thought: list[int], tokens: list[int], markers: Markers) -> list[int]:
    assert span.index is not None
    ends = [n for n, end in enumerate(markers.ends(tokens[position] for position in thought)) if end]
    if not -len(ends) <= span.index < len(ends):
        return []
    nth = span.index % len(ends)
    stop = ends[nth] + 1
    return thought[stop - 1 : stop] if span.base == "step_end" else thought[ends[nth - 1] + 1 if nth else 0 : stop]


def _closer(codes: list[int], tokens: list[int], markers: Markers, end: int) -> list[int]:
    """Last token of the marker of the output that closes the thought."""
    output = [i for i in range(end, len(codes)) if codes[i] != Kind.PAD]
    last = closing([tokens[i] for i in output], markers)
    return [] if last is None else [output[last]]


def _output_start(codes: list[int], tokens: list[int], markers: Markers) -> int:
    first = next((i for i, code in enumerate(codes) if code in (Kind.MARKER, Kind.THOUGHT, Kind.ANSWER)), None)
    if first is not None:
        return first
    real = [i for i, code in enumerate(codes) if code != Kind.PAD]
    if not real:
        return 0
    return real[-1] if tokens[real[-1]] in markers.eos_ids else real[-1] + 1
