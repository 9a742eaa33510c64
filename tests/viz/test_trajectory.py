"""Means over prompts, not over tokens; bands from prompts; answers and thin steps left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from thoughtlens.viz.figures.trajectory import MIN_PROMPTS, quantile, read_trajectory, readout, readout_along_thought
from thoughtlens.viz.tables import TableProblem


def by_hand(trajectory: pd.DataFrame, model: str, harmful: bool, step: int) -> np.ndarray:
    """One mean score per prompt, with scipy's t for the interval."""
    rows = trajectory[
        (trajectory.model == model) & (trajectory.harmful == harmful) & (trajectory.step == step) & (trajectory.kind == "thought")
    ]
    scores = [group["score"].mean() for _, group in rows.groupby("prompt_id")]
    low, high = stats.t.interval(0.95, len(scores) - 1, np.mean(scores), stats.sem(scores))
    return np.array([np.mean(scores), low, high, len(scores)])


def test_lines_and_bands_are_means_over_prompts(tables):
    drawn = readout_along_thought(tables["trajectory"])
    lines = [trace for trace in drawn.data if trace.mode == "lines+markers"]
    bands = [trace for trace in drawn.data if trace.mode == "none"]
    assert [annotation.text for annotation in drawn.layout.annotations] == ["<b>reasoning</b>", "<b>safe</b>"]
    for index, (line, band) in enumerate(zip(lines, bands, strict=True)):
        model, harmful = ("reasoning", "safe")[index // 2], line.name == "harmful"
        for at, (step, mean, told) in enumerate(zip(line.x, line.y, line.customdata, strict=True)):
            assert [mean, *told] == pytest.approx(by_hand(tables["trajectory"], model, harmful, step), abs=0.02)
            assert band.y[at] == told[1] and band.y[len(band.y) - 1 - at] == told[0]


def test_thin_steps_and_answers_are_not_drawn(tables):
    table = readout(tables["trajectory"])
    assert table["n"].min() >= MIN_PROMPTS and table["high"].max() < 50
    few = tables["trajectory"][tables["trajectory"].prompt_id.isin(["p0", "p1"])]
    with pytest.raises(TableProblem, match="reached by 5 prompts"):
        readout_along_thought(few)


def test_tokens_are_aligned_at_the_start_of_each_thought(tables):
    table = readout(tables["trajectory"], by="token")
    assert table["at"].min() == 0
    first = tables["trajectory"].query("model == 'reasoning' and harmful and kind == 'thought'").groupby("prompt_id").first()
    ours = table[(table.reading == "reasoning") & (table.side == "harmful") & (table["at"] == 0)].iloc[0]
    assert ours["mean"] == pytest.approx(first["score"].mean()) and ours["n"] == len(first)


@pytest.mark.parametrize("n", [5, 8, 20, 200])
def test_quantile_is_that_of_student(n):
    assert quantile(n) == pytest.approx(stats.t.ppf(0.975, n - 1), abs=0.05)


def test_reading_says_where_they_part_and_where_not(tables):
    trajectory = tables["trajectory"]
    told = read_trajectory(trajectory)
    assert (
        "In the reasoning model harmful and benign thoughts are apart from step 0, most at step 2" in told
        and "n = 30 harmful, 30 benign" in told
    )
    blurred = trajectory.assign(score=np.random.default_rng(0).normal(size=len(trajectory)), condition="steered")
    assert "not apart at any step" in read_trajectory(blurred.query("step < 3")) and "reasoning @ steered" in read_trajectory(blurred)
