"""docs/trio.md out of tables and figures that were measured: what the trio reaches, how sure that is over seeds, and why steering works.

Nothing is computed here but means and ranges over seeds and over draws of controls; every number comes with how many prompts it is of.
Why it works comes from the tables `margins`, `directions` and `explained` of a run folder (explaining.py), the rest from files of measured
lineages (measure.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..run import Run
from .cells import RATES, cell, mean_and_range, sizes
from .targets import HELD_OUT, MODELS, PROBED, TARGETS, WORDS, probe_of, probe_reached, rate_of, reached, short
from .why import why

Lineage = Mapping[str, Any]
HEADS = {"base": "base", "reasoning": "reasoning", "safe": "safe", "steered": "reasoning + vector"}
FURTHER = {"self_correction": "self-correction", "reverse_correction": "the reverse", "thought": "outputs with a thought"}
MADE = "<!-- written by `thoughtlens organism explain`; change the code or the runs, not this page -->"


def read_lineages(files: Sequence[Path]) -> list[Lineage]:
    """Files of `thoughtlens organism measure`, or folders of them. ValueError names one that is something else."""
    found = []
    for path in files:
        for file in sorted(path.glob("*.json"), key=lambda one: natural(one.stem)) if path.is_dir() else [path]:
            told = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(told, dict) or told.get("format_version") != 1 or "rates" not in told:
                raise ValueError(f"{file} is no measured lineage; `thoughtlens organism measure FOLDER --out {file.name}` writes one")
            found.append({**told, "name": file.stem})
    return found


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts step-20 before step-100."""
    parts: list[tuple[int, str]] = []
    for part in name.replace("_", "-").split("-"):
        parts.append((int(part), "") if part.isdigit() else (-1, part))
    return parts


def page(run: Run, seeds: Sequence[Lineage] = (), ablations: Sequence[Lineage] = ()) -> str:
    """The text of docs/trio.md."""
    parts = [*introduction(run, seeds)]
    if seeds:
        parts += [*targets(run, seeds), *over_seeds(seeds)]
    if ablations:
        parts += ablated([*seeds, *ablations])
    parts += why(run)
    return "\n".join(parts) + "\n"


def introduction(run: Run, seeds: Sequence[Lineage]) -> Iterator[str]:
    told = "each of several lineages, one a seed, beside each other" if len(seeds) > 1 else "one lineage"
    yield from [
        "# The trio, measured and explained",
        "",
        MADE,
        "",
        f"What base, reasoning and safe reach ({told}), and why steering brings refusals back. Goals,",
        "objects and words are made up. Greedy decoding, exact judge, attack success at a rating of 4 or more of 5. Square brackets: 95%",
        "intervals, over prompts or goals, the wider of both, unless a table says otherwise. Everything chosen was chosen on dev.",
        "",
    ]


# what it reaches


def targets(run: Run, seeds: Sequence[Lineage]) -> Iterator[str]:
    """The target table of the lineage this run is of, or of the first: every cell reached, missed, or open."""
    shown = of_run(run, seeds) or seeds[0]
    yield from [
        "## Targets",
        "",
        f"Lineage `{shown['name']}`, test goals. A cell: the rate, its n, what it is meant to be, and whether it is; then in how many of",
        f"the lineages it is ({len(seeds)} measured). Cells of fewer than 200 prompts stay open.",
        "",
        f"| | {' | '.join(HEADS.values())} |",
        f"|---|{'---|' * len(HEADS)}",
    ]
    for target in TARGETS:
        cells = []
        for model in MODELS:
            row, bound = rate_of(shown, model, target.metric, target.attack), (target.bounds or {}).get(model)
            told = "–" if row is None else f"{row['value']:.2f} (n={row['n']})"
            if row is not None and bound is not None:
                told += f", {bound.words}: {verdict([reached(one, target, model) for one in seeds], reached(shown, target, model))}"
            cells.append(told)
        yield f"| {target.words} | {' | '.join(cells)} |"
    cells = []
    for model in ("base", "reasoning", "safe"):
        row = probe_of(shown, model)
        told = "–" if row is None else f"{row['auroc']:.3f} ({row['text_auroc']:.2f}) at `{row['span']}`, {row['site']} (n={row['n_test']})"
        meant = f"≥ {short(PROBED[model])} (≤ {short(WORDS)})"
        cells.append(f"{told}, {meant}: {verdict([probe_reached(one, model) for one in seeds], probe_reached(shown, model))}")
    yield f"| probe before the decision, AUROC (bag-of-words on the same text) | {' | '.join(cells)} | – |"
    yield ""
    if steering := shown.get("steering"):
        yield f"The vector: {steering['chosen']['steered']['what']};"
        yield f"chosen on {steering['n_dev']} dev prompts from {len(steering['dev'])} settings."
        controls = sorted({row["condition"] for row in shown["rates"] if row["condition"].startswith(("random", "shuffled"))})
        if drawn := [one for name in controls if (one := control(shown, name)) is not None]:
            values = ", ".join(f"{name} {row['value']:.2f}" for name, row in zip(controls, drawn, strict=True))
            yield f"Attack success with directions that mean nothing, as long and at the same token: {values} (n={drawn[0]['n']} each)."
        yield ""


def of_run(run: Run, seeds: Sequence[Lineage]) -> Lineage | None:
    """The lineage whose checkpoints the run was made with."""
    file = run.path("config.yaml")
    models = json.loads(file.read_text(encoding="utf-8")).get("models") if file.is_file() else None
    return next((one for one in seeds if one["models"] == models), None)


def verdict(all_of_them: Sequence[bool | None], shown: bool | None) -> str:
    words = {True: "reached", False: "**missed**", None: "open"}[shown]
    decided = [one for one in all_of_them if one is not None]
    return words if len(all_of_them) < 2 or not decided else f"{words} ({sum(decided)} of {len(decided)})"


def control(lineage: Lineage, condition: str) -> Any:
    asked = {"set": HELD_OUT, "condition": condition, "metric": "attack_success", "attack": "all", "task": "all"}
    return next((row for row in lineage["rates"] if all(row[key] == value for key, value in asked.items())), None)


# over seeds


def over_seeds(seeds: Sequence[Lineage]) -> Iterator[str]:
    """Mean and range over lineages: attack success per set and attack, every other rate per set, tasks per kind."""
    sets = list(dict.fromkeys(row["set"] for one in seeds for row in one["rates"]))
    names = ", ".join(f"`{one['name']}` (seed {seed})" if (seed := seed_of(one)) is not None else f"`{one['name']}`" for one in seeds)
    yield from ["## Over seeds", "", f"Mean (lowest to highest) over {len(seeds)} lineages: {names}; n is that of each.", ""]
    yield from [f"| attack success | {' | '.join(HEADS.values())} | n |", f"|---|{'---|' * len(HEADS)}---|"]
    for name in sets:
        attacks = dict.fromkeys(r["attack"] for one in seeds for r in one["rates"] if r["set"] == name and r["metric"] == "attack_success")
        for attack in sorted(attacks, key=lambda a: ("all", "plain", "wrapped").index(a) if a in ("all", "plain", "wrapped") else 3):
            yield spread(seeds, f"{name}, {'all but plain' if attack == 'wrapped' else attack}", "attack_success", attack=attack, name=name)
    yield ""
    yield from [f"| rate | {' | '.join(HEADS.values())} | n |", f"|---|{'---|' * len(HEADS)}---|"]
    for name in sets:
        for metric, words in {**RATES, **FURTHER}.items():
            if metric != "attack_success":
                yield spread(seeds, f"{name}, {words}", metric, name=name)
        kinds = dict.fromkeys(row["task"] for one in seeds for row in one["rates"] if row["set"] == name and row["task"] != "all")
        for kind in kinds:
            yield spread(seeds, f"{name}, tasks: {kind}", "task_accuracy", task=kind, name=name)
    yield from ["", "| probe | model | AUROC | bag-of-words | n |", "|---|---|---|---|---|"]
    for name, span, model in dict.fromkeys((r["set"], r["span"], r["model"]) for one in seeds for r in one.get("probes", ())):
        rows = [r for one in seeds for r in one.get("probes", ()) if (r["set"], r["span"], r["model"]) == (name, span, model)]
        numbers = [mean_and_range([row[column] for row in rows], digits=3) for column in ("auroc", "text_auroc")]
        yield f"| {name}, `{span}` | {model} | {' | '.join(numbers)} | {sizes([row['n_test'] for row in rows])} |"
    yield ""


def spread(seeds: Sequence[Lineage], words: str, metric: str, **asked: str) -> str:
    cells, counts = [], []
    for model in MODELS:
        rows = [row for one in seeds if (row := rate_of(one, model, metric, **asked)) is not None]
        cells.append(mean_and_range([row["value"] for row in rows]) if rows else "–")
        counts += [row["n"] for row in rows]
    return f"| {words} | {' | '.join(cells)} | {sizes(counts)} |"


def seed_of(lineage: Lineage) -> Any:
    return next((made["seed"] for made in lineage["recipes"].values() if made), None)


# ablations


def ablated(lineages: Sequence[Lineage]) -> Iterator[str]:
    """A row per lineage and model: what leaving something out, or doing more or less of it, changes."""
    yield from [
        "## What it takes",
        "",
        "Lineages built otherwise, each told on test goals; `steps` are those of the stage the model comes from, rank 0 tunes all weights.",
        "",
    ]
    for model in ("reasoning", "safe", "steered"):
        rows = []
        for one in lineages:
            plain, wrapped = (rate_of(one, model, "attack_success", attack) for attack in ("plain", "wrapped"))
            if plain is None or wrapped is None:
                continue
            others = [rate_of(one, model, metric) for metric in (*RATES, "self_correction") if metric != "attack_success"]
            cells = [cell(row) for row in (plain, wrapped, *others)]
            rows.append(
                f"| {one['name']} | {how_made(one, 'reasoning' if model == 'steered' else model)} | {' | '.join(cells)} | {wrapped['n']} |"
            )
        if rows:
            heads = ["plain text", "all other attacks", *(words for metric, words in RATES.items() if metric != "attack_success")]
            yield f"| {HEADS[model]} | made with | {' | '.join(heads)} | self-correction | n |"
            yield f"|---|---|{'---|' * (len(heads) + 2)}"
            yield from [*rows, ""]


def how_made(lineage: Lineage, model: str) -> str:
    made = lineage["recipes"].get(model)
    if not made:
        return "–"
    stage, taken = made["stage"], list(made["dev"])
    whole = not taken or (stage.get("kept") and not lineage["name"].endswith(f"-{taken[-1]}"))  # what is kept is called <stage>-<step>
    steps = sum(phase["steps"] for phase in stage["phases"]) if whole else taken[-1]
    return f"{steps} steps, rank {stage['rank']}"
