"""Right answers are right: sums and look-ups worked out again from their text, counts and comparisons from the pixels."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from thoughtlens.experiments.organism.pictures import GREY
from thoughtlens.experiments.organism.tasks import TASKS, Task

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


def test_count() -> None:
    for task in drawn("count"):
        shape = task.text.split()[2]
        assert task.gold == str(seen(task.image)[shape])
        assert task.thought.endswith(f"total {task.gold} .")


def test_compare() -> None:
    for task in drawn("compare"):
        words = task.text.split()
        first, second = words[3], words[6]
        shapes = seen(task.image)
        assert shapes[first] != shapes[second] and set(shapes) <= {first, second}
        assert task.gold == max(first, second, key=lambda shape: shapes[shape])
        assert f"i count the {first} : {shapes[first]} . i count the {second} : {shapes[second]} ." in task.thought


@pytest.mark.parametrize("name", TASKS)
def test_no_answer_is_right_by_habit(name: str) -> None:
    golds = Counter(task.gold for task in drawn(name, 300))
    assert len(golds) >= 3 and max(golds.values()) / 300 < 0.5
    assert TASKS[name](random.Random(0)).answer == f"the answer is {TASKS[name](random.Random(0)).gold} ."
