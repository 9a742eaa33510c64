"""What lies on disk against what was published: found where it is, counted, every missing picture told, nothing claimed that does not fit."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made import put_csv, put_json, put_jsonl, put_parquet, put_pictures, shot
from rich.console import Console, RenderableType
from thoughtlens.experiments.benchmarks import BENCHMARKS, PUBLISHED
from thoughtlens.experiments.benchmarks.benchmark import Benchmark, BenchmarkProblem, Table, Variant
from thoughtlens.experiments.benchmarks.checking import Checked, check, listed, said

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
WUGS = Benchmark(
    name="wugs",
    title="The wugs",
    paper="Zib 2020",
    home="example.org/wugs",
    licence="MIT",
    hazards={"Wugs": "ncr"},
    variants={
        "shown": Variant(
            (
                Table(
                    ("data/wugs.csv", "wugs.csv"), {"id": "{n}", "text": "{say}", "category": "{kind}", "harmful": True}, ("pics/{n}.png",)
                ),
            ),
            3,
        ),
        "text": Variant((Table(("data/wugs.csv", "wugs.csv"), {"id": "{n}", "text": "{say}", "category": "{kind}"}),), 4),
    },
)
ZIBS = Benchmark(
    name="zibs",
    title="The zibs [of 2021]",
    paper="Zib 2021",
    home="example.org/zibs",
    licence="CC BY 4.0",
    variants={
        "all": Variant(
            (
                Table(
                    ("*.json",),
                    {"id": "{zib}", "text": "{ask}"},
                    instead=(Table(("*.parquet",), {"id": "{zib}", "text": "{hub}"}, (lambda row: row["image"],), ("image",)),),
                ),
            ),
            None,
        )
    },
)
KNOWN = {"wugs": WUGS, "zibs": ZIBS}
ROWS = [{"n": str(n), "say": f"florp {n}", "kind": "Wugs" if n else "Snorks"} for n in range(3)]


def wugs(folder: Path, *pictures: int) -> Path:
    put_pictures(folder, *(f"pics/{n}.png" for n in pictures))
    return put_csv(folder / "data" / "wugs.csv", ROWS)


def words(told: RenderableType, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(told)
    return console.file.getvalue()  # type: ignore[attr-defined]


def where(found: list[Checked]) -> dict[str, list[Path]]:
    return {
        name: [one.where for one in found if f"{one.benchmark} {one.variant}" == name]
        for name in dict.fromkeys(f"{one.benchmark} {one.variant}" for one in found)
    }


def test_a_folder_is_found_counted_and_compared(tmp_path: Path) -> None:
    wugs(tmp_path / "Wugs-main", 0, 2)
    shown, text = check(tmp_path, known=KNOWN)
    assert (shown.where, shown.prompts, shown.published, shown.agrees, shown.licence) == (tmp_path / "Wugs-main", 3, 3, True, "MIT")
    assert (shown.missing, shown.lacking, shown.whole) == (("pics/1.png",), 1, False)
    assert (text.prompts, text.published, text.agrees, text.missing, text.whole) == (3, 4, False, (), False)
    assert shown.unmapped == text.unmapped == ("Snorks",)


def test_the_benchmark_may_be_the_root_itself_a_folder_in_it_or_a_file(tmp_path: Path) -> None:
    file = wugs(tmp_path / "w", 0, 1, 2)
    for root, place in ((tmp_path, tmp_path / "w"), (tmp_path / "w", tmp_path / "w"), (file, file)):
        assert where(check(root, known=KNOWN)) == {"wugs shown": [place], "wugs text": [place]}
        assert check(root, known=KNOWN)[0].whole


def test_every_copy_is_told_and_a_folder_in_a_copy_is_none(tmp_path: Path) -> None:
    for name in ("one", "two"):
        wugs(tmp_path / name, 0)
    shutil.copytree(tmp_path / "two", tmp_path / "two" / "old" / "deep")
    assert where(check(tmp_path, known=KNOWN)) == {f"wugs {variant}": [tmp_path / "one", tmp_path / "two"] for variant in WUGS.variants}


def test_a_copy_in_the_root_hides_none_in_a_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "copy"):
        put_csv(folder / "wugs.csv", ROWS)
    assert where(check(tmp_path, known=KNOWN)) == {f"wugs {variant}": [tmp_path, tmp_path / "copy"] for variant in WUGS.variants}


@pytest.mark.parametrize("pictures", [(0, 2), (0, 1, 2)])
def test_what_lies_deeper_is_read_from_where_most_pictures_are(tmp_path: Path, pictures: tuple[int, ...]) -> None:
    """The file two folders down, its pictures beside the root: only from the root they are found."""
    put_csv(tmp_path / "a" / "b" / "wugs.csv", ROWS)
    put_pictures(tmp_path, *(f"pics/{n}.png" for n in pictures))
    (one, _) = check(tmp_path, known=KNOWN)
    assert one.where == tmp_path and len(one.missing) == 3 - len(pictures)


def test_files_of_the_right_name_with_other_columns_are_no_benchmark(tmp_path: Path) -> None:
    put_json(tmp_path / "other" / "zibs.json", [{"id": 1, "ask": "florp"}])
    put_json(tmp_path / "numbers" / "list.json", [1, 2])
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(BenchmarkProblem, match="hold no file of wugs, zibs as published:\nwugs: example.org/wugs\nzibs: example.org/zibs"):
        check(tmp_path, known=KNOWN)
    put_json(tmp_path / "mine" / "z.json", [{"zib": 1, "ask": "florp"}])
    (one,) = check(tmp_path, known=KNOWN)
    assert (one.where, one.prompts, one.agrees, one.whole) == (tmp_path / "mine", 1, True, True)


@pytest.mark.parametrize("kind", ["json", "jsonl as json", "parquet"])
def test_every_form_of_the_files_is_known(tmp_path: Path, kind: str) -> None:
    rows = [{"zib": n, "ask": "florp"} for n in (1, 2)]
    if kind == "parquet":
        put_parquet(tmp_path / "hub" / "data" / "a.parquet", [{"zib": n, "hub": "florp", "image": shot(n)} for n in (1, 2)])
    else:
        (put_json if kind == "json" else put_jsonl)(tmp_path / "hub" / "a.json", rows)
    (one,) = check(tmp_path, known=KNOWN)
    assert (one.benchmark, one.prompts, one.whole) == ("zibs", 2, True)


def test_a_benchmarks_own_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    wugs(tmp_path / "w").write_bytes(b"n,say,kind\n1,\xff\xfe,x\n")
    for one in check(tmp_path, known=KNOWN):
        assert "wugs.csv cannot be read" in one.problem and not one.agrees and not one.whole
    told = words(said(check(tmp_path, known=KNOWN)))
    assert "cannot be read" in told and "wugs, text cannot be read" in told


def test_an_id_that_occurs_twice_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    put_csv(tmp_path / "w" / "wugs.csv", [*ROWS, ROWS[0]])
    put_json(tmp_path / "z.json", [{"zib": 1, "ask": "florp"}])
    found = check(tmp_path, known=KNOWN)
    assert [("occurs twice" in one.problem) for one in found] == [True, True, False]
    put_json(tmp_path / "z.json", [{"zib": 1, "ask": "florp"}] * 2)
    (broken,) = check(tmp_path, ["zibs"], known=KNOWN)  # of which nobody knows how many there should be
    assert "occurs twice" in broken.problem and not broken.agrees and not broken.whole


def test_a_variant_in_two_files_of_which_one_lacks(tmp_path: Path) -> None:
    both = replace(WUGS, variants={"two": Variant((*WUGS.variants["text"].tables, Table(("more.csv",), {"id": "m{m}", "text": "{m}"})), 4)})
    wugs(tmp_path / "w")
    (one,) = check(tmp_path, known={"wugs": both})
    assert one.where == tmp_path / "w" and "holds none of more.csv" in one.problem
    put_csv(tmp_path / "w" / "more.csv", [{"m": "1"}])
    (one,) = check(tmp_path, known={"wugs": both})
    assert (one.where, one.prompts, one.whole) == (tmp_path / "w", 4, True)
    shutil.move(tmp_path / "w" / "more.csv", tmp_path / "elsewhere.csv")
    put_csv(tmp_path / "x" / "more.csv", [{"m": "1"}])
    (one,) = check(tmp_path, known={"wugs": both})
    assert (one.where, one.prompts) == (tmp_path, 4)


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    wugs(tmp_path / "w")
    put_json(tmp_path / "z" / "z.json", [{"zib": 1, "ask": "florp"}])
    assert {one.benchmark for one in check(tmp_path, known=KNOWN)} == {"wugs", "zibs"}
    assert {one.benchmark for one in check(tmp_path, ["zibs"], known=KNOWN)} == {"zibs"}
    with pytest.raises(BenchmarkProblem, match="hold no file of zibs as published:\nzibs: example.org/zibs"):
        check(tmp_path / "w", ["wugs", "zibs"], known=KNOWN)
    with pytest.raises(ValueError, match="unknown benchmark 'snorks'; known are wugs, zibs"):
        check(tmp_path, ["snorks"], known=KNOWN)
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        check(tmp_path / "nowhere", known=KNOWN)


def test_the_message_names_every_missing_picture_once(tmp_path: Path) -> None:
    shown = replace(WUGS.variants["shown"], prompts=300)
    rows = [{"n": str(n), "say": "florp", "kind": "Wugs"} for n in range(300)]
    put_csv(tmp_path / "w" / "wugs.csv", rows)
    put_pictures(tmp_path / "w", "pics/7.png")
    told = words(said(check(tmp_path, known={"wugs": replace(WUGS, variants={"a": shown, "b": shown})})))
    message = told[told.index("pictures are missing") :].splitlines()[1:]
    assert message == [str(tmp_path / "w" / "pics" / f"{n}.png") for n in range(300) if n != 7]
    assert "299 pictures are missing, 598 prompts lack theirs" in told
    narrow = words(said(check(tmp_path, known=KNOWN)), width=30)
    assert str(tmp_path / "w" / "pics" / "299.png") in narrow.replace("\n", "")


def test_a_picture_of_several_prompts_is_missing_once(tmp_path: Path) -> None:
    table = replace(WUGS.variants["shown"].tables[0], images=("pics/wug.png",))
    wugs(tmp_path / "w")
    (one,) = check(tmp_path, known={"wugs": replace(WUGS, variants={"shown": Variant((table,), 3)})})
    assert (one.missing, one.lacking, one.prompts) == (("pics/wug.png",), 3, 3)


def test_the_table_tells_counts_licence_and_unmapped_categories(tmp_path: Path) -> None:
    wugs(tmp_path / "w", 0, 1, 2)
    put_json(tmp_path / "z" / "z.json", [{"zib": 1, "ask": "florp"}])
    told = words(said(check(tmp_path, known=KNOWN)))
    lines = [line.split() for line in told.splitlines() if line.strip()]
    assert ["wugs", "shown", str(tmp_path / "w"), "3", "3", "0", "MIT"] in lines
    assert any(line[:2] == ["wugs", "text"] and "published" in line and "4" in line for line in lines)
    assert any(line[:2] == ["zibs", "all"] and "unknown" in line and line[-3:] == ["CC", "BY", "4.0"] for line in lines)
    assert "wugs (shown, text): no hazard is known for the categories Snorks" in told and "missing," not in told


def test_the_list_tells_all_of_every_benchmark() -> None:
    told = " ".join(words(listed(KNOWN)).split())
    for benchmark in KNOWN.values():
        for part in (benchmark.name, benchmark.title, benchmark.measures, benchmark.licence, benchmark.home, benchmark.paper):
            assert part in told
    assert "shown 3" in told and "text 4" in told and "all ?" in told
    names = words(listed())
    assert all(f"  {name} " in names for name in BENCHMARKS)


@pytest.mark.skipif(not (DATA / "FigStep").is_dir(), reason="the published files are not here")
@pytest.mark.parametrize("root", ["", "FigStep"])
def test_published_files_of_figstep(root: str) -> None:
    """Of 500 and 50 pictures 20 and 10 are here; counted by listing the folders."""
    known = {"figstep": PUBLISHED["figstep"]}
    found = {one.variant: one for one in check(DATA / root, known=known)}
    pictures = DATA / "FigStep" / "data" / "images"
    full, tiny, text = (found[name] for name in ("full", "tiny", "text"))
    assert {one.where for one in found.values()} == {DATA / "FigStep"}
    assert (full.prompts, len(full.missing), full.agrees) == (500, 500 - len(list((pictures / "SafeBench").iterdir())), True)
    assert len(full.missing) == 480 and (tiny.prompts, len(tiny.missing)) == (50, 50 - len(list((pictures / "SafeBench-Tiny").iterdir())))
    assert text.whole and text.prompts == len(pd.read_csv(DATA / "FigStep" / "data" / "question" / "safebench.csv"))
    assert not any((pictures.parents[1] / picture).exists() for picture in full.missing) and not full.unmapped
    licences = {row["license"] for row in json.loads((DATA / "PROVENANCE.json").read_text()) if row["benchmark"] == "FigStep"}
    assert licences == {text.licence}
