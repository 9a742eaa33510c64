"""What `thoughtlens sweep` prints: every way with its rates, and its attack success by attack; figures are those of test.

Rows of the table `comparison` in, rich tables and sentences out; nothing is computed here but means and ranges over draws of controls.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import RenderableType

from .probing_tables import listed, value

METRICS = {
    "attack_success": "attack success",
    "refusal": "refused",
    "over_refusal": "over-refused",
    "helpful": "helpful",
    "task_accuracy": "tasks",
    "truncated": "never ends",
    "changed": "changed",
}


def rates(table: pd.DataFrame) -> RenderableType:
    """A row a way."""
    everything = table[table.attack == "all"]
    rows = [
        [condition, *(_cell(part, metric) for metric in METRICS), _kl(part), _fired(part)]
        for condition, part in everything[~everything.condition.str.contains("[", regex=False)].groupby("condition", sort=False)
    ]
    for control in ("shuffled", "random"):
        part = everything[everything.condition.str.startswith(f"{control}[")]
        if len(part):
            drawn = [part[part.metric == metric].value for metric in METRICS]
            spread = [f"{one.mean():.2f}\n({one.min():.2f}-{one.max():.2f})" for one in drawn]
            rows.append([f"{part.condition.nunique()} {control}, mean (range)", *spread, "", _fired(part)])
    title = f"Every way, on {everything.split.iloc[0]}: {_n(everything, 'refusal')} harmful, {_n(everything, 'helpful')} benign prompts"
    note = "95% intervals over prompts and goals, whichever is wider; KL in nats a token on benign prompts; tokens steered an output"
    return listed(title, ["way", *METRICS.values(), "KL", "tokens"], rows, note)


def attacks(table: pd.DataFrame) -> RenderableType:
    """Attack success, a column an attack."""
    kept = table[(table.metric == "attack_success") & (table.attack != "all") & ~table.condition.str.contains("[", regex=False)]
    names = list(dict.fromkeys(kept.attack))
    rows = []
    for condition, part in kept.groupby("condition", sort=False):
        by_attack = part.set_index("attack")
        rows.append([condition, *(_short(by_attack.loc[name]) if name in by_attack.index else "" for name in names)])
    return listed(f"Attack success by attack, n={int(kept.n.min())} or more a cell", ["way", *names], rows)


def settings(table: pd.DataFrame) -> RenderableType:
    """What each way is: what dev chose."""
    kept = table[~table.condition.str.contains("[", regex=False) & (table.what != table.condition)]
    return listed("What was chosen on dev", ["way", "what"], kept[["condition", "what"]].drop_duplicates().to_numpy().tolist(), words=2)


def sentences(table: pd.DataFrame) -> Iterator[str]:
    """Steering beside the text baselines and its controls."""
    everything = table[table.attack == "all"].set_index(["condition", "metric"])
    steered = everything.loc["steered"]
    yield (
        f"steered: attack success {_short(steered.loc['attack_success'])} n={int(steered.loc['attack_success'].n)}, "
        f"refused {_short(steered.loc['refusal'])}, over-refused {_short(steered.loc['over_refusal'])}."
    )
    for name in ("unsteered", "safe", "reminder", "reminder at the same step", "system prompt"):
        if name not in everything.index.get_level_values(0):
            continue
        other = everything.loc[name]
        worse = other.loc["attack_success"].value > steered.loc["attack_success"].value
        apart = _apart(other.loc["attack_success"], steered.loc["attack_success"])
        how = "more" if worse else "fewer" if other.loc["attack_success"].value < steered.loc["attack_success"].value else "as many"
        yield (
            f"{name}: {_short(other.loc['attack_success'])} of the attacks succeed, {how} than steered ({apart}); "
            f"over-refused {_short(other.loc['over_refusal'])}, helpful {_short(other.loc['helpful'])}."
        )


def _apart(one: pd.Series, other: pd.Series) -> str:
    return "intervals apart" if one.low > other.high or other.low > one.high else "intervals overlap"


def _cell(part: pd.DataFrame, metric: str) -> str:
    rows = part[part.metric == metric]
    return _short(rows.iloc[0]).replace(" [", "\n[") if len(rows) else ""


def _short(row: pd.Series) -> str:
    return value({"auroc": row.value, "low": row.low, "high": row.high}, digits=2).replace("0.", ".")


def _kl(part: pd.DataFrame) -> str:
    rows = part[part.metric == "kl"]
    return f"{rows.iloc[0].value:.3f}\n[{rows.iloc[0].low:.3f}, {rows.iloc[0].high:.3f}]" if len(rows) else ""


def _fired(part: pd.DataFrame) -> str:
    row = part[part.metric == "truncated"].iloc[0]
    return f"{row.fired / row.n:.1f}" if row.fired else ""


def _n(table: pd.DataFrame, metric: str) -> int:
    return int(table[(table.metric == metric) & (table.condition == "unsteered")].n.iloc[0])
