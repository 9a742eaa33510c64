"""Why it works: parts of the mean shift add up, settings come from dev, every condition is told once and kept, hidden states are real.

What a model writes is made up here (writing is tested elsewhere), so that the whole of it runs in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from thoughtlens.checkpoints import CHECKPOINTS
from thoughtlens.experiments import explaining, margins, study
from thoughtlens.experiments.explaining import PARTS, Explain, Explanation, component, edit_of, explain, parts_of, shared
from thoughtlens.experiments.organism.page import page
from thoughtlens.experiments.organism.thoughts import REFUSALS
from thoughtlens.experiments.organism.world import Goal
from thoughtlens.experiments.progress import track
from thoughtlens.experiments.restoration import Setting
from thoughtlens.experiments.run import open_run
from thoughtlens.experiments.study import ROLES, Plan, Study
from thoughtlens.hooks.edits import Edit
from thoughtlens.hooks.records import Prompt, Transcript
from thoughtlens.probes.geometry import geometry
from thoughtlens.viz.report import report

SPAN = "step_end[2]"
HOW = Explain(pairs=2, draws=1)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """The study of the shipped trio on a few prompts, its hidden states read at two moments."""
    folder = tmp_path_factory.mktemp("explained")
    plan = Plan({role: str(CHECKPOINTS / role) for role in ROLES}, train=8, dev=2, test=4, max_new_tokens=40)
    chosen = {
        "models": study.fingerprints(plan.models),
        "setting": vars(Setting("safe - reasoning", SPAN, ("resid_post.4",), 1.0)),
        "others": {},
    }
    (folder / "steering.json").write_text(json.dumps(chosen))
    known = cache(study.load_prompts)
    with pytest.MonkeyPatch.context() as patched, track(False) as bars:
        for module in (study, explaining):
            patched.setattr(module, "MOMENTS", ("last_prompt", SPAN))
            patched.setattr(module, "load_prompts", lambda *args, **how: list(known(*args, **how)))
        for name, draws in (("DRAWS", 40), ("RANKED", 10)):
            patched.setattr(margins, name, draws)
        patched.setattr(explaining, "geometry", partial(geometry, resampled=20, shuffles=2))
        yield Study(open_run(folder / "run", {"models": {}}), plan, bars, "cpu", folder / "steering.json")


class Written:
    """Stands for steered writing: harmful prompts are refused where layer 3 is steered at strength 2, everything at strength 4."""

    def __init__(self, says: Callable[..., Transcript]) -> None:
        self.says, self.edits = says, list[tuple[Edit, int]]()

    def __call__(self, bench: Any, edits: Sequence[Edit], prompts: Sequence[Prompt]) -> list[list[Transcript]]:
        self.edits += [(edit, len(prompts)) for edit in edits]
        return [[self.one(edit, prompt) for prompt in prompts] for edit in edits]

    def one(self, edit: Edit, prompt: Prompt) -> Transcript:
        strength = float(edit.strengths)
        if strength == 4 or (prompt.harmful and strength == 2 and edit.vector.sites == ("resid_post.3",)):
            return self.says(prompt, "okay .", REFUSALS[0])
        meta = prompt.meta
        told = "the answer is" if meta["kind"] == "task" else " , ".join(Goal(meta["action"], meta["object"]).recipe)
        return self.says(prompt, "okay .", told)


@pytest.fixture
def written(says, monkeypatch: pytest.MonkeyPatch) -> Written:
    made = Written(says)
    monkeypatch.setattr(Explanation, "sites", ["resid_post.3", "resid_post.4"])
    monkeypatch.setattr(explaining, "steered", made)
    monkeypatch.setattr(explaining, "answered", lambda comparison, way: ([], []))
    monkeypatch.setattr(explaining, "turning", lambda study, setting: None)  # test_turning.py
    monkeypatch.setattr(explaining, "forcing", lambda study: None)  # organism/test_forcing.py
    monkeypatch.setattr(Explanation, "write", lambda self, lens, prompts, condition: [says(p, "okay .", REFUSALS[0]) for p in prompts])

    def on_test(comparison: object, way: Any, plain: object) -> list[dict[str, Any]]:
        numbers = {"value": 0.5, "low": 0.4, "high": 0.6, "numerator": 5, "n": 10}
        return [
            {"condition": way.name, "what": str(way), "attack": "all", "split": "test", "metric": m, **numbers} for m in ("refusal", "kl")
        ]

    monkeypatch.setattr(explaining, "on_test", on_test)
    return made


def test_a_trio_is_explained_and_kept(begun: Study, written: Written) -> None:
    table = explain(begun, HOW)
    names = list(dict.fromkeys(table[table.part == "mean shift"].condition))
    assert [name for name in names if "[" not in name] == [one for words in PARTS.values() for one in (words, f"{words}, strength 1")]
    assert sum("random direction" in name for name in names) == 2 * HOW.draws
    weights = set(table[table.part == "weights"].condition)
    assert len(weights) == 1 + HOW.draws + 6 + 1 + 1 + HOW.draws + 1
    assert set(table[table.part == "thought"].metric) == {"refusal"}  # kl is told elsewhere
    assert set(table[table.part == "models"].condition) == {"base", "unsteered", "safe"}
    chosen = table[(table.condition == PARTS["along"]) & (table.attack == "all")].iloc[0]
    assert (chosen.site, chosen.strength, chosen.span) == ("resid_post.3", 2.0, SPAN)
    tried = [edit for edit, n in written.edits if n == 2 * HOW.pairs]
    told = [edit for edit, n in written.edits if n > 2 * HOW.pairs]
    assert len(tried) == 3 * 3 * len(explaining.STRENGTHS) and len(told) == len(names)

    done = len(written.edits)
    again = explaining.shifts(Explanation(Study(begun.run, begun.plan, begun.track, begun.device, begun.steering), HOW))
    assert len(written.edits) == done
    pd.testing.assert_frame_equal(
        pd.DataFrame(again), table[table.part == "mean shift"][list(again[0])].reset_index(drop=True), check_dtype=False
    )
    assert "| the whole mean shift, random direction as long | " in page(begun.run)
    assert 'id="margins"' in report(begun.run.folder).read_text() and 'id="explained"' in report(begun.run.folder).read_text()


def test_the_parts_of_the_mean_shift_are_numpys(begun: Study, written: Written) -> None:
    bench = Explanation(begun, HOW).bench
    rows = {role: bench.stores[role].rows({"span": SPAN, "split": "train"}) for role in ("base", "reasoning")}
    (base, index), (reasoning, _) = rows["base"], rows["reasoning"]
    y = index["harmful"].to_numpy(bool)
    shift = (base.double().mean(0) - reasoning.double().mean(0)).numpy()[3]
    refusal = (base[y].double().mean(0) - base[~y].double().mean(0)).numpy()[3]
    along = refusal * (shift @ refusal) / (refusal @ refusal)
    found = {name: vector.values["resid_post.3"].numpy() for name, vector in parts_of(bench, SPAN).items()}
    for name, expected in {"shift": shift, "along": along, "rest": shift - along}.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-4 * np.abs(shift).max())
    edit = edit_of(Setting("", SPAN, ("resid_post.3",), 2.0), parts_of(bench, SPAN)["along"])
    assert edit.where == (SPAN,) and float(edit.strengths) == 2 and edit.operator == "add"


def test_margins_are_of_the_test_prompts(begun: Study, written: Written) -> None:
    shared(Explanation(begun, HOW))
    table = begun.run.table("margins")
    stores = {role: study.activations(begun, role) for role in ROLES}
    x, index = stores["base"].rows({"span": SPAN, "split": "train"}, sites=["resid_post.4"])
    y = index["harmful"].to_numpy(bool)
    x = x[:, 0].double().numpy()
    w, middle = x[y].mean(0) - x[~y].mean(0), (x[y].mean(0) + x[~y].mean(0)) / 2
    test, index = stores["reasoning"].rows({"span": SPAN, "split": "test"}, sites=["resid_post.4"])
    margin = (test[:, 0].double().numpy() - middle) @ w / (w @ w)
    asked = (table.span == SPAN) & (table.layer == 4) & (table.model == "reasoning") & (table.metric == "mean_harmful")
    row = table[asked].iloc[0]
    assert row.value == pytest.approx(margin[index["harmful"].to_numpy(bool)].mean()) and row.n == len(index)
    directions = begun.run.table("directions")
    assert (directions.site_a == directions.site_b).all() and set(directions.span) == {"last_prompt", SPAN}


def test_a_component_has_the_length_of_the_projection() -> None:
    value, direction = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.2])
    assert component(value, direction).tolist() == [0.0, 4.0]


def test_the_page_is_written_where_it_is_asked_for(begun: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(explaining, "begun", lambda run, bars, **options: begun)
    monkeypatch.setattr(explaining, "explain", lambda *what: asked.append(what))
    monkeypatch.setattr(explaining, "page", lambda run, seeds, ablations: f"of {run.folder.name}")
    out = explaining.write_page(begun.run.folder, tmp_path / "docs" / "trio.md", how=HOW, progress=False)
    assert out.read_text() == "of run" and asked == [(begun, HOW)]
