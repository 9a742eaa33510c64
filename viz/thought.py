"""One prompt with what a model wrote for it under several conditions: columns of coloured tokens, for the report and for notebooks.

All columns share one scale: 95% of the scores of all of them lie within it.

The report shows one prompt of each outcome of steering, the first by id: chosen by what came out, not by how it looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from . import reader
from .tables import TableProblem, columns_of, rows_of_prompt

STEERED = ("unsteered", "steered")
OUTCOMES = (  # harmful, verdict unsteered, verdict steered, in words
    (True, "unsafe", "refused", "an unsafe answer that became a refusal"),
    (True, "unsafe", "unsafe", "an unsafe answer that steering did not turn"),
    (True, "refused", "refused", "a refusal that stayed one"),
    (False, "safe", "safe", "a benign prompt that is still helped with"),
    (False, "safe", "refused", "a benign prompt that steering refuses"),
)


def thought(
    prompt: pd.Series,
    answers: pd.DataFrame,
    readouts: pd.DataFrame | None,
    *,
    model: str,
    conditions: Sequence[str] = (),
    layer: int | None = None,
) -> str:
    """HTML of one prompt, a column a condition (default: unsteered, and steered where that was run), read at `layer` (default: the last).

    Rows of `answers` and `readouts` are those of this prompt; without readouts the text stands uncoloured. TableProblem for a condition
    or a layer that is not there.
    """
    mine = {str(row["condition"]): row for _, row in answers[answers["model"] == model].iterrows()}
    wanted = list(conditions) or [name for name in STEERED if name in mine] or list(mine)[:1]
    if missing := [name for name in wanted if name not in mine] or ([] if wanted else ["unsteered"]):
        there = ", ".join(mine) or "no condition"
        raise TableProblem(f"{model} answered {prompt['prompt_id']} under {there}, not under {missing[0]!r}.")
    read = None if readouts is None else _read(_own(readouts, model, wanted), layer)
    high = 1.0 if read is None else reader.scale_of(read)
    columns = [_column(model, name, mine[name], None if read is None else read[read["condition"] == name], high) for name in wanted]
    where = f"{prompt['category']}, {prompt['attack']}, {'harmful' if prompt['harmful'] else 'benign'}"
    pictures = f" (with {len(prompt['images'])} image{'s' * (len(prompt['images']) > 1)})" if len(prompt["images"]) else ""
    head = f'<p class="tl-prompt"><b>{escape(where)}</b>{pictures}: {escape(str(prompt["text"]))}</p>'
    return f"<div>{head}{reader.side_by_side(*columns)}</div>"


def examples(run: Path, *, model: str = "reasoning") -> list[tuple[str, int, str]]:
    """Per outcome of steering among the prompts whose tokens were read: what it is, how many there are, and the first as HTML.

    TableProblem where no token was read under steering.
    """
    read = columns_of(run, "readouts", "prompt_id", "model", "condition")
    ids = set(read.loc[(read["model"] == model) & (read["condition"] == STEERED[1]), "prompt_id"])
    if not ids:
        raise TableProblem(f"No token of {model} was read under steering. `thoughtlens demo` reads them.")
    harmful = columns_of(run, "prompts", "prompt_id", "harmful").set_index("prompt_id")["harmful"]
    said = columns_of(run, "answers", "prompt_id", "model", "condition", "verdict")
    said = said[(said["model"] == model) & said["prompt_id"].isin(ids)]
    wide = said.pivot(index="prompt_id", columns="condition", values="verdict").reindex(columns=list(STEERED)).sort_index()
    wide = wide.assign(harmful=harmful.reindex(wide.index))
    found = []
    for wanted, before, after, words in OUTCOMES:
        these = wide.index[(wide["harmful"] == wanted) & (wide[STEERED[0]] == before) & (wide[STEERED[1]] == after)]
        if len(these):
            rows = {name: rows_of_prompt(run, name, these[0]) for name in ("prompts", "answers", "readouts")}
            found.append((words, len(these), thought(rows["prompts"].iloc[0], rows["answers"], rows["readouts"], model=model)))
    return found


def _own(readouts: pd.DataFrame, model: str, conditions: Sequence[str]) -> pd.DataFrame:
    """What the model reads of what it wrote itself: the same tokens may have been read in others of the trio."""
    mine = readouts[(readouts["model"] == model) & readouts["condition"].isin(conditions)]
    return mine[mine["written_by"] == model] if "written_by" in mine else mine


def _read(readouts: pd.DataFrame, layer: int | None) -> pd.DataFrame | None:
    if readouts.empty:
        return None
    there = sorted(set(readouts["layer"]))
    if layer is not None and layer not in there:
        raise TableProblem(f"Tokens were read at layers {', '.join(map(str, there))}, not at {layer}.")
    rows: pd.DataFrame = readouts[readouts["layer"] == (there[-1] if layer is None else layer)]
    return rows.sort_values("position")


def _column(model: str, condition: str, answer: pd.Series, tokens: pd.DataFrame | None, high: float) -> tuple[str, str]:
    read = tokens is not None and len(tokens) > 0
    where = f", layer {tokens['layer'].iloc[0]}" if tokens is not None and read else ""
    fired = f", steered at {answer['fired']:.0f} token{'' if answer['fired'] == 1 else 's'}" if answer["fired"] else ""
    title = f"{model}, {condition}: {answer['verdict']}{fired}{where}"
    if tokens is not None and read:
        return title, reader.as_html(reader.token_spans(tokens, low=-high, high=high))
    return title, reader.plain_html(str(answer["thought"]), str(answer["answer"]))
