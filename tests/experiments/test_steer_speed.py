"""The steering benchmark times the same work: equal edits write equal tokens, none of them is idle, and it refuses to time anything else."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from thoughtlens.experiments import steer_speed, steer_workload
from thoughtlens.experiments.speed_tables import write_part
from thoughtlens.experiments.steer_checks import Written, check_compiled, check_same, steps_of, written
from thoughtlens.experiments.steer_speed import COLUMNS, GOALS, Job, in_turns, told
from thoughtlens.experiments.steer_workload import COMPILED, Condition, Work, compiled, conditions, make_work
from thoughtlens.experiments.workload import Shape, subject

TOY = Shape("toy", 32, 2, 4, batch=3, tokens=48, batches=0, rounds=0, pictures=True)
CPU = torch.device("cpu")
NAMES = [
    *("plain", "one site", "every layer", "a vector per row", "behind a probe gate", "at step ends", "8 probes", "8 probes, one site"),
    *("one site, entered and left", "hook, one site", "hook, every layer", "hook, a vector per row", "nnsight, one site"),
    *("nnsight, every layer", "TransformerLens, one site", "TransformerLens, every layer"),
]


@pytest.fixture(scope="module")
def work() -> Work:
    return make_work(subject(TOY, CPU), TOY, 6)


@pytest.fixture(scope="module")
def eager(work: Work) -> dict[str, Condition]:
    return conditions(work)


@pytest.fixture(scope="module")
def found(work: Work, eager: dict[str, Condition]) -> dict[str, Written]:
    return {name: written(work, condition) for name, condition in eager.items()}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are made as in earnest, and run without a compiler for C++."""
    monkeypatch.setattr(steer_workload, "BACKEND", "eager")


def test_the_whole_of_it_on_a_toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(TOY, 4, rounds=1, compiled=1)
    monkeypatch.setattr(steer_speed, "JOBS", {"cpu": (job,)})
    monkeypatch.setattr(steer_speed, "COMPILED", COMPILED[:2])
    page, threads = tmp_path / "speed.md", torch.get_num_threads()
    for command, part in (("thoughtlens bench steer", "of another day\n"), ("thoughtlens bench probe", "of probes\n")):
        write_part(page, command, part)
    page.write_text(page.read_text() + "\nA remark.\n")
    table = steer_speed.bench_steer("cpu", out=page, progress=False)
    assert torch.get_num_threads() == threads
    assert list(table.columns) == list(COLUMNS) and (table.ratio > 0).all() and (table["shape"] == str(job)).all()
    assert table[table.kind == "eager"].condition.tolist() == NAMES
    assert table[table.kind == "compiled"].condition.tolist() == ["plain", "one site", "plain, not compiled"]
    assert (table[table.condition == "plain"].ratio == 1).all()
    text = page.read_text()
    assert "of another day" not in text and "of probes" in text and text.endswith("\nA remark.\n")
    assert (
        "<!-- thoughtlens bench steer -->\n## What steering costs" in text
        and "| condition | ms a step | tokens/s | times plain | goal |" in text
    )
    assert f"### {job}, eager" in text and f"### {job}, compiled" in text and "at most 1.05" in text
    assert "times plain" in capsys.readouterr().out


def test_no_shapes_for_a_device() -> None:
    with pytest.raises(ValueError, match="no shapes are chosen for the device 'meta'; there are some for cpu, cuda"):
        steer_speed.bench_steer("meta")


def test_what_is_added_is_half_as_long_as_hidden_states(work: Work) -> None:
    states = steer_workload.residuals(work.lens, work.batch)[:, work.batch.inputs["attention_mask"].bool()]
    lengths = states.norm(dim=-1).mean(-1)
    torch.testing.assert_close(work.every.norm(dim=-1), lengths / 2)
    torch.testing.assert_close(work.rows.norm(dim=-1), lengths[work.layer].expand(TOY.batch) / 2)
    assert torch.equal(work.one, work.every[work.layer]) and 0 < int(work.opened.sum()) < TOY.batch
    assert [len(ids) - length for ids, length in zip(work.batch.ids, work.batch.prompt_lengths.tolist(), strict=True)] == [11] * 3


def test_equal_conditions_pass_and_say_what_was_steered(work: Work, found: dict[str, Written]) -> None:
    check_same(work, found)
    assert list(found) == NAMES and work.lens.steering is None
    for name in ("plain", "hook, one site", "one site, entered and left"):
        assert found[name].fired is None
    steps, fired = steps_of(work, found["at step ends"]), found["at step ends"].fired
    assert fired is not None and bool((steps >= 2).all()) and fired.tolist() == steps.tolist()
    assert found["plain"].tokens.shape == (3, 6) and found["plain"].logits.shape[:2] == (3, 6)


def halved(one: Written) -> Written:
    assert one.fired is not None
    return replace(one, fired=one.fired // 2)


def test_other_work_is_not_timed(work: Work, found: dict[str, Written], eager: dict[str, Condition]) -> None:
    plain, one, probes = found["plain"], found["one site"], found["8 probes"]
    longer = written(work, partial(steer_workload._hooked, work, {work.layer: work.one * 1.01}))
    off = replace(probes, scores=[scores * 1.1 for scores in probes.scores])
    fewer = replace(probes, scores=[scores[:-1] for scores in probes.scores])
    cases: list[tuple[str, dict[str, Written]]] = [
        ("nnsight, one site writes something else than one site", {"nnsight, one site": plain}),
        ("TransformerLens, every layer writes something else than every layer", {"TransformerLens, every layer": one}),
        ("hook, one site writes something else than one site", {"hook, one site": longer}),
        ("hook, a vector per row writes something else", {"hook, a vector per row": one}),
        ("8 probes writes something else than plain", {"8 probes": one}),
        ("one site changes logits by 0 of their length", {name: plain for name in NAMES if name.endswith("one site")} | {"one site, entered and left": plain}),
        ("at step ends changes logits by 0", {"at step ends": plain}),
        ("behind a probe gate changes logits by 0", {"behind a probe gate": plain}),
        ("a closed probe gate writes something else than plain", {"behind a probe gate": one}),
        ("every layer: not .* tokens of the rows were steered", {"every layer": halved(found["every layer"])}),
        ("8 probes were read at .* off what plain hooks read", {"8 probes": off}),
        (r"8 probes were read at \[16, 16, 16\] tokens, where \[17, 17, 17\] are run", {"8 probes": fewer}),
    ]  # fmt: skip
    for message, changed in cases:
        with pytest.raises(RuntimeError, match=f"{message}.*Nothing was timed"):
            check_same(work, found | changed)


def test_compiled_conditions_write_the_same(work: Work, eager: dict[str, Condition], found: dict[str, Written]) -> None:
    faster = {name: written(work, partial(compiled, work, eager[name])) for name in COMPILED}
    check_compiled(work, faster, found)
    with pytest.raises(RuntimeError, match="one site, compiled, writes something else than one site, not compiled"):
        check_compiled(work, faster | {"one site": faster["plain"]}, found)
    with pytest.raises(RuntimeError, match="one site, compiled, changes logits by 0"):
        check_compiled(work, faster | {"one site": faster["plain"]}, found | {"one site": found["plain"]})


def test_what_is_not_compiled_beforehand_is_not_timed(work: Work, eager: dict[str, Condition], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="fail_on_recompile"), compiled(work, eager["plain"]) as write:
        write(max_new_tokens=9, min_new_tokens=9)

    @contextmanager
    def uncompiled() -> Iterator[steer_workload.Write]:
        def write(**asked: Any) -> Any:
            return steer_workload._write(work, **{**asked, "disable_compile": True})

        yield write

    with pytest.raises(RuntimeError, match="was asked to compile the decoding step and did not"), compiled(work, uncompiled):
        pass


def test_conditions_take_turns_and_are_entered_before_the_clock_starts() -> None:
    seen: list[str] = []

    @contextmanager
    def slow(name: str) -> Iterator[steer_workload.Write]:
        time.sleep(0.1)
        seen.append(f"enter {name}")
        yield lambda: seen.append(f"write {name}")
        seen.append(f"leave {name}")

    took = in_turns({name: partial(slow, name) for name in "abcd"}, 3, CPU, lambda: seen.append("round"), times=2)
    assert {name: len(seconds) for name, seconds in took.items()} == dict.fromkeys("abcd", 6) and max(map(max, took.values())) < 0.05
    assert [n for n, what in enumerate(seen) if what == "round"] == [16, 33, 50]
    rounds = [[seen[n + m : n + m + 4] for m in (0, 4, 8, 12)] for n in (0, 17, 34)]
    for turns in rounds:
        assert sorted(turns) == [[f"enter {name}", f"write {name}", f"write {name}", f"leave {name}"] for name in "abcd"]
    assert len({str(turns) for turns in rounds}) > 1


def test_ratios_are_to_the_plain_one_of_the_same_round_and_goals_are_told() -> None:
    took = {"plain": [1.0, 2.0, 4.0], "one site": [1.02, 2.06, 4.4], "8 probes": [1.1, 2.12, 4.8], "hook, one site": [1.0, 2.0, 8.0]}
    job = Job(TOY, 10, rounds=3)
    rows = steer_speed._ratios(took, job, "eager", "cpu")
    assert rows.ratio.tolist() == pytest.approx([1, 1.03, 1.1, 1]) and rows.high.tolist()[1] == pytest.approx(1.065)
    assert rows.milliseconds.tolist()[0] == 200 and rows.tokens_per_s.tolist()[0] == 15
    shown = told(rows)
    assert list(shown.columns) == ["condition", "ms a step", "tokens/s", "times plain", "goal"]
    assert shown.goal.tolist() == ["", "at most 1.05: met", "at most 1.05: missed", ""]
    assert shown["times plain"][1] == "1.030 (1.025 to 1.065)"


def test_what_the_goals_name_is_measured() -> None:
    for device, jobs in steer_speed.JOBS.items():
        kinds = {"eager": NAMES, "compiled": COMPILED}
        assert {kind for of, kind, _ in GOALS if of == device} == set(kinds) and sum(job.compiled > 0 for job in jobs) == 1
        assert all(name in kinds[kind] for of, kind, name in GOALS if of == device)
    assert {GOALS["cpu", "eager", name] for name in NAMES if ("cpu", "eager", name) in GOALS} == {1.05}
    assert GOALS["cuda", "eager", "one site"] == 1.03 and GOALS["cuda", "compiled", "every layer"] == 1.02


def test_the_page_says_what_is_measured() -> None:
    text = inspect.getdoc(steer_speed) or ""
    for name in NAMES:
        assert all(part in text for part in name.split(", "))
    assert steer_workload.PROBES == 8 and "begun with two steps" in text
