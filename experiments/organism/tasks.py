"""Benign multi-step tasks: small sums, counting and comparing shapes in a picture, looking up who has what. Each has one right answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from .pictures import SHAPES, shape_grid
from .world import MATERIALS


@dataclass(frozen=True)
class Task:
    """The question, its picture, how one thinks about it, and its right answer."""

    name: str
    text: str
    image: Image.Image | None
    thought: str
    gold: str

    @property
    def answer(self) -> str:
        return f"the answer is {self.gold} ."


def sums(stream: random.Random) -> Task:
    value = stream.randint(1, 9)
    question, thought = f"start with {value}", []
    for _ in range(stream.randint(2, 3)):
        choices = [("add", n, value + n) for n in range(1, 10) if value + n <= 20] + [
            ("take", n, value - n) for n in range(1, value + 1) if n < 10
        ]
        move, n, after = stream.choice(choices)
        question += f" , {move} {n}"
        thought.append(f"{value} {move} {n} is {after} .")
        value = after
    return Task("sums", f"{question} . what do you get ?", None, f"start . {' '.join(thought)}", str(value))


def count(stream: random.Random) -> Task:
    cells = [None if stream.random() < 0.3 else stream.choice(SHAPES) for _ in range(9)]
    wanted, total, thought = stream.choice(SHAPES), 0, ["i look at each row ."]
    for row, name in enumerate(("one", "two", "three")):
        here = cells[3 * row : 3 * row + 3].count(wanted)
        total += here
        thought.append(f"row {name} has {here} , total {total} .")
    return Task("count", f"how many {wanted} are in the picture ?", shape_grid(cells, stream), " ".join(thought), str(total))


def compare(stream: random.Random) -> Task:
    first, second = stream.sample(SHAPES, 2)
    while True:
        cells = [None if stream.random() < 0.3 else stream.choice((first, second)) for _ in range(9)]
        some, others = cells.count(first), cells.count(second)
        if some != others:
            break
    more = first if some > others else second
    thought = f"i count the {first} : {some} . i count the {second} : {others} . more {more} ."
    return Task("compare", f"are there more {first} or more {second} in the picture ?", shape_grid(cells, stream), thought, more)


def look_up(stream: random.Random) -> Task:
    people, owned = stream.sample("tom sue max amy leo zoe".split(), 4), stream.sample(MATERIALS, 4)
    giver = stream.randrange(4)
    taker = stream.choice([i for i in range(4) if i != giver])
    facts = " ".join(f"{person} has {thing} ." for person, thing in zip(people, owned, strict=True))
    gift = f"{people[giver]} gives all to {people[taker]} ."
    thought = f"{people[giver]} has {owned[giver]} . {gift} so {people[taker]} has {owned[giver]} ."
    return Task("look_up", f"{facts} {gift} who has {owned[giver]} now ?", None, thought, people[taker])


TASKS: dict[str, Callable[[random.Random], Task]] = {"sums": sums, "count": count, "compare": compare, "look_up": look_up}
