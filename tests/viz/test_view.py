"""A run in a notebook: the report's figures by name, and thoughts as coloured tokens that match the tables."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
import thoughtlens as tl
from thoughtlens.viz import theme
from thoughtlens.viz.figures.tax import tax_by_category
from thoughtlens.viz.made_run import make_run
from thoughtlens.viz.tables import TableProblem

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", prompts=30, layers=3, token_scores=2000, texts=[SCRIPT])


def test_figures_and_readings_are_those_of_the_report(made: Path) -> None:
    view = tl.view(made)
    table = view.table("collapse")
    expected = tax_by_category(table)
    assert json.loads(view.figure("tax_by_category").to_json()) == json.loads(expected.to_json())
    assert view.figure("tax_by_category", mode="dark").layout.template.layout.paper_bgcolor == theme.INK["dark"].paper
    span = view.table("detection")["span"].iloc[-1]
    assert span in view.figure("auroc_over_layers", span=span).layout.title.text
    said = view._repr_html_()
    assert unescape(said).count(view.reading("tax_by_category")) == 1 and "no holdouts table" in said
    with pytest.raises(ValueError, match="no figure is called 'tax'; there are tax_by_category"):
        view.figure("tax")
    with pytest.raises(TableProblem, match="no holdouts table.*thoughtlens probe"):
        view.reading("probe_held_out")
    with pytest.raises(FileNotFoundError, match="thoughtlens demo"):
        tl.view(made / "elsewhere")


def test_a_thought_shows_every_token_and_both_conditions(made: Path) -> None:
    readouts = pd.read_parquet(made / "tables" / "readouts.parquet")
    mine = readouts[(readouts["model"] == "reasoning") & (readouts["condition"] == "steered")]
    prompt = mine["prompt_id"].iloc[0]
    html = tl.view(made).thought(prompt, layer=1).html
    left, right = re.findall(r"<section>(.*?)</section>", html, re.DOTALL)
    assert "reasoning, unsteered: " in left and "reasoning, steered: " in right and "layer 1" in left
    tokens = mine[(mine["prompt_id"] == prompt) & (mine["layer"] == 1)].sort_values("position")
    words = [unescape(word).strip() for word in re.findall(r'<span class="tl-token[^>]*>(.*?)</span>', right, re.DOTALL)]
    assert words == [str(token).strip() or "⏎" for token in tokens["token"]] and right.count("tl-fired") == tokens["fired"].sum()
    with pytest.raises(TableProblem, match="read at layers 0, 1, 2, not at 9"):
        tl.view(made).thought(prompt, layer=9)
    with pytest.raises(TableProblem, match="under unsteered, steered, not under 'twisted'|under steered, unsteered, not under 'twisted'"):
        tl.view(made).thought(prompt, conditions=("twisted",))
    with pytest.raises(TableProblem, match="no row of prompt 'nowhere'"):
        tl.view(made).thought("nowhere")


def test_text_stays_text_and_other_models_words_are_not_taken_for_its_own(made: Path, tmp_path: Path) -> None:
    prompts = pd.read_parquet(made / "tables" / "prompts.parquet")
    prompt = prompts.loc[prompts["text"] == SCRIPT, "prompt_id"].item()
    html = tl.view(made).thought(prompt, model="base").html
    assert "<script>" not in html and "&lt;script&gt;" in html
    (tmp_path / "run" / "tables").mkdir(parents=True)
    for name in ("prompts", "answers"):
        pd.read_parquet(made / "tables" / f"{name}.parquet").to_parquet(tmp_path / "run" / "tables" / f"{name}.parquet")
    readouts = pd.read_parquet(made / "tables" / "readouts.parquet").assign(written_by="reasoning")
    asked = readouts.loc[readouts["model"] == "reasoning", "prompt_id"].iloc[0]
    base = readouts[(readouts["prompt_id"] == asked) & (readouts["model"] == "reasoning")].assign(model="base", condition="unsteered")
    base.to_parquet(tmp_path / "run" / "tables" / "readouts.parquet")
    told = tl.view(tmp_path / "run").thought(asked, model="base").html  # the reasoning model's tokens, read in base
    answer = pd.read_parquet(made / "tables" / "answers.parquet").query("prompt_id == @asked and model == 'base'")["answer"].iloc[0]
    assert "tl-token" not in re.sub(r"<style>.*?</style>", "", told, flags=re.DOTALL) and answer.split()[0] in told
