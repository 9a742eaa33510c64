"""The command line: help with an example, light to start, and one clear sentence with exit code 2 for what a user can mend."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from thoughtlens.experiments import cli
from thoughtlens.hooks.records import Prompt, write_prompts
from tiny import tiny_folder, tiny_prompts

COMMANDS = [[name] for name in (*cli.COMMANDS, *cli.NESTED)] + [[name, sub] for name, (_, subs) in cli.NESTED.items() for sub in subs]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def thoughtlens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process: (exit code, standard output, standard error)."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["thoughtlens", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        return code, *capsys.readouterr()

    return run


def in_a_process(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from thoughtlens.experiments.cli import main; main()"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=cwd, env=environment, timeout=120
    )


def one_sentence(code: int, error: str, *told: str) -> None:
    assert code == 2
    assert re.fullmatch(r"thoughtlens: [^\n]+", error.strip()), error
    for words in told:
        assert words in error


@pytest.fixture
def trio(quick_trio: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quick_trio, tmp_path / "trio"))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_an_example_of_the_command(words: list[str], thoughtlens: Command) -> None:
    code, told, _ = thoughtlens(*words, "--help")
    assert code == 0 and re.search(rf"Example:\s+thoughtlens {' '.join(words)}", told)


def test_help_lists_every_command(thoughtlens: Command) -> None:
    code, told, _ = thoughtlens("--help")
    assert code == 0 and all(name in told for name in (*cli.COMMANDS, *cli.NESTED))


def test_the_command_line_starts_without_torch(tmp_path: Path) -> None:
    code = "import sys, thoughtlens.experiments.cli; print(sorted({'torch', 'transformers', 'pandas', 'sklearn', 'plotly'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60)
    assert told.stdout.strip() == "[]"
    helped = in_a_process("organism", "build", "--help", cwd=tmp_path)
    assert helped.returncode == 0 and "Example: thoughtlens organism build" in helped.stdout


def test_a_wrong_path_is_one_sentence_in_a_real_process(tmp_path: Path) -> None:
    ended = in_a_process("doctor", tmp_path / "nowhere", cwd=tmp_path)
    one_sentence(ended.returncode, ended.stderr, "there is no folder", "nowhere")


def test_wrong_paths(tmp_path: Path, thoughtlens: Command) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "seen" / "tables").mkdir(parents=True)
    for words, told in {
        ("doctor", tmp_path / "empty"): "holds no config.json",
        ("doctor", tmp_path / "absent"): "there is no folder",
        ("demo", "--checkpoints", tmp_path / "absent", "--out", tmp_path / "run"): "there is no folder",
        ("demo", "--checkpoints", tmp_path / "empty", "--out", tmp_path / "run"): "there is no folder",
        ("probe", tmp_path / "absent"): "holds no activations/<model>/",
        ("probe", tmp_path / "empty", "--kinds", "svm"): "unknown kind of probe 'svm'",
        ("probe", tmp_path / "empty", "--among", "harmful"): "one value only",
        ("probe", tmp_path / "empty", "--device", "gpu"): "gpu",
        ("report", tmp_path / "absent"): "absent",
        ("report", tmp_path / "empty"): "empty",
        ("view", tmp_path / "absent"): "is no run folder: it has no tables/. `thoughtlens demo",
        ("view", tmp_path / "run" / "seen", "--host", "0.0.0.0", "--no-browser"): "can be reached from other machines",
        ("report", tmp_path / "run" / "seen", "--png", "florp"): "no figure is called 'florp'; there are tax_by_category",
        ("report", tmp_path / "run" / "seen", "--pdf", "all", "--width", "9"): "figures are 200 to 4000 pixels wide",
        ("organism", "build", "--stage", "base", "--out", tmp_path / "new"): "which is not built",
        ("organism",): "say what to do: thoughtlens organism build | card",
        ("store",): "say what to do: thoughtlens store verify | show",
        ("store", "show", tmp_path / "empty"): "is no activation store",
        ("store", "show", tmp_path / "absent"): "is no activation store",
        ("capture", "--model", tmp_path / "absent", "--out", tmp_path / "new"): "there is no folder",
        ("capture", "--model", tmp_path / "empty", "--out", tmp_path / "new"): "holds no config.json",
        (
            "capture",
            "--model",
            tmp_path / "empty",
            "--prompts",
            tmp_path / "absent",
            "--out",
            tmp_path / "new",
        ): "there is no file of prompts",
        ("capture", "--model", tmp_path / "empty", "--transcripts", tmp_path / "absent", "--out", tmp_path / "new"): "there is no file",
        ("capture", "--model", tmp_path / "empty", "--spans", "thougth"): "unknown span 'thougth'",
        ("capture", "--model", tmp_path / "empty", "--sites", "resid_pots"): "resid_pots",
        ("capture", "--model", tmp_path / "empty", "--limit", "0"): "limit is at least 1, got 0",
    }.items():
        code, _, error = thoughtlens(*words)
        one_sentence(code, error, told)


@pytest.mark.parametrize("role", ["base", "safe"])
def test_a_checkpoint_without_its_weights(role: str, trio: Path, thoughtlens: Command) -> None:
    (trio / role / "model.safetensors").unlink()
    for words in (("doctor", trio / role), ("demo", "--checkpoints", trio, "--out", trio / "run")):
        code, _, error = thoughtlens(*words)
        one_sentence(code, error, str(trio / role), "lacks the weights model.safetensors")


def test_a_truncated_checkpoint(trio: Path, thoughtlens: Command) -> None:
    file = trio / "reasoning" / "model.safetensors"
    whole = file.read_bytes()
    for size in (len(whole) - 1, 2000, 4, 0):
        file.write_bytes(whole[:size])
        for words in (("doctor", trio / "reasoning"), ("demo", "--checkpoints", trio, "--out", trio / "run")):
            code, _, error = thoughtlens(*words)
            one_sentence(code, error, "model.safetensors", "cut short")


def test_an_out_folder_that_cannot_be_written(quick_trio: Path, tmp_path: Path, thoughtlens: Command) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        for words in (("demo", "--checkpoints", quick_trio), ("organism", "build", "--quick")):
            code, _, error = thoughtlens(*words, "--out", out)
            one_sentence(code, error, str(out), "hoose another folder" if out.name == "file" else "hoose a folder you may write to")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_out_folder_without_permission(quick_trio: Path, tmp_path: Path, thoughtlens: Command) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for out in (closed, closed / "below"):
        code, _, error = thoughtlens("demo", "--checkpoints", quick_trio, "--out", out)
        one_sentence(code, error, str(out))


def test_words_the_command_line_does_not_know(thoughtlens: Command) -> None:
    for words in (
        ("dmeo",),
        ("demo", "--ouput", "x"),
        ("organism", "build", "--stage", "wise"),
        ("organism", "bild"),
        ("store", "shwo"),
        ("capture", "--on-error", "ignore"),
        (),
    ):
        code, out, error = thoughtlens(*words)
        assert code == 2 and "Traceback" not in out + error


def test_an_unknown_device(quick_trio: Path, tmp_path: Path, thoughtlens: Command) -> None:
    code, _, error = thoughtlens("demo", "--checkpoints", quick_trio, "--out", tmp_path / "run", "--device", "gpu")
    one_sentence(code, error, "gpu")


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str | Path], Path]:
    """Words of a capture command on the tiny model, and the run folder it names."""
    folder = tmp_path_factory.mktemp("captured")
    prompts = write_prompts(folder / "prompts.jsonl", tiny_prompts(6))
    words = ["capture", "--model", tiny_folder(), "--prompts", prompts, "--out", folder / "run", "--sites", "resid_post,mlp_out.1"]
    return [*words, "--spans", "last_prompt,answer", "--max-new-tokens", "8", "--batch-size", "4", "--device", "cpu"], folder / "run"


def test_capture_ends_with_one_line(captured: tuple[list[str | Path], Path], thoughtlens: Command) -> None:
    words, run = captured
    code, told, error = thoughtlens(*words)
    assert code == 0 and "answers" in error
    assert re.fullmatch(
        rf"{run}/activations/{tiny_folder().name}: \d+ rows of 4 sites, [\d.]+ kB; 6 prompts, \d thoughts unclosed, \d absent, 0 skipped; "
        r"wrote [\d,]+ tokens/s, read [\d,]+ tokens/s\n",
        told,
    ), told
    code, told, error = thoughtlens(*words, "--quiet")
    assert code == 0 and told.endswith("0 skipped; all of it was there\n") and error == ""
    code, _, error = thoughtlens(*words, "--pool", "max")
    one_sentence(code, error, "holds a capture with other settings", "differing: select")


def test_a_store_is_shown_and_verified(captured: tuple[list[str | Path], Path], thoughtlens: Command) -> None:
    words, run = captured
    thoughtlens(*words, "--quiet")
    store = run / "activations" / tiny_folder().name
    code, told, _ = thoughtlens("store", "show", store)
    assert code == 0 and "resid_post.0, resid_post.1, resid_post.2, mlp_out.1" in told and "last_prompt 6" in told and "width 32" in told
    assert thoughtlens("store", "verify", store) == (0, f"{store} is whole\n", "")
    (shard,) = (store / "shards").iterdir()
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code, told, error = thoughtlens("store", "verify", store)
    shard.write_bytes(whole)
    assert code == 1 and told == "" and shard.name in error and "Traceback" not in error


def test_bad_prompts_are_named_or_left_out(tmp_path: Path, thoughtlens: Command) -> None:
    file = write_prompts(tmp_path / "p.jsonl", [Prompt("fine", "open the box"), Prompt("gone", "look", (tmp_path / "gone.png",))])
    words = [
        "capture",
        "--model",
        tiny_folder(),
        "--prompts",
        file,
        "--spans",
        "last_prompt",
        "--max-new-tokens",
        "2",
        "--out",
        tmp_path / "run",
        "--quiet",
    ]
    one_sentence(*thoughtlens(*words)[::2], "1 prompt cannot be used", "'gone'", "gone.png", "--on-error skip")
    code, told, _ = thoughtlens(*words, "--on-error", "skip")
    assert (
        code == 0
        and "1 prompts" in told
        and "1 skipped" in told
        and '"prompt_id": "gone"' in (tmp_path / "run" / "skipped.jsonl").read_text()
    )


def test_lists_may_have_blanks_and_are_not_empty(tmp_path: Path, thoughtlens: Command) -> None:
    file = write_prompts(tmp_path / "p.jsonl", tiny_prompts(2))
    words = ["capture", "--model", tiny_folder(), "--prompts", file, "--max-new-tokens", "2", "--out", tmp_path / "run", "--quiet"]
    code, told, error = thoughtlens(*words, "--spans", "last_prompt, answer", "--sites", "resid_post.0 , mlp_out.1")
    assert code == 0 and " rows of 2 sites" in told, error
    one_sentence(*thoughtlens(*words, "--spans", "")[::2], "at least one site and one span")


@pytest.mark.parametrize("raised", ["MemoryError()", "torch.OutOfMemoryError('CUDA out of memory')"])
def test_memory_that_runs_out_is_a_sentence(raised: str, tmp_path: Path) -> None:
    file = write_prompts(tmp_path / "p.jsonl", tiny_prompts(2))
    code = f"""
import torch
from thoughtlens.experiments import capturing, cli
def full(*words, **options): raise {raised}
capturing.generate = full
cli.main()"""
    words = ["capture", "--model", tiny_folder(), "--prompts", file, "--out", tmp_path / "run", "--device", "cpu", "--quiet"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=120)
    one_sentence(done.returncode, done.stderr, "Use a smaller --batch-size in a new folder")


def test_memory_that_runs_out_elsewhere_is_a_sentence_too(thoughtlens: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from thoughtlens.experiments import doctor as module

    def failing(error: Exception) -> Command:
        def doctor(model: str | None) -> list[str]:
            raise error

        return doctor

    for error, told in ((MemoryError(), "out of memory"), (torch.OutOfMemoryError("CUDA out of memory"), "CUDA out of memory")):
        monkeypatch.setattr(module, "doctor", failing(error))
        one_sentence(*thoughtlens("doctor")[::2], told)
    monkeypatch.setattr(module, "doctor", failing(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        thoughtlens("doctor")


def test_bench_capture_times_what_is_asked(tmp_path: Path, thoughtlens: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from thoughtlens.experiments import speed

    calls = []
    monkeypatch.setattr(speed, "bench_capture", lambda device, **options: calls.append((device, options)))
    assert thoughtlens("bench", "capture", "--device", "cpu", "--out", tmp_path / "speed.md")[0] == 0
    assert calls == [("cpu", {"out": tmp_path / "speed.md", "into": Path("runs/bench")})]


def test_bench_probe_times_what_is_asked(tmp_path: Path, thoughtlens: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from thoughtlens.experiments import probe_speed

    calls = []
    monkeypatch.setattr(probe_speed, "bench_probe", lambda device, **options: calls.append((device, options)))
    assert thoughtlens("bench", "probe", "--device", "cpu", "--out", tmp_path / "speed.md")[0] == 0
    assert calls == [("cpu", {"out": tmp_path / "speed.md"})]


def test_probe_asks_what_its_options_say(tmp_path: Path, thoughtlens: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from thoughtlens.experiments import probing
    from thoughtlens.experiments.asked import Asked

    calls = []
    monkeypatch.setattr(probing, "probe", lambda run, asked, **options: calls.append((run, asked, options)))
    words = ["--label", "refused", "--among", "harmful", "--models", "base, safe", "--spans", "thought", "--kinds", "lda", "--quiet"]
    assert thoughtlens("probe", tmp_path, *words, "--checkpoints", tmp_path, "--shuffles", "3", "--device", "cpu")[0] == 0
    asked = Asked(("base", "safe"), "refused", "harmful", spans=("thought",), kinds=("lda",), shuffles=3, directions=3)
    assert calls == [(tmp_path, asked, {"checkpoints": tmp_path, "device": "cpu", "progress": False})]
    thoughtlens("probe", tmp_path)
    assert calls[1] == (tmp_path, Asked(), {"checkpoints": None, "device": None, "progress": True})


def test_a_warning_is_told_once() -> None:
    once = cli.Once()
    first, again, other = (logging.LogRecord("x", logging.WARNING, "", 0, text, (), None) for text in ("a", "a", "b"))
    assert once.filter(first) and not once.filter(again) and once.filter(other)


def test_ctrl_c_is_told_in_a_line(thoughtlens: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from thoughtlens.experiments import doctor as module

    def interrupted(model: str | None) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "doctor", interrupted)
    code, _, error = thoughtlens("doctor")
    assert code == 130 and "finished stages are kept" in error and "Traceback" not in error


def test_the_doctor_reads_a_checkpoint(quick_trio: Path, thoughtlens: Command) -> None:
    code, told, _ = thoughtlens("doctor", quick_trio / "base")
    assert code == 0 and "base: Qwen2_5_VLForConditionalGeneration, 6 layers of width 192" in told


def test_a_build_that_is_finished_is_kept(quick_trio: Path, trio: Path, thoughtlens: Command) -> None:
    code, told, _ = thoughtlens("organism", "build", "--quick", "--seed", "9", "--out", trio)
    assert code == 0 and str(trio) in told
    assert (trio / "safe" / "stage.json").read_bytes() == (quick_trio / "safe" / "stage.json").read_bytes()
    assert (trio / "safe" / "stage.json").stat().st_mtime == pytest.approx((quick_trio / "safe" / "stage.json").stat().st_mtime, abs=1)
