"""Drift is what numpy and scipy say of the same rows, its intervals are scipy's, and rows that have no drift are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cosine
from scipy.stats import bootstrap
from thoughtlens.hooks import Store
from thoughtlens.probes.drift import METRICS, drift

Build = Callable[..., Store]
SITES = {"resid_post.1": 0.5, "resid_post.10": 2.0}


def stores(build: Build, **asked: Any) -> dict[str, Store]:
    """Three models: the second is the first turned and longer, the third pushed along one direction."""
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))[0]

    def turned(x: torch.Tensor, index: pd.DataFrame) -> None:
        x[:] = 1.5 * (x + 0.3 * x @ turn)

    def pushed(x: torch.Tensor, index: pd.DataFrame) -> None:
        x[..., 0] += 2.0

    given = {"signal": SITES, "spans": ("last_prompt", "thought"), "groups": 20, **asked}
    return {name: build(spoil=spoil, **given) for name, spoil in (("base", None), ("reasoning", turned), ("safe", pushed))}


def test_values_are_those_of_numpy_and_scipy(build: Build) -> None:
    trio = stores(build)
    table = drift(trio, draws=20)
    assert list(table.columns) == ["a", "b", "site", "layer", "span", "n", "groups", "metric", "value", "low", "high"]
    assert len(table) == 3 * 2 * 2 * len(METRICS) and table.notna().all(axis=None)
    for row in table.itertuples():
        a, b = (trio[name].numpy({"span": row.span}, sites=[row.site])[0][:, 0].astype(np.float64) for name in (row.a, row.b))
        expected = {
            "cosine": np.mean([1 - cosine(x, y) for x, y in zip(a, b, strict=True)]),
            "norm_ratio": np.mean(np.linalg.norm(b, axis=1) / np.linalg.norm(a, axis=1)),
            "difference_norm": np.linalg.norm((b - a).mean(0)),
        }[row.metric]
        assert row.value == pytest.approx(expected, rel=1e-12) and row.low <= row.high
        assert (row.n, row.groups, f"resid_post.{row.layer}") == (60, 20, row.site)
    assert [tuple(pair) for pair in table[["a", "b"]].drop_duplicates().to_numpy()] == [
        *(("base", "reasoning"), ("base", "safe"), ("reasoning", "safe")),
    ]


def test_a_model_does_not_drift_from_itself(build: Build) -> None:
    store = build(signal=SITES, groups=5)
    table = drift({"one": store, "same": store}, draws=50).set_index("metric")[["value", "low", "high"]]
    for metric, expected in (("cosine", 1.0), ("norm_ratio", 1.0), ("difference_norm", 0.0)):
        np.testing.assert_allclose(table.loc[metric], expected, atol=1e-12)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_of_single_rows_are_those_of_scipy(build: Build, confidence: float) -> None:
    trio = stores(build, groups=60, per_group=1, spans=("thought",))
    table = drift(trio, pairs=[("base", "reasoning")], draws=4000, confidence=confidence)
    a, b = (trio[name].numpy(sites=["resid_post.10"])[0][:, 0].astype(np.float64) for name in ("base", "reasoning"))

    def theirs(statistic: Callable[..., Any], *samples: Any) -> Any:
        done = bootstrap(
            samples, statistic, n_resamples=4000, confidence_level=confidence, method="percentile", paired=True, vectorized=False
        )
        return done.confidence_interval

    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    rows = np.arange(len(a))
    for metric, interval in (
        ("cosine", theirs(np.mean, cosines)),
        ("difference_norm", theirs(lambda i: np.linalg.norm((b - a)[i.astype(int)].mean(0)), rows)),
    ):
        (ours,) = table[(table["site"] == "resid_post.10") & (table["metric"] == metric)].itertuples()
        width = interval.high - interval.low
        assert abs(ours.low - interval.low) < 0.1 * width and abs(ours.high - interval.high) < 0.1 * width


def test_rows_of_one_group_are_drawn_together(build: Build) -> None:
    trio = stores(build, groups=12, per_group=8, cluster=4.0, spans=("thought",))
    asked: dict[str, Any] = {"pairs": [("base", "reasoning")], "draws": 500}
    whole, loose = drift(trio, **asked), drift(trio, group="prompt_id", **asked)
    widths = [(table["high"] - table["low"])[table["metric"] == "cosine"].to_numpy() for table in (whole, loose)]
    assert (widths[0] > 1.3 * widths[1]).all() and set(whole["groups"]) == {12} and set(loose["groups"]) == {96}
    np.testing.assert_allclose(whole["value"], loose["value"], rtol=1e-12)


def test_the_seed_repeats_and_where_chooses_rows(build: Build) -> None:
    trio = stores(build)
    assert drift(trio, draws=30).equals(drift(trio, draws=30)) and not drift(trio, draws=30).equals(drift(trio, draws=30, seed=1))
    some = drift(trio, where={"split": "test", "span": "thought"}, draws=5)
    assert set(some["span"]) == {"thought"} and set(some["n"]) == {12} and set(some["groups"]) == {4}


def test_rows_are_read_and_groups_drawn_once_for_all_sites(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    trio, module, told = stores(build), sys.modules["thoughtlens.probes.drift"], list[str]()
    for name in ("aligned", "_draws"):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, plain=plain, name=name, **asked: (told.append(name), plain(*args, **asked))[1])
    table = drift(trio, draws=5)
    assert told == ["aligned", "_draws"] * 2 and table["site"].nunique() == 2 and table["span"].nunique() == 2


def test_what_has_no_drift_is_refused(build: Build, write: Build, tmp_path: Path) -> None:
    def zero(x: torch.Tensor, index: pd.DataFrame) -> None:
        x[4, 1] = 0.0

    store, fewer = build(signal=SITES, groups=5), build(signal=SITES, groups=4)
    nothing = build(signal=SITES, groups=5, spoil=zero)
    for call, message in (
        (lambda: drift({"base": store}), "no two stores to compare; they are base"),
        (lambda: drift({"base": store}, pairs=[("base", "safe")]), "no store 'safe'; they are base"),
        (lambda: drift({"base": store, "safe": fewer}), "'base' and 'safe' do not hold the same rows: 3 are"),
        (lambda: drift({"base": store, "safe": nothing}), "prompt 'p4' at resid_post.10 in 'safe' is zero, nan or inf"),
        (lambda: drift({"base": store, "safe": store}, confidence=95), "confidence=95 lies between 0 and 1"),
        (lambda: drift({"base": store, "safe": store}, group="goal"), "no column 'goal'"),
        (lambda: drift({"base": store, "safe": store}, where={"split": "none"}), "no rows with {'split': 'none'}"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
