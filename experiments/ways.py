"""Ways to let a model answer, compared with each other: left alone, steered, reminded in words, told in a system prompt, its thought held.

    Way        what is done, JSON-able: a setting of steering and a thought mode, or a text, or another model of the trio
    answers    prompts under a way → transcripts
    kl         how far a way moves what the model would write next where nothing was to be changed

The text-level baselines: a reminder written into the thought after its first steps (hooks/triggers.py), and a system prompt.

    KL = mean over the output tokens of a prompt of KL(p(· | unsteered) ‖ p(· | way)), on the unsteered output, in nats; then over prompts
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from ..hooks.divergence import distances
from ..hooks.encode import encode
from ..hooks.gates import AtSteps
from ..hooks.generate import forced, generate
from ..hooks.model import LensModel
from ..hooks.modes import thought_modes
from ..hooks.records import Prompt, Transcript
from ..hooks.steer import Trigger, monitor, steer
from ..probes.vectors import random_vectors
from .restoration import Setting, Workbench

DRAWS_TOGETHER = 1000  # random directions are drawn from one stream, so that the first ones stay the same however many are asked for


@dataclass(frozen=True)
class Way:
    """One way to let a model answer.

    name       its condition in tables
    model      base, reasoning or safe
    setting    how it is steered; None: not at all
    mode       thought mode (hooks/modes.py)
    reminder   text written into the thought, at the first `times` boundaries between its steps
    after      the step after which alone the reminder is written
    system     text of a system prompt
    control    "random" or "shuffled": a vector that means nothing, drawn with the seed `number`, in place of the setting's own
    """

    name: str
    model: str = "reasoning"
    setting: Setting | None = None
    mode: str = "regenerated"
    reminder: str = ""
    times: int = 1
    after: int | None = None
    system: str = ""
    control: str = ""
    number: int = 0

    def __str__(self) -> str:
        if self.after is not None:
            return f'reminder "{self.reminder}" after step {self.after}'
        if self.reminder:
            return f'reminder "{self.reminder}" at the first {self.times} step{"s" if self.times > 1 else ""}'
        if self.system:
            return f'system prompt "{self.system}"'
        return self.name if self.setting is None else str(self.setting)


def answers(
    bench: Workbench, lens: LensModel, way: Way, prompts: Sequence[Prompt], unsteered: Sequence[Transcript] | None = None
) -> list[Transcript]:
    """What the model writes; transcripts carry the prompts as they were given, whatever a way adds to them.

    unsteered   what it writes left alone, which `fixed` holds fast; generated if need be
    """
    options: dict[str, Any] = {"max_new_tokens": bench.max_new_tokens, "batch_size": bench.batch_size, "progress": False}
    if way.mode != "regenerated" and way.setting is not None:
        edit = bench.edit(way.setting)
        return _named(thought_modes(lens, prompts, edit, modes=[way.mode], unsteered=unsteered, **options)[way.mode], way)  # type: ignore[list-item]
    asked = [replace(prompt, system=way.system) for prompt in prompts] if way.system else list(prompts)
    prefixes = [[*lens.markers.open_ids, *lens.markers.close_ids]] * len(asked) if way.mode == "none" else None
    with active(bench, lens, way):
        written = generate(lens, asked, condition=way.name, prefixes=prefixes, **options)
    return [replace(transcript, prompt=prompt) for transcript, prompt in zip(written, prompts, strict=True)]


def active(bench: Workbench, lens: LensModel, way: Way) -> Any:
    """The steering, or the reminder, of a way, as a with-block."""
    if way.reminder:
        steps = AtSteps() if way.after is None else AtSteps(only=(way.after,))
        return monitor(lens, {}, triggers=[Trigger(steps, "remind", way.reminder, times=way.times)])
    if way.setting is None:
        return nullcontext()
    edit = bench.edit(way.setting, shuffled=way.number if way.control == "shuffled" else None)
    if way.control == "random":
        edit = replace(edit, vector=random_vectors(edit.vector, way.number + 1, seed=DRAWS_TOGETHER)[way.number])
    return steer(lens, edit)


def kl(bench: Workbench, unsteered: LensModel, lens: LensModel, way: Way, written: Sequence[Transcript]) -> list[float]:
    """KL in nats for each of the transcripts, which `unsteered` wrote left alone. ValueError for a reminder, which inserts tokens."""
    if way.reminder or way.mode != "regenerated":
        raise ValueError(f"{way.name!r} changes which tokens are there, so distributions cannot be compared token by token")
    plain = forced(unsteered, written)
    if way.system:
        asked = [replace(t.prompt, system=way.system) for t in written]
        ids = [tuple(encode(lens, [prompt]).ids[0]) for prompt in asked]
        written = [replace(t, prompt=p, prompt_ids=i) for t, p, i in zip(written, asked, ids, strict=True)]
    with active(bench, lens, way):  # token by token: a gate may read after the site that is steered
        other = forced(lens, written, stepwise=True)
    return [
        float(distances(p.float().log_softmax(-1), q.to(p.device).float().log_softmax(-1))[0].mean())
        for p, q in zip(plain, other, strict=True)
    ]


def _named(written: Sequence[Transcript], way: Way) -> list[Transcript]:
    return [replace(transcript, condition=way.name) for transcript in written]
