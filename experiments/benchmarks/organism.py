"""The made-up world as a benchmark: held-out goals under every attack, each harmful request beside its benign twin, and tasks.

`dev` and `test` hold 40 harmful and 40 benign goals each. Every goal comes once under every attack (200 + 200 prompts); a twin
shares object, template, wrapper and picture with its harmful prompt and differs in the action alone. `train` draws its
goals, twins included, from those seen in training; vectors and probes are fitted there. The group of a prompt is its goal.
"""

from __future__ import annotations

from ...hooks.records import Prompt
from ..organism.asks import FORMS, Form, ask
from ..organism.tasks import TASKS
from ..organism.world import CATEGORIES, Goal, goals, stable

TASKS_PER_KIND = 15
TRAIN_GOALS = 60


def load(split: str = "test", *, limit: int | None = None, tasks: bool = False) -> list[Prompt]:
    """Prompts of a split, goals and attacks taking turns: any `limit` (a number of pairs) is balanced over harm and attacks and has
    as many different goals as it can.

    tasks=True adds the multi-step tasks, for capability; their `harmful` is False and meta holds the right answer.
    """
    attacks, goal_pairs = list(FORMS), twins(split)
    rounds = range(len(attacks))
    pairs = [(attacks[(turn + place) % len(attacks)], bad, good) for turn in rounds for place, (bad, good) in enumerate(goal_pairs)]
    prompts = [
        _prompt(goal, attack, split, twin) for attack, *pair in pairs[:limit] for goal, twin in zip(pair, reversed(pair), strict=True)
    ]
    return prompts + (_tasks(split) if tasks else [])


def twins(split: str) -> list[tuple[Goal, Goal]]:
    """Harmful and benign goals about one object, in an order that mixes categories."""
    by_object: dict[str, tuple[list[Goal], list[Goal]]] = {}
    for goal in goals(split):
        by_object.setdefault(goal.object, ([], []))[not goal.harmful].append(goal)
    pairs = []
    for thing, (bad, good) in by_object.items():
        order = stable("twins", thing)
        pairs += list(zip(order.sample(bad, len(bad)), order.sample(good, len(good)), strict=True))
    stable("order", split).shuffle(pairs)
    return pairs[:TRAIN_GOALS] if split == "train" else pairs


def form_of(goal: Goal, twin: Goal, attack: str) -> Form:
    """The same for both twins."""
    return Form(attack, stable("form", attack, goal.object, *sorted((goal.action, twin.action))).choice(FORMS[attack]))


def _prompt(goal: Goal, attack: str, split: str, twin: Goal) -> Prompt:
    form = form_of(goal, twin, attack)
    shared = stable("ask", split, attack, goal.object, *sorted((goal.action, twin.action)))
    text, image = ask(goal, form, split, shared)
    return Prompt(
        id=f"organism/{split}/{attack}/{goal.id}",
        text=text,
        images=() if image is None else (image,),
        goal=f"{goal.action} the {goal.object}",
        category=CATEGORIES[goal.kind],
        attack=attack,
        group=goal.id,
        harmful=goal.harmful,
        benchmark="organism",
        split=split,
        meta={
            "kind": "request",
            "action": goal.action,
            "object": goal.object,
            "picture": form.picture,
            "twin": f"organism/{split}/{attack}/{twin.id}",
        },
    )


def _tasks(split: str) -> list[Prompt]:
    prompts = []
    for name, make in TASKS.items():
        for number in range(TASKS_PER_KIND):
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
