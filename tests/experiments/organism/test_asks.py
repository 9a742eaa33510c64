"""Templates held out between splits, of known words; a request shows its goal where its attack says, and nowhere else."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from thoughtlens.experiments.organism.asks import (
    ASKS,
    ERRANDS,
    EVERY_FORM,
    FORMS,
    LISTS,
    LONG,
    NAMED,
    OOD_FORMS,
    POINTED,
    TEXT_FORMS,
    WRAPPERS,
    Form,
    ask,
)
from thoughtlens.experiments.organism.corpus import MIXTURES, draw
from thoughtlens.experiments.organism.world import Goal

TABLES = {"asks": ASKS, "pointed": POINTED, "lists": LISTS, "long": LONG, **WRAPPERS}
SPLITS = ("train", "dev", "test")
GOAL, OTHER = Goal("vrack", "gufek"), "lozav"


def templates(split: str) -> Iterator[str]:
    for table in TABLES.values():
        yield from table[split]


@pytest.mark.parametrize("name", TABLES)
def test_templates_are_held_out(name: str) -> None:
    seen = [template for split in SPLITS for template in TABLES[name][split]]
    assert len(seen) == len(set(seen)) and all(TABLES[name][split] for split in SPLITS)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_held_out_templates_are_made_of_words_of_the_training_templates(split: str) -> None:
    known = {word for template in (*templates("train"), *NAMED) for word in template.split()}
    assert {word for template in templates(split) for word in template.split()} <= known


@pytest.mark.parametrize("form", EVERY_FORM, ids=lambda form: f"{form.attack}-{form.picture}")
@pytest.mark.parametrize("split", SPLITS)
def test_a_request_shows_its_goal_where_the_attack_says(form: Form, split: str) -> None:
    text, image = ask(GOAL, form, split, random.Random(1))
    said = set(text.split())
    assert (image is None) == (form.picture == "none")
    assert (GOAL.object in said) == (form.picture == "none")
    assert (GOAL.action in said) == (form.picture != "list")
    if image is not None:
        other = Goal("klesh", OTHER) if form.picture == "list" else Goal(GOAL.action, OTHER)
        again = ask(other, form, split, random.Random(1))[1]
        assert image.size == (84, 84) and not np.array_equal(np.asarray(image), np.asarray(again))


def test_the_same_stream_gives_the_same_request() -> None:
    for form in EVERY_FORM:
        (text, image), (same, pixels) = (ask(GOAL, form, "test", random.Random(5)) for _ in range(2))
        assert text == same and (image is None or image.tobytes() == pixels.tobytes())


def test_wrappers_only_add_words_around_a_plain_request() -> None:
    plain = {template.format(do=f"{GOAL.action} {named.format(object=GOAL.object)}") for template in ASKS["test"] for named in NAMED}
    for attack in WRAPPERS:
        for seed in range(20):
            text, _ = ask(GOAL, Form(attack, "none"), "test", random.Random(seed))
            assert any(request in text and request != text for request in plain)


def test_forms_list_every_attack_and_its_pictures() -> None:
    assert {(form.attack, form.picture) for form in EVERY_FORM} == {
        (attack, picture) for attack, pictures in FORMS.items() for picture in pictures
    }
    assert {form.attack for form in TEXT_FORMS} == {"plain", "roleplay", "prefix"}


def test_a_long_thought_is_asked_for_behind_the_same_request() -> None:
    for form in EVERY_FORM:
        short, long = (ask(GOAL, form, "test", random.Random(5), depth=depth) for depth in ("short", "long"))
        assert long[0] in {f"{short[0]} {cue}" for cue in LONG["test"]}
        assert short[1] is None or short[1].tobytes() == long[1].tobytes()


def test_attacks_out_of_distribution_are_new_but_for_their_words() -> None:
    assert not set(OOD_FORMS) & set(FORMS)
    stream, trained = random.Random(0), set[str]()
    for _ in range(4000):
        trained.update(draw(MIXTURES["base"], stream).prompt.split())
    assert {word for errand in ERRANDS for word in errand.split()} - {"{ask}"} <= trained
    for picture in OOD_FORMS["restyled"]:
        plain, styled = (ask(GOAL, Form(attack, picture), "test", random.Random(2))[1] for attack in ("image_swap", "restyled"))
        assert np.abs(np.asarray(plain, int) - np.asarray(styled, int)).mean() > 20
