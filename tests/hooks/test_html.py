"""A notebook shows the whole transcript once, everything escaped, and marks exactly the steered words where words are tokens."""

from __future__ import annotations

import re
from html import unescape

import pytest
from PIL import Image
from thoughtlens.hooks import Prompt, Transcript

SCRIPT = "<script>alert(1)</script>"
WORDS = "<think> okay the wug </think> florp the wug"


def transcript(**changed: object) -> Transcript:
    prompt = Prompt(id="p", text="florp the wug", images=("pictures/wug.png", Image.new("RGB", (4, 3))), system="be kind")
    told: dict[str, object] = {"prompt_ids": range(10), "output_ids": range(9), "text": WORDS, "ended": True, "status": "closed"}
    told |= {"thought": "okay the wug", "answer": "florp the wug", "fired": 4, "fired_at": (9, 11, 12, 17)}
    return Transcript(**{"prompt": prompt, "model": "reasoning", "condition": "steered", **told, **changed})


def shown(page: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", page.partition("</style>")[2]))


def test_everything_is_there_once():
    page = transcript()._repr_html_()
    text = shown(page)
    assert text.startswith(
        "reasoning · steered · thought closed · 9 tokens · endedsteered at 4 tokens: prompt tokens 9, output tokens 1–2, 7"
    )
    assert text.endswith("system be kindprompt florp the wug [picture wug.png] [picture of 4 × 3]thought okay the wuganswer florp the wug")
    assert "pictures/" not in page


def test_steered_words_are_marked_where_a_word_is_a_token():
    page = transcript()._repr_html_()
    assert "<u>okay</u> <u>the</u> wug" in page and "florp the <u>wug</u>" in page and page.count("<u>") == 3
    assert "<u>" not in transcript(output_ids=range(12))._repr_html_()
    assert "<u>" not in transcript(fired=0, fired_at=())._repr_html_()
    assert "steered at" not in shown(transcript(fired=0, fired_at=(), condition="unsteered")._repr_html_())


def test_a_repeated_phrase_in_the_answer_is_found_at_the_end():
    page = transcript(answer="the wug", thought="okay the wug", fired=1, fired_at=(16,))._repr_html_()
    assert "<u>the</u> wug</p></div>" in page and page.count("<u>") == 1


def test_texts_are_escaped_everywhere():
    prompt = Prompt(id="p", text=SCRIPT, system=SCRIPT, images=(f"a/{SCRIPT[:8]}.png",))
    changed = {"prompt": prompt, "model": SCRIPT, "condition": SCRIPT, "thought": SCRIPT, "answer": SCRIPT}
    page = transcript(**changed, text=f"{SCRIPT} {SCRIPT}", output_ids=range(3), fired=1, fired_at=(10,))._repr_html_()
    assert "<script" not in page and page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 6 and page.count("<u>") == 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ended": False, "status": "unclosed", "answer": ""}, "thought unclosed · 9 tokens · cut off"),
        ({"ended": False, "stopped": True}, "stopped by a trigger"),
        ({"output_ids": (), "prompt_ids": (), "fired": 0, "fired_at": ()}, "token ids not known"),
        ({"inserted": ((3, 6),)}, "; a trigger wrote output tokens 3–5"),
        ({"fired": 1, "fired_at": ()}, "steered at 1 token"),
        ({"thought": "", "answer": "", "text": "blig"}, "output blig"),
    ],
)
def test_how_it_ended_is_told(changed, told):
    assert told in shown(transcript(**changed)._repr_html_())
