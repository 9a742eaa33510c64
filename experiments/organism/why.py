"""Why it works, as docs/trio.md tells it: from the tables `margins`, `directions` and `explained` of a run folder (explaining.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd

from ..run import Run
from .cells import RATES, cell, mean_and_range, sizes


def why(run: Run) -> Iterator[str]:
    margins, directions, explained = (run.table(name) for name in ("margins", "directions", "explained"))
    yield from [
        "## Why it works",
        "",
        "One explanation, tested: benign reasoning tuning mostly shifts a bias along the refusal direction, and steering shifts it back.",
        "",
        *in_short(margins, explained),
        "",
    ]
    explained = pd.concat([explained, best(run)], ignore_index=True)
    yield from along(margins)
    yield from conditions(
        explained,
        "mean shift",
        "### Adding back the mean shift alone",
        "Base − reasoning, averaged over all training prompts, harmful and benign alike, is one constant and knows no label. It is added "
        "to the reasoning model where the best vector acts. Strength 1 is the shift as it was measured.",
    )
    yield from conditions(
        explained,
        "weights",
        "### The update of the weights",
        "ΔW is what reasoning tuning changed in the output projections of attention and MLP, u the refusal direction. Without: "
        "W − u uᵀ ΔW. Reverted: the base's projections. On the base: its own weights, and of the update only u uᵀ ΔW.",
    )
    yield from conditions(
        explained,
        "thought",
        "### The thought in between",
        "The best setting with the thought written under steering, held fixed, suppressed, steered and then released, and the steered "
        "thought replayed without any steering.",
    )
    yield from cosines(directions)
    yield from turned(run)
    yield from stable(run)
    yield from forced(run)


def in_short(margins: pd.DataFrame, explained: pd.DataFrame) -> Iterator[str]:
    """The figures that speak for and against it; what a run does not have is left out."""
    rows = explained[(explained.attack == "all") & (explained.metric == "attack_success")]

    def success(condition: str, part: str) -> str:
        found = rows[(rows.part == part) & (rows.condition.str.split("[").str[0] == condition)]
        return "–" if found.empty else f"{found.value.mean():.2f}"

    left, shift, update, thought = (partial(success, part=part) for part in ("models", "mean shift", "weights", "thought"))
    span = str(margins.span.iloc[-1])
    yield from [
        f"- `{span}`: {sentence(margins[margins.span == span])}",
        f"- Attack success, {left('unsteered')} unsteered. The mean shift added back, at the strength dev chose: "
        f"{shift('the whole mean shift')};",
        f"  as long as it was measured: {shift('the whole mean shift, strength 1')}; its part along the refusal direction alone:",
        f"  {shift('its part along the refusal direction')}; random directions as long: "
        f"{shift('the whole mean shift, random direction as long')}.",
        f"- The update of the output projections without what it writes along the refusal direction: "
        f"{update('update without the refusal direction')};",
        f"  without all of it: {update('update of all layers reverted')}. That part alone on the base: "
        f"{update('base with the update along the refusal direction')} (base: {left('base')}).",
        f"- Steered: {thought('steered')}; the same with the thought held fixed: {thought('thought fixed')}; the steered thought replayed",
        f"  without steering: {thought('thought replayed')} ({thought('unsteered')} unsteered, on the same prompts).",
    ]


def best(run: Run) -> pd.DataFrame:
    """The best vector on the prompts of these tests, from the study itself; no rows where it has not been told."""
    if not run.path("tables", "restoration.parquet").is_file():
        return pd.DataFrame()
    table = run.table("restoration")
    return table[table.condition == "steered"].assign(part="models", condition="the best vector", what="the best vector")


def along(margins: pd.DataFrame) -> Iterator[str]:
    """Margins and ranks, a table per moment, and a sentence for the layer whose refusal direction is clearest in the base."""
    yield from [
        "### Margins and ranks",
        "",
        "The same tokens (the reasoning model's) read in all three models, along the base's refusal direction (harmful − benign). One unit",
        "is what the base's two classes are apart on training prompts, zero the middle between them. `shift`: change of both class means,",
        "half their sum; `gap`: change of their distance; `share`: of the whole mean change of the hidden state that lies along the",
        "direction (chance: 1 / width); ranks: Spearman's correlation with the base's margins, over all prompts and among harmful ones.",
        "",
    ]
    for span, part in margins.groupby("span", sort=False):
        n, bad = int(part.n.iloc[0]), int(part.n_harmful.iloc[0])
        yield from [
            f"`{span}`, test: n={n} ({bad} harmful), {int(part.groups.iloc[0])} goals",
            "",
            "| layer | model | harmful: mean, sd | benign: mean, sd | AUROC | d′ | shift | gap | share | ranks, all | ranks, harmful |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for (layer, model), rows in part.groupby(["layer", "model"], sort=False):
            yield f"| {layer} | {model} | {' | '.join(margin_cells(rows.set_index('metric')))} |"
        yield from ["", sentence(part).replace("where", "Where", 1), ""]


def margin_cells(rows: pd.DataFrame) -> list[str]:
    def told(metric: str, digits: int = 2) -> str:
        if metric not in rows.index:
            return ""
        row = rows.loc[metric]
        return f"{row.value:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"

    classes = [f"{rows.loc[f'mean_{name}'].value:.2f}, {rows.loc[f'sd_{name}'].value:.2f}" for name in ("harmful", "benign")]
    return [
        *classes,
        told("auroc", 3),
        *(told(metric) for metric in ("dprime", "shift", "gap_change", "share_along", "rank_all", "rank_harmful")),
    ]


def sentence(part: pd.DataFrame) -> str:
    """What the clearest layer says."""
    base = part[(part.model == "base") & (part.metric == "dprime")]
    layer = int(base.loc[base.value.idxmax()].layer)
    row = part[(part.model == "reasoning") & (part.layer == layer)].set_index("metric").value
    before = part[(part.model == "base") & (part.layer == layer)].set_index("metric").value
    return (
        f"where the base tells the classes best apart (layer {layer}), tuning moves harmful prompts by {row.shift_harmful:+.2f} and benign "
        f"ones by {row.shift_benign:+.2f}: a shift of {row['shift']:+.2f} that both share, and {row.gap_change:+.2f} of the distance "
        f"between them. AUROC {before.auroc:.3f} before, {row.auroc:.3f} after; ranks among harmful prompts {row.rank_harmful:.2f}. "
        f"{row.share_along:.0%} of the mean change of the hidden state lies along this one direction."
    )


def conditions(explained: pd.DataFrame, part: str, heading: str, lede: str) -> Iterator[str]:
    """A table of conditions: the models left alone first, draws of a control in one row."""
    own = explained[(explained.part == part) & (explained.attack == "all")]
    left_alone = explained[(explained.part == "models") & (explained.attack == "all")] if part != "thought" else own[:0]
    rows = pd.concat([left_alone, own])
    rows = rows.assign(row=rows.condition.str.replace(r"\[\d+\]$", "", regex=True))
    sizes_of = {metric: sizes([int(n) for n in rows[rows.metric == metric].n]) for metric in ("refusal", "helpful", "task_accuracy")}
    yield from [
        heading,
        "",
        lede,
        "",
        f"{sizes_of['refusal']} harmful and {sizes_of['helpful']} benign test prompts and {sizes_of['task_accuracy']} tasks a condition.",
        "",
        f"| condition | {' | '.join(RATES.values())} | outputs changed |",
        f"|---|{'---|' * (len(RATES) + 1)}",
    ]
    for name, of_row in rows.groupby("row", sort=False):
        several = of_row.condition.nunique()
        cells = []
        for metric in (*RATES, "changed"):
            found = of_row[of_row.metric == metric]
            cells.append("" if found.empty else cell(found.iloc[0]) if several == 1 else mean_and_range(list(found.value)))
        yield f"| {name}{f', {several} draws: mean (range)' if several > 1 else ''} | {' | '.join(cells)} |"
    chosen = own[own.what.str.contains(" at ") & ~own.condition.str.contains("[", regex=False)].drop_duplicates("what")
    told = [f"- {row.condition}: {row.what}" for row in chosen.itertuples()]
    yield from ["", *(["Chosen on dev:", "", *told, ""] if told else [])]


def cosines(directions: pd.DataFrame) -> Iterator[str]:
    """The refusal directions of two models at the same site, by layer and moment."""
    same = directions[directions.site_a == directions.site_b]
    pairs = list(dict.fromkeys(zip(same.a, same.b, strict=True)))
    n, groups = int(same.n.max()), int(same.groups.max())
    yield from [
        "### Directions of the three models",
        "",
        "Cosine of the refusal directions (harmful − benign, training prompts) of two models at the same layer and moment, without the",
        "noise of their samples (probes/geometry.py), and in brackets what directions of shuffled labels share; at most",
        f"{n} prompts of {groups} goals. Two random directions: {same.chance.iloc[0]:.2f}. A dash: the direction is no longer than",
        "its noise. The models come from each other and read the same tokens, so directions that mean nothing are shared as well: a cosine",
        "near 1 says that the direction was kept, not that it is special.",
        "",
    ]
    layers = sorted(same.layer.unique())
    for a, b in pairs:
        part = same[(same.a == a) & (same.b == b)]
        yield from [f"| {a} and {b} | {' | '.join(f'layer {layer}' for layer in layers)} |", f"|---|{'---|' * len(layers)}"]
        for span, of_span in part.groupby("span", sort=False):
            by_layer = of_span.set_index("layer")
            cells = [
                "–" if pd.isna(by_layer.loc[layer].cosine) else f"{by_layer.loc[layer].cosine:.2f} ({by_layer.loc[layer].shuffled:.2f})"
                for layer in layers
            ]
            yield f"| `{span}` | {' | '.join(cells)} |"
        yield ""


def turned(run: Run) -> Iterator[str]:
    """Decisions found in short and long thoughts: beside the key, and steered; nothing where that was not asked of the run."""
    if not run.path("tables", "turning.parquet").is_file():
        return
    table, key = run.table("turning"), run.table("turning_key")
    readout = run.table("turning_readout")
    chosen = readout[readout["chosen"] & (readout["split"] == "test")].iloc[0]
    rates = table[table.attack == "all"]
    yield from [
        "### Decisions in thoughts of two lengths",
        "",
        "Short thoughts decide at one step, long ones at others. An anchor, fitted on train and dev thoughts of both lengths without the",
        f"world's key, reads {chosen['site']}: AUROC {chosen.auroc:.3f} [{chosen.low:.3f}, {chosen.high:.3f}] on test "
        f"(n={int(chosen.n)} ends of steps,",
        f"{int(chosen.n_decisions)} decisions), shuffled labels {chosen.control_auroc:.2f}, the number of the step alone "
        f"{chosen.number_auroc:.2f}, its last token alone {chosen.token_auroc:.2f}.",
        "Against the world's annotation, used only here:",
        "",
        "| split | thoughts | precision | n | recall | n |",
        "|---|---|---|---|---|---|",
    ]
    for (split, depth), part in key.groupby(["split", "depth"], sort=False):
        rows = part.set_index("metric")
        cells = [f"{r.value:.2f} [{r.low:.2f}, {r.high:.2f}] | {int(r.n)}" for r in (rows.loc["precision"], rows.loc["recall"])]
        yield f"| {split} | {depth} | {' | '.join(cells)} |"
    yield from [
        "",
        "The best setting of the study, at the step where it was chosen and at the decisions the anchor recognises as they are written",
        "(the vector read where it acts):",
        "",
        "| thoughts | condition | attack success | refusal | over-refusal | helpful | never ends | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (depth, condition), part in rates.groupby(["depth", "condition"], sort=False):
        rows = part.set_index("metric")
        cells = [cell(rows.loc[metric]) for metric in ("attack_success", "refusal", "over_refusal", "helpful", "truncated")]
        yield f"| {depth} | {condition} | {' | '.join(cells)} | {int(rows.loc['attack_success'].n)} |"
    yield ""


def stable(run: Run) -> Iterator[str]:
    """Whether other seeds are decided at the same moment; nothing where `thoughtlens decide` was not asked with --also."""
    if not run.path("tables", "decision_stability.parquet").is_file():
        return
    table = run.table("decision_stability")
    yield from [
        "### Where thoughts are decided, over seeds",
        "",
        f"The anchor that comes first on dev in {int(table.runs.iloc[0])} lineages, each ranked by itself, and Kendall's tau between",
        "the rankings of two.",
        "",
        "| ranked by | first most often | in runs | Kendall's tau, mean (lowest) | pairs |",
        "|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        tau = f"{row['tau']:.2f} ({row['tau_low']:.2f})"
        yield f"| {row['ranking']} | `{row['first']}` | {row['times']} of {row['runs']} | {tau} | {row['pairs']} |"
    yield ""


def forced(run: Run) -> Iterator[str]:
    """A row per number of words of the verdict that were written; nothing where that was not asked of the run."""
    if not run.path("tables", "forcing.parquet").is_file():
        return
    table = run.table("forcing")
    rates = table[table.attack == "all"]
    yield from [
        "### How much of a refusal has to stand in the thought",
        "",
        "The reasoning model's thoughts are cut at their first decision, the first words of the refusing verdict are written there, and",
        "the model goes on alone, unsteered. One steered token chooses the first of these words at most.",
        "",
        "| words written | attack success | refusal | over-refusal | helpful | never ends | n harmful | n benign |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for words, part in rates.groupby("words", sort=False):
        rows = part.set_index("metric")
        cells = [cell(rows.loc[metric]) for metric in ("attack_success", "refusal", "over_refusal", "helpful", "truncated")]
        yield f"| {words} | {' | '.join(cells)} | {int(rows.loc['refusal'].n)} | {int(rows.loc['helpful'].n)} |"
    yield ""
