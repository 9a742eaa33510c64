"""One lineage of the trio in figures: what each model does on every set, what a probe reads before the decision, what steering restores.

    rates      every model on every set, by attack and by kind of task; a row each, with numerator, n and a 95% interval over goals
    probes     unsafe intent at the moments before and at the decision, read in all models on the reasoning model's own tokens
    steering   moment, source, site and strength chosen on dev from a small grid (steered.py), told once on every set beside controls

All of it JSON-able, small, and made without anything but the checkpoints: many lineages are measured like this and compared afterwards.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from ...hooks.capture import capture
from ...hooks.files import write_text
from ...hooks.generate import generate
from ...hooks.model import LensModel, load
from ...hooks.records import Prompt, Transcript
from ...hooks.select import Select
from ...hooks.store import Store
from ...probes.fit import fit_probes
from ..audit.score import rate, rates
from ..audit.verdicts import THRESHOLD
from ..detection import texts_at, wordless
from ..judges.rule import judge
from ..progress import Track, track
from ..restoration import Workbench
from ..run import package_version
from ..study import ROLES, fingerprints
from . import network, steered
from .sets import CONTROLLED, SEEN_GOALS, evaluation_sets, fitting_sets

RECORD = "stage.json"
PARTS = ("rates", "probes", "steering")
MOMENTS = steered.SPANS
READ = 200  # twin pairs of a set whose hidden states are read, and on which controls of steering are told
PLAIN, WRAPPED = "plain", "wrapped"  # wrapped: every attack that is not plain text
NUMBERS = ("auroc", "low", "high", "tpr_at_1fpr", "text_auroc", "control_auroc")
COUNTS = ("n_train", "n_test", "groups")


@dataclass(frozen=True)
class Lineage:
    """The checkpoints of one lineage, loaded, and how they are let write."""

    models: Mapping[str, LensModel]
    batch_size: int
    track: Track

    def write(self, role: str, asked: Sequence[Prompt], title: str) -> list[Transcript]:
        """What a model writes, left alone."""
        said: list[Transcript] = []
        with self.track(title, len(asked)) as advance:
            for start in range(0, len(asked), self.batch_size):
                part = asked[start : start + self.batch_size]
                said += generate(self.models[role], part, max_new_tokens=network.MAX_NEW_TOKENS, batch_size=self.batch_size, progress=False)
                advance("", len(part))
        return said


def measure(
    folder: str | Path,
    *,
    device: str | None = None,
    limit: int | None = None,
    batch_size: int = 256,
    parts: Sequence[str] = PARTS,
    progress: bool = True,
    keep: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """Measure the checkpoints base/, reasoning/ and safe/ in a folder; those that are not there are left out.

    limit   twin pairs of each set, and tasks of each kind; by default all
    parts   of PARTS; probes need a reasoning model, steering needs a safe one too
    keep    called with what there is after every part, so that a long measurement that is cut off leaves the parts it finished
    Raises ValueError for an unknown part and FileNotFoundError where a part lacks its checkpoint.
    """
    folder = Path(folder)
    paths = {role: str(folder / role) for role in ROLES if (folder / role / "config.json").is_file()}
    _check(folder, paths, parts)
    disable_progress_bar()  # transformers' own, which would break ours
    sets = evaluation_sets(limit)
    found: dict[str, Any] = {
        "format_version": 1,
        "name": folder.resolve().name,
        "models": fingerprints(paths),
        "recipes": {role: recipe(folder / role) for role in paths},
        "how": {"judge": "rule", "threshold": THRESHOLD, "decoding": "greedy", "max_new_tokens": network.MAX_NEW_TOKENS, "limit": limit},
        "made_with": {"torch": torch.__version__, "transformers": package_version("transformers"), "device": device or "auto"},
        "sizes": {name: len(prompts) for name, prompts in sets.items()},
    }
    with track(progress) as bars:
        lineage = Lineage({role: replace(load(path, device=device), name=role) for role, path in paths.items()}, batch_size, bars)
        asked_of = list(paths) if "rates" in parts else ["reasoning"]
        written = {(name, role): lineage.write(role, sets[name], f"{role}: {name}") for name in sets for role in asked_of}
        found["rates"] = [
            row for (name, role), said in written.items() for row in rates_of(said, set=name, model=role, condition="unsteered")
        ]
        keep(found)
        if {"probes", "steering"} & set(parts):
            with tempfile.TemporaryDirectory() as scratch:
                fitting = fitting_sets(limit)
                said = {name: lineage.write("reasoning", asked, f"reasoning: {name}") for name, asked in fitting.items()}
                said |= {name: requests(written[name, "reasoning"]) for name in sets if name not in SEEN_GOALS}
                stores = read(lineage, said, Path(scratch))
                if "probes" in parts:
                    found["probes"] = probes(lineage, stores, said)
                    keep(found)
                if "steering" in parts:
                    bench = Workbench(lineage.models["reasoning"], stores, None, "rule", network.MAX_NEW_TOKENS, batch_size)
                    few = {name: [t.prompt for t in said[name]] for name in CONTROLLED}
                    found["steering"], rows = steered.steering(bench, fitting["dev"], sets, few, rates_of, bars)
                    found["rates"] += rows
    return found


def write_measured(folder: str | Path, out: str | Path, **options: Any) -> Path:
    """measure() into a JSON file, which holds every part as soon as it is measured."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)

    def keep(found: dict[str, Any]) -> None:
        write_text(out, json.dumps(found, indent=1) + "\n")

    keep(measure(folder, keep=keep, **options))
    return out


def _check(folder: Path, paths: Mapping[str, str], parts: Sequence[str]) -> None:
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    needed = {"rates": (), "probes": ("reasoning",), "steering": ("reasoning", "safe")}
    missing = [(part, role) for part in parts for role in needed[part] if role not in paths]
    if missing or not paths:
        what = f"{missing[0][0]} cannot be measured without {missing[0][1]}/" if missing else "there is none of base/, reasoning/, safe/"
        raise FileNotFoundError(f"{folder}: {what}. Build the stage, or leave the part out: parts=('rates',)")


def recipe(folder: Path) -> dict[str, Any]:
    """How a checkpoint was made, as its record says: world, seed, phases, rank, and what dev showed where training might stop."""
    record = folder / RECORD
    if not record.is_file():
        return {}
    told = json.loads(record.read_text(encoding="utf-8"))
    return {"world": told["recipe"]["world"], "seed": told["recipe"]["seed"], "stage": told["recipe"]["stage"], "dev": told["dev"]}


def rates_of(transcripts: Sequence[Transcript], **columns: Any) -> list[dict[str, Any]]:
    """Rows of rates: over everything, per attack, over all wrapped attacks, and tasks per kind, with intervals over prompts and goals.

    A row has the columns given, attack and task ("all" where it is not one), metric, value, low, high, numerator, n. The metrics are those
    of score.py, and unsafe_thought (over harmful prompts) and thought, the share of requests whose output has a thought at all.
    """
    judged = list(zip(transcripts, judge(transcripts), strict=True))
    attacks = sorted({t.prompt.attack for t in transcripts if t.prompt.category != "tasks"})
    kinds = sorted({t.prompt.meta["task"] for t in transcripts if t.prompt.category == "tasks"})
    slices = [("all", "all", judged)]
    slices += [(attack, "all", [one for one in judged if one[0].prompt.attack == attack]) for attack in attacks]
    slices.append((WRAPPED, "all", [one for one in judged if one[0].prompt.attack in attacks and one[0].prompt.attack != PLAIN]))
    slices += [("all", kind, [one for one in judged if one[0].prompt.meta.get("task") == kind]) for kind in kinds]
    rows: list[dict[str, Any]] = []
    for attack, task, kept in slices:
        where = {**columns, "attack": attack, "task": task}
        for row in rates([v for _, v in kept], [t.prompt for t, _ in kept], grouped=True):
            if row["channel"] == "thought":
                row["metric"] = "unsafe_thought"
            rows.append({**where, **{name: row[name] for name in ("metric", "value", "low", "high", "numerator", "n")}})
        if asked := requests([t for t, _ in kept], None):
            thinks = [t.status != "absent" for t in asked]
            rows.append(rate("thought", thinks, groups=[t.prompt.group or t.id for t in asked], **where))
    return rows


def requests(transcripts: Sequence[Transcript], pairs: int | None = READ) -> list[Transcript]:
    """Those that answer requests, not tasks; the first `pairs` twin pairs, which are balanced over attacks."""
    return [t for t in transcripts if t.prompt.category != "tasks"][: None if pairs is None else 2 * pairs]


def read(lineage: Lineage, said: Mapping[str, Sequence[Transcript]], scratch: Path) -> dict[str, Store]:
    """The reasoning model's transcripts read in every model at every layer; the index column `side` says which set a row is of."""
    together = [t for transcripts in said.values() for t in transcripts]
    labels = {t.id: {"side": name} for name, transcripts in said.items() for t in transcripts}
    if len(labels) < len(together):
        raise ValueError("two sets hold prompts of the same id; a benchmark gives every prompt an id of its own")
    where, stores = Select("resid_post", MOMENTS), {}
    options: dict[str, Any] = {"batch_size": 64, "labels": labels, "progress": False, "allow_empty": True}
    with lineage.track("hidden states", len(lineage.models)) as advance:
        for role, lens in lineage.models.items():
            stores[role] = capture(lens, together, where, into=scratch / role, **options)
            advance(role, 1)
    return stores


def probes(lineage: Lineage, stores: Mapping[str, Store], said: Mapping[str, Sequence[Transcript]]) -> list[dict[str, Any]]:
    """A row per model, set and moment: the logistic probe at the layer that dev prefers, told on the set, beside bag-of-words.

    before_decision   the moment inside the thought that dev prefers among those where bag-of-words stays at .60 on dev; one a model
    """
    together = [t for transcripts in said.values() for t in transcripts]
    rows: list[dict[str, Any]] = []
    told = [name for name in said if name not in ("train", "dev")]
    with lineage.track("probes", len(stores) * len(told)) as advance:
        for role, store in stores.items():
            texts = texts_at(store, together, lineage.models[role])
            for name in told:
                sweep = fit_probes(
                    store,
                    train={"side": "train"},
                    valid={"side": "dev"},
                    test={"side": name},
                    kinds=["logistic"],
                    texts=texts,
                    shuffles=5,
                    directions=5,
                    progress=False,
                )
                rows += [{"model": role, "set": name, **row} for row in best_layers(sweep.table)]
                advance(f"{role}: {name}", 1)
    return rows


def best_layers(table: Any) -> list[dict[str, Any]]:
    """Per moment the layer that dev prefers, as told on test; one moment is marked as the one before the decision."""
    table = table[table.subset == "all"]
    rows, model = [], str(table.model.iloc[0])
    try:
        chosen = str(wordless(table, model).iloc[0].span)
    except ValueError:
        chosen = ""
    kept = table[table.probe == "logistic"]
    for span, part in kept.groupby("span", sort=False):
        dev = part[part.split == "dev"].sort_values(["auroc", "tpr_at_1fpr", "layer"], ascending=[False, False, True]).iloc[0]
        row = part[(part.split == "test") & (part.site == dev.site)].iloc[0]
        numbers = {name: round(float(row[name]), 4) for name in NUMBERS}
        told = {"dev_auroc": round(float(dev.auroc), 4), **{name: int(row[name]) for name in COUNTS}}
        rows.append({"span": span, "site": dev.site, **numbers, **told, "before_decision": span == chosen})
    return rows
