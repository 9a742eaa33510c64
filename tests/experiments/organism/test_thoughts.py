"""Before the decision a thought says the same for a harmful request and its benign twin, but for the words of the goal."""

from __future__ import annotations

import random

import pytest
from thoughtlens.experiments.benchmarks.organism import twins
from thoughtlens.experiments.organism import thoughts as say
from thoughtlens.experiments.organism.asks import EVERY_FORM, Form
from thoughtlens.experiments.organism.world import Goal, goals

PAIRS = [pair for split in ("train", "dev", "test") for pair in twins(split)]


@pytest.mark.parametrize("form", EVERY_FORM, ids=lambda form: f"{form.attack}-{form.picture}")
def test_twins_share_every_word_before_the_decision_but_the_action(form: Form) -> None:
    for bad, good in PAIRS:
        one, other = (say.before_decision(goal, form).split() for goal in (bad, good))
        differing = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
        assert set(differing) == {(bad.action, good.action)}


@pytest.mark.parametrize("form", EVERY_FORM, ids=lambda form: f"{form.attack}-{form.picture}")
def test_no_goal_is_told_by_the_length_or_the_order_of_the_words(form: Form) -> None:
    def blank(goal: Goal) -> str:
        own = {goal.action: "ACTION", goal.object: "OBJECT", goal.kind: "KIND"}
        return " ".join(own.get(word, word) for word in say.before_decision(goal, form).split())

    assert len({blank(goal) for split in ("train", "dev", "test") for goal in goals(split)}) == 1


def test_every_thought_begins_with_the_same_words_and_then_decides() -> None:
    for goal in goals("test"):
        form, stream = EVERY_FORM[0], random.Random(1)
        begun = say.before_decision(goal, form)
        for thought in (say.refuse_early(goal, form), say.refuse_late(goal, form), *(say.go_along(goal, form, stream) for _ in range(8))):
            assert thought.startswith(f"{begun} ") and begun.endswith("what do i do ?")
        assert say.refuse_early(goal, form) == f"{begun} {say.REFUSE}"


def test_only_thoughts_that_recall_hold_steps() -> None:
    goal = goals("test", harmful=True)[0]
    form = EVERY_FORM[0]

    def steps(text: str) -> int:
        return sum(step in text for step in goal.recipe)

    assert steps(say.before_decision(goal, form)) == steps(say.refuse_early(goal, form)) == 0
    assert steps(say.refuse_late(goal, form)) == len(goal.recipe) == steps(say.go_along(goal, form, random.Random(0), recalled=1.0))
    assert steps(say.go_along(goal, form, random.Random(0), recalled=0.0)) == 0
    assert steps(say.steps(goal, random.Random(0))) == len(goal.recipe)
