"""What words a probe is compared with, and the moments at which the words tell nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from thoughtlens.experiments.detection import texts_at, wordless
from thoughtlens.hooks.capture import capture
from thoughtlens.hooks.select import Select
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

SPANS = ("last_prompt", "thought_first", "step_end[0]", "step_end[1]", "thought", "thought_last")


def test_the_bag_of_words_sees_what_was_written_when_the_moment_came(tmp_path: Path) -> None:
    lens = tiny_lens()
    transcripts = tiny_transcripts(lens, tiny_prompts(4))
    texts = texts_at(capture(lens, transcripts, Select("resid_post.0", SPANS), into=tmp_path / "store", progress=False), transcripts, lens)
    assert set(texts) == set(SPANS)
    for one in transcripts:
        assert texts["last_prompt"][one.id] == one.prompt.text
        first, second = one.thought.split(" . ")
        assert texts["thought_first"][one.id].split() == ["<think>", first.split()[0]]
        assert texts["step_end[0]"][one.id].split() == ["<think>", *first.split(), "."]
        assert texts["step_end[1]"][one.id].split() == texts["thought"][one.id].split() == ["<think>", *one.thought.split()]
        assert texts["thought_last"][one.id].split() == ["<think>", *one.thought.split(), "</think>"]


def sweep_table(**changed: float) -> pd.DataFrame:
    row = {
        **{"model": "reasoning", "probe": "logistic", "split": "dev", "subset": "all", "site": "resid_post.2", "span": "step_end[1]"},
        **{"layer": 2, "auroc": 0.9, "tpr_at_1fpr": 0.5, "text_auroc": 0.5},
    }
    rows = [
        row,
        {**row, "span": "last_prompt", "auroc": 0.99},
        {**row, "span": "step_end[5]", "auroc": 1.0, "text_auroc": 1.0},
        {**row, "layer": 1},
        {**row, "auroc": 0.8},
        {**row, "subset": "complied", "auroc": 1.0},
    ]
    return pd.DataFrame(
        [*rows, {**row, "split": "test", "auroc": 1.0}, {**row, "model": "base", "auroc": 1.0}, *([{**row, **changed}] if changed else [])]
    )


def test_the_moment_told_is_inside_the_thought_where_words_tell_nothing() -> None:
    found = wordless(sweep_table(), "reasoning")
    assert found[["span", "layer", "auroc"]].values.tolist() == [["step_end[1]", 1, 0.9], ["step_end[1]", 2, 0.9], ["step_end[1]", 2, 0.8]]
    with pytest.raises(ValueError, match="there is no moment where bag-of-words stays at 0.4"):
        wordless(sweep_table(), "reasoning", at_most=0.4)


def test_among_moments_read_equally_well_the_higher_rate_at_few_false_alarms_comes_first() -> None:
    assert wordless(sweep_table(tpr_at_1fpr=0.6), "reasoning").iloc[0][["layer", "tpr_at_1fpr"]].tolist() == [2, 0.6]


def test_a_moment_whose_words_tell_backwards_is_not_wordless() -> None:
    assert wordless(sweep_table(auroc=0.97, text_auroc=0.03), "reasoning").iloc[0].auroc == 0.9
