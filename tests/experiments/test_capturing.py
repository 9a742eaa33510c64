"""From prompts to hidden states in one command: killed anywhere it ends with the same bytes, and bad input is named or left out, never lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments import capturing as generating
from thoughtlens.experiments import prompting as module
from thoughtlens.experiments.benchmarks import prompts as load_prompts
from thoughtlens.experiments.capturing import Asked, Captured, capturing, contents
from thoughtlens.hooks import (
    Prompt,
    Select,
    capture,
    generate,
    load,
    open_store,
    read_prompts,
    read_transcripts,
    write_prompts,
    write_transcripts,
)
from thoughtlens.hooks.files import locked
from thoughtlens.hooks.model import LensModel
from thoughtlens.hooks.records import read_skipped
from tiny import tiny_folder, tiny_image, tiny_lens, tiny_prompts, tiny_transcripts
from zoo import zoo_lens, zoo_prompts

WHERE = Select("resid_post", ["last_prompt", "answer", "answer_first"])
TINY = ("--spans", "last_prompt,answer,answer_first", "--max-new-tokens", "12", "--batch-size", "2", "--quiet")


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    file = write_prompts(tmp_path / "asked" / "prompts.jsonl", tiny_prompts(7))
    return Asked(WHERE, prompts=str(file), max_new_tokens=12, batch_size=2)


def started(out: Path, asked: Asked) -> Captured:
    return capturing(out, asked, tiny_lens, progress=False)


def refused(out: Path, asked: Asked) -> str:
    with pytest.raises(ValueError) as raised:
        started(out, asked)
    return str(raised.value)


def kept(run: Path) -> dict[str, bytes]:
    """Bytes of everything but the provenance, which carries the time."""
    files = [file for file in run.rglob("*") if file.is_file() and file.name != "provenance.json"]
    return {file.relative_to(run).as_posix(): file.read_bytes() for file in sorted(files)}


def command(*words: str | Path) -> subprocess.Popen[str]:
    code = "from thoughtlens.experiments.cli import main; main()"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, "capture", *map(str, words)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def test_it_is_generate_and_capture_on_the_shipped_model(tmp_path: Path) -> None:
    where = Select("resid_post", ["last_prompt", "thought", "thought@0.5"])
    lens = load(CHECKPOINTS / "reasoning", device="cpu")
    done = capturing(tmp_path / "run", Asked(where, limit=4, batch_size=2, max_new_tokens=100), lambda: lens, progress=False)
    prompts = load_prompts("organism", split="test")[:4]
    said = [t for i in (0, 2) for t in generate(lens, prompts[i : i + 2], max_new_tokens=100, progress=False)]
    assert [(t.id, t.output_ids, t.thought, t.status) for t in done.transcripts] == [
        (t.id, t.output_ids, t.thought, t.status) for t in said
    ]
    by_hand = capture(lens, said, where, into=tmp_path / "by_hand", progress=False)
    vectors, index = done.store.rows()
    assert torch.allclose(vectors, by_hand.rows()[0], atol=1e-5) and index["prompt_id"].tolist() == by_hand.index["prompt_id"].tolist()
    assert re.fullmatch(
        r"\S+/run/activations/reasoning: 10 rows of 6 sites, [\d.]+ kB; 4 prompts, 0 thoughts unclosed, 1 absent, 0 skipped; "
        r"wrote [\d,]+ tokens/s, read [\d,]+ tokens/s",
        str(done),
    ), str(done)


@pytest.mark.parametrize("family", ["llama", "qwen3_vl", "mllama", "gemma3"])
def test_any_family(family: str, tmp_path: Path) -> None:
    lens, prompts = zoo_lens(family), [replace(p, id=f"q{i}") for i, p in enumerate(zoo_prompts(family, 4))]
    prompts = [p for p in prompts if p.images] or prompts
    asked = Asked(Select("resid_post.0", "last_prompt"), str(write_prompts(tmp_path / "p.jsonl", prompts)), max_new_tokens=4, batch_size=9)
    done = capturing(tmp_path / "run", asked, lambda: lens, progress=False)
    assert [t.output_ids for t in done.transcripts] == [t.output_ids for t in generate(lens, prompts, max_new_tokens=4, progress=False)]
    assert len(done.store) == len(prompts)


def test_the_run_folder(tmp_path: Path, asked: Asked) -> None:
    done = started(tmp_path / "run", asked)
    config, made = (
        json.loads((tmp_path / "run" / "config.yaml").read_text()),
        json.loads((tmp_path / "run" / "provenance.json").read_text()),
    )
    assert config["fingerprint"] == tiny_lens().fingerprint and config["select"] == WHERE.to_dict() and "torch" in made["packages"]
    prompts = read_prompts(tmp_path / "run" / "prompts.jsonl")
    assert [p.id for p in prompts] == [f"p{i}" for i in range(7)] and prompts[1].images[0].is_file()
    assert read_transcripts(tmp_path / "run" / "transcripts" / f"{tiny_lens().name}.jsonl", prompts) == list(done.transcripts)
    assert done.store.path == tmp_path / "run" / "activations" / tiny_lens().name and read_skipped(tmp_path / "run" / "skipped.jsonl") == []
    told = dict(line.split(maxsplit=1) for line in contents(done.store.path))
    assert set(told) == {"store", "rows", "sites", "spans", "prompts", "model"}
    assert told["sites"] == "resid_post.0, resid_post.1, resid_post.2" and told["spans"].startswith("last_prompt 7, ")
    assert told["rows"] == f"{len(done.store)} of 3 sites, width 32, float32" and told["prompts"].startswith("7: ")


def test_a_second_start_runs_nothing(tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    started(tmp_path / "run", asked)
    once = kept(tmp_path / "run")
    monkeypatch.setattr(generating, "generate", None)
    monkeypatch.setattr(module, "encode", None)
    again = started(tmp_path / "run", asked)
    assert kept(tmp_path / "run") == once and again.speed == {} and str(again).endswith("; all of it was there")


def killed_at(step: int, out: Path, asked: Asked) -> bool:
    """Start in a forked process that is killed when it flushes to the disk for the `step`th time. Whether it was."""
    pid = os.fork()
    if pid == 0:
        left = step
        flush = os.fsync

        def counted(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            flush(descriptor)

        os.fsync = counted
        try:
            started(out, asked)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path, asked: Asked) -> None:
    started(tmp_path / "whole", asked)
    whole, step = kept(tmp_path / "whole"), 1
    while killed_at(step, tmp_path / f"killed{step}", asked):
        started(tmp_path / f"killed{step}", asked)
        assert kept(tmp_path / f"killed{step}") == whole, f"after the {step}th flush"
        step += 3
    assert step > 20  # prompts, pictures, four chunks, shards, index


def test_killed_again_and_again(tmp_path: Path, asked: Asked) -> None:
    started(tmp_path / "whole", asked)
    starts = 1
    while killed_at(8, tmp_path / "run", asked):
        starts += 1
    assert starts > 3 and kept(tmp_path / "run") == kept(tmp_path / "whole")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["ctrl-c", "kill -9"])
def test_a_process_that_is_ended_goes_on(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    file = write_prompts(tmp_path / "asked" / "prompts.jsonl", tiny_prompts(60))
    words = ("--model", tiny_folder(), "--prompts", file, *TINY, "--out", tmp_path / "run")
    written = tmp_path / "run" / "transcripts" / f"{tiny_folder().name}.jsonl"
    process = command(*words)
    while process.poll() is None and not (written.is_file() and written.read_bytes().count(b"\n") >= 6):
        time.sleep(0.01)
    process.send_signal(sent)
    out, error = process.communicate(timeout=60)
    assert process.returncode == code and out == "" and "Traceback" not in error
    assert 0 < written.read_bytes().count(b"\n") < 60 and not (tmp_path / "run" / "activations").exists()
    if sent == signal.SIGINT:
        assert error.splitlines() == ["interrupted; finished stages are kept, the same command goes on from there"]
    asked = Asked(WHERE, prompts=str(file), max_new_tokens=12, batch_size=2)
    capturing(tmp_path / "run", asked, lambda: load(tiny_folder()), progress=False)
    capturing(tmp_path / "whole", asked, lambda: load(tiny_folder()), progress=False)
    assert kept(tmp_path / "run") == kept(tmp_path / "whole")


def test_another_capture_is_not_touched(tmp_path: Path, asked: Asked) -> None:
    started(tmp_path / "run", asked)
    once = kept(tmp_path / "run")
    for change, told in (
        (replace(asked, max_new_tokens=13), "max_new_tokens is 12 there and 13 now (differing: max_new_tokens)"),
        (replace(asked, where=Select("mlp_out", "last_prompt")), "select is"),
        (replace(asked, prompts="organism"), "prompts is"),
        (replace(asked, limit=3, seed=1), "differing: limit, seed"),
    ):
        assert told in refused(tmp_path / "run", change)
    with pytest.raises(ValueError, match="differing: model, fingerprint"):
        capturing(tmp_path / "run", asked, lambda: tiny_lens(seed=1), progress=False)
    assert kept(tmp_path / "run") == once
    started(tmp_path / "run", replace(asked, on_error="skip", allow_empty=True))  # what is left out and how it is told is not a setting
    (tmp_path / "run" / "config.yaml").write_text('{"models": {}}')
    assert "the folder of something else" in refused(tmp_path / "run", asked)
    for foreign in ("foo: bar\n", "[1]", "", "caf\xe9: 1"):
        (tmp_path / "run" / "config.yaml").write_bytes(foreign.encode("latin-1"))
        assert "the folder of something else" in (told := refused(tmp_path / "run", asked)) and "--out" in told
    (tmp_path / "run" / "config.yaml").unlink()
    assert "holds prompts.jsonl, and no config.yaml of a capture" in refused(tmp_path / "run", asked)
    mine = Path(str(asked.prompts)).read_bytes()
    assert "holds prompts.jsonl" in refused(tmp_path / "asked", asked) and Path(str(asked.prompts)).read_bytes() == mine


def test_one_process_at_a_time(tmp_path: Path, asked: Asked) -> None:
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"), pytest.raises(BlockingIOError, match="writing into"):
        started(tmp_path / "run", asked)
    started(tmp_path / "run", asked)


def test_a_full_disk_keeps_what_was_written(tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    started(tmp_path / "whole", asked)
    append, calls = module.append_transcripts, []

    def full(path: Path, said: list) -> None:
        calls.append(path)
        if len(calls) == 3:
            append(path, said[:1])
            path.open("a").write('{"prompt_id": "p5", "mod')
            raise OSError(28, "No space left on device")
        append(path, said)

    monkeypatch.setattr(module, "append_transcripts", full)
    with pytest.raises(OSError, match="No space left"):
        started(tmp_path / "run", asked)
    started(tmp_path / "run", asked)
    assert kept(tmp_path / "run") == kept(tmp_path / "whole")


def spoiled(folder: Path) -> list[Prompt]:
    """One prompt that works, and one for each thing that can be wrong with one."""
    folder.mkdir()
    (folder / "corrupt.png").write_bytes(b"\x89PNG no picture")
    tiny_image(1).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:-200])
    Image.new("1", (10_000, 10_000)).save(folder / "huge.png")
    return [
        Prompt("fine", "open the box", (tiny_image(2),)),
        Prompt("missing", "look", (folder / "nowhere.png",)),
        Prompt("corrupt", "look", (folder / "corrupt.png",)),
        Prompt("cut", "look", (folder / "cut.png",)),
        Prompt("huge", "look", (folder / "huge.png",)),
        Prompt("long", "open " * 300),
        Prompt("nearly", "open " * 242),
        Prompt("lengthy", "look", (folder / f"{'a' * 300}.png",)),
        Prompt("placeholder", "look <|image_pad|> here"),
        Prompt("too", "close the lock"),
    ]


BAD_PROMPTS = {
    "missing": "nowhere.png",
    "corrupt": "cannot be read",
    "cut": "cannot be read",
    "huge": "megapixels",
    "long": "the context of",
    "nearly": "up to 12 are to be written",
    "lengthy": "prompt 'lengthy': ",
    "placeholder": "placeholder",
}
BAD_LINES = (
    b'{"id": "empty", "text": ""}',
    b'{"id": "fine", "text": "again"}',
    b'{"id": "latin", "text": "caf\xe9"}',
    b'{"id": "half',
)


def test_bad_prompts_are_all_named_and_nothing_is_begun(tmp_path: Path, asked: Asked) -> None:
    file = write_prompts(tmp_path / "p.jsonl", spoiled(tmp_path / "bad"))
    told = refused(tmp_path / "run", replace(asked, prompts=str(file)))
    assert told.startswith(f"{len(BAD_PROMPTS)} prompts cannot be used: ") and "--on-error skip" in told and "\n" not in told
    assert all(f"{prompt!r}" in told and words in told for prompt, words in BAD_PROMPTS.items())
    assert kept(tmp_path / "run") == {}


def test_bad_lines_are_named_before_the_model_is_loaded(tmp_path: Path, asked: Asked) -> None:
    file = write_prompts(tmp_path / "p.jsonl", [Prompt("fine", "open")])
    file.write_bytes(file.read_bytes() + b"\n".join(BAD_LINES))
    with pytest.raises(ValueError) as raised:
        capturing(tmp_path / "run", replace(asked, prompts=str(file)), lambda: pytest.fail("loaded"), progress=False)
    assert all(f"{file}:{number}: " in str(raised.value) for number in (2, 3, 4, 5))


def test_bad_input_is_left_out_when_asked(tmp_path: Path, asked: Asked) -> None:
    file = write_prompts(tmp_path / "p.jsonl", spoiled(tmp_path / "bad"))
    file.write_bytes(file.read_bytes() + b"\n".join(BAD_LINES))
    asked = replace(asked, prompts=str(file), on_error="skip")
    done = started(tmp_path / "run", asked)
    assert [t.id for t in done.transcripts] == ["fine", "too"] and f", {len(BAD_PROMPTS) + len(BAD_LINES)} skipped;" in str(done)
    rows = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert {row["prompt_id"]: row["line"] for row in rows if row["line"]} == {"empty": 11, "fine": 12, None: 14}
    assert [row["line"] for row in rows if row["line"]] == [11, 12, 13, 14]
    assert {row["prompt_id"] for row in rows if not row["line"]} == set(BAD_PROMPTS)
    assert all(BAD_PROMPTS[row["prompt_id"]] in row["error"] for row in rows if not row["line"])
    alone = write_prompts(tmp_path / "q.jsonl", [p for p in read_prompts(tmp_path / "run" / "prompts.jsonl")])
    clean = started(tmp_path / "clean", replace(asked, prompts=str(alone)))
    assert torch.equal(done.store.rows()[0], clean.store.rows()[0])
    assert "2 prompts" in str(started(tmp_path / "run", asked))
    with pytest.raises(ValueError, match="cannot be used"):  # said to be skipped is not said to be fine
        started(tmp_path / "run", replace(asked, on_error="raise"))


def test_nothing_usable_is_an_error_even_when_skipping(tmp_path: Path, asked: Asked) -> None:
    file = write_prompts(tmp_path / "p.jsonl", [Prompt("long", "open " * 300)])
    assert "1 prompt cannot be used: prompt 'long'" in refused(tmp_path / "run", replace(asked, prompts=str(file), on_error="skip"))
    file.write_text("")
    assert "is empty" in refused(tmp_path / "run", replace(asked, prompts=str(file)))
    file.write_text("nonsense")
    assert "not JSON" in refused(tmp_path / "run", replace(asked, prompts=str(file), on_error="skip"))


def test_a_picture_that_vanishes_loses_nothing(tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    started(tmp_path / "whole", asked)
    picture = next((tmp_path / "asked" / "images").iterdir())
    away = picture.with_suffix(".away")
    append, vanished = module.append_transcripts, []

    def vanishing(path: Path, said: list) -> None:
        append(path, said)
        for file in (tmp_path / "asked" / "images").glob("*.png"):
            vanished.append((file, file.rename(file.with_suffix(".away"))))

    monkeypatch.setattr(module, "append_transcripts", vanishing)
    with pytest.raises((ValueError, OSError), match="p3"):
        started(tmp_path / "run", asked)
    monkeypatch.undo()
    for file, away in vanished:
        away.rename(file)
    started(tmp_path / "run", asked)
    assert kept(tmp_path / "run") == kept(tmp_path / "whole")


def test_split_limit_and_seed_choose_prompts(tmp_path: Path, asked: Asked) -> None:
    def ids(**change: object) -> list[str]:
        return [p.id for p in module.read(replace(asked, **change)).prompts]

    assert ids(split="train") == ["p0", "p3", "p6"] and ids(limit=2) == ["p0", "p1"] and ids(limit=99) == ids()
    drawn = [ids(limit=3, seed=seed) for seed in range(20)]
    assert all(len(one) == 3 and one == sorted(one) for one in drawn) and len({tuple(one) for one in drawn}) > 5
    assert drawn[3] == ids(limit=3, seed=3)
    assert ids(prompts="organism", limit=8) == [p.id for p in load_prompts("organism", split="test", limit=4)]
    assert ids(prompts="organism", split="dev", limit=1)[0].startswith("organism/dev/")
    with pytest.raises(ValueError, match="no prompt of the split 'night'; its splits are 'dev', 'test', 'train'"):
        ids(split="night")
    with pytest.raises(FileNotFoundError, match="no file of prompts organsim, and no benchmark of that name; known are organism"):
        ids(prompts="organsim")
    for name in ("limit", "batch_size", "max_new_tokens"):
        with pytest.raises(ValueError, match=f"{name} is at least 1, got 0"):
            replace(asked, **{name: 0})


@pytest.fixture
def other() -> Callable[[], LensModel]:
    return lambda: tiny_lens(seed=1)


def test_transcripts_of_one_model_are_read_in_another(tmp_path: Path, asked: Asked, other: Callable[[], LensModel]) -> None:
    first = started(tmp_path / "first", asked)
    file = tmp_path / "first" / "transcripts" / f"{tiny_lens().name}.jsonl"
    done = capturing(tmp_path / "second", Asked(WHERE, transcripts=file), other, progress=False)
    assert [(t.id, t.output_ids, t.model) for t in done.transcripts] == [(t.id, t.output_ids, tiny_lens().name) for t in first.transcripts]
    assert done.store.index["ids_sha"].tolist() == first.store.index["ids_sha"].tolist() and set(done.speed) == {"read"}
    assert not torch.equal(done.store.rows()[0], first.store.rows()[0])
    assert (tmp_path / "second" / "transcripts" / file.name).read_bytes() == file.read_bytes()
    assert open_store(tmp_path / "second" / "activations" / other().name).index["model"].unique().tolist() == [other().name]
    fewer = capturing(tmp_path / "third", Asked(WHERE, transcripts=file, split="train", limit=2), other, progress=False)
    assert [t.id for t in fewer.transcripts] == ["p0", "p3"]


def test_transcripts_that_do_not_fit_are_named_or_left_out(tmp_path: Path, other: Callable[[], LensModel]) -> None:
    said = tiny_transcripts(tiny_lens(), tiny_prompts(5))
    write_prompts(tmp_path / "run" / "prompts.jsonl", [t.prompt for t in said])
    other_words = replace(said[1], prompt_ids=said[1].prompt_ids[:-1])
    none = replace(said[2], prompt_ids=())
    file = write_transcripts(tmp_path / "run" / "transcripts" / "m.jsonl", [said[0], other_words, none, said[3]])
    file.write_text(file.read_text() + '{"prompt_id": "stranger", "model": "m"}\n{"prompt_id": "p4", "mod')
    asked = Asked(WHERE, transcripts=file)
    with pytest.raises(ValueError, match=r"m.jsonl:5: about prompt 'stranger'.*m.jsonl:6: not JSON"):
        capturing(tmp_path / "out", asked, other, progress=False)
    done = capturing(tmp_path / "out", replace(asked, on_error="skip"), other, progress=False)
    assert [t.id for t in done.transcripts] == ["p0", "p3"]
    assert [(one.prompt_id, one.line) for one in done.skipped] == [("stranger", 5), (None, 6), ("p1", None), ("p2", None)]
    assert "the tokenizer, the chat template or the pictures differ" in done.skipped[2].error


@pytest.mark.parametrize("after", ["all of it", "the first chunk"])
def test_a_picture_changed_since_is_another_setting(after: str, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    if after == "the first chunk":
        monkeypatch.setattr(module, "append_transcripts", lambda *_: (_ for _ in ()).throw(OSError("the plug was pulled")))
        with pytest.raises(OSError, match="plug"):
            started(tmp_path / "run", asked)
        monkeypatch.undo()
    else:
        started(tmp_path / "run", asked)
    once, picture = kept(tmp_path / "run"), next((tmp_path / "asked" / "images").iterdir())
    seen = picture.read_bytes()
    with Image.open(picture) as image:
        size = image.size
    Image.new("RGB", size, "red").save(picture)
    told = refused(tmp_path / "run", asked)
    assert "a picture of its prompts was changed" in told and "(differing: pictures)" in told and "--out" in told
    assert kept(tmp_path / "run") == once
    picture.write_bytes(seen)
    started(tmp_path / "run", asked)


def test_what_is_read_is_corrected_in_the_same_folder(tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    started(tmp_path / "whole", asked)
    wrong = replace(asked, where=Select("resid_post", ["last_prompt", "step_end[99]"]))
    told = refused(tmp_path / "run", wrong)
    assert 'span "step_end[99]" is empty in all 7 transcripts' in told and "--spans" in told and "--allow-empty" in told
    assert "allow_empty=" not in told and "transcripts are kept" in told and not (tmp_path / "run" / "activations").exists()
    alone = refused(tmp_path / "run", replace(wrong, where=Select("resid_post", "step_end[99]"), allow_empty=True))
    assert "is empty in all 7" in alone and "--allow-empty" not in alone  # there would be nothing left
    monkeypatch.setattr(generating, "generate", None)
    started(tmp_path / "run", asked)
    assert kept(tmp_path / "run") == kept(tmp_path / "whole")
    assert "differing: select" in refused(tmp_path / "run", wrong)


def test_a_span_nobody_has_is_left_out_when_asked(tmp_path: Path, asked: Asked) -> None:
    wrong = replace(asked, where=Select("resid_post", ["last_prompt", "step_end[99]"]))
    refused(tmp_path / "run", wrong)
    assert set(started(tmp_path / "run", replace(wrong, allow_empty=True)).store.index["span"]) == {"last_prompt"}


def test_sites_that_cannot_be_read_are_found_before_anything_is_written(tmp_path: Path, asked: Asked) -> None:
    assert "resid_post.77" in refused(tmp_path / "run", replace(asked, where=Select("resid_post.77", "last_prompt")))
    lens, prompts = zoo_lens("mllama"), [Prompt("bare", "open the box")]
    file = write_prompts(tmp_path / "p.jsonl", prompts)
    crossing = Asked(Select("cross_attn_out", "last_prompt"), str(file), max_new_tokens=2)
    with pytest.raises(ValueError, match="cross"):
        capturing(tmp_path / "run", crossing, lambda: lens, progress=False)
    assert not (tmp_path / "run").exists()


def test_transcripts_named_from_their_own_folder_find_their_prompts(
    tmp_path: Path, asked: Asked, other: Callable[[], LensModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    started(tmp_path / "first", asked)
    monkeypatch.chdir(tmp_path / "first" / "transcripts")
    done = capturing(tmp_path / "out", Asked(WHERE, transcripts=Path(f"{tiny_lens().name}.jsonl")), other, progress=False)
    assert len(done.transcripts) == 7


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_runs_out_while_the_model_answers(
    error: Exception, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(generating, "generate", full)
    with pytest.raises(MemoryError, match="2 prompts were answered at a time. Use a smaller --batch-size in a new folder"):
        started(tmp_path / "run", asked)
    monkeypatch.setattr(generating, "generate", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        started(tmp_path / "run", asked)
