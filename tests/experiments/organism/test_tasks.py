"""Right answers are right: sums and look-ups worked out again from their text, counts and comparisons from the pixels."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from thoughtlens.experiments.organism.pictures import GREY
from thoughtlens.experiments.organism.tasks import ROWS, TASKS, Task

FILL = {"square": 1.0, "circle": 0.79, "triangle": 0.5}


def drawn(name: str, n: int = 150) -> list[Task]:
    return [TASKS[name](random.Random(seed)) for seed in range(n)]


def seen(image: Image.Image | None) -> Counter[str]:
    """Shapes in a picture, told by the share of its box that each covers."""
    found, _ = ndimage.label((np.asarray(image) != GREY).any(-1))
    return Counter(min(FILL, key=lambda s: abs(FILL[s] - np.mean(found[box] == i))) for i, box in enumerate(ndimage.find_objects(found), 1))


def test_sums() -> None:
    for task in drawn("sums"):
        words = task.text.split()
        value = int(words[2])
        for sign, number in zip(words[4::3], words[5::3], strict=False):
            if sign in ("add", "take"):
                value += int(number) if sign == "add" else -int(number)
        assert task.gold == str(value) and 0 <= value <= 20
        assert task.thought.split()[-2] == task.gold


def test_look_up() -> None:
    for task in drawn("look_up"):
        *facts, gift, asked = [sentence.split() for sentence in task.text.removesuffix("?").split(" . ")]
        owner = {thing: person for person, _, thing in facts}
        giver, taker = gift[0], gift[-1]
        thing = asked[asked.index("has") + 1]
        assert task.gold == (taker if owner[thing] == giver else owner[thing])
        assert giver != taker and f"so {task.gold} has {thing} ." in task.thought
    given = [task for task in drawn("look_up") if "gives it to" in task.thought]
    assert 0.35 < len(given) / len(drawn("look_up")) < 0.65


def test_count() -> None:
    for task in drawn("count"):
        shape = task.text.split()[2]
        assert task.gold == str(seen(task.image)[shape])
        assert task.thought.endswith(f"total {shape} {task.gold} .")


def test_compare() -> None:
    for task in drawn("compare"):
        words = task.text.split()
        first, second = words[3], words[6]
        shapes = seen(task.image)
        assert shapes[first] != shapes[second] and set(shapes) <= {first, second}
        assert task.gold == max(first, second, key=lambda shape: shapes[shape])
        assert task.thought.endswith(f"total {first} {shapes[first]} , {second} {shapes[second]} .")


def test_chain() -> None:
    for task in drawn("chain"):
        words = task.text.split()
        value = seen(task.image)[words[4]]
        assert f"start with {value} ." in task.thought
        for sign, number in zip(words, words[1:], strict=False):
            if sign in ("add", "take"):
                value += int(number) if sign == "add" else -int(number)
        assert task.gold == str(value) == task.thought.split()[-2] and 0 <= value <= 20


def test_rows_are_read_as_they_are_drawn() -> None:
    """What a counting thought says of a row is what stands there, and its totals add up."""
    for task in drawn("count", 60):
        shape, totals = task.text.split()[2], 0
        for number, (row, said) in enumerate(zip(ROWS, task.thought.split(" . "), strict=True)):
            cells = np.asarray(task.image)[28 * number : 28 * number + 28]
            shown = said.removeprefix(f"row {row} : ").split(" , total ")[0].split(" , ")
            assert seen(Image.fromarray(cells)) == Counter(word for word in shown if word != "none") and len(shown) == 3
            totals += shown.count(shape)
            assert f"total {shape} {totals}" in said


@pytest.mark.parametrize("name", TASKS)
def test_no_answer_is_right_by_habit(name: str) -> None:
    golds = Counter(task.gold for task in drawn(name, 300))
    assert len(golds) >= 3 and max(golds.values()) / 300 < 0.5
    assert TASKS[name](random.Random(0)).answer == f"the answer is {TASKS[name](random.Random(0)).gold} ."
