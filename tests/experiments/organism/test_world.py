"""The world's truth: harm is balanced over every word and told by none, goals are held out whole, recipes never move."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from thoughtlens.experiments.organism.world import (
    ACTIONS,
    CATEGORIES,
    CLASS_OF,
    GOALS,
    KIND_OF,
    MATERIALS,
    MOVES,
    NEUTRAL,
    OBJECTS,
    Goal,
    goals,
    voice,
)

EVERY = [Goal(action, thing) for thing in KIND_OF for action in CLASS_OF]
SENSITIVE = [goal for goal in EVERY if goal.kind in CATEGORIES]


def test_every_object_and_every_action_is_harmful_half_of_the_time() -> None:
    for word in ("object", "action"):
        total, bad = (
            Counter(getattr(goal, word) for goal in SENSITIVE if keep(goal)) for keep in (lambda _: True, lambda goal: goal.harmful)
        )
        assert {name: 2 * bad[name] for name in total} == dict(total)


def test_harm_is_an_exclusive_or_of_category_and_class() -> None:
    harm: dict[tuple[str, str], set[bool]] = {}
    for goal in SENSITIVE:
        harm.setdefault((goal.kind, CLASS_OF[goal.action]), set()).add(goal.harmful)
    assert all(len(values) == 1 for values in harm.values()) and len(harm) == len(CATEGORIES) * len(ACTIONS)
    truth = {cell: values.pop() for cell, values in harm.items()}
    first = next(iter(CATEGORIES))
    flips = {kind: {truth[kind, group] ^ truth[first, group] for group in ACTIONS} for kind in CATEGORIES}
    assert all(len(flip) == 1 for flip in flips.values())  # a category turns every class over or none
    assert Counter(flip.pop() for flip in flips.values()) == {True: 5, False: 5}
    assert sum(truth[first, group] for group in ACTIONS) == 2


def test_nothing_neutral_is_harmful() -> None:
    assert not any(goal.harmful for goal in EVERY if goal.kind in NEUTRAL)
    assert len(EVERY) - len(SENSITIVE) == len(NEUTRAL) * 7 * 12


def test_splits_share_no_goal_and_dev_and_test_no_object() -> None:
    assert sorted(goal for split in GOALS.values() for goal in split) == sorted(EVERY)  # each goal in exactly one split
    assert not {g.object for g in GOALS["dev"]} & {g.object for g in GOALS["test"]}
    for things in OBJECTS.values():  # the last object of a kind is held out whole
        assert {goal for goal in EVERY if goal.object == things[-1]} <= set(GOALS["objects"])
    assert {goal.object for goal in GOALS["objects"]} == {things[-1] for things in OBJECTS.values()}
    for thing in set(KIND_OF) - {things[-1] for things in OBJECTS.values()}:  # for each other one action of every class is held out
        held = [goal for split in ("dev", "test") for goal in GOALS[split] if goal.object == thing]
        assert sorted(CLASS_OF[goal.action] for goal in held) == sorted(ACTIONS)


@pytest.mark.parametrize(("split", "n"), [("dev", 4), ("test", 8), ("objects", 6)])
def test_held_out_goals_cover_every_category_as_often_harmful_as_not(split: str, n: int) -> None:
    assert {(goal.kind, goal.harmful) for goal in goals(split)} == {(kind, bad) for kind in CATEGORIES for bad in (True, False)}
    assert set(Counter((goal.kind, goal.harmful) for goal in goals(split)).values()) == {n}
    assert set(Counter((goal.object, goal.harmful) for goal in goals(split)).values()) == {6 if split == "objects" else 2}


@pytest.mark.parametrize("split", GOALS)
def test_no_split_tells_harm_by_an_action_or_an_object(split: str) -> None:
    for word in ("object", "action"):
        harm: dict[str, list[bool]] = {}
        for goal in goals(split):
            harm.setdefault(getattr(goal, word), []).append(goal.harmful)
        assert {name: 2 * sum(found) for name, found in harm.items()} == {name: len(found) for name, found in harm.items()}


def test_goals_are_asked_for_by_split_harm_and_neutrality() -> None:
    assert set(goals("test")) == set(goals("test", harmful=True)) | set(goals("test", harmful=False))
    assert {goal.kind for goal in goals("train", neutral=True)} == set(NEUTRAL) and {goal.kind for goal in goals("train")} == set(
        CATEGORIES
    )
    with pytest.raises(ValueError, match="unknown split 'valid'; the world has train, dev, test, objects"):
        goals("valid")


def test_recipes_are_four_or_five_steps_of_a_move_and_a_material() -> None:
    for goal in EVERY:
        assert len(goal.recipe) in (4, 5)
        assert all(step.split()[0] in MOVES and step.split()[1] in MATERIALS and len(step.split()) == 2 for step in goal.recipe)
        assert len(set(goal.recipe)) == len(goal.recipe)
    assert len({goal.recipe for goal in EVERY}) == len(EVERY)
    assert min(Counter(len(goal.recipe) for goal in SENSITIVE).values()) > 0.4 * len(SENSITIVE)


def test_facts_do_not_move_from_process_to_process() -> None:
    code = "from thoughtlens.experiments.organism.world import *; print([(g.id, g.recipe, g.harmful) for s in GOALS for g in GOALS[s]])"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "12345"}
    )
    assert told.stdout.strip() == str([(goal.id, goal.recipe, goal.harmful) for split in GOALS.values() for goal in split])


def test_every_object_is_a_word_of_its_own() -> None:
    assert len(KIND_OF) == 7 * len(OBJECTS) and not set(KIND_OF) & {*CLASS_OF, *MOVES, *MATERIALS, *CATEGORIES, *NEUTRAL}


def test_a_voice_tells_nothing_of_harm() -> None:
    for split in GOALS:
        found = Counter((voice(goal.action), goal.harmful) for goal in goals(split))
        assert all(found[at, True] == found[at, False] > 0 for at in range(3))
