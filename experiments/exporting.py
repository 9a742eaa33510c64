"""Steering exported and measured: what the model does without it, with hooks, and as the export that was read back from disk.

    unsteered   the model as it is
    hooked      steered in the running model
    exported    the reloaded adapter or checkpoint; or the file, added as the engine that reads it does

The card (README.md) in the export says what it does, for which model, how to use it, how exactly it does it, and these rates with n and
95% intervals; measured.json holds the same rows. Both are there or nothing is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers.utils.logging import disable_progress_bar

from ..hooks.edits import Edit, Unit, edits_of
from ..hooks.export.exporting import Draft, Exported, export
from ..hooks.export.usage import limits, usage
from ..hooks.generate import generate
from ..hooks.model import LensModel, load
from ..hooks.records import Prompt, Transcript
from ..hooks.steer import steer
from ..hooks.vector import Vector
from .audit.score import rate, rates
from .judges import JUDGES
from .prompting import prompts_from

METRICS = ("attack_success", "refusal", "over_refusal", "helpful", "truncated")
CONDITIONS = ("unsteered", "hooked", "exported")
MEASURED = "measured.json"
COMPARED = 4  # prompts whose logits are compared


@dataclass(frozen=True, eq=False)
class Measured:
    """An export and what was measured of it.

    table   a row per condition and metric: target, condition, metric, value, low, high, numerator, n, judge, threshold, channel
    """

    exported: Exported
    table: pd.DataFrame

    def __str__(self) -> str:
        shown = [
            f"{metric} {' -> '.join(f'{value:.2f}' for value in rows.value)} (n={int(rows.n.iloc[0])})"
            for metric in METRICS
            if len(rows := self.table[self.table.metric == metric])
        ]
        return f"{self.exported}; {' -> '.join(CONDITIONS)}: {', '.join(shown)}"


def export_measured(
    lens: LensModel,
    how: Vector | Edit | Iterable[Edit],
    target: str,
    path: str | Path,
    prompts: Sequence[Prompt],
    *,
    judge: str = "rule",
    tolerance: float | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    foreign: bool = False,
    progress: bool = False,
) -> Measured:
    """Export edits (hooks/export) and measure on `prompts` what they do, before and after.

    A few of the prompts, spread over all, are those whose logits are compared. Raises what export() raises, and ValueError for an unknown
    judge. Nothing is left where the export or its measurement fails.
    """
    if judge not in JUDGES:
        raise ValueError(f"unknown judge {judge!r}; known are {', '.join(JUDGES)}")
    edits, rows = edits_of(how, {}), list[dict[str, Any]]()

    def card(draft: Draft) -> str:
        running: dict[str, AbstractContextManager[Any]] = {
            "unsteered": nullcontext(lens),
            "hooked": steer(lens, draft.edits, foreign=foreign),
            "exported": draft.reloaded(),
        }
        said: dict[str, list[Transcript]] = {}
        for condition, entered in running.items():
            with entered as active:
                model = active if isinstance(active, LensModel) else lens
                options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "progress": progress}
                said[condition] = generate(model, prompts, condition=condition, **options)
        rows.extend(_rows(said, prompts, judge, draft.exported.target))
        (draft.folder / MEASURED).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        return written(draft, pd.DataFrame(rows), judge)

    compared = prompts[:: max(1, len(prompts) // COMPARED)][:COMPARED]
    done = export(lens, edits, target, path, prompts=compared, tolerance=tolerance, card=card, foreign=foreign)
    return Measured(done, pd.DataFrame(rows))


def _rows(said: dict[str, list[Transcript]], prompts: Sequence[Prompt], judge: str, target: str) -> Iterator[dict[str, Any]]:
    for condition, transcripts in said.items():
        columns: dict[str, Any] = {"channel": "answer", "target": target, "condition": condition, "judge": judge}
        found = rates(JUDGES[judge](transcripts), prompts, **columns)
        yield from (row for row in found if row["metric"] in METRICS and row["channel"] == "answer")
        same = [one.output_ids == other.output_ids for one, other in zip(transcripts, said["hooked"], strict=True)]
        yield rate("same_as_hooked", same, threshold=None, **columns)


# the card


def written(draft: Draft, table: pd.DataFrame, judge: str) -> str:
    """The README of an export, as Markdown."""
    lens, exported = draft.lens, draft.exported
    does = "\n".join(f"- {line}" for line in exported.does)
    left = "\n".join(f"- {line}" for line in [*_left_behind(draft.edits), *(line.format(**exported.facts) for line in limits(exported))])
    return f"""\
# {exported.path.name}: steering for {lens.name}, as {exported.target}

{does}

h is the hidden state at the sites named, α the strength; v is the vector, û its direction, t the component of the class steered to along
it. It acts on every token of prompt, thought and answer.

## How to use it

Names are those of folders; write the paths as you see them from where you run this.

{usage(lens, exported)}
It belongs to `{lens.name}` alone, fingerprint `{lens.fingerprint}`, loaded in {str(lens.dtype).removeprefix("torch.")}.

## How exactly

Read back from disk and run beside the hooked model on {exported.tokens} tokens of {exported.prompts} prompts, prompt and output. Steering
moves logits by up to {exported.effect:.4g}; error / effect may be {exported.tolerance:g}.

{_exactness(exported)}

## What it does

{_sizes(table)}, greedy decoding, judge `{judge}`; rate [95% Wilson interval] count. Outputs that never end stay in every denominator.

{_table(table)}

hooked is the same steering in the running model; exported is what was read back from this folder, here by {", ".join(exported.errors)},
and not by an engine that serves. same_as_hooked: outputs that are the hooked model's, token by token.

## What to know

{left}

`thoughtlens.json` holds the facts of the model and the vector, versions, and the sha256 of every file; `{MEASURED}` the rates.
"""


def _left_behind(edits: Sequence[Edit]) -> list[str]:
    """What a steering vector may say of itself and the export does not do."""
    lines = ["No gate and no span is exported: it acts on every token, whoever asks for what."]
    for edit in edits:
        told = edit.vector.recommended
        if edit.vector.span != "all":
            lines.append(f"The vector {edit.vector.source} was read at {edit.vector.span}; here it acts everywhere.")
        if told:
            how = ", ".join(f"{name} {value}" for name, value in told.items())
            lines.append(f"It recommends {how}; here it is strength {edit.strengths.item():g}, {edit.operator}, every token, no gate.")
    return list(dict.fromkeys(lines))


def _exactness(exported: Exported) -> str:
    rows = [f"| {name} | {error:.2g} | {error / exported.effect:.1g} |" for name, error in exported.errors.items()]
    return "\n".join(["| read by | largest error of a logit | error / effect |", "|---|---|---|", *rows])


def _sizes(table: pd.DataFrame) -> str:
    counts = {metric: int(rows.n.iloc[0]) for metric in METRICS if len(rows := table[table.metric == metric])}
    parts = [(counts.get("refusal"), "harmful"), (counts.get("helpful"), "benign"), (counts.get("truncated"), "in all")]
    return "Prompts: " + ", ".join(f"{count} {what}" for count, what in parts if count)


def _table(table: pd.DataFrame) -> str:
    lines = [f"| metric | {' | '.join(CONDITIONS)} |", "|---|" + "---|" * len(CONDITIONS)]
    for metric in (*METRICS, "same_as_hooked"):
        found = {row["condition"]: row for row in table[table.metric == metric].to_dict("records")}
        if found:
            lines.append(f"| {metric} | " + " | ".join(_cell(found[condition]) for condition in CONDITIONS) + " |")
    return "\n".join(lines)


def _cell(row: Mapping[Any, Any]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] {row['numerator']} / {row['n']}"


# the command


def export_command(
    model: str | Path,
    vector: Path,
    *,
    target: str,
    out: Path,
    operator: str | None = None,
    strength: float | None = None,
    unit: Unit | None = None,
    sites: Sequence[str] = (),
    at: Sequence[str] = (),
    spans: Sequence[str] = (),
    prompts: str = "organism",
    split: str | None = None,
    limit: int | None = None,
    judge: str = "rule",
    tolerance: float | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    foreign: bool = False,
    progress: bool = True,
) -> Measured:
    """Load a model and a vector's file, export to `out`, measure on prompts; see export_measured.

    sites     only these of the vector's; left out, all of them
    at        let the direction of the one site left act at these instead; "outputs" is attention and MLP of every layer: what was read in
              the residual is so taken out of all that the layers write into it (Arditi et al. 2024, weight orthogonalization)
    spans     left out, those the vector recommends or was read at. Only "all" can be exported, and has to be asked for
    strength  left out, what the vector recommends, else 1
    prompts   a benchmark or a .jsonl file of prompts; split: left out, test of a benchmark, all of a file
    """
    asked = _prompts(prompts, split, limit)
    loaded = Vector.load(vector)
    chosen = loaded.at(*sites) if sites else loaded
    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own, which would break ours
    lens = load(model, device=device, dtype=dtype)
    if at:
        chosen = chosen.elsewhere(lens.outputs if list(at) == ["outputs"] else lens.expand(at))
    said = loaded.recommended
    how: dict[str, Any] = {"operator": operator or said.get("operator", "add"), "unit": unit or said.get("unit", "measured")}
    edit = Edit(chosen, strength, spans=spans or tuple(said.get("spans", ())) or None, **how)
    options: dict[str, Any] = {"judge": judge, "tolerance": tolerance, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
    return export_measured(lens, edit, target, out, asked, foreign=foreign, progress=progress, **options)


def _prompts(source: str, split: str | None, limit: int | None) -> list[Prompt]:
    found = [prompt for prompt in prompts_from(source, split) if split in (None, prompt.split)]
    if not found or (limit is not None and limit < 1):
        raise ValueError(f"{source} has no prompt of the split {split!r}, or limit={limit} leaves none. Ask for at least one.")
    return found[:limit]
