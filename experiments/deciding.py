"""`thoughtlens decide RUN`: where the thoughts of a run are decided, ranked three ways; an anchor that recognises decisions; is it stable?

    tables/decision_ranks.parquet        a row per anchor and side: divergence, margin, effect, their ranks    (probes/decision.py)
           decision_agreement.parquet    Kendall's tau between the three, and of each across dev and test
           decision_sweep.parquet        every one-token edit in means                                         (probes/effect.py)
           decision_boundaries.parquet   every end of a step: what patching closes there, score, found
           decision_readout.parquet      the anchor's readout beside other sites and baselines                 (probes/recognising.py)
           decision_key.parquet          precision and recall against the world's own annotation, if it has one (answer_key.py)
           decision_stability.parquet    with --also: which anchor comes first in each run
    probes/decision.safetensors          the anchor

A run that was decided with the same settings is not decided again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..checkpoints import CHECKPOINTS
from ..hooks.anchor import Anchor
from ..hooks.files import locked
from ..probes.deciding import decision_points, stability
from . import deciding_tables as told
from .answer_key import KEYS, against_key, positions
from .asked import Asked, Probing, Unanswered, open_probing
from .progress import printer
from .rereading import followed
from .telling import tell

TABLES = ("decision_ranks", "decision_agreement", "decision_sweep", "decision_boundaries", "decision_readout")
KEY, STABILITY = "decision_key", "decision_stability"
SAFE = "safe"
CLASSES: Mapping[str, tuple[bool, ...]] = {"all": (True, False), "harmful": (True,), "benign": (False,)}


@dataclass(frozen=True)
class Deciding:
    """What is asked: how many harmful prompts of each split (and as many benign ones), and the settings of decision_points()."""

    followed: int = 40
    sites: tuple[str, ...] = ()
    ahead: int = 4
    strengths: tuple[float, ...] = (1.0, 2.0)
    draws: int = 2
    counts: float = 0.1
    resampled: int = 1000
    seed: int = 0


def decide(
    run: str | Path,
    asked: Deciding,
    *,
    also: Sequence[str | Path] = (),
    checkpoints: Sequence[Path] = (),
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Find the decision points of a run, keep tables and anchor there, print what came out, and draw report.html again.

    also          other runs, of other seeds or trios, decided alike: how often the same anchor comes first in all of them
    checkpoints   folders with a checkpoint per model: none (the shipped trio), one for all runs, or one a run, in their order
    ValueError for another number of folders, before anything is run.
    """
    console = printer()
    opened: dict[Path, Probing] = {}
    for folder, home in homes([run, *also], checkpoints).items():
        opened[folder] = _open(folder, asked, home, device, progress)
    for folder, p in opened.items():
        with locked(folder):
            found, pace = decided(p, asked)
        for part in told.findings(found, p.run.folder, pace):
            console.print(part, soft_wrap=isinstance(part, str))
    first = next(iter(opened.values()))
    with locked(first.run.folder):
        if len(opened) > 1:
            table = stability({str(folder): p.run.table(TABLES[0]) for folder, p in opened.items()})
            first.run.write_table(STABILITY, table)
            console.print(told.stable(table))
        console.print(f"report: {tell(first.run.folder)}", soft_wrap=True)


def homes(runs: Sequence[str | Path], checkpoints: Sequence[Path]) -> dict[Path, Path | None]:
    """Run folder -> the folder with its checkpoints, None for the shipped trio. ValueError unless there is none, one, or one a run."""
    if len(checkpoints) not in (0, 1, len(runs)):
        raise ValueError(
            f"there are {len(runs)} runs and {len(checkpoints)} folders of checkpoints; pass one for all of them, or one a run, in order"
        )
    each = list(checkpoints) if len(checkpoints) > 1 else [*checkpoints, None][:1] * len(runs)
    return dict(zip(map(Path, runs), each, strict=True))


def decided(p: Probing, asked: Deciding) -> tuple[dict[str, pd.DataFrame], float | None]:
    """The tables of a run, made now or found; and, if made now, how many edits of one token a minute took, everything counted."""
    anchor = anchor_file(p)
    inputs = {**p.inputs, "deciding": asdict(asked)}
    pace = None
    with p.stage("decide", [*(p.run.path("tables", f"{name}.parquet") for name in TABLES), anchor], inputs) as due:
        if due:
            begun = time.perf_counter()
            found = decision_points(
                (p.lens(SAFE), p.lens(p.writer)), followed(p), sites=asked.sites or None, progress=p.progress, **_settings(asked)
            )
            pace = 60 * found.edits / (time.perf_counter() - begun)
            for name, table in zip(TABLES, (found.table, found.agreement, found.sweep, found.boundaries, found.readout), strict=True):
                p.run.write_table(name, table)
            anchor.unlink(missing_ok=True)
            found.anchor.save(anchor)
    tables = {name: p.run.table(name) for name in TABLES}
    key = keyed(p, tables["decision_boundaries"], asked)
    if len(key):
        p.run.write_table(KEY, key)
        tables[KEY] = key
    return tables, pace


def keyed(p: Probing, boundaries: pd.DataFrame, asked: Deciding, annotated: Callable[[str], list[int]] | None = None) -> pd.DataFrame:
    """Precision and recall of what was found, by split and class, where the prompts' benchmark has an answer key; else no row."""
    said = [t for t in followed(p) if annotated is not None or t.prompt.benchmark in KEYS]
    key = positions(said, p.lens(p.writer), annotated) if said else {}
    found: dict[str, list[int]] = {t.id: [] for t in said}
    for id_, place in boundaries.loc[boundaries["found"] & boundaries["prompt_id"].isin(list(found)), ["prompt_id", "position"]].values:
        found[id_].append(int(place))
    rows = []
    for split in ("dev", "test"):
        for name, labels in CLASSES.items():
            some = {t.id: t.prompt.group or t.id for t in said if t.prompt.split == split and t.prompt.harmful in labels}
            if some:
                part = against_key(found, {id_: key[id_] for id_ in some}, some, resampled=asked.resampled, seed=asked.seed)
                rows.append(part.assign(split=split, prompts=name))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def anchor_file(p: Probing) -> Path:
    return p.run.path("probes", "decision.safetensors")


def load_anchor(run: str | Path) -> Anchor:
    """The anchor of a run that was decided. FileNotFoundError naming what makes it."""
    file = Path(run) / "probes" / "decision.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; `thoughtlens decide {run}` writes it")
    return Anchor.load(file)


def _settings(asked: Deciding) -> dict[str, Any]:
    return {name: value for name, value in asdict(asked).items() if name not in ("followed", "sites")}


def _open(folder: Path, asked: Deciding, checkpoints: Path | None, device: str | None, progress: bool) -> Probing:
    p = open_probing(
        folder,
        Asked(followed=asked.followed, resampled=asked.resampled, seed=asked.seed),
        checkpoints=checkpoints,
        shipped=CHECKPOINTS,
        device=device,
        progress=progress,
    )
    if p.writer == SAFE:
        raise Unanswered(f"{folder}: the safe model wrote these transcripts, and decisions are those of another model beside it")
    if missing := [model for model in (SAFE, p.writer) if model not in p.stores]:
        raise Unanswered(
            f"{folder} has no activations of {', '.join(missing)}: decisions are where a safer model of the family would go on otherwise. "
            "Capture the same transcripts with it (thoughtlens capture --transcripts)"
        )
    return p
