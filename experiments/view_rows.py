"""The rows the app asks for, found by viz/app/source.py and by pandas, which reads the columns it needs of the whole table.

Every query takes a number and looks for another value with it, so that nothing is answered from what was answered before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..viz.app import source as rows
from ..viz.app.source import Source
from ..viz.app.state import State
from ..viz.made_run import NOUNS, VERBS

KEYS = ["prompt_id", "model", "condition"]
TEXTS = ("text", "goal", "thought", "answer")
FACETS = {"answers": ("model", "condition", "verdict"), "prompts": ("benchmark", "attack", "category"), "readouts": ("layer",)}
LOOKED_AT = 40  # outputs whose tokens are looked up
PAGE = 50


@dataclass(frozen=True, eq=False)
class Values:
    """A run, and what there is to ask for in it: filters, outputs that were read, places that were projected."""

    run: Path
    source: Source
    choices: dict[str, list[str]]
    outputs: list[dict[str, str]]
    places: list[tuple[str, str, int]]


@dataclass(frozen=True)
class Query:
    """The same rows found two ways, as something that can be compared."""

    name: str
    ours: Callable[[Values, int], object]
    pandas: Callable[[Values, int], object]


def values_of(run: Path) -> Values:
    """TableProblem where a table that is asked is missing."""
    source = Source.open(run, threads=1)
    rows.readable(source, "")
    outputs = _read(run, "readouts", *KEYS, "layer").drop_duplicates().head(4000)
    chosen = outputs.iloc[np.linspace(0, len(outputs) - 1, min(LOOKED_AT, len(outputs))).astype(int)]
    found = [{str(name): value for name, value in row.items()} for row in chosen.to_dict("records")]
    return Values(run, source, rows.facets(source), found, list(rows.places(source)))


def _read(run: Path, name: str, *columns: str) -> pd.DataFrame:
    return pd.read_parquet(run / "tables" / f"{name}.parquet", columns=list(columns))


def _choices(values: Values, number: int) -> list[str]:
    return rows.facets(Source.open(values.run, threads=1))["category"]


def _choices_by_pandas(values: Values, number: int) -> list[str]:
    found = {name: _read(values.run, table, name).drop_duplicates() for table, names in FACETS.items() for name in names}
    _read(values.run, "projection", "method", "span", "layer").drop_duplicates()
    return sorted(found["category"]["category"])


def _filtered(values: Values, number: int) -> State:
    categories, attacks = values.choices["category"], values.choices["attack"]
    return State(category=categories[number % len(categories)], attack=attacks[number // len(categories) % len(attacks)])


def _searched(values: Values, number: int) -> State:
    return State(search=words(number).upper())


def words(number: int) -> str:
    """Two words that may stand in a made prompt, others for every number below 256."""
    return f"{VERBS[number % len(VERBS)]} the {NOUNS[(5 * (number // len(VERBS)) + 3 * number) % len(NOUNS)]}"


def _page(state: Callable[[Values, int], State]) -> Callable[[Values, int], object]:
    def found(values: Values, number: int) -> object:
        page, of = rows.matching(values.source, state(values, number), limit=PAGE)
        return of, page["prompt_id"].tolist(), page["answer"].tolist()

    return found


def _page_by_pandas(state: Callable[[Values, int], State]) -> Callable[[Values, int], object]:
    def found(values: Values, number: int) -> object:
        asked = state(values, number)
        prompts = _read(values.run, "prompts", "prompt_id", "category", "attack", "text", "goal")
        both = _read(values.run, "answers", *KEYS, "thought", "answer").merge(prompts, on="prompt_id")
        kept = both[both["category"] == asked.category] if asked.category else both
        kept = kept[kept["attack"] == asked.attack] if asked.attack else kept
        if asked.search:
            kept = kept[np.logical_or.reduce([kept[name].str.contains(asked.search, case=False, regex=False) for name in TEXTS])]
        page = kept.sort_values(KEYS).head(PAGE)
        return len(kept), page["prompt_id"].tolist(), page["answer"].tolist()

    return found


def _tokens(values: Values, number: int) -> list[float]:
    one = values.outputs[number % len(values.outputs)]
    found = rows.tokens(values.source, one["prompt_id"], one["model"], one["condition"], int(one["layer"]))
    return [float(score) for score in found["score"]]


def _tokens_by_pandas(values: Values, number: int) -> list[float]:
    found = _read(values.run, "readouts", *KEYS, "layer", *rows.TOKENS)
    for name, value in values.outputs[number % len(values.outputs)].items():
        found = found[found[name] == value]
    return [float(score) for score in found.sort_values("position")["score"]]


def _points(values: Values, number: int) -> tuple[int, int]:
    method, span, layer = values.places[number * 7 % len(values.places)]
    found = rows.points(values.source, State(span=span, layer=layer, method="lda" if method == "lda" else "pca"))
    return int(found.attrs["of"]), int((found["verdict"] == "unsafe").sum())


def _points_by_pandas(values: Values, number: int) -> tuple[int, int]:
    method, span, layer = values.places[number * 7 % len(values.places)]
    cell = _read(values.run, "projection", *KEYS, "method", "span", "layer", "x", "y")
    cell = cell[(cell["method"] == method) & (cell["span"] == span) & (cell["layer"] == layer)]
    prompts = _read(values.run, "prompts", "prompt_id", "text", "goal", "category", "attack", "benchmark", "harmful")
    found = cell.merge(prompts, on="prompt_id").merge(_read(values.run, "answers", *KEYS, "verdict"), on=KEYS, how="left")
    return len(found), int((found["verdict"] == "unsafe").sum())


def _rates(values: Values, number: int) -> list[tuple[str, ...]]:
    found = rows.rates(values.source, State(attack=_attack(values, number)), ("category",))
    found = found[found["category"] != "all"]
    return sorted(map(_as_text, found[["model", "condition", "category", "numerator", "n"]].to_numpy().tolist()))


def _attack(values: Values, number: int) -> str:
    return values.choices["attack"][number % len(values.choices["attack"])]


def _rates_by_pandas(values: Values, number: int) -> list[tuple[str, ...]]:
    prompts = _read(values.run, "prompts", "prompt_id", "category", "attack", "harmful", "split")
    prompts = prompts[prompts["attack"] == _attack(values, number)]
    both = _read(values.run, "answers", *KEYS, "verdict").merge(prompts, on="prompt_id")
    both = both[both["split"] == "test"] if (both["split"] == "test").any() else both
    asked = both[both["harmful"].fillna(False).astype(bool) & ~both["verdict"].isin(("unscored", "unjudged"))]
    hits = asked.assign(hit=asked["verdict"] == "unsafe").groupby(["model", "condition", "category"])["hit"]
    return sorted(map(_as_text, hits.agg(["sum", "size"]).reset_index().to_numpy().tolist()))


def _as_text(row: list[object]) -> tuple[str, ...]:
    return tuple(map(str, row))


QUERIES = (
    Query("open, and what there is to choose from", _choices, _choices_by_pandas),
    Query("a page under two filters", _page(_filtered), _page_by_pandas(_filtered)),
    Query("a page of a search", _page(_searched), _page_by_pandas(_searched)),
    Query("tokens of one output at a layer", _tokens, _tokens_by_pandas),
    Query("points at a span and layer", _points, _points_by_pandas),
    Query("rates by category under a filter", _rates, _rates_by_pandas),
)
