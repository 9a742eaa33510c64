"""Every token is there once, in order, with its level, its mark and its hover; text of data is never markup; text is readable everywhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from thoughtlens.viz import reader, theme
from thoughtlens.viz.reader_style import LEVELS, shade

TOKENS = "assistant <think> okay . blig the <script> . </think> sure . <|end|>".split()
KINDS = ["template", "marker", *["thought"] * 6, "marker", "answer", "answer", "template"]
STEPS = [-1, -1, 0, 0, 1, 1, 1, 1, -1, -1, -1, -1]
SCORES = [-40.0, -10.0, 0.0, 1.9, 2.1, 10.0, 40.0, np.nan, -1.9, -2.1, 5.0, 0.5]


@pytest.fixture
def tokens() -> pd.DataFrame:
    count = len(TOKENS)
    return pd.DataFrame(
        {
            "position": np.arange(-1, count - 1),
            "kind": KINDS,
            "token": TOKENS,
            "step": STEPS,
            "score": SCORES,
            "fired": [at in (0, 4) for at in range(count)],
        }
    )


class Shown(HTMLParser):
    """What a browser would show: the text, and every span with its class, title and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.spans, self.tags = "", [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "span":
            self.spans.append([dict(attrs), ""])

    def handle_data(self, data):
        self.text += data
        if self.spans and self.get_starttag_text().startswith("<span") and self.cdata_elem is None:
            self.spans[-1][1] = self.spans[-1][1] or data


def spans(tokens: pd.DataFrame) -> list[reader.TokenSpan]:
    return reader.token_spans(tokens, low=-10, high=20)


def test_levels_follow_the_scale_of_each_side(tokens):
    by_hand = np.where(tokens.score < 0, tokens.score / 10, tokens.score / 20).clip(-1, 1) * 5
    expected = [None if np.isnan(level) else int(np.rint(level)) for level in by_hand]
    assert [span.level for span in spans(tokens)] == expected
    assert expected[0] == -5 and expected[5] == 2 and expected[6] == 5 and expected[7] is None


def test_the_scale_is_symmetric_and_a_few_extremes_do_not_set_it(tokens):
    many = pd.DataFrame({"score": [*np.linspace(-1, 1, 400), 90.0, np.nan]})
    assert reader.scale_of(many) == pytest.approx(np.nanquantile(np.abs(many.score), 0.95))
    assert reader.scale_of(many) < 1.1
    assert reader.scale_of(tokens.assign(score=0.0)) == reader.scale_of(tokens.assign(score=np.nan)) == 1.0


def test_every_token_is_shown_once_and_parts_stand_on_lines_of_their_own(tokens):
    found = spans(tokens.sample(frac=1, random_state=1))
    assert "".join(span.text for span in found) == "assistant\n<think>\nokay. blig the <script>.\n</think>\nsure.\n<|end|>"
    shown = Shown(reader.as_html(found))
    assert shown.text == "".join(span.text for span in found)
    assert [text for _, text in shown.spans] == TOKENS
    assert set(shown.tags) == {"div", "span"} and "<script>" not in reader.as_html(found)


def test_marks_do_not_lean_on_colour(tokens):
    found = spans(tokens)
    assert [index for index, span in enumerate(found) if span.fired] == [0, 4]
    assert [index for index, span in enumerate(found) if "tl-fired" in span.css_class.split()] == [0, 4]
    assert [index for index, span in enumerate(found) if span.step_end] == [3, 7]
    assert re.search(r"\.tl-fired \{[^}]*outline: [\d.]+px solid", reader.STYLE)
    assert found[1].css_class == "tl-token tl-frame tl-level-5" and found[7].css_class == "tl-token tl-thought tl-step-end"
    assert found[9].css_class.split()[1] == "tl-answer"


def test_the_hover_tells_score_place_and_step(tokens):
    found = spans(tokens)
    assert found[0].title == "log-odds of harmful −40 · template · last prompt token · steered here"
    assert found[4].title == "log-odds of harmful +2.1 · thought, step 1 · token 3 · steered here"
    assert found[7].title == "not read · thought, step 1 · token 6"
    assert spans(tokens.assign(kind='"><b>'))[0].kind == '"><b>'
    assert set(Shown(reader.as_html(spans(tokens.assign(kind='"><b>')))).tags) == {"div", "span"}


def test_white_space_tokens_can_be_seen_and_missing_steps_are_none(tokens):
    blank = tokens.assign(token=["Ċ", *[f"Ġ{token}" for token in TOKENS[1:-1]], "ĊĊ"], step=pd.array([pd.NA] * 12, dtype="Int64"))
    found = spans(blank)
    assert (found[0].before, found[0].word) == ("", "⏎\n") and found[1].text == "<think>" and not any(span.step_end for span in found)
    assert "step" not in found[4].title and found[-1].word == "⏎\n⏎\n"


def test_mistakes_say_what_to_do(tokens):
    with pytest.raises(ValueError, match="scale_of"):
        reader.token_spans(tokens, low=0, high=1)
    with pytest.raises(ValueError, match="one layer of one condition"):
        reader.token_spans(pd.concat([tokens, tokens]), low=-1, high=1)


def test_the_legend_holds_both_ends():
    told = reader.legend(-10, 20)
    assert [(span.level, span.text) for span in told if span.level is not None] == [
        (-5, " −10"),
        (-3, " −6.0"),
        (-1, " −2.0"),
        (1, " +4.0"),
        (3, " +12"),
        (5, " +20"),
    ]
    assert [span.text for span in told if span.level is None] == ["harmless", " harmful", " steered here"] and told[-1].fired


def luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_is_readable_on_every_level_and_levels_differ(mode):
    levels = [shade(level, mode) for level in range(-LEVELS, LEVELS + 1)]
    assert min(contrast(color, theme.INK[mode].text) for color in levels) >= 4.5
    assert len(set(levels)) == 2 * LEVELS + 1 and levels[LEVELS] == theme.INK[mode].paper
    assert all(color in reader.STYLE for color in levels)


def test_texts_without_readouts_and_columns_are_escaped():
    page = reader.side_by_side(("a <b>", reader.plain_html("blig <i>", "")), ("steered", reader.plain_html("", "sure & done")))
    shown = Shown(page)
    assert shown.text == "a <b>blig <i>no answersteeredno thoughtsure & done" and set(shown.tags) == {"div", "section", "p"}
    assert page.count("tl-none") == 2
