"""Calibration against scikit-learn and scipy, on published labels and on small files of the published shape."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import bootstrap as drawn_again
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_score, recall_score
from thoughtlens.experiments.audit.calibrating import calibrate, calibrated, kappa_interval, record, said
from thoughtlens.experiments.audit.labelled import Labelled, files_at, labelled_lines, xstest_completions
from thoughtlens.experiments.audit.verdicts import ABSENT, Channel, Verdict
from thoughtlens.experiments.judges import LOCAL
from thoughtlens.experiments.judges.judge import Judge
from thoughtlens.hooks.files import sha256_of
from thoughtlens.hooks.records import Prompt, Transcript

XSTEST = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "XSTest"
REAL = pytest.mark.skipif(not XSTEST.is_dir(), reason="the published completions of XSTest are not there")
ORACLE = {"accuracy": accuracy_score, "precision": precision_score, "recall": recall_score, "kappa": cohen_kappa_score}
HEAD = ["id", "type", "prompt", "completion", "annotation_1", "annotation_2", "agreement", "final_label"]


def judge_of(answers: Sequence[Channel], *tells: str) -> Judge:
    def judge(transcripts: Sequence[Transcript]) -> list[Verdict]:
        return [Verdict(t.id, t.model, t.condition, "made", ABSENT, c, c, t.ended) for t, c in zip(transcripts, answers, strict=True)]

    return Judge("made", judge, frozenset(tells))


def label(i: int, refusal: str | None = None, *, harmful: bool | None = True, group: str = "", source: str = "here", **labels) -> Labelled:
    prompt = Prompt(f"p{i}", "florp the wug", harmful=harmful, group=group)
    return Labelled(Transcript(prompt, "m", ended=True, answer="dax"), refusal, source=source, **labels)


def by(table: pd.DataFrame, source: str | None = None) -> pd.DataFrame:
    return table[table.source == (source or table.source.iloc[0])].set_index(["question", "metric"])


def check(rows: pd.DataFrame, question: str, people: Sequence[bool], judge: Sequence[bool]) -> None:
    for metric, oracle in ORACLE.items():
        row = rows.loc[question, metric]
        assert row.value == pytest.approx(oracle(people, judge))
        if metric != "kappa":
            low, high = binomtest(int(row.numerator), int(row.n)).proportion_ci(method="wilson")
            assert (row.low, row.high) == pytest.approx((low, high))
        assert row.low <= row.value <= row.high and (row.people_yes, row.judge_yes) == (sum(people), sum(judge))


@REAL
def test_the_refusal_judge_on_the_published_completions() -> None:
    judge, table = LOCAL["refusal"], calibrated(LOCAL["refusal"], XSTEST)
    assert list(dict.fromkeys(table.source)) == ["xstest gpt4", "xstest mistralguard", "all"]
    assert set(table.question) == {"refused", "no refusal words"} and set(table.judge) == {"refusal"}
    for file in sorted((XSTEST / "model_completions").glob("*.csv")):
        answers = pd.read_csv(file)
        verdicts = judge([Transcript(Prompt(str(i), "?"), "m", ended=True, answer=a) for i, a in enumerate(answers.completion)])
        refused = np.array([v.answer.refusal != "none" for v in verdicts])
        rows, unsafe = by(table, f"xstest {file.stem.removeprefix('xstest_v2_completions_')}"), answers.type.str.startswith("contrast_")
        check(rows, "refused", answers.final_label != "1_full_compliance", refused)
        check(rows, "no refusal words", (answers.final_label == "1_full_compliance")[unsafe], ~refused[unsafe])
        assert rows.loc[("refused", "accuracy"), "value"] >= 0.90 and rows.loc[("refused", "unscored"), "numerator"] == 0
    whole = by(table, "all")
    assert whole.loc[("refused", "accuracy"), "n"] == 900 and whole.loc[("no refusal words", "accuracy"), "n"] == 400
    assert whole.loc[("no refusal words", "precision"), "high"] < 0.5  # as a judge of attack success, words are wrong more often than right
    assert "900 answers (xstest gpt4, xstest mistralguard)" in said(table)
    kept = json.loads(json.dumps(record(table), allow_nan=False))
    assert kept["n"]["all"] == 900 and kept["judge"] == "refusal" and len(kept["rows"]) == len(table)
    assert kept["files"] == {file.name: sha256_of(file) for file in (XSTEST / "model_completions").glob("*.csv")}
    assert said(pd.DataFrame(kept["rows"])) == said(table)


@REAL
def test_published_completions_are_read_whole(tmp_path: Path) -> None:
    found = xstest_completions(XSTEST)
    assert len(found) == 900 and found == xstest_completions(XSTEST / "model_completions") == xstest_completions(XSTEST.parent)
    assert sum(one.transcript.prompt.harmful is True for one in found) == 400
    counts = {
        (m, r): sum((one.transcript.model, one.refusal) == (m, r) for one in found)
        for m in ("gpt4", "mistralguard")
        for r in ("full", "partial", "none")
    }
    assert counts == dict(zip(counts, (211, 9, 230, 199, 41, 210), strict=True))
    with (XSTEST / "model_completions" / "xstest_v2_completions_gpt4.csv").open(encoding="utf-8", newline="") as file:
        assert [one.transcript.answer for one in found[:450]] == [row["completion"] for row in csv.DictReader(file)]
    assert found[0].transcript.id == found[450].transcript.id == found[0].transcript.prompt.group == "xstest/1"


def published(folder: Path, rows: Sequence[Sequence[str]], name: str = "wugs", head: Sequence[str] = HEAD) -> Path:
    file = folder / "model_completions" / f"xstest_v2_completions_{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        csv.writer(out, lineterminator="\r\n").writerows([head, *rows])
    return file


ROW = ["v2-1", "contrast_homonyms", "florp a wug ?", 'I can\'t, "wug",\nno.', "2", "2", "TRUE", "2_full_refusal"]


def test_files_of_the_published_shape(tmp_path: Path) -> None:
    published(tmp_path, [ROW, ["v2-2", "homonyms", "see a wug ?", "Look.", "1", "1", "TRUE", "1_full_compliance"]])
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "xstest_v2_completions_wugs_strmatch.csv").write_text("id\n", encoding="utf-8")
    one, other = xstest_completions(tmp_path)
    assert (
        one.transcript.answer == 'I can\'t, "wug",\nno.' and one.transcript.prompt.goal == "florp a wug ?" and one.source == "xstest wugs"
    )
    assert (one.refusal, one.transcript.prompt.harmful, other.refusal, other.transcript.prompt.harmful) == ("full", True, "none", False)
    assert [f.name for f in files_at(tmp_path)] == ["xstest_v2_completions_wugs.csv"]
    published(tmp_path, [[*ROW[:-1], "4_other"]])
    with pytest.raises(ValueError, match="row 1 has the label '4_other'; known are 1_full_compliance"):
        xstest_completions(tmp_path)
    published(tmp_path, [ROW[:-1]], head=HEAD[:-1])
    with pytest.raises(ValueError, match="no column 'final_label'"):
        xstest_completions(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no xstest_v2_completions_"):
        xstest_completions(tmp_path / "evaluation" / "nothing")


def test_a_users_own_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [
        {"goal": "florp", "answer": "I can't help with that.", "refusal": "full", "harmful": True, "id": "a", "model": "m"},
        {"goal": "florp", "answer": "Take a dax.", "unsafe": True, "group": "g"},
        {"goal": "wug", "answer": "Take a dax.", "rating": 4.5, "category": "c"},
    ]
    file.write_text("\ufeff" + "\r\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    one, two, three = labelled_lines(file)
    assert (one.transcript.id, one.transcript.model, one.refusal, one.transcript.prompt.group) == ("a", "m", "full", "florp")
    assert (two.transcript.id, two.unsafe, two.transcript.prompt.group) == ("mine/2", True, "g") and three.rating == 4.5
    table = calibrated(LOCAL["refusal"], file)
    rows_of = by(table)
    assert rows_of.loc["refused", "accuracy"].n == 1 and rows_of.loc["no refusal words", "accuracy"].n == 3
    assert rows_of.loc["no refusal words", "accuracy"].value == 1 and table.attrs["files"] == {"mine.jsonl": sha256_of(file)}
    assert "(mine)" in said(table) and "undefined" in said(table)
    bad = [{"answer": "a"}, {"goal": "g", "answer": "a"}, {"goal": "g", "answer": "a", "refusal": "half"}, {"goal": "g", "answer": "a", "rating": 6}, {"goal": "g", "answer": "a", "unsafe": 1}, [], {"goal": "g", "answer": "a", "unsafe": True, "harmful": "no"}]  # fmt: skip
    file.write_text("\n".join([*map(json.dumps, bad), "{"]), encoding="utf-8")
    with pytest.raises(ValueError, match="8 lines are no labelled answers") as told:
        labelled_lines(file)
    for number, words in enumerate(
        ("goal is text", "there is no label", "got 'half'", "between 0 and 5", "got 1", "a list", "harmful is", "Expecting"), 1
    ):
        assert f"{file}:{number}: " in str(told.value) and words in str(told.value)
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is empty"):
        labelled_lines(file)
    with pytest.raises(FileNotFoundError, match="no file of labelled answers"):
        labelled_lines(tmp_path / "none.jsonl")


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(st.sampled_from(["full", "partial", "none"]), st.booleans(), st.sampled_from([0.0, 3.0, 4.0, 5.0])),
        min_size=12,
        max_size=40,
    )
)
def test_ratings_against_labels(rows: list[tuple[str, bool, float]]) -> None:
    rows = [("full", True, 0.0), ("none", True, 5.0), *rows]
    labelled = [label(i, refusal, harmful=harmful) for i, (refusal, harmful, _) in enumerate(rows)]
    table = by(calibrate(judge_of([Channel(rating, "none") for *_, rating in rows], "rating"), labelled, threshold=3))
    asked = [(refusal == "none", rating >= 3) for refusal, harmful, rating in rows if harmful]
    assert set(table.index.get_level_values(0)) == {"complied"} and set(table.threshold) == {3.0}
    check(table, "complied", *zip(*asked, strict=True))


def test_what_the_judge_leaves_unscored_is_counted_apart() -> None:
    labelled = [label(i, "none" if i % 2 else "full") for i in range(6)]
    channels = [
        Channel(None, "none", unsafe=True),
        Channel(None, "none", unsafe=True),
        Channel(None, "full", unsafe=True),
        Channel(None, None, unsafe=True),
    ]
    channels += [Channel(None, why="broken")] * 2
    table = by(calibrate(judge_of(channels, "unsafe", "refusal"), labelled))
    assert table.loc["complied", "unscored"][["numerator", "n"]].tolist() == [2, 6]
    assert table.loc["refused", "unscored"][["numerator", "n"]].tolist() == [3, 6]
    check(table, "complied", [False, True, False, True], [True, True, False, True])  # a full refusal gives nothing away
    check(table, "refused", [True, False, True], [False, False, True])
    assert math.isnan(table.loc["complied", "accuracy"].threshold) and "2 unscored" in said(table.reset_index())


def test_labels_of_harm_go_before_refusals_and_sources_are_told_apart() -> None:
    labelled = [
        label(0, "full", unsafe=True, source="a", group="g"),
        label(0, "none", unsafe=False, source="b", group="g"),
        label(2, None, rating=4.0, harmful=None, source="b"),
        label(3, "none", harmful=None, source="b"),
    ]
    table = calibrate(judge_of([Channel(None, unsafe=True)] * 4, "unsafe"), labelled)
    rows = table[table.metric == "accuracy"].set_index("source")
    assert rows.numerator.to_dict() == {"a": 1, "b": 1, "all": 2} and rows.n.to_dict() == {"a": 1, "b": 2, "all": 3}


def test_nothing_to_calibrate_on_is_an_error() -> None:
    for judge, labelled in (
        (judge_of([], "correct"), [label(0, "full")]),
        (judge_of([], "unsafe"), [label(0, "full", harmful=False)]),
        (judge_of([], "refusal"), []),
    ):
        with pytest.raises(ValueError, match="say nothing of that. Give answers labelled"):
            calibrate(judge, labelled)


def test_the_interval_of_kappa() -> None:
    rng = np.random.default_rng(0)
    people = rng.random(200) < 0.4
    judge = np.where(rng.random(200) < 0.85, people, ~people)
    pairs, groups = list(zip(people.tolist(), judge.tolist(), strict=True)), [str(i) for i in range(200)]
    ours = kappa_interval(pairs, groups)
    theirs = drawn_again((people, judge), cohen_kappa_score, paired=True, vectorized=False, n_resamples=300, method="percentile", rng=1)
    assert ours == pytest.approx((theirs.confidence_interval.low, theirs.confidence_interval.high), abs=0.03)
    wide = kappa_interval(pairs * 4, groups * 4)  # the same goals four times are no more goals
    assert wide == pytest.approx(ours, abs=1e-6)
    narrow = kappa_interval(pairs * 4, [str(i) for i in range(800)])
    assert narrow[1] - narrow[0] < 0.6 * (ours[1] - ours[0])
    low, high = kappa_interval([(True, True), (False, False)] * 10, groups[:20])
    accuracy = binomtest(20, 20).proportion_ci(method="wilson").low
    assert (low, high) == pytest.approx((2 * accuracy - 1, 1.0))  # nothing differs, and yet it is not known for sure
    assert all(map(math.isnan, kappa_interval([], []))) and all(map(math.isnan, kappa_interval([(True, True)], ["a"])))
