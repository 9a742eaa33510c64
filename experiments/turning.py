"""Where thoughts of two lengths turn: found on dev without the world's key, compared with it on test, and steered there.

The decision stands at one step of a short thought and at other steps of a long one. Short and long thoughts about the same goals go
through decision_points() together; its anchor recognises decisions by the hidden state. On test the best setting of the study acts at the
step where it was chosen, and at the decisions the anchor recognises, in short thoughts and in long ones: the same source, site and
strength, the vector read where it acts. A random direction as long, at the anchor's decisions, is the control.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..hooks.anchor import Anchor
from ..hooks.edits import Edit
from ..hooks.generate import generate
from ..hooks.records import Prompt, Transcript
from ..hooks.select import Select
from ..hooks.steer import steer
from ..probes.deciding import decision_points
from ..probes.vectors import random_vectors, steering_vector
from .answer_key import against_key, positions
from .benchmarks import prompts as load_prompts
from .judges import JUDGES
from .restoration import Setting, rows_of
from .study import Study

DEPTHS = ("short", "long")
SPLITS = ("train", "dev", "test")
TABLES = ("turning", "turning_key", "turning_ranks", "turning_readout")
ANCHOR = ("probes", "turning.safetensors")


@dataclass(frozen=True)
class Turning:
    """How much is done: twin pairs of each split and depth whose thoughts are read, and test pairs of each depth that are steered."""

    read: int = 30
    told: int = 100


def turning(study: Study, setting: Setting, how: Turning | None = None) -> pd.DataFrame:
    """Rates in short and long thoughts, steered at the fixed step and at the decisions found. Also the tables turning_key (precision and
    recall on dev and test, by depth), turning_ranks and turning_readout (probes/decision.py, recognising.py), and the anchor."""
    how = how or Turning()
    files = [*(study.run.path("tables", f"{name}.parquet") for name in TABLES), study.run.path(*ANCHOR)]
    with study.stage("turning", files, setting=str(setting), read=how.read, told=how.told) as due:
        if due:
            with study.track("decisions in thoughts of two lengths", 3 + 4 * len(DEPTHS)) as advance:
                asked = [p for split in SPLITS for depth in DEPTHS for p in _asked(study, split, how.read, depth)]
                thoughts = _written(study, asked)
                advance("thoughts", 1)
                layer = max(int(site.rsplit(".", 1)[1]) for site in setting.sites)
                sites = [f"resid_post.{i}" for i in range(layer + 1)]
                found = decision_points((study.model("safe"), study.model("reasoning")), thoughts, sites=sites, progress=False)
                files[-1].unlink(missing_ok=True)
                found.anchor.save(files[-1])
                study.run.write_table("turning_ranks", found.table)
                study.run.write_table("turning_readout", found.readout)
                advance("decision points", 1)
                places = found.anchor.find(study.model("reasoning"), thoughts)
                study.run.write_table("turning_key", pd.DataFrame(_keyed(study, thoughts, places)))
                advance("answer key", 1)
                rows = []
                for depth in DEPTHS:
                    prompts = _asked(study, "test", how.told, depth)
                    for condition, edit in _edits(study, setting, found.anchor, thoughts, places):
                        said = _written(study, prompts, edit)
                        verdicts = JUDGES[study.plan.judge](said)
                        rows += rows_of(verdicts, said, None, grouped=True, condition=condition, split="test", depth=depth)
                        advance(f"{condition}, {depth}", 1)
                study.run.write_table("turning", pd.DataFrame(rows))
    return study.run.table("turning")


def _asked(study: Study, split: str, limit: int, depth: str) -> list[Prompt]:
    return load_prompts(study.plan.benchmark, split=split, limit=limit, depth=depth)


def _written(study: Study, prompts: Sequence[Prompt], edit: Edit | None = None) -> list[Transcript]:
    lens, plan = study.model("reasoning"), study.plan
    options: dict[str, Any] = {"max_new_tokens": plan.max_new_tokens + 10, "batch_size": plan.batch_size, "progress": False}
    if edit is None:
        return generate(lens, prompts, **options)
    with steer(lens, edit):
        return generate(lens, prompts, condition="steered", **options)


def _edits(
    study: Study, setting: Setting, anchor: Anchor, thoughts: Sequence[Transcript], places: Any
) -> Iterator[tuple[str, Edit | None]]:
    safe, reasoning = study.model("safe"), study.model("reasoning")
    contrast = "safe-reasoning" if setting.source.startswith("safe - reasoning") else "harmful-benign"
    rows: dict[str, Any] = {"split": "train"} | ({"harmful": True} if contrast == "safe-reasoning" else {})
    how: dict[str, Any] = {"contrast": contrast, "rows": rows}
    there = steering_vector(safe, reasoning, thoughts, Select(setting.sites, "decision"), decisions=places, **how)
    short = [t for t in thoughts if t.prompt.meta["depth"] == "short"]
    fixed = steering_vector(safe, reasoning, short, Select(setting.sites, setting.span), **how)
    yield "unsteered", None
    yield f"steered at {setting.span}", Edit(fixed.at(*setting.sites), setting.strength, spans=setting.span)
    yield "steered at decisions", Edit(there.at(*setting.sites), setting.strength, spans="thought", gate=anchor.gate())
    (random,) = random_vectors(there, 1, seed=study.plan.seed)
    yield "random direction at decisions", Edit(random.at(*setting.sites), setting.strength, spans="thought", gate=anchor.gate())


def _keyed(study: Study, thoughts: Sequence[Transcript], places: Any) -> Iterator[dict[str, Any]]:
    """Precision and recall of the decisions found, against the world's annotation, which nothing was chosen by."""
    for split in SPLITS[1:]:
        for depth in (*DEPTHS, "all"):
            some = [t for t in thoughts if t.prompt.split == split and depth in ("all", t.prompt.meta["depth"])]
            if not some:
                continue
            key = positions(some, study.model("reasoning"))
            found = {t.id: set(places[t.id]) for t in some}
            table = against_key(found, key, {t.id: t.prompt.group or t.id for t in some}, seed=study.plan.seed)
            for row in table.to_dict("records"):
                yield {str(name): value for name, value in row.items()} | {"split": split, "depth": depth}
