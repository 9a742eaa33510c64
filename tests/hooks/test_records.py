"""Prompts and transcripts: what is refused when they are made, and that files give back what went in."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from thoughtlens.hooks import Prompt, Transcript, read_prompts, read_transcripts, write_prompts, write_transcripts
from thoughtlens.hooks.files import DiskFull
from thoughtlens.hooks.records import Skipped, append_transcripts, cut_transcripts, read_skipped, write_skipped
from tiny import tiny_image

GOOD = '{"id": "good", "text": "hello"}'
BAD_LINES = {
    '{"id": "a"': "not JSON",
    '{"id": "a"}': "no field 'text'",
    '{"id": "a", "text": "b", "x": 1}': "unknown field 'x'",
    "[1]": "a list, not an object",
    '{"id": "a", "text": " "}': "'a' has no text",
    '{"id": "", "text": "b"}': "needs an id",
    '{"id": 7, "text": "b"}': "needs an id",
    '{"id": "a", "text": "b", "images": "cat.png"}': "images is a list of paths, got 'cat.png'",
    '{"id": "a", "text": "b", "images": [3]}': "images is a list of paths",
    '{"id": "a", "text": "b", "harmful": "no"}': "'a': harmful is True, False or None, got 'no'",
    '{"id": "a", "text": "b", "group": 3}': "'a': group is text, got 3",
    '{"id": "a", "text": "b", "meta": [1]}': "'a': meta is a mapping",
    '{"id": "a", "text": "b \\ud83d"}': "half a surrogate pair",
    GOOD: "the id 'good' occurs twice, first in line 1",
    b'{"id": "a", "text": "caf\xe9"}': "not UTF-8: byte 0xe9 at byte 25",
}


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


@pytest.mark.parametrize("line", BAD_LINES, ids=str)
def test_a_bad_line_is_named_by_file_and_number_or_noted(line: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes(f"{GOOD}\n\n".encode() + (line if isinstance(line, bytes) else line.encode()) + b'\n{"id": "last", "text": "bye"}\n')
    with pytest.raises(ValueError) as raised:
        read_prompts(file)
    assert str(raised.value).startswith(f"{file}:3: ") and BAD_LINES[line] in str(raised.value)
    skipped: list[Skipped] = []
    assert [p.id for p in read_prompts(file, skipped=skipped)] == ["good", "last"]
    assert [(one.line, BAD_LINES[line] in one.error) for one in skipped] == [(3, True)]
    write_skipped(tmp_path / "skipped.jsonl", skipped)
    assert read_skipped(tmp_path / "skipped.jsonl") == skipped


def test_a_skipped_line_keeps_the_id_it_gave(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "a"}\nnonsense\n{"id": 3, "text": "b"}')
    skipped: list[Skipped] = []
    assert read_prompts(tmp_path / "p.jsonl", skipped=skipped) == []
    assert [(one.prompt_id, one.line) for one in skipped] == [("a", 1), (None, 2), (None, 3)]


HALF = "\ud800"
HALVED = {
    **{name: HALF for name in ("id", "text", "system", "goal", "category", "attack", "group", "benchmark", "split", HALF)},
    "images": [f"{HALF}.png"],
    "meta": {"a": [{"b": HALF}]},
}


@pytest.mark.parametrize("field", HALVED, ids=ascii)
def test_half_a_character_anywhere_in_a_row_is_named_or_noted(field: str, tmp_path: Path) -> None:
    row = {"id": "a", "text": "hello", field: HALVED[field]}
    file = tmp_path / "p.jsonl"
    file.write_text(f"{GOOD}\n{json.dumps(row)}\n")
    with pytest.raises(ValueError, match=r"p\.jsonl:2: .* holds half a surrogate pair, no character. Decode the text again") as raised:
        read_prompts(file)
    assert str(raised.value).isascii() and field.encode("unicode_escape").decode() in str(raised.value)
    skipped: list[Skipped] = []
    assert [p.id for p in read_prompts(file, skipped=skipped)] == ["good"]
    write_skipped(tmp_path / "skipped.jsonl", skipped)
    assert read_skipped(tmp_path / "skipped.jsonl") == skipped == [Skipped(None if field == "id" else "a", 2, str(raised.value))]
    if field != HALF:
        with pytest.raises(ValueError, match=rf"prompt .*: its {field} holds half a surrogate pair"):
            Prompt(**row)  # type: ignore[arg-type]


def test_half_a_character_in_a_transcript_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"prompt_id": "a", "model": "m", "thought": f"so {HALF}"}))
    with pytest.raises(ValueError, match=r"t\.jsonl:1: thought holds half a surrogate pair"):
        read_transcripts(tmp_path / "t.jsonl", [Prompt("a", "x")])


@pytest.mark.parametrize("depth", [200, 400, 800, 2000, 100_000])
def test_what_is_nested_too_deeply_is_named_and_the_rest_can_be_written_again(depth: int, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(f'{GOOD}\n{{"id": "a", "text": "b", "meta": {{"x": {"[" * depth}{"]" * depth}}}}}\n')
    skipped: list[Skipped] = []
    write_prompts(tmp_path / "again.jsonl", read_prompts(file, skipped=skipped))
    if depth >= 2000:
        with pytest.raises(ValueError, match=r"p\.jsonl:2: nested too deeply"):
            read_prompts(file)
        assert [(one.line, "nested too deeply" in one.error) for one in skipped] == [(2, True)]
        (tmp_path / "t.jsonl").write_text(f'{{"prompt_id": {"[" * depth}{"]" * depth}}}\n')
        with pytest.raises(ValueError, match=r"t\.jsonl:1 is about prompt None"):
            cut_transcripts(tmp_path / "t.jsonl", [["a"]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F", "HSV"])
def test_a_picture_of_any_mode_can_be_written(mode: str, tmp_path: Path) -> None:
    picture = Image.new("L", (4, 4), 200) if mode in ("I;16", "F") else tiny_image(1, (4, 4))
    prompt = Prompt("a", "look", (picture.convert(mode),))
    (back,) = read_prompts(write_prompts(tmp_path / "p.jsonl", [prompt]))
    assert Image.open(back.images[0]).size == (4, 4)


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
    with pytest.raises(ValueError, match="t.jsonl:1: unknown field 'colour'; a transcript has model, condition"):
        read_transcripts(tmp_path / "t.jsonl", prompts)
    with pytest.raises(ValueError, match="unknown split status 'open'"):
        Transcript(prompts[0], "m", status="open")


def test_a_bad_transcript_line_is_named_or_noted(tmp_path: Path) -> None:
    prompts = [Prompt("a", "x"), Prompt("b", "y")]
    good = '{"prompt_id": "a", "model": "m", "prompt_ids": [1]}'
    for line, message in (
        ('{"prompt_id": "z", "model": "m"}', "about prompt 'z'"),
        ('{"prompt_id": ["a"], "model": "m"}', "unhashable"),
        ('{"prompt_id": "b"}', "no field 'model'"),
        ('{"prompt_id": "b", "model": "m", "output_ids": "abc"}', "output_ids is a list of whole numbers, got 'abc'"),
        ('{"prompt_id": "b", "model": "m", "status": "open"}', "unknown split status"),
        (good, "the id 'a' occurs twice"),
    ):
        (tmp_path / "t.jsonl").write_text(f"{good}\n{line}\n")
        with pytest.raises(ValueError, match=r"t\.jsonl:2: "):
            read_transcripts(tmp_path / "t.jsonl", prompts)
        skipped: list[Skipped] = []
        assert [t.id for t in read_transcripts(tmp_path / "t.jsonl", prompts, skipped=skipped)] == ["a"]
        assert skipped[0].line == 2 and message in skipped[0].error


CHUNKS = (("a", "b"), ("c",), ("d", "e", "ü"))


def said(ids: tuple[str, ...]) -> list[Transcript]:
    return [Transcript(Prompt(one, "x"), "m", prompt_ids=(1, 2), output_ids=(3,), text=f"öne\n{one}") for one in ids]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("grown") / "transcripts" / "m.jsonl"
    for chunk in CHUNKS:
        append_transcripts(file, said(chunk))
    return file


def test_appended_in_chunks_is_written_at_once(grown: Path, tmp_path: Path) -> None:
    whole = write_transcripts(tmp_path / "t.jsonl", said(sum(CHUNKS, ())))
    assert whole.read_bytes() == grown.read_bytes()


@given(data=st.data())
def test_a_file_killed_at_any_byte_goes_on_to_the_same_bytes(data: st.DataObject, grown: Path) -> None:
    whole = grown.read_bytes()
    size = data.draw(st.integers(0, len(whole)))
    file = Path(shutil.copy(grown, grown.with_name(f"{size}.jsonl")))
    os.truncate(file, size)
    done = cut_transcripts(file, CHUNKS)
    ends = [len(b"".join(line + b"\n" for line in whole.split(b"\n")[:count])) for count in (0, 2, 3, 6)]
    assert done == max(number for number, end in enumerate(ends) if end <= size) and file.stat().st_size == ends[done]
    assert cut_transcripts(file, CHUNKS) == done
    for chunk in CHUNKS[done:]:
        append_transcripts(file, said(chunk))
    assert file.read_bytes() == whole


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=r"the disk is full: [\d,]+ bytes of transcripts do not fit into .*t\.jsonl"):
        append_transcripts(tmp_path / "t.jsonl", said(("a",)))


def test_a_file_of_something_else_is_not_cut(grown: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(grown, tmp_path / "t.jsonl"))
    assert cut_transcripts(tmp_path / "absent.jsonl", CHUNKS) == 0
    for chunks, told in (
        ((("b", "a"), ("c",)), "t.jsonl:1 is about prompt 'a', where 'b'"),
        ((("a", "b"),), "t.jsonl:3 is about prompt 'c', where nothing more"),
    ):
        with pytest.raises(ValueError, match=told):
            cut_transcripts(file, chunks)
    file.write_text('{"prompt_id": "a", "model": "m"}\nno JSON\n{"prompt_id": "c", "model": "m"}\n')
    with pytest.raises(ValueError, match="t.jsonl:2 is about prompt None, where 'b'"):
        cut_transcripts(file, CHUNKS)
    assert file.read_text().count("\n") == 3


def test_a_line_separator_inside_a_text_does_not_cut_the_line(tmp_path: Path) -> None:
    said = Prompt("a", "one\u2028two\x85three")
    assert read_prompts(write_prompts(tmp_path / "prompts.jsonl", [said])) == [said]
