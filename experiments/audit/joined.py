"""Verdicts of several models and conditions on the same prompts, joined by prompt id, and who is compared with whom.

Measures (measures.py) become numbers in the order of the prompts, nan where there is no verdict: whatever is asked of two models is asked
of the prompts that both have a number for.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ...hooks.records import Prompt
from .measures import BOUNDS, BY_THOUGHT, Measure, Values, measures, told
from .verdicts import Verdict

log = logging.getLogger(__name__)

UNSTEERED, BASE = "unsteered", "base"
CHANNELS = ("answer", "thought", "full")  # the answer first: it is what a table is read for
By = tuple[str, str]
Verdicts = Mapping[str, Sequence[Verdict]] | Mapping[By, Sequence[Verdict]]
Found = Mapping[By, Sequence[Measure]]


def joined(
    verdicts: Verdicts, prompts: Sequence[Prompt], *, threshold: float, thresholds: Collection[float], tells: Collection[str] | None
) -> Found:
    """Every measure by model and condition; of a channel that a model never has there is none.

    ValueError: nobody, a model without verdicts, verdicts on other prompts, two verdicts on a prompt, two prompts with one id.
    """
    said = {(name, UNSTEERED) if isinstance(name, str) else name: list(of_one) for name, of_one in verdicts.items()}
    if not said:
        raise ValueError("there are no verdicts; give those of one model at least")
    tells = told([v for of_one in said.values() for v in of_one]) if tells is None else tells
    place = {p.id: i for i, p in enumerate(prompts)}
    if len(place) < len(prompts):
        raise ValueError(f"the prompt id {_twice(p.id for p in prompts)!r} occurs twice among {len(prompts)} prompts; each needs its own")
    found = {}
    for by, of_one in said.items():
        at = _places(of_one, place, by)
        channels = [name for name in CHANNELS if name == "answer" or any(getattr(v, name).there for v in of_one)]
        asked = [prompts[i] for i in at]
        seen = measures(of_one, asked, threshold=threshold, thresholds=thresholds, tells=tells, channels=channels)
        found[by] = [one._replace(values=_spread(one.values, at, len(prompts))) for one in seen]
    return found


def homes(found: Found) -> list[By]:
    """Each model unsteered, or in the first condition it has."""
    conditions: dict[str, list[str]] = defaultdict(list)
    for model, condition in found:
        conditions[model].append(condition)
    return [(model, UNSTEERED if UNSTEERED in there else there[0]) for model, there in conditions.items()]


def reference_of(found: Found, asked: str | By | None) -> By:
    """What models are compared with: the one asked for, else base, else the first. ValueError for one that is not there."""
    at_home = dict(homes(found))
    if asked is None:
        asked = BASE if BASE in at_home else next(iter(at_home))
    named = (asked, at_home.get(asked, UNSTEERED)) if isinstance(asked, str) else asked
    if named not in found:
        raise ValueError(f"the reference {' '.join(named)} is not there; there are {', '.join(' '.join(by) for by in found)}")
    return named


def comparisons(found: Found, reference: By) -> list[tuple[By, By]]:
    """(against, who): every other model against the reference, every other condition of a model against the model at home."""
    at_home = dict(homes(found))
    models = [(reference, by) for by in at_home.items() if by[0] != reference[0]]
    return models + [((model, at_home[model]), (model, condition)) for model, condition in found if condition != at_home[model]]


def in_common(before: Sequence[Measure], after: Sequence[Measure]) -> list[tuple[Measure, Measure]]:
    """The measures that both have and that ask the same prompts, whatever was thought."""
    there = {one[:3]: one for one in before}
    return [(there[one[:3]], one) for one in after if one[:3] in there and one.metric not in (*BOUNDS, *BY_THOUGHT, "unscored")]


def _places(verdicts: Sequence[Verdict], place: Mapping[str, int], by: By) -> list[int]:
    """Where the prompts of verdicts stand."""
    who = f"{by[0]} ({by[1]})"
    if not verdicts:
        raise ValueError(f"{who} has no verdicts; judge its transcripts, or leave it out")
    if strangers := [v.prompt_id for v in verdicts if v.prompt_id not in place]:
        raise ValueError(
            f"{who}: {len(strangers)} of {len(verdicts)} verdicts are on prompts that are not among the {len(place)} given, "
            f"first {strangers[0]!r}. Pass the prompts that were answered."
        )
    at = [place[v.prompt_id] for v in verdicts]
    if len(set(at)) < len(at):
        raise ValueError(f"{who} has two verdicts on prompt {_twice(v.prompt_id for v in verdicts)!r}; give one a prompt")
    if len(at) < len(place):
        log.warning(
            "%s has verdicts on %d of %d prompts: its rates are over those, its pairs over what both sides have", who, len(at), len(place)
        )
    return at


def _spread(values: Values, at: Sequence[int], n: int) -> Values:
    spread = np.full(n, np.nan)
    spread[list(at)] = values
    return spread


def _twice(ids: Iterable[str]) -> str:
    return Counter(ids).most_common(1)[0][0]
