"""The rows the app shows, against pandas over the same files; and what must not be read, from where, by whom."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from thoughtlens.viz.app import source as src
from thoughtlens.viz.app.source import Source
from thoughtlens.viz.app.state import State
from thoughtlens.viz.figures.attacks import attack_success_by_attack
from thoughtlens.viz.figures.tax import tax_by_category
from thoughtlens.viz.made_run import make_run
from thoughtlens.viz.tables import MADE_BY, TableProblem, wilson

STEERED = """it's "so" @ 50%_[x]; drop table prompts--"""
TEXTS = ("a 100% florp_wug", "It's ZIMMEL's <script>alert(1)</script>", 'the \\d+ "wug"', "Éclat of wugs; naïve", "100 flórp")
KEYS = ["prompt_id", "model", "condition"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, a condition and some texts have names that would mean something in SQL or in a pattern of files."""
    folder = tmp_path_factory.mktemp("it's [a]*") / 'run "1" ?'
    make_run(folder, prompts=120, layers=3, token_scores=4000, texts=TEXTS)
    for name in ("answers", "readouts"):
        path = folder / "tables" / f"{name}.parquet"
        table = pd.read_parquet(path)
        table = table.assign(condition=table["condition"].replace({"steered": STEERED})).sample(frac=1, random_state=0)
        table.to_parquet(path, row_group_size=500, index=False)  # in no order: what is shown is sorted all the same
    return folder


@pytest.fixture(scope="module")
def source(run: Path) -> Source:
    return Source.open(run)


@pytest.fixture(scope="module")
def tables(run: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(run / "tables" / f"{name}.parquet") for name in src.LARGE}


@pytest.fixture(scope="module")
def joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return tables["answers"].merge(tables["prompts"], on="prompt_id").sort_values(KEYS, ignore_index=True)


def kept(joined: pd.DataFrame, state: State) -> pd.DataFrame:
    """The filters and the search, by pandas."""
    rows = joined
    for name in ("model", "condition", "benchmark", "attack", "category", "verdict"):
        if getattr(state, name):
            rows = rows[rows[name] == getattr(state, name)]
    wanted = state.search.lower()
    return rows[rows[["text", "goal", "thought", "answer"]].apply(lambda row: any(wanted in cell.lower() for cell in row), axis=1)]


def test_facets(source, tables):
    found = src.facets(source)
    assert found["model"] == ["base", "reasoning", "safe"] and found["condition"] == ["unsteered", STEERED]
    for name, table in (("verdict", "answers"), ("benchmark", "prompts"), ("attack", "prompts"), ("category", "prompts")):
        assert found[name] == sorted(tables[table][name].unique())
    assert found["layer"] == ["0", "1", "2"] and found["span"][0] == "last_prompt"
    assert sorted(found["span"]) == sorted(tables["projection"]["span"].unique())


@pytest.mark.parametrize(
    "state",
    [
        State(),
        State(page=3),
        State(page=9),
        State(page=10),
        State(condition=STEERED, model="reasoning"),
        State(attack="typographic", verdict="unsafe"),
        State(category="wug care", benchmark="florp bench", search="FLORP"),
        State(search="%"),
        State(search="florp_wug"),
        State(search="it's zimmel's <SCRIPT>"),
        State(search="\\d+"),
        State(search="éclat"),
        State(search="flórp"),
        State(search="'; drop table answers; --"),
        State(search='"'),
        State(search="a|b(c[d*"),
        State(model="' OR '1'='1"),
        State(category="%"),
        State(verdict="unsafe'--"),
    ],
    ids=lambda state: state.query() or "everything",
)
def test_matching_is_what_pandas_keeps(source, joined, state):
    rows, of = src.matching(source, state)
    wanted = kept(joined, state)
    assert of == len(wanted)
    page = wanted.iloc[50 * state.page : 50 * state.page + 50].reset_index(drop=True)
    assert rows.shape[0] == len(page) and set(rows.columns) == set(joined.columns)
    pd.testing.assert_frame_equal(rows[list(joined.columns)].drop(columns="images"), page.drop(columns="images"), check_dtype=False)


def test_pages_do_not_depend_on_how_many_keys_are_looked_up_at_once(source, joined, monkeypatch):
    monkeypatch.setattr(src, "BLOCK", 7)
    src._kept.cache_clear()
    for limit in (1, 5, 7, 20):
        pages = [src.matching(source, State(page=page, attack="plain"), limit=limit) for page in range(40 // limit + 1)]
        wanted = kept(joined, State(attack="plain"))
        assert {of for _, of in pages} == {len(wanted)}
        found = pd.concat([rows for rows, _ in pages])[KEYS]
        assert found.to_numpy().tolist() == wanted[KEYS].head(len(found)).to_numpy().tolist() and len(found) == limit * len(pages)
    src._kept.cache_clear()


@settings(max_examples=12, deadline=None)
@given(st.text("aflorp_%'\"\\.* -W", max_size=6))
@example("")
@example("\x00")
@example("x" * 200)
def test_a_search_is_a_substring(source, joined, search):
    assert src.matching(source, State(search=search), limit=1)[1] == len(kept(joined, State(search=search)))


def test_a_prompt_and_its_answers(source, tables):
    one = tables["prompts"].iloc[7]
    found = src.prompt(source, one["prompt_id"])
    assert found.drop("images").to_dict() == one.drop("images").to_dict()
    assert found["images"] == list(one["images"]) and isinstance(found["images"], list)
    rows = src.answers(source, one["prompt_id"])
    wanted = tables["answers"][tables["answers"]["prompt_id"] == one["prompt_id"]]
    assert list(zip(rows["model"], rows["condition"], strict=True)) == [
        ("base", "unsteered"),
        ("reasoning", "unsteered"),
        ("reasoning", STEERED),
        ("safe", "unsteered"),
    ]
    pd.testing.assert_frame_equal(rows.sort_values(KEYS, ignore_index=True), wanted.sort_values(KEYS, ignore_index=True), check_dtype=False)


@pytest.mark.parametrize("prompt_id", ["made/999999", "'; drop table prompts; --", "made/%", "", "' OR true --"])
def test_a_prompt_that_is_not_there(source, prompt_id):
    with pytest.raises(TableProblem, match="has no prompt"):
        src.prompt(source, prompt_id)
    assert src.answers(source, prompt_id).empty and src.readable(source, prompt_id).empty


def test_tokens_come_in_order_and_say_what_else_can_be_read(source, tables):
    readouts = tables["readouts"]
    wanted = readouts[(readouts["condition"] == STEERED) & (readouts["layer"] == 2) & (readouts["prompt_id"] == "made/000001")]
    wanted = wanted.sort_values("position")
    found = src.tokens(source, "made/000001", "reasoning", STEERED, 2)
    assert list(found.columns) == ["position", "kind", "token", "step", "score", "fired"] and found["position"].is_monotonic_increasing
    pd.testing.assert_frame_equal(found, wanted[list(found.columns)].reset_index(drop=True), check_dtype=False)
    assert found.attrs == {"written_by": "reasoning", "span": "thought"}
    there = src.readable(source, "made/000001")
    pairs = readouts[readouts["prompt_id"] == "made/000001"][["model", "condition", "layer"]].drop_duplicates()
    assert sorted(map(tuple, there.to_numpy())) == sorted(map(tuple, pairs.to_numpy()))
    with pytest.raises(TableProblem, match=r"it has layers 0, 1, 2\."):
        src.tokens(source, "made/000001", "reasoning", STEERED, 31)
    with pytest.raises(TableProblem, match="nobody read this output"):
        src.tokens(source, "made/000001", "base", "unsteered", 0)


@pytest.mark.parametrize(
    "state",
    [
        State(span="thought", layer=1),
        State(span="last_prompt", layer=0, method="lda"),
        State(span="thought", layer=1, attack="plain", verdict="refused", model="safe"),
        State(span="thought", layer=1, search="florp_wug"),
        State(span="thought", layer=1, verdict="nothing"),
    ],
    ids=lambda state: state.query() or "everything",
)
def test_points_are_the_projected_rows_with_their_verdicts(source, tables, joined, state):
    found = src.points(source, state)
    drawn = tables["projection"].query("span == @state.span and layer == @state.layer and method == @state.method")
    wanted = drawn.merge(kept(joined, state), on=KEYS, suffixes=("", "_of_prompt"))
    assert found.attrs == {"of": len(wanted), "span": state.span, "layer": state.layer}
    columns = [*KEYS, "x", "y", "share_x", "span", "text", "goal", "attack", "category", "harmful", "benchmark", "verdict"]
    one, other = (table[columns].sort_values(KEYS, ignore_index=True) for table in (found, wanted))
    pd.testing.assert_frame_equal(one, other, check_dtype=False)


def test_points_without_an_answer_have_no_verdict(source, run, tables, tmp_path):
    (tmp_path / "tables").mkdir()
    for name in ("prompts", "projection"):
        os.link(run / "tables" / f"{name}.parquet", tmp_path / "tables" / f"{name}.parquet")
    tables["answers"].query("model != 'safe'").to_parquet(tmp_path / "tables" / "answers.parquet")
    found = src.points(Source.open(tmp_path), State(span="thought", layer=1))
    assert found.groupby("model")["verdict"].apply(lambda column: column.isna().all()).to_dict() == {"reasoning": False, "safe": True}


def test_where_points_are_drawn(source):
    assert src.place(source, State()) == ("thought", 2) and src.points(source, State()).attrs["span"] == "thought"
    assert src.place(source, State(span="last_prompt", layer=0)) == ("last_prompt", 0)
    with pytest.raises(TableProblem, match=r"layer 7; the table has layers 0, 1, 2\."):
        src.points(source, State(layer=7))
    with pytest.raises(TableProblem, match=r"at span \"'; --\", .* the table has spans last_prompt, thought"):
        src.points(source, State(span="'; --"))


def test_a_sample_of_points_is_the_same_every_time_and_has_every_model(source, monkeypatch):
    whole = src.points(source, State(span="thought", layer=1))
    monkeypatch.setattr(src, "MOST_POINTS", 40)
    first, again, deeper = (src.points(source, State(span="thought", layer=layer)) for layer in (1, 1, 2))
    assert len(first) == 40 and first.attrs["of"] == len(whole)
    pd.testing.assert_frame_equal(first, again)
    assert set(first["prompt_id"]) == set(deeper["prompt_id"]) and set(first["prompt_id"].value_counts()) == {2}
    assert set(first["prompt_id"]) != set(sorted(whole["prompt_id"].unique())[:20]), "a sample, not the first ones"


@pytest.mark.parametrize("by", ["category", "attack", "benchmark"])
@pytest.mark.parametrize(
    "chosen", [{}, {"attack": "plain"}, {"model": "reasoning"}, {"condition": STEERED, "verdict": "unsafe", "search": "x"}]
)
def test_rates_are_counted_again_under_the_filters(source, joined, by, chosen):
    state = State(**chosen)
    found = src.rates(source, state, (by,))
    rows = kept(joined, State(**{name: value for name, value in chosen.items() if name not in ("verdict", "search")}))
    rows = rows[(rows["split"] == "test") & (rows["harmful"] == True) & ~rows["verdict"].isin(["unscored", "unjudged"])]  # noqa: E712
    for key, group in [*rows.groupby(["model", "condition", by]), *rows.groupby(["model", "condition"])]:
        model, condition, value = (*key, "all")[:3]
        mine = found[(found["model"] == model) & (found["condition"] == condition) & (found[by] == value)]
        hits, n = int((group["verdict"] == "unsafe").sum()), len(group)
        assert mine[["numerator", "n"]].to_numpy().tolist() == [[hits, n]]
        assert mine[["value", "low", "high"]].to_numpy()[0] == pytest.approx([hits / n, *wilson(hits, n)])
    assert len(found) == rows.groupby(["model", "condition"])[by].nunique().add(1).sum()
    assert list(found["model"].unique()) == [name for name in ("base", "reasoning", "safe") if name in set(rows["model"])]
    beside = {"attack", "category", "benchmark"} - {by}
    assert all(set(found[name]) == {chosen.get(name, "all")} for name in beside)


def test_rates_without_filters_are_those_of_the_collapse_table(source):
    collapse = src.table(source, "collapse").replace({"condition": {"steered": STEERED}})
    collapse = collapse[(collapse["metric"] == "attack_success") & (collapse["channel"] == "answer") & (collapse["benchmark"] == "all")]
    for by, rest in (("category", "attack"), ("attack", "category")):
        wanted = collapse[collapse[rest] == "all"].set_index(["model", "condition", by])[["numerator", "n", "value", "low", "high"]]
        found = src.rates(source, State(), (by,)).set_index(["model", "condition", by])[wanted.columns]
        pd.testing.assert_frame_equal(found.sort_index(), wanted.sort_index(), check_dtype=False)


def test_rates_leave_out_what_no_judge_marked_and_values_that_are_empty(run, tables, joined, tmp_path):
    assert joined.query("split == 'test' and harmful == True and verdict == 'unscored'").shape[0] > 0
    (tmp_path / "tables").mkdir()
    prompts, answers = tables["prompts"], tables["answers"]
    category = prompts["category"].replace({"wug care": "", "tetom care": None})
    prompts.assign(category=category).to_parquet(tmp_path / "tables" / "prompts.parquet")
    answers.assign(verdict=answers["verdict"].replace({"refused": "unjudged"})).to_parquet(tmp_path / "tables" / "answers.parquet")
    found = src.rates(Source.open(tmp_path), State(), ("category",))
    counted = joined.query("split == 'test' and harmful == True and verdict in ('safe', 'unsafe', 'truncated')")
    assert found[found["category"] == "all"]["n"].sum() == len(counted)
    assert set(found["category"]) == {"all", *counted["category"]} - {"wug care", "tetom care"} and found["category"].notna().all()


def test_where_no_prompt_is_of_the_test_split_all_are_counted(run, tables, joined, tmp_path):
    (tmp_path / "tables").mkdir()
    os.link(run / "tables" / "answers.parquet", tmp_path / "tables" / "answers.parquet")
    for split in ("dev", None):
        tables["prompts"].assign(split=split).to_parquet(tmp_path / "tables" / "prompts.parquet")
        found = src.rates(Source.open(tmp_path), State(), ("attack",))
        counted = joined[(joined["harmful"] == True) & (joined["verdict"] != "unscored")].groupby(["model", "condition"]).size()  # noqa: E712
        assert found[found["attack"] == "all"].set_index(["model", "condition"])["n"].to_dict() == counted.to_dict()


def test_outcomes_are_the_harmful_rows_of_the_test_split(source, joined):
    found = src.outcomes(source, State(attack="plain", verdict="safe", search="zzz"))
    wanted = joined[(joined["harmful"] == True) & (joined["split"] == "test") & (joined["attack"] == "plain")]  # noqa: E712
    columns = [*KEYS, "verdict", "thought_unsafe", "answer_unsafe", "refusal", "benchmark", "attack", "category"]
    pd.testing.assert_frame_equal(found[columns], wanted[columns].reset_index(drop=True), check_dtype=False)
    assert found["thought_unsafe"].isna().any() and set(found["thought_unsafe"].dropna()) == {True, False}


def test_draws_are_listed_in_the_order_of_their_numbers():
    assert sorted(["random[10]", "random[2]", "shuffled", "2b", "", "10a"], key=src._natural) == [
        "",
        "2b",
        "10a",
        "random[2]",
        "random[10]",
        "shuffled",
    ]


def test_rates_can_be_drawn_as_the_collapse_table_is(source):
    found = src.rates(source, State(), ("category",))
    assert tax_by_category(found).data and attack_success_by_attack(src.rates(source, State(), ("attack",))).data
    with pytest.raises(ValueError, match="one of benchmark, attack, category, got prompt_id"):
        src.rates(source, State(), ("prompt_id",))


def test_a_table_is_read_once_and_again_when_its_file_changes(tmp_path, run):
    (tmp_path / "tables").mkdir()
    for name in ("cliff", "prompts"):
        pd.read_parquet(run / "tables" / f"{name}.parquet").to_parquet(tmp_path / "tables" / f"{name}.parquet")
    source = Source.open(tmp_path)
    first = src.table(source, "cliff")
    first["model"] = "changed by a reader"
    assert "changed by a reader" not in set(src.table(source, "cliff")["model"])
    assert (
        src.facets(source)["attack"] == ["image_swap", "plain", "prefix", "roleplay", "typographic"] and src.facets(source)["model"] == []
    )
    for name, column in (("cliff", "model"), ("prompts", "attack")):
        path = tmp_path / "tables" / f"{name}.parquet"
        table = pd.read_parquet(path)
        table.assign(**{column: [("n[2]", "n[10]")[at % 2] for at in range(len(table))]}).to_parquet(path)
        os.utime(path, ns=(1, 1))  # an older file counts as another one, too
    assert set(src.table(source, "cliff")["model"]) == {"n[2]", "n[10]"} and src.facets(source)["attack"] == ["n[2]", "n[10]"]
    assert src.prompt(source, "made/000001")["attack"] == "n[10]"
    for name in ("prompts", "nobody", "../cliff"):
        with pytest.raises(ValueError, match="no small table"):
            src.table(source, name)


CALLS = {
    "matching": (lambda s: src.matching(s, State(search="florp")), ("answers", "prompts")),
    "prompt": (lambda s: src.prompt(s, "made/000001"), ("prompts",)),
    "answers": (lambda s: src.answers(s, "made/000001"), ("answers",)),
    "tokens": (lambda s: src.tokens(s, "made/000001", "reasoning", "unsteered", 1), ("readouts",)),
    "readable": (lambda s: src.readable(s, "made/000001"), ("readouts",)),
    "points": (lambda s: src.points(s, State(span="thought", layer=1)), ("projection", "prompts", "answers")),
    "rates": (lambda s: src.rates(s, State(), ("category",)), ("answers", "prompts")),
    "outcomes": (lambda s: src.outcomes(s, State()), ("answers", "prompts")),
    "picture": (lambda s: src.picture(s, "made/000002", 0), ("prompts",)),
}


def broken(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "empty":
        pd.read_parquet(path).iloc[:0].to_parquet(path)
    elif how == "lacking":
        pd.read_parquet(path).drop(columns=["prompt_id"]).to_parquet(path)
    elif how == "no parquet":
        path.write_bytes(b"PAR1 is how it begins" * 20)
    else:
        whole = bytearray(path.read_bytes())
        whole[4 : len(whole) // 2] = b"\xa5" * (len(whole) // 2 - 4)  # the footer is fine, the pages are not
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "has no {} table"),
        ("empty", "{} table is empty"),
        ("lacking", "{} table lacks prompt_id"),
        ("no parquet", "damaged"),
        ("pages", "damaged"),
    ],
)
def test_a_broken_table_says_what_makes_it(run, tmp_path, how, said):
    for name in src.LARGE:
        (tmp_path / name / "tables").mkdir(parents=True)
        for other in src.LARGE:
            (tmp_path / name / "tables" / f"{other}.parquet").write_bytes((run / "tables" / f"{other}.parquet").read_bytes())
        broken(tmp_path / name / "tables" / f"{name}.parquet", how)
        source = Source.open(tmp_path / name)
        assert set(src.facets(source)) == {"model", "condition", "benchmark", "attack", "category", "verdict", "layer", "span"}
        for call, needs in CALLS.values():
            if name in needs:
                with pytest.raises(TableProblem, match=said.format(name)) as problem:
                    call(source)
                assert f"`{MADE_BY[name]}`" in str(problem.value) and name in str(problem.value)


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder at .*; `thoughtlens demo`"):
        Source.open(tmp_path / "nowhere")
    with pytest.raises(TableProblem, match="has no answers table"):
        src.matching(Source.open(tmp_path), State())


def test_columns_that_may_be_absent_are_not_asked_for(run, tmp_path):
    (tmp_path / "tables").mkdir()
    for name, without in (
        ("prompts", ["expected", "twin"]),
        ("answers", ["ended", "answer_rating", "thought_rating", "correct"]),
        ("projection", []),
        ("readouts", []),
    ):
        pd.read_parquet(run / "tables" / f"{name}.parquet").drop(columns=without).to_parquet(tmp_path / "tables" / f"{name}.parquet")
    source = Source.open(tmp_path)
    for name, (call, _) in CALLS.items():
        if name != "picture":
            call(source)
    assert "expected" not in src.prompt(source, "made/000001")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_parquet('{other}')",
        "SELECT * FROM read_parquet('{run}/tables/../tables/prompts.parquet/../collapse.parquet')",
        "SELECT * FROM read_text('{run}/provenance.json')",
        "SELECT * FROM glob('{run}/*')",
        "COPY (SELECT 1) TO '{run}/out.csv'",
        "ATTACH '{run}/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET allowed_paths = ['/']",
        "SELECT * FROM read_parquet('https://127.0.0.1/x.parquet')",
        "SELECT * FROM frame",
    ],
)
def test_the_connection_reads_nothing_else(source, run, sql):
    frame = pd.DataFrame({"a": [1]})  # noqa: F841  python variables are not looked up
    quoted = str(run).replace("'", "''")
    with source.connection.cursor() as cursor, pytest.raises(duckdb.Error):
        cursor.execute(sql.format(run=quoted, other=f"{quoted}/tables/collapse.parquet")).fetchall()
    assert sorted(path.name for path in run.iterdir()) == ["images", "provenance.json", "tables"]


def test_eight_threads_get_what_one_gets(source, tables):
    ids = [f"made/{number:06d}" for number in range(8)]

    def work(number: int) -> tuple[object, ...]:
        one = ids[number % 8]
        state = State(page=number % 3, span="thought", layer=number % 3, search="florp" if number % 2 else "")
        rows, of = src.matching(source, state)
        scored = src.tokens(source, one, "reasoning", "unsteered", number % 3)["score"].sum()
        points = src.points(source, state)["x"].sum()
        return (
            rows["prompt_id"].tolist(),
            of,
            src.prompt(source, one)["text"],
            scored,
            points,
            src.rates(source, state, ("attack",))["n"].sum(),
        )

    alone = [work(number) for number in range(12)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(12))) == alone


PNG, WEBP = b"\x89PNG\r\n\x1a\n" + b"x" * 30, b"RIFF\x00\x00\x00\x00WEBPVP8 "


@pytest.fixture
def pictured(run: Path, tmp_path: Path) -> Path:
    """A run with one prompt whose pictures are where and what they should not be."""
    folder = tmp_path / "run"
    (folder / "tables").mkdir(parents=True)
    (folder / "images").mkdir()
    outside = tmp_path / "outside.png"
    outside.write_bytes(PNG)
    (folder / "images" / "link.png").symlink_to(outside)
    (folder / "images" / "inside.png").symlink_to("good.png")
    (folder / "images" / "loop.png").symlink_to("loop.png")
    (folder / "images" / "folder.png").mkdir()
    os.mkfifo(folder / "images" / "pipe.png")
    contents = {
        "good.png": PNG,
        "a.jpg": b"\xff\xd8\xff\xe0x",
        "a.gif": b"GIF89ax",
        "a.webp": WEBP,
        "text.png": b"<svg onload=x>",
        "big.png": PNG + bytes(8 * 2**20),
    }
    for name, content in contents.items():
        (folder / "images" / name).write_bytes(content)
    names = [f"images/{name}" for name in (*contents, "inside.png", "link.png", "loop.png", "folder.png", "pipe.png", "gone.png")]
    names += ["../outside.png", str(outside), "images/../../outside.png", "", "images/\x00.png"]
    table = pd.read_parquet(run / "tables" / "prompts.parquet").iloc[:1]
    table.assign(images=[names]).to_parquet(folder / "tables" / "prompts.parquet")
    return folder


def test_pictures_are_shown_by_what_they_are(pictured, source, run):
    source_here, first = Source.open(pictured), "made/000000"
    names = src.prompt(source_here, first)["images"]
    kinds = {"good.png": "image/png", "a.jpg": "image/jpeg", "a.gif": "image/gif", "a.webp": "image/webp", "inside.png": "image/png"}
    for name, kind in kinds.items():
        content, found = src.picture(source_here, first, names.index(f"images/{name}"))
        assert found == kind and content == (pictured / "images" / name).read_bytes()
    wrong = {
        "text.png": "no PNG, JPEG",
        "big.png": "larger than 8 MB",
        "link.png": "outside the run",
        "loop.png": "cannot be read",
        **dict.fromkeys(("folder.png", "pipe.png", "gone.png"), "not there"),
    }
    for name, said in wrong.items():
        with pytest.raises(TableProblem, match=said):
            src.picture(source_here, first, names.index(f"images/{name}"))
    for index in range(names.index("../outside.png"), len(names)):
        with pytest.raises(TableProblem, match="outside the run|cannot be read|is not there"):
            src.picture(source_here, first, index)
    for index in (-1, len(names), 10**9):
        with pytest.raises(TableProblem, match=re.escape(f"none with number {index}")):
            src.picture(source_here, first, index)
    assert src.picture(source, "made/000002", 0) == ((run / "images" / "0.png").read_bytes(), "image/png")


def test_a_null_harmful_is_neither(source, tables):
    tasks = tables["prompts"][tables["prompts"]["harmful"].isna()]
    assert len(tasks) and src.prompt(source, tasks["prompt_id"].iloc[0])["harmful"] is None
    assert "tasks" not in set(src.rates(source, State(), ("category",))["category"])
    assert np.isfinite(src.rates(source, State(), ("category",))["value"]).all()
