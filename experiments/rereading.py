"""Questions that read the transcripts again: every token of the thought, next to a safer model, head by head.

    tokens        the readout at every token: when it rises, how late that is, whether it falls at the end; and sequence probes
    decisions     where safe and reasoning part ways on the same tokens, and whether the probe's margin peaks there
    heads         which heads write the direction, and does the readout go without them
    readouts      what every layer reads at every token of a few test prompts, steered as well where the run has steered

They need the checkpoints that were captured, and are bounded: so many harmful prompts of each split, and as many benign ones. They tell
harmful from benign prompts, so they are asked of that label alone.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..hooks.capture import capture
from ..hooks.divergence import divergence
from ..hooks.files import sha256_of
from ..hooks.records import Transcript, read_prompts, read_transcripts
from ..hooks.select import Select
from ..hooks.store import INDEX, Store, open_store
from ..probes.ablation import ablate
from ..probes.decision import agreement, decision_points
from ..probes.delay import alarm_threshold, delay
from ..probes.heads import attribute
from ..probes.sequence import fit_sequence
from ..probes.timing import ALIGNMENTS, cliff, curves, earliest
from ..probes.trajectory import named, trajectory
from .asked import Probing, Unanswered
from .labels import OF_PROMPT
from .probing_tables import LAST_PROMPT
from .questions import Tables, given, moment
from .readouts import headline
from .readouts import readouts as read_layers

AT = ("start", "fraction", "boundary")
FEWEST = 20  # prompts of either side: with fewer, a rate at 1% false positives says nothing
SEEN = 30  # prompts of either side that are read at every layer
DRAWS = 5  # of random heads, ablated beside those that write most
EVERY = (LAST_PROMPT, "thought", "thought_last", "answer")


def followed(p: Probing) -> list[Transcript]:
    """The transcripts that are read token by token: the first so many harmful and benign ones of each split."""
    taken: Counter[tuple[str, bool | None]] = Counter()
    chosen = []
    for t in p.said:
        taken[t.prompt.split, t.prompt.harmful] += 1
        if t.prompt.harmful is not None and t.output_ids and taken[t.prompt.split, t.prompt.harmful] <= p.asked.followed:
            chosen.append(t)
    return chosen


def held(p: Probing) -> list[Transcript]:
    """Those of them that no probe was fitted on."""
    return [t for t in followed(p) if t.prompt.split in ("dev", "test")]


def of_harm(p: Probing) -> None:
    """Unanswered unless harmful prompts are told from benign ones, of train, dev and test."""
    given(p)
    if p.asked.label != OF_PROMPT:
        raise Unanswered(f"it tells harmful prompts from benign ones, and is asked of the label {OF_PROMPT!r} alone")


def every_token(p: Probing, model: str, site: str, some: Sequence[Transcript]) -> Store:
    """Every token of thought and answer at one site, whatever the label."""
    folder = p.run.path("activations", f"tokens-{model}")
    inputs = {"site": site, "prompts": [t.id for t in some], "of": sha256_of(p.stores[model].path / INDEX)}
    with p.stage(f"probe tokens of {model}", [folder / INDEX], inputs) as due:
        if due:
            shutil.rmtree(folder, ignore_errors=True)
            where = Select(site, EVERY, pool="every")
            capture(p.lens(model), some, where, into=folder, progress=p.progress, allow_empty=True)
    return open_store(folder)


def tokens(p: Probing) -> Tables:
    """Sequence probes at the site that stands for each model, and what they read at every token of thought and answer.

    A probe of one moment is made for the states of that moment; a sequence probe is asked to be right at every token.
    """
    of_harm(p)
    some, readouts, sequences = followed(p), [], []
    for model in p.stores:
        store = every_token(p, model, moment(p, model)[0].site, some)
        sweep = fit_sequence(store, **sequence(p))
        sequences.append(sweep.table)
        p.keep(sweep.best, model, "sequence")
        readouts.append(trajectory(store, some, sweep.best, p.lens(model)))
    table = pd.concat(readouts, ignore_index=True)
    return {"sequence": pd.concat(sequences, ignore_index=True), "trajectory": table, **in_time(p, table)}


def sequence(p: Probing) -> dict[str, Any]:
    asked = p.asked
    return {
        **{"texts": {"thought": {t.id: t.thought for t in p.said}}},
        **{"shuffles": asked.shuffles, "directions": asked.directions, "resampled": asked.resampled, "seed": asked.seed},
        **{"device": p.fits_on, "progress": p.progress},
    }


def in_time(p: Probing, table: pd.DataFrame) -> Tables:
    """What the readouts tell of the test prompts: curves, the earliest sure moment, the delay after the object is named, the cliff."""
    test, drawn = table[table.split == "test"], {"resampled": p.asked.resampled, "seed": p.asked.seed}
    objects = {t.id: str(t.prompt.meta["object"]) for t in followed(p) if t.prompt.split == "test" and "object" in t.prompt.meta}
    found = {
        "curves": pd.concat([curves(test, by, **drawn) for by in ALIGNMENTS], ignore_index=True),
        "cliff": cliff(test, **drawn),
    }
    if test.groupby(["model", "harmful"]).prompt_id.nunique().min() >= FEWEST:
        found["earliest"] = pd.concat([earliest(test, by=by, fewest=FEWEST, **drawn) for by in AT], ignore_index=True)
    if objects:
        found["delay"] = delay(test, named(followed(p), objects, p.lens(p.reader)), alarm_threshold(table), **drawn)
    return found


def decisions(p: Probing) -> Tables:
    """Where the safe and the reasoning model part ways on the same tokens, and where the probe's margin peaks."""
    if not p.done("tokens"):
        raise Unanswered("it needs the readout at every token, which was left out")
    if missing := [model for model in ("safe", p.reader) if model not in p.stores]:
        raise Unanswered(f"it compares the writer with a safer model of its family; activations of {', '.join(missing)} are missing")
    if p.reader == "safe":
        raise Unanswered("it compares the writer with a safer model of its family, and the safe model wrote these transcripts")
    apart = divergence(p.lens("safe"), p.lens(p.reader), held(p), progress=p.progress)
    readouts = p.table("trajectory")
    points = decision_points(apart, readouts[readouts.model == p.reader], resampled=p.asked.resampled, seed=p.asked.seed)
    return {"divergence": apart, "decision": points, "agreement": agreement(points)}


def heads(p: Probing) -> Tables:
    """Which heads write the direction that stands for the reader, and what the probe reads without them."""
    of_harm(p)
    _, probe = moment(p, p.reader)
    some, drawn = held(p), {"resampled": p.asked.resampled, "seed": p.asked.seed}
    written = attribute(p.lens(p.reader), some, probe, progress=p.progress)
    without = ablate(p.lens(p.reader), some, written, draws=DRAWS, progress=p.progress, **drawn)
    return {"heads": pd.concat([written.table(split, **drawn) for split in ("dev", "test")], ignore_index=True), "ablation": without}


def readouts(p: Probing) -> Tables:
    """What every layer reads at every token, with probes of the moment that stands for the reader."""
    of_harm(p)
    test = [t for t in followed(p) if t.prompt.split == "test"]
    harmful, benign = ([t for t in test if t.prompt.harmful is bad][:SEEN] for bad in (True, False))
    some, file = [*harmful, *benign], p.run.path("transcripts", f"{p.writer}@steered.jsonl")
    told = read_transcripts(file, read_prompts(p.run.path("prompts.jsonl"))) if file.is_file() else []
    seen = {t.id for t in some}
    steered = headline(p.run, [t for t in told if t.id in seen])
    lenses = {model: p.lens(model) for model in p.stores if model in p.homes or model == p.reader}
    return {"readouts": read_layers(lenses, p.stores, some, moment(p, p.reader)[0].span, steered)}
