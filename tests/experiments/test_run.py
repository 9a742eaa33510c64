"""The run folder: stages run once, again when their inputs change or their outputs go, and its provenance says what made it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import yaml
from thoughtlens.experiments import run as module
from thoughtlens.experiments.progress import track
from thoughtlens.experiments.run import PACKAGES, Run, open_run, provenance, source_state
from thoughtlens.experiments.study import Plan, Study


def test_a_stage_is_fresh_once_finished_until_its_inputs_or_outputs_change(tmp_path: Path) -> None:
    run, output = Run(tmp_path), tmp_path / "out.txt"
    inputs = {"plan": {"seed": 0, "models": ["a"]}, "moments": ("thought",)}
    assert not run.fresh("audit", inputs, [output])
    output.write_text("x")
    assert not run.fresh("audit", inputs, [output])  # there, but nobody said it was whole
    run.finish("audit", inputs)
    run.finish("probes", {})
    again = Run(tmp_path)
    assert (
        again.fresh("audit", inputs, [output])
        and again.fresh("audit", dict(reversed(inputs.items())), [output])
        and again.fresh("probes", {}, [])
    )
    assert not again.fresh("audit", {**inputs, "plan": {"seed": 1, "models": ["a"]}}, [output])
    assert not again.fresh("restore", inputs, [output])
    output.unlink()
    assert not again.fresh("audit", inputs, [output])


def test_a_stage_that_fails_or_is_interrupted_is_not_remembered(tmp_path: Path) -> None:
    with track(False) as bars:
        study = Study(Run(tmp_path), Plan(models={}), bars)
        for error in (ValueError, KeyboardInterrupt):
            with pytest.raises(error), study.stage("audit", []) as due:
                assert due
                raise error
        with study.stage("audit", []) as due:
            assert due
        with study.stage("audit", []) as due:
            assert not due
        with study.stage("audit", [], more=1) as due:
            assert due


def test_a_changed_plan_is_a_changed_input(tmp_path: Path) -> None:
    with track(False) as bars:
        for plan, wanted in (
            (Plan(models={}), True),
            (Plan(models={}), False),
            (Plan(models={}, seed=1), True),
            (Plan(models={}, test=3), True),
        ):
            with Study(Run(tmp_path), plan, bars).stage("audit", []) as due:
                assert due is wanted


def test_tables_come_back_and_a_failed_write_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, frame = Run(tmp_path), pd.DataFrame({"model": ["base", "safe"], "value": [0.5, float("nan")], "n": [3, 4]})
    run.write_table("collapse", frame)
    pd.testing.assert_frame_equal(run.table("collapse"), frame)

    def broken(self: pd.DataFrame, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", broken)
    with pytest.raises(KeyboardInterrupt):
        run.write_table("collapse", frame.iloc[:1])
    pd.testing.assert_frame_equal(run.table("collapse"), frame)
    assert [file.name for file in (tmp_path / "tables").iterdir()] == ["collapse.parquet"]


def test_a_missing_table_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="detection.parquet is missing; `thoughtlens demo --out .*` writes it"):
        Run(tmp_path).table("detection")


def test_a_run_folder_opens_with_its_configuration_and_provenance(tmp_path: Path) -> None:
    config = {"study": "trio", "seed": 0, "steering": None}
    run = open_run(tmp_path / "runs" / "first", config)
    assert yaml.safe_load(run.path("config.yaml").read_text()) == config
    run.finish("audit", {})
    assert open_run(run.folder, config).fresh("audit", {}, [])  # opening again forgets nothing
    told = json.loads(run.path("provenance.json").read_text())
    assert told.keys() == provenance().keys()


def test_provenance_holds_versions_and_no_machine_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/somebody/venv/bin/thoughtlens", "demo", "--out", "runs/demo"])
    told = provenance()
    assert told["packages"] == {name: version(name) for name in PACKAGES if name != "thoughtlens"} | {
        "thoughtlens": told["packages"]["thoughtlens"]
    }
    assert {"torch", "transformers", "transformer-lens", "nnsight", "safetensors"} <= told["packages"].keys() and told[
        "python"
    ] == platform.python_version()
    assert told["machine"]["threads"] >= 1 and told["command"] == "thoughtlens demo --out runs/demo"
    text = json.dumps(told)
    for path in (Path.home(), Path.cwd(), sys.prefix, module.ROOT):
        assert str(path) not in text
    assert len(platform.node()) < 4 or platform.node() not in text
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest", "tests"])
    assert provenance()["command"] is None  # no command of ours made this


def test_the_state_of_the_source_is_git_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(["git", "-C", str(tmp_path), *identity, *words], capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert source_state() == {"commit": None, "changed": None}
    git("init", "-q")
    (tmp_path / "a.py").write_text("1")
    assert source_state() == {"commit": None, "changed": True}
    git("add", ".")
    git("commit", "-qm", "first")
    assert source_state() == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "a.py").write_text("2")
    assert source_state()["changed"] is True
