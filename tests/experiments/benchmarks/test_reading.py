"""Rows come out of files as they were put in, and what is no such file says where it broke; pictures are found, and only below the root."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import pixels, put_parquet, put_pictures, shot
from PIL import Image
from thoughtlens.experiments.benchmarks.pictures import Missing, pictures
from thoughtlens.experiments.benchmarks.reading import BATCH, Unreadable, files_near, files_of, read_rows

LETTERS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
TABLES = st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(LETTERS, min_size=n, max_size=n), min_size=1, max_size=5))


def rows(file: Path, root: Path | None = None) -> list[dict[str, Any]]:
    """What was put in: rows without where they stand."""
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in read_rows(file, root or file)]


@given(TABLES, st.sampled_from([".csv", ".tsv"]), st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_tables_keep_every_cell_as_text(tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], suffix: str, mark: bytes) -> None:
    file = tmp_path_factory.mktemp("table") / f"wugs{suffix}"
    head, text = [f"c{place}" for place in range(len(cells[0]))], io.StringIO(newline="")
    csv.writer(text, delimiter="\t" if suffix == ".tsv" else ",", quoting=csv.QUOTE_ALL).writerows([head, *cells])
    file.write_bytes(mark + text.getvalue().encode())
    assert rows(file) == [dict(zip(head, row, strict=True)) for row in cells]


@given(st.lists(st.dictionaries(LETTERS.filter(lambda name: not name.startswith("_")), LETTERS, max_size=3), min_size=2, max_size=5))
def test_json_and_json_lines_keep_every_record(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("records")
    lines = "\r\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    for name, text in (("a.json", json.dumps(records)), ("b.json", lines), ("c.jsonl", lines)):
        (folder / name).write_bytes(text.encode())
        assert rows(folder / name) == records
    (folder / "d.jsonl").write_text(json.dumps(records[0]))
    assert rows(folder / "d.jsonl") == records[:1]


@pytest.mark.parametrize("wrap", [lambda n: [n], lambda n: n])
def test_names_in_an_object_become_keys_and_rows_know_where_they_stand(wrap: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/wugs.json").write_text(json.dumps({"x": wrap({"a": 1}), "7": wrap({"a": None})}))
    where = {"_file": "in/wugs.json", "_stem": "wugs", "_folder": "in"}
    assert list(read_rows(tmp_path / "in/wugs.json", tmp_path)) == [
        {**where, "_key": "x", "a": 1, "_number": 1},
        {**where, "_key": "7", "a": None, "_number": 2},
    ]


def test_parquet_and_arrow_come_whole_and_in_order(tmp_path: Path) -> None:
    there = [{"id": n, "text": f"wug {n}", "image": shot(n)} for n in range(2 * BATCH + 3)]
    put_parquet(tmp_path / "wugs.parquet", there)
    table = pyarrow.Table.from_pylist(there)
    with pyarrow.OSFile(str(tmp_path / "wugs.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    assert rows(tmp_path / "wugs.parquet") == rows(tmp_path / "wugs.arrow") == there


def test_tables_of_one_column_long_cells_and_heads_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text('sentence\nflorp for 1,000 daxes\n\n"quoted, too"')
    assert rows(tmp_path / "one.csv") == [{"sentence": "florp for 1,000 daxes"}, {"sentence": "quoted, too"}]
    (tmp_path / "long.csv").write_text("a,\nNone," + "w" * 200_000)
    assert rows(tmp_path / "long.csv") == [{"a": "None", "column 2": "w" * 200_000}]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "a,b\n1,2\n3", "line 3 has 1 cells, the head 2"),
        ("a.csv", "a,b\n1,2,3", "line 2 has 3 cells, the head 2"),
        ("a.json", '{"a": 1}\n{"a": 2}\n{"a": ', "line 3: Expecting value"),
        ("a.jsonl", '{"a": 1}\n[2]', "a record in it is a list, not an object"),
        ("a.json", '[\n{"a": 1},\n{"a": ', "line 3 column"),
        ("a.json", '["a"]', "a record in it is a str, not an object"),
        ("a.json", '"a"', "it holds a str, not a list of objects"),
        ("a.json", "", "Expecting value"),
        ("a.csv", "a,b\n\xe9,2", "utf-8"),
        ("a.parquet", "PAR1", "Parquet"),
        ("a.arrow", "ARROW1", "cannot be read"),
    ],
)
def test_what_is_no_such_file_says_where_it_broke(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(Unreadable, match=f"{name} cannot be read: .*") as problem:
        list(read_rows(tmp_path / name, tmp_path))
    assert says in str(problem.value)


def test_files_are_found_below_the_root_at_any_depth_or_near_a_file(tmp_path: Path) -> None:
    for name in ("b/data/x.json", "b/data/a.json", "b/data/more/a.json", "b/y.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = lambda found: [file.relative_to(tmp_path).as_posix() for file in found]  # noqa: E731
    assert names(files_of(tmp_path, "data/*.json")) == ["b/data/a.json", "b/data/x.json"]
    (tmp_path / "b/data/data").mkdir()
    (tmp_path / "b/data/data/a.json").touch()
    assert names(files_of(tmp_path / "b", "data/a.json")) == ["b/data/a.json"] and not files_of(tmp_path, "y.tsv")
    assert files_of(tmp_path / "b/data/x.json", "other/folder/*.json") and not files_of(tmp_path / "b/data/x.json", "*.csv")
    assert files_near(tmp_path / "b/data/more/a.json", "y.csv") == [(tmp_path / "b/y.csv", tmp_path / "b")]
    assert files_near(tmp_path, "y.csv") == [(tmp_path / "b/y.csv", tmp_path)]


ROW = {"_file": "data/wugs.csv", "_number": 3}


def test_a_picture_is_an_image_bytes_or_a_file_near_its_row(tmp_path: Path) -> None:
    put_pictures(tmp_path, "data/images/a.png", "top/b.png")
    here, there = tmp_path / "data/images/a.png", tmp_path / "top/b.png"
    image = Image.new("P", (4, 4))
    assert pictures(image, tmp_path, ROW) == (image,)
    for cell in (pixels(1), {"bytes": pixels(1), "path": "gone.png"}):
        (found,) = pictures(cell, tmp_path, ROW)
        assert isinstance(found, Image.Image) and found.getpixel((0, 0)) == (40, 90, 200)
    assert pictures("a.png", tmp_path, ROW) == pictures("images/a.png", tmp_path, ROW) == (here,)
    assert pictures({"bytes": None, "path": "top/b.png"}, tmp_path, ROW) == pictures(["gone.png", "top/b.png"], tmp_path, ROW) == (there,)
    (tmp_path / "data/wugs.csv").touch()
    assert pictures("top/b.png", tmp_path / "data/wugs.csv", ROW) == (there,)


def test_a_root_may_be_told_from_here_or_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_pictures(tmp_path, "here/a.png", "home/a.png")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for here in ("here", "home"):
        monkeypatch.chdir(tmp_path / here)
        assert pictures("a.png", ".", ROW) == (tmp_path / here / "a.png",)
    assert pictures("a.png", "../here", ROW) == (tmp_path / "here/a.png",)
    assert pictures("a.png", "~", ROW) == pictures("a.png", tmp_path / "home", ROW) == (tmp_path / "home/a.png",)


def test_a_star_means_all_pictures_in_order_of_their_numbers(tmp_path: Path) -> None:
    put_pictures(tmp_path, *(f"p/w_{n}.png" for n in (10, 9, 1)), "p/v_2.png")
    assert [file.name for file in pictures("p/w_*.png", tmp_path, ROW)] == ["w_1.png", "w_9.png", "w_10.png"]  # type: ignore[union-attr]
    with pytest.raises(Missing, match=r"^p/x_\*\.png$"):
        pictures("p/x_*.png", tmp_path, ROW)


def test_no_row_reaches_outside_but_a_link_may_lead_out(tmp_path: Path) -> None:
    put_pictures(tmp_path, "out/secret.png", "root/data/a.png")
    root = tmp_path / "root"
    for name in ("../out/secret.png", "../../out/secret.png", str(tmp_path / "out/secret.png"), "../out/*.png"):
        with pytest.raises(Missing):
            pictures(name, root, ROW)
    (root / "val2014").symlink_to(tmp_path / "out")
    assert pictures("val2014/secret.png", root, ROW) == (root / "val2014/secret.png",)
    assert pictures(str(root / "data/a.png"), root, ROW) == pictures("../data/a.png", root, ROW) == (root / "data/a.png",)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "an empty file"), (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n", "Git LFS")]
)
def test_a_file_that_holds_no_picture_is_missing(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Missing, match=rf"^a.png \(.*{says}"):
        pictures("a.png", tmp_path, ROW)


@pytest.mark.parametrize("cell", [None, [], "", {"bytes": None, "path": None}])
def test_a_row_without_a_picture_says_so(cell: Any, tmp_path: Path) -> None:
    with pytest.raises(Missing, match="row 3 names none"):
        pictures(cell, tmp_path, ROW)
    with pytest.raises(ValueError, match="damaged"):
        pictures(b"no picture", tmp_path, ROW)
