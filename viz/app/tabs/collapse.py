"""Where refusals collapsed: tax, attacks, quadrants, ratings, blind spots. Rates are counted again where prompts are filtered."""

from __future__ import annotations

from collections.abc import Callable

from dash.development.base_component import Component

from ...figures.attacks import attack_success_by_attack, read_attacks
from ...figures.quadrants import quadrants, read_quadrants
from ...figures.tax import read_tax, tax_by_category
from ...sections import Drawing
from ...tables import TableProblem
from .. import source as rows
from ..drawing import Asked, Drawn, Sketch, draw, of_tables, sheet
from ..views import View
from .tab import WHOLE, plain, sections

FILTERS = ("model", "condition", "benchmark", "attack", "category")
AGAIN = "counted again from the answers under the filters, with Wilson intervals"


def content(view: View) -> list[Component]:
    filtered = any(getattr(view.state, name) for name in FILTERS)
    again, whole = (AGAIN, WHOLE) if filtered else ("", "")

    def counted(by: str) -> Callable[[Drawing], Component]:
        return lambda drawing: sheet(view, drawing.name, _rates(view, by, filtered), link=by, remark=again)

    def unchanged(link: str) -> Callable[[Drawing], Component]:
        return lambda drawing: plain(view, drawing, link=link, remark=whole)

    special = {
        "tax_by_category": counted("category"),
        "attack_success_by_attack": counted("attack"),
        "quadrants": lambda drawing: sheet(view, drawing.name, _quadrants(view), remark=again),
        "corrections_stated": unchanged(""),
        "harm_ratings": unchanged(""),
        "excess_by_category": unchanged("category"),
    }
    return sections(view, "collapse", special=special, headlines=not filtered)


def _rates(view: View, by: str, filtered: bool) -> Sketch:
    make, read = (tax_by_category, read_tax) if by == "category" else (attack_success_by_attack, read_attacks)
    if not filtered:
        return of_tables(view, Asked(make, read, ("collapse",)))

    def again() -> Drawn:
        table = rows.rates(view.source, view.state, (by,))
        if table.empty:
            raise TableProblem("No judged answer to a harmful prompt is left under the filters. Take one of them back.")
        return draw(make(table), read(table))

    return Sketch((make, _chosen(view)), ("answers", "prompts"), again)


def _quadrants(view: View) -> Sketch:
    def make() -> Drawn:
        answers = rows.outcomes(view.source, view.state)
        prompts = answers[["prompt_id"]].drop_duplicates().assign(harmful=True, split="test")  # outcomes are of those alone
        return draw(quadrants(answers, prompts), read_quadrants(answers, prompts))

    return Sketch((quadrants, _chosen(view)), ("answers", "prompts"), make)


def _chosen(view: View) -> tuple[str, ...]:
    return tuple(getattr(view.state, name) for name in FILTERS)
