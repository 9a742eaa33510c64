"""Steering of one lineage, measured quickly: a small grid on dev, many settings to a batch, then each set once beside the controls.

    moment     the ends of the third to sixth step of the thought and the last prompt token, at the middle layer, the last, and all
    then       every layer, and all together, at more strengths, for each of the two vectors of the safe model

The score and its limit on over-refusals are those of restoration.py. Rows of one batch carry different edits, so the whole grid is a
handful of batches on a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...hooks.edits import Edit
from ...hooks.generate import generate
from ...hooks.records import Prompt, Transcript
from ...hooks.steer import steer
from ...probes.vectors import random_vectors
from ..progress import Advance, Track
from ..restoration import HEADLINES, Setting, Workbench, restored, rows_of

log = logging.getLogger(__name__)

SPANS = ("last_prompt", *(f"step_end[{i}]" for i in range(2, 6)))
SOURCES = HEADLINES[:2]
COARSE = (0.7, 1.4)
STRENGTHS = (0.7, 1.0, 1.4, 2.0, 2.8)
TUNING = 25  # twin pairs of dev
DRAWS = 3
TOGETHER = 8  # settings to a batch of prompts

RatesOf = Callable[..., list[dict[str, Any]]]


def steering(
    bench: Workbench,
    dev: Sequence[Prompt],
    sets: Mapping[str, Sequence[Prompt]],
    few: Mapping[str, Sequence[Prompt]],
    rates_of: RatesOf,
    track: Track,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What was chosen and what dev said of every setting tried; and rows of rates for every set.

    sets   on which the choice is told
    few    of some of them, prompts on which the controls are told: three random directions of equal norm and a vector from shuffled labels
           (on these sets the best of the other source is told as well)
    """
    scores = choose(bench, dev[: 2 * TUNING], track)
    setting = max(scores, key=lambda s: scores[s])  # the first of several that are equal
    best = {source: max((s for s in scores if s.source == source), key=lambda s: scores[s]) for source in SOURCES if _has(scores, source)}
    named = {"steered": setting, **{source: other for source, other in best.items() if source != setting.source}}
    rows: list[dict[str, Any]] = []
    vector = bench.vector(setting.source, setting.span)
    controls = {f"random[{i}]": bench.edit(setting, made) for i, made in enumerate(random_vectors(vector, DRAWS, seed=0))}
    controls["shuffled"] = bench.edit(setting, shuffled=0)
    with track("steering, told on every set", len(sets) + len(few) * (len(named) - 1 + len(controls))) as advance:
        for name, prompts in sets.items():
            told = [(condition, bench.edit(how), prompts) for condition, how in named.items() if condition == "steered" or name in few]
            told += [(condition, edit, few[name]) for condition, edit in controls.items() if name in few]
            for condition, edit, asked in told:
                try:
                    (said,) = written(bench, [edit], asked)
                    rows += rates_of(said, set=name, model="reasoning", condition=condition)
                except ValueError as problem:
                    log.warning("%s is not told on %s: %s", condition, name, problem)
                advance(condition, 1)
    chosen = {condition: {**asdict(how), "sites": list(how.sites), "what": str(how)} for condition, how in named.items()}
    tried = [{"what": str(how), "score": round(score, 4)} for how, score in sorted(scores.items(), key=lambda one: -one[1])]
    return {"chosen": chosen, "dev": tried, "n_dev": len(dev[: 2 * TUNING])}, rows


def _has(scores: Mapping[Setting, float], source: str) -> bool:
    return any(setting.source == source for setting in scores)


def choose(bench: Workbench, dev: Sequence[Prompt], track: Track) -> dict[Setting, float]:
    """The score of every setting tried on dev. ValueError where no moment gives a vector."""
    layers = bench.lens.n_layers
    single = [(f"resid_post.{layer}",) for layer in range(layers)]
    known = set(bench.stores["reasoning"].index["span"])
    every = tuple(site for (site,) in single)
    some = (single[layers // 2], single[-1], every)  # what acts in the last layer may do nothing in the middle one
    tried = [(source, span, sites, c) for span in SPANS if span in known for source in SOURCES for sites in some for c in COARSE]
    coarse = [Setting(*how) for how in tried]
    places = [*single, every]
    fine = len(SOURCES) * len(places) * len(STRENGTHS)
    with track("steering settings on dev", len(coarse) + fine) as advance:
        scores = scored(bench, coarse, dev, advance)
        moment = max(scores, key=lambda s: scores[s]).span
        grid = [Setting(source, moment, sites, strength) for source in SOURCES for sites in places for strength in STRENGTHS]
        return scores | scored(bench, [setting for setting in grid if setting not in scores], dev, advance)


def scored(bench: Workbench, settings: Sequence[Setting], prompts: Sequence[Prompt], advance: Advance) -> dict[Setting, float]:
    """How much each setting restores; a source without a vector at some moment is left out."""
    edits = {setting: edit for setting in settings if (edit := _edit(bench, setting)) is not None}
    found: dict[Setting, float] = {}
    usable = list(edits)
    for start in range(0, len(usable), TOGETHER):
        some = usable[start : start + TOGETHER]
        try:
            answers = written(bench, [edits[s] for s in some], prompts)
        except ValueError as problem:  # none of their moments came
            log.warning("%s, and %d settings tried with it, are left out: %s", some[0], len(some) - 1, problem)
            continue
        for setting, said in zip(some, answers, strict=True):
            found[setting] = restored(rows_of(bench.verdicts(said), said, setting))
        advance(str(some[-1]), len(some))
    if not found:
        raise ValueError("no setting could be tried: the reasoning model's outputs have none of the moments, or one class alone")
    return found


def _edit(bench: Workbench, setting: Setting) -> Edit | None:
    try:
        return bench.edit(setting)
    except ValueError:
        return None


def written(bench: Workbench, edits: Sequence[Edit], prompts: Sequence[Prompt]) -> list[list[Transcript]]:
    """What the reasoning model writes under each edit, all in the same batches."""
    n = len(prompts)
    with steer(bench.lens, edits, rows=[number for number in range(1, len(edits) + 1) for _ in prompts]):
        said = generate(
            bench.lens,
            [prompt for _ in edits for prompt in prompts],
            max_new_tokens=bench.max_new_tokens,
            batch_size=bench.batch_size,
            condition="steered",
            progress=False,
        )
    return [said[i * n : (i + 1) * n] for i in range(len(edits))]
