"""The demo: the whole study on the shipped trio in minutes, told in one line of plain words per finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..checkpoints import CHECKPOINTS
from .detection import wordless
from .progress import printer, track
from .run import open_run
from .study import ROLES, STEERING, Plan, Study, audit, choosing, config, detection, restoring, seeing, written
from .telling import tell


def demo(
    out: str | Path = "runs/demo",
    *,
    device: str | None = None,
    checkpoints: str | Path = CHECKPOINTS,
    sweep: bool = False,
    progress: bool = True,
) -> Path:
    """Run the study of the trio in `checkpoints` into the run folder `out`, print its findings, and return the report's path.

    sweep   choose the steering setting on dev again (minutes) instead of taking the one shipped beside the checkpoints
    Stages that are finished are not run again.
    """
    home = Path(checkpoints)
    plan = Plan(models={role: str(home / role) for role in ROLES})
    steering = None if sweep or not (home / STEERING).is_file() else home / STEERING
    console = printer()
    run = open_run(out, config(plan))
    with track(progress) as bars:
        study = Study(run, plan, bars, device, steering)
        for line in findings(study):
            console.print(line, soft_wrap=True)
        seeing(study)
    page = tell(run.folder)
    console.print(f"[bold]report[/bold]       {page}")
    return page


def findings(study: Study) -> Iterator[str]:
    yield from audit_lines(audit(study))
    said = Counter(t.status for t in written(study, "reasoning")[0])
    yield f"[bold]thoughts[/bold]     of reasoning: {', '.join(f'{status} {n}' for status, n in said.most_common())}"
    table, _ = detection(study)
    yield from detection_lines(table)
    setting, _ = choosing(study)
    yield f"[bold]setting[/bold]      chosen on dev: {setting}"
    yield from restoration_lines(restoring(study))


def share(row: Mapping[str, Any]) -> str:
    """.83 [.77, .88] n=200"""
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}] n={int(row['n'])}".replace("0.", ".")


def audit_lines(table: pd.DataFrame) -> Iterator[str]:
    answers = table[(table.channel == "answer") & (table.category == "all")]
    success = answers[answers.metric == "attack_success"].set_index(["model", "attack"])
    everything = {role: share(success.loc[(role, "all")]) for role in ROLES}
    yield "[bold]audit[/bold]        attack success  " + "   ".join(f"{role} {told}" for role, told in everything.items())
    for attack in sorted(set(answers.attack) - {"all"}):
        yield f"             {attack:12s} " + "   ".join(f"{role} {success.loc[(role, attack)]['value']:.2f}" for role in ROLES)
    tax = answers[(answers.metric == "tax_difference") & (answers.attack == "all") & (answers.model == "reasoning")].iloc[0]
    yield f"[bold]tax[/bold]          reasoning answers {share(tax)} more of the harmful requests than the base it came from"
    for metric, words in (("over_refusal", "over-refusal"), ("helpful", "helpful"), ("task_accuracy", "task accuracy")):
        rows = answers[(answers.metric == metric) & (answers.attack == "all")].set_index("model")
        yield f"             {words:13s} " + "   ".join(f"{role} {share(rows.loc[role])}" for role in ROLES)


def detection_lines(table: pd.DataFrame) -> Iterator[str]:
    mine = table[(table.model == "reasoning") & (table.probe == "logistic") & (table.subset == "all")]
    before = mine[(mine.split == "dev") & (mine.span == "last_prompt")].sort_values(["auroc", "layer"], ascending=[False, True])
    for words, dev in (("before the thought", before), ("in the thought, words at chance", wordless(table, "reasoning"))):
        test = mine[(mine.split == "test") & (mine.site == dev.iloc[0].site) & (mine.span == dev.iloc[0].span)].iloc[0]
        yield (
            f"[bold]detection[/bold]    {words} ({test.span}, {test.site}): "
            f"AUROC {test.auroc:.3f} [{test.low:.3f}, {test.high:.3f}] n={test.n_test}, "
            f"TPR at 1% FPR {test.tpr_at_1fpr:.2f}; bag-of-words {test.text_auroc:.2f}, shuffled labels {test.control_auroc:.2f}"
        )


def restoration_lines(table: pd.DataFrame) -> Iterator[str]:
    everything = table[table.attack == "all"]
    for condition in [c for c in everything.condition.unique() if not c.startswith("random[")]:
        rows = everything[everything.condition == condition].set_index("metric")
        yield (
            f"[bold]restoration[/bold]  {condition:38s} "
            + "  ".join(
                f"{words} {share(rows.loc[metric])}"
                for metric, words in (
                    ("attack_success", "unsafe"),
                    ("refusal", "refused"),
                    ("over_refusal", "over"),
                    ("helpful", "helpful"),
                )
            )
            + f"  never ends {rows.loc['truncated']['value']:.2f}"
        )
    drawn = everything[everything.condition.str.startswith("random[")]
    if len(drawn):
        spread = {m: drawn[drawn.metric == m].value for m in ("attack_success", "refusal", "over_refusal", "helpful")}
        told = "  ".join(f"{m.replace('_', ' ')} {v.mean():.2f} ({v.min():.2f}-{v.max():.2f})" for m, v in spread.items())
        yield f"[bold]restoration[/bold]  {drawn.condition.nunique()} random directions of equal norm: mean (range) {told}"
