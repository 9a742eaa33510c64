"""What fitting probes costs, against a loop over scikit-learn that makes the same fits on one thread

    the fits        at every site, each setting of a kind on each of 4 labellings (the true one and 3 shuffled by group) in each of 5
                    folds of whole groups
    ours            one call for all of them: hidden states in memory, float32, to weights in the model's own space, float64; on a GPU with
                    the way there and back
    scikit-learn    per site and fold the training rows, standardised once (not for mean difference, which is not scaled), and then an
                    estimator per labelling and setting as it comes, with enough iterations to converge; on float32 hidden states as
                    stored, and on float64, in which ours are fitted. Where a loop would take hours some of its fits are timed, of every
                    setting as many, and their time is scaled to all: the table says how many

Before the clock starts, some of our fits are compared with the best there is: for logistic regression scikit-learn's Newton solver run to
1e-10, where ours may have an objective that is 1e-4 of it higher; for closed forms scikit-learn's in float64, where weights may be 1e-6 of
their length apart. On the rows that the fold left out the AUROC may be 5e-4 apart. "AUROC apart" is the largest difference from the fits
of the timed loop, which stops at scikit-learn's own tolerance. Ours and the loops take turns; what is told is the median over rounds of the
times of one round, one divided by the other, and the interquartile range.

The hidden states are made up: eigenvalues of the covariance that fall as k^-1.5 (the shipped trio's fall as k^-1.2 over the first ten axes
and faster after), axes turned at random, a mean as long as two standard deviations; two classes that a perfect probe tells apart at
AUROC .76 at the first site to .96 at the last, groups of 5 rows of one class.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from ..probes.controls import shuffle_labels
from ..probes.kinds import KINDS
from ..probes.metrics import auroc
from ..probes.splits import group_folds
from .progress import Advance, track
from .speed import machine_line, one_thread, quartiles, seconds
from .speed_tables import goal_met, markdown, show, spread, write_part

COMMAND = "thoughtlens bench probe"
FOLDS, SHUFFLED, GROUP, CHECKED = 5, 3, 5, 3
DTYPES: Mapping[str, type] = MappingProxyType({"float32": np.float32, "float64": np.float64})
AUROC_GAP, OBJECTIVE_GAP, WEIGHT_GAP = 5e-4, 1e-4, 1e-6
COLUMNS = (
    *("shape", "kind", "against", "fits", "timed", "seconds", "theirs", "ratio", "low", "high", "goal"),
    *("auroc_gap", "gap", "checked"),
)


@dataclass(frozen=True)
class Shape:
    """How much is fitted, and how much of that scikit-learn is timed on.

    rounds              how often both are timed
    pairs, labellings   of how many (site, fold) pairs, and of how many labellings of each, scikit-learn's fits are timed
    """

    sites: int
    width: int
    rows: int
    rounds: int
    pairs: int
    labellings: int = SHUFFLED + 1

    def __str__(self) -> str:
        return f"{self.sites} layers, {self.width:,} wide, {self.rows:,} rows"


SHAPES: Mapping[str, tuple[Shape, ...]] = MappingProxyType(
    {
        "cpu": (Shape(8, 256, 3000, rounds=3, pairs=10), Shape(28, 1024, 6000, rounds=1, pairs=2)),
        "cuda": (Shape(28, 3584, 10000, rounds=1, pairs=1, labellings=1),),
    }
)


@dataclass(frozen=True)
class Peer:
    """What scikit-learn has for a kind of probe.

    make      setting -> estimator
    best      the same as near to its optimum as it gets; a closed form is that as it is
    weight    what a fitted one reads along
    goals     device -> how many times faster ours should be
    scaled    whether it is given standardised features
    """

    make: Callable[[float], Any]
    weight: Callable[[Any], Float[np.ndarray, " d"]]
    goals: Mapping[str, float]
    best: Callable[[float], Any] | None = None
    scaled: bool = True


def _coefficients(estimator: Any) -> Float[np.ndarray, " d"]:
    return np.ravel(estimator.coef_)


LOGISTIC, CLOSED = {"cpu": 4.0, "cuda": 50.0}, {"cpu": 15.0, "cuda": 50.0}
PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "logistic": Peer(
            lambda c: LogisticRegression(C=c, max_iter=10_000),
            _coefficients,
            LOGISTIC,
            best=lambda c: LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10, max_iter=1000),
        ),
        "mean_difference": Peer(lambda _: NearestCentroid(), lambda fitted: np.subtract(*fitted.centroids_[::-1]), CLOSED, scaled=False),
        "whitened": Peer(lambda _: LinearDiscriminantAnalysis(solver="lsqr"), _coefficients, CLOSED),
        "lda": Peer(lambda g: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=g), _coefficients, CLOSED),
        "ridge": Peer(lambda alpha: RidgeClassifier(alpha=alpha), _coefficients, CLOSED),
    }
)


@dataclass(frozen=True, eq=False)
class Work:
    """Hidden states and the fits to be made on them.

    x            [s, n, d] float32
    labellings   [l, n], the true one first
    fold         [n] the fold that leaves a row out
    """

    x: Float[Tensor, "s n d"]
    labellings: Bool[Tensor, "l n"]
    fold: Int[Tensor, " n"]

    @cached_property
    def y(self) -> Bool[Tensor, "f n"]:
        """The labels of each fit: labelling by labelling, fold by fold."""
        return self.labellings.repeat_interleave(FOLDS, dim=0)

    @cached_property
    def training(self) -> Bool[Tensor, "f n"]:
        return torch.stack([self.fold != k for k in range(FOLDS)]).repeat(len(self.labellings), 1)

    def places(self, pairs: int, labellings: int) -> list[tuple[int, int, int]]:
        """(site, fold, labelling) of so many pairs of a site and a fold, spread over all of them."""
        spread = np.linspace(0, len(self.x) * FOLDS - 1, min(pairs, len(self.x) * FOLDS)).round()
        return [(*divmod(int(i), FOLDS), labelling) for i in spread for labelling in range(labellings)]


def bench_probe(device: str | None = None, *, out: Path | None = None, progress: bool = True) -> pd.DataFrame:
    """Measure, print the table and, where `out` says so, write it into its part of that page.

    device    where ours are fitted; default: cuda if there is one, else cpu
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type not in SHAPES:
        raise ValueError(f"no shapes are chosen for the device {str(place)!r}; there are some for {', '.join(SHAPES)}")
    machine, found = machine_line(place), list[pd.DataFrame]()
    with one_thread(), threadpool_limits(1), track(progress) as task:
        for shape in SHAPES[place.type]:
            work = make_work(shape)
            with task(str(shape), len(PEERS)) as advance:
                found += [measure_kind(kind, shape, work, place, advance) for kind in PEERS]
    measured = pd.concat(found, ignore_index=True)
    tables = {str(shape): told(rows) for shape, rows in measured.groupby("shape", sort=False)}
    show(machine, tables)
    if out is not None:
        write_part(out, COMMAND, markdown(COMMAND, machine, str(__doc__), tables))
    return measured


def make_work(shape: Shape, seed: int = 0) -> Work:
    """Hidden states as the text above describes them, their labellings and folds."""
    rng, d = np.random.default_rng(seed), shape.width
    groups = np.arange(shape.rows) // GROUP
    y = (rng.permutation(groups[-1] + 1) % 2 == 0)[groups]
    along = np.arange(1, d + 1) ** -0.75
    x = np.empty((shape.sites, shape.rows, d), dtype=np.float32)
    for site, apart in enumerate(np.linspace(1, 2.5, shape.sites)):
        axes = np.linalg.qr(rng.standard_normal((d, d)))[0]
        signal = rng.standard_normal(d) * (np.arange(d) < max(d // 4, 1))
        white = rng.standard_normal((shape.rows, d)) + np.outer(y - 0.5, apart * signal / np.linalg.norm(signal))
        centre = rng.standard_normal(d) * 2 * np.linalg.norm(along) / np.sqrt(d)
        x[site] = (white * along) @ axes + centre
    true = torch.from_numpy(y)
    labellings = torch.cat([true[None], shuffle_labels(true, groups, SHUFFLED, seed)])
    return Work(torch.from_numpy(x), labellings, torch.from_numpy(group_folds(groups, y, FOLDS, seed)))


def measure_kind(kind: str, shape: Shape, work: Work, device: torch.device, advance: Advance) -> pd.DataFrame:
    """Check one kind at one shape, time it, and tell both: one row per precision of scikit-learn's. RuntimeError: the fits differ."""
    weight, bias = ours(kind, work, device)
    checked = check_fits(kind, work, shape, weight, bias)
    took: dict[str, list[float]] = {name: [] for name in ("ours", *DTYPES)}
    apart: dict[str, float] = {}
    places = work.places(shape.pairs, shape.labellings)
    for _ in range(shape.rounds):
        took["ours"].append(seconds(partial(ours, kind, work, device), device))
        for name, dtype in DTYPES.items():
            fits = list(theirs(kind, work, places, dtype))
            took[name].append(whole(fits, kind, work))
            apart[name] = max(_auroc_gap(kind, one, weight[one.at].numpy(), work) for one in fits)
    settings = len(KINDS[kind].settings)
    sizes = {"fits": shape.sites * len(work.y) * settings, "timed": len(places) * settings}
    rows = []
    for name in DTYPES:
        ratios = [them / us for us, them in zip(took["ours"], took[name], strict=True)]
        low, ratio, high = quartiles(ratios) if len(ratios) > 1 else ratios * 3
        rows.append(
            {
                **{"shape": str(shape), "kind": kind, "against": name, **sizes, "goal": PEERS[kind].goals[device.type]},
                **{"seconds": float(np.median(took["ours"])), "theirs": float(np.median(took[name]))},
                **{"ratio": ratio, "low": low, "high": high, "auroc_gap": apart[name], **checked},
            }
        )
    advance(kind, 1)
    return pd.DataFrame(rows)[list(COLUMNS)]


def ours(kind: str, work: Work, device: torch.device) -> tuple[Float[Tensor, "s c f d"], Float[Tensor, "s c f"]]:
    """All fits, on the device and back."""
    x, y, training = (tensor.to(device) for tensor in (work.x, work.y, work.training))
    weight, bias = KINDS[kind].fit(x, y, KINDS[kind].settings, rows=training)
    return weight.cpu(), bias.cpu()


@dataclass(frozen=True, eq=False)
class Fitted:
    """One of scikit-learn's fits.

    at                 its place among ours: site, setting, fit
    features, labels   what the estimator was given
    fitting, scaling   the seconds it took, and those of the features it shares with other fits
    """

    at: tuple[int, int, int]
    estimator: Any
    scaler: StandardScaler | None
    features: Float[np.ndarray, "m d"]
    labels: Bool[np.ndarray, " m"]
    fitting: float
    scaling: float


def theirs(
    kind: str, work: Work, places: Sequence[tuple[int, int, int]], dtype: type, make: Callable[[float], Any] | None = None
) -> Iterator[Fitted]:
    """The loop over scikit-learn, one fit after the other: every setting at every place."""
    make, scaled = make or PEERS[kind].make, PEERS[kind].scaled
    for (site, k), of_pair in groupby(places, key=lambda place: place[:2]):
        training, start = (work.fold != k).numpy(), time.perf_counter()
        features = work.x[site].numpy()[training].astype(dtype)
        scaler = StandardScaler().fit(features) if scaled else None
        features = features if scaler is None else scaler.transform(features)
        scaling = time.perf_counter() - start
        for *_, labelling in of_pair:
            labels = work.labellings[labelling].numpy()[training]
            for i, setting in enumerate(KINDS[kind].settings):
                start = time.perf_counter()
                estimator = make(setting).fit(features, labels)
                fitting = time.perf_counter() - start
                yield Fitted((site, i, labelling * FOLDS + k), estimator, scaler, features, labels, fitting, scaling)


def whole(fits: Sequence[Fitted], kind: str, work: Work) -> float:
    """Seconds that the loop over everything takes, by those of some fits."""
    scaling = {(one.at[0], one.at[2] % FOLDS): one.scaling for one in fits}
    pairs = len(work.x) * FOLDS
    total = pairs * len(work.labellings) * len(KINDS[kind].settings)
    return pairs * float(np.mean(list(scaling.values()))) + total * float(np.mean([one.fitting for one in fits]))


def check_fits(
    kind: str, work: Work, shape: Shape, weight: Float[Tensor, "s c f d"], bias: Float[Tensor, "s c f"]
) -> dict[str, float | int]:
    """How far ours are from the best there are. RuntimeError where that is more than rounding: timing other fits would be idle."""
    best = list(theirs(kind, work, work.places(min(shape.pairs, CHECKED), shape.labellings), np.float64, PEERS[kind].best))
    gap = max(_gap(kind, one, weight[one.at].numpy(), float(bias[one.at])) for one in best)
    apart = max(_auroc_gap(kind, one, weight[one.at].numpy(), work) for one in best)
    allowed = OBJECTIVE_GAP if kind == "logistic" else WEIGHT_GAP
    if gap > allowed or apart > AUROC_GAP:
        raise RuntimeError(
            f"{kind} probes are not scikit-learn's: the fit differs by up to {gap:.1e} (allowed {allowed:g}), AUROC by {apart:.1e} "
            f"(allowed {AUROC_GAP:g}). Nothing was timed."
        )
    return {"gap": gap, "checked": len(best)}


def _auroc_gap(kind: str, one: Fitted, mine: Float[np.ndarray, " d"], work: Work) -> float:
    """Difference of the AUROCs on the rows that the fold left out."""
    site, _, fit = one.at
    held = work.fold == fit % FOLDS
    h = work.x[site][held].double().numpy()
    z = h if one.scaler is None else one.scaler.transform(h)
    scores = np.stack([h @ mine, z @ PEERS[kind].weight(one.estimator).astype(np.float64)])
    a, b = auroc(torch.from_numpy(scores), work.y[fit][held]).tolist()
    return abs(a - b)


def _gap(kind: str, best: Fitted, weight: Float[np.ndarray, " d"], bias: float) -> float:
    """How far ours is from the best, on the features that had: the objective of logistic regression, the weights of a closed form."""
    if best.scaler is not None:
        weight, bias = weight * best.scaler.scale_, bias + float(weight @ best.scaler.mean_)
    target = PEERS[kind].weight(best.estimator)
    if kind != "logistic":
        return float(np.linalg.norm(weight - target) / np.linalg.norm(target))
    sign, c = np.where(best.labels, 1.0, -1.0), KINDS[kind].settings[best.at[1]]
    objective, least = (
        np.logaddexp(0, -sign * (best.features @ w + b)).sum() + w @ w / (2 * c)
        for w, b in ((weight, bias), (target, float(np.ravel(best.estimator.intercept_)[0])))
    )
    return float(objective / least - 1)


def told(measured: pd.DataFrame) -> pd.DataFrame:
    """What is shown of one shape: words and rounded numbers."""
    parts = [f" (from {timed:,} fits)" if timed < fits else "" for timed, fits in zip(measured.timed, measured.fits, strict=True)]
    return pd.DataFrame(
        {
            "kind": measured.kind,
            "scikit-learn on": measured.against,
            "fits": measured.fits.map("{:,}".format),
            "ours, s": measured.seconds.map(_seconds),
            "scikit-learn, s": measured.theirs.map(_seconds) + parts,
            "times faster": spread(measured, 1),
            "AUROC apart": measured.auroc_gap.map("{:.0e}".format),
            "from the best": measured.gap.map("{:.0e}".format) + measured.checked.map(" ({:,} fits)".format),
            "goal": [goal_met(goal, ratio, "at least") for goal, ratio in zip(measured.goal, measured.ratio, strict=True)],
        }
    )


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
