"""When a thought gives itself away: points and means by hand, rates as scikit-learn has them, intervals that cover the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import roc_auc_score, roc_curve
from thinking import copied, thoughts
from thoughtlens.probes.timing import ALIGNMENTS, cliff, curves, detectability, earliest


def sloped(harmful: bool, at: int, n: int) -> float:
    return at / 10 * harmful


def by_hand(table: pd.DataFrame, by: str) -> dict[tuple[str, float], float]:
    """(side, at) -> mean over prompts of the mean over the prompt's moments there, written with plain loops."""
    found: dict[tuple[str, float], list[float]] = {}
    for _, prompt in table.groupby("prompt_id"):
        moments = prompt[prompt.kind.isin(["thought", "marker"])].sort_values("position").reset_index(drop=True)
        ended, here = bool(prompt.kind.isin(["marker", "answer"]).any()), {}
        for i, row in moments.iterrows():
            if by == "start":
                at = float(i)
            elif by == "end":
                at = float(i - len(moments) + 1) if ended else None
            elif by == "fraction":
                at = round(i / (len(moments) - 1) * 20) / 20 if ended else None
            elif by == "step":
                at = float(row.step) if row.kind == "thought" else None
            else:
                at = float(row.step) if row.boundary else None
            if at is not None:
                here.setdefault(at, []).append(row.score)
        for at, scores in here.items():
            found.setdefault(("harmful" if prompt.harmful.iloc[0] else "benign", at), []).append(float(np.mean(scores)))
    return {key: float(np.mean(means)) for key, means in found.items()}


@pytest.mark.parametrize("by", ALIGNMENTS)
@pytest.mark.parametrize("kinds", [("thought", "marker", "answer"), ("thought", "answer"), ("thought", "marker")])
def test_a_curve_is_a_mean_over_prompts_at_every_point(by: str, kinds: tuple[str, ...]) -> None:
    table = thoughts(sloped, lengths=(9, 24), groups=12, kinds=kinds)
    truncated = table["prompt_id"].isin(["test0-0", "test3-1"]) & table["kind"].isin(["marker", "answer"])
    table = table[~truncated].sample(frac=1, random_state=0)
    found = curves(table, by, fewest=1, resampled=20)
    expected = by_hand(table, by)
    told = dict(zip(zip(found["side"], found["at"], strict=True), found["mean"], strict=True))
    assert told.keys() == expected.keys() and told == pytest.approx(expected)


def test_a_point_that_few_prompts_reach_is_left_out_and_n_counts_prompts() -> None:
    table = thoughts(sloped, lengths=(10, 30), groups=12)
    found = curves(table, "start", fewest=5, resampled=20)
    lengths = table[table.kind != "answer"].groupby(["harmful", "prompt_id"]).size()
    for row in found.itertuples():
        longer = lengths[row.side == "harmful"] > row.at
        assert row.n == longer.sum() >= 5
        assert row.groups == len({name.split("-")[0] for name in longer.index[longer]})


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), times=st.integers(2, 4))
def test_whole_groups_are_drawn_so_copies_of_a_prompt_add_no_certainty(seed: int, times: int) -> None:
    table = thoughts(sloped, groups=8, lengths=(6, 9), seed=seed)
    few = curves(table, "step", fewest=1, resampled=50)
    many = curves(copied(table, times), "step", fewest=1, resampled=50)
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(few[name], many[name])
    drops = cliff(table, resampled=50), cliff(copied(table, times), resampled=50)
    for name in ("drop", "low", "high", "scale"):
        np.testing.assert_allclose(drops[0][name], drops[1][name])


def rates_by_sklearn(table: pd.DataFrame, step: int, fpr: float) -> tuple[float, float]:
    ends = table[table.boundary & (table.step == step)]
    false, true, _ = roc_curve(ends.harmful, ends.score)
    return float(true[false <= fpr].max()), float(roc_auc_score(ends.harmful, ends.score))


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2])
def test_rates_at_a_point_are_those_of_scikit_learn(fpr: float) -> None:
    table = thoughts(lambda harmful, at, n: at / 4 * harmful, groups=60, per_group=4)
    for row in detectability(table, "boundary", fpr=fpr, resampled=50).itertuples():
        assert (row.tpr, row.auroc) == pytest.approx(rates_by_sklearn(table, row.at, fpr))
        assert row.low <= row.tpr <= row.high and (row.n_positive, row.n_negative, row.groups) == (120, 120, 60)
        assert row.allowed == int(fpr * 120)


def test_with_fewer_than_a_hundred_negatives_one_percent_allows_none() -> None:
    table = thoughts(sloped, groups=40)
    assert set(detectability(table, "boundary", resampled=5)["allowed"]) == {0}
    assert set(detectability(thoughts(sloped, groups=200), "boundary", resampled=5)["allowed"]) == {2}


@pytest.mark.parametrize("turn", [3, 12])
def test_the_earliest_point_is_where_the_signal_begins(turn: int) -> None:
    table = thoughts(lambda harmful, at, n: 8.0 * (harmful and at >= turn))
    (found,) = earliest(table, 0.5, resampled=100).itertuples()
    assert found.at == turn and found.at_low <= turn <= found.at_high and found.tpr >= 0.5
    (step,) = earliest(table, 0.5, by="boundary", resampled=100).itertuples()
    assert step.at == turn // 5
    (end,) = earliest(table, 0.5, by="end", resampled=100).itertuples()
    assert end.at == turn - 19


def test_a_bar_that_is_never_reached_is_told_as_such() -> None:
    table = thoughts(lambda harmful, at, n: 1.0 * (harmful and at == 4))
    (found,) = earliest(table, 0.99, resampled=50).itertuples()
    best = detectability(table, resampled=50).sort_values("tpr", kind="stable").iloc[-1]
    assert found.at == found.at_high == float("inf") and found.tpr == best.tpr < 0.99


def test_a_signal_in_one_group_leaves_the_earliest_point_unsure() -> None:
    table = thoughts(lambda harmful, at, n: 0.0, groups=12, per_group=30, cluster=0.0)
    table.loc[table.group.isin(["test0", "test2", "test4"]) & (table.position > 3), "score"] += 20
    (found,) = earliest(table, 0.5, resampled=200).itertuples()
    assert found.at == 3 and found.at_high == float("inf")


def test_models_and_splits_are_told_apart() -> None:
    parts = [
        thoughts(sloped, model=model, split=split, groups=20, seed=i)
        for i, (model, split) in enumerate([("base", "dev"), ("safe", "test")])
    ]
    together = detectability(pd.concat(parts), "step", resampled=20)
    apart = pd.concat([detectability(part, "step", resampled=20) for part in parts], ignore_index=True)
    pd.testing.assert_frame_equal(together, apart)


def falling(harmful: bool, at: int, n: int) -> float:
    """Both sides fall by 3 at the last moment, harmful prompts by 2 more from a plateau of 4."""
    return 4.0 * harmful - (3 + 2 * harmful) * (at == n - 1)


def test_the_cliff_is_the_fall_from_the_plateau_to_the_last_moment() -> None:
    found = cliff(thoughts(falling, noise=0.0, cluster=1.0), resampled=50).set_index("side")
    assert found["drop"].to_dict() == pytest.approx({"harmful": 5, "benign": 3, "difference": 2})
    assert found.loc["difference", "plateau"] == pytest.approx(found.loc["harmful", "plateau"] - found.loc["benign", "plateau"])
    np.testing.assert_allclose(found["low"], found["drop"])
    np.testing.assert_allclose(found["high"], found["drop"])
    assert found["n"].to_dict() == {"harmful": 40, "benign": 40, "difference": 80}


def test_a_plateau_holds_the_moments_between_two_fractions() -> None:
    table = thoughts(sloped, groups=4, per_group=1, lengths=(11, 11))
    scores = table[(table.prompt_id == "test0-0") & (table.kind != "answer")].sort_values("position").score.to_numpy()
    other = table[(table.prompt_id == "test2-0") & (table.kind != "answer")].sort_values("position").score.to_numpy()
    found = cliff(table, resampled=5).set_index("side").loc["harmful"]
    assert found["plateau"] == pytest.approx((scores[5:10].mean() + other[5:10].mean()) / 2)
    assert found["end"] == pytest.approx((scores[10] + other[10]) / 2)
    wide = cliff(table, plateau=(0, 0.1), resampled=5).set_index("side").loc["harmful"]
    assert wide["plateau"] == pytest.approx((scores[:2].mean() + other[:2].mean()) / 2)


def test_a_truncated_thought_has_no_cliff() -> None:
    table = thoughts(falling, noise=0.0, cluster=0.0)
    cut = (table.prompt_id == "test0-0") & table.kind.isin(["answer", "marker"])
    found = cliff(table[~cut], resampled=5).set_index("side")
    assert found["left_out"].to_dict() == {"harmful": 1, "benign": 0, "difference": 1} and found.loc["harmful", "n"] == 39
    assert found.loc["harmful", "drop"] == pytest.approx(5)


def test_intervals_cover_the_truth_at_their_rate() -> None:
    times, rng = 100, np.random.default_rng(0)
    plain = thoughts(falling, groups=60, lengths=(4, 4), kinds=("thought", "marker"), cluster=0, noise=0)
    group = pd.factorize(plain["group"])[0]
    drawn = [plain["score"] + 2 * rng.normal(size=60)[group] + rng.normal(size=len(plain)) for _ in range(times)]
    table = pd.concat([plain.assign(model=f"m{i}", score=score) for i, score in enumerate(drawn)])
    mean = curves(table, "end", resampled=400).query("side == 'harmful' and at == -1")
    drop = cliff(table, resampled=400).query("side == 'difference'")
    for name, told, truth in (("mean", mean, 4), ("cliff", drop, 2)):
        hit = ((told["low"] <= truth) & (truth <= told["high"])).sum()  # percentiles over 30 groups cover a little less than 95%
        assert len(told) == times and binom.ppf(1e-4, times, 0.92) <= hit <= binom.ppf(1 - 1e-4, times, 0.96), name


def test_what_cannot_be_told_is_named() -> None:
    table = thoughts(sloped, groups=10)
    with pytest.raises(ValueError, match="not aligned by 'word'; known are start, end, fraction, step, boundary"):
        curves(table, "word")
    with pytest.raises(ValueError, match="no column 'group'"):
        curves(table.drop(columns="group"))
    with pytest.raises(ValueError, match="no labelled token inside a thought"):
        curves(table[table.kind == "answer"])
    with pytest.raises(ValueError, match="has an end; capture the spans 'thought_last' or 'answer' too"):
        curves(table[table.kind == "thought"], "end")
    with pytest.raises(ValueError, match="no point is reached by 20 harmful and 20 benign prompts of .*'reasoning'"):
        earliest(table)
    cut = table[table.kind == "thought"].assign(split="cut")
    with pytest.raises(ValueError, match="no thought of .*'cut'.* has both a plateau and an end"):
        cliff(pd.concat([table, cut]))
    with pytest.raises(ValueError, match="no benign prompt of .* a cliff needs both sides"):
        cliff(table[table.harmful])
