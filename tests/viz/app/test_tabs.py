"""What the tabs show without a browser: every section of the report has its tab, figures are kept, slow ones come one answer later."""

from __future__ import annotations

import json

import pytest
from thoughtlens.viz import sections, theme
from thoughtlens.viz.app import document, drawing, sending
from thoughtlens.viz.app.kept import Kept
from thoughtlens.viz.app.runs import Runs
from thoughtlens.viz.app.sending import sent
from thoughtlens.viz.app.state import CHOICES
from thoughtlens.viz.app.tabs import TABS, tab
from thoughtlens.viz.app.views import Address
from thoughtlens.viz.page import DESK


@pytest.fixture(scope="module")
def columns(made):
    return Runs([made]).columns()


def page(columns, query: str) -> str:
    """The page that a link leads to, when all of it is drawn."""
    found = sent(columns, Address.read(query), "light")
    while found["pending"]:
        found = sent(columns, Address.read(query), "light")
    return json.dumps(found["parts"], ensure_ascii=False)


def test_every_section_of_the_report_is_on_a_tab():
    assert set(tab.PLACES) == {section.key for section in sections.SECTIONS}, "a section is placed by a row in PLACES (viz/app/tabs/tab.py)"
    assert set(tab.PLACES.values()) <= set(TABS) == set(CHOICES["tab"])


def test_a_figure_is_drawn_once_and_again_when_its_table_changes(made, columns, monkeypatch):
    drawn: list[str] = []
    real = drawing.draw
    monkeypatch.setattr(drawing, "draw", lambda figure, reading: drawn.append(reading) or real(figure, reading))
    monkeypatch.setattr(drawing, "KEPT", Kept(50))
    monkeypatch.setattr(sending, "ANSWERS", Kept(5))
    page(columns, "tab=layers")
    first = len(drawn)
    page(columns, "tab=layers&layer=1")
    assert first > 5 and len(drawn) == first
    page(columns, "tab=layers&layer=1&span=thought_last")
    assert len(drawn) == first + 1
    (made / "tables" / "heads.parquet").touch()
    page(columns, "tab=layers&layer=1&span=thought_last")
    assert len(drawn) == first + 2


def test_an_answer_draws_what_it_has_time_for_and_the_next_one_goes_on(columns, monkeypatch):
    monkeypatch.setattr(drawing, "KEPT", Kept(50))
    monkeypatch.setattr(sending, "ANSWERS", Kept(5))
    monkeypatch.setattr("thoughtlens.viz.app.sending.TAKES", 0.0)
    pending = []
    for _ in range(20):
        found = sent(columns, Address.read("tab=steering"), "light")
        pending.append(sum("data-pending" in part["props"] for part in found["parts"].values()))
        if not found["pending"]:
            break
    assert pending == list(range(pending[0], -1, -1)) and pending[0] >= 3


def test_a_filter_that_a_tab_does_not_follow_is_told(columns):
    assert "Not applied on this tab: the filter by attack, search." in page(columns, "tab=layers&attack=plain&search=florp&model=safe")
    assert "Not applied" not in page(columns, "tab=thoughts&attack=plain&search=florp")


def test_a_failure_is_told_plainly_and_goes_to_the_log(columns, monkeypatch, caplog):
    def broken(view):
        raise RuntimeError("florp at /secret/path")

    monkeypatch.setattr(sending, "ANSWERS", Kept(5))
    monkeypatch.setitem(TABS, "steering", tab.Tab("Steering", broken))
    told = page(columns, "tab=steering")
    assert "This could not be shown" in told and "secret" not in told and "Traceback" not in told
    assert "florp at /secret/path" in caplog.text


def test_two_runs_stand_beside_each_other_with_the_same_prompt_open(made, bare):
    both = Runs([made, bare, made]).columns()
    parts = json.loads(page(both, "tab=thoughts&prompt=made%2F000002&shown=1"))
    assert {"asked-0", "asked-2"} <= set(parts) and "asked-1" not in parts
    assert "list-1" in parts and "This run has no answers table" in json.dumps(parts["list-1"])
    assert [column.name for column in both] == ["/".join(made.parts[-2:]), "bare", "/".join(made.parts[-2:])]


def test_text_of_data_is_never_markup(columns):
    told = page(columns, "tab=thoughts&prompt=made%2F000000&shown=1")
    assert '"<script>window.hacked=1</script>"' in told
    assert "Markdown" not in told and "dangerously" not in told


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_has_the_contrast_it_needs(mode):
    ink = theme.INK[mode]
    for text in (ink.text, ink.muted):
        assert min(contrast(text, ink.paper), contrast(text, DESK[mode])) >= 4.5
    assert min(contrast(theme.OTHERS[3].color, paper) for paper in (ink.paper, DESK[mode])) >= 3  # the ring around what has the focus
    assert f"--muted: {ink.muted};" in document.colors()


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    light = sorted(
        sum(share * channel(color, at) for share, at in zip((0.2126, 0.7152, 0.0722), (1, 3, 5), strict=True)) for color in (one, other)
    )
    return (light[1] + 0.05) / (light[0] + 0.05)


def channel(color: str, at: int) -> float:
    value = int(color[at : at + 2], 16) / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
