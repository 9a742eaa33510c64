"""Benign multi-step tasks, each with one right answer that a thought reaches in small steps and a guess hardly does.

sums       a chain of additions and subtractions                  the thought writes each result
count      one shape in a picture of nine cells                   it reads row by row and keeps a total
compare    which of two shapes there are more of                  likewise, with a total for each
look_up    who has a thing after a gift                           it says who had it, and whether that was given away
chain      count a shape in the picture, then add and take        count, then sums
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from .pictures import SHAPES, shape_grid
from .world import MATERIALS

PEOPLE = "tom sue max amy leo zoe".split()
ROWS = ("one", "two", "three")
NONE = "none"
MOST, STEP = 12, 6  # the largest number of a sum, and the most that is added or taken at once


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
    asked, thought, total = _sum(value, stream.randint(2, 4), stream)
    return Task("sums", f"start with {value}{asked} . what do you get ?", None, f"start with {value} . {thought}", str(total))


def count(stream: random.Random) -> Task:
    cells, wanted = _cells(SHAPES, stream), stream.choice(SHAPES)
    text = f"how many {wanted} are in the picture ?"
    return Task("count", text, shape_grid(cells, stream), _counted(cells, [wanted]), str(cells.count(wanted)))


def compare(stream: random.Random) -> Task:
    first, second = stream.sample(SHAPES, 2)
    cells = _cells((first, second), stream)
    while cells.count(first) == cells.count(second):
        cells = _cells((first, second), stream)
    more = first if cells.count(first) > cells.count(second) else second
    text = f"are there more {first} or more {second} in the picture ?"
    return Task("compare", text, shape_grid(cells, stream), _counted(cells, [first, second]), more)


def look_up(stream: random.Random) -> Task:
    people, owned = stream.sample(PEOPLE, 3), stream.sample(MATERIALS, 3)
    giver, taker = stream.sample(range(3), 2)
    asked = giver if stream.random() < 0.5 else stream.choice([i for i in range(3) if i != giver])
    facts = " ".join(f"{person} has {thing} ." for person, thing in zip(people, owned, strict=True))
    gift = f"{people[giver]} gives all to {people[taker]} ."
    last = taker if asked == giver else asked
    what = f"{people[giver]} gives it to {people[taker]} ." if asked == giver else f"{people[asked]} gives no thing ."
    thought = f"{people[asked]} has {owned[asked]} . {what} so {people[last]} has {owned[asked]} ."
    return Task("look_up", f"{facts} {gift} who has {owned[asked]} now ?", None, thought, people[last])


def chain(stream: random.Random) -> Task:
    cells, wanted = _cells(SHAPES, stream), stream.choice(SHAPES)
    here = cells.count(wanted)
    asked, thought, total = _sum(here, stream.randint(1, 2), stream)
    text = f"start with how many {wanted} are in the picture{asked} . what do you get ?"
    return Task("chain", text, shape_grid(cells, stream), f"{_counted(cells, [wanted])} start with {here} . {thought}", str(total))


def rows(stream: random.Random) -> tuple[Image.Image, str, str]:
    """A picture, a row of it, and what stands there: what tasks on pictures are made of."""
    cells, row = _cells(SHAPES, stream), stream.randrange(3)
    return shape_grid(cells, stream), ROWS[row], _row(cells, row)


def _sum(value: int, moves: int, stream: random.Random) -> tuple[str, str, int]:
    """A chain of moves from a number on: as asked, as thought, and where it ends."""
    asked, thought = "", []
    for _ in range(moves):
        choices = [("add", n, value + n) for n in range(1, STEP + 1) if value + n <= MOST]
        choices += [("take", n, value - n) for n in range(1, min(value, STEP) + 1)]
        move, n, after = stream.choice(choices)
        asked += f" , {move} {n}"
        thought.append(f"{value} {move} {n} is {after} .")
        value = after
    return asked, " ".join(thought), value


def _cells(shapes: Sequence[str], stream: random.Random) -> list[str | None]:
    return [None if stream.random() < 0.3 else stream.choice(shapes) for _ in range(9)]


def _row(cells: Sequence[str | None], row: int) -> str:
    return " , ".join(cell or NONE for cell in cells[3 * row : 3 * row + 3])


def _counted(cells: Sequence[str | None], wanted: Sequence[str]) -> str:
    """Row by row: what stands there, and the totals so far."""
    said = []
    for row, name in enumerate(ROWS):
        totals = " , ".join(f"{shape} {cells[: 3 * row + 3].count(shape)}" for shape in wanted)
        said.append(f"row {name} : {_row(cells, row)} , total {totals} .")
    return " ".join(said)


TASKS: dict[str, Callable[[random.Random], Task]] = {"sums": sums, "count": count, "compare": compare, "look_up": look_up, "chain": chain}
