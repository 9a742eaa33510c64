"""A thought to read: every token with what the probe reads at it as its colour, and a mark where steering acted.

    level = round(5 · score / high) for scores from 0 up, −round(5 · score / low) below, held within −5 … 5

Colours run from blue (reads as harmless) over paper to orange (reads as harmful), which stay apart under the common colour-vision
deficiencies; text keeps a contrast of 4.5 on every level, on both papers. A steered token has a frame and a thick line under it, so it is
told by shape. How tokens become readable text: words.py. Spans hold text as it is; `as_html` escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from .reader_style import LEVELS
from .reader_style import STYLE as STYLE
from .words import pieces

SHOWN = 0.95  # share of the scores that lie within the scale
KINDS = {"thought": "tl-thought", "answer": "tl-answer"}
OTHER = "tl-frame"  # markers of the thought, and what the chat template writes


@dataclass(frozen=True)
class TokenSpan:
    """One token to show.

    text       its piece of the text, white space before it included: all texts together are what is read
    kind       token kind: template, marker, thought, answer
    level      −5 (harmless) to 5 (harmful); None where nothing was read
    fired      steering acted at it
    title      what is told when the pointer rests on it
    step_end   it is the last token of a step of the thought
    """

    text: str
    kind: str
    level: int | None
    fired: bool
    title: str
    step_end: bool

    @property
    def before(self) -> str:
        """White space that stands before the word, outside its colour."""
        return self.text[: len(self.text) - len(self.text.lstrip())] if self.text.strip() else ""

    @property
    def word(self) -> str:
        """What is coloured. A token of nothing but white space, or of a part of a letter, is shown by signs."""
        if self.text.strip():
            return self.text.lstrip()
        return self.text.replace(" ", "␣").replace("\t", "⇥").replace("\n", "⏎\n") or "◌"

    @property
    def css_class(self) -> str:
        level = [] if self.level is None else [f"tl-level{self.level}"]
        return " ".join(["tl-token", KINDS.get(self.kind, OTHER), *level, *["tl-fired"] * self.fired, *["tl-step-end"] * self.step_end])


def scale_of(tokens: pd.DataFrame) -> float:
    """The end of a scale around 0: 95% of the scores are no larger, so that a few extremes leave the others their colour."""
    sizes = tokens["score"].astype(float).abs().dropna()
    end = float(sizes.quantile(SHOWN)) if len(sizes) else 0.0
    return end if end > 0 else 1.0


def token_spans(tokens: pd.DataFrame, *, low: float, high: float) -> list[TokenSpan]:
    """The tokens of one text at one layer, in the order of position. `low` and `high`: the scores of the strongest blue and orange.

    Columns position, kind, token, step, score, fired (CONTRIBUTING.md, `readouts`). The thought, its markers and the answer begin on
    lines of their own. ValueError for a scale that does not hold 0, and for a position that occurs twice (several layers at once).
    """
    if not low < 0 < high:
        raise ValueError(f"the scale runs from {low:g} to {high:g}, but 0 must lie inside. Pass -scale_of(tokens) and scale_of(tokens).")
    if tokens["position"].duplicated().any():
        raise ValueError("a position occurs twice: these are tokens of several layers or conditions. Pass one layer of one condition.")
    rows = tokens.sort_values("position").to_dict("records")
    texts = pieces([str(row["token"]) for row in rows])
    found: list[TokenSpan] = []
    for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
        kind, after = str(row["kind"]), rows[index + 1] if index + 1 < len(rows) else None
        if index and kind != str(rows[index - 1]["kind"]):
            broken = found[-1].text.endswith("\n") or text.startswith("\n")
            text = "\n" * (not broken) + text.lstrip(" ")
        ends = kind == "thought" and _step(row) >= 0 and (after is None or _step(after) != _step(row))
        found.append(TokenSpan(text, kind, _level(row["score"], low, high), bool(row["fired"]), _title(row), ends))
    return found


def legend(low: float, high: float) -> list[TokenSpan]:
    """The scale as spans, to show over a text: every second level with the score in its middle, and what a steered token looks like."""
    levels = [level for level in range(-LEVELS, LEVELS + 1) if level % 2]
    scores = [level / LEVELS * (high if level > 0 else -low) for level in levels]
    told = [
        TokenSpan(f" {_signed(score)}", "thought", level, False, "log-odds of harmful", False)
        for level, score in zip(levels, scores, strict=True)
    ]
    ends = [TokenSpan(text, "thought", None, False, "", False) for text in ("harmless", " harmful")]
    return [ends[0], *told, ends[1], TokenSpan(" steered here", "thought", None, True, "steering acted at this token", False)]


def _level(score: Any, low: float, high: float) -> int | None:
    if pd.isna(score):
        return None
    share = float(score) / high if score >= 0 else -float(score) / low
    return round(LEVELS * max(-1.0, min(1.0, share)))


def _step(row: dict[Any, Any]) -> int:
    """−1 for a token of no step."""
    return -1 if pd.isna(row["step"]) else int(row["step"])


def _title(row: dict[Any, Any]) -> str:
    read = "not read" if pd.isna(row["score"]) else f"log-odds of harmful {_signed(float(row['score']))}"
    step = f", step {_step(row)}" if _step(row) >= 0 else ""
    at = "last prompt token" if row["position"] < 0 else f"token {row['position']:.0f}"
    return f"{read} · {row['kind']}{step} · {at}" + (" · steered here" if row["fired"] else "")


def _signed(score: float) -> str:
    return f"{score:+.{0 if abs(score) >= 10 else 1}f}".replace("-", "−")


def as_html(spans: Sequence[TokenSpan]) -> str:
    """The spans as one block of HTML; STYLE must be on the page once."""
    return f'<div class="tl-reader">{"".join(map(_html, spans))}</div>'


def _html(span: TokenSpan) -> str:
    title = f' title="{escape(span.title)}"' if span.title else ""
    return f'{escape(span.before)}<span class="{span.css_class}"{title}>{escape(span.word)}</span>'


def plain_html(thought: str, answer: str) -> str:
    """A text of which nothing was read: thought and answer, apart by place and type. Steps and colours need `readouts`."""
    parts = (("thought", thought), ("answer", answer))
    told = [f'<p class="tl-{name}">{escape(text)}</p>' if text else f'<p class="tl-none">no {name}</p>' for name, text in parts]
    return f'<div class="tl-reader">{"".join(told)}</div>'


def side_by_side(*columns: tuple[str, str]) -> str:
    """Texts beside each other, each a heading (text) and its HTML: unsteered and steered, say. On a narrow page under each other."""
    told = "".join(f'<section><p class="tl-head">{escape(heading)}</p>{body}</section>' for heading, body in columns)
    return f'<div class="tl-columns">{told}</div>'
