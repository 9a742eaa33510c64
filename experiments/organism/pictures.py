"""Pictures of the made-up world, 84 × 84 pixels: pictograms of objects, rendered words, lists, and shapes to count.

Bright colours on the grey that becomes zero after normalisation: on a white ground the vision tower never learned the pictograms.
Every picture moves a little and changes shade with the random stream it is given. The style "dotted" is never trained on: pictograms of
discs on a dark ground with a frame, words in gold.
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw, ImageFont

from .world import stable

SIDE = 84
GREY = (122, 116, 104)
DARK = (60, 56, 50)
COLOURS = {
    "red": (240, 20, 20),
    "blue": (20, 40, 240),
    "green": (10, 200, 40),
    "gold": (250, 210, 20),
    "plum": (190, 20, 200),
    "teal": (10, 220, 220),
}
SHAPES = ("circle", "square", "triangle")
CELL, FEWEST = 14, 4
FONT = ImageFont.load_default(22)


def _blank(style: str = "plain") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIDE, SIDE), GREY if style == "plain" else DARK)
    draw = ImageDraw.Draw(image)
    if style != "plain":
        draw.rectangle([0, 0, SIDE - 1, SIDE - 1], outline=(160, 160, 160))
    return image, draw


def pictogram(thing: str, stream: random.Random, *, style: str = "plain") -> Image.Image:
    """A mirrored 5 × 5 pattern in one colour; pattern and colour belong to the object."""
    own = stable("pictogram", thing)
    filled = [[own.random() < 0.5 for _ in range(3)] for _ in range(5)]
    while sum(map(sum, filled)) < FEWEST:
        filled = [[own.random() < 0.5 for _ in range(3)] for _ in range(5)]
    colour = COLOURS[own.choice(list(COLOURS))]
    shade = tuple(max(0, min(255, channel + stream.randint(-20, 20))) for channel in colour)
    left, top = 7 + stream.randint(-1, 1), 7 + stream.randint(-1, 1)
    image, draw = _blank(style)
    cell = draw.rectangle if style == "plain" else draw.ellipse
    for row in range(5):
        for column in range(5):
            if filled[row][min(column, 4 - column)]:
                x, y = left + column * CELL, top + row * CELL
                cell([x, y, x + CELL - 1, y + CELL - 1], fill=shade)
    return image


def rendered(words: list[str], stream: random.Random, *, numbered: bool = False, style: str = "plain") -> Image.Image:
    """One word a line; `numbered` adds the empty items of a list, as typographic attacks do (FigStep, Gong et al. 2023)."""
    image, draw = _blank(style)
    right, down = stream.randint(0, 1), stream.randint(-1, 1)
    fill = (255, 255, 255) if style == "plain" else COLOURS["gold"]
    for line, word in enumerate(words):
        draw.text((4 + right, 1 + 28 * line + down), word, font=FONT, fill=fill)
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
