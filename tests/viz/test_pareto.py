"""Marks are settings, the front is what none beats, broken settings are never on it, and the test split is told apart from dev."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_run import SCRIPT, comparison, rate, restoration
from thoughtlens.viz import theme
from thoughtlens.viz.figures.labels import LINE, beside_marks, wrapped_room
from thoughtlens.viz.figures.pareto import pareto
from thoughtlens.viz.figures.trade import front, pairs, read_pareto, ways
from thoughtlens.viz.tables import TableProblem

GATES, STRENGTHS = ("always", "steps", SCRIPT), (0.5, 1.0, 2.0)


def sweep(n: int = 40, *, attacks: tuple[str, ...] = ("all",), seed: int = 0, many: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for copy in range(many):
        for span in ("last_prompt", "thought"):
            for gate in GATES:
                for strength in STRENGTHS:
                    where = {"source": f"safe - reasoning {copy}", "span": span, "site": "resid_post.3", "operator": "add"}
                    where |= {"strength": strength, "gate": gate, "thought_mode": "regenerated", "split": "dev", "threshold": 4.0}
                    where["condition"] = f"{copy} {span} {strength} {gate}"
                    rates = {metric: rng.random() for metric in ("attack_success", "over_refusal")} | {"helpful": rng.choice([0.2, 0.9])}
                    for metric, value in rates.items():
                        rows += [{**where, "attack": attack, "metric": metric, **rate(round(value * n), n)} for attack in attacks]
    return pd.DataFrame(rows)


def drawn(figure) -> dict[tuple[str, str], tuple]:
    """(condition, split) -> what is at its mark."""
    found = {}
    for trace in figure.data:
        for i, told in enumerate(trace.customdata if trace.customdata is not None else ()):
            bar = (trace.error_x.array, trace.error_x.arrayminus, trace.error_y.array, trace.error_y.arrayminus)
            ends = None if bar[0] is None else tuple(one[i] for one in bar)
            assert (told[0], told[1]) not in found
            found[told[0], told[1]] = (trace.x[i], trace.y[i], ends, trace.marker.symbol[i], trace.opacity, told)
    return found


def of(table: pd.DataFrame, condition: str, metric: str, split: str) -> pd.Series:
    return table[(table.condition == condition) & (table.metric == metric) & (table.split == split) & (table.attack == "all")].iloc[0]


def test_every_setting_and_everything_measured_is_one_mark_with_its_rates():
    tried, measured = sweep(), restoration()
    found = drawn(pareto(tried, measured))
    assert len(found) == tried.condition.nunique() + measured.condition.nunique()
    for table, split in ((tried, "dev"), (measured, "test")):
        for condition in table.condition.unique():
            x, y, ends, _, _, told = found[theme.plain(condition), split]
            over, attack = (of(table, condition, metric, split) for metric in ("over_refusal", "attack_success"))
            assert (x, y) == (over.value, attack.value) and told[4] == over.n and told[7] == attack.n
            assert (x - ends[1], x + ends[0], y - ends[3], y + ends[2]) == pytest.approx((over.low, over.high, attack.low, attack.high))
            assert told[2:4] + told[5:7] == pytest.approx((over.low, over.high, attack.low, attack.high))


def test_the_front_is_what_no_whole_setting_beats():
    for seed in range(5):
        both = pairs(sweep(seed=seed, many=3))
        whole = both[both.helpful >= 0.5]
        by_hand = [
            row.condition
            for row in whole.itertuples()
            if not any(
                (other.x_value <= row.x_value and other.y_value <= row.y_value)
                and (other.x_value < row.x_value or other.y_value < row.y_value)
                for other in whole.itertuples()
            )
        ]
        assert sorted(front(both).condition) == sorted(by_hand) and 0 < len(by_hand) < len(both)
        assert front(both).x_value.is_monotonic_increasing


def test_equal_settings_share_the_front_and_broken_ones_are_open():
    table = sweep()
    same = table.assign(condition=table.condition + " again")
    both = pairs(pd.concat([table, same], ignore_index=True))
    assert len(front(both)) == 2 * len(front(pairs(table)))
    found = drawn(pareto(table))
    for condition in table.condition.unique():
        helpful = of(table, condition, "helpful", "dev").value
        assert found[theme.plain(condition), "dev"][3].endswith("-open") == (helpful < 0.5)
    assert not front(both).helpful.lt(0.5).any()


def test_of_many_settings_only_the_front_has_bars_and_full_ink():
    table = sweep(many=3)
    best, found = set(front(pairs(table)).condition), drawn(pareto(table))
    for condition in table.condition.unique():
        _, _, ends, _, opacity, _ = found[theme.plain(condition), "dev"]
        assert (ends is not None) == (opacity == 1.0) == (condition in best)


def test_the_step_line_goes_through_the_front():
    table = sweep(many=3)
    best, figure = front(pairs(table)), pareto(table)
    (step,) = [trace for trace in figure.data if trace.name == "front"]
    assert step.line.shape == "hv"
    assert list(step.x[1:-1]) == list(best.x_value) and list(step.y[1:-1]) == list(best.y_value)
    assert step.x[0] == best.x_value.iloc[0] and step.y[-1] == best.y_value.iloc[-1]


@pytest.mark.parametrize(("by", "values"), [(None, GATES), ("gate", GATES), ("span", ("last_prompt", "thought"))])
def test_settings_are_coloured_by_what_varies(by, values):
    figure = pareto(sweep(), by=by)
    keys = {
        trace.name: (trace.marker.color, trace.marker.symbol)
        for trace in figure.data
        if trace.showlegend is None and trace.marker.size == 9
    }
    assert set(keys) == {theme.plain(value) for value in values} and len(set(keys.values())) == len(values)
    for trace in figure.data:
        for told in trace.customdata if trace.customdata is not None else ():
            value = told[0].split(" ", 3)[3 if values is GATES else 1]
            assert trace.marker.color == keys[value][0]


def test_models_and_the_chosen_setting_are_named_and_controls_are_faint():
    figure = pareto(sweep(), restoration())
    names = [note.text for note in figure.layout.annotations if note.showarrow]
    assert sorted(names) == ["safe", "steered", "unsteered"]
    clouds = [trace for trace in figure.data if trace.opacity == 0.45]
    assert {trace.name: len(trace.x) for trace in clouds} == {"random (8)": 8, "shuffled (1)": 1}
    assert any("better" in note.text for note in figure.layout.annotations)


def test_a_table_of_test_alone_has_a_front_of_its_own_ways():
    table = comparison()
    figure, best = pareto(table), front(ways(pairs(table)))
    assert list(best.condition) == ["steered"]
    assert {split for _, split in drawn(figure)} == {"test"} and "small" not in figure.layout.title.subtitle.text
    (step,) = [trace for trace in figure.data if trace.name == "front"]
    assert set(step.x) >= {best.x_value.iloc[0]}


def test_dev_rows_of_what_was_tried_stay_dev_beside_a_measured_table():
    assert {split for _, split in drawn(pareto(restoration(), restoration()))} == {"dev", "test"}


def test_attacks_are_added_where_there_is_no_all():
    apart = pairs(sweep(attacks=("plain", "roleplay")))
    whole = pairs(sweep())
    assert apart.x_value.tolist() == whole.x_value.tolist() and (apart.x_n == 2 * whole.x_n).all()
    assert pairs(sweep(attacks=("all", "plain"))).x_n.tolist() == whole.x_n.tolist()


def test_missing_rates_and_intervals_are_told_not_hidden():
    table = sweep()
    gone = table.copy()
    gone.loc[(gone.condition == gone.condition.iloc[0]) & (gone.metric == "over_refusal"), ["value", "low", "high"]] = np.nan
    assert "1 without both rates" in pareto(gone).layout.title.subtitle.text
    bare = pareto(table.assign(low=np.nan, high=np.nan))
    assert len(drawn(bare)) == table.condition.nunique()
    far = sweep().assign(value=0.9, low=0.85, high=0.95)
    far.loc[far.condition == far.condition.iloc[0], ["value", "low", "high"]] = (0.01, 0.0, 0.03)
    far.loc[far.metric == "helpful", "value"] = 1.0
    assert any("17 more further out" in note.text for note in pareto(far).layout.annotations)
    with pytest.raises(TableProblem, match="no trade to draw"):
        pareto(table[table.metric != "over_refusal"])


def test_the_hover_has_the_setting_escaped():
    found = drawn(pareto(sweep()))
    told = found[theme.plain(f"0 thought 2.0 {SCRIPT}"), "dev"][5]
    assert "strength 2.0" in told[8] and theme.plain(f"gate {SCRIPT}") in told[8] and "<script" not in str(told)
    assert told[9].startswith("<br>helpful")


def test_words_tell_the_ends_of_the_front_and_the_test_split():
    table, measured = sweep(many=3), restoration()
    both = pairs(table)
    best, left = front(both), int((both.helpful < 0.5).sum())
    told = read_pareto(table, measured)
    assert f"Of {len(both)} settings on the dev split (40 harmful and 40 harmless prompts each) {len(best)} lie on the front, from" in told
    for row in (best.iloc[0], best.iloc[-1]):
        assert f"{row.condition} (attack success {theme.percents(row.y_value, row.y_low, row.y_high)} at over-refusal" in told
    assert f"{left} help fewer than half" in told
    assert (
        "On the test split: unsteered attack success 83% [76–88] at over-refusal" in told and "8 random directions attack success" in told
    )
    assert "On the test split" not in read_pareto(table)
    lost = table.assign(value=0.0)
    assert "none helps half" in read_pareto(lost) and pareto(lost) is not None


def test_labels_never_lie_on_each_other():
    figure = theme.figure("", "", plot=400)
    beside_marks(figure, [f"<b>{i}" for i in range(4)], [0.0] * 4, [0.5, 0.5, 0.51, 0.0], bottom=-0.1, top=1.0)
    heights = sorted(400 * (note.y + 0.1) / 1.1 - note.ay for note in figure.layout.annotations)
    assert min(np.diff(heights)) >= LINE - 1e-9 and all("<b>" not in note.text for note in figure.layout.annotations)
    assert wrapped_room(["a"]) < wrapped_room(["a" * 30] * 3)
