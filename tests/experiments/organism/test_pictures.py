"""Pictures carry their information: every pictogram is its own, no word is cut off, every shape is there."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import ndimage
from thoughtlens.experiments.organism.pictures import GREY, SHAPES, pictogram, rendered, shape_grid
from thoughtlens.experiments.organism.world import CLASS_OF, KIND_OF

FILL = {"square": 1.0, "circle": 0.79, "triangle": 0.5}  # share of its box a shape covers: 1, π/4, 1/2


def painted(image: object) -> np.ndarray:
    return (np.asarray(image) != GREY).any(-1)


def test_every_object_has_a_pictogram_of_its_own_that_only_moves_and_changes_shade() -> None:
    still = {
        thing: painted(pictogram(thing, random.Random(0))).tobytes() + bytes(np.asarray(pictogram(thing, random.Random(0))).max((0, 1)))
        for thing in KIND_OF
    }
    assert len(set(still.values())) == len(KIND_OF)
    for thing in KIND_OF:
        areas = {int(painted(pictogram(thing, random.Random(seed))).sum()) for seed in range(6)}
        assert len(areas) == 1 and areas.pop() >= 14 * 14 * 3
        assert len({pictogram(thing, random.Random(seed)).tobytes() for seed in range(6)}) > 1


@pytest.mark.parametrize("word", [*KIND_OF, *CLASS_OF])
def test_no_rendered_word_is_cut_off(word: str) -> None:
    for seed in range(4):
        inked = painted(rendered([word, word], random.Random(seed), numbered=True))
        assert inked.any() and not inked[:, -1].any() and not inked[:, 0].any() and not inked[0].any() and not inked[-1].any()


def test_every_shape_of_a_grid_can_be_counted() -> None:
    stream = random.Random(3)
    for _ in range(40):
        cells = [None if stream.random() < 0.3 else stream.choice(SHAPES) for _ in range(9)]
        found, n = ndimage.label(painted(shape_grid(cells, stream)))
        seen = [min(FILL, key=lambda s: abs(FILL[s] - np.mean(found[box] == i))) for i, box in enumerate(ndimage.find_objects(found), 1)]
        assert n == sum(cell is not None for cell in cells)
        assert sorted(seen) == sorted(cell for cell in cells if cell)
