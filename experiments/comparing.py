"""`thoughtlens sweep RUN`: every way of steering beside every baseline, chosen on dev, told on test.

    chosen on dev      for each family of ways (an operator, a moment, a gate, a reminder, a system prompt) the one that restores most
    told on test       each choice once, with the thought modes of the best vector, the other models of the trio, and controls: random
                       directions of equal norm, vectors from shuffled labels

Every goal is asked for in several wordings, so that each attack has enough prompts; since they share goals, intervals are taken over goals
too (score.py). Every family and every way is a stage that is kept: an interrupted command goes on with the next one. The table is
`comparison`: the columns of `restoration`, with the metrics task_accuracy and kl (nats, benign prompts, value and interval of the mean).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ..hooks.files import atomic, write_text
from ..hooks.records import Prompt, Transcript, read_transcripts, write_transcripts
from ..hooks.spans import parse_span
from . import comparing_tables as tables
from .audit.score import over_groups
from .audit.verdicts import Verdict, read_verdicts, write_verdicts
from .benchmarks import prompts as load_prompts
from .organism.reminders import REMINDERS, SYSTEMS, TIMES
from .progress import Advance, printer, track
from .restoration import FURTHER_GATES, GATES, METRICS, STRENGTHS, Setting, Workbench, restored, rows_of
from .run import digest
from .study import Study, begun, choosing, slug, workbench
from .telling import tell
from .ways import Way, answers, kl

CHOICES = "comparison.json"
OPERATORS: Mapping[str, tuple[str, str, tuple[float, ...]]] = {  # family -> operator, unit, strengths
    "add local": ("add", "local", (0.2, 0.4, 0.6, 0.8, 1.0, 1.5)),
    "ablate": ("ablate", "measured", (0.5, 1.0, 1.5, 2.0)),
    "affine": ("affine", "measured", (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)),
    "rotate": ("rotate", "measured", (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)),
    "subspace": ("subspace", "measured", (0.5, 1.0, 1.5, 2.0)),
    "transport": ("transport", "measured", (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)),
}
MOMENTS = {"at the last prompt token": "last_prompt", "over the whole thought": "thought"}
WEIGHTS = ("base - reasoning", "safe - reasoning, all")  # what tuning has shifted, ablated from every output: needs no hook once exported
WEIGHT_STRENGTHS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
MODES = ("fixed", "none", "released", "replayed")
SAME_STEP = "reminder at the same step"  # as the vector: what it knows of the moment, reminders may know too
NO_THOUGHT = "no thought, unsteered"
UNSTEERED = Way("unsteered")


@dataclass(frozen=True)
class Compare:
    """What is compared, and on how much.

    wordings   ways to ask for each test goal under each attack; of all prompts as many as the study's plan has
    tasks      test tasks of each of the five kinds
    pairs      twin pairs of dev prompts on which ways are chosen
    draws      random directions, on `control` twin pairs each; shuffles: vectors from shuffled labels, on all prompts
    calm       benign prompts on which KL is measured
    """

    wordings: int = 1
    tasks: int = 40
    pairs: int = 40
    draws: int = 20
    shuffles: int = 5
    control: int = 150
    calm: int = 160


@dataclass
class Comparison:
    """A comparison in the run folder of a study."""

    study: Study
    how: Compare

    @cached_property
    def bench(self) -> Workbench:
        return workbench(self.study)

    @cached_property
    def test(self) -> list[Prompt]:
        plan = self.study.plan
        return load_prompts(plan.benchmark, split="test", limit=plan.test, wordings=self.how.wordings, tasks=self.how.tasks)


def sweep(out: Path, how: Compare, *, checkpoints: Path | None = None, device: str | None = None, progress: bool = True) -> Path:
    """Compare the ways in the run folder of a study, making what is missing there; print the tables, return the report's path."""
    console = printer()
    with track(progress) as bars:
        study = begun(out, bars, checkpoints=checkpoints, device=device)
        table = compare(study, how)
    for told in (tables.settings(table), tables.rates(table), tables.attacks(table), *tables.sentences(table)):
        console.print(told, soft_wrap=isinstance(told, str))
    page = tell(study.run.folder)
    console.print(f"[bold]report[/bold] {page}")
    return page


def compare(study: Study, how: Compare) -> pd.DataFrame:
    """The `comparison` table."""
    comparison = Comparison(study, how)
    ways = [UNSTEERED, *chosen(comparison), *controls(comparison)]
    plain, _ = written(comparison, UNSTEERED)
    table = pd.DataFrame([row for way in ways for row in on_test(comparison, way, plain)])
    study.run.write_table("comparison", table)
    return table


# on dev


def families(start: Setting, layers: int) -> dict[str, list[Way]]:
    """What is tried on dev, family by family; `start` is the best plain addition."""
    single = [(f"resid_post.{layer}",) for layer in range(layers)]
    places = [*single, tuple(site for (site,) in single)]
    found = {
        name: [
            Way(name, setting=replace(start, operator=operator, unit=unit, sites=sites, strength=strength, gate="always"))
            for sites in places
            for strength in strengths
        ]
        for name, (operator, unit, strengths) in OPERATORS.items()
    }
    for name, span in MOMENTS.items():
        here = replace(start, span=span, gate="always")
        found[name] = [Way(name, setting=replace(here, sites=sites, strength=c)) for sites in places for c in STRENGTHS]
    found["in the weights"] = [
        Way("in the weights", setting=Setting(source, "last_prompt", sites, c, operator="ablate", outputs=True))
        for source in WEIGHTS
        for sites in single
        for c in WEIGHT_STRENGTHS
    ]
    found["reminder"] = [Way("reminder", reminder=text, times=times) for text in REMINDERS for times in TIMES]
    if (place := parse_span(start.span)).base == "step_end":
        found[SAME_STEP] = [Way(SAME_STEP, reminder=text, after=place.index) for text in REMINDERS]
    found["system prompt"] = [Way("system prompt", system=text) for text in SYSTEMS]
    return found


def chosen(comparison: Comparison) -> list[Way]:
    """The ways that are told on test, those with something to choose chosen on dev. Written to comparison.json."""
    study, how = comparison.study, comparison.how
    best_setting, _ = choosing(study)
    start = replace(best_setting, gate="always")
    tried = families(start, study.model("reasoning").n_layers)
    asked = load_prompts(study.plan.benchmark, split="dev", limit=how.pairs)
    parts, best = [], {}
    with study.track("families of ways, on dev", sum(map(len, tried.values()))) as advance:
        for name, ways in tried.items():
            file = study.run.path("comparison", "dev", f"{slug(name)}.parquet")
            with study.stage(f"compare dev {name}", [file], ways=[asdict(way) for way in ways], pairs=how.pairs) as due:
                if due:
                    rows = [row for number, way in enumerate(ways) for row in on_dev(comparison, way, number, asked, advance)]
                    with atomic(file) as part:
                        pd.DataFrame(rows).to_parquet(part, index=False)
                else:
                    advance(name, len(ways))
            parts.append(pd.read_parquet(file))
            scores = {number: restored(rows_of_way.to_dict("records")) for number, rows_of_way in parts[-1].groupby("number")}
            best[name] = ways[max(scores, key=lambda number: (scores[number], -number))]
    study.run.write_table("comparison_dev", pd.concat(parts, ignore_index=True))
    ways = [
        *(Way(role, model=role) for role in ("base", "safe")),
        *(best.pop(name) for name in ("reminder", SAME_STEP, "system prompt") if name in best),
        Way("steered", setting=best_setting),
        *best.values(),
        *(Way(f"gate {gate}", setting=replace(start, gate=gate)) for gate in (*GATES, *FURTHER_GATES) if gate != best_setting.gate),
        Way(NO_THOUGHT, mode="none"),
        *(Way(f"thought {mode}", setting=best_setting, mode=mode) for mode in MODES),
    ]
    write_text(study.run.path(CHOICES), json.dumps([asdict(way) for way in ways], indent=2) + "\n")
    return ways


def on_dev(comparison: Comparison, way: Way, number: int, asked: Sequence[Prompt], advance: Advance) -> list[dict[str, Any]]:
    """The rows of one way on dev; `number` is its place in its family."""
    bench = comparison.bench
    said = answers(bench, bench.lens, way, asked)
    advance(str(way), 1)
    return rows_of(bench.verdicts(said), said, way.setting, condition=way.name, split="dev", number=number, what=str(way))


# on test


def controls(comparison: Comparison) -> list[Way]:
    """What means nothing, under the best setting: random directions, vectors from shuffled labels."""
    setting, how = choosing(comparison.study)[0], comparison.how
    return [
        *(Way(f"shuffled[{i}]", setting=setting, control="shuffled", number=i) for i in range(how.shuffles)),
        *(Way(f"random[{i}]", setting=setting, control="random", number=i) for i in range(how.draws)),
    ]


def written(comparison: Comparison, way: Way) -> tuple[list[Transcript], list[Verdict]]:
    """What a model writes on test under a way, and the judge's verdicts; kept once written."""
    study, how = comparison.study, comparison.how
    asked = comparison.test if way.control != "random" else [p for p in comparison.test if "#" not in p.id][: 2 * how.control]
    name = f"{way.model}@{slug(way.name)}.jsonl"
    paths = [study.run.path("comparison", "transcripts", name), study.run.path("comparison", "verdicts", study.plan.judge, name)]
    with study.stage(f"compare {way.name}", paths, way=asdict(way), asked=digest({p.id: p.text for p in asked})) as due:
        if due:
            bench, held = comparison.bench, written(comparison, UNSTEERED)[0] if way.mode == "fixed" else None
            with study.track(f"test: {way.name}", len(asked)) as advance:
                said = answers(bench, study.model(way.model), way, asked, held)
                advance(str(way), len(asked))
            write_transcripts(paths[0], said)
            write_verdicts(paths[1], bench.verdicts(said))
    return read_transcripts(paths[0], asked), read_verdicts(paths[1])


def on_test(comparison: Comparison, way: Way, plain: Sequence[Transcript]) -> list[dict[str, Any]]:
    """The rows of one way on test: rates, each with its interval over prompts and goals, and KL where it can be had."""
    said, verdicts = written(comparison, way)
    by_id = {t.id: t for t in plain}
    shared = {"condition": way.name, "split": "test", "thought_mode": way.mode, "what": str(way)}
    compared = None if way == UNSTEERED else by_id
    rows = rows_of(verdicts, said, way.setting, plain=compared, metrics=(*METRICS, "task_accuracy"), grouped=True, **shared)
    if values := divergences(comparison, way, by_id):
        low, high = over_groups(list(values.values()), [by_id[name].prompt.group or name for name in values])
        told = {"value": sum(values.values()) / len(values), "low": low, "high": high, "numerator": None, "n": len(values)}
        rows.append({**rows[0], "attack": "all", "metric": "kl", **told})
    return rows


def divergences(comparison: Comparison, way: Way, plain: Mapping[str, Transcript]) -> dict[str, float]:
    """KL per benign prompt; nothing for ways that write other tokens into the thought, and for controls."""
    if way == UNSTEERED or way.reminder or way.control or way.mode != "regenerated":
        return {}
    study = comparison.study
    calm = [t for t in plain.values() if t.prompt.harmful is False and t.prompt.category != "tasks" and t.ended][: comparison.how.calm]
    file = study.run.path("comparison", "kl", f"{way.model}@{slug(way.name)}.json")
    with study.stage(f"compare kl {way.name}", [file], way=asdict(way), asked=[t.id for t in calm]) as due:
        if due:
            values = kl(comparison.bench, study.model("reasoning"), study.model(way.model), way, calm)
            write_text(file, json.dumps({t.id: value for t, value in zip(calm, values, strict=True)}) + "\n")
    return dict(json.loads(file.read_text(encoding="utf-8")))
