"""Prompts and transcripts: what is refused when they are made, and that files give back what went in."""

import json
from pathlib import Path

import pytest
from PIL import Image
from thoughtlens.hooks import Prompt, Transcript, read_prompts, read_transcripts, write_prompts, write_transcripts
from tiny import tiny_image


def two(tmp: Path) -> list[Prompt]:
    tiny_image(3).save(tmp / "on_disk.png")
    first = Prompt("a", "what is this ?", (tiny_image(1), tiny_image(1)), meta={"object": "lock", "twin": None}, harmful=True, group="g")
    return [first, Prompt("b", "öffne\ndas", (tmp / "on_disk.png",), system="be kind")]


def test_prompts_come_back_as_they_were(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl", two(tmp_path))
    a, b = read_prompts(tmp_path / "prompts.jsonl")
    assert (a.id, a.text, a.meta, a.harmful, a.group) == ("a", "what is this ?", {"object": "lock", "twin": None}, True, "g")
    assert (b.text, b.system, b.harmful) == ("öffne\ndas", "be kind", None)
    assert Image.open(a.images[0]).tobytes() == tiny_image(1).tobytes()
    assert Image.open(b.images[0]).tobytes() == tiny_image(3).tobytes()


def test_one_picture_is_saved_once_and_named_relative_to_the_file(tmp_path: Path) -> None:
    write_prompts(tmp_path / "run" / "prompts.jsonl", two(tmp_path))
    assert len(list((tmp_path / "run" / "images").iterdir())) == 1
    row = json.loads((tmp_path / "run" / "prompts.jsonl").read_text().splitlines()[0])
    assert row["images"][0].startswith("images/")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert Image.open(read_prompts(tmp_path / "moved" / "prompts.jsonl")[0].images[1]).size == (56, 56)


def test_writing_twice_gives_the_same_bytes_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    once = write_prompts(file, two(tmp_path)).read_bytes()
    assert write_prompts(file, two(tmp_path)).read_bytes() == once
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(("id", "text"), [("", "hello"), (" ", "hello"), ("a", ""), ("a", " \n")])
def test_a_prompt_without_id_or_text_is_refused(id: str, text: str) -> None:
    with pytest.raises(ValueError, match="needs an id|has no text"):
        Prompt(id, text)


def test_what_cannot_be_written_or_read_says_why(tmp_path: Path) -> None:
    prompt = Prompt("a", "hello")
    with pytest.raises(ValueError, match="'a' occurs twice"):
        write_prompts(tmp_path / "p.jsonl", [prompt, prompt])
    with pytest.raises(TypeError, match="prompt 'a' cannot be written as JSON"):
        write_prompts(tmp_path / "p.jsonl", [Prompt("a", "hello", meta={"image": object()})])
    with pytest.raises(TypeError, match="is a PIL image or a path, got bytes"):
        Prompt("a", "hello", (b"png",))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"images= takes several. Write images=\(picture,\) for one"):
        Prompt("a", "hello", "picture.png")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_prompts(tmp_path / "absent.jsonl")
    for line, message in (
        ('{"id": "a"', "p.jsonl:1 is not JSON"),
        ('{"id": "a"}', "no field 'text'"),
        ('{"id": "a", "text": "b", "x": 1}', "field 'x'"),
        ("[1]", "is a list"),
    ):
        (tmp_path / "p.jsonl").write_text(line)
        with pytest.raises(ValueError, match=message):
            read_prompts(tmp_path / "p.jsonl")


def test_a_byte_order_mark_and_crlf_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "hello"}\r\n\r\n{"id": "b", "text": "there"}\r\n')
    assert [p.id for p in read_prompts(tmp_path / "p.jsonl")] == ["a", "b"]


def test_transcripts_come_back_joined_with_their_prompts(tmp_path: Path) -> None:
    prompts = two(tmp_path)
    written = [Transcript(p, "m", "steered", (1, 2), (3, 4), "<think> x", False, "unclosed", "x", "", 7) for p in prompts]
    write_transcripts(tmp_path / "t.jsonl", written)
    assert read_transcripts(tmp_path / "t.jsonl", prompts) == written
    with pytest.raises(ValueError, match="about prompt 'a', which is not among the 1 prompts"):
        read_transcripts(tmp_path / "t.jsonl", prompts[1:])
    (tmp_path / "t.jsonl").write_text('{"prompt_id": "a", "model": "m", "colour": "red"}')
    with pytest.raises(ValueError, match="t.jsonl:1 has the unknown field 'colour'; a transcript has model, condition"):
        read_transcripts(tmp_path / "t.jsonl", prompts)
    with pytest.raises(ValueError, match="unknown split status 'open'"):
        Transcript(prompts[0], "m", status="open")


def test_a_line_separator_inside_a_text_does_not_cut_the_line(tmp_path: Path) -> None:
    said = Prompt("a", "one\u2028two\x85three")
    assert read_prompts(write_prompts(tmp_path / "prompts.jsonl", [said])) == [said]
