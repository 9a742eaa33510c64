"""What a tab is, and the sections of the report that a tab shows as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dash import html
from dash.development.base_component import Component

from ...headlines import Headline
from ...sections import SECTIONS, Drawing, Section
from ...tables import MADE_BY, TableProblem
from .. import source as rows
from ..drawing import Asked, of_tables, sheet
from ..filters import LABELS
from ..kept import Kept, stamps
from ..pieces import cards, heading, notice
from ..views import LISTED, View

WHOLE = "over all prompts and models: the filters do not change it"
HEADLINES: Kept[list[Headline]] = Kept(32)
BY_KEY = {section.key: section for section in SECTIONS}
PLACES = {  # section of the report -> tab
    "collapse": "collapse",
    **dict.fromkeys(("detection", "holdouts", "transfer", "geometry", "heads", "margins"), "layers"),
    **dict.fromkeys(("trajectory", "curves", "decision", "decision_ranks", "decision_boundaries"), "thoughts"),
    "projection": "geometry",
    **dict.fromkeys(("restoration", "comparison", "explained"), "steering"),
}


@dataclass(frozen=True)
class Tab:
    """label     what the tab is called
    content   what it shows of one run
    controls  choices of its own, for all runs together
    filters   which filters change what it shows
    """

    label: str
    content: Callable[[View], list[Component]]
    controls: Callable[[Sequence[View]], list[Component]] = lambda views: []
    filters: tuple[str, ...] = LISTED

    def aside(self, view: View) -> str:
        """Which of the chosen filters this tab does not follow; empty where it follows all."""
        left = [LABELS.get(name, name).lower() for name in LISTED if getattr(view.state, name) and name not in self.filters]
        return f"Not applied on this tab: the filter by {', '.join(left)}." if left else ""


def sections(
    view: View, tab: str, *, special: Mapping[str, Callable[[Drawing], Component]] = MappingProxyType({}), headlines: bool = True
) -> list[Component]:
    """What the report tells that belongs to the tab, section by section; last, what was not asked of this run yet.

    special    how the app draws some of the figures, by their names
    headlines  with the headline numbers, which are of all prompts
    """
    found: list[Component] = []
    left: list[Drawing] = []
    for section in (section for section in SECTIONS if PLACES.get(section.key) == tab):
        asked = [drawing for drawing in section.drawings if not drawing.further or _there(view, drawing)]
        left += [drawing for drawing in section.drawings if drawing not in asked]
        made = [drawing.make for drawing in asked]
        drawn = [drawing for drawing in asked if drawing.unless not in made]
        remark = WHOLE if any(getattr(view.state, name) for name in LISTED) else ""
        sheets = [special[one.name](one) if one.name in special else plain(view, one, remark=remark) for one in drawn]
        if sheets:
            found += [title(section), *_headlines(view, section, shown=headlines), *sheets]
    if left:
        commands = list(dict.fromkeys(f"`{MADE_BY[name]}`" for drawing in left for name in drawing.tables))
        asked_for = "; ".join(dict.fromkeys(drawing.question or _heading_of(drawing) for drawing in left))
        told = f"{' and '.join(commands)} {'answer' if len(commands) > 1 else 'answers'} {'them' if len(left) > 1 else 'it'}"
        found.append(notice(f"Not asked of this run yet: {asked_for}. {told}."))
    return found


def title(section: Section) -> Component:
    return heading(section.heading, section.lede)


def plain(view: View, drawing: Drawing, *, link: str = "", remark: str = "") -> Component:
    """A drawing of the report as a sheet of the app."""
    return sheet(view, drawing.name, of_tables(view, Asked(drawing.make, drawing.read, drawing.tables)), link=link, remark=remark)


def _headlines(view: View, section: Section, *, shown: bool) -> list[Component]:
    """The headline numbers of a section; nothing where its table is not there, as its figures say so.

    Their place is there whether they are shown or not: what is around it would be put on the page anew, figures and all.
    """
    if section.headlines is None:
        return []
    table = section.drawings[0].tables[0]
    key = view.source, section.key, stamps(view.source.run, table)
    found = HEADLINES.get(key)
    if found is None:
        try:
            found = section.headlines(rows.table(view.source, table))
        except TableProblem:
            found = []
        HEADLINES.put(key, found)
    return [html.Div([cards(found)] if found and shown else [], id=f"headlines-{view.index}-{section.key}")]


def _there(view: View, drawing: Drawing) -> bool:
    return all((view.source.run / "tables" / f"{name}.parquet").is_file() for name in drawing.tables)


def _heading_of(drawing: Drawing) -> str:
    return next(section.heading for section in SECTIONS if drawing in section.drawings).lower()
