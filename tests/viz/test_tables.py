"""Missing, damaged, empty and incomplete tables say what to do; intervals agree with somebody else's formula."""

from __future__ import annotations

import pandas as pd
import pytest
from fake_run import make_run, wilson
from scipy import stats
from thoughtlens.viz import tables
from thoughtlens.viz.tables import TableProblem, read_table


@pytest.mark.parametrize(("name", "command"), list(tables.MADE_BY.items()))
def test_a_missing_table_names_its_command(tmp_path, name, command):
    with pytest.raises(TableProblem, match=f"no {name} table.*`{command}`"):
        read_table(tmp_path, name)


def test_a_damaged_table_says_so(tmp_path):
    run = make_run(tmp_path / "run")
    path = run / "tables" / "collapse.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TableProblem, match="damaged"):
        read_table(run, "collapse")


def test_an_empty_table_and_a_lacking_column_say_so(tmp_path):
    run = make_run(tmp_path / "run")
    pd.DataFrame(columns=list(tables.COLUMNS["restoration"])).to_parquet(run / "tables" / "restoration.parquet")
    with pytest.raises(TableProblem, match="restoration table is empty"):
        read_table(run, "restoration")
    pd.DataFrame({"model": ["base"]}).to_parquet(run / "tables" / "trajectory.parquet")
    with pytest.raises(TableProblem, match="lacks condition, prompt_id, .*; it has model"):
        read_table(run, "trajectory")


@pytest.mark.parametrize(("k", "n"), [(0, 20), (7, 20), (20, 20), (131, 162)])
def test_wilson_is_scipys(k, n):
    theirs = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert tables.wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-4)


def test_difference_is_newcombes_example():
    """Newcombe 1998, table II: 56/70 against 48/80, method 10: 0.0524 to 0.3339."""
    rows = [pd.Series({"value": k / n, "low": tables.wilson(k, n)[0], "high": tables.wilson(k, n)[1]}) for k, n in ((56, 70), (48, 80))]
    assert tables.difference(*rows) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_what_is_remembered_of_a_table_is_forgotten_with_it():
    asked: list[int] = []

    @tables.remembered
    def total(table: pd.DataFrame, column: str, *, times: int = 1) -> int:
        asked.append(len(table))
        return int(table[column].sum()) * times

    one, other = pd.DataFrame({"a": [1, 2], "b": [3, 4]}), pd.DataFrame({"a": [5, 6], "b": [7, 8]})
    for _ in range(2):
        assert [total(one, "a"), total(one, "b"), total(other, "a"), total(one, "a", times=2)] == [3, 7, 11, 6]
    assert len(asked) == 4
    for number in range(100):  # a new table may stand where an old one stood
        assert total(pd.DataFrame({"a": [number]}), "a") == number
