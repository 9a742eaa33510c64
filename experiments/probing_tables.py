"""What `thoughtlens probe` prints: one table a question, in plain words, every figure with its interval and n.

Rows of the tables in, rich tables and sentences out; nothing is computed here but which row is shown. Cells chosen (layer, kind of probe)
are those of dev, figures are those of test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..hooks.sites import parse_site
from ..probes.baselines import WORDS
from ..probes.sweep import ALL, COMPLIED, ranked
from .labels import LENGTHS, TEXTS

LAST_PROMPT = "last_prompt"
WHOLE = ("thought", "thought_last", "thought@1", "answer", "answer_first")  # moments at which the whole thought is known
CELL = ("holdout", "site", "span", "probe")
WIDE = 6  # layers beside each other
UNPREFIXED = ("auroc", "mean", "tpr", "drop", "difference", "cosine")  # their bounds are the columns low and high
READ = {
    **{"auprc": "AUPRC", "tpr_at_1fpr": "TPR at 1% FPR", "tpr_at_5fpr": "TPR at 5% FPR", "accuracy": "accuracy", "brier": "Brier"},
    "ece": "calibration error",
}
NAN = float("nan")
ALPHA = 0.05


def value(row: Mapping[str, float], name: str = "auroc", digits: int = 3) -> str:
    """0.977 [0.965, 0.986]; without interval where there is none, an empty text where there is no figure."""
    low, high = ("low", "high") if name in UNPREFIXED else (f"{name}_low", f"{name}_high")
    if pd.isna(row[name]):
        return ""
    interval = "" if pd.isna(row.get(low, NAN)) else f" [{row[low]:.{digits}f}, {row[high]:.{digits}f}]"
    return f"{row[name]:.{digits}f}{interval}"


def short(row: Mapping[str, float], name: str = "auroc") -> str:
    """.98 [.97, .99]"""
    return value(row, name, 2).replace("0.", ".")


def stacked(row: Mapping[str, float], name: str = "auroc") -> str:
    """The interval below the figure, for tables with many columns."""
    return short(row, name).replace(" [", "\n[")


def listed(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "", *, words: int = 1) -> RenderableType:
    """A title, a table with `words` columns of text to the left and figures to the right, and a note."""
    table = Table(box=SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i >= words else "left", no_wrap=i < words)
    for row in rows:
        table.add_row(*map(str, row))
    return Group(Text(title, style="bold"), table, *([Text(note, style="italic"), Text()] if note else []))


def best_rows(table: pd.DataFrame, *by: str) -> list[tuple[pd.Series, pd.DataFrame]]:
    """For each combination of `by`, in the order of the table: the test row of the cell that dev likes best, and all rows it is among."""
    found = []
    for _, part in table.groupby(list(by), sort=False):
        chosen = ranked(part)
        if len(chosen):
            found.append((told(part, chosen.iloc[0]), part))
    return found


def told(table: pd.DataFrame, chosen: pd.Series, subset: str = ALL) -> pd.Series:
    """The test row of a chosen cell. KeyError where there is none."""
    rows = table[(table.split == "test") & (table.subset == subset)]
    for column in CELL:
        rows = rows[rows[column] == chosen[column]]
    if rows.empty:
        raise KeyError(f"no test row, subset {subset!r}, of {', '.join(str(chosen[column]) for column in CELL)}")
    return rows.iloc[0]


def baselines(part: pd.DataFrame) -> pd.DataFrame:
    """The test rows of the baselines, by name."""
    return part[(part.split == "test") & (part.subset == ALL) & (part.site == "")].set_index("probe")


def detection(table: pd.DataFrame) -> Iterator[RenderableType]:
    """Every layer and moment; the best cell of each moment, its controls, and the prompts the writer complied with."""
    best = best_rows(table, "model", "span")
    yield from layers(table)
    for model in table.model.unique():
        mine = [(row, part) for row, part in best if row.model == model]
        yield measures(model, mine)
        yield beyond_words(model, mine)
    yield complied_only(best)


def layers(table: pd.DataFrame) -> Iterator[RenderableType]:
    """AUROC on test of every layer and moment for one kind of probe, a table for each model and a few layers at a time."""
    rows = table[(table.split == "test") & (table.subset == ALL) & (table.site != "")]
    kind = "logistic" if "logistic" in set(rows.probe) else rows.probe.iloc[0]
    rows = rows[rows.probe == kind].assign(name=[parse_site(site)[0] for site in rows[rows.probe == kind].site])
    for (model, name), part in rows.groupby(["model", "name"], sort=False):
        numbers = sorted(part.layer.unique())
        for first in range(0, len(numbers), WIDE):
            some, lines = numbers[first : first + WIDE], []
            for span, of_span in part.groupby("span", sort=False):
                cells = of_span.set_index("layer")
                lines.append([span, *(short(cells.loc[layer]) if layer in cells.index else "" for layer in some), of_span.n_test.iloc[0]])
            title = f"{model}: AUROC on test of the {kind} probe at {name}, by moment and layer"
            yield listed(title, ["moment", *map(str, some), "n"], lines)


def measures(model: str, best: Sequence[tuple[pd.Series, pd.DataFrame]]) -> RenderableType:
    """What the best cell of every moment is worth."""
    lines = [
        [row.span, f"{row.site}\n{row.probe}", *(stacked(row, name) for name in ("auroc", *READ))]
        + [f"{row.fpr_reached:.3f}\n{row.tpr_reached:.3f}", f"{row.n_test}\n({row.n_positive})"]
        for row, _ in best
    ]
    return listed(
        f"{model}: the best layer and kind of each moment (chosen on dev), on test",
        ["moment", "probe", "AUROC", *READ.values(), "FPR and TPR at dev's 1%", "n\n(positive)"],
        lines,
        "95% intervals from resampling goals. TPR at 1% FPR is read off the test curve, the last but one column uses dev's threshold",
        words=2,
    )


def beyond_words(model: str, best: Sequence[tuple[pd.Series, pd.DataFrame]]) -> RenderableType:
    """The same cells beside their controls, and whether they read more than words."""
    lines = []
    for row, part in best:
        plain = baselines(part)
        beside = [stacked(plain.loc[name]) if name in plain.index else "" for name in (WORDS, *TEXTS, *LENGTHS)]
        beside.append(f"{row.control_auroc:.2f} ({row.control_high:.2f})\np={row.control_p:.2f}")
        beside.append(f"{row.random_auroc:.2f}\n({row.random_high:.2f})")
        lines.append([row.span, stacked(row), *beside, stacked(row, "selectivity"), verdict(row, plain), row.n_test])
    return listed(
        f"{model}: is it more than the words? AUROC on test",
        ["moment", "probe", "words so far", "prompt", "whole thought", "prompt length", "thought length"]
        + ["shuffled labels (95%)", "random directions (95%)", "selectivity", "more than words", "n"],
        lines,
        f"yes: the probe's interval lies above those of all words and lengths known at that moment, and shuffled labels have p <= {ALPHA}",
    )


def verdict(row: pd.Series, plain: pd.DataFrame) -> str:
    """yes | not shown | no words, for a probe beside the baselines (by name) that are known when its token is read.

    A baseline that reads backwards (AUROC below .5) tells as much as one that reads forwards; one whose interval could not be told counts
    as telling everything.
    """
    known = [name for name in plain.index if row.span in WHOLE or name not in ("tfidf_thought", "thought_length")]
    read = {LAST_PROMPT: "tfidf_prompt", **dict.fromkeys(WHOLE, "tfidf_thought")}.get(row.span, WORDS)
    if not {WORDS, read} & set(known):
        return "no words"
    words = plain.loc[known].assign(backwards=1 - plain["low"])[["high", "backwards"]].fillna(1.0).max(axis=None)
    return "yes" if row.low > words and row.control_p <= ALPHA else "not shown"


def complied_only(best: Sequence[tuple[pd.Series, pd.DataFrame]]) -> RenderableType:
    """The label readable in prompts the writer complied with."""
    lines = []
    for row, part in best:
        if (part.subset == COMPLIED).any():
            only = told(part, row, COMPLIED)
            reads = [value(row), value(only), value(only, "tpr_at_1fpr", 2)]
            lines.append([row.model, row.span, f"{row.site} {row.probe}", *reads, sizes(only)])
    if not lines:
        return "harmful prompts the writer complied with: left out, which needs the label harmful and verdicts on the writer's answers"
    return listed(
        "only the harmful prompts the writer complied with, against all benign ones",
        ["model", "moment", "probe", "AUROC, all harmful", "AUROC, complied with", "TPR at 1% FPR", "n (complied with)"],
        lines,
        words=3,
    )


def held_out(table: pd.DataFrame) -> Iterator[RenderableType]:
    """A line for every value left out, the layer chosen on dev rows that have not seen it either."""
    for span, of_span in table.groupby("span", sort=False):
        lines = []
        for row, part in best_rows(of_span, "holdout"):
            plain = baselines(part)
            beside = [short(plain.loc[name]) if name in plain.index else "" for name in TEXTS]
            beside.append(f"{row.control_auroc:.2f} ({row.control_high:.2f})")
            lines.append([row.holdout, row.model, row.site, short(row), short(row, "tpr_at_1fpr"), *beside, row.n_train, sizes(row)])
        yield listed(
            f"AUROC on what was never trained on, at {span}",
            ["held out", "read in", "site", "AUROC", "TPR at 1% FPR", "prompt", "whole thought", "shuffled labels (95%)", "n trained on"]
            + ["n (positive)"],
            lines,
            words=3,
        )


def sizes(row: pd.Series) -> str:
    return f"{row.n_test} ({row.n_positive})"


PLURAL = {"model": "models", "attack": "attacks", "category": "categories", "span": "moments"}


def transfers(table: pd.DataFrame) -> Iterator[RenderableType]:
    """A matrix for each thing probes are carried over, each moment and each model."""
    for along, part in table.groupby("along", sort=False):
        fixed = [name for name in ("model", "span") if name != along]
        for of, matrix in part.groupby(fixed, sort=False):
            ends = list(dict.fromkeys(matrix.source))
            cells = matrix.set_index(["source", "target"])
            told = short if len(ends) <= WIDE else stacked
            lines = [[source, *(told(cells.loc[source, target]) for target in ends)] for source in ends]
            sizes = ["n", *(cells.loc[ends[0], target].n_test for target in ends)]
            where = ", ".join([*map(str, of), matrix.site.iloc[0]])
            title = f"transfer over {PLURAL.get(along, along)}, {where}: AUROC, fitted on the row, read on the column"
            yield listed(title, ["fitted on", *ends], [*lines, sizes])


def geometries(table: pd.DataFrame) -> Iterator[RenderableType]:
    """Cosines of checkpoints at every layer; layers of one checkpoint beside its last."""
    for span, part in table.groupby("span", sort=False):
        across = part[(part.a != part.b) & (part.site_a == part.site_b)]
        lines = [[f"{row.a}, {row.b}", row.site_a, *_cosine(row)] for _, row in across.iterrows()]
        within = part[part.a == part.b]
        last = within.groupby("a", sort=False).layer_b.transform("max")
        lines += [[row.a, f"{row.site_a}, {row.site_b}", *_cosine(row)] for _, row in within[within.layer_b == last].iterrows()]
        yield listed(
            f"geometry at {span}: cosine of the mean-difference directions (training rows), sampling noise taken off",
            ["models", "sites", "cosine", "as fitted", "shuffled labels", "random |cosine|", "n (groups)"],
            lines,
            words=2,
        )


def _cosine(row: pd.Series) -> list[object]:
    return [value(row, "cosine", 2), f"{row.raw:.2f}", f"{row.shuffled:.2f}", f"{row.chance:.3f}", f"{row.n} ({row.groups})"]


def angles(table: pd.DataFrame) -> Iterator[RenderableType]:
    lines = [
        [f"{row.a}, {row.b}", row.span, f"{row.angle:.0f}", f"{row.halves:.0f} [{row.low:.0f}, {row.high:.0f}]", f"{row.chance:.0f}"]
        + [f"{row.n} ({row.groups})"]
        for _, row in table[table.number == 1].iterrows()
    ]
    yield listed(
        "the smallest principal angle, in degrees, between what the directions of all layers span",
        ["models", "moment", "from all rows", "from halves", "random", "n (groups)"],
        lines,
        "a model beside itself shows what sampling alone does",
        words=2,
    )


def samples(table: pd.DataFrame) -> Iterator[RenderableType]:
    for (span, site, kind), part in table.groupby(["span", "site", "probe"], sort=False):
        lines = [[row.groups, f"{row.rows:.0f}", value(row), row.repeats, row.n_test] for _, row in part.iterrows()]
        yield listed(f"how many goals it takes: {span}, {site}, {kind}", ["goals trained on", "rows", "AUROC", "draws", "n"], lines)


def categories(table: pd.DataFrame) -> Iterator[RenderableType]:
    """A line for every layer and moment."""
    test = table[table.split == "test"]
    lines = [
        [row.span, row.site, value(row), f"{row.control_auroc:.2f} ({row.control_high:.2f}) {row.control_p:.2f}", value(row, "accuracy", 2)]
        + [f"{row.majority:.2f}", row.n_test]
        for _, row in test.iterrows()
    ]
    title = f"{test.model.iloc[0]}: which of {test.categories.iloc[0]} categories a harmful prompt is about (multinomial probe)"
    yield listed(
        title,
        ["moment", "site", "AUROC, each against the rest", "shuffled categories (95%) p", "accuracy", "the commonest", "n"],
        lines,
        words=2,
    )


def projection(table: pd.DataFrame) -> Iterator[RenderableType]:
    """How much there is to be drawn."""
    sizes = f"{table.prompt_id.nunique()} {table.split.iloc[0]} prompts in {', '.join(table.model.unique())}"
    yield f"{sizes}, at {table.span.nunique()} moments and {table.layer.nunique()} layers: `thoughtlens view` draws them"
