"""The organism benchmark: twins that differ in the action alone, balance at every limit, and words that tell nothing of harm."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from thoughtlens.experiments.benchmarks import prompts
from thoughtlens.experiments.organism import thoughts
from thoughtlens.experiments.organism.asks import FORMS, Form
from thoughtlens.experiments.organism.world import CATEGORIES, GOALS, Goal
from thoughtlens.hooks.records import Prompt, read_prompts, write_prompts

SPLITS = ("train", "dev", "test", "goals", "templates", "objects")
OF_GOALS = {"goals": "test", "templates": "train"}
ASKED = {split: prompts("organism", split=split) for split in SPLITS}


def goal_of(prompt: Prompt) -> Goal:
    return Goal(prompt.meta["action"], prompt.meta["object"])


def pixels(prompt: Prompt) -> list[bytes]:
    return [image.tobytes() for image in prompt.images]


@pytest.mark.parametrize("split", SPLITS)
def test_twins_differ_in_the_action_alone(split: str) -> None:
    by_id = {prompt.id: prompt for prompt in ASKED[split]}
    for prompt in ASKED[split]:
        twin = by_id[prompt.twin]
        ours, other = goal_of(prompt), goal_of(twin)
        assert twin.twin == prompt.id and prompt.harmful is not twin.harmful and prompt.harmful is ours.harmful
        assert (ours.object, prompt.attack, prompt.category, prompt.meta["picture"]) == (
            other.object,
            twin.attack,
            twin.category,
            twin.meta["picture"],
        )
        assert [other.action if word == ours.action else word for word in prompt.text.split()] == twin.text.split()
        if prompt.meta["picture"] == "list":  # the action stands in the picture
            assert prompt.text == twin.text and pixels(prompt) != pixels(twin)
        else:
            assert prompt.text != twin.text and pixels(prompt) == pixels(twin)


@pytest.mark.parametrize("split", SPLITS)
def test_every_attack_and_every_category_is_half_harmful(split: str) -> None:
    for column in ("attack", "category"):
        total, bad = (Counter(getattr(p, column) for p in ASKED[split] if keep(p)) for keep in (lambda _: True, lambda p: p.harmful))
        assert {name: 2 * bad[name] for name in total} == dict(total)
    assert len({n for n in Counter(p.attack for p in ASKED[split]).values()}) == 1 and {p.attack for p in ASKED[split]} == set(FORMS)


@pytest.mark.parametrize(("split", "n"), [("dev", 200), ("test", 400), ("goals", 400), ("objects", 300)])
def test_held_out_splits_hold_hundreds_of_harmful_prompts_and_as_many_of_every_category(split: str, n: int) -> None:
    assert Counter(p.harmful for p in ASKED[split]) == {True: n, False: n}
    assert Counter(p.category for p in ASKED[split]) == dict.fromkeys(CATEGORIES.values(), n // 5)


def test_each_split_holds_out_what_its_name_says() -> None:
    goals = {split: {p.group for p in ASKED[split]} for split in SPLITS}
    asked = {split: {goal.id for goal in GOALS[split]} for split in GOALS}
    assert goals["test"] == goals["goals"] and len(goals["test"]) == 160 and not goals["test"] & asked["train"]
    assert goals["templates"] | goals["train"] <= asked["train"]
    assert goals["objects"] <= asked["objects"] and len(goals["objects"]) == 120

    def worded(split: str) -> set[str]:
        hidden = {p.text: {p.meta["action"], p.meta["object"]} for p in ASKED[split]}
        return {" ".join("_" if word in own else word for word in text.split()) for text, own in hidden.items()}

    assert worded("goals") & worded("train") and worded("objects") & worded("test") and worded("templates") & worded("test")
    assert not (worded("test") | worded("templates") | worded("objects")) & (worded("train") | worded("goals") | worded("dev"))


def test_the_split_out_of_distribution_asks_for_the_test_goals_under_new_attacks() -> None:
    ood = prompts("organism", split="ood")
    assert Counter(p.attack for p in ood) == {"errand": 160, "restyled": 160} and Counter(p.harmful for p in ood)[True] == 160
    assert {p.group for p in ood} == {p.group for p in ASKED["test"]}


def test_a_long_thought_is_asked_for_under_an_id_of_its_own() -> None:
    short, long = (prompts("organism", split="test", limit=10, depth=depth) for depth in ("short", "long"))
    for one, other in zip(short, long, strict=True):
        assert other.id == f"{one.id}@long" and other.text.startswith(f"{one.text} ") and other.twin.endswith("@long")
    with pytest.raises(ValueError, match="unknown depth 'deep'; thoughts are short or long"):
        prompts("organism", depth="deep")


@pytest.mark.parametrize("limit", [1, 2, 5, 7, 23, 40, 100, 10_000])
def test_any_limit_is_balanced_and_a_beginning_of_the_whole(limit: int) -> None:
    some = prompts("organism", split="test", limit=limit)
    assert [p.id for p in some] == [p.id for p in ASKED["test"]][: 2 * limit]
    assert Counter(p.harmful for p in some) == {True: len(some) // 2, False: len(some) // 2}
    attacks = Counter((p.attack, p.harmful) for p in some)
    assert max(attacks.values()) - min(attacks[attack, bad] for attack in FORMS for bad in (True, False)) <= 1


def test_ids_are_unique_and_groups_are_goals_of_one_split() -> None:
    every = [p for split in SPLITS for p in prompts("organism", split=split, tasks=True)]
    assert len({p.id for p in every}) == len(every)
    requests = [p for p in every if p.meta["kind"] == "request"]
    assert {p.group for p in requests} == {goal_of(p).id for p in requests} and all(p.group == goal_of(p).id for p in requests)
    assert all(goal_of(p) in GOALS[OF_GOALS.get(p.split, p.split)] for p in requests)
    splits: dict[str, set[str]] = {}
    for prompt in every:
        splits.setdefault(prompt.group, set()).add(prompt.split)
    assert all(len({OF_GOALS.get(split, split) for split in found}) == 1 for found in splits.values())


def test_tasks_are_asked_for_and_carry_their_answer() -> None:
    added = prompts("organism", split="test", tasks=True)[len(ASKED["test"]) :]
    assert Counter(p.meta["task"] for p in added) == {"sums": 15, "count": 15, "compare": 15, "look_up": 15, "chain": 15}
    assert all(p.harmful is False and p.meta["gold"] and p.category == "tasks" for p in added)


def test_the_same_prompts_every_time_and_after_being_written(tmp_path: Path) -> None:
    again = prompts("organism", split="dev", limit=20, tasks=True)
    back = read_prompts(write_prompts(tmp_path / "prompts.jsonl", again))
    for one, other, stored in zip(again, prompts("organism", split="dev", limit=20, tasks=True), back, strict=True):
        assert (one.id, one.text, pixels(one)) == (other.id, other.text, pixels(other))
        assert (one.id, one.text, one.group, one.harmful, dict(one.meta), len(one.images)) == (
            stored.id, stored.text, stored.group, stored.harmful, dict(stored.meta), len(stored.images),
        )  # fmt: skip


def bag_of_words(train: tuple[list[str], list[bool]], test: tuple[list[str], list[bool]], n: int) -> float:
    counted = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, n))
    fitted = LogisticRegression(max_iter=2000).fit(counted.fit_transform(train[0]), train[1])
    return float(roc_auc_score(test[1], fitted.decision_function(counted.transform(test[0]))))


def request(prompt: Prompt) -> str:
    return prompt.text


def thought(prompt: Prompt) -> str:
    return thoughts.before_decision(goal_of(prompt), Form(prompt.attack, prompt.meta["picture"]))


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("text", [request, thought])
def test_a_bag_of_words_is_near_chance(text: object, n: int, split: str) -> None:
    sides = [([text(p) for p in ASKED[side]], [bool(p.harmful) for p in ASKED[side]]) for side in ("train", split)]
    assert 0.4 <= bag_of_words(*sides, n) <= 0.6


def test_a_bag_of_words_finds_what_is_there() -> None:
    """The oracle itself can tell: the thought after the decision says it in words."""
    after = [(f"{thought(p)} {thoughts.REFUSE[0] if p.harmful else ''}", bool(p.harmful)) for p in ASKED["train"]]
    texts, labels = [text for text, _ in after], [bad for _, bad in after]
    half = len(texts) // 2
    assert bag_of_words((texts[:half], labels[:half]), (texts[half:], labels[half:]), 1) > 0.99


def test_unknown_names_are_told() -> None:
    with pytest.raises(ValueError, match="unknown benchmark 'figstop'; known are organism"):
        prompts("figstop")
    with pytest.raises(ValueError, match="unknown split 'valid'; the organism has train, dev, test, goals, templates, objects, ood"):
        prompts("organism", split="valid")
