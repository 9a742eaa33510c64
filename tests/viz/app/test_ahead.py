"""What is drawn ahead is there when it is asked for; whoever asks meanwhile waits for it; nothing that failed is kept."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from thoughtlens.viz.app import ahead, drawing, sending, source
from thoughtlens.viz.app.kept import Asked, Kept, folder_stamp
from thoughtlens.viz.app.runs import Runs
from thoughtlens.viz.app.views import Address


@pytest.fixture
def columns(made, monkeypatch):
    monkeypatch.setattr(sending, "ANSWERS", Kept(32))
    monkeypatch.setattr(drawing, "KEPT", Kept(400))
    monkeypatch.setattr(ahead, "REST", 0.0)
    monkeypatch.setattr(ahead, "PAUSE", 0.0)
    return Runs([made]).columns()


class Once(Asked[str]):
    """Nothing is asked for after what was asked for first."""

    def take(self) -> str:
        if not self.more:
            raise EOFError
        return super().take()


def whole(columns, query: str) -> sending.Answer:
    return sending.answer(columns, Address.read(query), 1e9)


def test_no_figure_one_click_away_is_left_to_draw(columns, monkeypatch):
    ahead.draw_ahead(columns, Asked())
    monkeypatch.setattr(drawing, "_made", lambda *args: pytest.fail("was not drawn ahead"))
    attack = next(iter(sending.facets_of(columns[0])["attack"]))
    for query in ("", "tab=layers", "tab=layers&span=thought", "tab=thoughts", "tab=steering", f"attack={attack}"):
        assert whole(columns, query).whole


def test_every_slider_is_one_step_ahead(columns):
    near = ahead.steps(whole(columns, "tab=geometry&layer=1&color=attack"), Address.read("tab=geometry&layer=1&color=attack"))
    assert [parse_qs(one.href()[1:]) for one in near] == [{"tab": ["geometry"], "layer": [layer], "color": ["attack"]} for layer in "20"]
    assert [one.state.layer for one in ahead.steps(whole(columns, "tab=geometry&layer=0"), Address.read("tab=geometry&layer=0"))] == [1]
    reader = "tab=thoughts&prompt=made%2F000002&layer=2"
    assert [one.state.layer for one in ahead.steps(whole(columns, reader), Address.read(reader))] == [3, 1]
    assert ahead.steps(whole(columns, "tab=steering"), Address.read("tab=steering")) == []


def test_the_step_that_follows_is_not_made_again(columns, monkeypatch):
    asked = Once()
    asked.now("?tab=geometry&layer=1")
    with pytest.raises(EOFError):
        ahead.step_ahead(columns, asked)
    monkeypatch.setattr(sending, "_answer", lambda *args: pytest.fail("was not made ahead"))
    assert all(whole(columns, f"?tab=geometry&layer={layer}").whole for layer in (0, 1, 2))


def test_steps_are_left_when_something_else_is_asked_for(columns, monkeypatch):
    made: list[int | None] = []

    def ask_more(columns, address):
        made.append(address.state.layer)
        if len(made) == 1:
            asked.now("?tab=steering")

    monkeypatch.setattr(ahead, "answer_ahead", ask_more)
    asked = Once()
    asked.now("?tab=geometry&layer=1")
    with pytest.raises(EOFError):
        ahead.step_ahead(columns, asked)
    assert made == [2]


def test_who_asks_for_what_is_being_made_waits_for_it(columns, monkeypatch):
    real, made, begun, go = sending._answer, [], threading.Event(), threading.Event()

    def slow(*args):
        made.append(threading.current_thread().name)
        begun.set()
        assert go.wait(10)
        return real(*args)

    monkeypatch.setattr(sending, "_answer", slow)
    address, found = Address.read("tab=geometry&layer=3"), []
    first = threading.Thread(target=sending.answer_ahead, args=(columns, address), name="ahead")
    second = threading.Thread(target=lambda: found.append(sending.answer(columns, address, 0.0)))
    first.start()
    assert begun.wait(10)
    second.start()
    time.sleep(0.05)
    assert not found
    go.set()
    first.join(30)
    second.join(30)
    assert made == ["ahead"] and found[0].whole


def test_an_answer_is_kept_until_a_file_changes_and_never_where_something_failed(columns, made, monkeypatch):
    first = whole(columns, "tab=provenance")
    assert whole(columns, "tab=provenance") is first
    (made / "provenance.json").touch()
    assert whole(columns, "tab=provenance") is not first
    monkeypatch.setattr(sending, "counted", lambda views: 1 / 0)
    failed = whole(columns, "tab=provenance&search=florp")
    assert not failed.whole and whole(columns, "tab=provenance&search=florp") is not failed


def test_traces_are_sent_to_a_page_that_does_not_have_them(columns):
    address = Address.read("tab=steering")
    sending.answer(columns, address, 1e9)
    every = sending.sent(columns, address, "light")["traces"]
    named = {
        part["props"]["data-traces"] for part in whole(columns, "tab=steering").parts["parts"].values() if "data-traces" in part["props"]
    }
    assert set(every) == named and len(named) > 3
    there = sorted(named)[:2]
    assert set(sending.sent(columns, address, "dark", there)["traces"]) == named - set(there)


def test_what_was_asked_for_last_is_taken_once():
    asked = Asked[str]()
    for what in ("a", "b"):
        asked.now(what)
    assert asked.more and asked.take() == "b" and not asked.more
    begun = time.monotonic()
    asked.now("c")
    asked.quiet(0.05)
    assert time.monotonic() - begun >= 0.05
    late: list[str] = []
    asked.take()
    waiting = threading.Thread(target=lambda: late.append(asked.take()))
    waiting.start()
    asked.now("d")
    waiting.join(10)
    assert late == ["d"]


def test_the_stamp_of_a_folder_changes_with_every_file(tmp_path):
    (tmp_path / "tables").mkdir()
    stamps = [folder_stamp(tmp_path)]
    for path in (tmp_path / "provenance.json", tmp_path / "tables" / "prompts.parquet"):
        path.write_text("florp")
        stamps.append(folder_stamp(tmp_path))
        path.write_text("longer")
        stamps.append(folder_stamp(tmp_path))
    assert len(set(stamps)) == 5


def test_files_that_go_while_they_are_looked_at_are_as_if_they_had_not_been_there(tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    before, listed = folder_stamp(tmp_path), Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: [*listed(folder), folder / "gone"])
    assert folder_stamp(tmp_path) == before


def test_what_cannot_be_read_is_tried_once_and_nothing_waits_for_it(columns, monkeypatch, caplog):
    monkeypatch.setattr(source, "FACETS", Kept(4))
    monkeypatch.setattr(source, "_facets", lambda run: 1 / 0)
    monkeypatch.setattr(sending, "count_known", lambda views: False)
    for _ in range(20):
        if not sending.answer(columns, Address(), 0.0).pending:
            break
    else:
        pytest.fail("something is pending for ever")
    assert caplog.text.count("reading what there is to choose from") == 1


def test_the_app_goes_on_where_drawing_ahead_fails(columns, monkeypatch, caplog):
    monkeypatch.setattr(ahead, "_likely", lambda columns: 1 / 0)
    ahead.draw_ahead(columns, Asked())
    assert "drawing ahead" in caplog.text
