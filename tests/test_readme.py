"""The README's examples run as they stand, and its numbers are those measured."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from thoughtlens.experiments import cli
from thoughtlens.experiments.organism import card

sys.path.insert(0, str(Path(__file__).parent / "viz"))

from fake_run import make_run  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(
    "number", range(len(EXAMPLES)), ids=["researcher", "engineer", "analyst", "trio", "probing", "deciding", "steering"]
)
def test_the_example_runs_as_written(number, at_home, capsys):
    make_run(at_home / "runs" / "demo")
    exec(compile(EXAMPLES[number], "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A folder with the checkpoints in it, as the place where a command is typed."""
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(words, monkeypatch, capsys):
    """What a command prints, in this process: a second one would import everything again."""
    monkeypatch.setattr(sys, "argv", ["thoughtlens", *words])
    cli.main()
    return capsys.readouterr().out


def test_the_reading_commands_run_as_written(at_home, monkeypatch, capsys):
    section = README.split("## Reading")[1].split("\n## ")[0]
    commands = [shlex.split(line)[1:] for line in section.splitlines() if line.startswith("thoughtlens ")]
    assert [words[0] for words in commands] == ["capture", "store", "store", "capture"]
    for words in commands:
        assert typed(words, monkeypatch, capsys).strip()


def test_the_audit_runs_as_written_on_fewer_prompts(at_home, monkeypatch, capsys):
    section = README.split("## Auditing")[1].split("\n## ")[0]
    (words,) = [shlex.split(line)[1:] for line in section.splitlines() if line.startswith("thoughtlens ")]
    printed = typed([*words, "--limit", "5", "--quiet"], monkeypatch, capsys)
    for told in ("Attack success", "The reasoning tax", "Blind spots", "Self-correction and its reverse", "judge rule: exact"):
        assert told in printed
    assert (at_home / "runs" / "audit" / "report.html").is_file()


def test_the_example_of_an_engineer_runs_as_written(at_home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["steer.py", str(at_home / "out")])
    runpy.run_path(str(ROOT / "examples" / "steer.py"), run_name="__main__")
    printed = capsys.readouterr().out
    sorry = {line[:40].strip(): line[40:] for line in printed.splitlines() if " sorry: " in line}
    harmful = {name: int(told.split()[1]) for name, told in sorry.items()}
    assert harmful["steered where the probe fires"] > harmful["left alone"] + 5
    assert "cannot be exported as merged" in printed and "logits within" in printed
    assert (at_home / "out" / "merged" / "model.safetensors").is_file() and not (at_home / "out" / "refused").exists()


def test_the_two_commands_stand_as_promised():
    assert "pip install -c constraints.txt -e . && thoughtlens demo" in README.splitlines()
    assert 'pip install -c constraints.txt -e ".[test]" && pytest -n logical' in README.splitlines()


def test_the_measured_tables_are_those_shipped_beside_the_weights():
    measured = json.loads((ROOT / "checkpoints" / card.MEASURED).read_text())
    assert card.tables(measured) in README
