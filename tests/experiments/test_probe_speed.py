"""The probe benchmark compares the same fits: same rows, same settings, scikit-learn's numbers, and it refuses to time anything else."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from thoughtlens.experiments import probe_speed
from thoughtlens.experiments.probe_speed import COLUMNS, FOLDS, PEERS, Shape, Work, check_fits, make_work, measure_kind, ours, theirs, told
from thoughtlens.experiments.progress import Advance
from thoughtlens.probes.kinds import KINDS

TOY = Shape(2, 24, 1500, rounds=1, pairs=10)
CPU = torch.device("cpu")
QUIET: Advance = lambda note, by: None  # noqa: E731


@pytest.fixture(scope="module")
def work() -> Work:
    return make_work(TOY)


def test_the_whole_of_it_on_a_toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = Shape(1, 12, 1500, rounds=2, pairs=1)
    monkeypatch.setattr(probe_speed, "SHAPES", {"cpu": (shape,)})
    threads = torch.get_num_threads()
    table = probe_speed.bench_probe("cpu", out=tmp_path / "speed.md", progress=False)
    assert torch.get_num_threads() == threads
    assert list(table.columns) == list(COLUMNS) and table.kind.unique().tolist() == list(KINDS) == list(PEERS)
    assert (5 * table.timed == table.fits).all() and (table.ratio > 0).all() and (table.low <= table.ratio).all()
    assert table.set_index(["kind", "against"]).fits["logistic", "float64"] == 4 * 4 * FOLDS
    page = (tmp_path / "speed.md").read_text()
    assert "<!-- thoughtlens bench probe -->\n## What fitting probes costs" in page and f"### {shape}" in page and "at least 15.00" in page
    assert str(shape) in capsys.readouterr().out


def test_no_shapes_for_a_device() -> None:
    with pytest.raises(ValueError, match="no shapes are chosen for the device 'meta'; there are some for cpu, cuda"):
        probe_speed.bench_probe("meta")


def test_what_the_goals_name_is_measured() -> None:
    measured = {device: {(shape.sites, shape.width, shape.rows) for shape in shapes} for device, shapes in probe_speed.SHAPES.items()}
    assert measured["cpu"] == {(8, 256, 3000), (28, 1024, 6000)} and (28, 3584, 10000) in measured["cuda"]
    goals = {kind: peer.goals for kind, peer in PEERS.items()}
    assert goals.pop("logistic") == {"cpu": 4, "cuda": 50} and all(goal == {"cpu": 15, "cuda": 50} for goal in goals.values())


def test_the_fits_are_those_of_a_pipeline_on_each_folds_rows(work: Work) -> None:
    """Ours and the loop's, against scikit-learn as one would write it: a pipeline of scaler and estimator per fit."""
    weight, bias = ours("logistic", work, CPU)
    fits = list(theirs("logistic", work, work.places(10, 4), np.float64))
    assert len({one.at for one in fits}) == len(fits) == weight[..., 0].numel()
    for one in fits[:: len(fits) // 7]:
        site, setting, fit = one.at
        labelling, k = divmod(fit, FOLDS)
        training = (work.fold != k).numpy()
        y, x = work.labellings[labelling].numpy(), work.x[site].double().numpy()
        c = KINDS["logistic"].settings[setting]
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=10_000)).fit(x[training], y[training])
        np.testing.assert_allclose(one.estimator.coef_, pipeline[-1].coef_, atol=1e-10)
        tight = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-10, max_iter=10_000)).fit(x[training], y[training])
        scores = x[~training] @ weight[one.at].numpy() + float(bias[one.at])
        np.testing.assert_allclose(scores, tight.decision_function(x[~training]), atol=1e-3)


@pytest.mark.parametrize("kind", PEERS)
def test_fits_that_are_not_the_same_are_not_timed(kind: str, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_fits(kind, work, TOY, *ours(kind, work, CPU))["gap"] <= (1e-4 if kind == "logistic" else 1e-6)
    true = KINDS[kind].fit

    def off(*given: object, **asked: object) -> tuple[torch.Tensor, torch.Tensor]:
        weight, bias = true(*given, **asked)  # type: ignore[arg-type]
        return weight * (1 + 0.05 * torch.randn(weight.shape[-1], generator=torch.Generator().manual_seed(0))), bias

    monkeypatch.setattr(probe_speed, "KINDS", {**KINDS, kind: replace(KINDS[kind], fit=off)})
    with pytest.raises(RuntimeError, match=f"{kind} probes are not scikit-learn's.*Nothing was timed"):
        measure_kind(kind, TOY, work, CPU, QUIET)


def test_a_part_of_the_loop_is_scaled_and_said(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_speed, "seconds", lambda *_: 2.0)
    half = measure_kind("ridge", replace(TOY, pairs=5, labellings=2), work, CPU, QUIET)
    assert (half.fits == 160).all() and (half.timed == 40).all() and (half.checked == 24).all()
    assert half.ratio.tolist() == pytest.approx((half.theirs / 2).tolist())
    fits = list(theirs("ridge", work, work.places(5, 2), np.float64))
    timed = [replace(one, fitting=(1.0, 3.0)[i % 2], scaling=5.0) for i, one in enumerate(fits)]
    assert probe_speed.whole(timed, "ridge", work) == 10 * 5 + 160 * 2
    shown = told(half)
    assert shown["scikit-learn, s"].str.endswith("(from 40 fits)").all() and shown["scikit-learn on"].tolist() == ["float32", "float64"]
    assert work.places(3, 1) == [(0, 0, 0), (0, 4, 0), (1, 4, 0)] and len(set(work.places(99, 4))) == 40


def test_the_hidden_states_are_as_described() -> None:
    work = make_work(Shape(3, 60, 4000, rounds=1, pairs=1))
    x, y = work.x.double().numpy(), work.labellings[0].numpy()
    assert work.x.dtype == torch.float32 and y.mean() == 0.5 and (work.labellings.sum(1) == y.sum()).all()
    for site, apart in zip(x, (1, 1.75, 2.5), strict=True):
        spectrum = np.linalg.eigvalsh(np.cov((site - np.where(y[:, None], site[y].mean(0), site[~y].mean(0))).T))[::-1]
        assert np.polyfit(np.log(np.arange(1, 61)), np.log(spectrum), 1)[0] == pytest.approx(-1.5, abs=0.1)
        best = np.linalg.solve(np.cov(site.T), site[y].mean(0) - site[~y].mean(0))
        assert roc_auc_score(y, site @ best) == pytest.approx(norm.cdf(apart / np.sqrt(2)), abs=0.03)
        assert np.linalg.norm(site.mean(0)) / np.sqrt(site.var(0).sum()) == pytest.approx(2, abs=0.4)
    groups = np.arange(4000) // probe_speed.GROUP
    assert pd.Series(work.fold.numpy()).groupby(groups).nunique().max() == 1 and pd.Series(y).groupby(groups).nunique().max() == 1


def test_the_page_says_what_is_measured() -> None:
    text = inspect.getdoc(probe_speed) or ""
    for said in ("4 labellings", "3 shuffled", "each of 5", "k^-1.5", "groups of 5", "1e-10", "1e-4", "5e-4", "1e-6"):
        assert said in text
    assert (probe_speed.SHUFFLED + 1, probe_speed.FOLDS, probe_speed.GROUP) == (4, 5, 5)
