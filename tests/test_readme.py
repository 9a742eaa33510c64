"""The README's examples run as they stand, and its numbers are those measured."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from thoughtlens.experiments.organism import card

sys.path.insert(0, str(Path(__file__).parent / "viz"))

from fake_run import make_run  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(
    "number", range(len(EXAMPLES)), ids=["researcher", "engineer", "analyst", "trio", "probing", "deciding", "steering"]
)
def test_the_example_runs_as_written(number, tmp_path):
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    make_run(tmp_path / "runs" / "demo")
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[number]], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_reading_commands_run_as_written(tmp_path):
    section = README.split("## Reading")[1].split("\n## ")[0]
    commands = [shlex.split(line)[1:] for line in section.splitlines() if line.startswith("thoughtlens ")]
    assert [words[0] for words in commands] == ["capture", "store", "store", "capture"]
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    for words in commands:
        done = subprocess.run(
            [sys.executable, "-c", "from thoughtlens.experiments.cli import main; main()", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_the_audit_runs_as_written_on_fewer_prompts(tmp_path):
    section = README.split("## Auditing")[1].split("\n## ")[0]
    (words,) = [shlex.split(line)[1:] for line in section.splitlines() if line.startswith("thoughtlens ")]
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    done = subprocess.run(
        [sys.executable, "-c", "from thoughtlens.experiments.cli import main; main()", *words, "--limit", "5", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    for told in ("Attack success", "The reasoning tax", "Blind spots", "Self-correction and its reverse", "judge rule: exact"):
        assert told in done.stdout
    assert (tmp_path / "runs" / "audit" / "report.html").is_file()


def test_the_example_of_an_engineer_runs_as_written(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "steer.py"), str(tmp_path / "out")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    sorry = {line[:40].strip(): line[40:] for line in done.stdout.splitlines() if " sorry: " in line}
    harmful = {name: int(told.split()[1]) for name, told in sorry.items()}
    assert harmful["steered where the probe fires"] > harmful["left alone"] + 5
    assert "cannot be exported as merged" in done.stdout and "logits within" in done.stdout
    assert (tmp_path / "out" / "merged" / "model.safetensors").is_file() and not (tmp_path / "out" / "refused").exists()


def test_the_two_commands_stand_as_promised():
    assert "pip install -c constraints.txt -e . && thoughtlens demo" in README.splitlines()
    assert 'pip install -c constraints.txt -e ".[test]" && pytest -n logical' in README.splitlines()


def test_the_measured_tables_are_those_shipped_beside_the_weights():
    measured = json.loads((ROOT / "checkpoints" / card.MEASURED).read_text())
    assert card.tables(measured) in README
