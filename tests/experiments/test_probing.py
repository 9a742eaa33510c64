"""`thoughtlens probe` on a small made-up run folder: labels, what is asked of which folder, every question's tables, and going on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments import probing, probing_tables, questions
from thoughtlens.experiments.asked import Asked, Probing, open_probing
from thoughtlens.experiments.audit.verdicts import Channel, Verdict, write_verdicts
from thoughtlens.experiments.labels import baselines, judged, labels_of
from thoughtlens.experiments.run import Run
from thoughtlens.hooks.records import Prompt, Transcript, write_prompts, write_transcripts
from thoughtlens.hooks.shards import writing
from thoughtlens.hooks.store import Store, open_store

SITES, SPANS, WIDTH = ["resid_post.0", "resid_post.1"], ("last_prompt", "step_end[0]"), 6
CATEGORIES, ATTACKS, SIDES = ("x", "y"), ("plain", "typographic"), ("train", "train", "train", "dev", "dev", "test", "test", "test")
FAST = Asked(kinds=("logistic",), shuffles=19, directions=3, resampled=40)


def channel(rating: float | None, refusal: str = "none") -> Channel:
    return Channel(rating, refusal)


QUIET, GIVES = channel(0.0), channel(5.0)


def verdict(prompt_id: str, *, thought: Channel = QUIET, answer: Channel = GIVES) -> Verdict:
    return Verdict(prompt_id, "reasoning", "unsteered", "rule", thought, answer, answer, True)


def prompts(pairs: int, *, split: bool = True) -> list[Prompt]:
    """Twin prompts of made-up goals: each goal harmful or benign, with every attack."""
    made = []
    for number in range(2 * pairs):
        side = SIDES[number // 2 % len(SIDES)] if split else ""
        for attack in ATTACKS:
            made.append(
                Prompt(
                    id=f"{attack}/{number}",
                    text=f"say how the thing {number % 3} is done",
                    category=CATEGORIES[number // 2 % 2],
                    attack=attack,
                    group=f"g{number}",
                    harmful=number % 2 == 0,
                    split=side,
                )
            )
    return made


def store(folder: Path, model: str, asked: list[Prompt], *, signal: float = 3.0, seed: int = 0, writer: str = "reasoning") -> Store:
    """Hidden states in which harm moves the first axis at resid_post.1, and nothing at resid_post.0; models differ by a little noise."""
    rng, own = np.random.default_rng(0), np.random.default_rng(seed)
    y = np.array([p.harmful for p in asked])
    blocks, rows = [], []
    for span in SPANS:
        shape = (len(asked), len(SITES), WIDTH)
        x = rng.normal(size=shape) + 0.1 * own.normal(size=shape) + 2.0
        x[:, 1, 0] += signal * y
        blocks.append(x)
        rows += [
            {
                **{"prompt_id": p.id, "model": model, "written_by": writer, "condition": "unsteered", "status": "closed", "split": p.split},
                **{"group": p.group, "category": p.category, "attack": p.attack, "harmful": p.harmful, "span": span, "pool": "mean"},
                **{"start": 3, "stop": 4, "ids_sha": f"{number:x}", "order": len(rows) + number},
            }
            for number, p in enumerate(asked)
        ]
    index = pd.DataFrame(rows).astype({"harmful": "boolean"})
    with writing(folder, {"model": model, "sites": SITES, "width": WIDTH, "fingerprint": model}) as writer_of:
        writer_of.write(0, torch.from_numpy(np.concatenate(blocks)).float(), index)
        return writer_of.finish()


def make_run(folder: Path, *, models: tuple[str, ...] = ("safe", "base", "reasoning"), pairs: int = 48, split: bool = True) -> Path:
    """A run of `models` that read what the reasoning model wrote; it complied with every other harmful prompt."""
    asked = prompts(pairs, split=split)
    said = [Transcript(p, "reasoning", prompt_ids=range(4), output_ids=range(9), text="a . b", ended=True, thought="a . b") for p in asked]
    write_prompts(folder / "prompts.jsonl", asked)
    (folder / "transcripts").mkdir()
    write_transcripts(folder / "transcripts" / "reasoning.jsonl", said)
    gave = {p.id: not p.harmful or int(p.group[1:]) % 4 == 0 for p in asked}
    (folder / "verdicts" / "rule").mkdir(parents=True)
    write_verdicts(
        folder / "verdicts" / "rule" / "reasoning.jsonl",
        [verdict(p.id, answer=channel(5.0) if gave[p.id] else channel(0.0, "full")) for p in asked],
    )
    for seed, model in enumerate(models):
        store(folder / "activations" / model, model, asked, seed=seed)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: every question that needs no checkpoint was answered."""
    folder = make_run(tmp_path_factory.mktemp("run"))
    list(probing.findings(opened(folder)))
    return folder


def opened(folder: Path, asked: Asked = FAST, **options: Any) -> Probing:
    return open_probing(folder, asked, **{"checkpoints": None, "shipped": CHECKPOINTS, "progress": False, **options})


def printed(p: Probing) -> str:
    console = Console(width=180, file=StringIO(), highlight=False)
    for told in probing.findings(p):
        console.print(told)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_labels_are_what_the_judge_said_of_the_writer() -> None:
    harmful, benign = Prompt("h", "do it", harmful=True), Prompt("b", "do it", harmful=False)
    unlabelled = Prompt("u", "do it")
    for prompt, said, expected in (
        (harmful, verdict("h"), (False, True, False, True)),
        (harmful, verdict("h", thought=channel(4.0), answer=channel(3.0)), (False, False, True, False)),
        (harmful, verdict("h", answer=channel(0.0, "full")), (True, False, False, False)),
        (harmful, verdict("h", answer=channel(5.0, "partial")), (False, True, False, True)),
        (harmful, verdict("h", thought=channel(None), answer=channel(None)), (None, None, None, None)),
        (benign, verdict("b", thought=channel(5.0)), (False, True, False, False)),
        (unlabelled, verdict("u"), (False, True, None, None)),
    ):
        (found,) = labels_of([Transcript(prompt, "reasoning")], [said]).values()
        assert tuple(found[name] for name in ("refused", "complied", "thought_unsafe", "answer_unsafe")) == expected
    assert labels_of([Transcript(harmful, "m")], []) == {}
    assert labels_of([Transcript(harmful, "m")], [verdict("h", answer=channel(3.0))], threshold=3.0)["h"]["complied"] is True


def test_baselines_are_words_and_lengths() -> None:
    said = [Transcript(Prompt("p", "how is it done"), "m", prompt_ids=(1, 2, 3), thought="well . so")]
    assert baselines(said) == {
        **{"tfidf_prompt": {"p": "how is it done"}, "tfidf_thought": {"p": "well . so"}},
        **{"prompt_length": {"p": 3}, "thought_length": {"p": 3}},
    }
    assert baselines(said, lambda transcript: 7)["thought_length"] == {"p": 7}


def test_the_judge_is_the_only_one_or_the_one_asked_for(tmp_path: Path) -> None:
    assert judged(tmp_path, "reasoning") == ("", [])
    for name in ("rule", "wise"):
        (tmp_path / "verdicts" / name).mkdir(parents=True)
        write_verdicts(tmp_path / "verdicts" / name / "reasoning.jsonl", [verdict(name)])
        if name == "rule":
            assert judged(tmp_path, "reasoning") == ("rule", [verdict("rule")])
    assert judged(tmp_path, "reasoning", "wise") == ("wise", [verdict("wise")])
    with pytest.raises(ValueError, match="2 judges on 'reasoning': rule, wise. Say which with --judge"):
        judged(tmp_path, "reasoning")
    with pytest.raises(ValueError, match="no verdicts of judge 'odd'.*there are those of rule, wise"):
        judged(tmp_path, "reasoning", "odd")


def test_what_is_asked_is_checked() -> None:
    for options, told in (
        ({"label": "evil"}, "unknown label 'evil'; known are harmful, refused"),
        ({"kinds": ("svm",)}, "unknown kind of probe 'svm'"),
        ({"among": "harmful"}, "among harmful prompts 'harmful' has one value only"),
        ({"shuffles": -1}, "shuffles is at least 0, got -1"),
        ({"followed": 0}, "followed is at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=told):
            Asked(**options)  # type: ignore[arg-type]


def test_a_run_is_opened_in_the_order_of_the_trio(run: Path) -> None:
    p = opened(run)
    assert list(p.stores) == ["base", "reasoning", "safe"] and p.reader == p.writer == "reasoning" and p.judge == "rule"
    assert p.split == "given" and p.spans == SPANS and p.homes == {}
    assert list(opened(run, Asked(models=("safe",))).stores) == ["safe"] and opened(run, Asked(models=("safe",))).reader == "safe"


def test_a_folder_that_cannot_be_probed_says_what_is_missing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no activations/<model>/. `thoughtlens capture"):
        opened(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no activations of 'wise'; it has base, reasoning, safe"):
        opened(run, Asked(models=("wise",)))
    with pytest.raises(ValueError, match="no span 'thought'"):
        opened(run, Asked(spans=("thought",))).spans  # noqa: B018
    folder = make_run(tmp_path / "run", models=("reasoning",), pairs=8)
    shutil.rmtree(folder / "verdicts")
    with pytest.raises(ValueError, match="label 'refused' comes from verdicts, and .* has none on what 'reasoning' wrote"):
        opened(folder, Asked(label="refused"))
    assert opened(folder).labels == {}
    store(folder / "activations" / "base", "base", prompts(8), writer="base")
    with pytest.raises(ValueError, match=r"several models wrote \(base, reasoning\).*--models"):
        opened(folder)
    said = folder / "transcripts" / "reasoning.jsonl"
    whole = said.read_text()
    said.write_text("\n".join(whole.splitlines()[3:]) + "\n")
    with pytest.raises(ValueError, match="reasoning.jsonl lacks 3 prompts whose states are stored"):
        opened(folder, Asked(models=("reasoning",)))
    said.unlink()
    with pytest.raises(FileNotFoundError, match="reasoning.jsonl is missing"):
        opened(folder, Asked(models=("reasoning",)))


def test_a_checkpoint_is_taken_only_if_it_is_the_captured_one(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not the checkpoint whose states .*its fingerprint differs"):
        opened(run, checkpoints=CHECKPOINTS)
    with pytest.raises(FileNotFoundError, match="--checkpoints is a folder with base, reasoning, safe in it"):
        opened(run, checkpoints=tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert opened(run, checkpoints=tmp_path / "empty").homes == {}
    with pytest.raises(ValueError, match="pass --checkpoints DIR, where DIR/safe is the captured checkpoint"):
        opened(run).lens("safe")


def test_the_signal_planted_is_what_is_found(run: Path) -> None:
    table = pd.read_parquet(run / "tables" / "detection.parquet")
    assert set(table.model) == {"base", "reasoning", "safe"} and set(table.split) == {"dev", "test"}
    test = table[(table.split == "test") & (table.subset == "all") & (table.probe == "logistic")]
    assert (test[test.site == "resid_post.1"].auroc > 0.9).all() and (test[test.site == "resid_post.0"].auroc < 0.8).all()
    assert {"words", "tfidf_prompt", "tfidf_thought", "prompt_length", "thought_length"} <= set(table.probe)
    assert {"all", "complied"} == set(table.subset)


def test_an_auroc_of_the_table_is_that_of_scikit_learn(run: Path) -> None:
    table = pd.read_parquet(run / "tables" / "detection.parquet")
    row = table[(table.model == "safe") & (table.site == "resid_post.1") & (table.span == "step_end[0]") & (table.probe == "logistic")]
    row = row[(row.split == "test") & (row.subset == "all")].iloc[0]
    sides = {}
    for side in ("train", "test"):
        x, index = open_store(run / "activations" / "safe").rows({"span": "step_end[0]", "split": side}, sites=["resid_post.1"])
        sides[side] = x[:, 0].double().numpy(), index["harmful"].to_numpy(dtype=bool)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=row.c, tol=1e-10, max_iter=10000)).fit(*sides["train"])
    assert row.auroc == pytest.approx(roc_auc_score(sides["test"][1], model.decision_function(sides["test"][0])), abs=5e-4)
    assert row.n_test == len(sides["test"][1]) and row.n_train == len(sides["train"][1])


def test_every_question_leaves_its_tables_and_says_what_it_could_not(run: Path) -> None:
    told = printed(opened(run))
    for name in ("detection", "holdouts", "transfer", "geometry", "angles", "samples", "projection"):
        assert (run / "tables" / f"{name}.parquet").is_file(), name
    for name in ("trajectory", "decision", "heads", "readouts"):
        assert not (run / "tables" / f"{name}.parquet").exists()
    for question in probing.QUESTIONS.values():
        assert question.words in told
    assert told.count("pass --checkpoints DIR") >= 3
    assert "72 test prompts in base, reasoning, safe, at 2 moments and 2 layers" in " ".join(told.split())
    held = pd.read_parquet(run / "tables" / "holdouts.parquet")
    assert {"without x", "without y", "without plain", "text-to-image", "image-to-text", "base-to-reasoning", "base-to-safe"} <= set(
        held.holdout
    )
    assert (run / "probes" / "harmful" / "reasoning" / "step_end[0].safetensors").is_file()


def test_a_second_start_fits_nothing_and_tells_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = printed(opened(run))

    def never(*words: object, **options: object) -> None:
        raise AssertionError("a question that was answered was asked again")

    for name in ("fit_probes", "transfer", "geometry", "sample_sizes", "projection"):
        monkeypatch.setattr(questions, name, never)
    assert printed(opened(run)) == before
    kept = (run / "tables" / "detection.parquet").read_bytes()
    with pytest.raises(AssertionError, match="asked again"):
        printed(opened(run, replace(FAST, shuffles=4)))
    assert (run / "tables" / "detection.parquet").read_bytes() == kept


def test_an_interrupted_run_goes_on_to_the_same_tables(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    for name in ("transfer", "samples"):
        (folder / "tables" / f"{name}.parquet").unlink()

    def interrupted(*words: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(questions, "transfer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            printed(opened(folder))
    assert not (folder / "tables" / "transfer.parquet").exists() and not list(folder.rglob("*.part"))
    monkeypatch.setattr(questions, "fit_probes", lambda *words, **options: pytest.fail("detection ran again"))
    printed(opened(folder))
    for name in ("detection", "transfer", "samples"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(folder / "tables" / f"{name}.parquet"), pd.read_parquet(run / "tables" / f"{name}.parquet")
        )


def test_another_label_has_tables_of_its_own(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    p = opened(folder, replace(FAST, label="refused", among="harmful", models=("reasoning",)))
    assert {row["refused"] for row in p.labels.values()} == {True, False, None}
    found = probing.answered(p, "detection")["detection"]
    assert set(found.label) == {"refused"} and (folder / "tables" / "detection@refused-harmful.parquet").is_file()
    assert set(found.n_test[found.split == "test"]) == {found[found.split == "test"].n_test.iloc[0]}
    assert (folder / "tables" / "detection.parquet").read_bytes() == (run / "tables" / "detection.parquet").read_bytes()
    harmful = sum(p.harmful and p.split == "test" for p in prompts(48))
    assert found[found.split == "test"].n_test.iloc[0] == harmful


def test_one_model_without_splits_is_dealt_into_folds_and_says_what_it_lacks(tmp_path: Path) -> None:
    p = opened(make_run(tmp_path / "run", models=("reasoning",), pairs=30, split=False))
    assert p.split == "folds"
    told = printed(p)
    assert "left out: its prompts have no train, dev and test" in told
    table = pd.read_parquet(tmp_path / "run" / "tables" / "detection.parquet")
    assert set(table.holdout) == {"folds"}


def rows(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame([{"low": 0.6, "high": 0.7, "site": "", "split": "test", "subset": "all", **columns}]).set_index("probe")


@pytest.mark.parametrize(
    ("low", "p", "plain", "expected"),
    [
        (0.8, 0.04, rows(probe="words"), "yes"),
        (0.69, 0.04, rows(probe="words"), "not shown"),
        (0.8, 0.06, rows(probe="words"), "not shown"),
        (0.8, 0.04, rows(probe="words", low=0.1, high=0.2), "not shown"),  # words that tell backwards tell
        (0.8, 0.04, pd.concat([rows(probe="words"), rows(probe="prompt_length", high=0.9)]), "not shown"),
        (0.8, 0.04, pd.concat([rows(probe="words"), rows(probe="tfidf_thought", high=0.99)]), "yes"),  # not yet written at that moment
        (0.8, 0.04, rows(probe="prompt_length"), "no words"),
        (0.8, 0.04, rows(probe="tfidf_prompt"), "no words"),  # what the thought had said so far is not known
    ],
)
def test_more_than_words_is_more_than_all_words_known_at_the_moment(low: float, p: float, plain: pd.DataFrame, expected: str) -> None:
    row = pd.Series({"low": low, "control_p": p, "span": "step_end[0]"})
    assert probing_tables.verdict(row, plain) == expected


def test_before_the_thought_the_prompt_is_all_there_is() -> None:
    row = pd.Series({"low": 0.8, "control_p": 0.04, "span": "last_prompt"})
    assert probing_tables.verdict(row, rows(probe="tfidf_prompt")) == "yes"


@pytest.mark.parametrize("span", ["thought", "thought_last", "answer", "answer_first"])
def test_the_whole_thought_counts_where_it_is_known(span: str) -> None:
    plain = pd.concat([rows(probe="words"), rows(probe="tfidf_thought", high=0.99)])
    assert probing_tables.verdict(pd.Series({"low": 0.8, "control_p": 0.04, "span": span}), plain) == "not shown"


def test_words_without_an_interval_show_nothing() -> None:
    plain = pd.concat([rows(probe="words"), rows(probe="prompt_length", high=float("nan"))])
    assert probing_tables.verdict(pd.Series({"low": 0.8, "control_p": 0.04, "span": "step_end[0]"}), plain) == "not shown"


def test_tables_of_another_start_go_with_the_question_that_is_left_out(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    for table, stage in (("transfer", "probe transfer"), ("heads", "never asked")):
        (folder / "tables" / f"{table}.parquet").write_bytes(b"")
        Run(folder).finish(stage, {})
    p = opened(folder)
    probing.withdraw(p, "transfer")
    probing.withdraw(p, "heads")
    assert not (folder / "tables" / "transfer.parquet").exists() and (folder / "tables" / "heads.parquet").exists()


def test_a_damaged_table_is_made_again(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    p = opened(folder)
    before = probing.answered(p, "detection")["detection"]
    (folder / "tables" / "detection.parquet").write_bytes(b"PAR1 no table")
    pd.testing.assert_frame_equal(probing.answered(p, "detection")["detection"], before)


def test_what_tells_harmful_from_benign_is_not_asked_of_another_label(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    p = opened(folder, replace(FAST, label="refused", among="harmful", models=("reasoning",)))
    for question in ("tokens", "heads", "projection", "readouts"):
        with pytest.raises(questions.Unanswered, match="asked of the label 'harmful' alone"):
            probing.answered(p, question)


def test_in_short_says_what_was_found_with_n(run: Path) -> None:
    short = printed(opened(run)).split("In short")[1]
    test = pd.read_parquet(run / "tables" / "detection.parquet").query("split == 'test' and subset == 'all' and model == 'safe'")
    n = test.n_test.iloc[0]
    beyond = "is shown beyond the words and lengths known at that moment at last_prompt; no words to compare with at step_end[0]."
    assert f"safe: harmful {beyond}" in short
    assert f"n={n}" in short and "text-to-image, AUROC" in short and "base-to-safe, AUROC" in short
