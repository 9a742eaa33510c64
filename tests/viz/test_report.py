"""One file that opens anywhere: self-contained, small, escaped, complete or saying what is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import thoughtlens
from fake_run import BESIDE, FURTHER, SCRIPT, TABLES, make_run
from thoughtlens.viz import tables
from thoughtlens.viz.made_run import make_run as make_whole_run
from thoughtlens.viz.report import report
from thoughtlens.viz.sections import drawings

LIMIT = 8 * 1024 * 1024
FIGURES = 19
DRAWN = {"collapse": 2, "detection": 3, "restoration": 2, "comparison": 2}  # figures of a table, where they are not one


class Page(HTMLParser):
    """Tags with their attributes, visible text, and the JSON blocks by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.blocks = "", {}
        self._open: tuple[str, dict[str, str | None]] = ("", {})
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._open = (tag, dict(attrs))
        self.tags.append(self._open)

    def handle_endtag(self, tag):
        self._open = ("", {})

    def handle_data(self, data):
        tag, attributes = self._open
        if attributes.get("type") == "application/json":
            self.blocks[attributes["id"]] = json.loads(data)
        elif tag not in ("script", "style"):
            self.text += data


def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_report_is_small_and_returns_its_path(run):
    path = run / "report.html"
    assert report(run) == path and path.stat().st_size < LIMIT
    assert [other.name for other in run.iterdir() if "report" in other.name] == ["report.html"]


def test_nothing_is_loaded_from_anywhere(run):
    found = page(run)
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed"), tag
        assert "src" not in attributes, (tag, attributes)
        assert not (attributes.get("href") or "#").startswith(("http", "//")), attributes
    style = re.search(r"<style>(.*?)</style>", (run / "report.html").read_text(encoding="utf-8"), re.S).group(1)
    assert "url(" not in style and "@import" not in style
    policy = next(attributes["content"] for tag, attributes in found.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "http" not in policy
    assert sum(tag == "script" and not attributes for tag, attributes in found.tags) == 2


def test_every_figure_stands_with_its_data_and_a_reading(run):
    found = page(run)
    plots = [attributes["data-figure"] for _, attributes in found.tags if attributes.get("class") == "plot"]
    assert plots == [f"figure-{number}" for number in range(1, FIGURES + 1)] and set(plots) < set(found.blocks)
    assert all(found.blocks[plot]["data"] for plot in plots) and not any("template" in found.blocks[plot]["layout"] for plot in plots)
    assert sum(tag == "figcaption" for tag, _ in found.tags) == FIGURES
    assert {"light", "dark"} == set(found.blocks["themes"])


def test_headlines_table_and_provenance_are_on_the_page(run):
    text = page(run).text.replace("\xa0", " ")
    for number in (
        "+65 points",
        "83% → 5%",
        "0% → 4%",
        "n = 162 each",
        "step_end[0]",
        "2.13.0",
        "0d5a0b2",
        "models[1].name",
        "random directions (8)",
    ):
        assert number in text, number


def test_every_missing_table_is_told_with_the_command_that_makes_it(tmp_path):
    run = make_run(tmp_path / "run", without=tuple(TABLES))
    report(run)
    text = page(run).text
    assert all(f"This run has no {name} table" in text for name in TABLES if name not in FURTHER)
    assert all(tables.MADE_BY[name] in text for name in TABLES) and text.count("Not asked of this run yet: ") == 1


@pytest.mark.parametrize("name", list(DRAWN))
def test_a_missing_table_leaves_a_notice_and_the_rest_is_drawn(tmp_path, name):
    run = make_run(tmp_path / "run", without=(name,))
    report(run)
    found = page(run)
    told = "Not asked of this run yet: " if name in FURTHER else f"This run has no {name} table"
    assert told in found.text and tables.MADE_BY[name] in found.text
    assert sum(tag == "figcaption" for tag, _ in found.tags) == FIGURES - DRAWN.get(name, 1)


def test_a_whole_run_has_every_figure_and_a_thought_of_each_outcome_folded_away(tmp_path):
    run = make_whole_run(tmp_path / "run", prompts=60, layers=4, token_scores=3000, texts=[SCRIPT])
    assert report(run).stat().st_size < LIMIT
    found = page(run)
    made = {file.stem for file in (run / "tables").iterdir()}
    there = {name for name, drawing in drawings().items() if set(drawing.tables) <= made}
    left = {"corrections_stated", "readout_along_thought"}  # told by the quadrants; too few thoughts for a mean
    assert sum(tag == "figcaption" for tag, _ in found.tags) == len(there - left) > 20 and left < there
    text = found.text.replace("\xa0", " ")
    thoughts = text[text.index("Thoughts, token by token") :]
    folded = [attributes for tag, attributes in found.tags if tag == "details"]
    assert folded and not any("open" in attributes for attributes in folded) and thoughts.count("reasoning, steered: ") == len(folded)
    assert "<script>alert" not in (run / "report.html").read_text(encoding="utf-8")


def test_damaged_and_empty_tables_say_so(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "tables" / "detection.parquet").write_bytes(b"PAR1 not a table")
    TABLES["collapse"]().head(0).to_parquet(run / "tables" / "collapse.parquet")
    (run / "provenance.json").write_text('{"seed": ', encoding="utf-8")
    report(run)
    text = page(run).text
    assert "detection table cannot be read" in text and "collapse table is empty" in text and "provenance.json is damaged" in text
    assert "83% → 5%" in text


def test_an_empty_run_says_so_and_no_run_is_an_error(tmp_path):
    (tmp_path / "run").mkdir()
    report(tmp_path / "run")
    text = page(tmp_path / "run").text
    assert "holds no table to report on yet" in text and "no provenance.json" in text and text.count("thoughtlens demo") >= 4
    with pytest.raises(FileNotFoundError, match="thoughtlens demo"):
        report(tmp_path / "elsewhere")


def test_text_from_data_stays_text(tmp_path):
    run = make_run(tmp_path / f"run {SCRIPT.replace('/', '')}")
    for name, columns in (
        ("collapse", ("category", "attack", "judge")),
        ("detection", ("span", "probe")),
        ("restoration", ("vector", "gate", "split")),
    ):
        table = pd.read_parquet(run / "tables" / f"{name}.parquet")
        for column in columns:
            table[column] = [SCRIPT + str(value) if value not in ("all", *BESIDE) else value for value in table[column]]
        table.to_parquet(run / "tables" / f"{name}.parquet")
    trajectory = pd.read_parquet(run / "tables" / "trajectory.parquet")
    trajectory.assign(model=SCRIPT, prompt_id=SCRIPT + trajectory["prompt_id"]).to_parquet(run / "tables" / "trajectory.parquet")
    (run / "provenance.json").write_text(json.dumps({SCRIPT: {"note": f"</script>{SCRIPT}"}}), encoding="utf-8")
    report(run)
    raw, found = (run / "report.html").read_text(encoding="utf-8"), page(run)
    assert "<script>alert" not in raw
    assert sum(tag == "script" for tag, _ in found.tags) == sum(tag == "script" for tag, _ in page_of(run, "plain").tags)
    assert found.text.count(SCRIPT) > 15
    labels = json.dumps([shown(found.blocks[name]) for name in found.blocks if name != "themes"])
    assert "&lt;script&gt;" in labels and "<script" not in labels


def shown(value: object, told: frozenset[int] | None = None) -> object:
    """What plotly writes on the page: of `customdata`, which carries ids for clicks as well, what the hover text names."""
    if isinstance(value, dict):
        named = frozenset(map(int, re.findall(r"customdata\[(\d+)\]", str(value.get("hovertemplate", "")))))
        return {key: shown(part, named if key == "customdata" else None) for key, part in value.items()}
    if isinstance(value, list):
        if told is not None and not any(isinstance(part, list) for part in value):
            return [part for index, part in enumerate(value) if index in told]
        return [shown(part, told) for part in value]
    return value


def page_of(run: Path, name: str) -> Page:
    """The page of an untouched run, to compare with."""
    other = make_run(run.parent / name)
    report(other)
    return page(other)


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    (run / "report.html").write_text("old", encoding="utf-8")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in run.iterdir()) == ["provenance.json", "report.html", "tables"]


def test_viz_never_imports_torch():
    code = "import sys, thoughtlens.viz.report; assert not {'torch', 'transformers'} & set(sys.modules), 'viz imported torch'"
    house = str(Path(thoughtlens.__file__).parent.parent)
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": house})
    assert asked.returncode == 0, asked.stderr
