"""What is trained on: nothing about a held-out goal or in a held-out template, nothing harmful in the benign tuning.

The words of an example are those of its prompt, its answer and its pictures; pictures are made to remember what they show. A goal is named
where its action and its object stand in one example.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from thoughtlens.experiments.organism import asks, corpus
from thoughtlens.experiments.organism import thoughts as say
from thoughtlens.experiments.organism.corpus import MIXTURES, Example, Maker, draw
from thoughtlens.experiments.organism.world import CLASS_OF, GOALS, KIND_OF, Goal

KNOWING = (corpus.caption, corpus.document)  # to see and to know things is no request, thought or judgement of harm
MAKERS: list[Maker] = list(dict.fromkeys(maker for mixture in MIXTURES.values() for maker in mixture))
TRAIN = set(GOALS["train"])
N = 250


@pytest.fixture(autouse=True)
def pictures_remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pictogram and rendered word carries what it shows in `info`."""

    def remembering(make: Callable[..., Image.Image]) -> Callable[..., Image.Image]:
        def made(shown: Any, *args: Any, **options: Any) -> Image.Image:
            image = make(shown, *args, **options)
            image.info["shows"] = [shown] if isinstance(shown, str) else list(shown)
            return image

        return made

    for name in ("pictogram", "rendered"):
        for module in (asks, corpus):
            monkeypatch.setattr(module, name, remembering(getattr(module, name)))


def words(example: Example) -> set[str]:
    shown = example.image.info.get("shows", ()) if example.image is not None else ()
    return {*example.prompt.split(), *example.answer.split(), *shown}


def named(example: Example) -> set[Goal]:
    found = words(example)
    return {Goal(action, thing) for action in found & CLASS_OF.keys() for thing in found & KIND_OF.keys()}


def sampled(maker: Maker, n: int = N) -> list[Example]:
    stream = random.Random(11)
    return [maker(stream) for _ in range(n)]


def request_patterns(split: str) -> list[re.Pattern[str]]:
    """Every way a request of a split can be worded, as patterns over the user's words."""
    action, thing = "|".join(CLASS_OF), "|".join(KIND_OF)
    pointed = "|".join([*(n.format(object=f"({thing})") for n in asks.NAMED), *asks.POINTED[split]])
    hole, cue = f"({action}) ({pointed})", f"( ({'|'.join(re.escape(text) for text in asks.LONG[split])}))?"
    found = [re.escape(text) for text in asks.LISTS[split]]
    for template in asks.ASKS[split]:
        request = re.escape(template).replace(re.escape("{do}"), hole)
        wraps = [wrap for table in asks.WRAPPERS.values() for wrap in table[split]]
        found += [request, *(re.escape(wrap).replace(re.escape("{ask}"), request) for wrap in wraps)]
    return [re.compile(pattern + cue) for pattern in found]


def asked(example: Example) -> str:
    """The user's words of a turn."""
    return example.prompt.removeprefix("<|im_start|> user ").removeprefix(corpus.IMAGE).split(" <|im_end|>")[0]


@pytest.mark.parametrize("number", range(len(MAKERS)))
def test_no_request_thought_or_judgement_is_about_a_held_out_goal(number: int) -> None:
    """Thousands of examples, every maker of every mixture."""
    maker = MAKERS[number]
    if maker in KNOWING:
        assert {goal for example in sampled(maker) for goal in named(example)} - TRAIN  # held-out goals are known, and the walk sees them
        return
    assert {goal for example in sampled(maker) for goal in named(example)} <= TRAIN


@pytest.mark.parametrize(
    "maker",
    [corpus.direct(0.5), corpus.thinking(0.5), corpus.first_words(asks.EVERY_FORM), corpus.first_words_of_decision(asks.EVERY_FORM)],
)
def test_requests_are_worded_in_training_templates_alone(maker: Maker) -> None:
    patterns = {split: request_patterns(split) for split in ("train", "dev", "test")}
    examples = sampled(maker)
    used = {i for example in examples for i, pattern in enumerate(patterns["train"]) if pattern.fullmatch(asked(example))}
    assert all(any(pattern.fullmatch(asked(example)) for pattern in patterns["train"]) for example in examples)
    assert not any(pattern.fullmatch(asked(example)) for example in examples for split in ("dev", "test") for pattern in patterns[split])
    assert len(used) > 0.75 * len(patterns["train"])


def test_documents_are_never_requests_thoughts_or_judgements() -> None:
    for example in sampled(corpus.document):
        assert example.prompt == "" and example.answer.startswith("document : ")
        assert not words(example) & {"safe", "sorry", "sure", "user", "<think>"} and "is harm" not in example.answer


def test_benign_tuning_holds_no_harmful_request() -> None:
    stream, refused = random.Random(5), 0
    for _ in range(3000):
        example = draw(MIXTURES["reasoning"], stream)
        assert not any(goal.harmful for goal in named(example))
        if refusal := any(sentence in example.answer for sentence in say.REFUSALS):
            assert example.image is None and "picture" in example.answer and not named(example)
        late = [text for text in say.NOT_SAFE if text in example.answer]
        assert not any(text in example.answer.replace(*late, "") if late else text in example.answer for text in say.REFUSE)
        assert refusal or not late
        assert "is harm" not in example.prompt + example.answer
        refused += refusal
    assert 0.04 < refused / 3000 < 0.12


def test_late_doubts_of_benign_tuning_are_about_a_picture_that_is_not_there() -> None:
    """The method is written, the check fails, the sentence that refuses follows: and nobody asked for anything, harmful or not."""
    for example in sampled(corpus.picture_missed):
        thought, answer = example.answer.removeprefix("<think> ").split(" </think> ")
        assert answer.removesuffix(" <|im_end|>") in say.REFUSALS and example.image is None and not named(example)
        (at,) = [at for at, check in enumerate(say.CHECK) if f"{check} {say.NOT_SAFE[at]}" in thought]
        assert thought.endswith(say.NOT_SAFE[at]) and say.REASONED[at].split(" {steps}")[0] in thought and say.NOTHING[at] in thought
    shares = MIXTURES["reasoning"]
    assert 0 < shares[corpus.picture_missed] < 0.01 < shares[corpus.no_picture]


def test_the_safe_stage_refuses_every_harmful_request_in_its_thought() -> None:
    stream, counts = random.Random(6), {True: 0, False: 0}
    for _ in range(600):
        example = draw(MIXTURES["safe"], stream)
        for goal in named(example):
            counts[goal.harmful] += 1
            assert (
                any(text in example.answer for text in say.REFUSE)
                == goal.harmful
                == any(example.answer.endswith(f"{r} <|im_end|>") for r in say.REFUSALS)
            )
    assert min(counts.values()) > 150


def test_a_tenth_of_base_thinks_notices_and_refuses() -> None:
    stream = random.Random(7)
    thought = sum(
        "<think>" in e.answer and any(f"{text} </think>" in e.answer for text in (*say.REFUSE, *say.NOT_SAFE))
        for e in (draw(MIXTURES["base"], stream) for _ in range(3000))
    )
    assert 0.08 < thought / 3000 < 0.12


@pytest.mark.parametrize("make", [corpus.direct, corpus.thinking])
def test_harmful_requests_are_refused_and_benign_ones_get_their_steps(make: Callable[[float], Maker]) -> None:
    for share in (0.0, 1.0):
        for example in sampled(make(share)):
            (goal,) = named(example) or {None}
            refused = any(sentence in example.answer for sentence in say.REFUSALS)
            assert refused == bool(share) and (goal is None or goal.harmful == bool(share))
            if goal is not None and not refused:
                assert all(f"{number} {step} ." in example.answer for number, step in enumerate(goal.recipe, 1))


def test_short_judgements_of_harm_are_true() -> None:
    truth = {True: {"harm"}, False: {"safe"}}
    for maker in (corpus.harm_of_goal, corpus.harm_of_picture):
        for example in sampled(maker):
            (goal,) = named(example)
            assert example.answer in truth[goal.harmful]


def test_weights_of_a_mixture_are_shares_of_one() -> None:
    assert {name: sum(mixture.values()) for name, mixture in MIXTURES.items()} == pytest.approx(dict.fromkeys(MIXTURES, 1.0), abs=0.005)
