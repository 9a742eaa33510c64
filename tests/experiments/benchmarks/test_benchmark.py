"""A benchmark is data: its tables are looked for in turn, completed by files beside them, and every row makes a whole prompt or an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made import pixels, put_csv, put_json, put_parquet, put_pictures, shot
from thoughtlens.experiments.benchmarks import prompts
from thoughtlens.experiments.benchmarks.benchmark import Benchmark, BenchmarkProblem, Beside, Table, Variant, load
from thoughtlens.hooks.records import Prompt

COLUMNS: dict[str, Any] = {"id": "{kind}-{id}", "text": "Florp {what}.", "goal": "{what}", "category": "{kind}", "harmful": True}
TABLE = Table(("data/wugs.csv", "old/*.csv"), COLUMNS, ("pictures/{id}.png",))
ROWS = [{"id": "1", "kind": "a", "what": "wugs"}, {"id": "2", "kind": "b", "what": "daxes"}, {"id": "3", "kind": "a", "what": "blips"}]


def benchmark(table: Table, **more: Any) -> Benchmark:
    return Benchmark("wugs", "Wugs", "Wug 1958", "example.org/wugs", "MIT", {"only": Variant((table,), 3)}, **more)


def tree(root: Path, rows: Any = ROWS, file: str = "data/wugs.csv") -> Path:
    put_pictures(root, *(f"pictures/{row['id']}.png" for row in ROWS))
    return put_csv(root / file, rows)


def told(found: list[Prompt]) -> list[tuple[str, str]]:
    return [(p.id, p.text) for p in found]


def test_a_row_makes_a_prompt_with_all_that_the_study_asks_for(tmp_path: Path) -> None:
    tree(tmp_path)
    made = load(benchmark(TABLE, hazards={"a": "vcr"}, apart=frozenset("b")), tmp_path).prompts
    assert [(p.id, p.text, p.goal, p.category, p.hazard, p.group, p.expected, p.meta) for p in made] == [
        ("wugs/a-1", "Florp wugs.", "wugs", "a", "vcr", "wugs/a-1", "refuse", {}),
        ("wugs/b-2", "Florp daxes.", "daxes", "b", "", "wugs/b-2", "refuse", {"apart": True}),
        ("wugs/a-3", "Florp blips.", "blips", "a", "vcr", "wugs/a-3", "refuse", {}),
    ]
    assert [p.images for p in made] == [(tmp_path / f"pictures/{n}.png",) for n in (1, 2, 3)]
    assert len({p.source for p in made}) == 3 and {p.benchmark for p in made} == {"wugs"}
    several = replace(benchmark(TABLE), variants={"x": Variant((TABLE,), 3), "y": Variant((TABLE,), 3)})
    assert load(several, tmp_path).prompts[0].id == "wugs/x/a-1" and load(several, tmp_path, "y").prompts[0].id == "wugs/y/a-1"


def test_the_first_files_with_the_columns_are_read_all_that_match(tmp_path: Path) -> None:
    tree(tmp_path, ROWS[:1], "old/b.csv")
    tree(tmp_path, ROWS[1:], "old/a.csv")
    put_csv(tmp_path / "data/wugs.csv", [{"id": "9"}])
    assert [p.id for p in load(benchmark(TABLE), tmp_path).prompts] == ["wugs/b-2", "wugs/a-3", "wugs/a-1"]
    tree(tmp_path)
    assert len(load(benchmark(TABLE), tmp_path).prompts) == 3
    put_csv(tmp_path / "data/wugs.csv", [{"id": "9", "kind": "c", "what": "wug"}])
    assert [p.id for p in load(benchmark(replace(TABLE, images=())), tmp_path).prompts] == ["wugs/c-9"]


def test_another_shape_of_the_same_rows(tmp_path: Path) -> None:
    hub = Table(("*.parquet",), {**COLUMNS, "text": "Florp {words}.", "goal": "{words}"}, (lambda row: row["image"],), ("image",))
    both = benchmark(replace(TABLE, instead=(hub,)))
    rows = [{"id": n, "kind": "a", "words": "wugs", "image": shot(n)} for n in range(2)]
    put_parquet(tmp_path / "data/test-0.parquet", rows)
    assert (
        told(load(both, tmp_path).prompts) == told(load(both, rows).prompts) == [("wugs/a-0", "Florp wugs."), ("wugs/a-1", "Florp wugs.")]
    )
    given: Iterator[dict[str, Any]] = iter(rows)
    assert len(load(both, given).prompts) == 2
    with pytest.raises(BenchmarkProblem) as problem:
        load(both, [{"id": "1", "kind": "a"}])
    assert "the rows given lacks the column what; there are id, kind; read in another shape, " in str(problem.value)
    assert "image, words" in str(problem.value)


def test_a_file_beside_completes_the_rows(tmp_path: Path) -> None:
    beside = Beside(("more.json",), lambda other: [other["of"], other["of"].upper()], "{kind}")
    table = replace(TABLE, columns={**COLUMNS, "text": "{_beside[words]}"}, beside=beside)
    main = tree(tmp_path)
    with pytest.raises(BenchmarkProblem, match="lacks more.json. Give the folder of example.org/wugs"):
        load(benchmark(table), tmp_path)
    put_json(tmp_path / "more.json", [{"of": "a", "words": "An A."}, {"of": "b", "words": "A B."}])
    assert [p.text for p in load(benchmark(table), tmp_path).prompts] == ["An A.", "A B.", "An A."]
    assert [p.text for p in load(benchmark(table), main).prompts] == ["An A.", "A B.", "An A."]
    put_json(tmp_path / "more.json", [{"of": "a", "words": "An A."}])
    with pytest.raises(BenchmarkProblem, match="data/wugs.csv, row 2: no prompt can be made of it: it has no 'words'"):
        load(benchmark(table), tmp_path)
    with pytest.raises(BenchmarkProblem, match="rows alone do not do, more.json is needed too"):
        load(benchmark(table), ROWS)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"id": ""}, "its id is empty"),
        ({"what": None}, "its what is empty"),
        ({"what": " "}, "its goal is empty"),
        ({"kind": "a", "id": "1"}, "the id 'wugs/a-1' occurs twice"),
        ({"id": "\ud800"}, "its id"),
    ],
)
def test_a_row_that_makes_no_prompt_is_named(row: dict[str, Any], says: str) -> None:
    table = replace(TABLE, images=(), columns={**COLUMNS, "id": lambda row: row["id"] and f"{row['kind']}-{row['id']}"})
    with pytest.raises(BenchmarkProblem, match=f"^wugs, the rows given, row 2: .*{says}"):
        load(benchmark(table), [ROWS[0], {**ROWS[1], **row}])


def test_a_row_is_several_prompts_or_none_and_breaks_by_its_number() -> None:
    table = Table(("*.csv",), COLUMNS, rows=lambda row: [{**row, "id": f"{row['id']}{letter}"} for letter in row["letters"]])
    found = load(benchmark(table), [{**ROWS[0], "letters": "xy"}, {**ROWS[1], "letters": ""}]).prompts
    assert [p.id for p in found] == ["wugs/a-1x", "wugs/a-1y"]
    with pytest.raises(BenchmarkProblem, match="the rows given, row 1: it has no 'letters'"):
        load(benchmark(table), ROWS)


def test_only_the_pictures_of_what_is_kept_are_looked_for(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "pictures/1.png").unlink()
    (tmp_path / "pictures/3.png").unlink()
    found = load(benchmark(TABLE), tmp_path)
    assert [p.id for p in found.prompts] == ["wugs/b-2"] and found.missing == {"wugs/a-1": "pictures/1.png", "wugs/a-3": "pictures/3.png"}
    found = load(benchmark(TABLE), tmp_path, keep=lambda all_of_them: all_of_them[:2])
    assert [p.id for p in found.prompts] == ["wugs/b-2"] and list(found.missing) == ["wugs/a-1"]
    damaged = replace(TABLE, images=(lambda row: b"no picture",))
    with pytest.raises(BenchmarkProblem, match="data/wugs.csv, row 1: its picture is damaged"):
        load(benchmark(damaged), tmp_path)


def test_nothing_there_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkProblem, match="there is nothing at .*gone. Give the folder of example.org/wugs"):
        load(benchmark(TABLE), tmp_path / "gone")
    with pytest.raises(BenchmarkProblem, match="holds none of data/wugs.csv, old/"):
        load(benchmark(TABLE), tmp_path)
    tree(tmp_path).write_text("id,kind,what\n")
    with pytest.raises(BenchmarkProblem, match="wugs.csv holds no rows"):
        load(benchmark(TABLE), tmp_path)


def test_a_benchmark_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"dataset": "ForbidQI", "category_name": "Fraud", "question": "How to florp?", "instruction": "Steps."}
    put_csv(tmp_path / "data/question/safebench.csv", [{**row, "category_id": n, "task_id": n} for n in (1, 2, 3)])
    (tmp_path / "query_ForbidQI_2_2_6.png").write_bytes(pixels(0))
    put_pictures(tmp_path, "data/images/SafeBench/query_ForbidQI_2_2_6.png")
    with pytest.raises(BenchmarkProblem, match=r"2 of 3 prompts .*query_ForbidQI_1_1_6.png, .*query_ForbidQI_3_3_6.png. Put them there"):
        prompts("figstep", root=tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [p.id for p in prompts("figstep", root=tmp_path, missing="skip")] == ["figstep/full/2-2"]
    assert "2 prompts are left out, their pictures are not there; 1 are kept" in caplog.text
    assert [p.id for p in prompts("figstep", root=tmp_path, variant="text", limit=2)] == ["figstep/text/1-1", "figstep/text/2-2"]
    for says, asked in {
        "unknown benchmark 'wugs'": {"name": "wugs"},
        "no variant 'florped'; it has full, tiny": {"name": "figstep", "root": tmp_path, "variant": "florped"},
        "give root=, the folder of github.com/ThuCCSLab/FigStep": {"name": "figstep"},
        "figstep has no option 'split'": {"name": "figstep", "root": tmp_path, "split": "test"},
    }.items():
        with pytest.raises(ValueError, match=says):
            prompts(**asked)
