"""Before the decision a thought says the same for a harmful request and its benign twin, but for the words of the goal and its voice."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from thoughtlens.experiments.organism import thoughts as say
from thoughtlens.experiments.organism.asks import EVERY_FORM, Form
from thoughtlens.experiments.organism.world import ACTIONS, CATEGORIES, GOALS, Goal, goals, voice

DEPTHS = ("short", "long")
EVERY = [goal for split in GOALS for goal in goals(split)]
FORM = EVERY_FORM[0]


def sentences(thought: str) -> list[str]:
    """As the step grammar cuts it: a sentence ends with a full stop or a question mark."""
    return [f"{part.strip()}" for part in thought.replace(" .", " .|").replace(" ?", " ?|").split("|") if part.strip()]


def thoughts_of(goal: Goal, depth: str) -> list[str]:
    along = [say.go_along(goal, FORM, random.Random(seed), depth) for seed in range(8)]
    return [say.refuse_early(goal, FORM, depth), say.refuse_late(goal, FORM, depth), *along]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("form", EVERY_FORM, ids=lambda form: f"{form.attack}-{form.picture}")
def test_before_the_decision_only_voice_and_goal_make_a_difference(form: Form, depth: str) -> None:
    """With the goal's words blanked, all goals of one voice (and, in long thoughts, of kinds as long) begin with the same words."""

    def blank(goal: Goal) -> str:
        own = {goal.action: "ACTION", goal.object: "OBJECT", goal.kind: "KIND"}
        return " ".join(own.get(word, word) for word in say.before_decision(goal, form, depth).split())

    seen: dict[str, Counter[bool]] = {}
    for goal in EVERY:
        seen.setdefault(blank(goal), Counter())[goal.harmful] += 1
    assert len(seen) == (3 if depth == "short" else 6)
    assert all(found[True] == found[False] for found in seen.values())


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_thought_of_a_goal_begins_with_the_same_words_and_then_decides(depth: str) -> None:
    for goal in goals("test"):
        begun = say.before_decision(goal, FORM, depth)
        assert begun.endswith(say.QUESTION[voice(goal.action)])
        for thought in thoughts_of(goal, depth):
            assert thought.startswith(f"{begun} ")
        assert say.refuse_early(goal, FORM, depth) == f"{begun} {say.REFUSE[voice(goal.action)]}"


def test_thoughts_are_short_or_have_seven_to_ten_steps_and_long_ones_decide_at_several_places() -> None:
    for depth, bounds in (("short", (6, 8)), ("long", (7, 10))):
        lengths, places = set(), set()
        for goal in goals("test"):
            for thought in thoughts_of(goal, depth):
                steps = sentences(thought)
                lengths.add(len(steps))
                places.add(say.decisions(thought)[0])
        assert min(lengths) == bounds[0] and max(lengths) == bounds[1]
        assert places == ({4} if depth == "short" else {5, 6})


def test_no_word_marks_a_decision() -> None:
    """What begins a refusal in one voice begins help in another, and every sentence has a wording for every voice."""
    first = {name: [sentence.split()[0] for sentence in table] for name, table in (("no", say.REFUSE), ("yes", say.RECALL))}
    assert set(first["no"]) & set(first["yes"]) and not any(a == b for a, b in zip(first["no"], first["yes"], strict=True))
    late = [sentence.split()[0] for sentence in say.NOT_SAFE], [sentence.split()[0] for sentence in say.READY]
    assert set(late[0]) & set(late[1]) and not any(a == b for a, b in zip(*late, strict=True))
    for table in say.WORDINGS:
        assert table in say.MORE or len(table) == len(set(table)) == 3


def test_the_key_names_the_steps_that_are_followed_by_a_decision() -> None:
    for action in (names[0] for names in ACTIONS.values()):
        goal = next(goal for goal in EVERY if goal.action == action and goal.kind in CATEGORIES)
        late = say.refuse_late(goal, FORM)
        assert [sentences(late)[i] for i in say.decisions(late)] == [say.QUESTION[0], say.CHECK[0]]
        assert len(say.decisions(say.refuse_early(goal, FORM, "long"))) == 1
    assert say.decisions("okay . this is a test .") == say.decisions("") == []


def test_only_thoughts_that_recall_hold_steps() -> None:
    goal = goals("test", harmful=True)[0]

    def steps(text: str) -> int:
        return sum(step in text for step in goal.recipe)

    assert steps(say.before_decision(goal, FORM)) == steps(say.refuse_early(goal, FORM)) == 0
    assert steps(say.refuse_late(goal, FORM)) == len(goal.recipe) == steps(say.go_along(goal, FORM, random.Random(0), recalled=1.0))
    assert steps(say.go_along(goal, FORM, random.Random(0), recalled=0.0)) == 0
    assert steps(say.steps(goal)) == len(goal.recipe)
