"""A run in a notebook: the report's figures and readings inline, and thoughts as coloured tokens.

view = tl.view("runs/demo")                      what there is, with its main numbers
view.figure("tax_by_category")                   a plotly figure
view.reading("tax_by_category")                  the same rows in words
view.thought("organism/test/plain/…", layer=4)   tokens coloured by what the probe reads at that layer
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from . import reader, theme
from .sections import SECTIONS, Drawing, drawings
from .tables import TableProblem, read_table, rows_of_prompt
from .thought import thought


@dataclass(frozen=True)
class Html:
    """HTML that a notebook shows; every text from data in it was escaped."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


@dataclass(frozen=True)
class View:
    """A run folder to look at. Nothing is read until it is asked for."""

    run: Path

    def figure(self, name: str, *, mode: theme.Mode = "light", **asked: Any) -> go.Figure:
        """A figure by the name of its function, its keyword arguments passed on. ValueError for an unknown name, TableProblem for a
        table that is missing, saying what makes it."""
        drawing = _drawing(name)
        return theme.dress(drawing.make(*self._tables(drawing), **asked), mode)

    def reading(self, name: str) -> str:
        """The figure in a few sentences, with numbers, intervals and n."""
        drawing = _drawing(name)
        return drawing.read(*self._tables(drawing))

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run (CONTRIBUTING.md says what is in each)."""
        return read_table(self.run, name)

    def thought(self, prompt_id: str, *, model: str = "reasoning", layer: int | None = None, conditions: tuple[str, ...] = ()) -> Html:
        """One prompt with what `model` wrote for it, a column a condition (default: unsteered, and steered where that was run), tokens
        coloured by the probe at `layer` (default: the last that was read). TableProblem for a prompt or a condition that is not there."""
        prompt = rows_of_prompt(self.run, "prompts", prompt_id).iloc[0]
        answers = rows_of_prompt(self.run, "answers", prompt_id)
        try:
            readouts = rows_of_prompt(self.run, "readouts", prompt_id)
        except TableProblem:  # its tokens were not read: the text stands uncoloured
            readouts = None
        told = thought(prompt, answers, readouts, model=model, conditions=conditions, layer=layer)
        return Html(f"<style>{reader.STYLE}</style>{told}")

    def _tables(self, drawing: Drawing) -> list[pd.DataFrame]:
        return [read_table(self.run, name) for name in drawing.tables]

    def _repr_html_(self) -> str:
        """Every question with its figures: those that can be drawn, and for the others what is missing."""
        rows = []
        for section in SECTIONS:
            for drawing in section.drawings:
                try:
                    told = escape(drawing.read(*self._tables(drawing)))
                except TableProblem as problem:
                    told = f"<i>{escape(str(problem))}</i>"
                rows.append(f"<tr><td>{escape(section.heading)}</td><td><code>{drawing.name}</code></td><td>{told}</td></tr>")
        head = "<tr><th>question</th><th>figure</th><th>what it says</th></tr>"
        return f"<p><b>{escape(str(self.run))}</b></p><table>{head}{''.join(rows)}</table>"


def view(run: str | Path) -> View:
    """The run to look at in a notebook. FileNotFoundError where there is no run folder."""
    folder = Path(run)
    if not (folder / "tables").is_dir():
        raise FileNotFoundError(f"{folder} is no run folder: it has no tables/. `thoughtlens demo --out {folder}` makes one")
    return View(folder)


def _drawing(name: str) -> Drawing:
    known = drawings()
    if name not in known:
        raise ValueError(f"no figure is called {name!r}; there are {', '.join(known)}")
    return known[name]
