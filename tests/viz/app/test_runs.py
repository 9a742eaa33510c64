"""Run folders: opened once, brought up to date while they are looked at, and shown as they were where that fails."""

from __future__ import annotations

import pytest
from thoughtlens.viz.app import runs
from thoughtlens.viz.app.runs import Runs


def test_a_run_is_opened_once_and_brought_up_to_date_every_few_seconds(made, monkeypatch):
    prepared: list[str] = []
    shown = Runs([made], lambda run: prepared.append(run.name))
    assert prepared == []
    first = shown.columns()
    assert shown.columns() is first and prepared == [made.name]
    monkeypatch.setattr(runs, "LOOK", 0.0)
    assert shown.columns() is first and prepared == [made.name] * 2


def test_what_cannot_be_read_again_is_logged_and_the_run_shown_as_it_was(made, monkeypatch, caplog):
    problems = iter([None, ValueError("line 3 is no JSON")])

    def prepare(run):
        if problem := next(problems):
            raise problem

    shown = Runs([made], prepare)
    first = shown.columns()
    monkeypatch.setattr(runs, "LOOK", 0.0)
    assert shown.columns() is first
    assert "line 3 is no JSON" in caplog.text
    monkeypatch.setattr(runs, "LOOK", 60.0)
    assert shown.columns() is first, "not tried again at once"


def test_a_run_that_cannot_be_read_at_first_is_no_run(made):
    def prepare(run):
        raise ValueError("line 3 is no JSON")

    with pytest.raises(ValueError, match="line 3 is no JSON"):
        Runs([made], prepare).columns()
