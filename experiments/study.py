"""The study of a trio, stage by stage in one run folder: transcripts, verdicts, activations, probes, vectors, tables.

    audit       base, reasoning and safe answer; the judge reads them                                   → collapse
    reading     what the reasoning model wrote goes through all three models, the same tokens           → activations/
    detection   probes at every layer and moment, chosen on dev, told on test                           → detection, trajectory
                (logistic and mean difference; `thoughtlens probe` asks the same run more)
    choosing    steering settings, on dev                                                               → steering.json, sweep
    restoring   the chosen settings beside their controls, on test, once                                → restoration
    seeing      every token of some thoughts at every layer, steered as well; every prompt as a point   → readouts, projection

Each stage is skipped when its inputs have not changed and its outputs are there.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from transformers.utils.logging import disable_progress_bar

from ..checkpoints import CHECKPOINTS
from ..hooks.capture import capture
from ..hooks.checkpoint import find_checkpoint, weight_files
from ..hooks.files import sha256_of, write_text
from ..hooks.generate import generate
from ..hooks.model import LensModel, load
from ..hooks.records import Prompt, Transcript, read_prompts, read_transcripts, write_prompts, write_transcripts
from ..hooks.select import Select
from ..hooks.store import Store, open_store
from ..hooks.vector import Vector
from ..probes.fit import COLUMNS, fit_probes
from ..probes.probe import Probe
from ..probes.vectors import random_vectors
from .audit.collapse import collapse
from .audit.verdicts import Verdict, read_verdicts, write_verdicts
from .benchmarks import prompts as load_prompts
from .detection import texts_at, trajectory, wordless
from .judges import JUDGES
from .progress import Track
from .projecting import ROW_GROUP as POINTS
from .projecting import projection
from .readouts import ROW_GROUP as TOKENS
from .readouts import headline, readouts
from .restoration import MOMENTS, Setting, Workbench, choose, from_json, rows_of, to_json
from .run import Run, digest, open_run, package_version

ROLES = ("base", "reasoning", "safe")
STEERING = "steering.json"
STEERED, SAME = "steered", "unsteered, control prompts"
PARTS = (".json", ".jinja", ".txt", ".model")


@dataclass(frozen=True)
class Plan:
    """What a study looks at: checkpoints by role, the benchmark, how many twin pairs of each split (None: all), the seed."""

    models: Mapping[str, str]
    benchmark: str = "organism"
    judge: str = "rule"
    train: int = 150
    dev: int = 100
    test: int | None = 200
    tuning: int = 40
    control: int = 80
    draws: int = 20
    followed: int = 30
    max_new_tokens: int = 110
    batch_size: int = 256
    seed: int = 0


@dataclass(frozen=True)
class Study:
    """A plan in a run folder. `steering` is a file of settings chosen before; without it they are chosen here."""

    run: Run
    plan: Plan
    track: Track
    device: str | None = None
    steering: Path | None = None
    loaded: dict[str, LensModel] = field(default_factory=dict)

    def model(self, role: str) -> LensModel:
        """A checkpoint of the trio, loaded when first asked for and known by its role from then on."""
        if role not in self.loaded:
            disable_progress_bar()  # transformers' own, which would break ours
            self.loaded[role] = replace(load(self.plan.models[role], device=self.device), name=role)
        return self.loaded[role]

    @contextmanager
    def stage(self, name: str, outputs: Sequence[Path], **inputs: Any) -> Iterator[bool]:
        """Yield whether the stage has to run; afterwards remember that it did."""
        inputs = {**config(self.plan), "thoughtlens": package_version("thoughtlens"), "device": self.device, **inputs}
        if self.run.fresh(name, inputs, outputs):
            yield False
            return
        yield True
        self.run.finish(name, inputs)


def begun(out: str | Path, track: Track, *, checkpoints: Path | None = None, device: str | None = None) -> Study:
    """The study of a trio (default: the shipped one) in a run folder, with the steering settings that lie beside the checkpoints unless the
    run has chosen its own."""
    home = checkpoints or CHECKPOINTS
    plan = Plan(models={role: str(home / role) for role in ROLES})
    run, shipped = open_run(out, config(plan)), home / STEERING
    own = not shipped.is_file() or run.path(STEERING).is_file()
    return Study(run, plan, track, device, None if own else shipped)


def config(plan: Plan) -> dict[str, Any]:
    """A plan as JSON, with what its checkpoints are in place of where they lie."""
    return {**asdict(plan), "models": fingerprints(plan.models)}


def fingerprints(models: Mapping[str, str]) -> dict[str, str]:
    """sha256 over weights, configuration, tokenizer and template of each checkpoint. Raises for a missing folder or a damaged file."""
    found = {}
    for role, path in models.items():
        folder = find_checkpoint(path)
        weights = {file.name for file in weight_files(folder)}
        files = sorted(file for file in folder.iterdir() if file.name in weights or (file.suffix in PARTS and file.name != "stage.json"))
        found[role] = digest({file.name: sha256_of(file) for file in files})
    return found


def slug(condition: str) -> str:
    """A condition as part of a file name: "safe: harmful - benign" becomes "safe-harmful-benign"."""
    return "-".join(re.findall(r"\w+", condition))


def prompts_of(study: Study, role: str) -> list[Prompt]:
    """Everything a model answers: the test prompts and tasks; reasoning and safe also train, the reasoning model also dev."""
    plan = study.plan
    asked = load_prompts(plan.benchmark, split="test", limit=plan.test, tasks=True)
    if role != "base":
        asked += load_prompts(plan.benchmark, split="train", limit=plan.train)
    if role == "reasoning":
        asked += load_prompts(plan.benchmark, split="dev", limit=plan.dev)
    return asked


def written(study: Study, role: str) -> tuple[list[Transcript], list[Verdict]]:
    """What a model wrote, unsteered, and the judge's verdicts; generated if need be."""
    plan, asked = study.plan, prompts_of(study, role)
    paths = [study.run.path("transcripts", f"{role}.jsonl"), study.run.path("verdicts", plan.judge, f"{role}.jsonl")]
    with study.stage(f"write {role}", paths, role=role, asked=digest({p.id: p.text for p in asked})) as due:
        if due:
            with study.track(f"{role} answers", len(asked)) as advance:
                said = []
                for start in range(0, len(asked), plan.batch_size):
                    part = asked[start : start + plan.batch_size]
                    said += generate(
                        study.model(role), part, max_new_tokens=plan.max_new_tokens, batch_size=plan.batch_size, progress=False
                    )
                    advance("", len(part))
            write_transcripts(paths[0], said)
            write_verdicts(paths[1], JUDGES[plan.judge](said))
    return read_transcripts(paths[0], asked), read_verdicts(paths[1])


def audit(study: Study) -> pd.DataFrame:
    """The `collapse` table on the test split."""
    with study.stage("audit", [study.run.path("tables", "collapse.parquet"), study.run.path("prompts.jsonl")]) as due:
        answers = {role: written(study, role) for role in ROLES}
        if due:
            write_prompts(study.run.path("prompts.jsonl"), [t.prompt for t in answers["reasoning"][0]])
            test = [t.prompt for t in answers["base"][0]]
            verdicts = {role: said[1][: len(test)] for role, said in answers.items()}
            study.run.write_table(
                "collapse", collapse(verdicts, test, benchmark=study.plan.benchmark, judge=study.plan.judge, seed=study.plan.seed)
            )
    return study.run.table("collapse")


def activations(study: Study, role: str) -> Store:
    """The reasoning model's requests of all splits, its own tokens, read in a model of the trio at every layer and moment."""
    folder = study.run.path("activations", role)
    with study.stage(f"read {role}", [folder / "index.parquet"], moments=MOMENTS) as due:
        if due:
            shutil.rmtree(folder, ignore_errors=True)
            said = [t for t in written(study, "reasoning")[0] if t.prompt.category != "tasks"]
            labels: dict[str, dict[str, Any]] = {t.id: {} for t in said}
            for judge_of in ("safe", "reasoning"):
                for transcript, verdict in zip(*written(study, judge_of), strict=True):
                    if transcript.id in labels:
                        labels[transcript.id][f"refused_by_{judge_of}"] = verdict.answer.refusal == "full"
            for row in labels.values():
                row.setdefault("refused_by_safe", None)
            capture(study.model(role), said, Select("resid_post", MOMENTS), into=folder, batch_size=64, labels=labels, progress=False)
    return open_store(folder)


def detection(study: Study) -> tuple[pd.DataFrame, Probe]:
    """The `detection` table of all three models, and the reasoning model's best probe before it thinks, for a gate."""
    probe_file = study.run.path("probes", "reasoning.safetensors")
    tables = [study.run.path("tables", f"{name}.parquet") for name in ("detection", "trajectory")]
    with study.stage("detection", [*tables, probe_file], moments=MOMENTS, columns=COLUMNS) as due:
        if due:
            said = [t for t in written(study, "reasoning")[0] if t.prompt.category != "tasks"]
            found = []
            with study.track("probes", len(ROLES)) as advance:
                for role in ROLES:
                    store = activations(study, role)
                    sweep = fit_probes(
                        store,
                        texts=texts_at(store, said, study.model(role)),
                        progress=False,
                        shuffles=study.plan.draws // 2,
                        directions=study.plan.draws // 2,
                        seed=study.plan.seed,
                    )
                    found.append(sweep.table)
                    if role == "reasoning":
                        best = sweep.pick(span="last_prompt", probe="logistic")
                        probe_file.unlink(missing_ok=True)
                        best.save(probe_file)
                        moment = wordless(sweep.table, role).iloc[0]
                        study.run.write_table("trajectory", followed(study, said, sweep.probes[moment.site, moment.span, "logistic"]))
                    advance(role, 1)
            study.run.write_table("detection", pd.concat(found, ignore_index=True))
    return study.run.table("detection"), Probe.load(probe_file)


def followed(study: Study, said: Sequence[Transcript], probe: Probe) -> pd.DataFrame:
    """The readout along the thought for some test prompts."""
    test = followed_of(said, study.plan)
    folder = study.run.path("activations", "followed")
    shutil.rmtree(folder, ignore_errors=True)
    where = Select(probe.site, ("thought", "answer"), pool="every")
    store = capture(study.model("reasoning"), test, where, into=folder, progress=False)
    return trajectory(store, test, probe, study.model("reasoning"))


def followed_of(said: Sequence[Transcript], plan: Plan) -> list[Transcript]:
    """Those that are read at every token."""
    return [t for t in said if t.prompt.split == "test" and t.prompt.category != "tasks"][: 2 * plan.followed]


def workbench(study: Study) -> Workbench:
    stores = {role: activations(study, role) for role in ROLES}
    _, probe = detection(study)
    plan = study.plan
    return Workbench(study.model("reasoning"), stores, probe, plan.judge, plan.max_new_tokens, plan.batch_size)


def choosing(study: Study) -> tuple[Setting, dict[str, Setting]]:
    """The settings: read from the file given, else chosen on dev and written to steering.json and the table `sweep`.

    Raises ValueError for a file that is damaged or was made with other checkpoints.
    """
    models = fingerprints(study.plan.models)
    if study.steering is not None:
        return from_json(json.loads(study.steering.read_text(encoding="utf-8")), models, study.steering)
    path = study.run.path(STEERING)
    with study.stage("choose", [path, study.run.path("tables", "sweep.parquet")], moments=MOMENTS) as due:
        if due:
            bench = workbench(study)
            dev = load_prompts(study.plan.benchmark, split="dev", limit=study.plan.tuning)
            with study.track("steering settings on dev", None) as advance:
                choice = choose(bench, dev, told=lambda note: advance(note, 1))
            study.run.write_table("sweep", choice.table)
            write_text(path, json.dumps(to_json(choice, models), indent=2) + "\n")
    return from_json(json.loads(path.read_text(encoding="utf-8")), models, path)


def restoring(study: Study) -> pd.DataFrame:
    """The `restoration` table on test: unsteered, safe, the chosen setting, the best of every other source, and the controls.

    Every condition is a stage of its own, so that an interrupted run goes on with the next one. The row `changed` is the share of outputs
    that differ from the unsteered ones at all.
    """
    setting, others = choosing(study)
    plan, run = study.plan, study.run
    test = load_prompts(plan.benchmark, split="test", limit=plan.test)
    few = test[: 2 * plan.control]
    outputs = [run.path("tables", "restoration.parquet"), run.path("vectors", "headline.safetensors")]
    with study.stage("restore", outputs, setting=asdict(setting), others={k: asdict(v) for k, v in others.items()}) as due:
        if due:
            bench = workbench(study)
            vector = bench.vector(setting.source, setting.span)
            outputs[1].unlink(missing_ok=True)
            told = {"operator": setting.operator, "spans": [setting.span], "gate": setting.gate}
            chosen_on = f"{plan.benchmark} dev, {plan.tuning} twin pairs, judge {plan.judge}"
            vector.at(*setting.sites).recommend(strength=setting.strength, chosen_on=chosen_on, **told).save(outputs[1])
            work: list[tuple[str, Setting, Vector, Sequence[Prompt]]] = [(STEERED, setting, vector, test)]
            work += [(name, other, bench.vector(other.source, other.span), test) for name, other in others.items()]
            work.append(("shuffled", setting, bench.vector(setting.source, setting.span, shuffled=plan.seed), test))
            work += [(f"random[{i}]", setting, made, few) for i, made in enumerate(random_vectors(vector, plan.draws, plan.seed))]
            plain = {t.id: t for t in written(study, "reasoning")[0]}
            safe = {t.id: t for t in written(study, "safe")[0]}
            rows = []
            for said, asked, condition in ((plain, test, "unsteered"), (safe, test, "safe"), (plain, few, SAME)):
                kept = [said[p.id] for p in asked]
                rows += rows_of(bench.verdicts(kept), kept, None, condition=condition, split="test")
            with study.track("steering on test", len(work)) as advance:
                for condition, how, pushed, asked in work:
                    kept = steered(study, bench, condition, how, pushed, asked)
                    rows += rows_of(bench.verdicts(kept), kept, how, condition=condition, split="test", plain=plain)
                    advance(condition, 1)
            run.write_table("restoration", pd.DataFrame(rows))
    return run.table("restoration")


def steered(study: Study, bench: Workbench, condition: str, how: Setting, vector: Vector, asked: Sequence[Prompt]) -> list[Transcript]:
    """What the reasoning model writes under one condition, with its verdicts; kept once written."""
    name = f"reasoning@{slug(condition)}.jsonl"
    paths = [study.run.path("transcripts", name), study.run.path("verdicts", study.plan.judge, name)]
    with study.stage(f"steer {condition}", paths, setting=asdict(how)) as due:
        if due:
            said = bench.write(asked, how, vector, condition)
            write_transcripts(paths[0], said)
            write_verdicts(paths[1], bench.verdicts(said))
    return read_transcripts(paths[0], asked)


def seeing(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table `readouts`, of every model on what the reasoning model wrote and of that one under the chosen setting, and `projection`."""
    run, setting, found = study.run, choosing(study)[0], detection(study)[0]
    moment, spans = str(wordless(found, "reasoning").iloc[0].span), [span for span in MOMENTS if (found.span == span).any()]
    with study.stage("readouts", [run.path("tables", "readouts.parquet")], setting=asdict(setting), moment=moment) as due:
        if due:
            restoring(study)
            said = followed_of(written(study, "reasoning")[0], study.plan)
            kept = read_transcripts(run.path("transcripts", f"reasoning@{slug(STEERED)}.jsonl"), read_prompts(run.path("prompts.jsonl")))
            steered = headline(run, followed_of(kept, study.plan))
            stores = {role: activations(study, role) for role in ROLES}
            table = readouts({role: study.model(role) for role in ROLES}, stores, said, moment, steered)
            run.write_table("readouts", table, row_group=TOKENS)
    with study.stage("projection", [run.path("tables", "projection.parquet")], moments=spans) as due:
        if due:
            run.write_table("projection", projection({role: activations(study, role) for role in ROLES}, spans), row_group=POINTS)
    return run.table("readouts"), run.table("projection")
