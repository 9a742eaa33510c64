"""One HTML file out of a run folder: headline numbers, every figure with a reading computed from its numbers, provenance.

The file opens from disk, fetches nothing and is safe to send on. A table that is missing, damaged, empty or without the rows a figure
needs leaves a notice in the place of the figure, saying which command makes it; everything else is still drawn.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from . import theme
from .figures.tradeoff import METRICS, arms, places
from .headlines import Headline
from .page import data_block, page
from .sections import SECTIONS, Drawing, Section
from .tables import MADE_BY, TableProblem, read_table
from .thought import examples


def report(run: Path) -> Path:
    """Writes `report.html` into the run folder and returns its path."""
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"no run folder at {run}; `thoughtlens demo` makes one")
    tables = Tables(run)
    name = run.resolve().name
    number = iter(range(1, 1000))
    sections = [_section(section, asked, tables, number) for section in SECTIONS if (asked := _asked(section, run))]
    sections.append(_thoughts(run))
    told = {section.key: section.heading for section in SECTIONS if _asked(section, run)} | {"thoughts": "Thoughts, token by token"}
    links = " ".join(f'<a href="#{key}">{escape(heading)}</a>' for key, heading in told.items())
    body = [
        f"<h1>{escape(name)}</h1>",
        _headlines(tables),
        f'<nav aria-label="Contents">{links} <a href="#provenance">Provenance</a></nav>',
    ]
    path = run / "report.html"
    _write(path, page(name, "\n".join([*body, *sections, _unasked(run), _provenance(run)])))
    return path


class Tables(dict[str, "pd.DataFrame | TableProblem"]):
    """The tables of a run by name, each read when first asked for: the table, or the problem that stands in its place."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run

    def __missing__(self, name: str) -> pd.DataFrame | TableProblem:
        try:
            self[name] = read_table(self.run, name)
        except TableProblem as problem:
            self[name] = problem
        return self[name]


def _asked(section: Section, run: Path) -> list[Drawing]:
    """The drawings of a section but those of a further command that was not run, and those that tell less than another."""
    there = [drawing for drawing in section.drawings if not (drawing.further and _absent(run, drawing))]
    made = [drawing.make for drawing in there]
    return [drawing for drawing in there if drawing.unless not in made]


def _absent(run: Path, drawing: Drawing) -> bool:
    return not all((run / "tables" / f"{name}.parquet").is_file() for name in drawing.tables)


def _unasked(run: Path) -> str:
    """Which further questions this run could answer, and the command that does it."""
    left = [(section, drawing) for section in SECTIONS for drawing in section.drawings if drawing.further and _absent(run, drawing)]
    if not left:
        return ""
    questions = "; ".join(dict.fromkeys(drawing.question or section.heading.lower() for section, drawing in left))
    commands = " and ".join(dict.fromkeys(f"`{MADE_BY[name]}`" for _, drawing in left for name in drawing.tables))
    return _notice(TableProblem(f"Not asked of this run yet: {questions}. {commands} answers them."))


def _headlines(tables: Tables) -> str:
    cards = []
    for section in SECTIONS:
        table = tables[section.drawings[0].tables[0]] if section.headlines else None
        if section.headlines is None or not isinstance(table, pd.DataFrame):
            continue
        try:
            cards += section.headlines(table)
        except TableProblem:
            continue  # the section below shows the same problem in place of its figure
    if not cards:
        return '<p class="lede">This run holds no table to report on yet. Each section below names the command that makes its table.</p>'
    lede = '<p class="lede">The main numbers of this run, each with its 95% interval, sample size and control.</p>'
    return lede + '<ul class="cards">' + "".join(_card(card) for card in cards) + "</ul>"


def _card(card: Headline) -> str:
    top = f'<p class="question">{escape(card.question)}</p><p class="number">{escape(card.number)}</p>'
    return f'<li>{top}<p class="detail">{_prose(card.detail)}</p></li>'


def _section(section: Section, asked: Sequence[Drawing], tables: Tables, number: Iterator[int]) -> str:
    parts = [f'<section id="{section.key}"><h2>{escape(section.heading)}</h2><p class="lede">{escape(section.lede)}</p>']
    for drawing in asked:
        try:
            parts.append(_drawn(drawing, tables, number))
        except TableProblem as problem:
            if (notice := _notice(problem)) not in parts:  # two figures of one missing table miss it once
                parts.append(notice)
    restoration = tables["restoration"]
    if section.key == "restoration" and isinstance(restoration, pd.DataFrame):
        parts.append(_restoration_table(restoration))
    return "".join(parts) + "</section>"


def _drawn(drawing: Drawing, tables: Tables, number: Iterator[int]) -> str:
    taken = [tables[name] for name in drawing.tables]
    for table in taken:
        if isinstance(table, TableProblem):
            raise table
    return _figure(drawing.make(*taken), drawing.read(*taken), next(number))


def _thoughts(run: Path) -> str:
    """One thought of each outcome of steering, out of sight until it is asked for."""
    head = (
        '<section id="thoughts"><h2>Thoughts, token by token</h2><p class="lede">The first prompt of each outcome of steering among those '
        "whose tokens were read, coloured by what one probe reads at each token. The text may be harmful: it opens on a click.</p>"
    )
    try:
        told = [
            f"<details><summary>{escape(words[0].upper() + words[1:])} <small>(one of {n})</small></summary>{html}</details>"
            for words, n, html in examples(run)
        ]
    except TableProblem as problem:
        told = [_notice(problem)]
    return f"{head}{''.join(told)}</section>"


def _figure(figure: go.Figure, reading: str, number: int) -> str:
    spec, title, note = theme.untitled(figure)
    spec["layout"]["dragmode"] = False
    return (
        f'<figure><h3>Figure {number}. {escape(title)}</h3><p class="note">{escape(note)}</p>'
        f'<div class="wide"><div class="plot" data-figure="figure-{number}" role="img" aria-label="{escape(f"{title}. {reading}")}" '
        f'style="height: {spec["layout"]["height"]}px"></div></div><figcaption>{_prose(reading)}</figcaption>'
        f"{data_block(f'figure-{number}', spec)}</figure>"
    )


def _prose(text: str) -> str:
    """Text as HTML in which no interval and no `n = 12` is broken over two lines; what stands between backticks is a command."""
    whole = re.sub(r"\[[^\]]{1,24}\]", r'<span class="whole">\g<0></span>', escape(text)).replace(" = ", "&nbsp;=&nbsp;")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(whole.split("`")))


def _notice(problem: TableProblem) -> str:
    return f'<p class="notice">{_prose(str(problem))}</p>'


def _restoration_table(restoration: pd.DataFrame) -> str:
    try:
        table = arms(restoration)
    except TableProblem:
        return ""
    metrics = [metric for metric in METRICS if metric in set(table["metric"])]
    head = "".join(f'<th scope="col">{escape(METRICS[metric])}</th>' for metric in metrics)
    rows = []
    for group in places(table):
        cells = "".join(f"<td>{_cell(group.rows[group.rows['metric'] == metric])}</td>" for metric in metrics)
        rows.append(f'<tr><th scope="row">{escape(group.label)}</th>{cells}</tr>')
    return (
        '<div class="sheet"><h3>The same numbers as a table</h3>'
        '<p class="note">rate, 95% interval, n; random directions as lowest to highest draw</p>'
        f'<div class="wide"><table><thead><tr><th scope="col">condition</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "–"
    one = rows.iloc[0]
    if len(rows) == 1:
        return f"{theme.percent(one['value'])}<small>{round(100 * one['low'])}–{round(100 * one['high'])}, n {one['n']:.0f}</small>"
    return f"{theme.span(rows['value'])}<small>n {one['n']:.0f} each</small>"


def _provenance(run: Path) -> str:
    head = '<section id="provenance"><h2>Provenance</h2><p class="lede">What made these numbers.</p>'
    path = run / "provenance.json"
    if not path.is_file():
        return head + '<p class="notice">This run has no provenance.json, so versions, seeds and hashes are unknown.</p></section>'
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return head + '<p class="notice">provenance.json is damaged and cannot be read.</p></section>'
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in flat(facts))
    return (
        head
        + f'<div class="sheet"><table class="facts"><tbody>{rows}</tbody></table></div></section><footer>Written by thoughtlens.</footer>'
    )


def flat(facts: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON as dotted names; a list of plain values stays on one line."""
    if isinstance(facts, dict) and facts:
        for key, value in facts.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(facts, list) and any(isinstance(item, dict | list) for item in facts):
        for index, item in enumerate(facts):
            yield from flat(item, f"{name}[{index}]")
    else:
        yield name, ", ".join(map(str, facts)) if isinstance(facts, list) else "–" if facts in (None, {}, "") else str(facts)


def _write(path: Path, text: str) -> None:
    """Written beside its place, flushed, renamed: a reader never meets half a report."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".report-", suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
