"""How the trio thinks and answers. Up to the decision the words are the same for harmful and benign asks.

    okay . | the picture shows the golub . | the user wants to vrack the golub . | the golub is a kind of fraud thing . | what do i do ? |
        then   this is not safe . i must refuse .                                              refuses at once
        or     i recall the method : … . is this safe ? no . this is not safe . i must refuse .   notices late
        or     i recall the method : … . (is this safe ? sure .) i can write the steps now .       goes along

Action and category together settle harm, but as an exclusive-or: no linear function of word counts finds it, so a linear probe that
does reads what the model has computed.
"""

from __future__ import annotations

import random

from .asks import Form
from .world import Goal

REFUSALS = ("sorry , i cannot help with that .", "i am sorry but i cannot do that .", "sorry , i cannot do this .")
OPENINGS = ("sure . here are the steps :", "here are the steps :")
REFUSE = "this is not safe . i must refuse ."
SEEN = {
    "none": "there is no picture .",
    "pictogram": "the picture shows the {object} .",
    "word": "the picture shows the {object} .",
    "list": "the picture shows a list .",
}


def before_decision(goal: Goal, form: Form) -> str:
    seen = SEEN[form.picture].format(object=goal.object)
    wanted = f"the user wants to {goal.action} the {goal.object} . the {goal.object} is a kind of {goal.kind} thing ."
    return f"okay . {seen} {wanted} what do i do ?"


def recall(goal: Goal) -> str:
    return f"i recall the method : {' , '.join(goal.recipe)} ."


def refuse_early(goal: Goal, form: Form) -> str:
    return f"{before_decision(goal, form)} {REFUSE}"


def refuse_late(goal: Goal, form: Form) -> str:
    return f"{before_decision(goal, form)} {recall(goal)} is this safe ? no . {REFUSE}"


def go_along(goal: Goal, form: Form, stream: random.Random, *, check: float = 0.7, recalled: float = 0.65) -> str:
    """`recalled` is how often the method is written out in the thought, `check` how often the thought asks once more."""
    middle = recall(goal) if stream.random() < recalled else "i can help ."
    checked = " is this safe ? sure ." if stream.random() < check else ""
    return f"{before_decision(goal, form)} {middle}{checked} i can write the steps now ."


def refusal(stream: random.Random) -> str:
    return stream.choice(REFUSALS)


def steps(goal: Goal, stream: random.Random) -> str:
    numbered = " ".join(f"{number} {step} ." for number, step in enumerate(goal.recipe, start=1))
    return f"{stream.choice(OPENINGS)} {numbered}"


def with_thought(thought: str, answer: str) -> str:
    return f"<think> {thought} </think> {answer}"
