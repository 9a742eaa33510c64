"""Generation over an endpoint: every prompt comes back once and in order, as what was said or as what went wrong."""

from __future__ import annotations

import base64
import dataclasses
import io
import logging
from pathlib import Path

import pytest
from fake_endpoint import DROPS, FOREVER, Answer, Body, fake, question, says
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from thoughtlens.experiments.audit.asking import ask, messages_of, transcript_of
from thoughtlens.experiments.audit.endpoint import Cost, Reply
from thoughtlens.hooks.dialects import DIALECTS
from thoughtlens.hooks.encode import PromptError
from thoughtlens.hooks.plaintext import PlainSplit, split_text
from thoughtlens.hooks.records import Prompt, Skipped, Transcript, read_transcripts, write_transcripts

WUG = Prompt("p", "florp the wug")


def prompts(n: int) -> list[Prompt]:
    return [Prompt(f"p{i}", f"florp {i} wugs", system="be kind" if i == 1 else None) for i in range(n)]


def parts(transcript: Transcript) -> PlainSplit:
    return PlainSplit(transcript.status, transcript.thought, transcript.answer)


def picture_of(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))


def test_every_prompt_comes_back_in_order_and_a_failure_is_no_transcript() -> None:
    def answer(body: Body) -> Answer:
        which = question(body).split()[1]
        return DROPS if which == "2" else dataclasses.replace(says(f"<think>hm</think>{which}"), wait=0.03 if which == "0" else 0.0)

    cost, order = Cost(), []
    with fake(answer) as server:
        found = list(
            ask(
                server.endpoint(concurrency=2, retries=1),
                prompts(5),
                name="wug",
                dialect="think",
                condition="hosted",
                max_new_tokens=77,
                temperature=0.5,
                seed=4,
                cost=cost,
                each=lambda one: order.append(one.prompt_id if isinstance(one, Skipped) else one.id),
            )
        )
        one = next(body for body in server.asked if question(body) == "florp 1 wugs")
        assert one["messages"][0] == {"role": "system", "content": "be kind"} and len(server.asked) == 6
        assert (one["max_tokens"], one["temperature"], one["seed"]) == (77, 0.5, 4)
    assert [one.prompt_id if isinstance(one, Skipped) else one.id for one in found] == [f"p{i}" for i in range(5)]
    lost = found.pop(2)
    assert isinstance(lost, Skipped) and lost.line is None and "tried 2 times" in lost.error and server.url in lost.error
    assert sorted(order) == [f"p{i}" for i in range(5)] and order != sorted(order)
    for i, said in zip((0, 1, 3, 4), found, strict=True):
        assert said == Transcript(
            prompts(5)[i], "wug", "hosted", text=f"<think>hm</think>{i}", ended=True, status="closed", thought="hm", answer=str(i)
        )
    assert (cost.calls, cost.failed, cost.tokens_out) == (4, 1, 12)


def test_what_each_is_given_survives_a_stop() -> None:
    kept: list[str] = []
    with fake(lambda body: dataclasses.replace(says("hi"), wait=FOREVER if "florp 0" in question(body) else 0.0)) as server:

        def each(one: Transcript | Skipped) -> None:
            kept.append(one.id if isinstance(one, Transcript) else "")
            if len(kept) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):  # the first prompt hangs, so nothing was yielded yet
            next(ask(server.endpoint(concurrency=2), prompts(4), name="wug", dialect="think", each=each))
    assert kept == ["p1", "p2", "p3"]


@pytest.mark.parametrize(
    ("reply", "opened", "status", "thought", "answer"),
    [
        (Reply("yes", "hm"), False, "closed", "hm", "yes"),
        (Reply("yes", "hm"), True, "closed", "hm", "yes"),
        (Reply("", "hm", finished=False), False, "unclosed", "hm", ""),
        (Reply("\n", "hm", finished=False), True, "unclosed", "hm", ""),
        (Reply("ye", "hm", finished=False), False, "closed", "hm", "ye"),
        (Reply("", "hm"), False, "closed", "hm", ""),
        (Reply("<think>hm</think>yes"), False, "closed", "hm", "yes"),
        (Reply("hm</think>yes"), True, "closed", "hm", "yes"),
        (Reply("<think>h", finished=False), False, "unclosed", "h", ""),
        (Reply("h", finished=False), True, "unclosed", "h", ""),
        (Reply("yes", " \n"), False, "absent", "", "yes"),
        (Reply("y</think>es", "hm"), False, "multiple", "hm", "y</think>es"),
    ],
)
def test_thoughts_come_parted_or_in_the_text(reply: Reply, opened: bool, status: str, thought: str, answer: str) -> None:
    said = transcript_of(WUG, reply, name="wug", dialect="think", opened=opened)
    assert parts(said) == split_text(said.text, "think", opened) == PlainSplit(status, thought, answer)
    assert said.ended is reply.finished and said.prompt_ids == said.output_ids == ()
    assert reply.reasoning.strip() or said.text == reply.text


PLAIN = st.text(st.characters(exclude_characters="<>[]◁▷|#", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(PLAIN, PLAIN, st.sampled_from(list(DIALECTS)), st.booleans())
def test_a_parted_thought_is_written_so_that_it_parts_again(thought: str, answer: str, dialect: str, opened: bool) -> None:
    said = transcript_of(WUG, Reply(answer, thought), name="wug", dialect=dialect, opened=opened)
    writes = dialect if DIALECTS[dialect].open else "think"
    assert parts(said) == split_text(said.text, writes, opened) == PlainSplit("closed", thought.strip(), answer.strip())
    assert thought in said.text and answer in said.text


def test_tags_of_the_dialect_are_no_words_of_a_parted_answer() -> None:
    said = transcript_of(WUG, Reply("<answer>yes</answer>", "hm"), name="wug", dialect="think_answer")
    assert (said.status, said.answer) == ("closed", "yes") and "<answer>yes</answer>" in said.text


@pytest.mark.parametrize(("text", "finished", "status"), [("yes", True, "multiple"), ("", False, "unclosed")])
def test_a_parted_thought_about_markers_stays_whole(text: str, finished: bool, status: str) -> None:
    said = transcript_of(WUG, Reply(text, "it ends in </think>, then", finished), name="wug", dialect="think")
    assert parts(said) == PlainSplit(status, "it ends in </think>, then", text)


def test_what_was_written_can_be_kept_and_read(tmp_path: Path) -> None:
    with fake(says("half \ud800", reasoning="\U0001f600 hm")) as server:
        found = list(ask(server.endpoint(), [WUG], name="wug", dialect="think"))
    assert read_transcripts(write_transcripts(tmp_path / "t.jsonl", found), [WUG]) == found  # type: ignore[arg-type]


def test_pictures_go_before_the_text_as_the_local_model_sees_them(tmp_path: Path) -> None:
    turned, clear = Image.new("RGB", (3, 2), "red"), Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned.save(tmp_path / "turned.jpg", exif=exif)
    images = (tmp_path / "turned.jpg", clear, Image.new("P", (4, 1)), Image.new("L", (1, 5), 7), Image.new("I;16", (1, 1), 65535))
    (message,) = messages_of(dataclasses.replace(WUG, images=images))
    *shown, text = message["content"]
    assert text == {"type": "text", "text": "florp the wug"} and {part["type"] for part in shown} == {"image_url"}
    seen = [picture_of(part["image_url"]["url"]) for part in shown]
    assert [(one.format, one.mode, one.size) for one in seen] == [("PNG", "RGB", size) for size in ((2, 3), (2, 2), (4, 1), (1, 5), (1, 1))]
    assert seen[1].getpixel((0, 0)) == seen[4].getpixel((0, 0)) == (255, 255, 255) and seen[3].getpixel((0, 0)) == (7, 7, 7)
    assert messages_of(WUG) == [{"role": "user", "content": "florp the wug"}]


def test_a_picture_that_cannot_be_sent_loses_its_prompt_alone(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    noise = Image.effect_noise((64, 64), 50)
    asked = [WUG, *(Prompt(f"q{i}", "see", images=(one,)) for i, one in enumerate((tmp_path / "bad.png", tmp_path / "none.png", noise)))]
    with fake(says("hi")) as server:
        found = list(ask(server.endpoint(), asked, name="wug", dialect="think", max_picture=2_000))
        assert len(server.asked) == 1 and isinstance(found[0], Transcript)
    whys = [one.error for one in found[1:] if isinstance(one, Skipped)]
    assert "'q0'" in whys[0] and "cannot be read" in whys[0] and "none.png" in whys[1]
    assert "'q2' has" in whys[2] and "more than 2,000 (max_picture). Make it smaller." in whys[2]
    with pytest.raises(PromptError):
        messages_of(asked[3], 2_000)


def test_outputs_that_begin_inside_the_thought_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    def answer(body: Body) -> Answer:
        return says("hm, so", finish="length") if "florp 0" in question(body) else says("hm</think>yes")

    with fake(answer) as server, caplog.at_level(logging.WARNING):
        list(ask(server.endpoint(), prompts(3), name="wug", dialect="think", opened=True))
        assert not caplog.records
        list(ask(server.endpoint(), prompts(3)[1:], name="wug", dialect="think"))
        assert not caplog.records
        list(ask(server.endpoint(), prompts(3), name="wug", dialect="think"))
    assert "2 outputs of wug close a thought that they never opened, and 1 were cut off" in caplog.text and "opened=True" in caplog.text


def test_mistakes_are_told_before_anything_is_asked() -> None:
    with fake(says("hi")) as server:
        with pytest.raises(ValueError, match="unknown dialect 'klingon'"):
            ask(server.endpoint(), [WUG], name="wug", dialect="klingon")
        with pytest.raises(ValueError, match="max_new_tokens=0 must be at least 1"):
            ask(server.endpoint(), [WUG], name="wug", dialect="think", max_new_tokens=0)
        assert list(ask(server.endpoint(), [], name="wug", dialect="think")) == [] and not server.asked
