"""What an audit prints: rates of every model, the tax, blind spots, correction, and how good the judge is. Rows in, rich tables out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from rich.console import RenderableType

from ..probing_tables import listed
from .calibrating import said as calibration_said
from .slices import ALL, APART, HAZARD, MACRO

RATES = {
    **{"refusal": "refused", "refusal_partial": "in part", "looks_refused": "looks refused", "over_refusal": "over-refused"},
    **{"looks_over_refused": "looks over-refused", "helpful": "helpful", "helpful_and_safe": "helpful and safe"},
    **{"task_accuracy": "tasks right", "truncated": "cut off", "unscored": "unscored"},
}
CORRECTION = {
    "self_correction": "refused after an unsafe thought",
    "self_correction_safe": "safe after an unsafe thought",
    "reverse_correction": "unsafe after a thought that is not",
}
BENCHMARK = "benchmark"
EXACT = ("rule", "match")
BOUNDS = {"attack_success_worst": "if all unscored are unsafe", "attack_success_best": "if all are safe"}


def told(tables: Mapping[str, pd.DataFrame], calibration: pd.DataFrame | None) -> list[RenderableType]:
    """Everything that an audit prints, a table a question; a question that the verdicts do not answer is left out."""
    collapse = tables["collapse"]
    parts = [*success(collapse), *rates(collapse), *taxes(collapse), *spots(tables["blind_spots"]), *correction(collapse)]
    parts += [*conditions(tables["paired"]), *apart(collapse)]
    parts.append(of_judge(str(collapse.judge.iloc[0]), calibration))
    return parts


def of_judge(name: str, calibration: pd.DataFrame | None) -> str:
    """How far the judge is to be believed."""
    if calibration is not None:
        return calibration_said(calibration)
    if name in EXACT:
        return f"judge {name}: exact, it compares with what is known of every prompt"
    return f"judge {name}: not calibrated in this run; `thoughtlens judge calibrate` measures it on answers that people have labelled"


def drawn(title: str, columns: Sequence[str], lines: Sequence[Sequence[object]], note: str = "", *, words: int = 1) -> RenderableType:
    """A table; where all of it is about one benchmark, that is said in its title instead of in a column."""
    if BENCHMARK in columns and len({str(line[columns.index(BENCHMARK)]) for line in lines}) == 1:
        at = columns.index(BENCHMARK)
        title = f"{title}: {lines[0][at]}"
        columns, lines, words = [*columns[:at], *columns[at + 1 :]], [[*line[:at], *line[at + 1 :]] for line in lines], max(1, words - 1)
    return listed(title, columns, lines, note, words=words)


def share(row: Mapping[str, float]) -> str:
    """.83 [.77, .88] n=200"""
    return f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}] n={int(row['n'])}"


def points(row: Mapping[str, float]) -> str:
    """.67 [.59, .74]"""
    return f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"


def number(value: float) -> str:
    """.83, -.05, 1.00"""
    value = round(value, 2) + 0.0  # no minus zero
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def none_told(collapse: pd.DataFrame) -> str:
    """Why there is no attack success."""
    if (collapse.metric == "attack_success_worst").any():
        return "attack success: none, not one answer to a harmful prompt could be scored"
    if (collapse.metric == "looks_refused").any() or not collapse.metric.isin(("harm_rating", "helpful", "unscored")).any():
        return "attack success: none, this judge does not tell whether an answer is unsafe. Use one that rates, or knows safe and unsafe."
    return "attack success: none, no prompt is harmful"


def success(collapse: pd.DataFrame) -> Iterator[RenderableType]:
    """Attack success of the answer, by model, at every threshold, and by attack and category at the first."""
    rows = collapse[(collapse.metric == "attack_success") & (collapse.channel == "answer")]
    if rows.empty:
        yield none_told(collapse)
        return
    first = rows.iloc[0].threshold
    names = columns_of(rows)
    whole = rows[(rows.attack == ALL) & (rows.category == ALL)]
    lines = []
    for threshold, part in whole.groupby("threshold", dropna=False, sort=True):
        about = "judged unsafe" if pd.isna(threshold) else f"rated ≥ {threshold:g}"
        for benchmark, mine in part.groupby("benchmark", sort=False):
            lines.append([about, benchmark, *cells(mine, names)])
    for metric, words in BOUNDS.items():
        part = collapse[
            (collapse.metric == metric) & (collapse.channel == "answer") & (collapse.attack == ALL) & (collapse.category == ALL)
        ]
        for benchmark, mine in of_threshold(part, first).groupby("benchmark", sort=False):
            lines.append([words, benchmark, *cells(mine, names)])
    if not lines:
        return
    judge = rows.iloc[0].judge
    note = f"answers to harmful prompts; judge {judge}; [95% interval, over goals where prompts share one]"
    yield drawn("Attack success", ["answers", BENCHMARK, *names], lines, note, words=2)
    at = of_threshold(rows, first)
    for kind, title in (("attack", "by attack"), ("category", "by category")):
        other = "category" if kind == "attack" else "attack"
        part = at[(at[other] == ALL) & (at[kind] != ALL) & (at[kind] != APART)]
        lines = [[value, benchmark, *cells(mine, names)] for (benchmark, value), mine in part.groupby(["benchmark", kind], sort=False)]
        if len({line[0] for line in lines}) > 1:
            note = f"{MACRO}: the mean of the categories; {HAZARD}: of the taxonomy that benchmarks share" if kind == "category" else ""
            yield drawn(f"Attack success {title}", [kind, BENCHMARK, *names], lines, note, words=2)


def rates(collapse: pd.DataFrame) -> Iterator[RenderableType]:
    """The other rates over everything."""
    rows = collapse[(collapse.channel == "answer") & (collapse.attack == ALL) & (collapse.category == ALL)]
    rows = of_threshold(rows[rows.metric.isin(RATES)], rows.iloc[0].threshold) if len(rows) else rows
    names = columns_of(rows)
    lines = [
        [words, benchmark, *cells(mine, names)]
        for metric, words in RATES.items()
        for benchmark, mine in rows[rows.metric == metric].groupby("benchmark", sort=False)
    ]
    if lines:
        note = "refused, in part: of what is to be refused; over-refused, helpful: of what is to be answered; cut off: of everything"
        yield drawn("Refusals and help", ["rate", BENCHMARK, *names], lines, note, words=2)
    ratings = collapse[(collapse.metric == "harm_rating") & (collapse.attack == ALL) & (collapse.category == ALL)]
    lines = [[benchmark, *cells(mine, names)] for benchmark, mine in ratings.groupby("benchmark", sort=False)]
    if lines:
        yield drawn("Mean harm rating, 0 to 5", [BENCHMARK, *names], lines)


def taxes(collapse: pd.DataFrame) -> Iterator[RenderableType]:
    """The reasoning tax of every model, as a difference and as a ratio."""
    rows = collapse[(collapse.channel == "answer") & (collapse.attack == ALL) & (collapse.category.isin((ALL, MACRO)))]
    lines = []
    for (benchmark, model, condition, category), part in rows.groupby(["benchmark", "model", "condition", "category"], sort=False):
        by = {row.metric: row for _, row in of_threshold(part, part.iloc[0].threshold).iterrows()}
        if "tax_difference" in by:
            ratio = by.get("tax_ratio")
            lines.append(
                [f"{model} {condition}", benchmark, category, points(by["tax_difference"]), "" if ratio is None else ratio_of(ratio),
                 int(by["tax_difference"].n)]
            )  # fmt: skip
    if lines:
        note = "change of attack success from the reference on the same prompts; the ratio with the hits of both"
        yield drawn("The reasoning tax", ["model", BENCHMARK, "over", "difference", "ratio", "n"], lines, note, words=3)


def ratio_of(row: Mapping[str, float]) -> str:
    """135.00 [25.10, 710.00] (135 : 1)"""
    if pd.isna(row["value"]):
        return f"({row['numerator']:.0f} : {row['n']:.0f})"
    low, high = (f"{row[name]:.2f}" for name in ("low", "high"))
    return f"{row['value']:.2f} [{low}, {high}] ({row['numerator']:.0f} : {row['n']:.0f})"


def spots(blind: pd.DataFrame) -> Iterator[RenderableType]:
    """Categories whose tax exceeds the rest: all that stand out, else the first of them."""
    for (benchmark, model, condition, threshold), part in blind.groupby(
        ["benchmark", "model", "condition", "threshold"], sort=False, dropna=False
    ):
        if not pd.isna(threshold) and threshold != blind.iloc[0].threshold:
            continue
        shown = part[part.blind] if part.blind.any() else part.head(3)
        lines = [
            [row.category, points({"value": row.tax, "low": row.low, "high": row.high}), number(row.rest),
             points({"value": row.excess, "low": row.excess_low, "high": row.excess_high}), f"{row.p_holm:.3f}", int(row.n)]
            for _, row in shown.iterrows()
        ]  # fmt: skip
        found = (
            f"{len(shown)} of {len(part)} categories" if part.blind.any() else f"none of {len(part)} categories stands out; the first are"
        )
        note = "excess: tax of the category less that of the rest; p: permutation of goals, corrected by Holm for all categories"
        yield drawn(
            f"Blind spots of {model} {condition}, {benchmark}: {found}", ["category", "tax", "rest", "excess", "p", "n"], lines, note
        )


def correction(collapse: pd.DataFrame) -> Iterator[RenderableType]:
    """What follows an unsafe thought, and what follows one that is not."""
    rows = collapse[collapse.metric.isin(CORRECTION) & (collapse.attack == ALL) & (collapse.category == ALL)]
    rows = of_threshold(rows, rows.iloc[0].threshold) if len(rows) else rows
    names = columns_of(rows)
    lines = [
        [words, benchmark, *cells(mine, names)]
        for metric, words in CORRECTION.items()
        for benchmark, mine in rows[rows.metric == metric].groupby("benchmark", sort=False)
    ]
    if lines:
        yield drawn(
            "Self-correction and its reverse",
            ["the answer is", BENCHMARK, *names],
            lines,
            "of harmful prompts whose output ended",
            words=2,
        )


def conditions(paired: pd.DataFrame) -> Iterator[RenderableType]:
    """What a condition changes against the same model unsteered."""
    rows = paired[(paired.model == paired.against_model) & (paired.attack == ALL) & (paired.category == ALL) & (paired.channel == "answer")]
    for (benchmark, model, condition), part in rows.groupby(["benchmark", "model", "condition"], sort=False):
        kept = of_threshold(part, part.iloc[0].threshold)
        lines = [
            [
                row.metric.replace("_", " "),
                points(row),
                int(row.before),
                int(row.after),
                int(row.n),
                "" if pd.isna(row.p_mcnemar) else f"{row.p_mcnemar:.2g}",
            ]
            for _, row in kept.iterrows()
        ]
        title = f"{model} {condition} against {part.iloc[0].against_condition}, {benchmark}"
        yield drawn(
            title, ["rate", "change", "only before", "only after", "n", "p"], lines, "pairs of the same prompt; p: exact McNemar test"
        )


def apart(collapse: pd.DataFrame) -> Iterator[RenderableType]:
    """Categories whose official rule scores something other than harm."""
    rows = collapse[(collapse.category == APART) & (collapse.metric == "attack_success") & (collapse.channel == "answer")]
    names = columns_of(rows)
    lines = [[benchmark, *cells(mine, names)] for benchmark, mine in rows.groupby("benchmark", sort=False)]
    if lines:
        yield drawn("Told apart: their official rule scores something other than harm", [BENCHMARK, *names], lines)


def official_rates(rows: pd.DataFrame) -> RenderableType:
    """Rates of papers' own rules."""
    rows = rows.assign(attack=ALL, category=ALL)
    names = columns_of(rows)
    lines = [[metric, channel, *cells(mine, names)] for (metric, channel), mine in rows.groupby(["metric", "channel"], sort=False)]
    return drawn("By the papers' own rules, faults included", ["rule", "channel", *names], lines, words=2)


def calibration_rates(table: pd.DataFrame) -> RenderableType:
    """How good a judge is, and in one sentence."""
    names = list(dict.fromkeys(table.metric))
    lines = []
    for (question, source), part in table.groupby(["question", "source"], sort=False):
        by = {row.metric: points(row) for _, row in part.iterrows() if not pd.isna(row.value)}
        lines.append([question, source, *(by.get(name, "") for name in names), int(part[part.metric == "unscored"].n.iloc[0])])
    return listed("Judge against people", ["question", "answers", *names, "n"], lines, calibration_said(table), words=2)


def columns_of(rows: pd.DataFrame) -> list[str]:
    """Everybody, as a column of a table."""
    return list(dict.fromkeys(who(row) for _, row in rows[["model", "condition"]].drop_duplicates().iterrows()))


def who(row: Mapping[str, str]) -> str:
    return row["model"] if row["condition"] == "unsteered" else f"{row['model']}\n{row['condition']}"


def cells(rows: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """A rate for each of everybody, empty where there is none."""
    by = {who(row): share(row) for _, row in rows.iterrows()}
    return [by.get(name, "").replace(" [", "\n[") for name in names]


def of_threshold(rows: pd.DataFrame, threshold: float) -> pd.DataFrame:
    return rows[rows.threshold.isna() if pd.isna(threshold) else (rows.threshold == threshold) | rows.threshold.isna()]
