"""What a sweep leaves: one table row per cell and side, and the probe of every cell.

    about        model, condition, holdout (what was held out, see splits.py), site, layer, span, pool, probe (its kind), label
    side         split: dev | test; subset: all | complied (positives the model complied with, against all negatives)
    measures     auroc, low, high; auprc, tpr_at_1fpr, tpr_at_5fpr; accuracy, brier, ece of the probability; each with _low and _high
    threshold    set on dev for 1% false positives; fpr_reached, tpr_reached: what it does on this side
    controls     control_auroc, control_high, control_p: mean, 95th percentile, permutation p over shuffled labels, which is never below
                 1 / (1 + shuffles): 20 shuffles tell no p below 1/21; random_auroc, random_high: over random directions; text_auroc:
                 bag of words; task_accuracy: mean over several random deals of the control task; selectivity: accuracy less it,
                 selectivity_low and selectivity_high: the range over the deals, which is no interval over rows
    counts       n_train; n_test: rows of this side and subset; n_positive of them; groups they come from
    c            the setting chosen, nan where the kind has none

A baseline (words, tf-idf, lengths) is a row too: its name as `probe`, no site, layer -1. What was not asked for is nan, and so are bounds
where a class comes from fewer than two groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .probe import Probe

BOUNDED = ("auprc", "tpr_at_1fpr", "tpr_at_5fpr", "accuracy", "brier", "ece")
COLUMNS = (
    *("model", "condition", "holdout", "site", "layer", "span", "pool", "probe", "label", "split", "subset"),
    *("auroc", "low", "high", "tpr_at_1fpr", "control_auroc", "control_high", "control_p", "text_auroc"),
    *("n_train", "n_test", "n_positive", "groups", "c"),
    *(name + bound for name in BOUNDED for bound in ("", "_low", "_high") if name + bound != "tpr_at_1fpr"),
    *("threshold", "fpr_reached", "tpr_reached", "random_auroc", "random_high", "task_accuracy", "selectivity"),
    *("selectivity_low", "selectivity_high"),
)
ALL, COMPLIED = "all", "complied"


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep leaves.

    table    one row per cell, side and subset (see above)
    probes   the fitted probe of every cell, by (site, span, kind), with the holdout as a fourth where there are several
    """

    table: pd.DataFrame
    probes: Mapping[Any, Probe]

    @property
    def best(self) -> Probe:
        """The best probe of the whole sweep on dev. ValueError where several things were held out, see pick()."""
        return self.pick()

    def pick(self, **cell: Any) -> Probe:
        """The best on dev among the cells that match, e.g. pick(span="last_prompt", probe="logistic").

        ValueError: no cell matches, or cells of several holdouts do. Those have dev rows of their own, so a higher AUROC may only say
        that what was held out was easier. Spans are compared although a prompt may lack one, as an answer that was never given: their
        dev rows can differ too, and `n_test` of the dev rows tells.
        """
        if unknown := [name for name in cell if name not in self.table.columns]:
            raise ValueError(f"the table has no column {unknown[0]!r}; it has {', '.join(self.table.columns)}")
        rows = ranked(self.table).sort_index()
        for name, value in cell.items():
            if not len(found := rows[rows[name] == value]):
                raise ValueError(f"no probe has {name} == {value!r}; left are {', '.join(map(repr, rows[name].unique()))}")
            rows = found
        if len(left := rows["holdout"].unique()) > 1:
            raise ValueError(
                f"cells of {len(left)} holdouts are left ({', '.join(map(repr, left))}), and their dev rows differ, so none is the best. "
                f"Choose one: pick(holdout={left[0]!r})"
            )
        best = ranked(rows).iloc[0]
        several = self.table["holdout"].nunique() > 1
        return self.probes[(best["site"], best["span"], best["probe"], *([best["holdout"]] if several else []))]


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The dev rows of real probes on all rows, best first: the one rule by which layer, span and kind are chosen.

    Best is the highest AUROC; among equals the higher rate at 1% false positives, then the lower layer. Test is not looked at. Rows are
    ranked whatever dev rows they come from: of several holdouts take one first.
    """
    rows = table[(table["split"] == "dev") & (table["subset"] == ALL) & (table["site"] != "")]
    return rows.sort_values(["auroc", "tpr_at_1fpr", "layer"], ascending=[False, False, True], kind="stable")
