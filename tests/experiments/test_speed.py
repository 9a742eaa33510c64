"""The benchmark measures what it says: same numbers before the clock starts, conditions in turns, memory and ratios against known answers."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thoughtlens.experiments import probe_speed, speed
from thoughtlens.experiments.speed_tables import Measured, capture_tables, markdown, write_part
from thoughtlens.experiments.workload import EVERY, MEANS, Shape, forwards, jobs, subject, transcripts_for
from thoughtlens.hooks import LensModel, encode, open_store, split
from torch import Tensor

TOY = Shape("toy", 32, 3, 4, batch=2, tokens=48, batches=2, rounds=6, pictures=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lens() -> LensModel:
    return subject(TOY, CPU)


def test_the_whole_of_it_on_a_toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(speed, "SHAPES", {"cpu": (TOY, TOY)})
    monkeypatch.setattr(speed, "PEAKS", (("span means", None),))
    monkeypatch.setattr(speed, "STORE_BYTES", 2**20)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measured = speed.bench_capture("cpu", out=tmp_path / "docs" / "speed.md", into=tmp_path / "bench", progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert list((tmp_path / "bench").iterdir()) == []
    told = measured.speed[measured.speed.kind == "forward"].condition.unique().tolist()
    assert told == ["plain", "output_hidden_states", "span means", "nnsight", "TransformerLens"]
    assert measured.speed[measured.speed.kind == "job"].condition.unique().tolist() == ["plain", "span means", "every token to disk"]
    assert (measured.speed[measured.speed.condition == "plain"].ratio == 1).all()
    assert measured.memory.megabytes.item() > 0
    page = (tmp_path / "docs" / "speed.md").read_text()
    assert page.startswith("# How fast it is\n\n<!-- thoughtlens bench capture -->\n## What reading hidden states costs")
    assert str(TOY) in page and "at most 1.05" in page
    assert "times plain" in capsys.readouterr().out


def test_no_shapes_for_a_device() -> None:
    with pytest.raises(ValueError, match="no shapes are chosen for the device 'meta'; there are some for cpu, cuda"):
        speed.bench_capture("meta")


def test_transcripts_are_as_long_as_they_say_and_every_second_has_a_picture(lens: LensModel) -> None:
    made = transcripts_for(lens, TOY, 4)
    for number, transcript in enumerate(made):
        assert len(transcript.prompt_ids) + len(transcript.output_ids) == TOY.tokens
        assert split(transcript.output_ids, lens.markers).status == "closed"
        assert len(transcript.prompt.images) == number % 2
        assert tuple(encode(lens, [transcript.prompt]).ids[0]) == transcript.prompt_ids


def test_jobs_leave_what_they_say(lens: LensModel, tmp_path: Path) -> None:
    transcripts = transcripts_for(lens, TOY, 4)
    for condition, where, rows in (("span means", MEANS, 4 * 3), ("every token to disk", EVERY, 4 * TOY.tokens)):
        jobs(lens, TOY, transcripts, tmp_path)[condition]()
        (folder,) = tmp_path.iterdir()
        store = open_store(folder)
        assert len(store) == rows and store.sites == [f"resid_post.{i}" for i in range(TOY.layers)]
        assert store.meta["select"] == where.to_dict()
        shutil.rmtree(folder)


def test_what_reads_is_checked_before_the_clock_starts(lens: LensModel) -> None:
    conditions = forwards(lens, transcripts_for(lens, TOY, 2))
    speed.check_same(conditions, tolerance=1e-4)
    means = conditions["span means"]()
    assert isinstance(means, Tensor)
    with pytest.raises(RuntimeError, match="nnsight reads hidden states that differ from ours"):
        speed.check_same({**conditions, "nnsight": lambda: means * 1.01}, tolerance=1e-4)
    with pytest.raises(RuntimeError, match="do not change from layer to layer"):
        speed.check_same({**conditions, "span means": lambda: means[:, :1].expand_as(means)}, tolerance=1e-4)


def test_output_hidden_states_are_the_same_forward(lens: LensModel) -> None:
    """The condition that transformers serves itself: what it returns is what our means are made of, but for the last layer's norm."""
    transcripts = transcripts_for(lens, TOY, 2)
    batch = encode(lens, [t.prompt for t in transcripts], prefixes=[t.output_ids for t in transcripts])
    with torch.no_grad():
        states = lens.inner(**batch.inputs, use_cache=False, output_hidden_states=True).hidden_states
    ours = forwards(lens, transcripts, engines=())["span means"]()
    assert isinstance(ours, Tensor)
    prompt = torch.stack([layer[0, : len(transcripts[0].prompt_ids)].mean(0) for layer in states[1:-1]])
    torch.testing.assert_close(ours[0, :-1], prompt, atol=1e-5, rtol=1e-5)


def test_conditions_take_turns() -> None:
    ran: list[str] = []
    rounds: list[int] = []
    conditions = {name: lambda name=name: ran.append(name) for name in "abcd"}
    took = speed.in_turns(conditions, 6, CPU, lambda: rounds.append(len(ran)))
    assert ran[:4] == list("abcd") and {name: len(seconds) for name, seconds in took.items()} == dict.fromkeys("abcd", 6)
    orders = ["".join(ran[start : start + 4]) for start in range(4, len(ran), 4)]
    assert all(sorted(order) == list("abcd") for order in orders) and len(set(orders)) > 1
    assert rounds == [8, 12, 16, 20, 24, 28]


def test_the_clock_sees_what_takes_longer() -> None:
    took = speed.in_turns({"plain": lambda: time.sleep(0.01), "slow": lambda: time.sleep(0.05)}, 5, CPU)
    _, ratio, _ = speed.quartiles([slow / plain for slow, plain in zip(took["slow"], took["plain"], strict=True)])
    assert 2 < ratio < 6


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30))
def test_quartiles_are_numpys(values: list[float]) -> None:
    assert speed.quartiles(values) == pytest.approx(np.percentile(values, [25, 50, 75]))


def test_the_most_memory_taken_is_seen_after_it_was_given_back() -> None:
    with speed.watched() as nothing:
        pass
    with speed.watched() as taken:
        held = np.ones(16 * 2**20)  # 128 MiB
        del held
    assert nothing[0] < 8e6 and 120e6 < taken[0] < 160e6


def test_a_store_is_measured_against_a_plain_write(tmp_path: Path) -> None:
    seen: list[str] = []
    table = speed.store_against_raw(tmp_path, lambda note, by: seen.append(note), size=2**20, rounds=3)
    assert table.condition.tolist() == ["plain write", "store"] and table.ratio[0] == 1 and 0 < table.ratio[1] < 2
    assert list(tmp_path.iterdir()) == [] and seen == ["store"] * 3


def test_goals_are_told_as_met_or_missed() -> None:
    spread = {"low": 1.0, "high": 1.2, "tokens_per_s": 1e4, "milliseconds": 10.0, "shape": "s"}
    rows = pd.DataFrame(
        [
            {"kind": "forward", "condition": "span means", "ratio": 1.04, "goal": 1.05, **spread},
            {"kind": "job", "condition": "every token to disk", "ratio": 1.11, "goal": 1.10, **spread},
            {"kind": "job", "condition": "plain", "ratio": 1.0, "goal": None, **spread},
        ]
    )
    memory = pd.DataFrame([{"what": "s", "condition": "plain", "megabytes": 1.5}])
    store = pd.DataFrame([{"condition": "store", "megabytes_per_s": 1234.5, "ratio": 0.8, "low": 0.7, "high": 0.9, "goal": 0.75}])
    tables = capture_tables(Measured("a machine", rows, memory, store))
    page = markdown("thoughtlens bench capture", "a machine", "What it costs.\n\nHow it was measured.", tables)
    assert "at most 1.05: met" in page and "at most 1.10: missed" in page and "at least 0.75: met" in page
    assert "1.040 (1.000 to 1.200)" in page and "`thoughtlens bench capture` on a machine" in page and "| 1,234 |" in page


words = st.text("ab\n#", max_size=20)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["bench capture", "bench probe"]), words), max_size=6), words)
def test_a_benchmark_replaces_its_own_part_only(writes: list[tuple[str, str]], remark: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "docs" / "speed.md"
        write_part(page, "bench probe", "old\n")
        page.write_text(page.read_text().replace("# How fast it is\n", f"# Mine\n{remark}<>") + f"<>{remark}")
        last = {"bench probe": "old\n"}
        for command, part in writes:
            write_part(page, command, part)
            last[command] = part
        text = page.read_text()
        assert text.startswith(f"# Mine\n{remark}<>") and f"<>{remark.rstrip()}" in text
        for command, part in last.items():
            assert text.count(f"<!-- {command} -->\n{part}<!-- end of {command} -->") == 1


def test_a_page_with_half_a_part_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "speed.md"
    for text in ("<!-- bench probe -->\nfigures", "<!-- end of bench probe -->\n<!-- bench probe -->"):
        page.write_text(text)
        with pytest.raises(ValueError, match="has one of the marks <!-- bench probe --> and <!-- end of bench probe --> without the other"):
            write_part(page, "bench probe", "new")
        assert page.read_text() == text


def test_the_page_of_the_project_has_a_place_for_each_benchmark() -> None:
    page = (Path(__file__).parents[2] / "docs" / "speed.md").read_text()
    for command in (speed.COMMAND, probe_speed.COMMAND):
        assert page.count(f"<!-- {command} -->") == page.count(f"<!-- end of {command} -->") == 1
