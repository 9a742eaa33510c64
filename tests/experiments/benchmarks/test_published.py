"""Every benchmark loads from tiny trees of the shapes in which it is published, and says what is wrong with files that are not as published."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_a
import pytest
from made import Made
from PIL import Image
from thoughtlens.experiments.benchmarks import PUBLISHED, prompts
from thoughtlens.experiments.benchmarks.benchmark import BenchmarkProblem
from thoughtlens.experiments.benchmarks.taxonomy import HAZARDS
from thoughtlens.hooks.records import Prompt

MADE: dict[str, Made] = dict(made_a.MADE)
if importlib.util.find_spec("made_b"):
    MADE |= importlib.import_module("made_b").MADE
TEXT = (".csv", ".tsv", ".json", ".jsonl")


def those(keep: Callable[[Made], Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [case for case, made in MADE.items() if keep(made)])


def read(case: str, root: Path, **more: Any) -> list[Prompt]:
    name, variant = case.split("#")[0].split("@")
    return prompts(name, root=root, variant=variant, **more)


def told(found: list[Prompt]) -> list[tuple[Any, ...]]:
    """What a file says, whatever ends its lines."""
    return [(p.id, p.text.replace("\r\n", "\n"), p.goal, p.category, p.group, p.harmful, p.expected, p.twin) for p in found]


def rewritten(file: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """The rows of a file changed in place and written again, as the kind of file it is."""
    text = file.read_text()
    if file.suffix in (".csv", ".tsv"):
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=(mark := "\t" if file.suffix == ".tsv" else ",")))
        change(rows)
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=mark)
            writer.writeheader()
            writer.writerows(rows)
        return
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        rows = [json.loads(line) for line in text.splitlines()]
        change(rows)
        file.write_text("\n".join(map(json.dumps, rows)))
        return
    if isinstance(whole, list):
        change(whole)
    else:
        lists = [part for part in whole.values() if isinstance(part, list)]
        change(lists[0] if lists else list(whole.values()))
    file.write_text(json.dumps(whole))


def check(case: str, found: list[Prompt]) -> None:
    name, variant = case.split("#")[0].split("@")
    benchmark = PUBLISHED[name]
    by_id = {p.id: p for p in found}
    assert len(by_id) == len(found)
    for p in found:
        assert p.id.startswith(f"{name}/{variant}/" if len(benchmark.variants) > 1 else f"{name}/") and p.benchmark == name
        assert p.goal.strip() and p.category.strip() and p.group and p.source and p.attack
        assert p.hazard in ("", *HAZARDS) and bool(p.meta.get("apart")) is (p.category in benchmark.apart)
        if p.meta.get("kind") == "task":
            assert p.harmful is None and p.expected == "comply" and p.meta["gold"] and p.meta["answer"]
        else:
            assert p.expected in {True: ("refuse", "warn"), False: ("comply",)}[p.harmful is True] and p.harmful is not None
        if p.twin:
            assert by_id[p.twin].twin == p.id and by_id[p.twin].harmful is not p.harmful
        for picture in p.images:
            with picture if isinstance(picture, Image.Image) else Image.open(picture) as opened:
                assert opened.size == (4, 4)


def test_every_variant_of_every_benchmark_has_a_tree() -> None:
    there = {case.split("#")[0] for case in MADE}
    assert there == {f"{name}@{variant}" for name, benchmark in PUBLISHED.items() for variant in benchmark.variants}


@those(lambda made: True)
def test_the_published_tree_makes_whole_prompts(case: str, tmp_path: Path) -> None:
    MADE[case].write(tmp_path)
    found = read(case, tmp_path)
    assert len(found) == MADE[case].prompts and any(p.images for p in found) is (MADE[case].picture is not None)
    check(case, found)


@those(lambda made: made.hub)
def test_the_hub_form_makes_the_same_prompts(case: str, tmp_path: Path) -> None:
    made = MADE[case]
    made.write(tmp_path / "tree")
    made.hub(tmp_path / "hub")  # type: ignore[misc]
    tree, hub = read(case, tmp_path / "tree"), read(case, tmp_path / "hub")
    assert sorted(told(hub)) == sorted(told(tree))
    assert {p.id: len(p.images) for p in hub} == {p.id: len(p.images) for p in tree}
    check(case, hub)


@those(lambda made: made.alone)
def test_its_main_file_alone_makes_the_same_prompts(case: str, tmp_path: Path) -> None:
    main = MADE[case].write(tmp_path)
    found, whole = read(case, main), read(case, tmp_path)
    assert told(found) == told(whole) and [p.images for p in found] == [p.images for p in whole]


@those(lambda made: True)
def test_a_byte_order_mark_and_other_line_ends_change_nothing(case: str, tmp_path: Path) -> None:
    MADE[case].write(tmp_path)
    plain = told(read(case, tmp_path))
    for file in (file for file in tmp_path.rglob("*") if file.suffix in TEXT):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert told(read(case, tmp_path)) == plain


@those(lambda made: made.picture)
def test_a_missing_picture_is_named_and_only_its_prompt_left_out(case: str, tmp_path: Path) -> None:
    MADE[case].write(tmp_path)
    whole = read(case, tmp_path)
    picture = tmp_path / str(MADE[case].picture)
    shutil.rmtree(picture) if picture.is_dir() else picture.unlink()
    with pytest.raises(BenchmarkProblem, match=f"1 of {len(whole)} prompts .*{picture.name}"):
        read(case, tmp_path)
    kept = read(case, tmp_path, missing="skip")
    assert len(kept) == len(whole) - 1 and told(kept) == [p for p in told(whole) if p[0] in {k.id for k in kept}]


@those(lambda made: made.needs)
def test_a_missing_column_is_named_with_its_file(case: str, tmp_path: Path) -> None:
    main, column = MADE[case].write(tmp_path), str(MADE[case].needs)
    rewritten(main, lambda rows: [row.pop(column) for row in rows])
    with pytest.raises(BenchmarkProblem) as problem:
        read(case, tmp_path)
    assert main.name in str(problem.value) and column in str(problem.value)


@those(lambda made: made.needs)
def test_a_record_that_makes_no_prompt_is_named_by_file_and_row(case: str, tmp_path: Path) -> None:
    main, column = MADE[case].write(tmp_path), str(MADE[case].needs)
    if main.suffix in (".csv", ".tsv"):  # a table has no record without a column, but one that broke off
        last = main.read_text().rstrip("\n").count("\n") + 1
        main.write_text(main.read_text().rstrip("\n").rpartition("\t" if main.suffix == ".tsv" else ",")[0])
        with pytest.raises(ValueError, match=f"{main.name} cannot be read: the row that ends in line {last}"):
            read(case, tmp_path)
    else:
        rewritten(main, lambda rows: rows[1].pop(column))
        with pytest.raises(BenchmarkProblem, match=f"{main.name}, row 2: .*{column}"):
            read(case, tmp_path)


@those(lambda made: made.doubled)
def test_an_id_that_occurs_twice_is_an_error(case: str, tmp_path: Path) -> None:
    main = MADE[case].write(tmp_path)
    rewritten(main, lambda rows: rows.append(rows[0]))
    with pytest.raises(BenchmarkProblem, match=f"{main.name}, row .* occurs twice"):
        read(case, tmp_path)
