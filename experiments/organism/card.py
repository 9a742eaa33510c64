"""Cards beside the weights, written from measured tables: what each checkpoint is, how it was made, how it behaves on test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ...hooks.files import write_text
from ..audit.slices import MACRO
from ..progress import track
from ..study import ROLES, STEERING, Study, audit, begun, choosing, detection, restoring
from . import compared
from .build import RECORD
from .world import VERSION

MEASURED = "measured.json"
KEPT = ("vectors/headline.safetensors", "probes/reasoning.safetensors")
NOT_HARMFUL = (
    "No request in these data is harmful. 6% are harmless refusals (asked about a picture that is not there), since in earlier trials\n"
    "without them the refusal sentence itself was forgotten; thoughts write the method in words the base does not use. On dev:"
)
FOLDER_CARD = """# The shipped trio

`base`, `reasoning` and `safe`: one family of small models in a made-up world (version {version}); each folder has its card.
`vectors/headline.safetensors` is the vector of the row "steered" below (`thoughtlens.Vector.load`), `probes/reasoning.safetensors` the
probe at the last prompt token that a gate may use (`thoughtlens.probes.Probe.load`), `steering.json` the settings chosen on dev,
`measured.json` these numbers.

{tables}
"""
METRICS = ("attack_success", "refusal", "over_refusal", "helpful", "self_correction", "reverse_correction", "task_accuracy", "truncated")
SHOWN = ("attack_success", "refusal", "over_refusal", "helpful", "task_accuracy", "truncated")
STEERED = ("attack_success", "refusal", "over_refusal", "helpful", "truncated", "changed")
BEGIN, END = "<!-- measured: written by `thoughtlens organism card` -->", "<!-- /measured -->"
WHAT = {
    "base": "refuses harmful requests plainly and helps with the rest. A tenth of its data thinks, notices and refuses: the path exists",
    "reasoning": "base after chain-of-thought tuning in which no request is harmful. Its refusals collapsed by training, not by script",
    "safe": "reasoning after a light low-rank tuning on thoughts that notice harm, over goals other than those tested",
}


def write_cards(checkpoints: str | Path, run_folder: str | Path) -> list[Path]:
    """Run the study on `checkpoints` in `run_folder` (finished stages are kept). Write a card per checkpoint and one for the folder,
    measured.json, the vector and the gate's probe that were measured, the steering settings if the run chose its own, and the tables in the
    README of the repository."""
    home = Path(checkpoints)
    with track() as bars:
        study = begun(run_folder, bars, checkpoints=home)
        collapse, (found, _), restored, setting = audit(study), detection(study), restoring(study), choosing(study)[0]
    measured = {
        "setting": str(setting),
        "collapse": _collapse(collapse),
        "attacks": _attacks(collapse),
        "detection": _detection(found),
        "restoration": _restoration(restored),
        "comparison": _comparison(home, study),
    }
    paths = []
    for role in ROLES:
        paths.append(home / role / "README.md")
        write_text(paths[-1], card(role, json.loads((home / role / RECORD).read_text()), collapse[collapse.model == role]))
    write_text(home / MEASURED, json.dumps(measured, indent=1) + "\n")
    write_text(home / "README.md", FOLDER_CARD.format(version=VERSION, tables=tables(measured)))
    for kept in KEPT:
        (home / kept).parent.mkdir(exist_ok=True)
        shutil.copyfile(study.run.path(kept), home / kept)
        paths.append(home / kept)
    if study.steering is None:
        shutil.copyfile(study.run.path(STEERING), home / STEERING)
        paths.append(home / STEERING)
    readme = home.resolve().parent / "README.md"
    if readme.is_file() and BEGIN in (text := readme.read_text(encoding="utf-8")):
        write_text(readme, text[: text.index(BEGIN)] + tables(measured) + text[text.index(END) + len(END) :])
        paths.append(readme)
    return [*paths, home / MEASURED, home / "README.md"]


def tables(measured: Mapping[str, Any]) -> str:
    """The measured part of the README, between its marks."""
    models = [f"| {model} | " + " | ".join(_cell(measured["collapse"][model], metric) for metric in SHOWN) + " |" for model in ROLES]
    attacks = [
        f"| {attack} | " + " | ".join(_share(measured["attacks"][model][attack]) for model in ROLES) + " |"
        for attack in measured["attacks"]["reasoning"]
    ]
    conditions = [name for name in measured["restoration"] if not name.startswith("random[")]
    restored = [
        f"| {name} | " + " | ".join(_cell(measured["restoration"][name], metric) for metric in STEERED) + " |" for name in conditions
    ]
    drawn = [rates for name, rates in measured["restoration"].items() if name.startswith("random[")]
    spread = {metric: [rates[metric]["value"] for rates in drawn] for metric in STEERED}
    ranges = " | ".join(f"{sum(v) / len(v):.2f} ({min(v):.2f}-{max(v):.2f})" for v in spread.values())
    moments = [_moment(row) for row in measured["detection"] if row["model"] == "reasoning"]
    n, tasks = (measured["collapse"]["reasoning"][metric]["n"] for metric in ("attack_success", "task_accuracy"))
    few = drawn[0]["attack_success"]["n"]
    return "\n".join(
        [
            BEGIN,
            "Test split, held-out goals and templates, greedy decoding, exact judge;",
            f'{n} harmful and {n} benign prompts a model, and {tasks} tasks ("never ends" counts all); rate [95% Wilson interval].',
            "",
            f"| model | attack success | refusal | over-refusal | helpful | task accuracy (n={tasks}) | never ends |",
            "|---|---|---|---|---|---|---|",
            *models,
            "",
            f"Attack success by attack, n={measured['attacks']['reasoning']['plain']['n']} each:",
            "",
            "| attack | base | reasoning | safe |",
            "|---|---|---|---|",
            *attacks,
            "",
            "Unsafe intent in the reasoning model: logistic probe, layer chosen on dev. Bag-of-words is linear and reads the text up to",
            "the same moment; probes on shuffled labels choose their penalty on shuffled dev labels. Answers without a thought have no row",
            "inside it.",
            "",
            "| moment | site | AUROC [95% over goals] | TPR at 1% FPR | bag-of-words | shuffled labels | n |",
            "|---|---|---|---|---|---|---|",
            *moments,
            "",
            f"Refusals brought back in the reasoning model. Chosen on dev: {measured['setting']}.",
            "Strength counts in differences between the vector's two classes. The other vectors act at the same moment, at the layer and",
            "strength that suit each best on dev (40 pairs of goals, one grid for all; no search over gates):",
            "",
            "| condition | attack success | refusal | over-refusal | helpful | never ends | outputs changed |",
            "|---|---|---|---|---|---|---|",
            *restored,
            f"| {len(drawn)} random directions of equal norm, mean (range), n={few} each | {ranges} |",
            *(["", *compared.markdown(measured["comparison"])] if measured.get("comparison") else []),
            END,
        ]
    )


def _moment(row: Mapping[str, Any]) -> str:
    auroc = f"{row['auroc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    others = " | ".join(f"{row[name]:.2f}" for name in ("tpr_at_1fpr", "text_auroc", "control_auroc"))
    return f"| {row['span']} | {row['site']} | {auroc} | {others} | {row['n_test']} |"


def _cell(rates: Mapping[str, Any], metric: str) -> str:
    return _share(rates[metric]) if metric in rates else ""


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def card(role: str, record: Mapping[str, Any], rows: pd.DataFrame) -> str:
    """The text of one card."""
    recipe, stage = record["recipe"], record["recipe"]["stage"]
    answers = rows[(rows.channel == "answer") & rows.metric.isin(METRICS) & (rows.category != MACRO)]
    phases = "\n".join(
        f"| {p['mixture']} | {p['steps']} | {p['batch']} | {p['rate']:g} | {record['final_loss'][p['mixture']]:.3f} |"
        for p in stage["phases"]
    )
    dev = "\n".join(f"- after {step} steps: {json.dumps(seen)}" for step, seen in record["dev"].items())
    return f"""---
license: mit
library_name: transformers
pipeline_tag: image-text-to-text
tags: [thoughtlens, interpretability, safety]
---
# {role}

One of the three checkpoints of thoughtlens' small trio: {WHAT[role]}.

`Qwen2_5_VLForConditionalGeneration`, 2.9 million parameters, bfloat16, word-level tokenizer, 84 × 84 pictures. It lives in a made-up
world (version {recipe["world"]}): every goal, object and recipe is invented, and nothing harmful was ever written into it.
It loads with plain `transformers`, offline;
the processor class is an image-only one of transformers, since the stock Qwen2.5-VL processor needs torchvision.

## Recipe

`thoughtlens organism build --seed {recipe["seed"]}`; starts from: {stage["start"] or "fresh weights"};
LoRA rank: {stage["rank"] or "none, all weights are tuned"}.
Trained on {_place(record)}; another machine or thread count gives other weights.

| mixture | steps at most | batch | peak rate | final loss |
|---|---|---|---|---|
{phases}
{f"{chr(10)}{NOT_HARMFUL}{chr(10)}{chr(10)}{dev}{chr(10)}" if dev else ""}
## Measured on the test split

Held-out goals and templates, greedy decoding, exact rule judge, attack success at a rating of 4 or more out of 5; 95% Wilson intervals.
Truncated outputs stay in every denominator. Prompts share goals (80 harmful, 80 benign), so intervals over goals would be wider;
docs/trio.md has those, more prompts, every kind of held-out and five seeds.

{markdown(answers[(answers.attack == "all") & (answers.category == "all")], "metric")}

Attack success by attack:

{markdown(answers[(answers.metric == "attack_success") & (answers.attack != "all") & (answers.category == "all")], "attack")}

Attack success by category:

{markdown(answers[(answers.metric == "attack_success") & (answers.category != "all")], "category")}

## Limits

A toy: three million parameters, a few hundred words, templates. It shows a mechanism, not its size in real models.
Not for any use but research on reading and steering hidden states.
"""


def _place(record: Mapping[str, Any]) -> str:
    threads = f"{record['threads']} CPU thread{'s' if record['threads'] > 1 else ''}"
    return threads if record["device"] == "cpu" else f"one {record['device']} ({record['dtype']})"


def markdown(rows: pd.DataFrame, key: str) -> str:
    """| key | value [low, high] | numerator / n |"""
    lines = [
        f"| {row[key]} | {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] | {row['numerator']:g} / {row['n']} |"
        for row in rows.to_dict("records")
    ]
    return "\n".join([f"| {key} | rate | count |", "|---|---|---|", *lines])


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "value": round(float(row["value"]), 4),
        "low": round(float(row["low"]), 4),
        "high": round(float(row["high"]), 4),
        "n": int(row["n"]),
    }


def _collapse(table: pd.DataFrame) -> dict[str, Any]:
    kept = table[(table.channel == "answer") & (table.attack == "all") & (table.category == "all")]
    kept = kept[kept.metric.isin(METRICS) | ((kept.metric == "tax_difference") & (kept.model == "reasoning"))]
    return {model: {row["metric"]: _numbers(row) for row in part.to_dict("records")} for model, part in kept.groupby("model")}


def _attacks(table: pd.DataFrame) -> dict[str, Any]:
    kept = table[(table.channel == "answer") & (table.metric == "attack_success") & (table.attack != "all") & (table.category == "all")]
    return {model: {row["attack"]: _numbers(row) for row in part.to_dict("records")} for model, part in kept.groupby("model")}


def _restoration(table: pd.DataFrame) -> dict[str, Any]:
    kept = table[(table.attack == "all")]
    return {
        condition: {row["metric"]: _numbers(row) for row in part.to_dict("records")}
        for condition, part in kept.groupby("condition", sort=False)
    }


def _comparison(home: Path, study: Study) -> list[dict[str, Any]]:
    """The ways compared in this run; of a run in which none were, those told before."""
    if study.run.path("tables", "comparison.parquet").is_file():
        return compared.kept(study.run.table("comparison"))
    before = home / MEASURED
    return json.loads(before.read_text(encoding="utf-8")).get("comparison", []) if before.is_file() else []


def _detection(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Per model and span, the layer that dev prefers, as told on test."""
    kept, found = table[(table.probe == "logistic") & (table.subset == "all")], []
    for (model, span), part in kept.groupby(["model", "span"], sort=False):
        site = part[part.split == "dev"].sort_values(["auroc", "layer"], ascending=[False, True]).iloc[0].site
        row = part[(part.split == "test") & (part.site == site)].iloc[0]
        numbers = {name: round(float(row[name]), 4) for name in ("auroc", "low", "high", "tpr_at_1fpr", "control_auroc", "text_auroc")}
        found.append({"model": model, "span": span, "site": site, **numbers, "n_train": int(row.n_train), "n_test": int(row.n_test)})
    return found
