"""Thought modes: how steering meets the thought. One prompt set through all of them, on the same seeds.

    regenerated   the edits act as asked, while the model thinks and while it answers
    fixed         the unsteered thought is replayed, token by token, and the answer is steered
    none          the thought is suppressed (opened and closed at once), and the answer is steered
    released      the edits act as asked until the thought is closed; the answer is the model's own, begun from the steered thought
    replayed      the steered thought is replayed without any steering: what its words alone do

In `fixed` and `none` no thought is written under steering, so edits cannot act in it: they act where the answer is begun and written
(`answer_spans`). A thought that was never closed has no answer: in `fixed` and `replayed` such an output is kept as it was. Together the
modes tell whether an edit works through the words of the thought or past them.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from .dialects import closing
from .edits import Edit, edits_of
from .gates import Always, AtSteps, Gate, InSpans, evaluate, leaves
from .generate import generate
from .records import Prompt, Transcript
from .spans import parse_span
from .steer import steer
from .steering import Steering
from .vector import Vector

if TYPE_CHECKING:
    from .model import LensModel

log = logging.getLogger(__name__)

Mode = Literal["regenerated", "fixed", "none", "released", "replayed"]
MODES: tuple[Mode, ...] = get_args(Mode)
ANSWER = ("thought_last", "answer")
_OF_THOUGHT = ("thought", "thought_first", "step", "step_end", "step_ends", "decision")


def thought_modes(
    lens: LensModel,
    prompts: Sequence[Prompt],
    edits: Vector | Edit | Sequence[Edit],
    *,
    modes: Mode | Sequence[Mode] = MODES,
    answer_spans: Sequence[str] = ANSWER,
    unsteered: Sequence[Transcript] | None = None,
    seed: int = 0,
    foreign: bool = False,
    **options: Any,
) -> dict[str, list[Transcript]]:
    """What `lens` writes for the prompts in each mode, by the mode's name, and "unsteered".

    answer_spans   where edits act in the modes fixed and none
    unsteered      what it writes without steering, where that is known already, prompt by prompt; else it is generated
    seed           every generation begins from it, so that sampled outputs differ by steering alone
    options        of generate(): max_new_tokens, batch_size, temperature, progress

    Transcripts have the mode as their condition. ValueError for an unknown mode, for a dialect without a closer (which has no thought to
    hold fixed or suppress), and as steer() does.
    """
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise ValueError(f"unknown thought mode {unknown[0]!r}; known are {', '.join(MODES)}")
    if not lens.markers.close_ids and set(modes) - {"regenerated"}:
        raise ValueError(
            f'{lens.name} writes in the dialect "{lens.dialect.name}", which has no closer: there is no thought to hold fixed, suppress or '
            "release. Load it with the dialect it writes."
        )
    asked = edits_of(edits, {})
    if not asked:
        raise ValueError("there is nothing to steer with, and the modes would all be unsteered. Pass an Edit.")
    if unsteered is not None and [t.id for t in unsteered] != [prompt.id for prompt in prompts]:
        raise ValueError("unsteered= is one transcript of each prompt, in the order of the prompts. Pass those, or leave it out.")
    of_answer = [replace(edit, spans=tuple(answer_spans)) for edit in asked]
    released = [replace(edit, gate=edit.gate & ~InSpans(*ANSWER)) for edit in asked]
    if set(modes) & {"fixed", "none"} and (never := [edit for edit in asked if not _opens_in_answers(edit.gate)]):
        raise ValueError(
            f'the gate {never[0].gate} opens in the thought alone, and in the modes "fixed" and "none" none is written under steering. '
            "Leave these modes out, or pass another gate."
        )

    def run(mode: str, active: Sequence[Edit], which: Sequence[int], prefixes: Sequence[Sequence[int]] | None) -> list[Transcript]:
        """Some of the prompts, under their share of what edits give prompt by prompt."""
        each = [edit.strengths.ndim == 1 and len(edit.strengths) == len(prompts) for edit in active]
        here = [replace(edit, strength=edit.strengths[list(which)]) if by else edit for edit, by in zip(active, each, strict=True)]
        context: AbstractContextManager[Steering | None] = steer(lens, here, foreign=foreign) if here else nullcontext()
        torch.manual_seed(seed)
        with context:
            return generate(lens, [prompts[i] for i in which], condition=mode, prefixes=prefixes, **options)

    def write(mode: str, active: Sequence[Edit], prefixes: Sequence[Sequence[int]] | None = None) -> list[Transcript]:
        return run(mode, active, range(len(prompts)), prefixes)

    def replay(mode: str, thoughts: Sequence[Transcript], active: Sequence[Edit]) -> list[Transcript]:
        """The thoughts once more, and an answer to each. Outputs without an answer stay as they were."""
        held = {i: ids for i, transcript in enumerate(thoughts) if (ids := _thought(lens, transcript)) is not None}
        if len(held) < len(thoughts):
            left = len(thoughts) - len(held)
            log.info("%d of %d thoughts were never closed and are not replayed in the mode %s", left, len(thoughts), mode)
        written = dict(zip(held, run(mode, active, list(held), list(held.values())), strict=True)) if held else {}
        return [written.get(i) or replace(thought, condition=mode) for i, thought in enumerate(thoughts)]

    plain = list(unsteered) if unsteered is not None else write("unsteered", ())
    suppressed = [[*(() if lens.opened else lens.markers.open_ids), *lens.markers.close_ids]] * len(prompts)
    how: dict[str, Callable[[], list[Transcript]]] = {
        "regenerated": lambda: write("regenerated", asked),
        "fixed": lambda: replay("fixed", plain, of_answer),
        "none": lambda: write("none", of_answer, suppressed),
        "released": lambda: write("released", released),
    }
    found: dict[str, list[Transcript]] = {"unsteered": plain}
    for mode in modes:
        if mode == "replayed":
            thoughts = found.get("regenerated") or how["regenerated"]()
            found[mode] = replay(mode, thoughts, ())
        else:
            found[mode] = how[mode]()
    return found


def _opens_in_answers(gate: Gate) -> bool:
    """Whether a gate may be open at a token that begins or writes an answer."""

    def states(leaf: Gate) -> list[bool]:
        if isinstance(leaf, Always):
            return [True]
        only_in_thoughts = isinstance(leaf, AtSteps) or (
            isinstance(leaf, InSpans) and all(parse_span(span).base in _OF_THOUGHT for span in leaf.spans)
        )
        return [False] if only_in_thoughts else [False, True]

    parts = list(dict.fromkeys(leaves(gate)))
    return any(
        bool(evaluate(gate, lambda leaf: torch.tensor(state[parts.index(leaf)])))  # noqa: B023 - used at once
        for state in itertools.product(*map(states, parts))
    )


def _thought(lens: LensModel, transcript: Transcript) -> list[int] | None:
    """The output up to its answer: through the marker that closes the thought; nothing for an output without one; None where it is open."""
    if transcript.status == "unclosed" or transcript.stopped:
        return None
    last = closing(transcript.output_ids, lens.markers)
    return [] if last is None else list(transcript.output_ids[: last + 1])
