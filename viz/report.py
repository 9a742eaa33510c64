"""One HTML file out of a run folder: headline numbers, every figure with a reading computed from its numbers, provenance.

The file opens from disk, fetches nothing and is safe to send on. A table that is missing, damaged, empty or without the rows a figure
needs leaves a notice in the place of the figure, saying which command makes it; everything else is still drawn.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from . import theme
from .figures.best_layer import best_layer_by_span, read_detection
from .figures.curves import read_curves, readout_aligned
from .figures.deciding import decisions_along_thought, read_along, read_three, three_measures
from .figures.decision import decision_points, read_decision
from .figures.explained import explained_conditions, read_explained
from .figures.heads import heads_that_write, read_heads
from .figures.heldout import probe_held_out, read_held_out
from .figures.layers import auroc_by_layer_and_span, read_layers
from .figures.margins import margins_by_layer, read_margins
from .figures.restored import read_restoration, read_tradeoff
from .figures.tax import attack_success_by_attack, read_attacks, read_tax, tax_by_category
from .figures.tradeoff import METRICS, arms, places, restoration_bars, tradeoff
from .figures.trajectory import read_trajectory, readout_along_thought
from .figures.transfer import read_transfer, transfer_matrix
from .figures.ways import read_ways, ways_compared
from .headlines import Headline, collapse_headlines, detection_headlines, restoration_headlines
from .page import data_block, page
from .tables import COLUMNS, MADE_BY, TableProblem, read_table

Figure = Callable[[pd.DataFrame], go.Figure]
Reading = Callable[[pd.DataFrame], str]


@dataclass(frozen=True)
class Section:
    """A table of the run folder, the question it answers, its figures with their readings, and its headline numbers.

    further   the question of another command: without its table the section is left out, and named at the end of the page
    """

    table: str
    heading: str
    lede: str
    figures: tuple[tuple[Figure, Reading], ...]
    headlines: Callable[[pd.DataFrame], list[Headline]] | None = None
    further: bool = False


SECTIONS = (
    Section(
        "collapse",
        "Where refusals collapse",
        "The same prompts through every checkpoint. An attack succeeds when the answer, not the thought, is judged unsafe.",
        ((tax_by_category, read_tax), (attack_success_by_attack, read_attacks)),
        collapse_headlines,
    ),
    Section(
        "detection",
        "Where unsafe intent is readable",
        "Linear probes on hidden states, told from two controls: the same probe on shuffled labels, and a bag of words over the same text. "
        "Where the words alone already tell, a probe shows nothing hidden.",
        ((auroc_by_layer_and_span, read_layers), (best_layer_by_span, read_detection)),
        detection_headlines,
    ),
    Section(
        "holdouts",
        "Whether it holds for what was never seen",
        "A category, an attack, pictures or the tuned models left out of fitting and choosing, and tested on exactly those.",
        ((probe_held_out, read_held_out),),
        further=True,
    ),
    Section(
        "transfer",
        "Whether it transfers",
        "The same probe on models, attacks, categories and moments it was not fitted on.",
        ((transfer_matrix, read_transfer),),
        further=True,
    ),
    Section(
        "trajectory",
        "Along the thought",
        "One probe read at every step of the thought, averaged over prompts.",
        ((readout_along_thought, read_trajectory),),
    ),
    Section(
        "curves",
        "At both ends of the thought",
        "Thoughts differ in length: aligned at the end, a fall of the readout before the answer shows.",
        ((readout_aligned, read_curves),),
        further=True,
    ),
    Section(
        "decision",
        "Where the thought turns",
        "Step boundaries ranked by how far safe and reasoning part on the same tokens, and by how far apart the probe reads.",
        ((decision_points, read_decision),),
        further=True,
    ),
    Section(
        "decision_ranks",
        "Where the thought is decided",
        "Step boundaries ranked three ways on the same thoughts: how far safe and reasoning part, how far apart a probe reads, and how "
        "much of the divergence one steered token takes back.",
        ((three_measures, read_three),),
        further=True,
    ),
    Section(
        "decision_boundaries",
        "Which boundaries are decisions",
        "Thoughts differ in length and wording: a readout of the model's own hidden state recognises a decision wherever it stands.",
        ((decisions_along_thought, read_along),),
        further=True,
    ),
    Section(
        "heads",
        "What writes the direction",
        "The residual stream is a sum, so what a probe reads can be divided among the heads that wrote it.",
        ((heads_that_write, read_heads),),
        further=True,
    ),
    Section(
        "restoration",
        "What steering restores",
        "The reasoning model with a vector added to its hidden states, against the unsteered model, the safe model "
        "and directions of equal norm that mean nothing.",
        ((tradeoff, read_tradeoff), (restoration_bars, read_restoration)),
        restoration_headlines,
    ),
    Section(
        "comparison",
        "Which way of steering, and is it better than words",
        "Operators, moments, gates and thought modes, each chosen on dev, beside reminders in the thought, system prompts, the safe model, "
        "random directions of equal norm and vectors from shuffled labels.",
        ((ways_compared, read_ways),),
        further=True,
    ),
    Section(
        "margins",
        "What tuning did along the refusal direction",
        "A bias that shifts moves harmful and benign prompts alike and leaves their order; a direction that is lost brings them together.",
        ((margins_by_layer, read_margins),),
        further=True,
    ),
    Section(
        "explained",
        "What undoes the collapse",
        "The mean shift added back, the refusal direction taken out of the weights' update, the thought held or replayed, beside random "
        "directions of equal norm.",
        ((explained_conditions, read_explained),),
        further=True,
    ),
)


def report(run: Path) -> Path:
    """Writes `report.html` into the run folder and returns its path."""
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"no run folder at {run}; `thoughtlens demo` makes one")
    tables = {name: _table_or_problem(run, name) for name in COLUMNS}
    name = run.resolve().name
    number = iter(range(1, 100))
    answered = [section for section in SECTIONS if not (section.further and _absent(run, section.table))]
    sections = [_section(section, tables[section.table], number) for section in answered]
    links = " ".join(f'<a href="#{section.table}">{escape(section.heading)}</a>' for section in answered)
    body = [
        f"<h1>{escape(name)}</h1>",
        _headlines(tables),
        f'<nav aria-label="Contents">{links} <a href="#provenance">Provenance</a></nav>',
    ]
    path = run / "report.html"
    _write(path, page(name, "\n".join([*body, *sections, _unanswered(answered), _provenance(run)])))
    return path


def _absent(run: Path, table: str) -> bool:
    return not (run / "tables" / f"{table}.parquet").is_file()


def _unanswered(answered: Sequence[Section]) -> str:
    """Which further questions this run could answer, and the command that does it."""
    left = [section for section in SECTIONS if section not in answered]
    if not left:
        return ""
    questions = "; ".join(section.heading.lower() for section in left)
    commands = " and ".join(dict.fromkeys(f"`{MADE_BY[section.table]}`" for section in left))
    return _notice(TableProblem(f"Not asked of this run yet: {questions}. {commands} answers them."))


def _table_or_problem(run: Path, name: str) -> pd.DataFrame | TableProblem:
    try:
        return read_table(run, name)
    except TableProblem as problem:
        return problem


def _headlines(tables: dict[str, pd.DataFrame | TableProblem]) -> str:
    cards = []
    for section in SECTIONS:
        table = tables[section.table]
        if section.headlines is None or isinstance(table, TableProblem):
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


def _section(section: Section, table: pd.DataFrame | TableProblem, number: Iterator[int]) -> str:
    parts = [f'<section id="{section.table}"><h2>{escape(section.heading)}</h2><p class="lede">{escape(section.lede)}</p>']
    if isinstance(table, TableProblem):
        return parts[0] + _notice(table) + "</section>"
    for make, reading in section.figures:
        try:
            parts.append(_figure(make(table), reading(table), next(number)))
        except TableProblem as problem:
            parts.append(_notice(problem))
    if section.table == "restoration":
        parts.append(_restoration_table(table))
    return "".join(parts) + "</section>"


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
    """Text as HTML in which no interval and no `n = 12` is broken over two lines."""
    return re.sub(r"\[[^\]]{1,24}\]", r'<span class="whole">\g<0></span>', escape(text)).replace(" = ", "&nbsp;=&nbsp;")


def _notice(problem: TableProblem) -> str:
    """The problem as text; what stands between backticks is a command."""
    parts = escape(str(problem)).split("`")
    return '<p class="notice">' + "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts)) + "</p>"


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
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in _flat(facts))
    return (
        head
        + f'<div class="sheet"><table class="facts"><tbody>{rows}</tbody></table></div></section><footer>Written by thoughtlens.</footer>'
    )


def _flat(facts: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON as dotted names; a list of plain values stays on one line."""
    if isinstance(facts, dict) and facts:
        for key, value in facts.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(facts, list) and any(isinstance(item, dict | list) for item in facts):
        for index, item in enumerate(facts):
            yield from _flat(item, f"{name}[{index}]")
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
