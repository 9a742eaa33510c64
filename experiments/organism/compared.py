"""The comparison of ways as the README tells it: from the table `comparison` of a run to numbers that are kept, and to Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

SHOWN = ("attack_success", "refusal", "over_refusal", "helpful", "task_accuracy", "truncated")
ATTACKED = (
    "unsteered",
    "safe",
    "reminder",
    "reminder at the same step",
    "system prompt",
    "steered",
    "in the weights",
    "thought fixed",
    "thought none",
    "thought replayed",
)
DERIVED = ("gate ", "thought ")
CONTROLS = ("shuffled", "random")


def kept(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a way: what it is, its rates over all attacks, attack success by attack, KL, tokens steered an output."""
    found = []
    for condition, part in table.groupby("condition", sort=False):
        everything = part[part.attack == "all"].set_index("metric")
        by_attack = part[(part.metric == "attack_success") & (part.attack != "all")].set_index("attack")
        found.append(
            {
                "way": condition,
                "what": everything["what"].iloc[0],
                "rates": {metric: _numbers(everything.loc[metric]) for metric in (*SHOWN, "kl") if metric in everything.index},
                "attacks": {attack: _numbers(row) for attack, row in by_attack.iterrows()},
                "tokens": round(float(everything.loc["truncated"].fired / everything.loc["truncated"].n), 2),
            }
        )
    return found


def _numbers(row: pd.Series) -> dict[str, Any]:
    return {**{name: round(float(row[name]), 4) for name in ("value", "low", "high")}, "n": int(row["n"])}


def markdown(ways: list[Mapping[str, Any]]) -> list[str]:
    """Two tables: every way, and attack success by attack of the main ones."""
    single = [way for way in ways if "[" not in way["way"]]
    first = next(way for way in ways if way["way"] == "unsteered")["rates"]
    attacks = [attack for attack in single[0]["attacks"]]
    sizes = {single[0]["attacks"][attack]["n"] for attack in attacks}
    return [
        f"Every way beside every baseline (`thoughtlens sweep runs/demo`): {first['attack_success']['n']} harmful and "
        f"{first['helpful']['n']} benign prompts (each goal under each attack",
        f"in several wordings) and {first['task_accuracy']['n']} tasks, each way chosen on dev and told once on test; 95% intervals over "
        "prompts or goals, the wider of both. KL: nats a token on",
        f"{next(way for way in single if 'kl' in way['rates'])['rates']['kl']['n']} benign prompts. Tokens: steered, an output.",
        "",
        "| way | attack success | refusal | over-refusal | helpful | tasks | never ends | KL | tokens |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(way) for way in single),
        *(_controls(name, [way for way in ways if way["way"].startswith(f"{name}[")]) for name in CONTROLS),
        "",
        f"Attack success by attack, n={min(sizes)} each:",
        "",
        f"| way | {' | '.join(attacks)} |",
        f"|---|{'---|' * len(attacks)}",
        *(
            f"| {way['way']} | {' | '.join(_share(way['attacks'][attack]) for attack in attacks)} |"
            for way in single
            if way["way"] in ATTACKED
        ),
        "",
        "What was chosen on dev (gates and thought modes: the setting of `steered`):",
        "",
        *(f"- {way['way']}: {way['what']}" for way in single if way["what"] != way["way"] and not way["way"].startswith(DERIVED)),
    ]


def _row(way: Mapping[str, Any]) -> str:
    rates = way["rates"]
    cells = [_share(rates[metric]) if metric in rates else "" for metric in SHOWN]
    kl = f"{rates['kl']['value']:.3f}" if "kl" in rates else ""
    return f"| {way['way']} | {' | '.join(cells)} | {kl} | {way['tokens'] or ''} |"


def _controls(name: str, draws: list[Mapping[str, Any]]) -> str:
    cells = []
    for metric in SHOWN:
        values = [way["rates"][metric]["value"] for way in draws if metric in way["rates"]]
        cells.append(f"{sum(values) / len(values):.2f} ({min(values):.2f}-{max(values):.2f})" if values else "")
    n = draws[0]["rates"]["attack_success"]["n"]
    tokens = sum(way["tokens"] for way in draws) / len(draws)
    what = "random directions of equal norm" if name == "random" else "vectors from shuffled labels"
    return f"| {len(draws)} {what}, mean (range), n={n} each | {' | '.join(cells)} |  | {tokens:.2f} |"


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
