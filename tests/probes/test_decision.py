"""A planted decision point is found on dev, with numpy's and scipy's figures, and test is only measured; anchors are spans everything takes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom, kendalltau
from thoughtlens.hooks import Select, capture, parse_span, steer, streamable
from thoughtlens.hooks.divergence import divergence
from thoughtlens.hooks.vector import Vector
from thoughtlens.probes.decision import COLUMNS, agreement, anchors, decision_points
from thoughtlens.probes.metrics import resamples
from tiny import tiny_lens, tiny_prompts, tiny_transcripts

STEPS = 5


def tables(
    *, groups: int = 30, per_group: int = 2, seed: int = 0, gap=(0.0, 0.0, 0.4, 0.1, 0.0), margin=(0.0, 0.5, 3.0, 1.0, 0.0), short: int = 0
):
    """Divergences and readouts at the last prompt token and the ends of five steps of four tokens.

    gap, margin   what harmful prompts have more than benign ones at the end of each step
    short         so many prompts of each side end after their second step
    """
    rng = np.random.default_rng(seed)
    rows = []
    for side in ("dev", "test"):
        for number in range(groups * per_group):
            group = number // per_group
            harmful, own = group % 2 == 0, rng.normal(0, 0.05)
            for step in range(-1, STEPS if number >= short else 2):
                ends = [(4 * step + 3, True)] if step >= 0 else [(-1, False)]
                for position, boundary in ends + ([(4 * step + 1, False)] if step >= 0 else []):
                    more = harmful and boundary
                    js = 0.2 + own + rng.normal(0, 0.05) + (gap[step] if more else 0) + (0.0 if boundary or position < 0 else 3.0)
                    score = rng.normal(0, 1) + 5 * own + (margin[step] if more else 0)
                    place = {"position": position, "token": f"t{position}", "step": step, "boundary": boundary}
                    about = {"prompt_id": f"{side}{number}", "group": f"{side}g{group}", "split": side, "harmful": harmful}
                    rows.append({**about, **place, "js": js, "score": score})
    table = pd.DataFrame(rows).astype({"harmful": "boolean"})
    readouts = table[["prompt_id", "position", "token", "score"]].assign(model="reasoning", condition="unsteered")
    return table.drop(columns="score").assign(model_a="safe", model_b="reasoning", condition="unsteered"), readouts


def test_a_planted_point_is_found_and_its_figures_are_numpys() -> None:
    apart, readouts = tables()
    table = decision_points(apart, readouts, resampled=200)
    assert tuple(table.columns) == COLUMNS
    assert anchors(table) == ["step_end[2]"] and anchors(table, 2) == ["step_end[2]", "step_end[3]"]
    assert table["decides"].tolist() == [True] * 6 + [False] * 6 and table["anchor"][:6].tolist() == table["anchor"][6:].tolist()
    joined = apart.merge(readouts[["prompt_id", "position", "score"]])
    for _, row in table.iterrows():
        position = -1 if row["anchor"] == "last_prompt" else 4 * parse_span(row["anchor"]).index + 3
        here = joined[(joined["split"] == row["split"]) & (joined["position"] == position)]
        harmful = here["harmful"].to_numpy(dtype=bool)
        js, score = here["js"].to_numpy(), here["score"].to_numpy()
        assert (row["n"], row["n_harmful"], row["groups"], row["n_margin"], row["reached"]) == (60, 30, 30, 60, 1)
        assert row["js"] == pytest.approx(js.mean()) and row["gap"] == pytest.approx(js[harmful].mean() - js[~harmful].mean())
        assert row["js_harmful"] - row["js_benign"] == pytest.approx(row["gap"])
        pooled = np.sqrt((score[harmful].var(ddof=1) * 29 + score[~harmful].var(ddof=1) * 29) / 58)
        assert row["margin"] == pytest.approx((score[harmful].mean() - score[~harmful].mean()) / pooled)
        weights = resamples(here["group"].to_numpy(dtype=str), 200, 0).double().numpy()
        drawn = [np.average(js[harmful], weights=w[harmful]) - np.average(js[~harmful], weights=w[~harmful]) for w in weights]
        assert [row["gap_low"], row["gap_high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist())
        for name in ("js", "gap", "margin"):
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_rankings_and_their_agreement_are_pandas_and_scipys() -> None:
    table = decision_points(*tables(gap=(0.02, 0.0, 0.4, 0.1, 0.0), margin=(1.0, 0.5, 2.0, 3.0, 0.2)), resampled=200)
    for _, rows in table.groupby("split"):
        assert rows["rank_gap"].equals(rows["gap"].rank(ascending=False)) and rows["rank_margin"].equals(
            rows["margin"].rank(ascending=False)
        )
        both = (rows["rank_gap"] + rows["rank_margin"]).rank(method="min")
        assert (rows["rank"].sort_values().index == rows.assign(both=both).sort_values(["both", "rank_gap"]).index).all()
        assert rows["rank"].min() == 1 and rows[["first_gap", "first_margin", "first"]].sum().tolist() == pytest.approx([1, 1, 1])
    dev = table[table["decides"]].set_index("anchor")
    assert dev.loc["step_end[2]", "rank"] == 1 and dev.loc["step_end[3]", "rank"] == 2  # equal sums: the larger gap comes first
    assert dev.loc["step_end[2]", ["first_gap", "first_margin"]].tolist() == [1, pytest.approx(0, abs=0.05)]
    told = agreement(table).set_index(["one", "other"])
    assert list(told.index[:2]) == [("gap on dev", "margin on dev"), ("gap on test", "margin on test")] and len(told) == 5
    expected = kendalltau(dev["rank_gap"], dev["rank_margin"])
    row = told.loc["gap on dev", "margin on dev"]
    assert (row["n"], row["tau"], row["p"]) == (6, pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert not row["same_first"] and told.loc[("both on dev", "both on test"), "same_first"]


def test_the_share_of_draws_is_counted_over_whole_groups() -> None:
    apart, readouts = tables(groups=8, gap=(0.0,) * 5, margin=(0.0,) * 5)
    table = decision_points(apart, readouts, resampled=300, seed=3)
    dev = apart[(apart["split"] == "dev") & (apart["boundary"] | (apart["position"] == -1))]
    wide = (
        dev.pivot(index=["prompt_id", "group", "harmful"], columns="step", values="js")
        .reset_index()
        .sort_values("prompt_id", key=lambda s: s.str[3:].astype(int))
    )
    weights = resamples(wide["group"].to_numpy(dtype=str), 300, 3).double().numpy()
    harmful, js = wide["harmful"].to_numpy(dtype=bool), wide[[*range(-1, STEPS)]].to_numpy()
    weights = weights[(weights[:, harmful].sum(1) > 0) & (weights[:, ~harmful].sum(1) > 0)]
    firsts = [np.argmax(np.average(js[harmful], 0, w[harmful]) - np.average(js[~harmful], 0, w[~harmful])) for w in weights]
    shares = np.bincount(firsts, minlength=6) / len(weights)
    assert len(weights) < 300
    found = table[table["decides"]].sort_values("step")["first_gap"]
    assert found.tolist() == pytest.approx(shares.tolist()) and (found > 0.1).sum() >= 2


def test_intervals_cover_the_truth_at_their_rate() -> None:
    covered = 0
    for seed in range(30):
        table = decision_points(*tables(groups=24, per_group=1, seed=100 + seed), resampled=200, seed=seed)
        row = table[table["decides"] & (table["anchor"] == "step_end[2]")].iloc[0]
        covered += row["gap_low"] <= 0.4 <= row["gap_high"]
    assert binom.ppf(0.001, 30, 0.93) <= covered  # 24 groups: a percentile interval is a little too short


def test_test_rows_do_not_decide() -> None:
    apart, readouts = tables()
    swapped, _ = tables(gap=(0.5, 0, 0, 0, 0), margin=(5.0, 0, 0, 0, 0))
    apart = pd.concat([apart[apart["split"] == "dev"], swapped[swapped["split"] == "test"]])
    table, before = decision_points(apart, readouts, resampled=50), decision_points(*tables(), resampled=50)
    assert anchors(table, 3) == anchors(before, 3)
    assert table[table["decides"]].equals(before[before["decides"]])
    assert table[~table["decides"]].set_index("anchor").loc["step_end[0]", "rank_gap"] == 1
    assert not agreement(table).set_index(["one", "other"]).loc[("gap on dev", "gap on test"), "same_first"]


def test_a_boundary_few_thoughts_come_to_is_told_and_not_ranked() -> None:
    apart, readouts = tables(short=40)  # of 60 prompts 20 come to the third step
    table = decision_points(apart, readouts, resampled=50).set_index("anchor")
    dev = table[table["decides"]]
    assert dev.loc["step_end[2]", "n"] == 20 and dev.loc["step_end[2]", "reached"] == pytest.approx(1 / 3)
    assert dev.loc[["step_end[2]", "step_end[3]", "step_end[4]"], ["rank", "rank_gap", "rank_margin"]].isna().all(axis=None)
    assert dev.loc[["last_prompt", "step_end[0]", "step_end[1]"], "rank"].notna().all() and dev["gap"].notna().all()
    lower = decision_points(apart, readouts, least=0.3, resampled=50)
    assert anchors(lower) == ["step_end[2]"]
    with pytest.raises(ValueError, match="4 decision points are asked for and 3 anchors are ranked"):
        anchors(table.reset_index(), 4)


def test_readouts_may_be_missing_at_an_anchor_and_labels_at_a_prompt() -> None:
    apart, readouts = tables()
    table = decision_points(apart, readouts[readouts["position"] >= 0], resampled=50).set_index("anchor")
    assert table.loc["last_prompt", "margin"].isna().all() and table.loc["last_prompt", "rank"].isna().all()
    assert table.loc["last_prompt", "rank_gap"].notna().all() and (table.loc["last_prompt", "n_margin"] == 0).all()
    odd = apart["prompt_id"].isin(["dev0", "test0"])
    apart.loc[odd, "harmful"] = pd.NA
    assert (decision_points(apart, readouts, resampled=50)["n"] == 59).all()


def test_tables_that_do_not_belong_together_are_refused() -> None:
    apart, readouts = tables(groups=4)
    with pytest.raises(ValueError, match="at token 3 of prompt 'dev0' the divergences have 't3', the trajectory has 'other'"):
        decision_points(apart, readouts.assign(token=readouts["token"].replace("t3", "other")))
    with pytest.raises(ValueError, match="'model' holds reasoning, base: choose the rows of one model"):
        decision_points(apart, pd.concat([readouts, readouts.assign(model="base")]))
    with pytest.raises(ValueError, match="'model_a' holds safe, base"):
        decision_points(pd.concat([apart, apart.assign(model_a="base")]), readouts)
    with pytest.raises(ValueError, match="on 'dev' there are 0 and 24, 24 with a readout"):
        decision_points(apart[~(apart["harmful"] & (apart["split"] == "dev"))], readouts)
    with pytest.raises(ValueError, match="on 'test' there are 24 and 24, 0 with a readout"):
        decision_points(apart, readouts[readouts["prompt_id"].str.startswith("dev")])


def test_capture_and_steering_take_what_comes_out(tmp_path) -> None:
    lens, safe = tiny_lens(), tiny_lens(seed=1)
    transcripts = tiny_transcripts(lens, tiny_prompts(30, images=(0,)))
    apart = divergence(safe, lens, transcripts, progress=False)
    store = capture(lens, transcripts, Select("resid_post.1", ["last_prompt", "thought"], "every"), into=tmp_path / "s", progress=False)
    hidden, index = store.rows()
    begun = {t.id: len(t.prompt_ids) for t in transcripts}
    ids = {t.id: t.prompt_ids + t.output_ids for t in transcripts}
    readouts = pd.DataFrame(
        {
            "prompt_id": index["prompt_id"],
            "position": [row.start - begun[row.prompt_id] for row in index.itertuples()],
            "token": lens.tokenizer.convert_ids_to_tokens([ids[row.prompt_id][row.start] for row in index.itertuples()]),
            "score": (hidden[:, 0] @ torch.randn(32, generator=torch.Generator().manual_seed(0))).numpy(),
        }
    )
    table = decision_points(apart, readouts, resampled=50)
    assert set(table["anchor"]) == {"last_prompt", "step_end[0]", "step_end[1]"} and table["rank"].notna().all()
    spans = anchors(table, 3)
    assert all(streamable(span) for span in spans)
    found = capture(lens, transcripts, Select("resid_post", spans), into=tmp_path / "t", progress=False)
    assert set(found.index["span"]) == set(spans) and len(found.index) == 90
    vector = Vector({"resid_post.1": torch.randn(32)}, spans[0], "mean", "test", {"resid_post.1": 1.0}, {})
    with steer(lens, vector.at("resid_post.1"), strength=0.1, spans=spans):
        pass
