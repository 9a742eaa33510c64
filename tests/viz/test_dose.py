"""A curve is the rows of one vector at one place, with their bands; which place is the one with the most strengths."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_run import SCRIPT, rate
from thoughtlens.viz import theme
from thoughtlens.viz.figures.dose import METRICS, dose, doses, read_dose
from thoughtlens.viz.tables import TableProblem

PLACES = {  # vector -> site -> strengths
    "safe - reasoning": {"resid_post.1": (1.0, 2.0), "resid_post.3": (4.0, 0.5, 1.0, 2.0)},
    SCRIPT: {"resid_post.1": (1.0, 2.0), "resid_post.2": (1.0, 2.0)},
    "tried once": {"resid_post.0": (1.0,)},
}


def sweep(n: int = 40) -> pd.DataFrame:
    """Attack success falls with strength, over-refusal grows; at resid_post.2 both are lower."""
    rows = []
    for source, sites in PLACES.items():
        for site, strengths in sites.items():
            for strength in strengths:
                lower = 0.5 if site == "resid_post.2" else 1.0
                values = {
                    "attack_success": lower * 0.8 / (1 + strength),
                    "over_refusal": lower * 0.1 * strength,
                    "helpful": 0.9 - 0.1 * strength,
                }
                where = {"source": source, "span": "last_prompt", "site": site, "operator": "add", "gate": "always", "strength": strength}
                where |= {"condition": f"{source} {site} {strength}", "thought_mode": "regenerated", "split": "dev", "threshold": 4.0}
                for metric, value in values.items():
                    for attack, of in (("all", value), ("plain", value / 2)):
                        rows.append({**where, "metric": metric, "attack": attack, **rate(round(of * n), n)})
    return pd.DataFrame(rows)


def curves(figure) -> dict[tuple[str, str], tuple]:
    """(vector, outcome) -> line, band."""
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    bands = [trace for trace in figure.data if trace.mode == "none"]
    return {(line.customdata[0][0], line.name): (line, band) for line, band in zip(lines, bands, strict=True)}


def test_lines_and_bands_are_the_rows_in_the_order_of_strength():
    table, found = sweep(), curves(dose(sweep()))
    assert set(found) == {(theme.plain(source), name) for source in ("safe - reasoning", SCRIPT) for name in METRICS.values()}
    for (source, name), (line, band) in found.items():
        metric = next(key for key, words in METRICS.items() if words == name)
        site = "resid_post.3" if source == "safe - reasoning" else "resid_post.2"
        rows = table[(table.metric == metric) & (table.attack == "all") & (table.site == site)]
        rows = rows[rows.source.map(theme.plain) == source].sort_values("strength")
        assert list(line.x) == rows.strength.tolist() and list(line.y) == rows.value.tolist()
        assert list(band.y) == [*rows.high, *rows.low[::-1]] and list(band.x) == [*rows.strength, *rows.strength[::-1]]
        assert [told[2:4] for told in line.customdata] == rows[["low", "high"]].to_numpy().tolist()
        assert [told[5] for told in line.customdata] == [40] * len(rows)
        assert f"last_prompt, {site}, gate always, strength 0.5" in line.customdata[0][1] or line.x[0] == 1.0


def test_every_outcome_is_in_the_legend_once_and_has_its_own_mark():
    lines = [line for line, _ in curves(dose(sweep())).values()]
    assert sorted(line.name for line in lines if line.showlegend) == sorted(METRICS.values())
    assert len({line.marker.symbol for line in lines}) == len({line.line.color for line in lines}) == 3
    assert not any(trace.showlegend for trace in dose(sweep()).data if trace.mode == "none")


def test_of_places_with_as_many_strengths_the_one_with_the_lowest_sum_is_drawn():
    drawn = doses(sweep())
    assert drawn[drawn.source == SCRIPT].site.unique().tolist() == ["resid_post.2"]
    assert "tried once" not in set(drawn.source) and set(drawn.attack) == {"all"}


def test_operators_of_one_vector_have_panels_of_their_own():
    both = pd.concat([sweep(), sweep().assign(operator="ablate")], ignore_index=True)
    titles = [note.text for note in dose(both).layout.annotations]
    assert len(titles) == 4 and sum("ablate" in title for title in titles) == 2 and not any("<script" in title for title in titles)


def test_attacks_are_added_where_there_is_no_all():
    apart = sweep().query("attack == 'plain'")
    two = pd.concat([apart, apart.assign(attack="roleplay")], ignore_index=True)
    drawn = doses(two)
    assert (drawn.n == 80).all() and len(drawn) == len(doses(sweep()))


def test_rows_without_intervals_are_lines_without_bands():
    bare = dose(sweep().assign(low=np.nan, high=np.nan))
    assert all(len(line.x) and not len(band.x) for line, band in curves(bare).values())


def test_words_tell_where_attacks_succeed_least_and_what_it_costs():
    told, table = read_dose(sweep()), sweep()
    rows = table[(table.source == "safe - reasoning") & (table.site == "resid_post.3") & (table.attack == "all")].set_index(
        ["metric", "strength"]
    )

    def said(metric: str, strength: float) -> str:
        return theme.percents(*rows.loc[(metric, strength), ["value", "low", "high"]])

    assert f"attack success {said('attack_success', 0.5)}, n = 40 at strength 0.5, {said('attack_success', 4.0)} at 4, its lowest" in told
    assert f"(over-refusal {said('over_refusal', 4.0)}, helpful {said('helpful', 4.0)} there)" in told


def test_one_strength_alone_is_no_curve():
    with pytest.raises(TableProblem, match="Sweep several strengths"):
        dose(sweep().query("source == 'tried once'"))
    with pytest.raises(TableProblem, match="no curve"):
        dose(sweep().iloc[:0])
