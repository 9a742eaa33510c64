"""`thoughtlens organism explain RUN`: why steering works on a trio, tested. What benign tuning did to refusals, and what undoes it.

    margins      the same tokens in base, reasoning and safe: margins and ranks along the refusal direction (margins.py)
    directions   cosines of the refusal directions of the three models, by layer and moment (probes/geometry.py)
    mean shift   base − reasoning, averaged over all prompts, so a constant without a label, added back at the decision: the whole of it,
                 its part along the refusal direction, the rest; beside random directions as long as each
    weights      the update of the output projections without what it writes along the refusal direction, that part alone on the base,
                 the whole update of a layer taken back; beside random directions (updates.py)
    thought      the best setting with the thought regenerated, held fixed, suppressed, released, replayed without steering
    turning      decisions found in thoughts of two lengths, beside the world's own annotation, and steered there (turning.py)
    forcing      how many words of a refusing verdict have to stand in the thought before the rest follows (organism/forcing.py)

Layers and strengths are chosen on dev, everything is told once on test. The tables are `margins`, `directions` and `explained`: the columns
of `restoration`, with `part` (which of the tests) and `what`. Every condition is a stage that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..hooks.edits import Edit
from ..hooks.files import write_text
from ..hooks.generate import generate
from ..hooks.model import LensModel
from ..hooks.records import Prompt, Transcript, read_transcripts, write_transcripts
from ..hooks.store import Store
from ..hooks.vector import Vector
from ..probes.geometry import geometry
from ..probes.vectors import random_vectors
from .audit.verdicts import read_verdicts, write_verdicts
from .benchmarks import prompts as load_prompts
from .comparing import MODES, NO_THOUGHT, UNSTEERED, Compare, Comparison, on_test
from .comparing import written as answered
from .margins import margins
from .organism.forcing import BENCHMARK, forcing
from .organism.page import page, read_lineages
from .organism.steered import TOGETHER
from .organism.steered import written as steered
from .progress import track
from .restoration import METRICS, MOMENTS, Setting, Workbench, restored, rows_of
from .study import ROLES, Study, activations, begun, choosing, prompts_of, slug, written
from .turning import turning
from .updates import Change, kept, only, reverted, rewritten, without
from .ways import Way

SHIFT, REFUSAL = "base - reasoning", "base: harmful - benign"
PARTS = {"shift": "the whole mean shift", "along": "its part along the refusal direction", "rest": "the rest of it"}
STRENGTHS = (1.0, 2.0, 4.0)
BEFORE = "last_prompt"
RATES = (*METRICS, "task_accuracy")


@dataclass(frozen=True)
class Explain:
    """How much is done.

    pairs     twin pairs of dev prompts on which layers and strengths are chosen
    draws     random directions beside every direction
    compare   on how many prompts thought modes are told: those of `thoughtlens sweep`, whose answers are used where there are any
    """

    pairs: int = 40
    draws: int = 3
    compare: Compare = field(default_factory=Compare)


@dataclass
class Explanation:
    """The tests in the run folder of a study."""

    study: Study
    how: Explain

    @cached_property
    def stores(self) -> dict[str, Store]:
        return {role: activations(self.study, role) for role in ROLES}

    @cached_property
    def bench(self) -> Workbench:
        plan = self.study.plan
        return Workbench(self.study.model("reasoning"), self.stores, None, plan.judge, plan.max_new_tokens, plan.batch_size)

    @cached_property
    def setting(self) -> Setting:
        return replace(choosing(self.study)[0], gate="always")

    @cached_property
    def dev(self) -> list[Prompt]:
        return load_prompts(self.study.plan.benchmark, split="dev", limit=self.how.pairs)

    @cached_property
    def test(self) -> list[Prompt]:
        return prompts_of(self.study, "base")

    @cached_property
    def plain(self) -> dict[str, Transcript]:
        """What the reasoning model writes left alone."""
        return {t.id: t for t in written(self.study, "reasoning")[0]}

    @property
    def sites(self) -> list[str]:
        return [f"resid_post.{layer}" for layer in range(self.study.model("reasoning").n_layers)]

    def write(self, lens: LensModel, prompts: Sequence[Prompt], condition: str) -> list[Transcript]:
        plan = self.study.plan
        options: dict[str, Any] = {"max_new_tokens": plan.max_new_tokens, "batch_size": plan.batch_size}
        return generate(lens, prompts, condition=condition, progress=False, **options)


def explain(study: Study, how: Explain | None = None) -> pd.DataFrame:
    """Run the tests that this run does not have yet; the `explained` table."""
    explanation = Explanation(study, how or Explain())
    shared(explanation)
    turning(study, explanation.setting)
    if study.plan.benchmark == BENCHMARK:
        forcing(study)
    rows = [*unsteered(explanation), *shifts(explanation), *weights(explanation), *thoughts(explanation)]
    table = pd.DataFrame(rows)
    study.run.write_table("explained", table)
    return table


def write_page(
    run: Path,
    out: Path,
    *,
    seeds: Sequence[Path] = (),
    ablations: Sequence[Path] = (),
    how: Explain | None = None,
    checkpoints: Path | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Path:
    """Run the tests in the run folder of a study, and write docs/trio.md from them and from files of measured lineages."""
    lineages = read_lineages(seeds), read_lineages(ablations)
    with track(progress) as bars:
        study = begun(run, bars, checkpoints=checkpoints, device=device)
        explain(study, how)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(study.run, *lineages))
    return out


def shared(explanation: Explanation) -> None:
    """The tables `margins` and `directions`, from hidden states alone."""
    study = explanation.study
    spans = list(dict.fromkeys((BEFORE, explanation.setting.span)))
    files = [study.run.path("tables", f"{name}.parquet") for name in ("margins", "directions")]
    with study.stage("explain hidden states", files, spans=spans, moments=MOMENTS) as due:
        if due:
            stores = explanation.stores
            with study.track("margins and directions", 2) as advance:
                study.run.write_table("margins", margins(stores, spans, seed=study.plan.seed))
                advance("margins", 1)
                found = [geometry(stores, span=span, site=site, seed=study.plan.seed) for span in MOMENTS for site in explanation.sites]
                study.run.write_table("directions", pd.concat(found, ignore_index=True))
                advance("directions", 1)


def unsteered(explanation: Explanation) -> list[dict[str, Any]]:
    """The three models left alone, on the prompts of the tests below."""
    rows = []
    for role in ROLES:
        said, verdicts = written(explanation.study, role)
        n, name = len(explanation.test), "unsteered" if role == "reasoning" else role
        rows += rows_of(verdicts[:n], said[:n], None, metrics=RATES, grouped=True, condition=name, split="test", part="models", what=name)
    return rows


def told(
    explanation: Explanation, part: str, condition: str, what: str, write: Callable[[], list[Transcript]], setting: Setting | None = None
) -> list[dict[str, Any]]:
    """The rows of one condition on test; what was written is kept."""
    study, name = explanation.study, slug(condition)
    judge = study.plan.judge
    paths = [study.run.path("explained", "transcripts", f"{name}.jsonl"), study.run.path("explained", "verdicts", judge, f"{name}.jsonl")]
    with study.stage(f"explain {condition}", paths, what=what, setting=None if setting is None else asdict(setting)) as due:
        if due:
            said = write()
            write_transcripts(paths[0], said)
            write_verdicts(paths[1], explanation.bench.verdicts(said))
    said, verdicts = read_transcripts(paths[0], explanation.test), read_verdicts(paths[1])
    columns = {"condition": condition, "split": "test", "part": part, "what": what}
    return rows_of(verdicts, said, setting, plain=explanation.plain, metrics=RATES, grouped=True, **columns)


# the mean shift


def shifts(explanation: Explanation) -> list[dict[str, Any]]:
    """The mean shift added back where the best setting acts: at the layer and strength that dev prefers, and as long as it was measured."""
    rows, span = [], explanation.setting.span
    picked = chosen_shifts(explanation)
    random = {name: f"{words}, random direction as long" for name, words in PARTS.items() if name != "rest"}
    with explanation.study.track("mean shift, on test", 2 * len(PARTS) + len(random) * explanation.how.draws) as advance:

        def tell(condition: str, name: str, setting: Setting, draw: int | None = None) -> None:
            def write() -> list[Transcript]:
                vector = parts_of(explanation.bench, span)[name]
                pushed = vector if draw is None else random_vectors(vector, explanation.how.draws, seed=explanation.study.plan.seed)[draw]
                return steered(explanation.bench, [edit_of(setting, pushed)], explanation.test)[0]

            rows.extend(told(explanation, "mean shift", condition, str(setting), write, setting))
            advance(condition, 1)

        for name, words in PARTS.items():
            for how in ("chosen", "measured"):
                tell(words if how == "chosen" else f"{words}, strength 1", name, picked[name, how])
        for name, words in random.items():
            for draw in range(explanation.how.draws):
                tell(f"{words}[{draw}]", name, picked[name, "chosen"], draw)
    return rows


def chosen_shifts(explanation: Explanation) -> dict[tuple[str, str], Setting]:
    """(part, "chosen" or "measured") -> the setting that restores most on dev, of all and of those of strength 1. Table `explained_dev`."""
    study, span, sites = explanation.study, explanation.setting.span, explanation.sites
    places = [*((site,) for site in sites), tuple(sites)]
    grid = {name: [Setting(f"{SHIFT}, {name}", span, place, c) for place in places for c in STRENGTHS] for name in PARTS}
    file = study.run.path("tables", "explained_dev.parquet")
    tried = {name: [asdict(setting) for setting in settings] for name, settings in grid.items()}
    with study.stage("explain shifts on dev", [file], grid=tried, pairs=explanation.how.pairs) as due:
        if due:
            rows = []
            with study.track("mean shift, on dev", sum(map(len, grid.values()))) as advance:
                for name, settings in grid.items():
                    for some in _chunks(settings):
                        rows += on_dev(explanation, some, parts_of(explanation.bench, span)[name])
                        advance(str(some[-1]), len(some))
            study.run.write_table("explained_dev", pd.DataFrame(rows))
    scores = scores_of(study.run.table("explained_dev"))
    found = {}
    for name, settings in grid.items():
        for how, among in (("chosen", settings), ("measured", [s for s in settings if s.strength == 1])):
            found[name, how] = max(among, key=lambda s: scores[str(s)])
    return found


def on_dev(explanation: Explanation, settings: Sequence[Setting], vector: Vector) -> list[dict[str, Any]]:
    bench, rows = explanation.bench, []
    edits = [edit_of(setting, vector) for setting in settings]
    for setting, said in zip(settings, steered(bench, edits, explanation.dev), strict=True):
        rows += rows_of(bench.verdicts(said), said, setting, condition=str(setting), split="dev")
    return rows


def scores_of(table: pd.DataFrame) -> dict[str, float]:
    """How much each condition restores on dev."""
    return {str(condition): restored(part.to_dict("records")) for condition, part in table.groupby("condition")}


def parts_of(bench: Workbench, span: str) -> dict[str, Vector]:
    """The mean shift, its part along the base's refusal direction, and the rest, at every site."""
    shift, refusal = bench.vector(SHIFT, span), bench.vector(REFUSAL, span)
    along = {site: component(value, refusal.values[site]) for site, value in shift.values.items()}
    values = {"shift": dict(shift.values), "along": along, "rest": {site: value - along[site] for site, value in shift.values.items()}}
    return {name: replace(shift, values=of, means={}, source=f"{SHIFT}, {name}") for name, of in values.items()}


def component(value: Tensor, direction: Tensor) -> Tensor:
    """What `value` has along a direction."""
    unit = direction.double() / direction.double().norm()
    return ((value.double() @ unit) * unit).to(value.dtype)


def edit_of(setting: Setting, vector: Vector) -> Edit:
    return Edit(vector.at(*setting.sites), setting.strength, spans=setting.span)


# the weights


def weights(explanation: Explanation) -> list[dict[str, Any]]:
    """The update of the output projections, without the refusal direction, with nothing else, and taken back."""
    study, how = explanation.study, explanation.how
    base, reasoning = study.model("base"), study.model("reasoning")
    span, site = chosen_axis(explanation)
    u = explanation.bench.vector(REFUSAL, span).values[site]
    drawn = torch.randn(how.draws, len(u), generator=torch.Generator().manual_seed(study.plan.seed))
    along = f"{REFUSAL} at {span}, {site}"
    layers = range(reasoning.n_layers)
    work: list[tuple[str, str, LensModel, Change, Sequence[int] | None]] = [
        ("update without the refusal direction", along, reasoning, without(u), None),
        *((f"update without a random direction[{i}]", "random", reasoning, without(drawn[i]), None) for i in range(how.draws)),
        *((f"update of layer {layer} reverted", f"layer {layer}", reasoning, reverted, [layer]) for layer in layers),
        ("update of all layers reverted", "output projections of all layers", reasoning, reverted, None),
        ("base with the update along the refusal direction", along, base, only(u), None),
        *((f"base with the update along a random direction[{i}]", "random", base, only(drawn[i]), None) for i in range(how.draws)),
        ("base with the update of all layers", "output projections of all layers", base, kept, None),
    ]
    rows = []
    with study.track("weights, on test", len(work)) as advance:
        for condition, what, lens, change, of in work:
            rows += told(explanation, "weights", condition, what, partial(rewrite, explanation, lens, change, of, condition))
            advance(condition, 1)
    return rows


def rewrite(explanation: Explanation, lens: LensModel, change: Change, layers: Sequence[int] | None, condition: str) -> list[Transcript]:
    """What a model with rewritten output projections answers on test."""
    tuned, base = explanation.study.model("reasoning"), explanation.study.model("base")
    return explanation.write(rewritten(lens, change, tuned=tuned, base=base, layers=layers), explanation.test, condition)


def chosen_axis(explanation: Explanation) -> tuple[str, str]:
    """Where the refusal direction is read that, projected out of the update, restores most on dev. Table `explained_axes`."""
    study = explanation.study
    tried = [(span, site) for span in dict.fromkeys((explanation.setting.span, BEFORE)) for site in explanation.sites]
    file = study.run.path("tables", "explained_axes.parquet")
    with study.stage("explain axes on dev", [file], tried=tried, pairs=explanation.how.pairs) as due:
        if due:
            base, reasoning, rows = study.model("base"), study.model("reasoning"), []
            with study.track("weights, on dev", len(tried)) as advance:
                for span, site in tried:
                    u = explanation.bench.vector(REFUSAL, span).values[site]
                    said = explanation.write(
                        rewritten(reasoning, without(u), tuned=reasoning, base=base), explanation.dev, f"{span} {site}"
                    )
                    rows += rows_of(explanation.bench.verdicts(said), said, None, condition=f"{span} {site}", split="dev")
                    advance(f"{span}, {site}", 1)
            study.run.write_table("explained_axes", pd.DataFrame(rows))
    scores = scores_of(study.run.table("explained_axes"))
    return max(tried, key=lambda one: scores[f"{one[0]} {one[1]}"])


# the thought


def thoughts(explanation: Explanation) -> list[dict[str, Any]]:
    """The best setting in every thought mode, as `thoughtlens sweep` tells it."""
    comparison = Comparison(explanation.study, explanation.how.compare)
    setting = choosing(explanation.study)[0]
    ways = [
        UNSTEERED,
        Way("steered", setting=setting),
        Way(NO_THOUGHT, mode="none"),
        *(Way(f"thought {mode}", setting=setting, mode=mode) for mode in MODES),
    ]
    plain, _ = answered(comparison, UNSTEERED)
    rows = [row for way in ways for row in on_test(comparison, way, plain)]
    return [{**row, "part": "thought"} for row in rows if row["metric"] != "kl"]


def _chunks(settings: Sequence[Setting]) -> Iterator[Sequence[Setting]]:
    for start in range(0, len(settings), TOGETHER):
        yield settings[start : start + TOGETHER]
