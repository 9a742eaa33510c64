"""The made run: every table is whole, what tells the same thing agrees, and figures can be drawn of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from thoughtlens.viz.made_run import make_run
from thoughtlens.viz.plotlyjs import plotlyjs
from thoughtlens.viz.sections import drawings
from thoughtlens.viz.tables import COLUMNS, read_table, wilson

ALL_OF_THEM = (
    *("prompts", "answers", "readouts", "projection", "collapse", "detection", "restoration", "sweep", "comparison", "trajectory"),
    *("curves", "cliff", "transfer", "geometry", "heads", "blind_spots", "harm_histogram"),
)
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"), prompts=200, layers=4, token_scores=6000, texts=(SCRIPT, "florp"))


@pytest.fixture(scope="module")
def tables(run: Path) -> dict[str, pd.DataFrame]:
    return {name: read_table(run, name) for name in ALL_OF_THEM}


def test_every_table_has_its_columns_and_no_other_file_is_there(run, tables):
    assert sorted(path.stem for path in (run / "tables").iterdir()) == sorted(tables)
    assert all(set(COLUMNS[name]) <= set(table) for name, table in tables.items())
    assert json.loads((run / "provenance.json").read_text())["prompts"] == 200


def test_prompts_are_sorted_pairs_with_pictures_that_open(run, tables):
    prompts = tables["prompts"]
    assert prompts["prompt_id"].is_unique and prompts["prompt_id"].is_monotonic_increasing and len(prompts) == 200
    assert prompts["text"].tolist()[:2] == [SCRIPT, "florp"] and SCRIPT not in prompts["text"].tolist()[2:]
    pairs = prompts[prompts["twin"] != ""].set_index("prompt_id")
    twins = pairs.loc[pairs["twin"]]
    assert (twins["twin"] == pairs.index).all() and (twins["group"].to_numpy() == pairs["group"]).all()
    assert (twins["harmful"].to_numpy() != pairs["harmful"]).all()
    assert prompts.groupby("group")["split"].nunique().eq(1).all() and set(prompts["split"]) == {"train", "dev", "test"}
    assert prompts["harmful"].isna().sum() == (prompts["category"] == "tasks").sum() == 10
    for name in {image for images in prompts["images"] for image in images}:
        with Image.open(run / name) as picture:
            assert picture.format == "PNG"


def test_the_read_tokens_are_the_answer(tables):
    answers = tables["answers"].set_index(["prompt_id", "model", "condition"])
    outputs = tables["readouts"].groupby(["prompt_id", "model", "condition", "layer"], sort=False)
    for (prompt_id, model, condition, _), rows in outputs:
        assert rows["position"].tolist() == list(range(-1, len(rows) - 1))
        thought = rows[rows["kind"] == "thought"]
        one = answers.loc[(prompt_id, model, condition)]
        assert "".join(thought["token"]).strip() == one["thought"] and thought["fired"].sum() == one["fired"]
        assert (
            thought["step"].tolist()
            == np.repeat(range(thought["step"].max() + 1), [len(s.split()) + 1 for s in one["thought"].split(" .")[:-1]]).tolist()
        )
        assert rows["kind"].tolist()[:2] == ["template", "marker"] and rows["kind"].tolist()[-2:] == ["marker", "answer"]
    assert outputs.ngroups == 4 * tables["readouts"][["prompt_id", "model", "condition"]].drop_duplicates().shape[0]
    assert 5000 < len(tables["readouts"]) <= 6000


def test_rows_that_are_read_together_lie_together(run, tables):
    order = tables["readouts"][["prompt_id", "model", "condition", "layer", "position"]]
    pd.testing.assert_frame_equal(order, order.sort_values(list(order.columns), ignore_index=True))
    order = tables["projection"][["span", "layer", "method"]]
    groups = order[order.ne(order.shift()).any(axis=1)]
    assert len(groups) == len(order.drop_duplicates()) == 6 * 4 * 2
    for name in ("prompts", "answers", "readouts", "projection"):
        assert tables[name]["prompt_id"].dtype == "str", "names, not codes"
        assert pq.ParquetFile(run / "tables" / f"{name}.parquet").metadata.row_group(0).num_rows <= 20_000


def test_collapse_is_counted_from_the_answers(tables):
    joined = tables["answers"].merge(tables["prompts"], on="prompt_id").query("split == 'test'")
    asked = joined[(joined["harmful"] == True) & (joined["verdict"] != "unscored")]  # noqa: E712
    rates = tables["collapse"].query("metric == 'attack_success' and channel == 'answer' and benchmark == 'all'")
    counted = 0
    for row in rates.to_dict("records"):
        mine = asked[(asked["model"] == row["model"]) & (asked["condition"] == row["condition"])]
        for column in ("attack", "category"):
            mine = mine if row[column] == "all" else mine[mine[column] == row[column]]
        hits = (mine["verdict"] == "unsafe").sum()
        assert (row["numerator"], row["n"]) == (hits, len(mine)) and (row["low"], row["high"]) == pytest.approx(wilson(hits, len(mine)))
        counted += 1
    assert counted == len(rates) > 40
    told = joined.groupby(["model", "condition"])["ended"].agg(lambda ended: (~ended).sum())
    truncated = tables["collapse"].query("metric == 'truncated' and benchmark == 'all' and attack == 'all' and category == 'all'")
    assert truncated.set_index(["model", "condition"])["numerator"].to_dict() == told.to_dict()


def test_histograms_count_every_harmful_answer_once(tables):
    histogram = tables["harm_histogram"]
    joined = tables["answers"].merge(tables["prompts"], on="prompt_id").query("split == 'test' and harmful == True")
    sizes = histogram.groupby(["model", "condition", "channel"])["n"].sum().unstack()
    assert (sizes["answer"] == sizes["thought"]).all() and sizes["answer"].to_dict() == joined.groupby(
        ["model", "condition"]
    ).size().to_dict()
    five = histogram.query("rating == 5 and channel == 'answer'").groupby(["model", "condition"])["n"].sum()
    assert (
        five.to_dict()
        == joined[joined["answer_rating"] == 5].groupby(["model", "condition"]).size().reindex(five.index, fill_value=0).to_dict()
    )


def test_harm_shows_deeper_and_fades_in_the_reasoning_model(tables):
    joined = tables["readouts"].merge(tables["prompts"][["prompt_id", "harmful"]], on="prompt_id").query("kind == 'thought'")
    apart = [roc_auc_score(rows["harmful"].astype(bool), rows["score"]) for _, rows in joined.groupby("layer")]
    assert apart == sorted(apart) and apart[0] < 0.6 and apart[-1] > 0.95
    drawn = tables["projection"].query("method == 'lda'").merge(tables["prompts"][["prompt_id", "harmful"]], on="prompt_id")
    for _, rows in drawn.groupby(["span", "layer"]):
        positive = rows["harmful"].fillna(False).astype(bool)
        assert rows["share_x"].iloc[0] == pytest.approx(roc_auc_score(positive, rows["x"]), abs=1e-6)
    drop = tables["cliff"].query("side == 'difference'").set_index(["model", "condition"])["drop"]
    assert drop["reasoning", "unsteered"] > 3 > abs(drop["safe", "unsteered"])
    success = tables["collapse"].query(
        "metric == 'attack_success' and channel == 'answer' and benchmark == 'all' and attack == 'all' and category == 'all'"
    )
    value = success.set_index(["model", "condition"])["value"]
    assert (
        value["reasoning", "unsteered"] > 0.5
        and max(value["safe", "unsteered"], value["base", "unsteered"], value["reasoning", "steered"]) < 0.3
    )


DRAWN = [drawing for drawing in drawings().values() if set(drawing.tables) <= set(ALL_OF_THEM)]


@pytest.mark.parametrize("drawing", DRAWN, ids=lambda drawing: drawing.name)
def test_figures_can_be_drawn_of_it_by_the_plotly_js_of_the_pages(tables, drawing):
    figure = drawing.make(*(tables[name] for name in drawing.tables))
    assert len(figure.data) and figure.layout.title.text
    assert {trace.type for trace in figure.data} <= set(re.findall(r'moduleType:"trace",name:"(\w+)"', plotlyjs()))


def test_the_same_seed_writes_the_same_numbers_another_one_others(tmp_path):
    small = {"prompts": 20, "layers": 2, "token_scores": 300}
    folders = [make_run(tmp_path / name, seed=seed, **small) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, again, other = ({name: read_table(folder, name) for name in ALL_OF_THEM} for folder in folders)
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, again[name])
    assert not first["readouts"]["score"].equals(other["readouts"]["score"])


@pytest.mark.parametrize(
    ("given", "said"),
    [({"prompts": 9}, "9 prompts"), ({"layers": 0}, "0 layers"), ({"prompts": 10, "texts": ["x"] * 11}, "11 given texts")],
)
def test_what_cannot_be_made(tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        make_run(tmp_path, **given)


def test_a_run_of_a_study_is_left_alone(tmp_path):
    (tmp_path / "prompts.jsonl").touch()
    with pytest.raises(FileExistsError, match="not made up"):
        make_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_the_smallest_one(tmp_path):
    folder = make_run(tmp_path, prompts=10, layers=1, token_scores=1)
    assert read_table(folder, "readouts")["prompt_id"].nunique() == 1 and set(read_table(folder, "readouts")["layer"]) == {0}
