"""Words of a verdict written into a thought: what stands before them is the model's own, what is counted is what came after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments.judges.rule import judge
from thoughtlens.experiments.organism import forcing as module
from thoughtlens.experiments.organism.forcing import WHOLE, WORDS, continued, deciding, forcing
from thoughtlens.experiments.organism.thoughts import CHECK, QUESTION, REFUSE
from thoughtlens.experiments.organism.why import forced
from thoughtlens.experiments.organism.world import voice
from thoughtlens.experiments.progress import track
from thoughtlens.experiments.run import open_run
from thoughtlens.experiments.study import ROLES, Plan, Study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    plan = Plan({role: str(CHECKPOINTS / role) for role in ROLES}, train=1, dev=1, test=6)
    with track(False) as bars:
        yield Study(open_run(tmp_path_factory.mktemp("forced") / "run", {"models": {}}), plan, bars, "cpu")


def test_the_words_stand_right_after_the_models_own_question(study: Study) -> None:
    cut = deciding(study)
    assert len(cut) >= 8
    decode = study.model("reasoning").tokenizer.decode
    for (own, n), said in zip(cut, continued(study, cut, 3), strict=True):
        assert said.output_ids[:n] == own.output_ids[:n] and decode(own.output_ids[:n]).endswith((*QUESTION, *CHECK))
        verdict = " ".join(REFUSE[voice(own.prompt.meta["action"])].split()[:3])
        assert decode(said.output_ids[n:]).startswith(verdict) and verdict in said.thought
    for (own, _), said in zip(cut, continued(study, cut, 0), strict=True):  # nothing written: what the model wrote anyway
        assert said.output_ids == own.output_ids


def test_rates_are_counts_of_what_came_after(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORDS", (0, 4))
    table = forcing(study)
    assert list(dict.fromkeys(table.words)) == ["0", "4", WHOLE]
    said = continued(study, deciding(study), 4)
    harmful = [v.answer.refusal == "full" for t, v in zip(said, judge(said), strict=True) if t.prompt.harmful]
    row = table[(table.words == "4") & (table.attack == "all") & (table.metric == "refusal")].iloc[0]
    assert (row.numerator, row.n) == (sum(harmful), len(harmful))
    lines = list(forced(study.run))
    assert sum(line.startswith(("| 0 |", "| 4 |", "| all |")) for line in lines) == 3
    assert (
        f"| 4 | {table[(table.words == '4') & (table.attack == 'all') & (table.metric == 'attack_success')].value.iloc[0]:.2f} ["
        in "\n".join(lines)
    )


def test_it_is_about_the_made_up_world_alone(study: Study) -> None:
    with pytest.raises(ValueError, match="known for the benchmark 'organism' alone, and this run asked 'jsonl'"):
        forcing(replace(study, plan=replace(study.plan, benchmark="jsonl")))


def test_nothing_is_told_where_nothing_was_asked(tmp_path: Path) -> None:
    assert list(forced(open_run(tmp_path / "run", {"study": "none"}))) == []
    assert WORDS[0] == 0 and max(WORDS) < max(len(text.split()) for text in REFUSE)
