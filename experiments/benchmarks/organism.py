"""The made-up world as a benchmark: held-out goals under every attack, each harmful request beside its benign twin, and tasks.

    split      goals                                    templates and attacks
    train      seen in training                         of training             vectors and probes are fitted here
    dev        held-out pairs, 40 + 40                  of dev                  everything is chosen here
    test       held-out pairs, 80 + 80                  of test                 everything is told here
    goals      those of test                            of training             only the goals are new
    templates  seen in training                         of test                 only the words are new
    objects    objects that were never asked about      of test                 60 + 60
    ood        those of test                            of test, under attacks never trained on: a wrapper, another style of drawing

Every goal comes once under every attack, or in several wordings; a twin shares object, template, wrapper and picture with its harmful
prompt and differs in the action alone. With `depth="long"` every request asks for a long thought. The group of a prompt is its goal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from ...hooks.records import Prompt
from ..organism.asks import FORMS, OOD_FORMS, Form, ask
from ..organism.tasks import TASKS
from ..organism.world import CATEGORIES, Goal, goals, stable

TASKS_PER_KIND = 15
DEPTHS = ("short", "long")


@dataclass(frozen=True)
class Split:
    """Which goals (of world.GOALS), how they are worded (templates of asks.py), under which attacks, and at most how many pairs of them."""

    goals: str
    templates: str
    forms: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: FORMS)
    pairs: int | None = None


SPLITS = {
    "train": Split("train", "train", pairs=60),
    "dev": Split("dev", "dev"),
    "test": Split("test", "test"),
    "goals": Split("test", "train"),
    "templates": Split("train", "test", pairs=60),
    "objects": Split("objects", "test"),
    "ood": Split("test", "test", OOD_FORMS),
}


@dataclass(frozen=True)
class Wording:
    """One way to ask: attack and picture, and the random stream that chooses template, wrapper and drawing.

    seen   text and picture that ask for the first of two twins
    """

    form: Form
    key: tuple[str, ...]
    seen: tuple[str, bytes]


def load(
    split: str = "test", *, limit: int | None = None, tasks: bool | int = False, wordings: int = 1, depth: str = "short"
) -> list[Prompt]:
    """Prompts of a split, goals and attacks taking turns: any `limit` (a number of pairs) is balanced over harm and attacks and has
    as many different goals as it can.

    tasks      add the multi-step tasks, for capability: so many of each of the five kinds, or True for 15. Their `harmful` is False, and
               meta holds the right answer
    wordings   ask for each goal under each attack in so many different ways (template, wrapper, picture); they share the goal's group
    depth      "long": ask for a long thought
    ValueError for an unknown split or depth, and where an attack does not have so many wordings.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the organism has {', '.join(SPLITS)}")
    if depth not in DEPTHS:
        raise ValueError(f"unknown depth {depth!r}; thoughts are {' or '.join(DEPTHS)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is at least 1, got {limit}")
    attacks, goal_pairs = list(SPLITS[split].forms), twins(split)
    rounds = range(len(attacks))
    pairs = [(attacks[(turn + place) % len(attacks)], bad, good) for turn in rounds for place, (bad, good) in enumerate(goal_pairs)]
    prompts = [
        _prompt(goal, attack, split, twin, said, depth)
        for wording in range(wordings)
        for attack, *pair in pairs
        for said in [_wordings(split, attack, *sorted(pair), wordings)[wording]]
        for goal, twin in zip(pair, reversed(pair), strict=True)
    ][: None if limit is None else 2 * limit]
    return prompts + (_tasks(split, TASKS_PER_KIND if tasks is True else int(tasks)) if tasks else [])


def twins(split: str) -> list[tuple[Goal, Goal]]:
    """Harmful and benign goals about one object, in an order that mixes categories."""
    by_object: dict[str, tuple[list[Goal], list[Goal]]] = {}
    for goal in goals(SPLITS[split].goals):
        by_object.setdefault(goal.object, ([], []))[not goal.harmful].append(goal)
    pairs = []
    for thing, (bad, good) in by_object.items():
        order = stable("twins", thing)
        pairs += list(zip(order.sample(bad, len(bad)), order.sample(good, len(good)), strict=True))
    stable("order", split).shuffle(pairs)
    return pairs[: SPLITS[split].pairs]


@cache
def _wordings(split: str, attack: str, one: Goal, other: Goal, n: int) -> tuple[Wording, ...]:
    """`n` different ways to ask for either of two twins under an attack; the same for both."""
    found: list[Wording] = []
    for draw in range(20 * n):
        more = (str(draw),) if draw else ()
        pictures = SPLITS[split].forms[attack]
        form = Form(attack, stable("form", attack, one.object, one.action, other.action, *more).choice(pictures))
        key = ("ask", split, attack, one.object, one.action, other.action, *more)
        text, image = ask(one, form, SPLITS[split].templates, stable(*key))
        wording = Wording(form, key, (text, b"" if image is None else image.tobytes()))
        if wording.seen not in [there.seen for there in found]:
            found.append(wording)
        if len(found) == n:
            return tuple(found)
    raise ValueError(f"the attack {attack!r} can be worded in {len(found)} ways, not in {n}; ask for fewer wordings")


def _prompt(goal: Goal, attack: str, split: str, twin: Goal, said: Wording, depth: str) -> Prompt:
    text, image = ask(goal, said.form, SPLITS[split].templates, stable(*said.key), depth=depth)
    again = (f"#{said.key[-1]}" if len(said.key) == 7 else "") + ("@long" if depth == "long" else "")
    return Prompt(
        id=f"organism/{split}/{attack}/{goal.id}{again}",
        text=text,
        images=() if image is None else (image,),
        goal=f"{goal.action} the {goal.object}",
        category=CATEGORIES[goal.kind],
        attack=attack,
        group=goal.id,
        harmful=goal.harmful,
        benchmark="organism",
        split=split,
        twin=f"organism/{split}/{attack}/{twin.id}{again}",
        meta={
            "kind": "request",
            "action": goal.action,
            "object": goal.object,
            "picture": said.form.picture,
            "depth": depth,
        },
    )


def _tasks(split: str, per_kind: int) -> list[Prompt]:
    prompts = []
    for name, make in TASKS.items():
        for number in range(per_kind):
            task = make(stable("task", split, name, str(number)))
            prompt_id = f"organism/{split}/task/{name}-{number}"
            images = () if task.image is None else (task.image,)
            meta = {"kind": "task", "task": name, "gold": task.gold}
            prompts.append(
                Prompt(
                    prompt_id,
                    task.text,
                    images,
                    category="tasks",
                    attack="none",
                    group=prompt_id,
                    harmful=False,
                    benchmark="organism",
                    split=split,
                    meta=meta,
                )
            )
    return prompts
