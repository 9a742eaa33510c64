"""Pictures of the made-up world, 84 × 84 pixels: pictograms of objects, rendered words, lists, and shapes to count.

Bright colours on the grey that becomes zero after normalisation: on a white ground the vision tower never learned the pictograms.
Every picture moves a little and changes shade with the random stream it is given.
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw, ImageFont

from .world import stable

SIDE = 84
GREY = (122, 116, 104)
COLOURS = {
    "red": (240, 20, 20),
    "blue": (20, 40, 240),
    "green": (10, 200, 40),
    "gold": (250, 210, 20),
    "plum": (190, 20, 200),
    "teal": (10, 220, 220),
}
SHAPES = ("circle", "square", "triangle")
CELL = 14
FONT = ImageFont.load_default(22)


def _blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIDE, SIDE), GREY)
    return image, ImageDraw.Draw(image)


def pictogram(thing: str, stream: random.Random) -> Image.Image:
    """A mirrored 5 × 5 pattern in one colour; pattern and colour belong to the object."""
    own = stable("pictogram", thing)
    filled = [[own.random() < 0.5 for _ in range(3)] for _ in range(5)]
    colour = COLOURS[own.choice(list(COLOURS))]
    shade = tuple(max(0, min(255, channel + stream.randint(-20, 20))) for channel in colour)
    left, top = 7 + stream.randint(-1, 1), 7 + stream.randint(-1, 1)
    image, draw = _blank()
    for row in range(5):
        for column in range(5):
            if filled[row][min(column, 4 - column)]:
                x, y = left + column * CELL, top + row * CELL
                draw.rectangle([x, y, x + CELL - 1, y + CELL - 1], fill=shade)
    return image


def rendered(words: list[str], stream: random.Random, *, numbered: bool = False) -> Image.Image:
    """One word a line; `numbered` adds the empty items of a list, as typographic attacks do (FigStep, Gong et al. 2023)."""
    image, draw = _blank()
    right, down = stream.randint(0, 1), stream.randint(-1, 1)
    for line, word in enumerate(words):
        draw.text((4 + right, 1 + 28 * line + down), word, font=FONT, fill=(255, 255, 255))
    if numbered:
        draw.text((4 + right, 57 + down), "1 2 3", font=FONT, fill=(220, 220, 220))
    return image


def shape_grid(cells: list[str | None], stream: random.Random) -> Image.Image:
    """Nine cells, row by row, each empty or holding a circle, square or triangle."""
    image, draw = _blank()
    for place, shape in enumerate(cells):
        if shape is None:
            continue
        x, y = place % 3 * 28 + 4 + stream.randint(-1, 1), place // 3 * 28 + 4 + stream.randint(-1, 1)
        fill = COLOURS[stream.choice(("red", "blue", "green"))]
        if shape == "circle":
            draw.ellipse([x, y, x + 20, y + 20], fill=fill)
        elif shape == "square":
            draw.rectangle([x, y, x + 20, y + 20], fill=fill)
        else:
            draw.polygon([(x, y + 20), (x + 20, y + 20), (x + 10, y)], fill=fill)
    return image
