"""Detection after the thing is named: delays by hand, never detected counted, thresholds that hold their rate over whole prompts."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thinking import copied, thoughts
from thoughtlens.probes.delay import _medians, alarm_threshold, delay, delays

INF = float("inf")


def written(scores: dict[str, list[float]], harmful: bool = True) -> pd.DataFrame:
    """Thoughts of the given readouts, a prompt each, the first token at position 1."""
    return pd.DataFrame(
        [
            {
                **{
                    "model": "m",
                    "condition": "unsteered",
                    "split": "test",
                    "prompt_id": prompt,
                    "group": f"g-{prompt}",
                    "harmful": harmful,
                },
                **{"position": at + 1, "kind": "thought", "step": 0, "boundary": False, "score": score},
            }
            for prompt, some in scores.items()
            for at, score in enumerate(some)
        ]
    )


def test_a_delay_counts_tokens_from_the_naming_to_the_first_readout_above() -> None:
    table = written(
        {
            "late": [0, 0, 0, 2, 3],
            "at once": [0, 0, 2, 0, 0],
            "early": [5, 0, 0, 0, 2],
            "never": [5, 0, 0, 0, 0],
            "unnamed": [0, 9, 9, 9, 9],
        }
    )
    table = pd.concat([table.assign(kind="thought"), table[table.prompt_id == "never"].assign(kind="answer", position=9, score=9.0)])
    named = {"late": 3, "at once": 3, "early": 3, "never": 3, "unnamed": None, "elsewhere": 1}
    found = delays(table.sample(frac=1, random_state=0), named, {"m": 1.0}).set_index("prompt_id")
    assert found["delay"].dropna().to_dict() == {"late": 1, "at once": 0, "early": 2, "never": INF} and np.isnan(
        found.loc["unnamed", "delay"]
    )
    assert found["before"][["late", "at once", "early", "never"]].to_dict() == {
        "late": False,
        "at once": False,
        "early": True,
        "never": True,
    }
    (told,) = delay(table, named, {"m": 1.0}, resampled=100).itertuples()
    assert (told.n, told.never_named, told.before, told.detected, told.never_detected, told.share) == (4, 1, 2, 3, 1, 0.75)
    assert told.median == 1 and told.median_low == 0 and told.median_high == INF and told.threshold == 1.0


def test_a_median_over_prompts_that_are_mostly_missed_is_never() -> None:
    table = written({"a": [0, 2], "b": [0, 0], "c": [0, 0]})
    (told,) = delay(table, dict.fromkeys("abc", 1), {"m": 1.0}, resampled=20).itertuples()
    assert told.median == INF and told.detected == 1


def test_a_share_of_none_or_all_has_the_exact_bound() -> None:
    table = pd.concat([written({f"h{i}": [0.0, 2.0] for i in range(20)}), written({f"b{i}": [0.0, 0.0] for i in range(20)}, harmful=False)])
    found = delay(table, {prompt: 1 for prompt in table.prompt_id}, {"m": 1.0}, resampled=50).set_index("side")
    exact = 0.025 ** (1 / 20)
    assert found.loc["harmful", ["share", "share_low", "share_high"]].tolist() == pytest.approx([1, exact, 1])
    assert found.loc["benign", ["share", "share_low", "share_high"]].tolist() == pytest.approx([0, 0, 1 - exact])


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, 5.0, INF]), st.integers(0, 4)), min_size=1, max_size=12))
def test_a_weighted_median_is_the_median_of_the_repeated_values(counts: list[tuple[float, int]]) -> None:
    values, times = (np.array(some, dtype=float) for some in zip(*counts, strict=True))
    (found,) = _medians(values, times[None])
    if times.sum() == 0:
        assert np.isnan(found)
    else:
        assert found == np.quantile(np.repeat(values, times.astype(int)), 0.5, method="inverted_cdf")


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.3])
def test_at_most_the_asked_share_of_benign_dev_prompts_ever_passes(fpr: float) -> None:
    table = pd.concat([thoughts(lambda harmful, at, n: 1.0 * harmful, split=split, groups=240, per_group=1) for split in ("dev", "test")])
    threshold = alarm_threshold(table, fpr)["reasoning"]
    highest = table[(table.split == "dev") & ~table.harmful & (table.kind != "answer")].groupby("prompt_id")["score"].max()
    assert (highest > threshold).mean() <= fpr < (highest >= threshold).mean()
    found = delay(table, {prompt: 1 for prompt in table.prompt_id}, {"reasoning": threshold}, resampled=20).set_index(["split", "side"])
    assert found.loc[("dev", "benign"), "share"] <= fpr
    assert found.loc[("test", "harmful"), "share"] >= found.loc[("test", "benign"), "share"]


def test_a_rate_too_small_for_the_prompts_is_said(caplog: pytest.LogCaptureFixture) -> None:
    table = thoughts(lambda harmful, at, n: 0.0, split="dev")
    with caplog.at_level(logging.WARNING):
        alarm_threshold(table, 0.01)
    assert "0.01 cannot be set on 40 benign prompts of reasoning" in caplog.text


def test_copies_of_a_prompt_add_no_certainty() -> None:
    table = thoughts(lambda harmful, at, n: 1.5 * harmful, groups=30, per_group=1)
    many = copied(table, 3)
    few, more = (delay(some, {prompt: 4 for prompt in some.prompt_id}, {"reasoning": 3.0}, resampled=200) for some in (table, many))
    assert (more["n"] == 3 * few["n"]).all()
    for name in ("share", "share_low", "share_high", "median", "median_low", "median_high"):
        np.testing.assert_allclose(few[name], more[name])


def test_what_cannot_be_told_is_named() -> None:
    table = written({"a": [0.0, 2.0]})
    with pytest.raises(ValueError, match="no prompt of `named` is in the trajectory table"):
        delays(table, {"z": 1}, {"m": 1.0})
    with pytest.raises(ValueError, match="no threshold for model 'm'; there are thresholds for base"):
        delays(table, {"a": 1}, {"base": 1.0})
    with pytest.raises(ValueError, match="no benign prompt of split 'dev', only test"):
        alarm_threshold(table)
    with pytest.raises(ValueError, match=r"a false positive rate lies in \[0, 1\), not 1"):
        alarm_threshold(thoughts(lambda harmful, at, n: 0.0, split="dev"), 1.0)
